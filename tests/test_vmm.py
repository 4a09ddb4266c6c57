"""What VMMs mean to do: who is to blame for what comes of it, the fuzzer's procedures, and the table of all orders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest

from xfdfuzz.engines.compare.known import OpenFindings
from xfdfuzz.engines.compare.orders import Condition, Order, condition, words
from xfdfuzz.engines.compare.procedures import PROCEDURES, Answer, Procedure, always_safe, answer
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.invariants.vocabulary import VMM
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent

# -- whose fault it is -------------------------------------------------------------------------------------------------

#: A guest with all but tiles in use, stopped.
STOPPED = """
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|pkru|xtile, xss: cet_user|cet_kernel, xfd, amx}) = 0
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|pkru|xtile) = 0
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0, IA32_XFD_ERR: 0x40000, IA32_XSS: 0x1800, IA32_U_CET: 4, IA32_PL0_SSP: 5}) = 5
t0 ioctl(v0, KVM_SET_MSRS, {IA32_S_CET: 1, IA32_PL1_SSP: 2, IA32_PL2_SSP: 3, IA32_PL3_SSP: 4, IA32_INT_SSP_TAB: 5}) = 5
t0 ioctl(v0, KVM_RUN) ... = ok
v0 vmenter = ok
v0 fld(1) = ok
v0 movups(2) = ok
v0 vmovups(3) = ok
v0 xrstor(pkru, pkru, 6) = ok
v0 rstorssp(7) = ok
v0 interrupt
t0 ... KVM_RUN = -EINTR
"""
#: What is not in a register of the FPU.
WAITS = """
t0 ioctl(v0, KVM_SET_SREGS, {osxsave, ts}) = 0
t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {injected: #GP}) = 0
"""
KEPT = """
t0 ioctl(v0, KVM_GET_XSAVE2) keep = 0
t0 ioctl(v0, KVM_GET_VCPU_EVENTS) keep = 0
t0 ioctl(v0, KVM_GET_XCRS) keep = 0
t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD_ERR) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_XSS) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_U_CET) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_PL0_SSP) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_S_CET) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_PL1_SSP) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_PL2_SSP) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_PL3_SSP) keep = 1
t0 ioctl(v0, KVM_GET_MSRS, IA32_INT_SSP_TAB) keep = 1
t0 ioctl(v0, KVM_GET_ONE_REG, SSP) keep = 0
"""
COPY = """
t0 ioctl(vm0, KVM_CREATE_VCPU, 1, reset) = v1
v1 copy of v0
t0 ioctl(v1, KVM_SET_CPUID2) of v0 = 0
t0 ioctl(v1, KVM_SET_SREGS) of v0 = 0
t0 ioctl(v1, KVM_SET_XCRS) of v0 = 0
t0 ioctl(v1, KVM_SET_MSRS) of v0 = 9
t0 ioctl(v1, KVM_SET_ONE_REG, SSP) of v0 = 0
t0 ioctl(v1, KVM_SET_XSAVE) of v0 = 0
t0 ioctl(v1, KVM_SET_VCPU_EVENTS) of v0 = 0
"""
MSRS = (
    *("IA32_XFD_ERR", "IA32_XSS", "IA32_U_CET", "IA32_S_CET", "IA32_PL0_SSP", "IA32_PL1_SSP", "IA32_PL2_SSP"),
    *("IA32_PL3_SSP", "IA32_INT_SSP_TAB"),
)
RESET = """
v0 reset for another tenant
t0 ioctl(v0, KVM_SET_XCRS, x87) = 0
t0 ioctl(v0, KVM_SET_MSRS, ZEROS) = 9
t0 ioctl(v0, KVM_SET_ONE_REG, SSP, 0) = 0
t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|sse|avx|pkru|xtile}) = 0
t0 ioctl(v0, KVM_SET_SREGS, {}) = 0
t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {}) = 0
""".replace("ZEROS", f"{{{', '.join(f'{msr}: 0' for msr in MSRS)}}}")
CALLS = {
    "KVM_SET_SREGS": {"cr4", "cr0"},
    "KVM_SET_VCPU_EVENTS": {"exception"},
    "KVM_SET_XCRS": {"xcr0"},
    "KVM_SET_XSAVE": {"x87", "sse", "avx", "pkru"},
    "KVM_SET_MSRS": {
        *("xfd_err", "xss", "cet_user", "pl3_ssp", "cet_kernel", "pl1_ssp", "pl2_ssp", "s_cet", "int_ssp_tab"),
    },
    "KVM_SET_ONE_REG": {"ssp"},
}


def broken(*parts: str, revision: str = "v7.3-cured", machine: str = "cpus=1 cet") -> set[str]:
    """What a program breaks, by severity and site."""
    text = "\n".join(["# xfdfuzz program 1", f"machine {machine}", *parts])
    verdict = judge(text, revision)
    assert not [failure for failure in verdict.failures if failure.startswith("op ")]
    return {f"{one.severity} {one.bucket.partition('@')[2]}" for one in verdict.violations}


def entered(vcpu: str) -> str:
    return f"t0 ioctl({vcpu}, KVM_RUN) ...\n{vcpu} vmenter"


def without(call: str, lines: str) -> str:
    left = [line for line in lines.splitlines() if call not in line]
    assert len(left) == len(lines.splitlines()) - 1
    return "\n".join(left)


def test_a_whole_copy_and_a_whole_reset_are_clean() -> None:
    assert not broken(STOPPED, WAITS, KEPT, COPY, entered("v1"))
    assert not broken(STOPPED, WAITS, RESET, entered("v0"))


@pytest.mark.parametrize("call", CALLS)
def test_what_a_vmm_does_not_write_is_missed_and_nothing_else(call: str) -> None:
    missed = {f"{VMM} {site}" for site in CALLS[call]}
    assert broken(STOPPED, WAITS, KEPT, without(call, COPY), entered("v1")) == missed
    assert broken(STOPPED, WAITS, without(call, RESET), entered("v0")) == missed


@pytest.mark.parametrize(
    ("msr", "site"),
    [
        *(("IA32_XFD_ERR", "xfd_err"), ("IA32_XSS", "xss"), ("IA32_U_CET", "cet_user"), ("IA32_S_CET", "s_cet")),
        *(("IA32_PL1_SSP", "pl1_ssp"), ("IA32_PL3_SSP", "pl3_ssp"), ("IA32_INT_SSP_TAB", "int_ssp_tab")),
    ],
)
def test_an_msr_that_was_not_read_is_missed(msr: str, site: str) -> None:
    loads = COPY.replace("KVM_SET_MSRS) of v0 = 9", "KVM_SET_MSRS) of v0 = 8")
    assert broken(STOPPED, without(msr, KEPT), loads, entered("v1")) == {f"{VMM} {site}"}


def test_a_copy_without_the_cpuid_is_another_guest() -> None:
    assert f"{VMM} cpuid" in broken(STOPPED, "t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1", "v1 copy of v0", entered("v1"))


def test_what_the_guest_does_while_its_vmm_is_not_to_be_seen_counts() -> None:
    """Also when the VMM has read it before and after."""
    runs = f"{entered('v0')}\nv0 vmovups(5)\nv0 interrupt\nt0 ... KVM_RUN"
    again = "t0 ioctl(v0, KVM_GET_XSAVE2) keep\nt0 ioctl(v0, KVM_SET_XSAVE) of v0"
    assert not broken(STOPPED, "v0 invisible from here", again, runs, again, "v0 invisible to here", entered("v0"))
    old = "t0 ioctl(v0, KVM_SET_XSAVE) of v0"
    assert broken(STOPPED, "v0 invisible from here", again, runs, old, entered("v0")) == {f"{VMM} avx"}


def test_the_end_of_what_is_not_to_be_seen_is_looked_at_and_what_follows_is_not() -> None:
    changed = "t0 ioctl(v0, KVM_SET_XCRS, x87) = 0"
    hidden = "v0 invisible from here\nt0 ioctl(v0, KVM_GET_XCRS)"
    assert broken(STOPPED, hidden, changed, "v0 invisible to here") == {f"{VMM} xcr0"}
    assert not broken(STOPPED, hidden, "v0 invisible to here", changed, entered("v0"))


def test_a_vmm_is_not_to_blame_for_what_kvm_hides_from_it() -> None:
    """Finding 9: KVM_GET_XSAVE2 shows no PKRU where the VMM's own is 0."""
    hides = ("t0 wrpkru(0)", STOPPED, KEPT, COPY, entered("v1"))
    found = broken(*hides, revision="v7.3")
    assert "corruption static" in found
    assert not [one for one in found if one.startswith(VMM)]
    assert not broken(*hides)


