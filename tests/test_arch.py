"""The processor as the SDM describes it: sizes, XCR0, IA32_XFD, IA32_XFD_ERR, #NM, and the XSAVE family under XFD."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch import xsave as arch
from xfdfuzz.arch.cpuid import DENSE, SAPPHIRE_RAPIDS, ZEN4, Leaf
from xfdfuzz.arch.processor import Processor
from xfdfuzz.arch.registers import (
    INSTRUCTIONS,
    MSR_IA32_XFD,
    MSR_IA32_XFD_ERR,
    MSR_IA32_XSS,
    CpuRegs,
    DeviceNotAvailable,
    Fault,
    GeneralProtection,
    InvalidOpcode,
    cpuid,
    execute,
    load_component,
    rdmsr,
    read,
    wrmsr,
    xsetbv,
)
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XCOMP_BV_COMPACTED, XsaveArea, xrstors, xsave, xsavec, xsaves
from xfdfuzz.memory.cstruct import copy_of

SPR = Processor()
DYN2 = Processor(dyn2=True)
#: XCR0 of Linux on Sapphire Rapids.
XCR0 = 0x602E7
TILEDATA = 1 << 18
TILECFG = 1 << 17
AVX = 1 << 2

Save = Callable[[CpuRegs, XsaveArea, int], None]
Restore = Callable[[CpuRegs, XsaveArea, int], None]


def xrstor(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XRSTOR of a processor that takes both formats."""
    arch.xrstor(regs, SPR, area, mask)


SAVES: list[Save] = [xsave, xsavec, xsaves]
#: Each way to restore with the way to save that makes its format.
PAIRS: list[tuple[Save, Restore]] = [(xsave, xrstor), (xsaves, xrstors)]


def processor(xcr0: int = XCR0, xfd: int = 0, **contents: int) -> CpuRegs:
    """Registers with the named components in use."""
    regs = CpuRegs(xcr0=xcr0, xfd=xfd)
    for name, token in contents.items():
        mask = xf.mask_by_name(name)
        assert mask is not None
        load_component(regs, mask.bit_length() - 1, token)
    return regs


def image(xstate_bv: int, xcomp_bv: int = 0, token: int = 5) -> XsaveArea:
    area = XsaveArea(xstate_bv=xstate_bv, xcomp_bv=xcomp_bv)
    for i in xf.components_in(xstate_bv):
        area.data[i] = token
    return area


# -- CPUID -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "standard", "compacted"),
    [
        (XCR0, 11008, 10752),
        (XCR0 & ~TILEDATA, 2816, 2560),
        (XCR0 & ~xf.MASK_XTILE, 2696, 2440),
        (xf.MASK_FPSSE, 576, 576),
        (xf.MASK_FPSSE | AVX, 832, 832),
    ],
    ids=["all", "without TILEDATA", "without AMX", "legacy", "AVX"],
)
def test_sizes_are_those_of_sapphire_rapids(mask: int, standard: int, compacted: int) -> None:
    assert SAPPHIRE_RAPIDS.standard_size(mask) == standard
    assert SAPPHIRE_RAPIDS.compacted_size(mask) == compacted


def test_tiledata_is_8192_bytes_at_2816_and_the_one_component_under_xfd() -> None:
    assert (SAPPHIRE_RAPIDS.components[18].offset, SAPPHIRE_RAPIDS.components[18].size) == (2816, 8192)
    assert SPR.xfd_xfeatures == TILEDATA
    assert SPR.user_xfeatures == XCR0


def test_supervisor_components_have_no_place_in_the_standard_format() -> None:
    assert SAPPHIRE_RAPIDS.standard_size(XCR0 | xf.MASK_PASID) == SAPPHIRE_RAPIDS.standard_size(XCR0)
    assert SAPPHIRE_RAPIDS.compacted_size(AVX | xf.MASK_PASID) == SAPPHIRE_RAPIDS.compacted_size(AVX) + 8


def test_tile_components_are_aligned_to_64_bytes_in_the_compacted_format() -> None:
    # PKRU's 8 bytes end at 840; TILECFG starts at 896 and takes 64
    assert SAPPHIRE_RAPIDS.compacted_size(xf.MASK_FPSSE | AVX | xf.MASK_PKRU | TILECFG) == 896 + 64


def test_components_that_are_not_written_count_in_the_layout_but_not_in_what_is_touched() -> None:
    assert SAPPHIRE_RAPIDS.compacted_end(AVX | TILEDATA, AVX) == 832
    assert SAPPHIRE_RAPIDS.compacted_end(AVX | TILEDATA, TILEDATA) == 832 + 8192
    assert SAPPHIRE_RAPIDS.compacted_offset(AVX | TILEDATA, xf.XTILE_DATA) == 832
    assert SAPPHIRE_RAPIDS.compacted_offset(XCR0, xf.XTILE_DATA) == 10752 - 8192


