"""The kernels with the proposed cures: which finding each one cures, and that they are revisions like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.verdict import judge, revisions_for, steps
from xfdfuzz.invariants.vocabulary import VMM
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import PATCHES, PROPOSED, concerns, lines, names, resolve, selects

Run = Callable[..., tuple[int, str, str]]

OPEN = Path(__file__).parent.parent / "corpus" / "open"
CONFORMANCE = OPEN.parent / "conformance"
#: What 5.16 is known to lack, as far as it applies there.
FIXES_OF_V5_16 = (
    *("063452fd94d1", "59f5ede3bc0f", "7aa5128b5fea", "f17b168734c0", "a401f45e3875", "471f0aa7fa64", "36b038791e1e"),
    *(
        "4a804c4f8356",
        "b15888840207",
        "1f69383b203e",
        "18032b47adf1",
        "8647c52e9504",
        "d877550eaf2d",
        "10e4b5166df9",
        "2848ff28d180",
    ),
    *("70044df250d0", "ae6012d72fa6", "d1e420772cd1", "2297554f01df", "388eff894d6b"),
)

#: The beginnings of the names of the programs that show a finding, by its cure (docs/fidelity.md).
VIEWS = {
    "open-1-clear-unloaded": ("set-msrs-xfd-", "set-xsave-then-set-msrs-xfd", "restore-order-with-xfd"),
    "open-2-write-xfd-when-loaded": ("wrmsr-xfd-",),
    "open-3-realloc-copies": ("set-xsave-before-set-cpuid2",),
    "open-4-exec-frees-fpstate": ("exec-leaks-fpstate",),
    "open-5-exec-resets-at-once": ("cand-exec-preempt-window",),
    "open-6-resume-sets-shadow": ("resume-",),
    "open-7-sigreturn-initialises-all": ("sigreturn-leaves-anothers-tiles",),
    "open-8-9-pkru-in-copies": ("exec-hides-", "worker-hides-", "get-xsave-loses-pkru", "set-xsave-without-pkru"),
    "open-10-larger-sigframe": ("fork-in-handler", "made-frame-is-larger"),
    "open-11-set-fpu-marks": ("set-fpu-is-lost",),
    "open-12-get-fpu-initial": ("get-fpu-shows-",),
    "open-13-mxcsr-in-kvm-fpu": ("get-fpu-lacks-mxcsr", "set-fpu-ignores-mxcsr"),
    "open-14-mxcsr-by-sse": ("stale-mxcsr-",),
    "open-15-mxcsr-without-sse": ("mxcsr-with-avx-alone",),
    "open-16-mxcsr-of-standard-format": (
        "mxcsr-without-xsavec-by-ptrace",
        "mxcsr-without-xsavec-by-get-xsave",
        "mxcsr-without-xsavec-by-set-xsave",
    ),
    "open-17-init-keeps-mxcsr": ("sigreturn-initialises-mxcsr",),
    "open-18-vmsa-by-xstate-bv": ("sealed-guest-has-what-was-taken-back",),
    "open-19-workers-without-shstk": ("shadow-stack-of-a-worker",),
    "open-20-fsave-header-of-registers": ("frame-header-has-stale-x87",),
    "open-21-exec-forgets-pasid": ("exec-keeps-pasid-activated",),
    "open-22-lbr-by-msr": ("pmi-in-guest-",),
    "open-23-irq-fpu-with-rt": ("irq-in-locked-region-with-rt",),
    "open-24-snp-is-confidential": ("snp-guest-takes-",),
    "open-25-error-pointers-of-loaded-frames": ("sigreturn-leaves-anothers-error-pointers", "handler-has-anothers-"),
    "open-26-pkru-of-failed-signals": ("signal-that-failed-",),
    "open-27-moved-is-confidential": ("moved-guest-takes-",),
    "open-28-restored-lbrs-are-anothers": ("closed-event-",),
    "open-29-pkru-of-who-dumps": ("core-dump-has-an-old-",),
    "open-30-no-unlock-of-ones-own": ("unlock-of-ones-own-",),
    "open-31-fault-in-what-is-read": ("whole-frame-",),
}
NAMES = sorted(file.stem for file in OPEN.glob("*.xfd"))


def cure_of(name: str) -> str:
    (cure,) = (cure for cure, beginnings in VIEWS.items() if name.startswith(beginnings))
    return cure


@cache
def program(name: str) -> Program:
    return parse((OPEN / f"{name}.xfd").read_text(encoding="utf-8"), name)


def named(name: str, revision: str) -> set[str]:
    """What the program is expected to break on a revision."""
    return {i for e in program(name).expect if selects(e.revisions, revision) for i in e.invariants}


def broken(name: str, revision: str, *, apply: str = "", revert: str = "") -> set[str]:
    """What it breaks, with a cure more or less than the revision has."""
    (resolved,) = revisions_for(program(name), [revision], apply=[apply] * bool(apply), revert=[revert] * bool(revert))
    return set(judge(program(name), resolved, expectations=False).broken)


def clean_on(name: str, revision: str) -> bool:
    """Whether it says that it breaks nothing there."""
    return any(e.kind == "clean" and e.revisions == revision for e in program(name).expect)


# -- the cures ---------------------------------------------------------------------------------------------------------


def test_every_cure_has_its_programs_and_says_that_it_is_a_proposal() -> None:
    assert list(VIEWS) == list(PROPOSED)
    assert {cure_of(name) for name in NAMES} == set(PROPOSED)
    for cure in PROPOSED.values():
        areas = ("x86/fpu", "x86/shstk", "x86/pkeys", "KVM: x86", "KVM: SEV", "perf/x86/intel")
        assert cure.title.startswith(tuple(f"PROPOSED: {area}: " for area in areas))
        assert cure.doc.startswith("Finding")


@pytest.mark.parametrize("name", NAMES)
def test_every_program_is_clean_where_its_finding_is_cured(name: str) -> None:
    assert clean_on(name, "v7.3-cured")
    assert clean_on(name, "v5.16-cured") == bool(named(name, "v5.16"))


@pytest.mark.parametrize("name", NAMES)
def test_its_own_cure_and_no_other_helps(name: str) -> None:
    """Alone on v7.3, and when the kernel that has all of them loses it."""
    shown = named(name, "v7.3")
    assert shown
    for cure in PROPOSED:
        with_it, without = broken(name, "v7.3", apply=cure), broken(name, "v7.3-cured", revert=cure)
        if cure == cure_of(name):
            assert not shown & with_it
            assert shown <= without
        else:
            assert shown <= with_it
            assert not shown & without


@pytest.mark.parametrize("cure", list(VIEWS))
def test_bisect_names_the_cure(run: Run, cure: str) -> None:
    name = next(name for name in NAMES if cure_of(name) == cure)
    invariant = sorted(named(name, "v7.3"))[0]
    command = ("--from", "v7.3", "--to", "v7.3-cured", "--invariant", invariant)
    code, out, err = run("bisect", str(OPEN / f"{name}.xfd"), *command, "--format", "json")
    assert (code, err) == (0, "")
    (change,) = json.loads(out)["changes"]
    assert (change["change"], change["at"], change["title"]) == ("cures", cure, PROPOSED[cure].title)
    assert change["verified"] == "v7.3-cured without it breaks it"


def test_bisect_says_in_text_that_no_kernel_has_it(run: Run) -> None:
    code, out, _ = run("bisect", str(OPEN / "exec-leaks-fpstate.xfd"), "--from", "v7.3", "--to", "v7.3-cured")
    assert code == 0
    assert "open-4-exec-frees-fpstate cures fpstate-reachable\n  PROPOSED: x86/fpu: Free the fpstate" in out
    assert "\n  in no kernel\n" in out


# -- the kernels -------------------------------------------------------------------------------------------------------


def test_they_are_their_bases_with_fixes_and_cures() -> None:
    assert [p.commit for p in resolve("v7.3-cured").patches] == [*PATCHES, *PROPOSED]
    of_v5_16 = [p.commit for p in resolve("v5.16-cured").patches]
    assert of_v5_16[: len(FIXES_OF_V5_16)] == list(FIXES_OF_V5_16)
    # nothing of the AMX series, of sealed guests, shadow stacks and ENQCMD, and NMIs are handled late
    later = ("open-18-", "open-19-", "open-21-", "open-22-", "open-24-", "open-27-", "open-30-")
    assert of_v5_16[len(FIXES_OF_V5_16) :] == [cure for cure in [*PROPOSED][3:] if not cure.startswith(later)]


def test_they_are_no_part_of_mainline() -> None:
    for name, base in (("v7.3-cured", "v7.3"), ("v5.16-cured", "v5.16")):
        assert name in names()
        assert not any(name in line for line in lines())
        assert not any(selects(spec, name) for spec in (base, "v5.16..", "..v7.3", "amx-v1.."))
        # but what an invariant says of the base it says of them
        assert concerns(base, name)
        assert concerns("v5.16..", name)
    assert not concerns("v5.17..", "v5.16-cured")


def test_a_cure_is_a_patch_like_any_other() -> None:
    without = resolve("v7.3-cured", revert=["open-4"])
    assert without.label == "v7.3-cured-open-4-exec-frees-fpstate"
    assert resolve(without.address).patches == without.patches
    assert resolve("v6.12.117", apply=["open-6"]).label == "v6.12.117+open-6-resume-sets-shadow"


def test_commands_take_them(run: Run) -> None:
    leak = str(OPEN / "exec-leaks-fpstate.xfd")
    assert run("replay", leak, "--revision", "v7.3-cured")[0] == 0
    code, out, _ = run("replay", leak, "--revision", "v7.3-cured", "--revert", "open-4")
    assert code == 1
    assert "! fpstate-reachable (leak): " in out
    verdicts = json.loads(run("matrix", leak, "--format", "json")[1])["verdicts"]
    assert {name: verdicts[name]["state"] for name in ("v7.3", "v7.3-cured", "v5.16-cured")} == {
        "v7.3": "violates",
        "v7.3-cured": "clean",
        "v5.16-cured": "clean",
    }
    rows = [
        json.loads(row)
        for row in run("list", "patches", "--revision", "v5.16-cured", "--format", "json")[1].splitlines()
    ]
    assert [row["commit"] for row in rows if row["in"] == "yes"] == [p.commit for p in resolve("v5.16-cured").patches]


def test_a_series_can_stand_on_them(run: Run) -> None:
    """With a cure left out, say, for another one to take its place (CONTRIBUTING.md)."""
    assert run("new", "revision", "on-cured", "--from", "v7.3-cured-open-1-clear-unloaded")[0] == 0
    patches = [p.commit for p in resolve("on_cured.py").patches]
    assert patches == [*PATCHES, *list(PROPOSED)[1:], "on-cured-1"]
    assert concerns("v7.3", "on-cured")


@pytest.mark.parametrize("file", sorted(CONFORMANCE.glob("*.xfd")), ids=lambda file: file.stem)
def test_they_keep_every_promise(file: Path) -> None:
    """Nothing that the kernel promises is broken, where v7.3 keeps it or not; what its VMM does wrong is no matter."""
    written = parse(file.read_text(encoding="utf-8"), file.name)
    (cured,) = revisions_for(written, ["v7.3-cured"])
    assert not [one for one in judge(written, cured, expectations=False).violations if one.severity != VMM]


def test_what_a_guest_restores_is_what_its_own_cpu_enables() -> None:
    """Whatever another CPU did just before: XCR0 is x87 where the guest runs, so SSE stays as it was."""
    program = parse("""\