@pytest.mark.parametrize("revision", ["v6.6", "v7.3-cured"])
def test_an_image_that_lacks_pkru_leaves_the_last_tenants_and_kvm_is_not_to_blame(revision: str) -> None:
    """KVM_GET_XSAVE shows what the CPUID has (8647c52e9504), KVM_SET_XSAVE leaves PKRU alone if XSTATE_BV lacks it."""
    ops = (
        "t0 ioctl(kvm, KVM_CREATE_VM)",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0)",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru})",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|avx512|pkru)",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: pkru, data: 1})",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 1)",
        "t0 ioctl(v1, KVM_SET_XSAVE, {xstate_bv: x87|sse|pkru, data: 1})",
        "t0 ioctl(v1, KVM_GET_XSAVE) keep = 0 {xstate_bv: x87|sse, x87: v1:1, sse: v1:1}",
        "t0 ioctl(v0, KVM_SET_XSAVE) of v1",
        "v0 reset for another tenant",
        "t0 ioctl(v0, KVM_RUN) ...",
        "v0 vmenter",
    )
    text = "\n".join(["# xfdfuzz program 1", "machine cpus=1 no-xfd no-amx", "", *ops, ""])
    verdict = judge(parse(text), resolve(revision))
    assert verdict.broken == ("reset-leaves-nothing",)
    assert "reset-leaves-nothing@pkru" in verdict.buckets