def test_standard_components_do_not_overlap() -> None:
    """But for APX, which lies where MPX did: no processor has both."""
    user = (c for i, c in SAPPHIRE_RAPIDS.components.items() if not c.supervisor and i != xf.APX)
    places = sorted((c.offset, c.offset + c.size) for c in user)
    assert all(end <= start for (_, end), (start, _) in pairwise(places))


@pytest.mark.parametrize(
    ("subleaf", "expected"),
    [
        (0, Leaf(0x602E7, 576, 11008, 0)),
        (1, Leaf(0x1F, 576, 0x400, 0)),
        (2, Leaf(256, 576, 0, 0)),
        (3, Leaf(0, 0, 0, 0)),
        (10, Leaf(8, 0, 1, 0)),
        (17, Leaf(64, 2752, 2, 0)),
        (18, Leaf(8192, 2816, 6, 0)),
    ],
)
def test_leaf_0xd_enumerates_what_the_processor_has(subleaf: int, expected: Leaf) -> None:
    """At reset, XCR0 = 1 and XSS = 0: the current sizes are those of the legacy region and the header."""
    assert SPR.cpuid.leaf(subleaf, SPR.user_xfeatures, SPR.supervisor_xfeatures, xf.MASK_X87, 0) == expected


def test_leaf_0xd_sizes_follow_xcr0_and_xss() -> None:
    assert SPR.cpuid.leaf(0, XCR0, xf.MASK_PASID, XCR0 & ~TILEDATA, 0).ebx == 2816
    assert SPR.cpuid.leaf(1, XCR0, xf.MASK_PASID, AVX | xf.MASK_FPSSE, xf.MASK_PASID).ebx == 840


def test_the_dense_layout_has_no_gap() -> None:
    places = sorted((c.offset, c.offset + c.size) for c in DENSE.components.values() if not c.supervisor)
    assert all(end == start for (_, end), (start, _) in pairwise(places))
    assert DENSE.standard_size(AVX | xf.MASK_FPSSE) == DENSE.compacted_size(AVX | xf.MASK_FPSSE) == 832


@pytest.mark.parametrize(
    ("mask", "size"),
    [(xf.MASK_FPSSE | AVX, 832), (0xE7, 2432), (0x2E7, 2440), (0x207, 2440)],
    ids=["AVX", "AVX-512", "all", "Zen 3"],
)
def test_sizes_are_those_of_zen_4(mask: int, size: int) -> None:
    """Protection keys lie behind AVX-512, whether a processor has that or not; compacted they follow AVX."""
    assert ZEN4.standard_size(mask) == size
    assert ZEN4.compacted_size(mask) == (840 if mask == 0x207 else size)
    assert ZEN4.compacted_size(mask | xf.MASK_CET) == ZEN4.compacted_size(mask) + 16 + 24


@pytest.mark.parametrize(
    ("subleaf", "expected"),
    [
        (0, Leaf(0xE7, 2432, 2432, 0)),
        (1, Leaf(0xF, 2472, 0x1800, 0)),
        (2, Leaf(256, 576, 0, 0)),
        (5, Leaf(64, 832, 0, 0)),
        (6, Leaf(512, 896, 0, 0)),
        (7, Leaf(1024, 1408, 0, 0)),
        (9, Leaf(0, 0, 0, 0)),
        (11, Leaf(16, 0, 1, 0)),
        (12, Leaf(24, 0, 1, 0)),
        (18, Leaf(0, 0, 0, 0)),
    ],
)
def test_leaf_0xd_is_that_of_a_zen_4(subleaf: int, expected: Leaf) -> None:
    """As one under Firecracker gives it to user space on Linux 6.18, with XCR0 = 0xe7 and IA32_XSS = 0x1800."""
    zen4 = Processor(amd=True, cet=True, pku=False)
    assert zen4.cpuid.leaf(subleaf, zen4.user_xfeatures, zen4.supervisor_xfeatures, 0xE7, 0x1800) == expected


def test_a_processor_of_amd_has_no_more_than_they_have() -> None:
    assert Processor(amd=True) == Processor(amd=True, amx=False, xfd=False, pasid=False)
    assert not Processor(amd=True).has_xfd
    for name in ("mpx", "apx", "dyn2", "dense", "amx_ud_first", "amx_ignores_ts", "spr4_erratum"):
        with pytest.raises(ValueError, match=f"^{name}: not with amd$"):
            Processor(**{"amd": True, name: True})


def test_processor_without_xsave_has_neither_components_nor_xfd() -> None:
    bare = Processor(xsave=False, cet=True, mpx=True)
    assert (bare.user_xfeatures, bare.supervisor_xfeatures, bare.xfd_xfeatures, bare.has_xfd) == (0, 0, 0, False)


