"""Which rule comes next, for every engine: each area of rules has its share, and within it weights count.

A rule says in its declaration which list of the :class:`~xfdfuzz.engines.rules.situation.Situation` must not be empty,
so the enabled ones are looked up, and one number is drawn among their slots.

No program has to have everything: each belongs to a *swarm*, which does without some rules (Groce et al., "Swarm
testing", ISSTA 2012).  What is left comes more often, and nothing else undoes what it has led to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import NamedTuple

from xfdfuzz.engines.rules import RULES, EveryRule, Rule
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
    "preempted": 16,
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


@cache
def slots(possible: frozenset[str]) -> tuple[Rule, ...]:
    """The rules enabled where these lists of the situation are not empty, each as often as it shall be drawn.

    Each area gets its share, however many rules it has; within it the weights count.
    """
    enabled = [one for one in _weighed() if one.rule.condition in possible]
    totals: dict[type[Rules], int] = {}
    for _, weight, where in enabled:
        totals[where] = totals.get(where, 0) + weight
    every = sum(where.SHARE for where in totals)
    found: list[Rule] = []
    for rule, weight, where in enabled:
        found += [rule] * max(1, round(_SLOTS * where.SHARE / every * weight / totals[where]))
    return tuple(found)


#: So many swarms there are; number 0 has every rule.
SWARMS = 1024
#: How much of the rules the programs of a swarm do without; half of the swarms have all, for what takes many.
_WITHOUT = (0.0, 0.0, 0.25, 0.5)
#: From a slot whose rule is left out to the next: a prime, so that all are tried unless it divides their number.
_STRIDE = 197


@cache
def left_out(swarm: int) -> frozenset[Rule]:
    """The rules that the programs of a swarm do without, unless no other is enabled."""
    random = Random(swarm)
    share = random.choice(_WITHOUT) if swarm else 0.0
    return frozenset(rule for rule in RULES.values() if random.random() < share)


def chosen(enabled: Sequence[Rule], slot: int, without: frozenset[Rule]) -> Rule:
    """The rule of a slot of :func:`slots`; if it is left out, that of another slot far away.

    So a number means the same rule in every swarm that has it.
    """
    for _ in enabled:
        if enabled[slot] not in without:
            break
        slot = (slot + _STRIDE) % len(enabled)
    return enabled[slot]


class _Weighed(NamedTuple):
    rule: Rule
    weight: int
    area: type[Rules]


@cache
def _weighed() -> list[_Weighed]:
    """Every rule, in the order of its slots."""
    rules = sorted(RULES.values(), key=_place)
    return [_Weighed(rule, WEIGHTS.get(rule.name, DEFAULT_WEIGHT), area(rule)) for rule in rules]


def area(rule: Rule) -> type[Rules]:
    """The class that defines the rule."""
    return next(cls for cls in EveryRule.__mro__ if issubclass(cls, Rules) and rule.name in vars(cls))


def _place(rule: Rule) -> tuple[bool, int, str]:
    weight = WEIGHTS.get(rule.name, DEFAULT_WEIGHT)
    return weight < DEFAULT_WEIGHT, _ORDER.get(rule.name, len(_ORDER)), rule.name
