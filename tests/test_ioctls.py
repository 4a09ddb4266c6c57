"""What single ioctls return, revision by revision: a program each, judged by its own results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.text import ProgramError, format_op, parse, parse_op
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]


def unexpected(revision: str, *ops: str, machine: str = "cpus=1") -> list[str]:
    """The results that did not come out."""
    written = parse("\n".join(["# xfdfuzz program 1", f"machine {machine}", *ops]))
    return list(judge(written, resolve(revision)).failures)


def test_the_system_attribute_does_not_depend_on_permissions() -> None:
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID) = 0 [x87|sse|avx|avx512|pkru]",
        "t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 0, 0) = 0 [x87|sse|avx|avx512|pkru|xtile]",
        "t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 0, 0, NULL) = -EFAULT",
        "t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 0, 1, NULL) = -ENXIO",
        "t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 1, 0) = -ENXIO",
        "t0 ioctl(kvm, KVM_HAS_DEVICE_ATTR, 0, 0) = 0",
        "t0 ioctl(kvm, KVM_HAS_DEVICE_ATTR, 0, 1) = -ENXIO",
    )


def test_before_the_series_there_is_no_system_attribute() -> None:
    assert not unexpected(
        "v5.16",
        "t0 ioctl(kvm, KVM_GET_DEVICE_ATTR, 0, 0) = -EINVAL",
        "t0 ioctl(kvm, KVM_HAS_DEVICE_ATTR, 0, 0) = -EINVAL",
    )


@pytest.mark.parametrize("machine", ["cpus=1", "cpus=1 no-xfd"])
def test_the_msr_list_has_xfd_where_the_processor_has_it(machine: str) -> None:
    listed = int("no-xfd" not in machine)
    assert not unexpected("v7.3", f"t0 ioctl(kvm, KVM_GET_MSR_INDEX_LIST, IA32_XFD) = 0 [{listed:#x}]", machine=machine)


def test_the_cpuid_that_was_set_is_read_back() -> None:
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_GET_CPUID2) = 0 [0]",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v0, KVM_GET_CPUID2) = 0 [x87|sse|avx]",
    )


def test_an_image_ends_where_the_callers_memory_ends() -> None:
    """4096 bytes without a dynamic feature, all of the tile data with one."""
    assert not unexpected(
        "v7.3",
        "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA) = 0",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_GET_XSAVE, mapped=4095) = -EFAULT",
        "t0 ioctl(v0, KVM_GET_XSAVE2, mapped=4096) = 0 {xstate_bv: 0}",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx, data: 1}, mapped=4096) = 0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|xtile, xfd, amx}) = 0",
        "t0 ioctl(v0, KVM_GET_XSAVE2, mapped=11007) = -EFAULT",
        "t0 ioctl(v0, KVM_GET_XSAVE2, mapped=11008) = 0 {xstate_bv: 0}",
        "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: avx, data: 1}, mapped=4096) = -EFAULT",
    )


def test_who_has_closed_a_vm_cannot_use_it_although_a_forked_process_has_it() -> None:
    """Or the other's last close() would destroy a VM that is running: an ioctl holds its file open."""
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 fork = t2",
        "t0 close(vm0) = 0",
        "t0 ioctl(v0, KVM_RUN) ... = not-enabled",
        "t0 ioctl(v0, KVM_GET_XCRS) = not-enabled",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 1) = not-enabled",
        "cpu0 schedule(t2) = ok",
        "t2 ioctl(v0, KVM_GET_XCRS) = -EIO",
        "t2 execve ... = ok",
    )


def test_a_tracer_is_of_another_process() -> None:
    """ptrace_attach() is -EPERM in a thread group, "t2" and the worker "t3" here, whoever shares the address space."""
    assert not unexpected(
        "v7.3",
        "t0 clone(CLONE_THREAD) = t2",
        "t0 create_io_thread = t3",
        "t0 clone(CLONE_VM) = t4",
        "t0 ptrace(PTRACE_GETREGSET, t2, NT_X86_XSTATE) = not-enabled",
        "t0 ptrace(PTRACE_SETREGSET, t3, NT_PRFPREG, {data: 1}) = not-enabled",
        "t0 ptrace(PTRACE_GETFPREGS, t2) = not-enabled",
        "t0 ptrace(PTRACE_GETREGSET, t4, NT_PRFPREG) = 0 {x87: init, sse: init, mxcsr: init}",
        "cpu0 schedule(t4) = ok",
        "t4 ptrace(PTRACE_SETREGSET, t3, NT_PRFPREG, {data: 1}) = 0",
        "t4 ptrace(PTRACE_GETREGSET, t3, NT_PRFPREG) = 0 {x87: t3:1, sse: t3:1, mxcsr: init}",
    )


@pytest.mark.parametrize("image", ["{x87: zero, mxcsr: zero}", "{xstate_bv: x87|sse, x87: zero, mxcsr: zero}"])
def test_a_struct_of_zeros_masks_no_exception(image: str) -> None:
    """FCW and MXCSR of 0 are taken as they are (gem5 877, solo5 190): the guest has them, not FNINIT's."""
    request = "KVM_SET_XSAVE" if "xstate_bv" in image else "KVM_SET_FPU"
    assert not unexpected(
        "v7.3-cured",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        f"t0 ioctl(v0, {request}, {image}) = 0",
        "t0 ioctl(v0, KVM_GET_FPU) = 0 {x87: zero, sse: init, mxcsr: zero}",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 stmxcsr = ok [zero]",
    )


