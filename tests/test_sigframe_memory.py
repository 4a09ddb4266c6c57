"""Signal frames that go to memory which is not there, or may not be written (arch/x86/kernel/fpu/signal.c)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve

V7_3 = resolve("v7.3")


class RetryFindsRegisters(V7_3.kernel):  # type: ignore[name-defined,misc]
    """A kernel that tries XSAVE again without a look at whose registers there are by then."""

    def copy_fpstate_retry(self, frame: SigFrame, pkru: int) -> bool:
        """(fpu/signal.c)."""
        if not frame.absent:
            self.current.tif_need_fpu_load = 0
        return bool(super().copy_fpstate_retry(frame, pkru))


class PkruStays(V7_3.kernel):  # type: ignore[name-defined,misc]
    """A kernel that restores PKRU nowhere."""

    def get_sigframe_pkru(self) -> None:
        """(arch/x86/kernel/signal.c)."""


def run(
    text: str, revision: Revision = V7_3, machine: str = "machine cpus=1 no-pku"
) -> tuple[tuple[str, ...], set[str]]:
    verdict = judge(parse(f"# xfdfuzz program 1\n{machine}\n{text}"), revision)
    return verdict.results, set(verdict.broken)


# -- a page that is not there ------------------------------------------------------------------------------------------

PREEMPTED = """t0 vmovups(1)
t0 signal(absent) ...
cpu0 schedule(t1)
t1 vmovups(2)
cpu0 schedule(t0)
t0 ... signal(present) ...
"""


def test_xsave_is_tried_again_with_the_tasks_own_registers() -> None:
    """TIF_NEED_FPU_LOAD is looked at behind the label retry."""
    results, broken = run(PREEMPTED)
    assert results[-1] == "ok {xstate_bv: x87|sse|avx, x87: init, sse: init, avx: t0:1}"
    assert not broken
    _, broken = run(PREEMPTED, replace(V7_3, kernel=RetryFindsRegisters))
    assert "sigframe-is-true" in broken


def test_the_new_frame_has_tiles_under_its_own_tasks_xfd() -> None:
    """t1 may not use AMX, so IA32_XFD is set while it computes; xfd_validate_state() would warn."""
    tiles = "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\nt0 ldtilecfg(1)\nt0 tileload(2)\n"
    results, broken = run(tiles + PREEMPTED, machine="machine cpus=1 no-pku debug-fpu")
    assert results[-1].endswith("avx: t0:1, xtilecfg: t0:1, xtiledata: t0:2}")
    assert not broken


def test_who_waits_for_a_page_does_nothing_else() -> None:
    results, _ = run("""t0 signal(absent) ...
t0 xsave(avx)
t0 ... signal
t0 ... sigreturn
t0 signal ...
t0 ... signal(present) ...
t0 ... signal(present) ...
t0 ... signal
""")
    assert results[1:5] == ("not-enabled",) * 4
    assert results[6:] == ("not-enabled", "ok")


def test_fxsave_faults_as_xsave_does() -> None:
    """There is no header to clear then, so it is FXSAVE that notices that nothing may be written."""
    text = "t0 movups(2)\nt0 signal(absent) ...\nt0 ... signal(present) ...\nt0 ... signal\nt0 signal(unwritable)\n"
    results, broken = run(text, machine="machine cpus=1 no-xsave")
    assert results[1:] == ("#PF", "ok {x87: init, sse: t0:2, mxcsr: init}", "ok", "SIGSEGV")
    assert not broken


def test_a_32_bit_frame_gets_its_header_behind_the_second_xsave() -> None:
    begin = "t0 execve ...\nt0 ... execve(ia32)\nt0 fld(1)\nt0 signal(absent) ...\nt0 ... signal(present) ...\n"
    results, broken = run(begin + "t0 ... signal\nt0 sigframe\n", machine="machine cpus=1 no-pku no-amx")
    assert results[3] == "#PF"
    assert results[-1].endswith("fsave: t0:1}")
    assert not broken


def test_a_preemption_comes_where_the_page_is_read_in() -> None:
    """__clear_user() may sleep: of the points of the second half it is the first."""
    text = "t0 vmovups(1)\nt0 signal(absent) ...\ncpu0 preempt(t1, 1)\nt0 ... signal(present) ...\n"
    results, broken = run(text)
    assert results[-1].endswith("avx: t0:1}")
    assert not broken


# -- frames that cannot be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signal", ["signal(absent) ...\nt0 ... signal(gone)", "signal(unwritable)", "signal(unwritable, rt_sigframe)"]
)
def test_older_frames_that_lay_there_are_gone_and_the_handler_goes_on(signal: str) -> None:
    """What the task was in it is in still; sigreturn restores what the signal before has interrupted."""
    results, broken = run(f"""t0 vmovups(1)
