"""Core files."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.coredump import Coredump, CoreFile, XfeatComponent
from xfdfuzz.revisions.queue import patch


@patch(
    "ba386777a30b", "x86/elf: Add a new FPU buffer layout info to x86 core files", version="v6.12", neutral="a feature"
)
class XsaveLayout(Coredump):
    """NT_X86_XSAVE_LAYOUT says where the components of NT_X86_XSTATE lie, which readers had to guess from its size."""

    def elf_coredump_extra_notes_write(self, core: CoreFile) -> int:
        """Nothing without XSAVE; 1 where the descriptors could not be written (fpu/xstate.c)."""
        if not (self.use_xsave and self.fpu_user_cfg.max_features):
            return 0
        return int(self.xsave_layout_failed(self.dump_xsave_layout_desc(core)))

    @phase_of("dump_xsave_layout_desc")
    def dump_xsave_layout_desc(self, core: CoreFile) -> int:
        """A descriptor for each extended user feature, as CPUID has it; how many (fpu/xstate.c)."""
        extended = xf.components_in(self.fpu_user_cfg.max_features & ~xf.MASK_FPSSE)
        where = ((i, self.machine.cpuid.components[i]) for i in extended)
        core.layout = tuple(XfeatComponent(i, component.size, component.offset) for i, component in where)
        return len(core.layout)


@patch(
    "c8161e5304ab",
    "x86/fpu: Fix FPU state core dump truncation on CPUs with no extended xfeatures",
    version="v6.19",
    fixes=("ba386777a30b",),
    stable=("v6.12.64", "v6.18.3"),
)
class NoXsaveLayoutIsWhole(Coredump):
    """A processor with x87 and SSE alone has no descriptors, and core files go on behind them."""

    def xsave_layout_failed(self, num_records: int) -> bool:
        """(fpu/xstate.c)."""
        return num_records < 0