def test_what_a_first_program_trips_over_is_as_the_format_says() -> None:
    """PKRU of a task is the kernel's, an AVX instruction leaves SSE alone, without XSAVE there is no XCR."""
    assert not unexpected(
        "v7.3",
        "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) = not-enabled",
        "cpu0 schedule(t1) = ok",
        "t1 ptrace(PTRACE_GETREGSET, t0, NT_X86_XSTATE) = 0 {xstate_bv: pkru, pkru: kernel:1}",
        "t1 vmovups(1) = ok",
        "t1 xsave(sse|avx) = ok {xstate_bv: avx, avx: t1:1}",
    )
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_GET_XCRS) = 0",
        machine="cpus=1 no-xsave",
    )


def test_only_xcr0_can_be_written() -> None:
    """kvm_vcpu_ioctl_x86_set_xcrs(): other entries are passed over; those behind the first are 0, no legal XCR0."""
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0) = v0",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx}) = 0",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, flags=1) = -EINVAL",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, nr_xcrs=17) = -EINVAL",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, nr_xcrs=0) = 0",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, xcr=1) = 0",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, xcr=1, nr_xcrs=2) = -EINVAL",
        "t0 ioctl(v0, KVM_GET_XCRS) = 0 [x87]",
        "t0 ioctl(v0, KVM_SET_XCRS, x87|sse, nr_xcrs=16) = 0",
        "t0 ioctl(v0, KVM_GET_XCRS) = 0 [x87|sse]",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 xsetbv(x87|sse|avx, index=1) = exit",
        "v0 handle = resume",
        "v0 vmenter = #GP",
        "v0 xgetbv(0) = ok [x87|sse]",
    )


def test_a_machine_without_osxsave_looks_at_no_index() -> None:
    """#UD has priority over the exit (kvm_emulate_xsetbv())."""
    assert not unexpected(
        "v7.3",
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0, reset) = v0",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 xsetbv(x87, index=1) = #UD",
    )


@pytest.mark.parametrize(
    ("revision", "long"),
    [
        # kvm_is_valid_sregs() asks kvm_valid_efer() since 184bd464bdb6: LME and LMA take X86_FEATURE_LM
        *(("v6.18", "0"), ("v6.17.13", "0"), ("v6.12.117", "-EINVAL"), ("v7.3", "-EINVAL")),
        ("v7.3-184bd464bdb6", "0"),
    ],
)
def test_a_64_bit_state_takes_a_cpuid_and_one_in_real_mode_does_not(
    run: Run, tmp_path: Path, revision: str, long: str
) -> None:
    ops = (
        "t0 ioctl(kvm, KVM_CREATE_VM) = vm0",
        "t0 ioctl(vm0, KVM_CREATE_VCPU, 0, reset) = v0",
        "v0 out of reset",
        "t0 ioctl(v0, KVM_SET_SREGS, {no_lme}) = 0",
        f"t0 ioctl(v0, KVM_SET_SREGS, {{ts}}) = {long}",
        "t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse}) = 0",
        "t0 ioctl(v0, KVM_SET_SREGS, {osxsave}) = 0",
        "t0 ioctl(v0, KVM_SET_SREGS, {pke, no_lme}) = -EINVAL",
        "t0 ioctl(v0, KVM_SET_SREGS, {ts, no_lme}) = 0",
        "t0 ioctl(v0, KVM_RUN) ... = ok",
        "v0 vmenter = ok",
        "v0 xgetbv(0) = #UD",
        "v0 fld(1) = #NM",
    )
    assert not unexpected(revision, *ops)
    file = tmp_path / "p.xfd"
    file.write_text("\n".join(["# xfdfuzz program 1", "machine cpus=1", *ops]))
    shown = run("replay", str(file), "--results", "--revision", revision)[1]
    assert shown.count("EFER.LME before KVM_SET_CPUID2") == (long != "0")


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("t0 xgetbv(0) = ok [x87|sse|avx|avx512|pkru|xtile]", True),
        ("t0 xgetbv(0) = ok [0x602e7]", True),
        ("t0 xgetbv(0) = ok [xtile|avx512|pkru|avx|fp|sse]", True),
        ("t0 xgetbv(0) = ok", True),
        ("t0 xgetbv(0) = ok [x87|sse]", False),
        ("t0 xgetbv(0) = ok [x87|see]", False),
        ("t0 xgetbv(0) = 0 [0x602e7]", False),
        ("cpu0 rdmsr(IA32_XFD) = ok [xtiledata]", True),
        ("cpu0 rdmsr(IA32_XFD) = ok [0x40000]", True),
        ("cpu0 rdmsr(IA32_XFD) = ok [xtilecfg]", False),
    ],
)
def test_a_mask_is_compared_as_one(line: str, good: bool) -> None:
    verdict = judge(f"# xfdfuzz program 1\nmachine cpus=1\n{line}\n", "v7.3")
    assert verdict.ok == good
    assert verdict.results in (("ok [x87|sse|avx|avx512|pkru|xtile]",), ("ok [0x40000]",))


def test_masks_of_msrs_can_be_named() -> None:
    named = parse_op("t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: xtiledata, IA32_XSS: cet_user|cet_kernel, IA32_U_CET: 3})")
    assert format_op(named) == "t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000, IA32_XSS: 0x1800, IA32_U_CET: 0x3})"
    assert format_op(parse_op("v0 wrmsr(IA32_XFD, xtiledata)")) == "v0 wrmsr(IA32_XFD, 0x40000)"
    for line in ("{IA32_U_CET: xtiledata}", "{IA32_XFD: tiledata}"):
        with pytest.raises(ProgramError, match="a 64-bit number"):
            parse_op(f"t0 ioctl(v0, KVM_SET_MSRS, {line})")
