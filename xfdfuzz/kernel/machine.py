"""What a kernel runs on, and how it is built."""

from __future__ import annotations

from dataclasses import dataclass, fields

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.processor import AMD_LACKS, Processor

MAX_CPUS = 4


@dataclass(frozen=True)
class Config:
    """The options that a kernel is built with, and booted with.

    ``debug_fpu`` is CONFIG_X86_DEBUG_FPU, ``rt`` is CONFIG_PREEMPT_RT, with the PREEMPT_RT patches where the kernel is
    older than 6.12.  ``nopku`` is the boot parameter: CR4.PKE stays clear, and X86_FEATURE_OSPKE with it.
    ``strict_sas_size`` is CONFIG_STRICT_SIGALTSTACK_SIZE, or the boot parameter of that name.
    """

    debug_fpu: bool = False
    rt: bool = False
    nopku: bool = False
    strict_sas_size: bool = False


@dataclass(frozen=True, repr=False)
class Machine(Config, Processor):
    """The set-up that a program names in its ``machine`` line: ``cpus`` processors that are alike, and the kernel's
    options.

    The default is a server with one processor and no option.  ValueError for a number of processors that is not from 1
    to :data:`MAX_CPUS`, and as :class:`Processor` says.

    Without XFD there is no ``amx``, whatever was said of it: a host that has AMX without it does not boot.
    X86_FEATURE_AMX_TILE stays set, as the dependencies are for flags that the kernel clears, and
    fpu__init_system_xstate() drops XFEATURE_MASK_USER_DYNAMIC, which is TILEDATA alone, so fpu__init_cpu_xstate() sets
    TILECFG without it in XCR0, which is #GP (arch/x86/kernel/{fpu/xstate.c,cpu/cpuid-deps.c}; the trace, of 6.1.102, is
    in Firecracker's pull request 5065).
    """

    cpus: int = 1

    def __post_init__(self) -> None:
        if not self.boots_with_amx:
            object.__setattr__(self, "amx", False)
        super().__post_init__()
        if not 1 <= self.cpus <= MAX_CPUS:
            raise ValueError(f"cpus={self.cpus}: expected 1 to {MAX_CPUS}")

    @property
    def boots_with_amx(self) -> bool:
        """Whether Linux boots where the processor has AMX: with XFD, and without XSAVE, when it leaves XCR0 alone."""
        return self.has_xfd or not self.xsave

    def __repr__(self) -> str:
        return f"<machine {' '.join(self.words())}>"

    def words(self) -> list[str]:
        """The set-up as that line writes it: ``cpus=2``, each switch that differs from the default, or from what
        ``amd`` says, and ``in-use=...``."""
        said = AMD_LACKS if self.amd else ()
        switches = [
            ("" if value else "no-") + f.name.replace("_", "-")
            for f in fields(self)
            if f.name not in ("cpus", "in_use", *said) and (value := getattr(self, f.name)) != f.default
        ]
        in_use = [f"in-use={xf.format_mask(self.in_use)}"] if self.in_use else []
        return [f"cpus={self.cpus}", *switches, *in_use]