def test_each_tenant_has_contents_of_its_own() -> None:
    twice = f"{RESET}{entered('v0')}\nv0 fld(1) = ok\nv0 interrupt\nt0 ... KVM_RUN\n{RESET}{entered('v0')}"
    written = "v0 fld(2) = ok\nv0 fxsave = ok {xstate_bv: x87, x87: v0.3:2}"
    assert not broken(STOPPED, twice, written)
    # the one before left its x87 in the image that its successor gets
    left = without("KVM_SET_XSAVE", RESET)
    assert broken(
        STOPPED, RESET, entered("v0"), "v0 fld(1) = ok\nv0 interrupt\nt0 ... KVM_RUN", left, entered("v0")
    ) == {f"{VMM} x87"}


def test_a_copy_writes_the_contents_of_the_guest_that_it_is() -> None:
    assert not broken(
        STOPPED, KEPT, COPY, entered("v1"), "v1 fld(4)", "v1 fxsave = ok {xstate_bv: x87|sse, x87: v0:4, sse: v0:2}"
    )


#: A guest with tiles goes on in a vCPU whose last one had set IA32_XFD: QEMU writes images before MSRs.
IMAGES_BEFORE_MSRS = """
t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|pkru|xtile, xfd, amx}) = 0
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|pkru|xtile) = 0
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 ldtilecfg(1)
v0 tileload(2)
v0 interrupt
t0 ... KVM_RUN
t0 ioctl(v0, KVM_GET_XSAVE2) keep
t0 ioctl(v0, KVM_GET_XCRS) keep
t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) keep
t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = v1
v1 copy of v0
t0 ioctl(v1, KVM_SET_CPUID2) of v0 = 0
t0 ioctl(v1, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1
t0 ioctl(v1, KVM_SET_XSAVE) of v0 = 0
t0 ioctl(v1, KVM_SET_XCRS) of v0 = 0
t0 ioctl(v1, KVM_SET_MSRS) of v0 = 1
t0 ioctl(v1, KVM_RUN) ...
v1 vmenter
"""


