"""Which components the kernel knows and uses."""

from __future__ import annotations

from dataclasses import replace

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.fpu.init import FpuInit
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.revisions.queue import patch


@patch("7c1ef59145f1", "x86/cpufeatures: Re-enable ENQCMD", version="v5.18", neutral="a feature")
class Enqcmd(FpuInit):
    """PASID becomes the first supervisor state in use."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/disabled-features.h)."""
        return super().supervisor_xfeatures() | xf.MASK_PASID


@patch("8ad7e8f69695", "x86/fpu/xsave: Support XSAVEC in the kernel", version="v5.19", neutral="a feature")
class XsavecInKernel(FpuInit):
    """Without XSAVES the kernel saves with XSAVEC, and its images are compacted all the same."""

    def xstate_compacted(self) -> bool:
        """X86_FEATURE_XCOMPACTED (fpu/xstate.c, fpu__init_system_xstate())."""
        return super().xstate_compacted() or (self.machine.xsave and self.machine.xsavec)


@patch(
    "8970ef027b21",
    "x86/fpu/xstate: Introduce CET MSR and XSAVES supervisor states",
    version="v6.6",
    neutral="a feature",
)
class CetUser(FpuInit):
    """CET_USER is a supervisor state of the host."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_USER


@patch("bd0b10b795c5", "x86/fpu/apx: Define APX state component", version="v6.16", neutral="a feature")
class Apx(FpuInit):
    """One more component number, so index 19 is known to arch_prctl() though no facility has it."""

    XFEATURE_MAX = 20


@patch(
    "ea68e39190cf", "x86/fpu/apx: Disallow conflicting MPX presence", version="v6.16", neutral="no processor has both"
)
class ApxWithoutMpx(FpuInit):
    """A processor that enumerates APX and MPX, which lie at one place, is used without XSAVE."""

    def usable(self, machine: Machine) -> Machine:
        """(fpu/xstate.c, fpu__init_system_xstate())."""
        usable = super().usable(machine)
        return replace(usable, xsave=False) if machine.apx and machine.mpx else usable


@patch("50c5b071e283", "x86/fpu/apx: Enable APX state support", version="v6.16", neutral="a feature")
class ApxEnabled(FpuInit):
    """The registers of APX are a user feature."""

    XFEATURE_MASK_USER_SUPPORTED = FpuInit.XFEATURE_MASK_USER_SUPPORTED | xf.MASK_APX


@patch(
    "8b05b3c98816",
    "x86/fpu/xstate: Add CET supervisor xfeature support as a guest-only feature",
    version="v6.17",
    neutral="a feature",
)
class CetKernelGuestOnly(FpuInit):
    """CET_KERNEL is saved and restored for guests only (with 151bf232494d)."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_KERNEL

    def guest_supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().guest_supervisor_xfeatures() | xf.MASK_CET_KERNEL
