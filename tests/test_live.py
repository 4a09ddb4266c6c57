"""Programs on this machine's kernel: tasks that do as they are told, images, what is refused, recordings, a search."""

from __future__ import annotations

import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS, ZEN4, CpuidTable
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XCOMP_BV_COMPACTED
from xfdfuzz.cli import main
from xfdfuzz.engines.judge.lockstep import Difference
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.live import agent, danger, images, ioctls, tasks, user
from xfdfuzz.engines.live import fuzz as fuzz_module
from xfdfuzz.engines.live import session as session_module
from xfdfuzz.engines.live.facts import Facts, NoHost, layout_of, look
from xfdfuzz.engines.live.fuzz import LiveCampaign, fuzz
from xfdfuzz.engines.live.host import CARRIED
from xfdfuzz.engines.live.lockstep import Compared, Verdict
from xfdfuzz.engines.live.quirks import QUIRKS, modelled, quirks_of
from xfdfuzz.engines.live.record import recorded
from xfdfuzz.engines.live.session import Outcome, Session
from xfdfuzz.engines.live.tasks import Crew, Hung, TaskDied
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.kernel.errno import ENOMEM
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.native.agreement import same
from xfdfuzz.native.contents import SAMPLES, tokens
from xfdfuzz.native.control import control_of
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.fields import RESERVED, UserImage
from xfdfuzz.program.ops import OPS, run
from xfdfuzz.program.ops.base import GuestOp, VcpuRunOp
from xfdfuzz.program.step import Image, Result
from xfdfuzz.program.text import parse, parse_op
from xfdfuzz.revisions import resolve

ROOT = Path(__file__).parent.parent
HEADER = "# xfdfuzz program 1\nmachine cpus=1\n"
#: A server with AMX whose KVM has it for guests, and does all as the model says.
SERVER = Facts(
    release="6.18.0",
    supported=0x602E7,
    supervisor=0,
    xfeatures_end=20,
    xfd=True,
    mxcsr_mask=0xFFFF,
    cpus=2,
    kvm_xcr0=0x602E7,
    kvm_xfd=True,
    kvm_amx=True,
    kvm_xsaves=True,
    xsave2=4096,
)
PROGRAM = (
    HEADER + "t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)\nt0 arch_prctl(ARCH_GET_XCOMP_PERM)\nt0 sigaltstack(0)\n"
)

Run = Callable[..., tuple[int, str, str]]


def _no_tasks() -> str:
    """Why tasks of ours cannot run here."""
    try:
        with Crew():
            return ""
    except (OSError, AttributeError, TaskDied, Hung) as error:
        return f"no tasks here: {error}"


def _no_host() -> str:
    try:
        look()
    except NoHost as error:
        return str(error)
    return ""


NO_TASKS = _no_tasks()
with_tasks = pytest.mark.skipif(bool(NO_TASKS), reason=NO_TASKS)


@pytest.fixture(scope="module")
def host() -> Facts:
    """What this machine says; skips where there is no KVM that can be used."""
    try:
        return look()
    except NoHost as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def session(host: Facts) -> Session:
    return Session.on("/dev/kvm", resolve("v6.18"), host)


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew() as crew:
        yield crew


# -- the agent ---------------------------------------------------------------------------------------------------------


