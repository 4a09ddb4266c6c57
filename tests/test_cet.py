"""CET of guests: what KVM's source says of each register (v6.18, the series of 19 September 2025, v16)."""

from __future__ import annotations

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

BY_IBT = ("IA32_U_CET", "IA32_S_CET")
BY_SHSTK = ("IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP", "IA32_PL3_SSP", "IA32_INT_SSP_TAB")
MSRS = (*BY_IBT, *BY_SHSTK)


def guest(flags: str = "") -> str:
    """A vCPU whose guest has CET, but for what the flags of KVM_SET_CPUID2 take away."""
    return f"""
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse|avx, xss: cet_user|cet_kernel{flags}}}) = 0
"""


ENTERED = "t0 ioctl(v0, KVM_RUN) ... = ok\nv0 vmenter = ok\n"
LEFT = "v0 interrupt = exit\nt0 ... KVM_RUN = -EINTR\n"


def wrong(*parts: str, revision: str = "v7.3", machine: str = "cpus=1 cet") -> list[str]:
    """The results that did not come out, and what is broken."""
    verdict = judge(parse("\n".join(["# xfdfuzz program 1", f"machine {machine}", *parts])), resolve(revision))
    results = [failure for failure in verdict.failures if failure.startswith("op ")]
    return [*results, *(violation.invariant for violation in verdict.violations)]


def each(registers: tuple[str, ...], line: str) -> str:
    """A line for each register, in whose place it has @."""
    return "\n".join(line.replace("@", register) for register in registers)


@pytest.mark.parametrize("machine", ["cpus=1 cet", "cpus=1 cet amd"])
def test_user_space_gets_what_it_has_set_and_so_does_the_guest(machine: str) -> None:
    """__kvm_set_msr(), __kvm_get_msr(): host_initiated or not, where the guest has shadow stacks."""
    assert not wrong(
        guest(),
        each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 1"),
        each(MSRS, "t0 ioctl(v0, KVM_GET_MSRS, @) = 1 [v0:3]"),
        each(MSRS, "t0 ioctl(v0, KVM_GET_ONE_REG, @) = 0 [v0:3]"),
        ENTERED,
        each(MSRS[:-1], "v0 rdmsr(@) = ok [v0:3]"),
        each(MSRS[:-1], "v0 wrmsr(@, 0x4) = ok"),
        LEFT,
        each(MSRS[:-1], "t0 ioctl(v0, KVM_GET_MSRS, @) = 1 [v0:4]"),
        machine=machine,
    )


@pytest.mark.parametrize("machine", ["cpus=1 cet", "cpus=1 cet amd"])
def test_the_table_of_interrupts_alone_is_not_passed_through(machine: str) -> None:
    """vmx_recalc_msr_intercepts() and svm_recalc_msr_intercepts() do not name MSR_IA32_INT_SSP_TAB."""
    written = "v0 wrmsr(IA32_INT_SSP_TAB, 0x5) = exit\nv0 handle = resume\nv0 vmenter = ok\n"
    read = "v0 rdmsr(IA32_INT_SSP_TAB) = exit\nv0 handle = resume [v0:5]\n"
    assert not wrong(guest(), ENTERED, written, read, machine=machine)


@pytest.mark.parametrize("register", [*MSRS, "SSP"])
def test_what_a_register_cannot_hold_is_refused(register: str) -> None:
    """kvm_is_valid_u_s_cet(), is_noncanonical_msr_address(), IS_ALIGNED(): 1, which is #GP for the guest."""
    refused = f"t0 ioctl(v0, KVM_SET_ONE_REG, {register}, 0x8) = -EINVAL"
    assert not wrong(guest(), refused, f"t0 ioctl(v0, KVM_GET_ONE_REG, {register}) = 0 [init]")
    if register in MSRS:
        assert not wrong(guest(), f"t0 ioctl(v0, KVM_SET_MSRS, {{{register}: 0x8}}) = 0")
    if register in MSRS[:-1]:
        assert not wrong(guest(), ENTERED, f"v0 wrmsr({register}, 0x8) = #GP")