t0 signal ...
t0 ... signal
t0 signal ...
t0 ... signal
t0 sigreturn
t0 vmovups(3)
t0 {signal}
t0 xsave(avx)
t0 sigreturn frame1
t0 sigreturn
t0 xsave(avx)
""")
    *_, failed, kept, gone, back, restored = results
    assert failed == "SIGSEGV"
    assert kept == "ok {xstate_bv: avx, avx: t0:3}"
    assert (gone, back, restored) == ("not-enabled", "ok", "ok {xstate_bv: avx, avx: t0:1}")
    assert not broken


def test_an_alternate_stack_without_room_is_noticed_before_its_pages() -> None:
    """get_sigframe() returns before it writes anything, so older frames are whole (arch/x86/kernel/signal.c)."""
    results, _ = run(
        """t0 signal ...
t0 ... signal
t0 sigreturn
t0 sigaltstack(2048)
t0 signal(absent) ...
t0 sigreturn frame0
""",
        machine="machine cpus=1 no-pku no-xfd no-amx",
    )
    assert results[4:] == ("SIGSEGV", "ok")


PKRU = "t0 wrpkru(3)\nt0 signal(absent) ...\nt0 ... signal(gone)\nt0 xsave(pkru)\n"


def test_get_sigframe_restores_pkru_where_the_image_cannot_be_written() -> None:
    """Before 70044df250d0 nobody has changed it."""
    for name in ("v7.3", "v6.12", "v6.6", "v5.16"):
        results, broken = run(PKRU, resolve(name), machine="machine cpus=1 no-amx")
        assert results[-1] == "ok {xstate_bv: pkru, pkru: t0:3}", name
        assert not broken, name
    _, broken = run(PKRU, replace(V7_3, kernel=PkruStays), machine="machine cpus=1")
    assert "host-registers-preserved" in broken


def test_the_handler_of_the_sigsegv_brings_back_pkru_0() -> None:
    """Open finding 26: since 70044df250d0 the frame of the SIGSEGV says that PKRU was 0."""
    text = (
        "t0 wrpkru(3)\nt0 signal(unwritable, rt_sigframe)\nt0 signal ...\nt0 ... signal\nt0 sigreturn\nt0 xsave(pkru)\n"
    )
    results, broken = run(text, machine="machine cpus=1")
    assert results[-1] == "ok {xstate_bv: 0}"
    assert broken == {"sigframe-is-true"}
    for name in ("v7.3-cured", "v6.6"):
        results, broken = run(text, resolve(name), machine="machine cpus=1")
        assert results[-1] == "ok {xstate_bv: pkru, pkru: t0:3}", name
        assert not broken, name


# -- an alternate stack that a protection key guards -------------------------------------------------------------------

#: XSTATE_BV has PKRU, as on Intel's processors.
_KEYS = "machine cpus=1 no-amx in-use=pkru"
_GUARDED = "t0 sigaltstack(16384)\nt0 wrpkru(3)\nt0 vmovups(1)\nt0 signal(pkey) ...\nt0 ... signal\n"


def test_the_kernel_writes_a_frame_under_the_tasks_pkru_until_70044df250d0() -> None:
    text = _GUARDED + "t0 xsave(avx|pkru)\n"
    for name in ("v6.6", "v6.12-70044df250d0"):
        results, _ = run(text, resolve(name), machine=_KEYS)
        assert results[3:] == ("SIGSEGV", "not-enabled", "ok {xstate_bv: avx|pkru, avx: t0:1, pkru: t0:3}"), name
    results, broken = run(text, resolve("v6.12"), machine=_KEYS)
    assert results[4:] == ("ok", "ok {xstate_bv: pkru, pkru: kernel:1}"), "the handler begins with init_pkru"
    assert not broken


def test_pkru_0_denies_nothing() -> None:
    results, broken = run(_GUARDED.replace("(3)", "(0)"), resolve("v6.6"), machine=_KEYS + " no-xfd")
    assert results[3].startswith("ok {")
    assert not broken


def test_a_handler_that_leaves_its_pkru_alone_cannot_return() -> None:
    """rt_sigreturn() cannot read the signal mask, and touches no register; siglongjmp() needs no frame."""
    results, broken = run(_GUARDED + "t0 vmovups(5)\nt0 sigreturn\nt0 xsave(avx)\nt0 siglongjmp\n", machine=_KEYS)
    assert results[6:] == ("SIGSEGV", "ok {xstate_bv: avx, avx: t0:5}", "ok")
    assert not broken


def test_sigreturn_reads_uc_stack_under_the_restored_pkru_until_d10b554919d4() -> None:
    """Behind restore_sigcontext(), so that all registers are there; that of 32-bit frames is as before."""
    text = _GUARDED + "t0 wrpkru(0)\nt0 sigreturn\nt0 xsave(avx|pkru)\n"
    registers = "ok {xstate_bv: avx|pkru, avx: t0:1, pkru: t0:3}"
    results, broken = run(text, machine=_KEYS)
    assert results[6:] == ("ok", registers)
    assert not broken
    results, broken = run(text, resolve("v7.3-d10b554919d4"), machine=_KEYS)
    assert results[6:] == ("SIGSEGV", registers)
    assert not broken
    ia32 = "t0 execve ...\nt0 ... execve(ia32)\n"
    results, broken = run(ia32 + text, machine=_KEYS)
    assert results[8] == "SIGSEGV"
    assert not broken


def test_a_nested_frame_is_guarded_by_the_same_key() -> None:
    """get_sigframe() goes on below the frame on the alternate stack (on_sig_stack())."""
    text = _GUARDED.replace("16384", "32768") + "t0 signal ...\nt0 ... signal\nt0 sigframe\nt0 wrpkru(0)\nt0 sigframe\n"
    results, _ = run(text, machine=_KEYS)
    assert results[7] == "SIGSEGV"
    assert results[9].startswith("ok {magic1")


def test_a_page_is_not_read_in_under_a_pkru_that_xrstor_has_loaded() -> None:
    """XRSTOR had come as far as PKRU when it met the page; fault_in_readable() reads under that one."""
    begin = _GUARDED + "t0 wrpkru(0)\n"
    for loadable, last in (("avx", "ok"), ("avx|pkru", "SIGSEGV")):
        results, broken = run(f"{begin}t0 sigreturn(absent, {loadable}) ...\nt0 ... sigreturn\n", machine=_KEYS)
        assert results[6:] == ("#PF", last)
        assert not broken


def test_a_new_frame_is_guarded_if_its_signal_says_so() -> None:
    """An old one stays it: sigframe(...) of it is SIGSEGV under any PKRU but 0."""
    opened = _GUARDED + "t0 wrpkru(0)\nt0 sigreturn\n"
    results, _ = run(opened + "t0 sigframe frame0\nt0 signal ...\nt0 ... signal\nt0 sigframe\n", machine=_KEYS)
    assert results[7] == "SIGSEGV"
    assert results[10].startswith("ok {magic1"), "the new frame's memory is guarded by no key"


# -- what XSAVE does not write -----------------------------------------------------------------------------------------

AMX = "machine cpus=1 no-pku"
TILES_IN_A_FRAME = """t0 ldtilecfg(1)
t0 signal ...
t0 ... signal
t0 sigreturn
t0 tilerelease
"""
TILES_IN_USE = "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\nt0 ldtilecfg(2)\nt0 tileload(1)\n"
CLAIMED = """t0 ... signal
t0 sigframe(changed, {xstate_bv: +xtilecfg})
t0 sigreturn
t0 sttilecfg
"""


@pytest.mark.parametrize("stack", ["", "t0 sigaltstack(32768)\n"])
@pytest.mark.parametrize("kernel", ["v5.17", "v7.3"])
def test_tiles_that_are_not_in_use_leave_the_older_frames_bytes(stack: str, kernel: str) -> None:
    """xsave_to_user_sigframe() takes them out of XSAVE's mask, and the header alone is cleared (fpu/xstate.h)."""
    results, broken = run(f"{stack}{TILES_IN_A_FRAME}t0 signal ...\n{CLAIMED}", resolve(kernel), machine=AMX)
    assert results[-5] == "ok {xstate_bv: x87|sse, x87: init, sse: init}"
    assert results[-1] == "ok [t0:1]"
    assert not broken - {"no-buffer-overrun"}  # a401f45e3875 (6.2)


