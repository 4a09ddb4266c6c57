"""What the signs of a trace mean, for who reads one for the first time; pages have the same."""

from __future__ import annotations

from rich.console import Console

from xfdfuzz.report.console import hanging, line

#: The sign, and what it means.
SIGNS = {
    "!": "what the step broke",
    "->": "in front of a step that the finding follows from; > one that only other violations do",
    "t0, v0, cpu0": "task 0, vCPU 0, CPU 0",
    "v0.xcr0": "vcpu->arch.xcr0 of vCPU 0",
    "v0 should have": "what an ideal machine would have, by what the guest and user space wrote",
    "left by, since": "the step that wrote it last",
    "OP ...": "begins, and a later op ends it: KVM_RUN ... is in the kernel or in the guest",
    "= 0 (of 1)": "none of the one MSR was taken: KVM refuses it",
    "v0:1, t1:2": "register contents: what vCPU 0 loaded with (1), task 1 with (2)",
    "kernel:1, init": "the kernel's own contents; the initial ones",
    "xtile": "xtilecfg|xtiledata",
    "fpstate#12": "a buffer for register contents, by its number",
    "(--full)": "folded: replay --full shows it",
    "~": "on this kernel an op could not happen, so nothing is known",
}
#: What shows all of that.
COMMAND = "xfdfuzz help notation"


def terminal(out: Console) -> None:
    """A line for each."""
    wide = max(map(len, SIGNS))
    for sign, meaning in SIGNS.items():
        hanging(out, wide + 2, (f"{sign:{wide}}", "bold"), f"  {meaning}")


def pointer(out: Console) -> None:
    """Where people find them, which a pipe does not need."""
    if out.is_terminal:
        line(out, (f"what the signs mean: {COMMAND}", "dim"))