def test_the_listing_is_the_machine_code(tmp_path: Path) -> None:
    """Its instructions by objdump; operands are written in several ways."""
    if not shutil.which("objdump"):
        pytest.skip("no objdump")
    code = tmp_path / "code"
    for listing in (agent._AGENT, agent._START):
        code.write_bytes(agent.assemble(listing)[0])
        done = subprocess.run(
            ["objdump", "-D", "-w", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", code],
            capture_output=True,
            text=True,
            check=True,
        )
        rows = [line.split("\t")[1:] for line in done.stdout.splitlines() if re.match(r"\s*[0-9a-f]+:\t", line)]
        said = [line.split(maxsplit=1) for line in listing.splitlines() if line.startswith(" ")]
        assert [row[0].replace(" ", "") for row in rows] == [data for data, _ in said]
        assert [row[1].split()[0] for row in rows] == [text.split()[0] for _, text in said]


def test_numbers_are_those_of_the_headers(tmp_path: Path) -> None:
    if not (shutil.which("gcc") and Path("/usr/include/linux/kvm.h").exists()):
        pytest.skip("no compiler, or no headers of the kernel's")
    names = [name for name in vars(ioctls) if re.match(r"KVM_(?!SIZE|MAX_CPUID)|SYS_", name)]
    spelt = {name: name if name.startswith("KVM") else f"SYS_{name[4:].lower()}" for name in names}
    sizes = {"regs": "REGS", "sregs": "SREGS", "fpu": "FPU", "xcrs": "XCRS"}
    lines = [f'printf("{name} %ld\\n", (long){spelt[name]});' for name in names]
    lines += [f'printf("KVM_SIZE_{name} %zu\\n", sizeof(struct kvm_{struct}));' for struct, name in sizes.items()]
    source = tmp_path / "numbers.c"
    includes = "".join(f"#include <{header}>\n" for header in ("stdio.h", "sys/syscall.h", "linux/kvm.h"))
    source.write_text(f"{includes}int main(void) {{ {' '.join(lines)} return 0; }}\n")
    subprocess.run(["gcc", "-w", source, "-o", tmp_path / "numbers"], check=True)
    done = subprocess.run([tmp_path / "numbers"], capture_output=True, text=True, check=True)
    told = dict(line.split() for line in done.stdout.splitlines())
    assert {name: int(value) & 0xFFFFFFFF for name, value in told.items()} == {
        name: getattr(ioctls, name) for name in told
    }
    assert len(told) > 30


# -- tasks -------------------------------------------------------------------------------------------------------------


@with_tasks
def test_tasks_keep_their_registers_while_others_compute(crew: Crew) -> None:
    """XMM15 of each, through system calls, a fork and the work of Python."""
    load, store = bytes.fromhex("440f103f"), bytes.fromhex("440f113f")
    for nr in (0, 1):
        crew.execute(crew.tasks[nr], load, crew.image(crew.tasks[nr], bytes([nr + 7]) * 16))
    crew.clone(crew.tasks[0], 2, tasks.CLONE_PARENT | signal.SIGCHLD)
    assert crew.syscall(crew.tasks[2], ioctls.SYS_GETPID) == crew.tasks[2].pid
    for nr, value in ((0, 7), (1, 8), (2, 7)):
        here = crew.image(crew.tasks[nr], bytes(16))
        crew.execute(crew.tasks[nr], store, here)
        assert crew.bytes_at(here, 16) == bytes([value]) * 16


@with_tasks
def test_a_fault_is_told_and_the_task_goes_on(crew: Crew) -> None:
    task = crew.tasks[0]
    crew.execute(task, bytes.fromhex("0f0b"))
    assert crew.signal_of(task) == "SIGILL"
    crew.execute(task, bytes.fromhex("8a042508000000"))
    assert crew.signal_of(task) == "SIGSEGV"
    assert crew.syscall(task, ioctls.SYS_GETPID) == task.pid
    assert crew.signal_of(task) is None


@with_tasks
def test_a_handler_is_another_place_to_wait_for_orders(crew: Crew) -> None:
    task = crew.tasks[0]
    assert crew.interrupt(task, True) == "ok"
    assert crew.syscall(task, ioctls.SYS_GETPID) == task.pid
    crew.sigreturn(task, task.frames[0])
    assert crew.signal_of(task) is None
    assert crew.interrupt(task, True) == "ok"
    crew.call(task, "longjmp")
    assert crew.execve(task) == 0
    assert crew.syscall(task, ioctls.SYS_GETPID) == task.pid


@with_tasks
def test_handlers_nest_and_are_returned_from_by_any_frame(crew: Crew) -> None:
    task = crew.tasks[0]
    movq = {
        value: bytes.fromhex("48b8") + value.to_bytes(8, "little") + bytes.fromhex("66480f6ec0") for value in range(4)
    }
    for value in (1, 2, 3):
        crew.execute(task, movq[value])  # mov rax, value; movq xmm0, rax
        assert crew.interrupt(task, True) == "ok"
    outer, middle, inner = task.frames
    assert inner.address < middle.address < outer.address

    def register() -> int:
        return crew.execute(task, bytes.fromhex("66480f7ec0"))  # movq rax, xmm0

    crew.sigreturn(task, outer)
    assert (register(), task.handlers) == (1, 0)
    crew.execute(task, bytes.fromhex("0f0b"))  # what handles it overwrites all three
    crew.sigreturn(task, inner)
    assert (register(), task.handlers) == (3, 2)
    crew.jump(task, 1)
    assert (register(), task.handlers) == (3, 1)
    crew.sigreturn(task, middle)
    assert (register(), task.handlers) == (2, 1)
    assert crew.interrupt(task, True) == "ok"
    assert task.frames[0] is outer
    assert task.frames[1].address == middle.address
    assert len(task.frames) == 2


@with_tasks
def test_a_made_frame_is_returned_by_in_a_handler_and_outside_of_one(crew: Crew) -> None:
    """It is all 0 but for the registers that it has, and the task goes on where it is."""
    task = crew.tasks[0]
    for handlers in (0, 1):
        if handlers:
            assert crew.interrupt(task, True) == "ok"
        crew.make_frame(task, struct.pack("<QixxxxQ", 0, ioctls.SS_DISABLE, 0))
        frame = task.own
        assert frame is not None
        (image,) = struct.unpack("<Q", crew.fetch(task, frame.ucontext + tasks.FPSTATE, 8))
        crew.store(task, image + 160, (7 + handlers).to_bytes(16, "little"))  # XMM0
        crew.sigreturn_own(task, frame)
        assert crew.execute(task, bytes.fromhex("66480f7ec0")) == 7 + handlers  # movq rax, xmm0
        assert (crew.signal_of(task), task.handlers) == (None, handlers)
        crew.store(task, frame.ucontext + tasks.FPSTATE, (image + 8).to_bytes(8, "little"))
        crew.sigreturn_own(task, frame)
        assert crew.signal_of(task) == "SIGSEGV"
        assert crew.execute(task, bytes.fromhex("66480f7ec0")) == 0
    crew.jump(task, 0)


def alive(group: int) -> bool:
    """Whether a process of the group is there that is no zombie."""
    every = (_fields(path) for path in Path("/proc").glob("[0-9]*/stat"))
    return any(fields[2] == str(group) and fields[0] not in "ZX" for fields in every if fields)


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


@with_tasks
def test_exec_does_not_wait_for_a_thread_that_is_traced(crew: Crew) -> None:
    crew.clone(crew.tasks[0], 2, user.THREAD)
    try:
        user.stop(crew.tasks[2])
        user.stop(crew.tasks[1])
    except OSError as error:
        pytest.skip(str(error))
    assert crew.execve(crew.tasks[0]) == 0


@with_tasks
def test_who_hangs_is_killed_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PATIENCE", 0.2)
    with Crew() as crew:
        groups = [task.pid for task in crew.tasks.values()]
        crew.clone(crew.tasks[1], 2, tasks.CLONE_PARENT | signal.SIGCHLD)
        with pytest.raises(Hung):
            crew.execute(crew.tasks[0], bytes.fromhex("ebfe"))
        with pytest.raises(TaskDied):
            crew.syscall(crew.tasks[1], 62, crew.tasks[1].pid, signal.SIGKILL)
    assert not any(alive(group) for group in groups)


@with_tasks
def test_tasks_end_with_the_one_that_tells_them_what_to_do() -> None:
    script = (
        "import os\nfrom xfdfuzz.engines.live.tasks import Crew\ncrew = Crew().__enter__()\n"
        "print(*(task.pid for task in crew.tasks.values()), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    groups = [int(word) for word in done.stdout.split()]
    deadline = time.monotonic() + 20
    while any(alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(groups) == 2
    assert not any(alive(group) for group in groups)


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpuid", [SAPPHIRE_RAPIDS, ZEN4], ids=["Intel", "AMD"])
def test_an_image_is_read_as_it_was_made(cpuid: CpuidTable) -> None:
    mask = xf.mask_of(*(i for i in SAMPLES if i in (*xf.LEGACY, *cpuid.components))) & ~xf.MASK_MPX
    those, compacted = images.Images(cpuid), XCOMP_BV_COMPACTED | mask
    for token in tokens():
        if token < 8:
            continue
        data = those.made(UserImage(mask, 1, ((xf.MXCSR, 2),)), partial(same_token, token))
        assert those.read(data) == Image(mask, tuple((i, token) for i in (*xf.components_in(mask), xf.MXCSR)))
        moved = bytearray(those.compacted(data, compacted))
        moved[images.XCOMP_BV] = compacted.to_bytes(8, "little")
        assert those.standard(bytes(moved))[576:] == data[576:]


def test_what_a_processor_does_not_have_is_not_in_an_image() -> None:
    """AMD's has other components where Intel's has MPX and AMX; XSTATE_BV may name those all the same."""
    mask = xf.MASK_YMM | xf.MASK_MPX | xf.MASK_XTILE
    data = images.Images(ZEN4).made(UserImage(mask, 1), nine)
    assert images.Images(ZEN4).read(data) == Image(mask, ((xf.YMM, 9), *((i, 0) for i in (3, 4, 17, 18))), 0)
    assert not any(data[832:])


def same_token(token: int, number: int) -> int:
    """Of whoever it is."""
    return token


def nine(number: int) -> int:
    """An owner's content."""
    return 9


def test_what_an_image_has_as_initial_is_initial() -> None:
    mask = xf.MASK_FPSSE | xf.MASK_YMM
    those = images.Images(SAPPHIRE_RAPIDS)
    read = those.read(those.made(UserImage(mask), nine))
    assert read.tokens == ((xf.X87, 0), (xf.SSE, 0), (xf.YMM, 0))
    read = those.read(those.made(UserImage(mask, 1, ((xf.SSE, 0), (xf.MXCSR, RESERVED))), nine))
    assert read.tokens == ((xf.X87, 9), (xf.SSE, 0), (xf.YMM, 9), (xf.MXCSR, MXCSR_RESERVED))
    strange = bytearray(those.made(UserImage(mask, 1), nine))
    strange[576 + 15 * 16] ^= 1
    assert dict(those.read(bytes(strange)).tokens)[xf.YMM] == images.UNKNOWN


# -- what is carried out -----------------------------------------------------------------------------------------------


def test_every_op_that_user_space_controls_is_done_or_told_why_not() -> None:
    """What is left is for other reasons: nothing looks at MSRs or lets a CPU idle in a way that can be compared."""
    part_of_runs = (GuestOp, VcpuRunOp, run.KvmRun, run.KvmRunReturns)
    rest = [op for op in OPS.values() if op not in CARRIED and not issubclass(op, part_of_runs)]
    assert {op.__name__ for op in rest if not control_of(op()).no} == {"SoftirqKernelFpu", "Idle", "HostRdmsr"}


def test_what_a_processor_may_say_more_is_no_difference() -> None:
    look_at = parse_op("t0 xsave(x87|sse|avx)")
    model = Result("ok", Image(xf.MASK_YMM, ((xf.YMM, 9),)))
    assert same(look_at, model, Result("ok", Image(7, ((xf.X87, 0), (xf.SSE, 0), (xf.YMM, 9)))))
    assert not same(look_at, model, Result("ok", Image(7, ((xf.X87, 9), (xf.SSE, 0), (xf.YMM, 9)))))
    assert not same(look_at, model, Result("ok", Image(0)))
    in_use = parse_op("t0 xgetbv(1)")
    assert same(in_use, Result("ok", 2), Result("ok", 3))
    assert not same(in_use, Result("ok", 2), Result("SIGILL"))


# -- the host ----------------------------------------------------------------------------------------------------------


def test_facts_make_a_machine() -> None:
    assert SERVER.machine == Machine(cpus=2, pasid=False)
    assert replace(SERVER, supported=0xE7, cpus=64).machine == Machine(cpus=4, pku=False, pasid=False, amx=False)
    assert replace(SERVER, supervisor=xf.MASK_CET | xf.MASK_PASID).machine == Machine(cpus=2, cet=True)


def test_the_layout_tells_whose_processor_it_is() -> None:
    """Sizes and offsets as CPUID leaf 0xD has them: of a Sapphire Rapids, and of a Zen 4 with protection keys."""
    intel = {2: (256, 576), 5: (64, 1088), 6: (512, 1152), 7: (1024, 1664), 9: (8, 2688)}
    zen4 = {2: (256, 576), 5: (64, 832), 6: (512, 896), 7: (1024, 1408), 9: (8, 2432)}
    assert layout_of(intel) is SAPPHIRE_RAPIDS
    assert layout_of(zen4) is ZEN4
    amd = replace(SERVER, amd=True, supported=0x2E7, xfd=False)
    assert amd.machine == Machine(cpus=2, amd=True)
    assert (amd.machine.user_xfeatures, amd.machine.xfd_xfeatures) == (0x2E7, 0)


@pytest.mark.parametrize(
    "found", [{2: (256, 576), 9: (8, 832)}, {2: (256, 576), 5: (64, 832), 17: (64, 2752)}], ids=["PKRU", "both"]
)
def test_another_layout_is_no_host(found: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(NoHost, match=r"no processor that lays out its XSAVE image so: avx 256 bytes at 576, \w+ "):
        layout_of(found)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("zeros-are-initial", {"zeros_are_initial": True}),
        ("ptrace-refused", {"ptrace": False}),
        ("kvm-offers-less", {"kvm_xcr0": 0xE7}),
        ("kvm-without-xfd", {"kvm_xfd": False}),
        ("kvm-without-xsaves", {"kvm_xsaves": False}),
        ("cpuid-rewritten", {"cpuid_kept": False}),
        ("cpuid-refused-again", {"cpuid_again": False}),
        ("guest-fpu-emulated", {"guest_fpu": False}),
        ("guest-xcr0-not-loaded", {"guest_xcr0": False}),
    ],
)
def test_a_quirk_is_recognised_by_its_probe_alone(name: str, change: dict[str, Any]) -> None:
    revision = resolve("v6.18")
    assert quirks_of(SERVER, revision) == ()
    assert [quirk.name for quirk in quirks_of(replace(SERVER, **change), revision)] == [name]


def test_quirks_change_the_model() -> None:
    odd = replace(SERVER, kvm_xcr0=0xE7, kvm_xfd=False, kvm_amx=False, cpuid_kept=False)
    revision = resolve("v6.18")
    kernel = modelled(odd, revision, quirks_of(odd, revision))
    text = """t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|avx512)
t0 ioctl(kvm, KVM_GET_SUPPORTED_CPUID)
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0x40000})
"""
    results = [str(step.result) for step in Executor(kernel, odd.machine).run(parse(HEADER + text).ops)]
    assert results == ["vm0", "v0", "0", "0", "0 [x87|sse|avx|avx512]", "0"]


def test_where_zeros_are_initial_a_copy_of_avx_alone_is_not_compared() -> None:
    """A processor's choice, and when it is made depends on when registers are loaded: in it lies whether XSAVES stores
    MXCSR."""
    odd = replace(SERVER, zeros_are_initial=True)
    (quirk,) = quirks_of(odd, resolve("v6.18"))
    executor = Executor(resolve("v6.18").kernel, odd.machine)
    reads = [parse_op(f"t0 ptrace(PTRACE_GETREGSET, t2, {what})") for what in ("NT_X86_XSTATE", "NT_PRFPREG")]
    masked = []
    for line in ("t0 clone(CLONE_THREAD)", "cpu0 schedule(t2)", "t2 vmovups(1)", "cpu0 schedule(t0)"):
        executor.execute(parse_op(line))
        masked.append([quirk.masks(read, executor.kernel) for read in reads])
    assert masked == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]
    for line in ("cpu0 schedule(t2)", "t2 movups(1)"):
        executor.execute(parse_op(line))
    assert not any(quirk.masks(read, executor.kernel) for read in reads)


def test_quirks_are_documented() -> None:
    text = (ROOT / "docs" / "live.md").read_text()
    assert {quirk.name for quirk in QUIRKS} == set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("device", "says"), [("/nonexistent", "No such file or directory"), ("/dev/null", "not KVM"), ("/tmp", "directory")]
)
def test_without_a_device_there_is_no_host(device: str, says: str) -> None:
    with pytest.raises(NoHost, match=says):
        look(device)


