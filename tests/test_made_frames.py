"""Signal frames that user space makes: where they lie, what they lead to, and what is promised of them."""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import Verdict, judge
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

#: A whole frame of AVX.
_MADE = """\
t0 sigframe(new)
t0 sigframe({xstate_bv: x87|sse|avx, data: 2}) own
t0 sigframe(sw_reserved, {magic1: 1, extended_size: 836, xfeatures: x87|sse|avx, xstate_size: 832, magic2: 832}) own
"""
_HANDLER = "t0 signal ...\nt0 ... signal\n"
_WHOLE = "ok {xstate_bv: x87|sse|avx, x87: t0:2, sse: t0:2, avx: t0:2}"
_LEGACY = "ok {xstate_bv: x87|sse, x87: t0:2, sse: t0:2}"


def judged(text: str, machine: str = "no-pku no-amx", revision: str = "v7.3") -> Verdict:
    return judge(parse(f"# xfdfuzz program 1\nmachine cpus=1 {machine}\n\n{text}\n"), resolve(revision))


def results(verdict: Verdict) -> list[str]:
    return [str(item.step.result) for item in verdict.trace if item.step]


def check(text: str, machine: str = "no-pku no-amx") -> None:
    """Each op with ``=`` results in what stands there, and nothing is broken."""
    verdict = judged(text, machine)
    expected = [line.partition(" = ")[2] for line in text.splitlines()]
    found = results(verdict)
    assert [(nr, found[nr]) for nr, said in enumerate(expected) if said] == [
        (nr, said) for nr, said in enumerate(expected) if said
    ]
    assert not verdict.broken


@pytest.mark.parametrize(
    "between",
    [
        _HANDLER * 3 + "t0 sigreturn\n" * 3,
        "t0 sigaltstack(8192)\n" + _HANDLER + "t0 sigreturn\n",
        _HANDLER,
        _HANDLER + "t0 siglongjmp\n",
        "cpu0 schedule(t1)\nt1 vmovups(5)\ncpu0 schedule(t0)\n",
    ],
)
def test_no_other_frame_overwrites_it(between: str) -> None:
    check(f"{_MADE}{between}t0 vmovups(1)\nt0 sigreturn own = ok\nt0 xsave(x87|sse|avx) = {_WHOLE}")


def test_the_task_goes_on_where_it_is() -> None:
    """Its handlers have not ended; siglongjmp() ends one, and the registers stay."""
    check(
        f"{_HANDLER}{_MADE}t0 sigreturn own = ok\nt0 xsave(x87|sse|avx) = {_WHOLE}\n{_HANDLER}"
        "t0 sigreturn = ok\nt0 xsave(avx) = ok {xstate_bv: avx, avx: t0:2}\n"
        "t0 sigframe frame0 = ok {magic1, xfeatures: x87|sse|avx|avx512, xstate_size: 2688, magic2}\n"
        "t0 siglongjmp = ok\nt0 xsave(avx) = ok {xstate_bv: avx, avx: t0:2}\nt0 siglongjmp = not-enabled"
    )


def test_a_forked_process_has_a_copy_and_a_thread_none() -> None:
    check(
        f"{_MADE}t0 fork = t2\nt0 sigframe(new)\nt0 clone(CLONE_THREAD) = t3\ncpu0 schedule(t2)\n"
        f"t2 sigreturn own = ok\nt2 xsave(x87|sse|avx) = {_WHOLE}\ncpu0 schedule(t3)\nt3 sigreturn own = not-enabled"
    )


def test_another_program_has_none() -> None:
    check(f"{_MADE}t0 execve ...\nt0 ... execve = 0\nt0 sigreturn own = not-enabled")


def test_it_is_a_copy_of_a_frame_of_the_kernels() -> None:
    """As run-times move frames, also to where the image is misaligned."""
    text = "t0 vmovups(2)\nt0 fld(2)\nt0 movups(2)\n" + _HANDLER + "t0 sigframe(new)\nt0 sigframe(copy, frame0) own\n"
    check(f"{text}t0 sigreturn own = ok\nt0 xsave(x87|sse|avx) = {_WHOLE}")
    check(
        f"{text}t0 sigframe(fpstate, 16) own\nt0 sigreturn own = SIGSEGV\nt0 xsave(x87|sse|avx) = ok {{xstate_bv: 0}}"
    )