# -- XCR0 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "legal"),
    [
        (0b1, True),
        (0b11, True),
        (0b111, True),
        (0xE7, True),
        (XCR0, True),
        (0b111 | xf.MASK_XTILE, True),
        (0b1 | xf.MASK_XTILE, True),
        (0b111 | xf.MASK_MPX, True),
        (0b111 | xf.MASK_PKRU, True),
        (0, False),  # a. x87 is always there
        (0b110, False),
        (1 << 63 | 0b1, False),  # b. reserved, or not supported
        (0b1 | xf.MASK_PASID, False),
        (0b101, False),  # c. AVX needs SSE
        (0b111 | 1 << 5, False),  # d. AVX-512: all three and AVX
        (0b111 | 1 << 6 | 1 << 7, False),
        (0b011 | xf.MASK_AVX512, False),
        (0b111 | 1 << 3, False),  # e. MPX: both
        (0b111 | 1 << 4, False),
        (0b111 | TILECFG, False),  # f. tiles: both
        (0b111 | TILEDATA, False),
    ],
)
def test_xsetbv_takes_what_the_sdm_allows_and_nothing_else(value: int, legal: bool) -> None:
    cpu = Processor(mpx=True)
    regs = processor(xcr0=0b1)
    if legal:
        xsetbv(regs, cpu, value)
    else:
        with pytest.raises(GeneralProtection):
            xsetbv(regs, cpu, value)
    assert regs.xcr0 == (value if legal else 0b1)


@pytest.mark.parametrize(
    ("cpu", "value"),
    [
        (Processor(), 0b111 | xf.MASK_MPX),
        (Processor(amx=False), 0b111 | xf.MASK_XTILE),
        (Processor(avx512=False), 0b111 | xf.MASK_AVX512),
        (Processor(pku=False), 0b111 | xf.MASK_PKRU),
        (Processor(), 0b111 | xf.MASK_DYN2),
    ],
)
def test_xsetbv_refuses_what_the_processor_lacks(cpu: Processor, value: int) -> None:
    with pytest.raises(GeneralProtection):
        xsetbv(processor(xcr0=0b1), cpu, value)


def test_xsetbv_leaves_the_registers_alone() -> None:
    regs = processor(avx=3, xtilecfg=1, xtiledata=2)
    xsetbv(regs, SPR, 0b1)
    xsetbv(regs, SPR, XCR0)
    assert (regs.data[xf.YMM], regs.data[xf.XTILE_DATA]) == (3, 2)
    assert regs.xinuse == AVX | xf.MASK_XTILE


# -- IA32_XFD and IA32_XFD_ERR -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("msr", [MSR_IA32_XFD, MSR_IA32_XFD_ERR])
@pytest.mark.parametrize(
    ("cpu", "value", "faults"),
    [
        (SPR, 0, False),
        (SPR, TILEDATA, False),
        (SPR, TILECFG, True),
        (SPR, TILEDATA | AVX, True),
        (SPR, 1 << 63, True),
        (SPR, xf.MASK_DYN2, True),
        (DYN2, TILEDATA | xf.MASK_DYN2, False),
        (Processor(amx=False), TILEDATA, True),
        (Processor(xfd=False), 0, True),
        (Processor(xgetbv1=False), 0, True),
        (Processor(xsave=False), 0, True),
    ],
)
def test_wrmsr_of_the_xfd_msrs_takes_xfd_capable_components_only(
    msr: int, cpu: Processor, value: int, faults: bool
) -> None:
    regs = CpuRegs()
    if faults:
        with pytest.raises(GeneralProtection):
            wrmsr(regs, cpu, msr, value)
        assert bytes(regs) == bytes(CpuRegs())
    else:
        wrmsr(regs, cpu, msr, value)
        assert rdmsr(regs, cpu, msr) == value


def test_the_two_xfd_msrs_are_two_registers() -> None:
    regs = CpuRegs()
    wrmsr(regs, SPR, MSR_IA32_XFD, TILEDATA)
    assert rdmsr(regs, SPR, MSR_IA32_XFD_ERR) == 0


@pytest.mark.parametrize("msr", [MSR_IA32_XFD, MSR_IA32_XFD_ERR])
@pytest.mark.parametrize("cpu", [Processor(xfd=False), Processor(xsave=False)])
def test_rdmsr_of_an_xfd_msr_that_does_not_exist_faults(msr: int, cpu: Processor) -> None:
    with pytest.raises(GeneralProtection):
        rdmsr(CpuRegs(), cpu, msr)


@pytest.mark.parametrize(
    ("cpu", "value", "faults"),
    [
        (Processor(), xf.MASK_PASID, False),
        (Processor(cet=True), xf.MASK_CET_USER | xf.MASK_CET_KERNEL, False),
        (Processor(), xf.MASK_CET_KERNEL, True),
        (Processor(), AVX, True),
        (Processor(xsave=False), 0, True),
    ],
)
def test_xss_takes_supervisor_components_only(cpu: Processor, value: int, faults: bool) -> None:
    regs = CpuRegs()
    if faults:
        with pytest.raises(GeneralProtection):
            wrmsr(regs, cpu, MSR_IA32_XSS, value)
    else:
        wrmsr(regs, cpu, MSR_IA32_XSS, value)
        assert rdmsr(regs, cpu, MSR_IA32_XSS) == value


def test_setting_xfd_does_not_touch_the_tiles() -> None:
    regs = processor(xtilecfg=1, xtiledata=2)
    wrmsr(regs, SPR, MSR_IA32_XFD, TILEDATA)
    assert regs.data[xf.XTILE_DATA] == 2


