"""Which rule comes next, for every engine: one number among the slots of the enabled rules.

A rule says in its declaration which list of the :class:`~xfdfuzz.engines.rules.situation.Situation` must not be empty,
so the enabled ones are looked up.  All have as many slots; how many of them count is another matter in each program.

Each program belongs to a *swarm* (Groce et al., "Swarm testing", ISSTA 2012), in which some rules come often, some
seldom, and some not at all.  What comes often gets further, and little else undoes what it has led to.  Two swarms of
three draw that for each rule; the others go by what is known of the rules, which carry a program on and which only look
at something, and do without some of them.  To the known bugs the mixture takes less time than either, and than rules
that come all alike (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from random import Random
from types import MappingProxyType

from xfdfuzz.engines.rules import RULES, EveryRule, Rule
from xfdfuzz.engines.rules.base import Rules

#: So many slots each enabled rule has, and so many of them count where it comes as often as any.
FULL = 64
#: So many swarms there are; in number 0 every rule comes as often as any.
SWARMS = 1024
#: How many slots of a rule may count where that is drawn for each.
_DRAWN = (FULL, FULL // 4, FULL // 16)
#: Of the swarms that go by what is known: how much of the rules they do without; what takes many has half of them.
_WITHOUT = (0.0, 0.0, 0.25, 0.5)
#: From a slot that does not count to the next: a prime, so that all are tried unless it divides their number.
_STRIDE = 397

#: How many slots of each rule count.
Weights = Mapping[Rule, int]

#: What carries a program on, against 4 of other rules.
_OFTEN = {
    **dict.fromkeys(("handle_exit", "vm_enter", "kvm_run", "guest_wrmsr_xfd", "kvm_set_msrs", "guest_tileload"), 8),
    **dict.fromkeys(("execve_returns", "migrate", "guest_switches_lazily", "kernel_fpu_end", "hotplug_ends"), 8),
    "guest_interrupt_kernel_fpu": 8,
    "preempted": 16,
    "schedule_vmm": 24,
    "go_on_elsewhere": 24,
}
#: What only looks at something, or seldom changes anything.
_SELDOM = {
    **dict.fromkeys(("arch_get_xcomp_guest_perm", "arch_get_xcomp_perm", "arch_get_xcomp_supp", "sigaltstack"), 1),
    **dict.fromkeys(("clone_thread", "clone_vm", "execve", "exit_task", "fork", "idle", "suspend", "fail_alloc"), 1),
    **dict.fromkeys(("guest_cpuid", "guest_sttilecfg", "guest_xgetbv", "guest_xsave", "guest_xsaves"), 1),
    **dict.fromkeys(("kvm_create_vm", "close_vm", "kvm_get_cpuid2", "kvm_get_supported_cpuid", "kvm_get_xcrs"), 1),
    **dict.fromkeys(("kvm_get_device_attr", "kvm_has_device_attr", "kvm_get_msr_index_list", "kvm_set_sregs"), 1),
    **dict.fromkeys(("kvm_check_xsave2", "kvm_vm_check_xsave2", "kvm_get_fpu", "kvm_set_fpu", "host_rdmsr"), 1),
    **dict.fromkeys(("guest_fld", "guest_fxsave", "guest_mov_cr4", "guest_movups", "guest_vextractf128"), 1),
    **dict.fromkeys(("guest_ldmxcsr", "guest_stmxcsr", "user_ldmxcsr", "user_stmxcsr"), 1),
    **dict.fromkeys(("ptrace_get_fpregs", "ptrace_set_fpregs", "ptrace_get_ssp", "ptrace_set_ssp"), 1),
    **dict.fromkeys(("ptrace_get_xfpregs", "ptrace_set_xfpregs", "ptrace_old_get_fpregs", "ptrace_old_set_fpregs"), 1),
    **dict.fromkeys(("ptrace_old_get_xfpregs", "ptrace_old_set_xfpregs", "execve_returns_ia32", "begin_ia32"), 1),
    **dict.fromkeys(("siglongjmp_at_once", "signal_faults", "signal_fault_in", "signal_pkey"), 1),
    **dict.fromkeys(("guest_emulated_load", "guest_emulated_store", "guest_emulated_fnstcw", "guest_hypercall_xmm"), 1),
    **dict.fromkeys(
        (
            "guest_shutdown",
            "guest_user_xsetbv",
            "kvm_create_irqchip",
            "create_vm_with_ap",
            "kvm_set_mp_state",
            "pend_sipi",
        ),
        1,
    ),
    **dict.fromkeys(("hotplug_starts", "hardirq_now", "kernel_fpu_begin", "kthread_kernel_fpu"), 1),
    **dict.fromkeys(("kvm_get_nested_state", "kvm_set_nested_state"), 1),
    **dict.fromkeys(("kvm_set_regs", "siglongjmp", "kvm_get_cpuid2_entry", "kvm_get_supported_cpuid_entry"), 1),
    **dict.fromkeys(("guest_tilezero", "guest_xrstors", "user_fld", "user_movups"), 1),
    **dict.fromkeys(("kvm_create_vm_of_type", "kvm_sev_es_init", "kvm_sev_launch_update_vmsa"), 1),
    **dict.fromkeys(("kvm_sev_snp_launch_start", "kvm_sev_snp_launch_finish", "kvm_move_enc_context_from"), 1),
    **dict.fromkeys(("kvm_enable_cap_exception_payload", "kvm_set_vcpu_events_pending"), 1),
    **dict.fromkeys(("kvm_set_vcpu_events_latched", "kvm_get_sregs"), 1),
    **dict.fromkeys(("create_io_thread", "worker_copy_from_user", "read_arch_status", "shstk_disable"), 1),
    **dict.fromkeys(("read_arch_status_of_kthread", "open_dsa", "user_enqcmd", "shstk_enable"), 1),
    **dict.fromkeys(("pmi", "init_at_once"), 1),
    **dict.fromkeys(("sigframe_new", "sigframe_fpstate", "sigframe_own", "sigframe_own_copy"), 1),
    **dict.fromkeys(("restore_by_made_frame", "user_getauxval"), 1),
    **dict.fromkeys(("vfork", "signal_on_the_same_stack"), 1),
    **dict.fromkeys(("shstk_lock", "shstk_unlock", "shstk_status", "ptrace_shstk_unlock"), 1),
    **dict.fromkeys(("guest_rdssp", "kvm_get_one_reg", "kvm_set_one_msr", "kvm_get_reg_list"), 1),
    **dict.fromkeys(("user_xsavec", "user_fxsave", "user_fxrstor", "user_vextractf128", "user_sttilecfg"), 1),
    **dict.fromkeys(("user_tilezero", "user_rdpkru", "user_cpuid", "guest_fxrstor"), 1),
    **dict.fromkeys(("change_vcpu", "change_xstate", "sigframe_change"), 1),
    **dict.fromkeys(
        (
            "sigframe_copy",
            "sigframe_legacy",
            "sigframe_sw_reserved",
            "sigframe_write",
            "user_xgetbv",
            "user_xsave",
            "user_getauxval",
        ),
        1,
    ),
    **dict.fromkeys(("guest_tilestore", "guest_vmlaunch", "hotplug", "schedule", "schedule_kthread", "user_wrpkru"), 2),
    **dict.fromkeys(("child_first", "coredump", "seal_and_run", "migrate_within_host", "stop_protected"), 2),
    **dict.fromkeys(("signal_preempted", "set_xsave_then_less", "sigreturn_preempted"), 2),
}
KNOWN_WEIGHTS = _OFTEN | _SELDOM


@cache
def weights(swarm: int) -> Weights:
    """How often the rules come in the programs of a swarm: for each, how many of its :data:`FULL` slots count."""
    random = Random(swarm)
    if not swarm:
        counting = dict.fromkeys(RULES.values(), FULL)
    elif swarm % 3:
        counting = {rule: random.choice(_DRAWN) for rule in RULES.values()}
    else:
        share = random.choice(_WITHOUT)
        counting = {rule: 0 if random.random() < share else slots for rule, slots in _known().items()}
    return MappingProxyType(counting)


@cache
def _known() -> Weights:
    """By what is known of the rules: each area has its share, however many rules it has; within it weights count."""
    totals: dict[type[Rules], int] = {}
    for rule in RULES.values():
        totals[area_of(rule)] = totals.get(area_of(rule), 0) + _weight(rule)
    often = {rule: area_of(rule).SHARE * _weight(rule) / totals[area_of(rule)] for rule in RULES.values()}
    most = max(often.values())
    return {rule: max(1, round(FULL * value / most)) for rule, value in often.items()}


def _weight(rule: Rule) -> int:
    return KNOWN_WEIGHTS.get(rule.name, 4)


@lru_cache(maxsize=4096)
def enabled_rules(possible: frozenset[str]) -> tuple[Rule, ...]:
    """The rules enabled where these lists of the situation are not empty, in the order of their slots."""
    return tuple(rule for rule in RULES.values() if rule.condition in possible)


def chosen(enabled: Sequence[Rule], slot: int, counting: Weights) -> Rule:
    """The rule of a slot, from 0 to ``len(enabled) * FULL - 1``; if it does not count, that of another one far away.

    So a number means the same rule in every program in which that slot of it counts.
    """
    for _ in range(len(enabled) * FULL):
        rule = enabled[slot // FULL]
        if slot % FULL < counting[rule]:
            return rule
        slot = (slot + _STRIDE) % (len(enabled) * FULL)
    return enabled[slot // FULL]


def area_of(rule: Rule) -> type[Rules]:
    """The class that defines the rule."""
    return next(cls for cls in EveryRule.__mro__ if issubclass(cls, Rules) and rule.name in vars(cls))