def test_without_permission_there_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refused)
    with pytest.raises(NoHost, match="/dev/kvm: Permission denied"):
        look()


def test_another_architecture_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(NoHost, match="riscv64"):
        look()


# -- danger ------------------------------------------------------------------------------------------------------------


def dangers(file: Path, revision: str = "v6.18") -> danger.Danger | None:
    program = parse(file.read_text(), str(file))
    around = danger.neighbours(resolve(revision), "6.12.30")
    found = danger.danger_of(program, around, replace(SERVER.machine, pku=False))
    return found[1] if found else None


def around(revision: str, release: str) -> list[str]:
    return [one.label for one in danger.neighbours(resolve(revision), release)]


def test_what_a_kernel_may_be_is_looked_at_too() -> None:
    """It has what its release had, whatever it is held against, and may have something of the next."""
    assert around("v6.18", "6.18.44-fc-v669") == ["v6.18", "v7.3"]
    assert around("v6.18", "6.17.13") == ["v6.18", "v6.12", "v7.3"]
    assert around("v6.12.117", "6.12.117") == ["v6.12.117", "v6.12", "v6.18"]
    assert around("v6.6", "6.18.44") == ["v6.6", "v6.12"]
    assert around("v5.16", "5.14.0-503.el9") == ["v5.16", "v5.17"]
    assert around("v6.6", "5.14.0-503.el9") == ["v6.6", "v5.16", "v5.17", "v5.18", "v6.12"]


