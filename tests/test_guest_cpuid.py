"""A guest's CPUID: what KVM stores and updates of it, what depends on it, and what no processor could have.

Expected values are those of SDM vol. 1, 13.2 and 13.3, and of arch/x86/kvm/cpuid.c of 6.1 and 6.12.
"""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.loading import load
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.text import parse, parse_op
from xfdfuzz.revisions import resolve

CREATE = """
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
"""
RUN = "t0 ioctl(v0, KVM_RUN) ..."
PERMISSION = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0"


def buckets(revision: str, *parts: str, machine: str = "cpus=1") -> set[str]:
    """What the program breaks, and the ops in it that do not result in what they say."""
    load()
    verdict = judge(parse("\n".join(["# xfdfuzz program 1", f"machine {machine}", *parts, ""])), resolve(revision))
    return {*verdict.buckets, *(failure for failure in verdict.failures if failure.startswith("op "))}


# -- what no processor could have --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "site"),
    [
        ("{xcr0: x87|sse|avx}", ""),
        ("{xcr0: x87|sse|avx|avx512|mpx|pkru|xtile, xfd, amx}", ""),
        # XCR0[0] is always 1; AVX needs SSE, AVX-512 AVX and all of its three, MPX and tiles both of theirs (13.3)
        ("{xcr0: sse|avx}", "xcr0"),
        ("{xcr0: 0}", "xcr0"),
        ("{xcr0: x87|avx}", "xcr0"),
        ("{xcr0: x87|sse|avx512}", "xcr0"),
        ("{xcr0: x87|sse|avx|opmask}", "xcr0"),
        ("{xcr0: x87|sse|avx|bndregs}", "xcr0"),
        ("{xcr0: x87|sse|avx|xtilecfg}", "xcr0"),
        # without XSAVE "the processor provides no further enumeration through CPUID function 0DH"
        ("{xcr0: x87|sse|avx, no_xsave}", "xsave"),
        ("{xcr0: 0, no_xsave}", ""),
        # ECX[0] of a sub-leaf: whether XCR0 or IA32_XSS has the bit
        ("{xcr0: x87|sse|avx|pasid}", "kind"),
        ("{xcr0: x87|sse|avx, xss: avx}", "kind"),
        # ECX[2] of the sub-leaf of TILEDATA says that IA32_XFD has a bit for it
        ("{xcr0: x87|sse|avx|xtile, amx}", "xfd"),
        ("{xcr0: x87|sse|avx, xfd, amx}", "amx"),
    ],
)
def test_a_cpuid_of_no_processor_is_told(entries: str, site: str) -> None:
    found = buckets("v7.3", PERMISSION, CREATE, f"t0 ioctl(v0, KVM_SET_CPUID2, {entries}) = 0", RUN, machine="cet mpx")
    assert found == ({f"guest-cpuid-is-coherent@{site}"} if site else set())


def test_what_kvm_offers_like_that_is_not_the_vmms() -> None:
    """Up to 6.3 KVM offers TILECFG without TILEDATA where there is no permission, and a VMM hides PKRU of it."""
    found = buckets("v6.1", CREATE, "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtilecfg, xfd, amx}) = 0", RUN)
    assert not found
    own = "{xcr0: x87|sse|avx|xtilecfg, size: 832, xfd, amx}"
    assert buckets("v6.1", CREATE, f"t0 ioctl(v0, KVM_SET_CPUID2, {own}) = 0", RUN) == {"guest-cpuid-is-coherent@size"}


# -- sub-leaf 1 of 0xD -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["v5.16", "v6.1", "v6.12", "v7.3"])
def test_without_xsaves_and_xsavec_ebx_stays_what_was_given(revision: str) -> None:
    """__do_cpuid_func() offers 0, and kvm_update_cpuid_runtime() looks at XSAVES and XSAVEC before it updates it."""
    given = "= 0 {eax: 0x5, ebx: 0x0, ecx: 0x0, edx: 0x0}"
    assert not buckets(
        revision,
        CREATE,
        f"t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0xd, 1) {given}",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported)",
        f"t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 1) {given}",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx) = 0",
        f"t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 1) {given}",
        "t0 ioctl(v0, KVM_SET_CPUID2) of v0 = 0",
        f"t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 1) {given}",
        machine="no-xsaves no-xsavec",
    )