@pytest.mark.parametrize(
    ("revision", "drops"),
    [
        # b45f72177594 is of 6.19, and of 6.1.162, 6.6.122, 6.12.67 and 6.18.7
        *(("v5.18", False), ("v6.6", False), ("v6.12", False), ("v6.17.13", False), ("v6.18", False)),
        *(("v6.1.192", True), ("v6.6.122", True), ("v6.12.117", True), ("v6.18.35", True), ("v7.3", True)),
        ("v7.3-b45f72177594", False),
    ],
)
def test_what_the_calls_leave_open_is_a_vmms_fault_where_the_kernel_drops_it(
    run: Run, tmp_path: Path, revision: str, drops: bool
) -> None:
    machine = "cpus=1"
    stores = f"v1 tilestore = ok [{'init' if drops else 'v0:2'}]"
    found = broken(IMAGES_BEFORE_MSRS, stores, revision=revision, machine=machine)
    # beside it v7.3 breaks what finding 1 does
    assert {one for one in found if one.startswith(VMM)} == ({f"{VMM} xtiledata"} if drops else set())
    file = tmp_path / "p.xfd"
    file.write_text("\n".join(["# xfdfuzz program 1", f"machine {machine}", IMAGES_BEFORE_MSRS]))
    shown = run("replay", str(file), "--results", "--revision", revision)[1]
    assert ("xtiledata is as the VMM means it, and nothing promises that" in shown) is not drops


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("KVM_SET_XSAVE) of v0 {xstate_bv: +sse, sse: 5}", set()),
        ("KVM_SET_XSAVE) of v0 {sse: 5}", set()),  # it was in use
        ("KVM_SET_XSAVE) of v0 {xstate_bv: -sse, sse: 5}", {"sse"}),
        ("KVM_SET_XSAVE) of v0 {sse: 5, mxcsr: 1}", {"mxcsr"}),
        ("KVM_SET_XSAVE) of v0 {xstate_bv: sse, sse: 5}", {"x87", "avx"}),
        ("KVM_SET_FPU) of v0 {sse: 5}", set()),
        ("KVM_SET_FPU) of v0 {sse: 5, x87: init}", {"x87"}),
    ],
)
def test_a_register_that_a_vmm_changes_is_there_and_the_others_stay(written: str, found: set[str]) -> None:
    changed = f"""
    v0 invisible from here
    t0 ioctl(v0, KVM_GET_XSAVE2) keep = 0
    t0 ioctl(v0, KVM_GET_FPU) keep = 0
    t0 ioctl(v0, {written} = 0
    v0 to find {{sse: 5}}
    v0 invisible to here
    """
    assert broken(STOPPED, changed) == {f"{VMM} {one}" for one in found}


def test_a_used_vcpu_that_is_only_looked_at_is_judged_where_that_ends() -> None:
    """Where it is outside, its registers are in memory."""
    begun = without("v1 copy of v0", IMAGES_BEFORE_MSRS).partition("t0 ioctl(v1, KVM_SET_XSAVE)")[0]
    hides = (
        "v0 invisible from here",
        "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000}) = 1",
        "t0 ioctl(v0, KVM_SET_XSAVE) of v0 = 0",
        "t0 ioctl(v0, KVM_SET_MSRS) of v0 = 1",
        "v0 invisible to here",
    )
    assert not broken(begun, *hides, revision="v6.12", machine="cpus=1")
    assert broken(begun, *hides, revision="v7.3", machine="cpus=1") == {f"{VMM} xtiledata"}


# -- INIT and MP states ------------------------------------------------------------------------------------------------

#: An application processor that has been started, and is stopped; its CR4 is clear.
STARTED = """
t0 ioctl(kvm, KVM_CREATE_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_IRQCHIP) = 0
t0 ioctl(vm0, KVM_CREATE_VCPU, 1, reset) = v0
t0 ioctl(v0, KVM_SET_MP_STATE, KVM_MP_STATE_RUNNABLE) = 0
"""
OTHER_AP = "t0 ioctl(vm0, KVM_CREATE_VCPU, 2, reset) = v1\nv1 copy of v0"
#: KVM_RUN of one that waits has no VM entry.
BEGINS = "t0 ioctl({}, KVM_RUN) ... = ok".format
KVM_MP_STATES = "t0 ioctl({}, KVM_SET_MP_STATE, KVM_MP_STATE_{}) = 0".format