def test_tile_data_stays_as_well() -> None:
    text = f"""t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
t0 ldtilecfg(1)
t0 tileload(2)
{TILES_IN_A_FRAME.split(chr(10), 1)[1]}t0 signal ...
t0 ... signal
t0 sigframe(changed, {{xstate_bv: +xtile, xtilecfg: 2}})
t0 sigreturn
t0 tilestore
"""
    results, broken = run(text, machine=AMX)
    assert results[-1] == "ok [t0:2]"
    assert not broken


def test_other_components_are_written_though_they_are_initial() -> None:
    """XFEATURE_MASK_SIGFRAME_INITOPT is XTILE alone."""
    results, _ = run("""t0 vmovups(2)
t0 signal ...
t0 ... signal
t0 sigreturn
t0 xrstor(avx, 0, 1)
t0 signal ...
t0 ... signal
t0 sigframe(changed, {xstate_bv: +avx})
t0 sigreturn
t0 vextractf128
""")
    assert results[-1] == "ok [init]"


def test_behind_a_fault_nothing_is_left() -> None:
    """__clear_user() is of the whole image there."""
    signal = "t0 signal(absent) ...\nt0 ... signal(present) ...\n"
    results, broken = run(TILES_IN_A_FRAME + signal + CLAIMED, machine=AMX)
    assert results[-1] == "ok [init]"
    assert not broken


@pytest.mark.parametrize(
    "elsewhere",
    [
        "t0 sigaltstack(32768)\nt0 signal ...\n",
        f"{TILES_IN_USE}t0 tilerelease\nt0 signal ...\n",
        "t0 execve ...\nt0 ... execve\nt0 signal ...\n",
    ],
    ids=["another stack", "a larger image", "another program"],
)
def test_a_frame_elsewhere_has_none_of_it(elsewhere: str) -> None:
    results, broken = run(TILES_IN_A_FRAME + elsewhere + CLAIMED, machine=AMX)
    assert results[-1] == "ok [init]"
    assert not broken


def test_a_child_has_a_copy_of_what_is_left() -> None:
    child = f"t0 signal ...\n{CLAIMED}".replace("t0", "t2")
    results, broken = run(f"{TILES_IN_A_FRAME}t0 fork\ncpu0 schedule(t2)\n{child}", machine=AMX)
    assert results[-1] == "ok [t0:1]"
    assert not broken