def test_ibt_alone_has_its_two_msrs() -> None:
    """guest_cpu_cap_has() of SHSTK or IBT for U_CET and S_CET, of SHSTK for the rest: KVM_MSR_RET_UNSUPPORTED."""
    assert not wrong(
        guest(", no_shstk"),
        each(BY_IBT, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 1"),
        each(BY_SHSTK, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 0"),
        each(BY_SHSTK, "t0 ioctl(v0, KVM_SET_ONE_REG, @, 0x3) = -EINVAL"),
        "t0 ioctl(v0, KVM_GET_ONE_REG, SSP) = -EINVAL",
        "t0 ioctl(v0, KVM_SET_ONE_REG, SSP, 0) = -EINVAL",
        "t0 ioctl(v0, KVM_GET_REG_LIST, 1) = 0 [0x0]",
        # kvm_do_msr_access(): what is advertised is 0, and may be written as that
        each(BY_SHSTK, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0}) = 1"),
        each(BY_SHSTK, "t0 ioctl(v0, KVM_GET_MSRS, @) = 1 [init]"),
        ENTERED,
        each(BY_IBT, "v0 rdmsr(@) = ok [v0:3]"),
        "v0 rdssp = ok",
        "v0 rstorssp(1) = #UD",
        "v0 rdmsr(IA32_PL3_SSP) = exit\nv0 handle = resume\nv0 vmenter = #GP",
    )


def test_shadow_stacks_without_ibt_have_all() -> None:
    assert not wrong(
        guest(", no_ibt"),
        each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 1"),
        "t0 ioctl(v0, KVM_SET_ONE_REG, SSP, 0x2) = 0",
        ENTERED,
        "v0 rdssp = ok [v0:2]",
    )


def test_a_guest_with_neither_has_none() -> None:
    assert not wrong(
        guest(", no_shstk, no_ibt"),
        each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 0"),
        each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0}) = 1"),
        each(MSRS, "t0 ioctl(kvm, KVM_GET_MSR_INDEX_LIST, @) = 0 [0x1]"),
    )


def test_what_a_guest_that_has_lost_cet_had_is_no_vmms_any_more() -> None:
    """KVM gives 0 for an MSR that it lists and the guest lacks (x86.c, kvm_do_msr_access()), whatever is in it."""
    other = guest().replace("v0", "v1").replace("KVM_CREATE_VCPU, 0", "KVM_CREATE_VCPU, 1").split("\n", 2)[2]
    assert not wrong(
        guest(),
        other,
        "t0 ioctl(v1, KVM_SET_MSRS, {IA32_PL0_SSP: 0x1}) = 1",
        "t0 ioctl(v1, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v1, KVM_GET_MSRS, IA32_PL0_SSP) keep = 1 [init]",
        "t0 ioctl(v0, KVM_SET_MSRS) of v1 = 1",
        ENTERED,
        revision="v7.3-cured",
    )


def test_no_processor_of_amds_has_ibt() -> None:
    """So CPUID's IBT is none of guest_cpu_caps."""
    refused = each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 0")
    assert not wrong(guest(", no_shstk"), refused, machine="cpus=1 cet amd")


def test_who_has_sev_has_no_ibt() -> None:
    """It takes AMD's processor: no sealed guest has IBT alone, whose IA32_U_CET nobody would keep from its VMM."""
    made = guest(", no_shstk").replace("KVM_CREATE_VM)", "KVM_CREATE_VM, KVM_X86_SEV_ES_VM)")
    sealed = "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0\nt0 ioctl(v0, KVM_GET_MSRS, IA32_U_CET) = 1 [init]"
    assert not wrong("t0 arch_prctl(ARCH_SHSTK_ENABLE) = 0", made, sealed)


def test_ssp_is_the_only_register_in_the_list() -> None:
    """kvm_get_reg_list() and kvm_translate_kvm_reg(), 9d6812d41535."""
    assert not wrong(
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_GET_REG_LIST, 1) = 0 [0x0]",
        "t0 ioctl(v0, KVM_GET_ONE_REG, SSP) = -EINVAL",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx, xss: cet_user|cet_kernel}) = 0",
        "t0 ioctl(v0, KVM_GET_REG_LIST, 0) = -E2BIG [0x1]",
        "t0 ioctl(v0, KVM_GET_REG_LIST, 1) = 0 [0x1]",
        "t0 ioctl(v0, KVM_GET_ONE_REG, SSP) = 0 [init]",
    )


@pytest.mark.parametrize("register", [*MSRS, "SSP", "IA32_XFD"])
def test_there_was_no_register_before(register: str) -> None:
    """kvm_arch_vcpu_ioctl() of 6.17: EINVAL."""
    lines = (
        f"t0 ioctl(v0, KVM_GET_ONE_REG, {register}) = -EINVAL",
        f"t0 ioctl(v0, KVM_SET_ONE_REG, {register}, 0) = -EINVAL",
        "t0 ioctl(v0, KVM_GET_REG_LIST, 1) = -EINVAL",
    )
    assert not wrong(guest(), *lines, revision="v6.17.13")


def test_one_register_of_xfd_goes_the_same_way_as_an_msr() -> None:
    """kvm_set_one_msr(): EINVAL is all that user space is told."""
    assert not wrong(
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_SET_ONE_REG, IA32_XFD, 0x40000) = 0",
        "t0 ioctl(v0, KVM_GET_ONE_REG, IA32_XFD) = 0 [0x40000]",
        "t0 ioctl(v0, KVM_SET_ONE_REG, IA32_XFD, 0x10000) = -EINVAL",
        ENTERED,
        "v0 rdmsr(IA32_XFD) = ok [0x40000]",
    )