@pytest.mark.parametrize(
    ("before", "behind", "found"),
    [
        ("", KVM_MP_STATES("v1", "RUNNABLE"), set()),
        ("", "", {"mp_state"}),
        (KVM_MP_STATES("v0", "HALTED"), KVM_MP_STATES("v1", "RUNNABLE"), {"mp_state"}),
        # behind a SIPI it runs, and KVM_GET_MP_STATE would say so
        (KVM_MP_STATES("v0", "SIPI_RECEIVED"), KVM_MP_STATES("v1", "RUNNABLE"), set()),
        ("v0 init", KVM_MP_STATES("v1", "RUNNABLE"), {"init"}),
        ("v0 init", "t0 ioctl(v1, KVM_SET_VCPU_EVENTS, {latched_init}) = 0", set()),
        # the INIT is the guest's, whenever it comes, and so is the SIPI
        ("", f"v1 init\n{KVM_MP_STATES('v1', 'RUNNABLE')}", set()),
        (KVM_MP_STATES("v0", "INIT_RECEIVED"), f"v1 sipi\n{KVM_MP_STATES('v1', 'INIT_RECEIVED')}", set()),
        ("", "v1 init\nt0 ioctl(v1, KVM_GET_MP_STATE) = 0 [KVM_MP_STATE_INIT_RECEIVED]", set()),
        ("v0 init\nt0 ioctl(v0, KVM_GET_MP_STATE)", KVM_MP_STATES("v1", "INIT_RECEIVED"), set()),
    ],
)
def test_a_copy_waits_for_what_the_other_one_waits_for(before: str, behind: str, found: set[str]) -> None:
    assert broken(STARTED, before, OTHER_AP, behind, BEGINS("v1")) == {f"{VMM} {one}" for one in found}


@pytest.mark.parametrize("intent", ["out of reset", "reset for another tenant"])
def test_an_application_processor_is_reset_when_it_waits_for_init(intent: str) -> None:
    reset = f"v0 {intent}"
    assert not broken(STARTED, reset, KVM_MP_STATES("v0", "UNINITIALIZED"), BEGINS("v0"))
    assert broken(STARTED, reset, BEGINS("v0")) == {f"{VMM} mp_state"}
    assert broken(STARTED, "v0 init", reset, BEGINS("v0")) == {f"{VMM} init"}
    taken_back = "t0 ioctl(v0, KVM_SET_VCPU_EVENTS, {no_latched_init}) = 0"
    assert not broken(STARTED, "v0 init", reset, taken_back, KVM_MP_STATES("v0", "UNINITIALIZED"), BEGINS("v0"))


def test_a_tenant_has_the_mp_state_and_the_init_that_it_is_given() -> None:
    given = f"{KVM_MP_STATES('v0', 'HALTED')}\nt0 ioctl(v0, KVM_SET_VCPU_EVENTS, {{latched_init}}) = 0"
    assert not broken(STARTED, "v0 reset for another tenant", given, BEGINS("v0"))
    assert broken(STARTED, "v0 out of reset", given, BEGINS("v0")) == {f"{VMM} init"}


def test_an_init_that_was_not_promised_is_told_once() -> None:
    """What it makes of the guest is no news then; what a VMM wrote before KVM_GET_MP_STATE accepts it is lost."""
    bsp = STARTED.replace("KVM_CREATE_VCPU, 1", "KVM_CREATE_VCPU, 0")
    cpuid = "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0"
    sregs = "t0 ioctl(v0, KVM_SET_SREGS, {osxsave, ts}) = 0"
    reset = f"v0 init\nv0 reset for another tenant\n{sregs}"
    assert broken(bsp, cpuid, reset, entered("v0")) == {f"{VMM} init"}
    accepts = "t0 ioctl(v0, KVM_GET_MP_STATE) = 0 [KVM_MP_STATE_RUNNABLE]"
    assert broken(bsp, cpuid, reset, accepts, entered("v0")) == {f"{VMM} cr4", f"{VMM} cr0"}
    assert not broken(bsp, cpuid, reset, accepts, sregs, entered("v0"))


def test_an_init_is_not_to_be_lost_by_a_look_at_the_vcpu() -> None:
    look = "v0 invisible from here\nt0 ioctl(v0, KVM_GET_VCPU_EVENTS) keep = 0 {}\nv0 init"
    old = "t0 ioctl(v0, KVM_SET_VCPU_EVENTS) of v0 = 0"
    assert broken(STARTED, look, old, "v0 invisible to here") == {f"{VMM} init"}
    assert not broken(STARTED, look, "v0 invisible to here")
    assert not broken(STARTED, look, "t0 ioctl(v0, KVM_GET_MP_STATE)", "v0 invisible to here")


def test_a_vcpu_that_kvm_has_woken_is_as_it_is_meant() -> None:
    """KVM_RUN returns without an entry, and is called again."""
    wakes = f"{BEGINS('v1')}\nv1 wakeup = ok [KVM_MP_STATE_RUNNABLE]\nt0 ... KVM_RUN = -EINTR"
    halted = KVM_MP_STATES("v0", "HALTED"), OTHER_AP, KVM_MP_STATES("v1", "HALTED")
    assert not broken(STARTED, *halted, wakes, entered("v1"))