@pytest.mark.parametrize(
    "name",
    [
        "set-xsave-then-set-msrs-xfd",
        "sigreturn-leaves-anothers-tiles",
        "exec-leaks-fpstate",
        "resume-writes-xfd-behind-the-shadow",
        "fork-in-handler",
    ],
)
def test_what_is_known_to_hurt_may_not_be_run(name: str) -> None:
    assert dangers(ROOT / "corpus" / "open" / f"{name}.xfd") is not None


def test_what_a_neighbour_suffers_by_may_not_be_run_either() -> None:
    """388eff894d6b is in 6.18 and not in 6.12."""
    found = dangers(ROOT / "corpus" / "bugs" / "cve-2025-68171-signal-xfd.xfd")
    assert found is not None
    assert found.revision == "v6.12"


def test_what_a_page_has_room_for_hurts_nobody() -> None:
    """Until 1937e18cc3cf (6.15) a guest's fpstate is as large as an image for user space, which has no room for CET's
    states on AMD's processors; vmalloc() leaves the rest of a page behind it."""
    program = parse(
        "# xfdfuzz program 1\nmachine cpus=1 cet amd\nt0 ioctl(kvm, KVM_CREATE_VM)\nt0 ioctl(vm0, KVM_CREATE_VCPU, 0)\n"
    )
    v6_12 = resolve("v6.12")
    assert "fpstate-fits-its-features" in {v.invariant for v in judge(program, v6_12).violations}
    assert danger.danger_of(program, (v6_12,), program.machine) is None