# -- #NM ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("insn", "xfd", "loaded"),
    [
        ("tileload", TILEDATA, TILEDATA),
        ("tileload", TILEDATA | xf.MASK_DYN2, TILEDATA),
        ("dyn2load", TILEDATA | xf.MASK_DYN2, xf.MASK_DYN2),
    ],
)
def test_xfd_nm_loads_what_is_disabled_and_needed(insn: str, xfd: int, loaded: int) -> None:
    regs = processor(xcr0=XCR0 | xf.MASK_DYN2, xfd=xfd, xtilecfg=1)
    with pytest.raises(DeviceNotAvailable) as fault:
        execute(regs, DYN2, insn, 3, cr0_ts=False)
    assert fault.value.xfd
    assert regs.xfd_err == loaded


def test_xfd_nm_comes_before_the_missing_configuration() -> None:
    with pytest.raises(DeviceNotAvailable):
        execute(processor(xfd=TILEDATA), SPR, "tileload", 1, cr0_ts=False)


@pytest.mark.parametrize("insn", ["vmovups", "ldtilecfg", "tileload", "tilerelease"])
@pytest.mark.parametrize("xfd", [0, TILEDATA])
def test_nm_of_cr0_ts_leaves_xfd_err_alone(insn: str, xfd: int) -> None:
    regs = processor(xfd=xfd, xtilecfg=1)
    with pytest.raises(DeviceNotAvailable) as fault:
        execute(regs, SPR, insn, 1, cr0_ts=True)
    assert not fault.value.xfd
    assert regs.xfd_err == 0


def test_where_amx_ignores_cr0_ts_the_xfd_nm_is_reported() -> None:
    regs = processor(xfd=TILEDATA, xtilecfg=1)
    with pytest.raises(DeviceNotAvailable) as fault:
        execute(regs, Processor(amx_ignores_ts=True), "tileload", 1, cr0_ts=True)
    assert fault.value.xfd
    assert regs.xfd_err == TILEDATA


@pytest.mark.parametrize("insn", [partial(execute, insn="tileload", token=1), partial(read, insn="tilestore")])
def test_without_a_tile_configuration_a_processor_may_report_ud_first(insn: Callable[..., object]) -> None:
    regs = processor(xfd=TILEDATA)
    with pytest.raises(InvalidOpcode):
        insn(regs, Processor(amx_ud_first=True), cr0_ts=False)
    assert regs.xfd_err == 0
    regs = processor(xfd=TILEDATA, xtilecfg=1)
    with pytest.raises(DeviceNotAvailable):
        insn(regs, Processor(amx_ud_first=True), cr0_ts=False)


@pytest.mark.parametrize("insn", ["ldtilecfg", "tilerelease"])
def test_ldtilecfg_and_tilerelease_run_under_xfd_and_clear_the_tiles(insn: str) -> None:
    regs = processor(xfd=TILEDATA, xtilecfg=1, xtiledata=2)
    execute(regs, SPR, insn, 3, cr0_ts=False)
    assert regs.data[xf.XTILE_DATA] == 0
    assert regs.data[xf.XTILE_CFG] == (3 if insn == "ldtilecfg" else 0)
    assert regs.xfd_err == 0


def test_avx_runs_under_xfd() -> None:
    regs = processor(xfd=TILEDATA)
    execute(regs, SPR, "vmovups", 4, cr0_ts=False)
    assert regs.data[xf.YMM] == 4


@pytest.mark.parametrize(
    ("insn", "xcr0", "cpu"),
    [
        ("tileload", XCR0, SPR),  # no configuration
        ("tileload", 0xE7, SPR),
        ("ldtilecfg", 0xE7, SPR),
        ("tilerelease", 0xE7, SPR),
        ("vmovups", 0b11, SPR),
        ("dyn2load", XCR0, DYN2),
        ("ldtilecfg", XCR0, Processor(amx=False)),
    ],
)
def test_what_xcr0_or_the_processor_does_not_enable_is_undefined(insn: str, xcr0: int, cpu: Processor) -> None:
    with pytest.raises(InvalidOpcode):
        execute(processor(xcr0=xcr0), cpu, insn, 1, cr0_ts=False)


def test_xfd_means_nothing_while_xcr0_is_clear() -> None:
    regs = processor(xcr0=0xE7, xfd=TILEDATA)
    xrstors(regs, image(AVX, XCOMP_BV_COMPACTED | 0xE7), xf.U64_MAX)
    with pytest.raises(InvalidOpcode):
        execute(regs, SPR, "tileload", 1, cr0_ts=False)
    assert regs.xfd_err == 0


# -- saving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", SAVES)
def test_saving_under_xfd_does_not_fault_and_takes_tiledata_as_initial(save: Save) -> None:
    regs = processor(xfd=TILEDATA, avx=3, xtilecfg=1, xtiledata=2)
    before = bytes(regs)
    area = XsaveArea()
    save(regs, area, xf.U64_MAX)
    assert area.xstate_bv == AVX | TILECFG
    assert area.data[xf.YMM] == 3
    assert bytes(regs) == before