def test_a_vmm_with_local_apics_of_its_own_keeps_init_and_mp_state_itself() -> None:
    own = without("KVM_CREATE_IRQCHIP", STARTED)
    assert not broken(own, "v0 init", OTHER_AP, entered("v1"))
    assert not broken(own, "v0 init", "v0 out of reset", entered("v0"))


def test_a_vmm_writes_the_mp_state_and_the_sregs_that_it_has_read() -> None:
    bsp = STARTED.replace("KVM_CREATE_VCPU, 1", "KVM_CREATE_VCPU, 0")
    cpuid = "t0 ioctl({}, KVM_SET_CPUID2, {{xcr0: x87|sse|avx}}) = 0".format
    sregs = "t0 ioctl(v0, KVM_SET_SREGS, {osxsave, ts}) = 0\nt0 ioctl(v0, KVM_GET_SREGS) = 0 {osxsave, ts}"
    reads = "t0 ioctl(v0, KVM_GET_MP_STATE) keep = 0 [KVM_MP_STATE_HALTED]"
    keeps = f"{reads}\nt0 ioctl(v0, KVM_GET_SREGS) keep = 0 {{osxsave, ts}}"
    loads = "t0 ioctl(v1, KVM_SET_MP_STATE) of v0 = 0\nt0 ioctl(v1, KVM_SET_SREGS) of v0 = 0"
    copied = bsp, cpuid("v0"), sregs, KVM_MP_STATES("v0", "HALTED"), keeps, OTHER_AP, cpuid("v1")
    wakes = f"{BEGINS('v1')}\nv1 wakeup = ok [KVM_MP_STATE_RUNNABLE]\nv1 vmenter = ok"
    assert not broken(*copied, loads, wakes)
    # of what is there now nothing is read
    since = f"{KVM_MP_STATES('v0', 'RUNNABLE')}\nt0 ioctl(v0, KVM_SET_SREGS, {{}}) = 0"
    assert not broken(*copied, since, loads, wakes)
    old = f"v0 invisible from here\n{keeps}\nv0 to find {{sse: init}}\n{since}"
    back = "t0 ioctl(v0, KVM_SET_MP_STATE) of v0 = 0\nt0 ioctl(v0, KVM_SET_SREGS) of v0 = 0\nv0 invisible to here"
    assert not broken(*copied[:4], old, back)


def test_what_was_kept_outlives_its_vcpu() -> None:
    read = "t0 ioctl(v0, KVM_GET_SREGS) keep = 0 {}\nt0 ioctl(v0, KVM_GET_MP_STATE) keep = 0 [KVM_MP_STATE_RUNNABLE]"
    irqchip = "t0 ioctl(kvm, KVM_CREATE_VM) = vm1\nt0 ioctl(vm1, KVM_CREATE_IRQCHIP) = 0"
    made = f"{irqchip}\nt0 ioctl(vm1, KVM_CREATE_VCPU, 3) = v1"
    loads = "t0 ioctl(v1, KVM_SET_MP_STATE) of v0 = 0\nt0 ioctl(v1, KVM_GET_MP_STATE) = 0 [KVM_MP_STATE_RUNNABLE]"
    real_mode = "t0 ioctl(v1, KVM_SET_SREGS) of v0 = -EINVAL"  # EFER.LME before KVM_SET_CPUID2 (184bd464bdb6)
    assert not broken(STARTED, read, made, "t0 close(vm0) = 0", loads, real_mode)


# -- the fuzzer --------------------------------------------------------------------------------------------------------


def test_the_fuzzer_draws_procedures_and_blames_vmms_only_when_asked() -> None:
    few, more = (Plan(seed=1, engine="scout", examples=examples, seconds=None) for examples in (300, 900))
    assert not fuzz("v7.3-cured", few).found
    found = fuzz("v7.3-cured", more, vmms=True).found
    assert {one.violation.severity for one in found} == {VMM}
    procedures = {"procedure-keeps-the-guest", "reset-leaves-nothing"}
    assert {one.violation.invariant for one in found} == procedures | {"guest-cpuid-is-coherent", "buffer-has-room"}


# -- orders in words ---------------------------------------------------------------------------------------------------


