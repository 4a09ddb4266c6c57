"""Nested guests: who gets the exits of L2."""

from __future__ import annotations

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

#: L1 has disabled TILEDATA, so that its own writes of IA32_XFD no longer exit.
L1 = """\
# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx}) = 0
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile) = 0
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
v0 wrmsr(IA32_XFD, 0x40000) = ok
"""


def unexpected(*ops: str) -> list[str]:
    return list(judge(parse(L1 + "\n".join(ops)), resolve("v7.3")).failures)


def test_l2_exits_where_l1_writes_xfd_itself() -> None:
    launch = ("v0 vmlaunch = exit", "v0 handle = resume", "v0 vmenter = ok")
    assert not unexpected(*launch, "v0 wrmsr(IA32_XFD, 0x0) = exit", "v0 handle = resume", "v0 vmenter = ok")


def test_l1_gets_the_nm_that_it_asked_for() -> None:
    launch = ("v0 vmlaunch intercept-nm = exit", "v0 handle = resume", "v0 vmenter = ok")
    back = ("v0 tileload(1) = exit", "v0 handle = resume", "v0 vmenter = ok", "v0 rdmsr(IA32_XFD_ERR) = ok [0x40000]")
    assert not unexpected(*launch, *back)


def test_l2_gets_the_nm_that_l1_leaves_to_it() -> None:
    launch = ("v0 vmlaunch = exit", "v0 handle = resume", "v0 vmenter = ok")
    assert not unexpected(*launch, "v0 tileload(1) = exit", "v0 handle = resume", "v0 vmenter = #NM")


def events_behind_l2(machine: str) -> list[str]:
    """What a VMM that takes a guest out of its L2 comes to, where an exception was injected there."""
    program = f"""\
# xfdfuzz program 1
machine cpus=1{machine}

t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {{xcr0: x87|sse}}) = 0
t0 ioctl(v0, KVM_SET_NESTED_STATE, {{guest_mode}}) = 0
t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {{injected: #GP}}) = 0
t0 ioctl(v0, KVM_SET_NESTED_STATE, {{}}) = 0
t0 ioctl(v0, KVM_GET_NESTED_STATE) = 0 {{}}
t0 ioctl(v0, KVM_GET_VCPU_EVENTS)
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter
"""
    verdict = judge(parse(program), resolve("v7.3"))
    assert verdict.ok
    return [str(verdict.results[number]) for number in (7, 9)]


def test_vmx_drops_what_waits_in_l2_where_that_is_left_and_svm_does_not() -> None:
    """nested_vmx_vmexit() calls kvm_clear_exception_queue(), svm_leave_nested() does not (vmx and svm/nested.c)."""
    assert events_behind_l2("") == ["0 {}", "ok"]
    assert events_behind_l2(" amd") == ["0 {injected: #GP}", "#GP"]