@pytest.mark.parametrize(
    ("cpu", "image"), [("no-xsave no-xsaves no-xsavec no-xfd no-amx no-avx no-avx512 no-pku no-pasid", 16), ("", 48)]
)
def test_fxrstor_needs_16_bytes(cpu: str, image: int) -> None:
    legacy = "t0 sigframe(new)\nt0 sigframe({xstate_bv: x87|sse, data: 2}) own\n"
    good, bad = f"t0 sigframe(fpstate, {image}) own\nt0 sigreturn own", "t0 sigframe(fpstate, 24) own\nt0 sigreturn own"
    check(f"{legacy}{good} = ok\n{bad} = SIGSEGV", cpu)


def test_misalignment_comes_before_a_page_that_is_not_there() -> None:
    check(f"{_HANDLER}t0 sigframe(fpstate, 8)\nt0 sigreturn(absent, avx) ... = SIGSEGV\nt0 ... sigreturn = not-enabled")


def test_what_is_written_over_the_magic_takes_it_away() -> None:
    """The second magic of this frame stands in AVX's bytes, so of AVX nobody knows; behind AVX it stays."""
    inside = "t0 sigframe(sw_reserved, {extended_size: 644, xstate_size: 640, magic2: 640}) own\n"
    check(f"{_MADE}{inside}t0 sigreturn own = ok\nt0 xsave(x87|sse) = {_LEGACY}")
    again = "t0 sigframe({xstate_bv: x87|sse|avx, data: 2}) own\n"
    check(f"{_MADE}{inside}{again}t0 sigreturn own = ok\nt0 xsave(x87|sse|avx) = {_LEGACY}")
    check(f"{_MADE}{again}t0 sigreturn own = ok\nt0 xsave(x87|sse|avx) = {_WHOLE}")


def test_a_handler_keeps_its_alternate_stack() -> None:
    """That a frame replaces it is not modelled; outside of handlers it does, and what was left on it is lost."""
    made = "t0 sigframe(new, ss_size=16384)\nt0 sigframe(fpstate, NULL) own\n"
    text = f"t0 sigaltstack(8192)\n{_HANDLER}{made}t0 sigreturn own = not-enabled\nt0 sigreturn = ok\n"
    check(f"{text}t0 sigframe frame0 = ok {{magic1, xfeatures: x87|sse|avx|avx512, xstate_size: 2688, magic2}}")
    check(f"{text}t0 sigreturn own = ok\nt0 sigframe frame0 = not-enabled")


@pytest.mark.parametrize("text", ["t0 sigframe own", "t0 sigframe(fpstate, NULL) own", "t0 sigreturn own"])
def test_one_that_was_not_made_cannot_be_named(text: str) -> None:
    (step,) = (item.step for item in judged(text).trace if item.step)
    assert str(step.result) == "not-enabled"
    assert step.hindrance == "t0 has made no frame of its own"


def test_one_that_is_smaller_than_what_it_speaks_of_is_not_whole() -> None:
    """The kernel may fault in all that XRSTOR could read of ``xfeatures``, so nobody promises that it is accepted."""
    sizes = "magic1: 1, extended_size: 580, xstate_size: 576, magic2: 576"
    for xfeatures, mapped, whole in (("x87|sse|avx|xtile", 896, False), ("x87|sse", 896, True)):
        made = f"t0 sigframe(new, mapped={mapped})\nt0 sigframe(sw_reserved, {{{sizes}, xfeatures: {xfeatures}}}) own\n"
        verdict = judged(f"{made}t0 sigreturn(absent, 0) own ...\nt0 ... sigreturn", "no-pku", "v7.3-cured")
        assert verdict.broken == ()
        assert (results(verdict)[-1] == "ok") == whole
