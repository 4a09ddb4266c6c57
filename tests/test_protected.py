"""Every ioctl on a vCPU whose registers are sealed: what the source says that it returns, and it changes nothing."""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.ops.base import VcpuIoctl
from xfdfuzz.program.text import ProgramError, parse
from xfdfuzz.revisions import resolve

#: How a vCPU comes to be protected: one of KVM_SEV_ES_INIT's, one of SEV-ES' own type, a TD's, an SNP guest's, one of
#: the second kind that has taken over another's guest.
KINDS = {
    "default": """
        t0 ioctl(kvm, KVM_CREATE_VM) = vm0
        t0 ioctl(vm0, KVM_SEV_ES_INIT) = 0
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
        t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0
        t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0""",
    "sev-es": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm0
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
        t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0
        t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0""",
    "td": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_TDX_VM) = vm0
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
        t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0""",
    "snp": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SNP_VM) = vm0
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
        t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0
        t0 ioctl(vm0, KVM_SEV_SNP_LAUNCH_START) = 0
        t0 ioctl(vm0, KVM_SEV_SNP_LAUNCH_FINISH) = 0""",
    "moved": """
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM, init2=0) = vm0
        t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
        t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0
        t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm1
        t0 ioctl(vm1, KVM_CREATE_VCPU, 0) = v1
        t0 ioctl(vm1, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0
        t0 ioctl(vm0, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm1) = 0""",
}

#: Calls with their results in the order of KINDS, on 7.3; of an SNP guest, and a moved one, those of SEV-ES' own type,
#: but where they have their own below.
#:
#: has_protected_state && guest_state_protected is -EINVAL in KVM_SET_REGS, KVM_SET_SREGS, KVM_GET_XCRS, KVM_SET_XCRS.
#: fpstate_is_confidential() is 0 or, with has_protected_state, -EINVAL in the five that read or write the FPU.  What 0
#: shows is of kzalloc().  svm_get_msr() and svm_set_msr() refuse an MSR that the guest writes without an exit, or take
#: it for done, tdx_get_msr() and tdx_set_msr() all that are not emulated; __msr_io() returns how many were taken.
CALLS = {
    "KVM_SET_CPUID2, {xcr0: x87|sse|avx, xss: cet_user|cet_kernel}": ("0", "0", "0"),
    "KVM_SET_CPUID2, supported": ("0", "0", "0"),
    "KVM_GET_CPUID2": ("0 [x87|sse|avx|avx512|pkru]", "0 [x87|sse|avx|avx512|pkru]", "0 [x87|sse|avx|avx512|pkru]"),
    "KVM_GET_CPUID2, 0xd, 9": ("0 {eax: 0x8, ebx: 0xa80, ecx: 0x0, edx: 0x0}",) * 3,
    "KVM_SET_REGS": ("0", "-EINVAL", "-EINVAL"),
    "KVM_SET_SREGS, {}": ("0", "-EINVAL", "-EINVAL"),
    "KVM_GET_XCRS": ("0 [x87]", "-EINVAL", "-EINVAL"),
    "KVM_SET_XCRS, x87|sse": ("0", "-EINVAL", "-EINVAL"),
    "KVM_GET_XSAVE": ("0 {xstate_bv: 0, mxcsr: zero}", "-EINVAL", "-EINVAL"),
    "KVM_GET_XSAVE2": ("0 {xstate_bv: 0, mxcsr: zero}", "-EINVAL", "-EINVAL"),
    "KVM_GET_XSAVE, mapped=4095": ("-EFAULT", "-EINVAL", "-EINVAL"),
    "KVM_SET_XSAVE, {xstate_bv: avx, data: 1}": ("0", "-EINVAL", "-EINVAL"),
    "KVM_GET_FPU": ("0 {x87: zero, sse: init, mxcsr: zero}", "-EINVAL", "-EINVAL"),
    "KVM_SET_FPU, {data: 1}": ("0", "-EINVAL", "-EINVAL"),
    "KVM_GET_MSRS, IA32_U_CET": ("1 [init]", "0", "0"),
    "KVM_GET_MSRS, IA32_PL0_SSP": ("1 [init]", "0", "0"),
    "KVM_GET_MSRS, IA32_XSS": ("1 [0x0]", "1 [0x0]", "0"),
    "KVM_GET_MSRS, IA32_XFD": ("1 [0x0]", "1 [0x0]", "0"),
    "KVM_GET_MSRS, IA32_XFD_ERR": ("1 [0x0]", "1 [0x0]", "0"),
    "KVM_SET_MSRS, {IA32_U_CET: 1, IA32_XFD: 0}": ("2", "0", "0"),
    "KVM_SET_MSRS, {IA32_XFD: 0, IA32_PL0_SSP: 1}": ("2", "1", "0"),
    "KVM_GET_MP_STATE": ("0 [KVM_MP_STATE_RUNNABLE]",) * 3,
}
#: Findings 24 and 27: the FPU state of a sealed SNP guest, and of one that was moved, is not confidential.
NOT_CONFIDENTIAL = {
    "KVM_GET_XSAVE": "0",
    "KVM_GET_XSAVE2": "0",
    "KVM_GET_XSAVE, mapped=4095": "-EFAULT",
    "KVM_SET_XSAVE, {xstate_bv: avx, data: 1}": "0",
    "KVM_GET_FPU": "0",
    "KVM_SET_FPU, {data: 1}": "0",
}


def unexpected(revision: str, kind: str, *ops: str) -> list[str]:
    """What breaks, and the results that did not come out."""
    lines = [line.strip() for line in KINDS[kind].splitlines()]
    verdict = judge(parse("\n".join(["# xfdfuzz program 1", "machine cpus=1 cet", *lines, *ops])), resolve(revision))
    results = [failure for failure in verdict.failures if failure.startswith("op ")]
    return [*results, *(violation.invariant for violation in verdict.violations)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_ioctl_returns_what_the_source_says(kind: str) -> None:
    open_finding = kind in ("snp", "moved")
    nr = list(KINDS).index("sev-es" if open_finding else kind)
    results = {call: results[nr] for call, results in CALLS.items()}
    assert not unexpected("v7.3-cured", kind, *(f"t0 ioctl(v0, {call}) = {one}" for call, one in results.items()))
    if open_finding:
        results |= NOT_CONFIDENTIAL
    broken = unexpected("v7.3", kind, *(f"t0 ioctl(v0, {call}) = {one}" for call, one in results.items()))
    assert set(broken) == ({"protected-state-is-refused"} if open_finding else set())


def test_every_ioctl_of_a_vcpu_has_its_line() -> None:
    """Those that keep what they read, or write what was kept, are of VMMs that can see their guest; the exceptions,
    MP states and KVM_GET_SREGS of one that KVM cannot see, and KVM_GET_ONE_REG, are not modelled."""
    ops = parse("\n".join(["# xfdfuzz program 1", "machine cpus=1", *(f"t0 ioctl(v0, {call})" for call in CALLS)])).ops
    of_vmms = {cls.__name__ for cls in _below(VcpuIoctl) if cls.__module__.endswith(".vmm")}
    others = {"_XsaveIoctl", "_OfVisible", "KvmGetVcpuEvents", "KvmSetVcpuEvents"}
    others |= {
        "KvmGetNestedState",
        "KvmGetSregs",
        "KvmSetNestedState",
        "KvmGetOneReg",
        "KvmSetOneReg",
        "KvmGetRegList",
        "KvmSetMpState",
    }
    assert {type(op).__name__ for op in ops} == {cls.__name__ for cls in _below(VcpuIoctl)} - of_vmms - others


def _below(cls: type[VcpuIoctl]) -> set[type[VcpuIoctl]]:
    """The classes that are made from one."""
    found = set(cls.__subclasses__())
    return found.union(*map(_below, found))


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("default", "{xstate_bv: x87, x87: zero, mxcsr: zero}"),
        ("sev-es", "{xstate_bv: 0}"),
        ("snp", "{xstate_bv: 0}"),
    ],
    ids=["default", "sev-es", "snp"],
)
@pytest.mark.parametrize("revision", ["v7.3", "v7.3-cured"])
def test_a_sealed_guest_runs_as_it_was_sealed_whatever_its_vmm_calls(kind: str, found: str, revision: str) -> None:
    """The VMSA of the default type is a page of zeros, where x87 and MXCSR are concerned (sev_es_sync_vmsa())."""
    calls = [f"t0 ioctl(v0, {call})" for call in CALLS]
    broken = unexpected(
        revision,
        kind,
        *calls,
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 xgetbv(0) = ok [x87]",
        f"v0 fxsave = ok {found}",
        "v0 xsetbv(x87|sse|avx) = ok",
        "v0 vextractf128 = ok [init]",
    )
    assert set(broken) <= ({"protected-state-is-refused"} if (kind, revision) == ("snp", "v7.3") else set())


def test_what_27bd5fdc24c0_refuses_was_open_before_it() -> None:
    xss = "t0 ioctl(v0, KVM_GET_MSRS, IA32_XSS)"
    assert not unexpected("v6.6", "default", f"{xss} = 1 [0x0]")
    assert not unexpected("v6.12", "default", f"{xss} = 1 [0x0]")
    assert not unexpected("v6.12", "sev-es", f"{xss} = 0")


def test_kvm_goes_by_the_xcr0_that_the_guest_tells_if_its_cpuid_has_it() -> None:
    """4135a9a8ccba (6.18): what the guest's CPUID lacks is not taken, and the size stays that of XCR0 = x87."""
    told = (
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 xsetbv(x87|sse|avx|avx512) = ok",
        "v0 cpuid(0xd, 0) = exit",
        "v0 handle = resume {eax: 0x7, ebx: %s, ecx: 0x340, edx: 0x0}",
    )
    assert not unexpected("v6.12", "sev-es", *told[:-1], told[-1] % "0xa80")
    assert not unexpected("v7.3", "sev-es", *told[:-1], told[-1] % "0x240")


@pytest.mark.parametrize("kind", ["td", "snp"])
def test_cpuid_of_a_td_is_the_tdx_modules_and_of_an_snp_guest_its_pages(kind: str) -> None:
    assert not unexpected(
        "v7.3", kind, "t0 ioctl(v0, KVM_RUN) ... = ok", "v0 vmenter = ok", "v0 cpuid(0xd, 0) = not-enabled"
    )


def test_a_vcpu_that_comes_after_the_launch_is_never_sealed() -> None:
    """The first one is refused as it is sealed, and the second by the firmware, which has launched the guest."""
    again = ("t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1", "t0 ioctl(vm0, KVM_SEV_SNP_LAUNCH_FINISH) = -EINVAL")
    assert not unexpected("v7.3", "snp", *again, "t0 ioctl(v1, KVM_RUN) ... = not-enabled")
    assert unexpected("v6.18", "snp", again[0], again[1].split(" = ")[0]) == ["host-kernel-never-oopses"]


def test_what_the_vmm_has_written_itself_is_no_leak() -> None:
    """It is not what the guest has, but nobody learns anything from it."""
    given = ("t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx, data: 1})", "t0 ioctl(v0, KVM_GET_XSAVE2)")
    assert set(unexpected("v7.3", "snp", *given)) == {"protected-state-is-refused"}


#: A guest of the default type that has run is moved from v1 to v0, whose VMM has written to it before.
MOVED = (
    "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
    "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
    "t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0",
    "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: sse, data: 4}) = 0",
    "t0 ioctl(kvm, KVM_CREATE_VM) = vm1",
    "t0 ioctl(vm1, KVM_SEV_ES_INIT) = 0",
    "t0 ioctl(vm1, KVM_CREATE_VCPU, 0) = v1",
    "t0 ioctl(vm1, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0",
    "t0 ioctl(v1, KVM_RUN) ... = ok",
    "v1 vmenter = ok",
    "v1 movups(2) = ok",
    "v1 hlt = exit",
    "v1 handle = exit",
    "t0 ... KVM_RUN = KVM_EXIT_HLT",
    "t0 ioctl(vm0, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm1) = 0",
)


def of_moved(revision: str, *ops: str) -> list[str]:
    """What breaks behind that, and the results that did not come out."""
    verdict = judge(parse("\n".join(["# xfdfuzz program 1", "machine cpus=1", *MOVED, *ops])), resolve(revision))
    results = [failure for failure in verdict.failures if failure.startswith("op ")]
    return [*results, *(violation.invariant for violation in verdict.violations)]


@pytest.mark.parametrize("revision", ["v5.16", "v6.6", "v7.3"])
def test_what_a_vcpu_had_before_it_took_over_a_guest_is_no_secret(revision: str) -> None:
    """KVM's FPU state is the VMM's until the guest leaves its initial registers there (__svm_sev_es_vcpu_run())."""
    shows = "t0 ioctl(v0, KVM_GET_XSAVE) = 0 {xstate_bv: %s}"
    run = (
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 fxsave = ok {%s}",
        "v0 hlt = exit",
        "v0 handle = exit",
    )
    found = "xstate_bv: x87|sse, x87: zero, sse: v1:2, mxcsr: zero"
    assert not of_moved(
        revision, shows % "sse, sse: v0:4", *(op.replace("%s", found) for op in run), "t0 ... KVM_RUN = KVM_EXIT_HLT"
    )


def test_of_the_default_type_the_calls_return_0_in_any_case() -> None:
    """fpstate_is_confidential() is the cure's; else nobody is told anything by it."""
    assert not of_moved(
        "v7.3-cured",
        "t0 ioctl(v0, KVM_GET_XSAVE) = 0 {xstate_bv: 0, mxcsr: zero}",
        "t0 ioctl(v0, KVM_SET_FPU, {data: 1}) = 0",
    )


def test_no_init_is_sent_to_who_is_going_to_be_sealed() -> None:
    """KVM would reset its own copy of CR4, and the guest that was sealed goes on with the one in its VMSA."""
    text = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm0\n"
    verdict = judge(f"{text}t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0\nv0 init = not-enabled\n", "v7.3-cured")
    assert verdict.ok, verdict.failures


def test_an_out_that_waits_for_user_space_stays_where_it_was_made() -> None:
    """Its VMM has not entered KVM_RUN once more, as it has to before a guest goes elsewhere (api.rst)."""
    program = """\
# xfdfuzz program 1
machine cpus=1

t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(kvm, KVM_CREATE_VM) = vm1
t0 ioctl(vm0, KVM_SEV_ES_INIT) = 0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
v0 out = exit
v0 handle = exit
t0 ... KVM_RUN = KVM_EXIT_IO
t0 ioctl(vm1, KVM_CREATE_VCPU, 0) = v1
t0 ioctl(vm1, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm0) = 0
t0 ioctl(v1, KVM_RUN) ... = ok
v1 vmenter = ok
"""
    assert judge(program, "v7.3-cured").ok


def test_a_vm_takes_over_a_guest_that_another_process_has_made() -> None:
    """It takes the source's descriptor: kvm_vm_ioctl() asks for the address space of the VM itself alone."""
    assert not of_moved(
        "v7.3-cured",
        "t0 fork = t2",
        "cpu0 schedule(t2)",
        "t2 ioctl(kvm, KVM_CREATE_VM) = vm2",
        "t2 ioctl(vm2, KVM_CREATE_VCPU, 0) = v2",
        "t2 ioctl(vm0, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm2) = -EIO",
        "t2 ioctl(vm2, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm0) = 0",
        "t2 ioctl(v2, KVM_RUN) ... = ok",
        "v2 vmenter = ok",
        "v2 fxsave = ok {xstate_bv: x87|sse, x87: zero, sse: v1:2, mxcsr: zero}",
    )


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ("t0 ioctl(v2, KVM_SET_VCPU_EVENTS, {injected: #GP}) = 0", "v2 has an L2, an exception or an INIT"),
        ("v2 init = ok", "v2 has an L2, an exception or an INIT"),
    ],
)
def test_who_has_something_to_deliver_takes_over_no_guest(op: str, why: str) -> None:
    move = "t0 ioctl(vm2, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm0) = not-enabled"
    made = ("t0 ioctl(kvm, KVM_CREATE_VM) = vm2", "t0 ioctl(vm2, KVM_CREATE_VCPU, 0) = v2")
    assert not of_moved("v7.3-cured", *made, op, move), why