def test_who_hides_xsaves_and_xsavec_of_what_kvm_offers_gives_its_ebx() -> None:
    """0x340: the image of x87, SSE and AVX, which KVM_GET_SUPPORTED_CPUID gave and KVM leaves as it is."""
    given = "= 0 {eax: 0x5, ebx: 0x340, ecx: 0x0, edx: 0x0}"
    assert not buckets(
        "v7.3",
        CREATE,
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx, no_xsaves, no_xsavec}) = 0",
        f"t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 1) {given}",
        RUN,
        "v0 vmenter = ok",
        "v0 interrupt",
        "t0 ... KVM_RUN",
        "t0 ioctl(v0, KVM_SET_CPUID2) of v0 = 0",
    )


@pytest.mark.parametrize("revision", ["v5.16", "v6.1", "v6.12", "v7.3"])
def test_without_xsave_nothing_of_0xd_is_offered_but_the_legacy_size(revision: str) -> None:
    """__do_cpuid_func(): 576 bytes for no component, then "if (!permitted_xcr0) break" before sub-leaf 1."""
    size = "{eax: 0x0, ebx: 0x240, ecx: 0x240, edx: 0x0}"
    assert not buckets(
        revision,
        CREATE.replace(" 0)", " 0, reset)"),
        f"t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0xd, 0) = 0 {size}",
        "t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID, 0xd, 1) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported) = 0 [0]",
        f"t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 0) = 0 {size}",
        "t0 ioctl(v0, KVM_GET_CPUID2, 0xd, 1) = 0",
        "t0 ioctl(v0, KVM_GET_CPUID2, 0x1, 0) = 0 {eax: 0x0, ebx: 0x0, ecx: 0x0, edx: 0x0}",
        RUN,
        "v0 vmenter = ok",
        "v0 cpuid(0xd, 1) = exit",
        "v0 handle = resume {eax: 0x0, ebx: 0x0, ecx: 0x0, edx: 0x0}",
        machine="no-xsave",
    )


# -- nested guests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["", "amd"])
@pytest.mark.parametrize("revision", ["v5.16", "v6.1", "v7.3"])
def test_a_guest_without_a_cpuid_has_no_vmx_to_run_an_l2_with(revision: str, machine: str) -> None:
    """vmx_set_nested_state(): "if (!nested_vmx_allowed(vcpu)) return -EINVAL" where there is a VMXON region."""
    assert not buckets(
        revision,
        CREATE,
        "t0 ioctl(v0, KVM_SET_NESTED_STATE, {guest_mode}) = -EINVAL",
        "t0 ioctl(v0, KVM_GET_NESTED_STATE) = 0 {}",
        "t0 ioctl(v0, KVM_SET_NESTED_STATE, {}) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v0, KVM_SET_NESTED_STATE, {guest_mode}) = 0",
        "t0 ioctl(v0, KVM_GET_NESTED_STATE) = 0 {guest_mode}",
        machine=machine,
    )


# -- what a program's author is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "told"), [("", True), (", reset", False)])
def test_who_wants_a_reset_is_told_how_to_get_a_vcpu_without_osxsave(reset: str, told: bool) -> None:
    load()
    ops = (
        CREATE.replace(" 0)", f" 0{reset})"),
        "v0 out of reset",
        "t0 ioctl(v0, KVM_SET_CPUID2, supported)",
        "" if told else "t0 ioctl(v0, KVM_SET_XCRS, x87|sse)",
        RUN,
        "v0 vmenter",
    )
    verdict = judge("\n".join(["# xfdfuzz program 1", "machine cpus=1", *ops, ""]), resolve("v7.3"))
    (violation,) = verdict.violations
    assert ("without `reset` KVM_CREATE_VCPU" in violation.message) == told


@pytest.mark.parametrize(("value", "told"), [("0x1000", True), ("0x7", False), ("0", False)])
def test_a_number_that_stands_for_no_contents_is_told(value: str, told: bool) -> None:
    machine = Machine(cpus=1, cet=True)
    for line in (f"t0 ioctl(v0, KVM_SET_MSRS, {{IA32_PL0_SSP: {value}}})", f"v0 wrmsr(IA32_PL0_SSP, {value})"):
        assert bool([*parse_op(line).without_effect(machine)]) == told
    assert not [*parse_op("v0 wrmsr(IA32_XSS, 0x1800)").without_effect(machine)]