def test_what_the_kernel_promises_may_be_run() -> None:
    for file in sorted((ROOT / "corpus" / "conformance").glob("3[3-6]-*.xfd")):
        assert dangers(file) is None, file


# -- recordings --------------------------------------------------------------------------------------------------------


def outcome(text: str, *results: Result) -> Outcome:
    """As if a host had given these results."""
    program = parse(text)
    pairs = zip(program.ops, results, strict=True)
    return Outcome("p.xfd", program, tuple(Compared(n, op, Verdict.EQUAL, r, r) for n, (op, r) in enumerate(pairs, 1)))


def server() -> Session:
    revision = resolve("v6.18")
    return Session(SERVER, revision, (), revision.kernel, (), "/dev/kvm")


@pytest.fixture
def run_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def write_recording(*results: Result) -> None:
    Path("host.jsonl").write_text(json.dumps(recorded(server(), outcome(PROGRAM, *results))) + "\n")


def test_conform_reads_what_is_recorded(run_cli: Run) -> None:
    write_recording(Result(0), Result(0, 0x602E7), Result(0))
    code, out, _ = run_cli("conform", "host.jsonl", "--format", "json")
    score = json.loads(out)
    assert (code, score["compared"], score["different"]) == (0, 3, 0)
    assert score["models"] == {"6.18.0": ["v6.18"]}