def test_init2_is_0_or_1() -> None:
    with pytest.raises(ProgramError, match="init2=N, where N is a number from 0 to 1"):
        parse("# xfdfuzz program 1\nmachine cpus=1\nt0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM, init2=2)\n")


# -- what a VMM means, and keeps -------------------------------------------------------------------------------------

#: A vCPU of each VM type, as it comes out of reset.
BEFORE_SEALING = {
    "default": ("t0 ioctl(kvm, KVM_CREATE_VM) = vm0", "t0 ioctl(vm0, KVM_SEV_ES_INIT) = 0"),
    "sev-es": ("t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm0",),
}
RUN = ("t0 ioctl(v0, KVM_RUN) ... = ok", "v0 vmenter = ok")


def of_procedure(revision: str, kind: str, *ops: str) -> list[str]:
    """What breaks, with where, and the results that did not come out."""
    made = (*BEFORE_SEALING[kind], "t0 ioctl(vm0, KVM_CREATE_VCPU, 0, reset) = v0")
    cpuid = "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0"
    verdict = judge(parse("\n".join(["# xfdfuzz program 1", "machine cpus=1", *made, cpuid, *ops])), resolve(revision))
    results = [failure for failure in verdict.failures if failure.startswith("op ")]
    return [*results, *(violation.bucket for violation in verdict.violations)]