def holding(found: Condition, order: Order) -> bool:
    met = [order.index(front) < order.index(behind) for front, behind in found.pairs]
    return any(met) if found.any else all(met)


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        (lambda order: True, "in every order"),
        (lambda order: order.index("a") < order.index("b"), "a before b"),
        (lambda order: order[0] == "c", "c before a, b and d"),
        (lambda order: order[3] == "c", "a, b and d before c"),
        (lambda order: order in (tuple("abcd"), tuple("dcba")), None),
        (
            lambda order: order.index("a") < order.index("b") or order.index("c") < order.index("d"),
            "a before b or c before d",
        ),
    ],
)
def test_a_set_of_orders_is_put_into_words(holds: Callable[[tuple[str, ...]], bool], said: str | None) -> None:
    every = [*permutations("abcd")]
    chosen = [order for order in every if holds(order)]
    found = condition(chosen, every)
    if said is None:
        assert found.example in chosen
        assert words(found, str).startswith("in some, such as ")
    else:
        assert words(found, str) == said
        assert [order for order in every if holding(found, order)] == chosen


# -- all orders --------------------------------------------------------------------------------------------------------


def named(name: str) -> Procedure:
    return next(one for one in PROCEDURES if one.name == name)


@pytest.fixture(scope="module")
def cured() -> list[Answer]:
    return [answer(procedure, resolve("v7.3-cured")) for procedure in PROCEDURES]


def test_nothing_is_the_kernels_fault_on_a_cured_one(cured: list[Answer]) -> None:
    assert all(one.possible for one in cured)
    kinds = {kind for one in cured for seen in (*one.orders.values(), *one.others.values()) for kind, _ in seen.facts}
    # the reset of a guest that had disabled its tiles: XSAVES has not saved them (SDM vol. 1, 13.14)
    assert kinds == {VMM, "refused", "unpromised"}
    unsafe = {one.procedure.name for one in cured if one.usual.kind != "safe"}
    # an OUT has to be completed before the guest is read
    assert unsafe == {f"copy into a {which} vCPU, CR0.TS set, in an OUT" for which in ("new", "used")}


def test_orders_that_go_on_together_come_to_what_each_comes_to_alone() -> None:
    procedure = named("copy into a vCPU that had tiles disabled, IA32_XFD set, tiles used before")
    revision = resolve("v5.18")
    tried = answer(procedure, revision)
    assert len(tried.orders) == 120
    for order, seen in tried.orders.items():
        verdict = judge(procedure.program(order), revision, expectations=False)
        own = [j for j in verdict.trace if j.step and j.step.number > len(procedure.before)]
        assert {(one.severity, one.bucket) for j in own for one in j.violations} == set(seen.broken), order


@pytest.mark.parametrize(
    ("revision", "name", "pairs"),
    [
        # KVM_SET_XCRS wants the CPUID (v5.16: kvm_set_xcr() asks guest_supported_xcr0)
        ("v5.16", "copy into a new vCPU, AVX and PKRU in use", {("SET_CPUID2", "SET_XCRS")}),
        # KVM does not keep of an image what IA32_XFD disables (b45f72177594)
        ("v7.3", "copy into a vCPU that had tiles disabled, tiles in use", {("SET_MSRS", "SET_XSAVE")}),
    ],
)
def test_what_must_come_first(revision: str, name: str, pairs: set[tuple[str, str]]) -> None:
    tried = answer(named(name), resolve(revision))
    assert condition(tried.safe, tried.orders) == Condition(tuple(pairs))


def test_an_order_that_works_without_a_promise_is_safe_there_and_no_advice() -> None:
    tried = answer(named("copy into a vCPU that had tiles disabled, tiles in use"), resolve("v6.12"))
    assert len(tried.safe) == len(tried.orders)
    (fact,) = tried.facts
    assert (fact.kind, fact.what, fact.when) == ("unpromised", "xtiledata", Condition((("SET_XSAVE", "SET_MSRS"),)))
    assert always_safe([tried]) == Condition((("SET_MSRS", "SET_XSAVE"),))