SET = f"""
{each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3}) = 1")}
t0 ioctl(v0, KVM_SET_ONE_REG, SSP, 0x2) = 0
"""


@pytest.mark.parametrize(("machine", "stays"), [("cpus=1 cet", "init"), ("cpus=1 cet amd", "v0:3")])
def test_init_clears_components_and_the_vmcs(machine: str, stays: str) -> None:
    """kvm_xstate_reset() and vmx_vcpu_reset(); init_vmcb() has nothing of CET."""
    of_vmcs = ("IA32_S_CET", "IA32_INT_SSP_TAB")
    assert not wrong(
        guest(),
        SET,
        "v0 init = ok",
        ENTERED,
        LEFT,
        each(tuple(msr for msr in MSRS if msr not in of_vmcs), "t0 ioctl(v0, KVM_GET_MSRS, @) = 1 [init]"),
        each(of_vmcs, f"t0 ioctl(v0, KVM_GET_MSRS, @) = 1 [{stays}]"),
        machine=machine,
    )


def test_the_registers_are_the_guests_while_it_runs_and_the_hosts_behind_the_exit() -> None:
    """VM entry loads, VM exit saves and loads HOST_S_CET, HOST_SSP and HOST_INTR_SSP_TABLE (584ba3ffb984)."""
    program = parse("\n".join(["# xfdfuzz program 1", "machine cpus=1 cet", guest(), SET, ENTERED, LEFT]))
    executor = Executor(resolve("v7.3").kernel, program.machine)
    places = (xf.S_CET, xf.INT_SSP_TAB, xf.SSP)
    for op in program.ops:
        executor.execute(op)
        held = [executor.kernel.cpus[0].regs.data[i] & 7 for i in places]
        assert held == ([3, 3, 2] if executor.kernel.cpus[0].guest else [0, 0, 0])


def test_what_a_vmm_gave_the_vmcb_is_sealed_with_it() -> None:
    """sev_es_sync_vmsa() copies svm->vmcb->save; PLx_SSP and U_CET of the VMSA are in no VMCB."""
    program = parse(
        "\n".join(
            [
                "# xfdfuzz program 1",
                "machine cpus=1 cet",
                guest().replace("KVM_CREATE_VM)", "KVM_CREATE_VM, KVM_X86_SEV_ES_VM)"),
                each(MSRS, "t0 ioctl(v0, KVM_SET_MSRS, {@: 0x3})"),
                "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA)",
            ]
        )
    )
    executor = Executor(resolve("v7.3").kernel, Machine(cpus=1, cet=True))
    for op in program.ops:
        executor.execute(op)
    vcpu = executor.kernel.vcpus[0]
    assert vcpu.arch.guest_state_protected
    held = {i: vcpu.vmsa.data[i] & 7 for i in xf.contents_in(xf.MASK_CET_REGISTERS)}
    assert held == {i: 3 if i in (xf.S_CET, xf.INT_SSP_TAB) else 0 for i in held}


def test_a_component_is_in_use_while_any_of_its_registers_is() -> None:
    """XINUSE speaks of components: with IA32_PL2_SSP alone XSAVES stores all of CET_KERNEL."""
    saved = "v0 xsaves(cet_kernel) = ok {xstate_bv: cet_kernel, xcomp_bv: cet_kernel|0x8000000000000000, "
    xss = "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XSS: 0x1800, IA32_PL2_SSP: 5}) = 2\n"
    assert not wrong(
        guest(), xss, ENTERED, f"{saved}cet_kernel: init, pl2_ssp: v0:5}}", "v0 wrmsr(IA32_PL2_SSP, 0) = ok"
    )
    empty = "v0 xsaves(cet_kernel) = ok {xstate_bv: 0, xcomp_bv: cet_kernel|0x8000000000000000}"
    assert not wrong(guest(), xss, ENTERED, "v0 wrmsr(IA32_PL2_SSP, 0) = ok", empty)


def test_finding_1_has_a_second_way_in() -> None:
    """KVM_SET_ONE_REG(IA32_XFD) under tile data in memory, which the cure of KVM_SET_MSRS closes as well."""
    ops = (
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|xtile, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: xtiledata, data: 1}) = 0",
        "t0 ioctl(v0, KVM_SET_ONE_REG, IA32_XFD, 0x40000) = 0",
        "t0 ioctl(v0, KVM_RUN) ...",
    )
    assert "host-xrstor-never-faults" in wrong(*ops)
    assert not wrong(*ops, revision="v7.3-cured")