# xfdfuzz program 1
machine cpus=2

t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|avx512|pkru})
t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 movups(1)
cpu1 softirq kernel_fpu_begin
v0 xrstor(x87|sse|avx|avx512|pkru|xtile, 0, 1)
v0 xsetbv(x87|sse)
v0 handle
v0 vmenter
""")
    assert judge(program, "v7.3-cured").buckets == ()


@pytest.mark.parametrize(
    ("revision", "machine", "ops"),
    [
        pytest.param(
            "v7.3-cured",
            "cpus=1",
            """\
t0 sigframe(new) = ok
t0 sigframe(sw_reserved, {magic1: 1, extended_size: 13472, xfeatures: x87|pkru, xstate_size: 13467, \
magic2: 13467}) own = ok
t0 sigframe({xstate_bv: x87|pkru, data: 1}) own = ok
t0 sigreturn own = ok
t0 create_io_thread = t2
cpu0 schedule(t1) = ok
t1 ptrace(PTRACE_GETREGSET, t2, NT_X86_XSTATE) = 0 {xstate_bv: pkru, pkru: init}
cpu0 schedule(t2) = ok
t2 ... copy_from_user = ok [init]
""",
            id="a worker's PKRU is as sure as its creator's",
        ),
        pytest.param(
            "v7.3-cured",
            "cpus=1 cet",
            """\