@pytest.mark.parametrize(("save", "left"), [(xsave, 0), (xsavec, 6), (xsaves, 6)])
def test_only_plain_xsave_writes_the_initial_configuration_over_old_data(save: Save, left: int) -> None:
    area = image(TILEDATA, token=6)
    save(processor(xfd=TILEDATA, xtiledata=2), area, TILEDATA)
    assert area.xstate_bv == 0
    assert area.data[xf.XTILE_DATA] == left


@pytest.mark.parametrize("save", [xsavec, xsaves])
def test_xcomp_bv_is_the_request_whatever_xfd_says(save: Save) -> None:
    area = XsaveArea()
    save(processor(xfd=TILEDATA, xtiledata=2), area, TILEDATA)
    assert area.xstate_bv == 0
    assert area.xcomp_bv == XCOMP_BV_COMPACTED | TILEDATA


def test_xsave_keeps_the_bits_that_it_was_not_asked_for() -> None:
    area = image(xf.MASK_X87 | AVX)
    xsave(processor(xtilecfg=1), area, AVX | TILECFG)
    assert area.xstate_bv == xf.MASK_X87 | TILECFG


def test_xsavec_drops_the_bits_that_it_was_not_asked_for() -> None:
    area = image(xf.MASK_X87 | AVX)
    xsavec(processor(xtilecfg=1), area, AVX | TILECFG)
    assert area.xstate_bv == TILECFG


def test_only_xsaves_reaches_supervisor_components() -> None:
    saved = {}
    for save in SAVES:
        area = XsaveArea()
        regs = processor(pasid=4)
        regs.xss = xf.MASK_PASID
        save(regs, area, xf.U64_MAX)
        saved[save.__name__] = area.xstate_bv
    assert saved == {"xsave": 0, "xsavec": 0, "xsaves": xf.MASK_PASID}


# -- restoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restore", "xcomp_bv"), [(xrstor, 0), (xrstors, XCOMP_BV_COMPACTED | XCR0)])
def test_restoring_a_disabled_component_is_nm(restore: Restore, xcomp_bv: int) -> None:
    regs = processor(xfd=TILEDATA, avx=1)
    with pytest.raises(DeviceNotAvailable) as fault:
        restore(regs, image(AVX | TILEDATA, xcomp_bv), XCR0)
    assert fault.value.xfd
    assert regs.xfd_err == TILEDATA
    assert regs.data[xf.YMM] == 1


@pytest.mark.parametrize(("restore", "xcomp_bv"), [(xrstor, 0), (xrstors, XCOMP_BV_COMPACTED | XCR0)])
def test_initialising_a_disabled_component_is_no_nm(restore: Restore, xcomp_bv: int) -> None:
    regs = processor(xfd=TILEDATA, xtiledata=2)
    restore(regs, image(AVX, xcomp_bv), XCR0)
    assert regs.data[xf.XTILE_DATA] == 0
    assert regs.xinuse == AVX


@pytest.mark.parametrize(("restore", "xcomp_bv"), [(xrstor, 0), (xrstors, XCOMP_BV_COMPACTED | XCR0)])
def test_a_disabled_component_outside_the_request_is_not_looked_at(restore: Restore, xcomp_bv: int) -> None:
    regs = processor(xfd=TILEDATA, xtiledata=2)
    restore(regs, image(AVX | TILEDATA, xcomp_bv), XCR0 & ~TILEDATA)
    assert regs.data[xf.XTILE_DATA] == 2
    assert regs.data[xf.YMM] == 5


@pytest.mark.parametrize(
    ("restore", "xstate_bv", "xcomp_bv"),
    [
        (xrstor, AVX, AVX),
        (xrstor, 1 << 3, 0),
        (xrstor, AVX, XCOMP_BV_COMPACTED | 1 << xf.XTILE_CFG),
        (xrstor, AVX, XCOMP_BV_COMPACTED | AVX | xf.MASK_CET_USER),
        (xrstors, AVX, 0),
        (xrstors, AVX, AVX),
        (xrstors, AVX | TILEDATA, XCOMP_BV_COMPACTED | AVX),
        (xrstors, AVX, XCOMP_BV_COMPACTED | AVX | 1 << 3),
        (xrstors, AVX, XCOMP_BV_COMPACTED | AVX | xf.MASK_PASID),
    ],
    ids=[
        "XRSTOR, XCOMP_BV that is not compacted",
        "XSTATE_BV beyond XCR0",
        "XRSTOR, XSTATE_BV beyond XCOMP_BV",
        "XRSTOR, a supervisor state",
        "no XCOMP_BV",
        "not compacted",
        "XSTATE_BV beyond XCOMP_BV",
        "XCOMP_BV beyond XCR0",
        "XCOMP_BV beyond IA32_XSS",
    ],
)
def test_restoring_an_image_with_a_bad_header_is_gp(restore: Restore, xstate_bv: int, xcomp_bv: int) -> None:
    regs = processor(avx=1)
    before = bytes(regs)
    with pytest.raises(GeneralProtection):
        restore(regs, image(xstate_bv, xcomp_bv), xf.U64_MAX)
    assert bytes(regs) == before


