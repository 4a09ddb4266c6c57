"""Choosing what to draw: the one place that uses Hypothesis' internals.

Hypothesis evaluates the preconditions of all rules at every step and draws a flag for each; with one rule per op that
costs more than everything else together.  The rules here say in their precondition which list of the
:class:`~xfdfuzz.engines.situation.Situation` must not be empty, so the enabled ones are looked up instead, and one
number is drawn among them, by weight.  And every program is drawn anew, not made from the one before
(:func:`every_example_anew`).  tests/test_selection.py notices when Hypothesis changes what this relies on:
``RuleBasedStateMachine._rules_strategy`` is a strategy that gives (rule, arguments), a rule has ``function`` and
``arguments_strategies``, and ``ConjectureRunner.generate_mutations_from()`` makes examples from an example.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.strategies import SearchStrategy

if TYPE_CHECKING:
    from xfdfuzz.engines.rules import KernelMachine
    from xfdfuzz.engines.rules.base import Rules

#: How often a rule is drawn beside the others of its area that are enabled.  Rules that only look at something, or that
#: seldom change anything, get less of the time; what carries a program on gets more.
WEIGHTS: dict[str, int] = {
    "handle_exit": 8,
    "vm_enter": 8,
    "kvm_run": 8,
    "guest_wrmsr_xfd": 8,
    "kvm_set_msrs": 8,
    "guest_tileload": 8,
    "schedule_vmm": 24,
    "execve_returns": 8,
    "migrate": 8,
    "go_on_elsewhere": 24,
    "guest_switches_lazily": 8,
    "arch_get_xcomp_guest_perm": 1,
    "arch_get_xcomp_perm": 1,
    "arch_get_xcomp_supp": 1,
    "clone_thread": 1,
    "clone_vm": 1,
    "execve": 1,
    "exit_task": 1,
    "fork": 1,
    "close_vm": 1,
    "fail_alloc": 1,
    "guest_cpuid": 1,
    "guest_sttilecfg": 1,
    "guest_tilestore": 2,
    "guest_xgetbv": 1,
    "guest_xsave": 1,
    "guest_xsaves": 1,
    "host_rdmsr": 1,
    "hotplug": 2,
    "idle": 1,
    "kvm_check_xsave2": 1,
    "kvm_get_cpuid2": 1,
    "kvm_create_vm": 1,
    "kvm_get_device_attr": 1,
    "kvm_get_fpu": 1,
    "kvm_get_msr_index_list": 1,
    "kvm_get_supported_cpuid": 1,
    "kvm_get_xcrs": 1,
    "guest_vmlaunch": 2,
    "kvm_has_device_attr": 1,
    "kvm_set_fpu": 1,
    "kvm_set_sregs": 1,
    "kvm_vm_check_xsave2": 1,
    "schedule": 2,
    "schedule_kthread": 2,
    "sigaltstack": 1,
    "sigframe_fx_only": 1,
    "sigframe_write": 1,
    "user_tilestore": 1,
    "user_wrpkru": 2,
    "user_xgetbv": 1,
    "suspend": 1,
    "user_xsave": 1,
}
DEFAULT_WEIGHT = 4

#: A rule is drawn by one number below about this.
_SLOTS = 512

#: Hypothesis draws small numbers more often than large ones, so the order counts: what carries a program on is first.
_ORDER = {name: place for place, name in enumerate(WEIGHTS)}


@contextmanager
def every_example_anew() -> Iterator[None]:
    """Hypothesis follows each example with up to six that repeat a piece of it in another place.

    So six programs of seven begin on the machine, with the boot and mostly with the ops of another; drawn anew, they
    find the known bugs several times faster (docs/performance.md).
    """
    mutate = ConjectureRunner.generate_mutations_from
    ConjectureRunner.generate_mutations_from = lambda self, data: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConjectureRunner.generate_mutations_from = mutate  # type: ignore[method-assign]


class SituatedRules(SearchStrategy[Any]):
    """Draws an enabled rule and its arguments for one machine instance."""

    def __init__(self, machine: KernelMachine, conditions: dict[str, str]) -> None:
        super().__init__()
        self._machine = machine
        self._conditions = conditions
        self._rules = {rule.function.__name__: rule for rule in machine.rules}
        self._enabled = machine.campaign.enabled_rules

    def do_draw(self, data: Any) -> Any:
        """(rule, arguments), as hypothesis.stateful.RuleStrategy gives them."""
        enabled = self._enabled_rules()
        rule = enabled[data.draw_integer(0, len(enabled) - 1)]
        return rule, {name: data.draw(strategy) for name, strategy in rule.arguments_strategies.items()}

    def _enabled_rules(self) -> tuple[Any, ...]:
        now = self._machine.now.possible()
        if now not in self._enabled:
            names = [name for name, condition in self._conditions.items() if condition in now]
            names.sort(key=_place)
            slots = self._slots(names)
            self._enabled[now] = tuple(self._rules[name] for name in names for _ in range(slots[name]))
        return self._enabled[now]

    def _slots(self, names: list[str]) -> dict[str, int]:
        """Each area gets its share, however many rules it has; within it the weights count."""
        areas = {name: self._area(name) for name in names}
        weights = {name: WEIGHTS.get(name, DEFAULT_WEIGHT) for name in names}
        totals = {area: sum(weights[name] for name in names if areas[name] is area) for area in set(areas.values())}
        every = sum(area.SHARE for area in totals)
        return {
            name: max(1, round(_SLOTS * areas[name].SHARE / every * weights[name] / totals[areas[name]]))
            for name in names
        }

    def _area(self, name: str) -> type[Rules]:
        """The class that defines the rule."""
        return next(cls for cls in type(self._machine).__mro__ if name in vars(cls))


def _place(name: str) -> tuple[bool, int, str]:
    weight = WEIGHTS.get(name, DEFAULT_WEIGHT)
    return weight < DEFAULT_WEIGHT, _ORDER.get(name, len(_ORDER)), name