t0 enqcmd = ok [mm0:1]
t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_SEV_ES_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx, xss: cet_user|cet_kernel}) = 0
t0 ioctl(vm0, KVM_SEV_LAUNCH_UPDATE_VMSA) = 0
cpu0 preempt(t1, 4) = ok
t0 ioctl(v0, KVM_GET_FPU) = -EINVAL
t0 ptrace(PTRACE_GETREGSET, t1, NT_X86_XSTATE) = 0 {xstate_bv: pkru, pkru: kernel:1}
t0 ioctl(v0, KVM_SET_MSRS, {IA32_U_CET: 0x1}) = 0
""",
            id="a confidential fpstate is no place for what is the guest's",
        ),
        pytest.param(
            "v5.16-cured",
            "cpus=1",
            """\
t0 fld(1) = ok
t0 sigaltstack(8192) = 0
t0 signal(pkey) ... = ok
t0 ... signal = ok
t0 wrpkru(0) = ok
t0 sigreturn = SIGSEGV
t0 clone(CLONE_THREAD) = t2
cpu0 schedule(t2) = ok
t2 user = ok
""",
            id="a sigreturn that fails at the alternate stack has loaded the registers",
        ),
    ],
)
def test_what_a_search_took_for_a_mistake_of_the_kernel(revision: str, machine: str, ops: str) -> None:
    verdict = judge(f"# xfdfuzz program 1\nmachine {machine}\n\n{ops}", revision)
    assert verdict.ok, verdict.failures


def test_a_refused_msr_may_find_the_guests_registers_saved() -> None:
    """KVM_SET_MSRS loads them for an MSR of CET, and a preemption saves them, with the VMM's PKRU."""
    program = parse("""\
# xfdfuzz program 1
machine cpus=1 cet

t0 ioctl(kvm, KVM_CREATE_VM, KVM_X86_TDX_VM) = vm0
t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx, xss: cet_user|cet_kernel}) = 0
t0 kernel_fpu_begin ... = ok
cpu0 preempt(t1, 3) = ok
t0 ... kernel_fpu_end = ok [kernel:5]
t0 ioctl(v0, KVM_SET_MSRS, {IA32_U_CET: 0x1}) = 0
""")
    run = steps(program, resolve("v7.3-cured"))
    after = next(one.step.after for one in run if one.step and one.step.op == program.ops[-1])
    assert after.fpstates[after.vcpus[0].arch.guest_fpu.fpstate].regs.xstate_bv & xf.MASK_PKRU
    assert judge(program, resolve("v7.3-cured")).ok