def test_conform_sees_what_a_recorded_host_does_otherwise(run_cli: Run) -> None:
    write_recording(Result(0), Result(0, 0x202E7), Result(-ENOMEM))
    code, out, _ = run_cli("conform", "host.jsonl", "--format", "json")
    score = json.loads(out)
    assert (code, score["compared"], score["different"]) == (1, 3, 2)
    assert [found["recorded"] for found in score["differences"]] == ["0 [0x202e7]", "-ENOMEM"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("machine", "cpus=99", "machine"),
        ("ops", [{"op": "xfd", "args": ["t0 dance"], "result": {"gives": "ok"}}], "the line of an op"),
    ],
)
def test_a_recording_that_is_none_is_told(run_cli: Run, key: str, value: object, says: str) -> None:
    whole = recorded(server(), outcome(HEADER))
    Path("host.jsonl").write_text(json.dumps({**whole, key: value}) + "\n")
    code, _, err = run_cli("conform", "host.jsonl")
    assert code == 2
    assert err.startswith("xfdfuzz: host.jsonl:1: ")
    assert f"expected {says}" in err or f"expected one argument, {says}" in err


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "expected programs, or --fuzz"),
        (["p.xfd", "--fuzz"], "expected programs, or --fuzz"),
        (["--fuzz", "--record", "there"], "--record is for programs"),
        (["absent.xfd"], "No such file"),
        (["p.xfd", "--revision", "v99"], "v99"),
    ],
)
def test_bad_input_is_one_line(run_cli: Run, argv: list[str], says: str) -> None:
    if "--revision" in argv and _no_host():
        pytest.skip(_no_host())
    Path("p.xfd").write_text(PROGRAM)
    code, _, err = run_cli("live", *argv)
    assert code == 2
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("argv", [["p.xfd"], ["--fuzz", "--time", "1"]])
def test_without_a_host_the_command_is_skipped(run_cli: Run, argv: list[str]) -> None:
    Path("p.xfd").write_text(PROGRAM)
    code, out, err = run_cli("live", *argv, "--device", "/nonexistent")
    assert code == 4
    assert out == ""
    assert err == "xfdfuzz: no host to run on: /nonexistent: No such file or directory\n"