def test_finding_3_is_an_order(cured: list[Answer]) -> None:
    """KVM_SET_CPUID2 that makes the buffer grow drops what KVM_SET_XSAVE has put there."""
    name = "copy into a new vCPU, IA32_XFD set, tiles used before"
    facts = answer(named(name), resolve("v6.12")).facts
    (lost,) = {one.when for one in facts if one.kind == "corruption"}
    assert lost == Condition((("SET_XSAVE", "SET_CPUID2"),))
    assert "corruption" not in {one.kind for one in cured[PROCEDURES.index(named(name))].facts}


def test_a_kernel_that_cannot_bring_a_guest_there_says_nothing() -> None:
    assert not answer(named("copy into a new vCPU, tiles in use"), resolve("v5.16")).possible


def test_advice_is_what_is_safe_on_all(cured: list[Answer]) -> None:
    copies = [one for one in cured if one.procedure.aim == "copy into a new vCPU"]
    advice = always_safe(copies)
    assert advice is not None
    for one in (one for one in copies if len(one.procedure.calls) == 6):
        assert {order for order in one.orders if holding(advice, order)} <= set(one.safe)


# -- the open findings -------------------------------------------------------------------------------------------------

_BY_FPU = "KVM_GET_FPU and KVM_SET_FPU instead of images"


@pytest.mark.parametrize(
    ("revision", "site", "findings"),
    [
        # MXCSR has to be taken, and XSTATE_BV to say that SSE is there (docs/fidelity.md, 11 and 13)
        ("v7.3", "mxcsr", (11, 13)),
        ("v7.3", "static", (11,)),
        ("v6.12.117", "mxcsr", (11, 13)),
    ],
)
def test_an_open_finding_is_named_by_the_cures_that_take_it_away(
    revision: str, site: str, findings: tuple[int, ...]
) -> None:
    resolved = resolve(revision)
    one = answer(named("copy into a new vCPU, AVX and PKRU in use"), resolved)
    bucket = f"guest-registers-preserved@{site}"
    assert ("corruption", bucket) in one.others[_BY_FPU].facts
    assert OpenFindings(resolved).of_other(one, _BY_FPU, "corruption", bucket) == findings


def test_what_a_later_kernel_has_mended_is_no_open_finding() -> None:
    """b45f72177594: KVM_SET_XSAVE of tiles under IA32_XFD kills the host; finding 1 is about KVM_SET_MSRS."""
    known, bucket = OpenFindings(resolve("v6.12")), "host-xrstor-never-faults@fpu_swap_kvm_fpstate"
    one = answer(named("copy into a vCPU that had tiles disabled, tiles in use"), resolve("v6.12"))
    assert ("panic", bucket) in one.others["without IA32_XFD"].facts
    assert known.of_other(one, "without IA32_XFD", "panic", bucket) == ()
    other = answer(named("copy into a vCPU that had tiles in use, IA32_XFD set, tiles used before"), resolve("v6.12"))
    assert ("panic", bucket) in other.others["without KVM_SET_XSAVE"].facts
    assert known.of_other(other, "without KVM_SET_XSAVE", "panic", bucket) == (1,)


# -- the command -------------------------------------------------------------------------------------------------------


def programs(directory: Path) -> Iterator[tuple[str, bool]]:
    for file in sorted(directory.glob("*.xfd")):
        program = parse(file.read_text(), file.name)
        yield file.name, judge(program, program.expect[0].revisions).ok


def test_the_command_tells_and_saves(run: Run, tmp_path: Path) -> None:
    code, out, err = run("vmm", "--revision", "v5.16", "--save", str(tmp_path / "made"), "--format", "json")
    (told,) = map(json.loads, out.splitlines())
    assert (code, told["revision"]) == (0, "v5.16")
    assert [one["aim"] for one in told["procedures"]] == [one.aim for one in PROCEDURES]
    saved = [*programs(tmp_path / "made")]
    assert saved
    assert all(ok for _, ok in saved)
    assert err == f"saved {len(saved)} programs in {tmp_path / 'made'}\n"


def test_a_current_kernel_comes_with_a_word_of_caution(run: Run) -> None:
    assert "SECURITY.md" in run("vmm", "--revision", "v7.3")[1]
    assert "SECURITY.md" not in run("vmm", "--revision", "v6.12")[1]


def test_the_page_is_what_the_command_writes(run: Run) -> None:
    code, out, _ = run("vmm", "--format", "markdown")
    assert code == 0
    assert out == (ROOT / "docs" / "vmm.md").read_text(encoding="utf-8"), (
        "write it again: xfdfuzz vmm --format markdown"
    )