#: A VMM that sets FCW and MXCSR before it seals (eb4441864e03).
SEALED_AS_RESET = (
    "v0 out of reset",
    "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: 0}) = 0",
    "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0",
)


def test_only_a_guest_of_its_own_type_comes_out_of_reset() -> None:
    """KVM_SEV_ES_INIT's VMSA has FCW and MXCSR 0, "to avoid breaking older measurements", whatever its VMM sets."""
    assert not of_procedure("v6.12", "sev-es", *SEALED_AS_RESET, *RUN)
    assert of_procedure("v6.12", "default", *SEALED_AS_RESET, *RUN) == [
        "reset-is-a-reset@x87",
        "reset-is-a-reset@mxcsr",
    ]


def test_a_vmm_sets_a_guest_up_by_what_it_has_kept_until_it_seals_it() -> None:
    """What another guest had is no leak where the VMM has written it, sealed or not."""
    kept = (
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm1",
        "t0 ioctl(vm1, KVM_CREATE_VCPU, 0) = v1",
        "t0 ioctl(v1, KVM_SET_CPUID2) of v0 = 0",
        "t0 ioctl(v1, KVM_SET_XSAVE, {xstate_bv: sse|avx, data: 3}) = 0",
        "t0 ioctl(v1, KVM_GET_XSAVE) keep",
        "t0 ioctl(v0, KVM_SET_XSAVE) of v1 = 0",
        "t0 ioctl(v0, KVM_GET_XCRS) keep = 0 [x87]",
        "t0 ioctl(v0, KVM_GET_FPU) keep = 0 {x87: init, sse: v1:3, mxcsr: init}",
        "t0 ioctl(v0, KVM_GET_VCPU_EVENTS) keep = not-enabled",
    )
    runs = (*RUN, "v0 fxsave = ok {xstate_bv: sse, sse: v1:3}")
    found = set(of_procedure("v7.3-cured", "sev-es", *kept, "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0", *runs))
    assert not found