def test_programs_run_and_their_recording_conforms(host: Facts, run_cli: Run) -> None:
    """What the kernel promises about user threads holds here, and the model says the same of what was recorded."""
    files = [str(path) for path in sorted((ROOT / "corpus" / "conformance").glob("3[0-6]-*.xfd"))]
    code, out, err = run_cli("live", *files, "--record", "there", "--format", "json", "--revision", "v6.18")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["different"] == told["refused"] == 0
    assert told["equal"] > 50
    assert run_cli("conform", "there", "--revision", "v6.18")[0] == 0


def test_what_may_hurt_is_refused(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the model says of a machine with AMX, whatever this one is: nothing of it is run."""
    monkeypatch.setattr("xfdfuzz.engines.live.facts.look", lambda device: SERVER)
    file = ROOT / "corpus" / "bugs" / "cve-2026-23005-set-xsave.xfd"
    code, out, err = run_cli("live", str(file), "--revision", "v6.18")
    assert code == 3
    assert "host-xrstor-never-faults" in out
    assert "--i-own-this-machine" in err


def test_guests_do_what_every_emulator_can(host: Facts, run_cli: Run) -> None:
    """XSETBV, OUT and HLT, in a guest of this machine's KVM."""
    file = ROOT / "corpus" / "conformance" / "18-xsetbv-of-tiles-without-permission.xfd"
    code, out, _ = run_cli("live", str(file), "--format", "json", "--revision", "v6.18")
    told = json.loads(out)
    verdicts = {op["op"]: op["verdict"] for op in told["programs"][0]["ops"]}
    assert code == 0
    assert any(op.startswith("v0 xsetbv") and verdict == "equal" for op, verdict in verdicts.items())


def test_a_search_sees_what_differs_alone(session: Session) -> None:
    """A few examples: none differs, but on a mutant of the model, for which the plainest program is found."""
    plan = Plan(1, "hypothesis", 20, examples=4)
    found: list[Any] = []
    campaign, _ = fuzz(session, plan, lambda campaign: None, found.append)
    assert found == []
    assert campaign.tally.equal > 0

    class Mutant(session.kernel):  # type: ignore[name-defined, misc]
        def sigaltstack(self, size: int, autodisarm: bool) -> int:
            return -ENOMEM

    program = parse(HEADER + "t0 user\nt0 sigaltstack(0)\n")
    mutated = replace(session, kernel=Mutant)
    different = mutated.judge(program).different
    assert different is not None
    assert (different.number, str(different.model), str(different.host)) == (2, "-ENOMEM", "0")
    smallest = LiveCampaign(session=mutated).minimise(program, "Sigaltstack: gives -ENOMEM | 0")
    assert [type(op).__name__ for op in smallest.ops] == ["Sigaltstack"]
    assert smallest.results == ("-ENOMEM",)


def test_a_search_says_what_it_did(host: Facts, run_cli: Run) -> None:
    argv = ("live", "--fuzz", "--examples", "2", "--steps", "10", "--seed", "5", "--quiet")
    code, out, err = run_cli(*argv)
    assert code == 0
    assert all("nobody has looked" in line for line in err.splitlines())
    assert " 0 differences in 2 examples" in out
    assert "repeat: " in out
    code, out, _ = run_cli(*argv, "--format", "json")
    told = json.loads(out)
    assert (code, told["examples"], told["differences"], told["not_seen_again"]) == (0, 2, [], [])
    assert told["kernel"] == host.release


def test_where_they_part_both_are_told(host: Facts, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> type[Kernel]:
        class Mutant(modelled(*args)):  # type: ignore[misc]
            def sigaltstack(self, size: int, autodisarm: bool) -> int:
                return -ENOMEM

        return Mutant

    monkeypatch.setattr(session_module, "modelled", wrong)
    Path("p.xfd").write_text(HEADER + "t0 user\nt0 sigaltstack(0)\nt0 user\n")
    code, out, _ = run_cli("live", "p.xfd", "--revision", "v6.18", "-q")
    assert code == 1
    assert "p.xfd: 1 op equal, 1 not reached" in out
    assert "t0 sigaltstack(0) = 0\n      the model says -ENOMEM\n" in out


def test_what_a_search_finds_is_saved_and_told(host: Facts, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(session: Session, plan: Plan, on_progress: object, on_found: Callable[[Any], None]) -> Any:
        difference = Difference("Sigaltstack", "gives 0 | -EPERM", "0", "-EPERM", 1)
        program = replace(parse(HEADER + "t0 sigaltstack(0)\n"), results=("0",))
        on_found(Shrunk(difference, program, "hypothesis"))
        return LiveCampaign(session=session), False

    monkeypatch.setattr(fuzz_module, "fuzz", found)
    code, out, _ = run_cli("live", "--fuzz", "-q")
    (file,) = Path("live").glob("*.xfd")
    assert code == 1
    assert f"Sigaltstack: gives 0 | -EPERM; saved {file}" in out
    assert parse(file.read_text()).results == ("0",)


def test_json_keys_are_documented(host: Facts, run_cli: Run) -> None:
    section = (ROOT / "docs" / "cli.md").read_text().split("## `xfdfuzz live")[1].split("\n## ")[0]
    Path("p.xfd").write_text(PROGRAM)
    told = json.loads(run_cli("live", "p.xfd", "--format", "json")[1])
    search = json.loads(run_cli("live", "--fuzz", "--examples", "1", "-q", "--format", "json")[1])
    for key in {*told, *told["programs"][0], *told["programs"][0]["ops"][0], *search}:
        assert f"`{key}`" in section, key


def test_who_owns_the_machine_is_refused_nothing() -> None:
    file = ROOT / "corpus" / "open" / "exec-leaks-fpstate.xfd"
    careful, reckless = (Session.on("/dev/kvm", resolve("v6.18"), SERVER, reckless=how) for how in (False, True))
    assert danger.danger_of(parse(file.read_text()), careful.revisions, SERVER.machine) is not None
    assert danger.danger_of(parse(file.read_text()), reckless.revisions, SERVER.machine) is None


def test_what_may_hurt_is_not_done_in_a_search(session: Session) -> None:
    """A rule's op that the kernel or a neighbour suffers by is left out, on both sides: here finding 15, which any
    machine with AVX has."""
    if "ptrace-refused" in {quirk.name for quirk in session.quirks}:
        pytest.skip("no ptrace() here")
    campaign = LiveCampaign(session=session)
    run_ = campaign.begin(session.machine)
    lines = (
        "cpu0 schedule(t1)",
        "t1 ptrace(PTRACE_SETREGSET, t0, {xstate_bv: avx, data: 1, mxcsr: 2})",
        "cpu0 schedule(t0)",
        "t0 user",
    )
    for line in lines:
        run_.execute(parse_op(line))
    assert campaign.tally.refused == 1
    assert len(run_.ops) == 3
    assert run_.kernel.tasks[0].tif_need_fpu_load
    run_.finish()