def test_only_a_processor_with_xsavec_takes_the_compacted_format_in_xrstor() -> None:
    """#GP "if bit 63 of the XCOMP_BV field is 1 and CPUID.(EAX=0DH,ECX=1):EAX.XSAVEC[bit 1] = 0" (SDM vol. 2); whether
    it has XSAVES does not count."""
    for xsaves_too in (True, False):
        regs, without = processor(), Processor(xsavec=False, xsaves=xsaves_too)
        with pytest.raises(GeneralProtection):
            arch.xrstor(regs, without, image(AVX, XCOMP_BV_COMPACTED | AVX), xf.U64_MAX)
        assert bytes(regs) == bytes(processor())
        arch.xrstor(regs, without, image(AVX), xf.U64_MAX)
        assert regs.data[xf.YMM] == 5
        arch.xrstor(regs, Processor(xsaves=xsaves_too), image(AVX, XCOMP_BV_COMPACTED | AVX, 6), xf.U64_MAX)
        assert regs.data[xf.YMM] == 6


@pytest.mark.parametrize("restore", [xrstor, xrstors])
def test_a_compacted_image_may_be_larger_than_what_it_holds(restore: Restore) -> None:
    regs = processor(avx=1, xtilecfg=2)
    restore(regs, image(AVX, XCOMP_BV_COMPACTED | AVX | 1 << xf.XTILE_CFG), xf.U64_MAX)
    assert (regs.data[xf.YMM], regs.data[xf.XTILE_CFG]) == (5, 0)


@pytest.mark.parametrize("insn", ["fld", "movups"])
def test_x87_and_sse_need_no_xcr0_but_look_at_cr0_ts(insn: str) -> None:
    regs = processor(xcr0=1)
    execute(regs, SPR, insn, 3, cr0_ts=False)
    component = INSTRUCTIONS[insn]
    assert (regs.data[component], regs.xinuse >> component & 1) == (3, 1)
    with pytest.raises(DeviceNotAvailable) as fault:
        execute(regs, SPR, insn, 4, cr0_ts=True)
    assert (fault.value.xfd, regs.data[component]) == (False, 3)
    execute(regs, SPR, insn, 0, cr0_ts=False)
    assert regs.xinuse >> component & 1 == 0


@pytest.mark.parametrize(("restore", "xcomp_bv"), [(xrstor, 0), (xrstors, XCOMP_BV_COMPACTED | XCR0)])
def test_restoring_an_image_with_reserved_bytes_in_its_header_is_gp(restore: Restore, xcomp_bv: int) -> None:
    area = image(AVX, xcomp_bv)
    area.reserved = 1
    with pytest.raises(GeneralProtection):
        restore(processor(), area, AVX)


def with_mxcsr(token: int) -> CpuRegs:
    regs = processor()
    load_component(regs, xf.MXCSR, token)
    return regs


def test_mxcsr_is_no_component_and_not_in_xinuse() -> None:
    assert with_mxcsr(5).xinuse == processor().xinuse


@pytest.mark.parametrize(
    ("mask", "stored"), [(xf.MASK_X87, 9), (xf.MASK_SSE, 5), (AVX, 5), (xf.MASK_X87 | xf.MASK_PKRU, 9)]
)
def test_xsave_stores_mxcsr_with_sse_or_avx_and_without_xstate_bv(mask: int, stored: int) -> None:
    """SDM vol. 1, 13.7."""
    area = XsaveArea()
    area.data[xf.MXCSR] = 9
    xsave(with_mxcsr(5), area, mask)
    assert (area.data[xf.MXCSR], area.xstate_bv) == (stored, 0)


@pytest.mark.parametrize("save", [xsavec, xsaves])
@pytest.mark.parametrize(
    ("mxcsr", "mask", "stored", "xstate_bv"),
    [(5, XCR0, 5, xf.MASK_SSE), (5, AVX, 9, 0), (5, xf.MASK_X87, 9, 0), (0, XCR0, 9, 0)],
)
def test_the_compacted_format_has_mxcsr_with_sse(
    save: Callable[[CpuRegs, XsaveArea, int], None], mxcsr: int, mask: int, stored: int, xstate_bv: int
) -> None:
    """SSE is saved while MXCSR is not 0x1f80, although XINUSE[1] does not speak of it (SDM vol. 1, 13.10 and 13.11)."""
    area = XsaveArea()
    area.data[xf.MXCSR] = 9
    save(with_mxcsr(mxcsr), area, mask)
    assert (area.data[xf.MXCSR], area.xstate_bv) == (stored, xstate_bv)


def test_avx_in_use_means_that_sse_is_unless_the_processor_knows_better() -> None:
    for exact, stored in ((False, 0), (True, 9)):
        regs, area = processor(), XsaveArea()
        load_component(regs, xf.YMM, 4)
        area.data[xf.MXCSR] = 9
        xsaves(regs, area, XCR0, exact)
        assert area.data[xf.MXCSR] == stored