def test_of_a_sealed_guest_a_vmm_keeps_what_kvm_gives_in_its_place() -> None:
    """0 and zeros of the default type, which another vCPU then gets; -EINVAL of the others."""
    sealed = "t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0"
    assert not of_procedure(
        "v7.3-cured",
        "default",
        sealed,
        "t0 ioctl(v0, KVM_GET_XSAVE2) keep = 0 {xstate_bv: 0, mxcsr: zero}",
        "t0 ioctl(v0, KVM_GET_FPU) keep = 0 {x87: zero, sse: init, mxcsr: zero}",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm1",
        "t0 ioctl(vm1, KVM_CREATE_VCPU, 0) = v1",
        "t0 ioctl(v1, KVM_SET_XSAVE) of v0 = 0",
        "t0 ioctl(v1, KVM_GET_XSAVE2) = 0 {xstate_bv: 0}",
        "t0 ioctl(v1, KVM_SET_FPU) of v0 = 0",
        "t0 ioctl(v1, KVM_RUN) ... = ok",
        "v1 vmenter = ok",
        "v1 fxsave = ok {xstate_bv: x87, x87: zero, mxcsr: zero}",
        "v0 out of reset = not-enabled",
    )
    refused = ("KVM_GET_XSAVE) keep", "KVM_GET_FPU) keep", "KVM_GET_XCRS) keep")
    assert not of_procedure("v7.3", "sev-es", sealed, *(f"t0 ioctl(v0, {call} = -EINVAL" for call in refused))


@pytest.mark.parametrize("call", ["KVM_GET_XSAVE) keep", "KVM_GET_XSAVE2) keep", "KVM_GET_FPU) keep"])
def test_keeping_is_no_way_around_what_is_refused(call: str) -> None:
    assert unexpected("v7.3", "snp", f"t0 ioctl(v0, {call}") == ["protected-state-is-refused"]
    assert not unexpected("v7.3-cured", "snp", f"t0 ioctl(v0, {call} = -EINVAL")
