"""Where the alternate signal stack ends: get_sigframe() looks for it below the red zone (arch/x86/kernel/signal.c)."""

from __future__ import annotations

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

#: The image has 2688 bytes and a magic of 4, the context 440: addresses are multiples of 64, and of 16 less 8.
_PROGRAM = """\
# xfdfuzz program 1
machine cpus=1 no-xfd no-amx no-pku

t0 sigaltstack({size})
t0 signal ...
t0 ... signal
t0 signal ...
"""


@pytest.mark.parametrize(
    ("size", "outer", "inner"),
    [
        (3200, "SIGSEGV", "SIGSEGV"),
        (3264, "ok", "not-enabled"),  # the frame is at 56
        (3328, "ok", "not-enabled"),  # at 120, a call has pushed 8 bytes, and the red zone takes 128
        (3392, "ok", "SIGSEGV"),  # at 184
    ],
)
def test_a_frame_that_would_lie_over_another_one_is_not_modelled(size: int, outer: str, inner: str) -> None:
    verdict = judge(parse(_PROGRAM.format(size=size)), resolve("v7.3"))
    results = [item.step.result.ret for item in verdict.trace if item.step]
    assert (results[1], results[3]) == (outer, inner)


def test_a_32_bit_task_has_no_red_zone() -> None:
    """So its alternate stack is left where the frame has no room: 112 bytes of header, 268 of context."""
    text = _PROGRAM.format(size=3264).replace("t0 sigaltstack", "t0 execve ...\nt0 ... execve(ia32)\nt0 sigaltstack")
    verdict = judge(parse(text), resolve("v7.3"))
    results = [item.step.result.ret for item in verdict.trace if item.step]
    assert (results[3], results[5]) == ("ok", "SIGSEGV")


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        (Machine(), 11952),
        (Machine(amx=False), 3632),
        (Machine(amx=False, pku=False, avx512=False), 1776),
        (Machine(xsave=False), 1440),
    ],
    ids=["AMX", "PKRU", "AVX", "FXSAVE"],
)
def test_the_largest_frame_is_what_kernels_print(machine: Machine, size: int) -> None:
    """``signal: max sigframe size`` of the recorded kernels, a Skylake server, a laptop without AVX-512; without
    XSAVE it is 736 + 15 + 512 + 112 + 63, rounded up."""
    assert resolve("v7.3").kernel(machine).get_sigframe_size() == size