@pytest.mark.parametrize(
    ("restore", "xcomp_bv", "xstate_bv", "mask", "loaded"),
    [
        (xrstor, 0, 0, AVX, 9),
        (xrstor, 0, 0, xf.MASK_SSE, 9),
        (xrstor, 0, xf.MASK_SSE, xf.MASK_X87, 5),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, AVX, AVX, 5),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, AVX, XCR0, 0),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, xf.MASK_SSE, XCR0, 9),
        (xrstor, XCOMP_BV_COMPACTED | XCR0, AVX, XCR0, 0),
    ],
)
def test_restoring_loads_mxcsr_as_the_format_says(
    restore: Restore, xcomp_bv: int, xstate_bv: int, mask: int, loaded: int
) -> None:
    """SDM vol. 1, 13.8.1 and 13.8.2."""
    regs, area = with_mxcsr(5), image(xstate_bv, xcomp_bv)
    area.data[xf.MXCSR] = 9
    restore(regs, area, mask)
    assert regs.data[xf.MXCSR] == loaded


@pytest.mark.parametrize(
    ("restore", "xcomp_bv", "xstate_bv", "mask", "loads_mxcsr"),
    [
        (xrstor, 0, 0, AVX, True),
        (xrstor, 0, AVX, xf.MASK_X87, False),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, AVX, AVX, False),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, AVX, XCR0, False),
        (xrstors, XCOMP_BV_COMPACTED | XCR0, AVX | xf.MASK_SSE, XCR0, True),
    ],
)
def test_loading_reserved_bits_of_mxcsr_is_gp(
    restore: Restore, xcomp_bv: int, xstate_bv: int, mask: int, loads_mxcsr: bool
) -> None:
    """The standard format has MXCSR for SSE and AVX, whatever XSTATE_BV says; the compacted one for SSE alone."""
    area = image(xstate_bv, xcomp_bv)
    area.data[xf.MXCSR] = MXCSR_RESERVED
    with pytest.raises(GeneralProtection) if loads_mxcsr else nullcontext():
        restore(processor(), area, mask)


def test_xrstors_reaches_supervisor_components() -> None:
    regs = processor()
    regs.xss = xf.MASK_PASID
    xrstors(regs, image(xf.MASK_PASID, XCOMP_BV_COMPACTED | XCR0 | xf.MASK_PASID), xf.U64_MAX)
    assert regs.data[xf.PASID] == 5


# -- properties --------------------------------------------------------------------------------------------------------

MASKS = st.just(xf.U64_MAX) | st.integers(0, 2**xf.COMPONENTS - 1)
XCR0S = st.sampled_from([0b1, 0b111, 0xE7, XCR0, XCR0 | xf.MASK_DYN2, 0b111 | xf.MASK_XTILE])
XFDS = st.sampled_from([0, TILEDATA, xf.MASK_DYN2, TILEDATA | xf.MASK_DYN2])
CONTENTS = st.dictionaries(st.sampled_from(xf.components_in(DYN2.user_xfeatures)), st.integers(0, 255))


@st.composite
def processors(draw: st.DrawFn) -> CpuRegs:
    regs = CpuRegs(xcr0=draw(XCR0S), xfd=draw(XFDS))
    for component, token in draw(CONTENTS).items():
        load_component(regs, component, token)
    return regs


@pytest.mark.parametrize("pair", PAIRS, ids=["xsave", "xsaves"])
@given(regs=processors(), other=processors(), mask=MASKS)
def test_what_was_saved_is_restored_and_the_rest_stays(
    pair: tuple[Save, Restore], regs: CpuRegs, other: CpuRegs, mask: int
) -> None:
    save, restore = pair
    other.xcr0 = regs.xcr0
    untouched = copy_of(other)
    area = XsaveArea()
    save(regs, area, mask)
    other.xfd = 0
    restore(other, area, mask)
    for i in xf.NAMES:
        bit = 1 << i
        saved = 0 if bit & regs.xfd else regs.data[i]
        expected = saved if bit & mask & regs.xcr0 else untouched.data[i]
        assert other.data[i] == expected
        assert bool(other.xinuse & bit) == bool(expected)


@given(regs=processors(), mask=MASKS)
def test_what_was_saved_under_an_xfd_is_restored_under_it_without_a_fault(regs: CpuRegs, mask: int) -> None:
    for save, restore in PAIRS:
        area = XsaveArea()
        save(regs, area, mask)
        restore(copy_of(regs), area, mask)


@given(
    regs=processors(),
    insn=st.sampled_from(sorted(INSTRUCTIONS)),
    cpu=st.sampled_from([SPR, DYN2, Processor(amx=False), Processor(amx_ignores_ts=True)]),
    cr0_ts=st.booleans(),
)
def test_an_instruction_that_faults_changes_nothing_but_xfd_err(
    regs: CpuRegs, insn: str, cpu: Processor, cr0_ts: bool
) -> None:
    before = copy_of(regs)
    try:
        execute(regs, cpu, insn, 7, cr0_ts)
    except Fault as fault:
        if isinstance(fault, DeviceNotAvailable) and fault.xfd:
            assert regs.xfd_err
            regs.xfd_err = before.xfd_err
        assert bytes(regs) == bytes(before)
    else:
        assert regs.data[INSTRUCTIONS[insn]] == (0 if insn == "tilerelease" else 7)


@given(regs=processors(), bv=MASKS, layout=MASKS, compacted=st.booleans(), mask=MASKS)
def test_a_restore_that_faults_changes_nothing_but_xfd_err(
    regs: CpuRegs, bv: int, layout: int, compacted: bool, mask: int
) -> None:
    before = copy_of(regs)
    area = image(bv, XCOMP_BV_COMPACTED | bv | layout if compacted else 0)
    try:
        (xrstors if compacted else xrstor)(regs, area, mask)
    except Fault as fault:
        if isinstance(fault, DeviceNotAvailable):
            assert regs.xfd_err == regs.xfd & mask & bv & regs.xcr0
            regs.xfd_err = before.xfd_err
        assert bytes(regs) == bytes(before)
    else:
        loaded = bv & mask & regs.xcr0
        assert not loaded & regs.xfd
        assert all(regs.data[i] == 5 for i in xf.components_in(loaded))


# -- instructions that store, and CPUID --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("insn", "component"),
    [("stmxcsr", xf.MXCSR), ("vextractf128", xf.YMM), ("sttilecfg", xf.XTILE_CFG), ("tilestore", xf.XTILE_DATA)],
)
def test_an_instruction_that_stores_gives_what_is_there_and_changes_nothing(insn: str, component: int) -> None:
    regs = processor(avx=3, xtilecfg=1, xtiledata=2)
    load_component(regs, xf.MXCSR, 4)
    before = copy_of(regs)
    assert read(regs, SPR, insn, cr0_ts=False) == regs.data[component] != 0
    with pytest.raises(DeviceNotAvailable):
        read(regs, SPR, insn, cr0_ts=True)
    assert bytes(regs) == bytes(before)


@pytest.mark.parametrize(("insn", "lacks"), [("vextractf128", "avx"), ("sttilecfg", "amx"), ("tilestore", "amx")])
def test_what_the_processor_lacks_cannot_be_stored(insn: str, lacks: str) -> None:
    less = {"avx": Processor(avx=False, avx512=False), "amx": Processor(amx=False)}[lacks]
    with pytest.raises(InvalidOpcode):
        read(processor(xcr0=less.user_xfeatures), less, insn, cr0_ts=False)


def test_fxsave_and_fxrstor_know_no_xcr0_and_no_avx() -> None:
    regs, other = processor(x87=1, sse=2, avx=3, xcr0=xf.MASK_X87), processor(avx=5)
    load_component(regs, xf.MXCSR, 4)
    area = arch.save(regs, SPR, "fxsave", 0, cr0_ts=False)
    arch.fxrstor(other, area)
    assert [other.data[i] for i in (*xf.LEGACY, xf.YMM)] == [1, 2, 4, 5]
    area.data[xf.MXCSR] = MXCSR_RESERVED
    with pytest.raises(GeneralProtection):
        arch.fxrstor(other, area)


def test_xsavec_is_an_instruction_of_its_own() -> None:
    with pytest.raises(InvalidOpcode):
        arch.save(processor(), Processor(xsaves=False, xsavec=False), "xsavec", xf.MASK_X87, cr0_ts=False)


@pytest.mark.parametrize(
    ("cpu", "function", "index", "expected"),
    [
        (SPR, 1, 0, Leaf(0, 0, 0xC000000, 0)),
        (SPR, 0xD, 0, Leaf(0x602E7, 832, 11008, 0)),
        (SPR, 0xD, 1, Leaf(0x1F, 840, 0x400, 0)),
        (SPR, 0xD, 18, Leaf(8192, 2816, 6, 0)),
        (SPR, 0x1D, 0, Leaf(1, 0, 0, 0)),
        (Processor(amx=False), 0x1D, 0, Leaf(0, 0, 0, 0)),
        (Processor(xfd=False, amx=False), 0xD, 1, Leaf(0xF, 840, 0x400, 0)),
        (Processor(xsaves=False), 0xD, 1, Leaf(0x7, 832, 0, 0)),
        (Processor(xsaves=False, xsavec=False, xgetbv1=False), 0xD, 1, Leaf(0x1, 0, 0, 0)),
        (Processor(xsave=False), 0xD, 0, Leaf(0, 0, 0, 0)),
        (Processor(xsave=False), 1, 0, Leaf(0, 0, 0, 0)),
    ],
)
def test_cpuid_is_what_the_processor_has_and_what_is_enabled(
    cpu: Processor, function: int, index: int, expected: Leaf
) -> None:
    regs = processor(xcr0=xf.MASK_FPSSE | AVX)
    regs.xss = cpu.supervisor_xfeatures
    assert cpuid(regs, cpu, function, index, osxsave=cpu.xsave) == expected
