"""A program as what a real machine does: machine code, contents, the guest's memory, the script."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.native import assembler, contents, control, layout, script, values, watching
from xfdfuzz.native.assembler import Code
from xfdfuzz.native.guestcode import Insn
from xfdfuzz.native.usercode import user_insn
from xfdfuzz.program.ghost import task_token, vcpu_token
from xfdfuzz.program.ops import OPS, Op, guest, run, tasks
from xfdfuzz.program.ops.base import GuestOp
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

CORPUS = sorted((Path(__file__).parent.parent / "corpus").rglob("*.xfd"))
HEADER = "# xfdfuzz program 1\nmachine cpus=1\n"
GUEST = """t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile)
"""


def program(text: str) -> Program:
    return parse(HEADER + text)


def scripted(text: str, revision: str = "v7.3", good: str | None = "v7.3-cured") -> script.Script:
    return script.script_of(program(text), resolve(revision).kernel, None if good is None else resolve(good).kernel)


def of_vcpu(found: script.Script) -> list[Insn]:
    (stream,) = found.streams
    return stream.insns


def every_code() -> Iterator[Code]:
    """Each kind of instruction that any op can become, and those around them."""
    yield from assembler.PLAIN.values()
    yield from assembler.JOIN
    yield from (*assembler.STTS, *assembler.SET_OSXSAVE, *assembler.CLEAR_OSXSAVE)
    yield from (assembler.STRIDE, assembler.DONE, assembler.STORE_RAX, assembler.STORE_RBX, assembler.out(0x10))
    yield from assembler.begins(0x409010, 0x410020)
    yield from assembler.edx_eax(0x8_0004_0000)
    yield from assembler.fault_handler(13, 0x8000)
    yield from assembler.spin(500)
    yield from assembler.hold(0xC001)
    yield from (assembler.mov32(register, 0x1234) for register in ("eax", "ecx", "edx", "esi", "edi", "esp"))


def normal(text: str) -> str:
    """A disassembly without what disassemblers differ in: suffixes of sizes, spaces, the target of a short jump."""
    text = re.sub(r"\s+", " ", text.split("#")[0]).strip().replace("$0x", "$0x")
    text = re.sub(r"^(mov|cmp|or|shl)[bwlq] ", r"\1 ", text)
    return re.sub(r"^(j[a-z]+) .*", r"\1", text) if not text.startswith("jmp *") else text


@pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")
def test_the_bytes_are_the_disassembly_beside_them(tmp_path: Path) -> None:
    codes = [*every_code()]
    file = tmp_path / "code"
    file.write_bytes(b"".join(code.data for code in codes))
    done = subprocess.run(
        ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-w", file], capture_output=True, text=True, check=True
    )
    rows = [line.split("\t") for line in done.stdout.splitlines() if re.match(r"\s*[0-9a-f]+:\t", line)]
    assert [bytes.fromhex(row[1]) for row in rows] == [code.data for code in codes]
    assert [normal(row[2]) for row in rows] == [normal(code.text) for code in codes]


def test_short_jumps_stay_in_their_loop() -> None:
    for loop, first in ((assembler.spin(1), 1), (assembler.hold(0xC000), 0)):
        *_, jump = loop
        start = assembler.size(loop[:first])
        end = assembler.size(loop)
        assert end + int.from_bytes(jump.data[-1:], signed=True) == start


def test_contents_differ_by_owner_and_component_and_are_read_back() -> None:
    plain = [i for i in contents.SAMPLES if i not in (xf.PKRU, xf.XTILE_CFG, xf.BNDCSR)]
    tokens = [t for t in contents.tokens() if t > 7]
    seen = {contents.pattern(i, t)[:8] for i in plain for t in tokens}
    assert len(seen) == len(plain) * len(tokens)
    for component in [*plain, xf.PKRU, xf.XTILE_CFG]:
        for token in (0, *tokens):
            sample = contents.pattern(component, token)
            assert len(sample) == contents.SAMPLES[component][1]
            assert contents.token_of(component, sample) == token
    assert contents.describe(xf.YMM, contents.pattern(xf.YMM, task_token(1, 3))) == "t1:3"
    assert contents.describe(xf.YMM, bytes(16)) == "init"
    assert contents.describe(xf.PKRU, (0x55555554).to_bytes(4, "little")) == "kernel:1"
    assert contents.describe(xf.SSE, b"\xee" * 16).startswith("bytes ee ee")


def test_a_configuration_is_one_that_ldtilecfg_takes() -> None:
    """SDM vol. 2, LDTILECFG: reserved bytes 0, rows and bytes both 0 or neither, at most 16 rows of 64 bytes."""
    for token in contents.tokens():
        image = contents.pattern(xf.XTILE_CFG, token)
        assert image[0] == 1
        assert not any(image[2:16])
        columns = [int.from_bytes(image[16 + 2 * i : 18 + 2 * i], "little") for i in range(8)]
        assert all(1 <= size <= 64 for size in columns)
        assert all(1 <= rows <= 16 for rows in image[48:56])
        assert not any(image[32:48])
        assert not any(image[56:])
        assert (columns[0], image[48]) == (64, 16)


def test_pkru_never_denies_what_a_program_lives_in() -> None:
    for token in (0, *contents.tokens()):
        assert not contents.pattern(xf.PKRU, token)[0] & 3


def test_every_vcpu_has_tables_that_map_all_of_memory() -> None:
    for vcpu in range(3):
        tables = layout.tables(vcpu)
        base = layout.base(vcpu)
        assert all(base <= address < address + len(data) <= base + layout.CODE for address, data in tables.items())
        ranges = sorted((address, address + len(data)) for address, data in tables.items())
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))

        def walk(address: int, tables: dict[int, bytes] = tables, base: int = base) -> int:
            entry = int.from_bytes(tables[base + layout.PML4][:8], "little")
            entry = int.from_bytes(tables[entry & ~0xFFF][:8], "little")
            directory = tables[entry & ~0xFFF]
            entry = int.from_bytes(directory[(address >> 21) * 8 :][:8], "little")
            assert entry & 0x83 == 0x83
            return entry & ~0x1FFFFF | address & 0x1FFFFF

        assert all(walk(address) == address for address in (0, base + layout.IMAGES, layout.MEMORY - 1))


def test_the_gate_of_a_vector_leads_to_its_handler() -> None:
    tables = layout.tables(1)
    gate = tables[layout.base(1) + layout.IDT][7 * 16 :][:16]
    address = int.from_bytes(gate[0:2] + gate[6:8] + gate[8:12], "little")
    offset = address - layout.base(1) - layout.HANDLERS
    code = tables[layout.base(1) + layout.HANDLERS][offset : offset + layout.HANDLER_SIZE]
    assert code.startswith(layout.handler(1, 7))
    assert b"\x01\x07" in code  # it stores its vector
    assert (gate[2:4], gate[5]) == (b"\x08\x00", 0x8E)


def test_every_op_is_in_the_table() -> None:
    assert set(control.TABLE) == set(OPS.values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("t0 suspend", "op 1 (Suspend): it suspends the whole machine"),
        ("t0 user\ncpu1 hotplug", "op 2 (Hotplug): it takes a CPU of the whole machine offline"),
        ("host fail_alloc(1)", "op 1 (FailAlloc): user space cannot make one allocation of the kernel's fail"),
        ("t0 sigreturn frame0", "op 1 (Sigreturn): a handler in C comes back by its own frame"),
        ("t0 sigframe(copy, frame0)", "op 1 (SigframeCopyOf): a handler in C comes back by its own frame"),
        ("t0 sigframe(new)", "op 1 (SigframeNew): no frame is made in C but by the kernel"),
        ("t0 sigreturn own", "op 1 (Sigreturn): no frame is made in C but by the kernel"),
        ("t0 sigframe(fpstate, 8)", "op 1 (SigframeFpstate): a handler in C leaves the image of its frame where it is"),
        ("t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)", ""),
    ],
)
def test_what_user_space_cannot_do_has_a_reason(text: str, reason: str) -> None:
    assert control.unfit(program(text)) == reason


def test_a_kvm_run_becomes_one_chunk_of_guest_code() -> None:
    found = scripted(
        GUEST
        + """t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 ldtilecfg(1)
v0 wrmsr(IA32_XFD, 0x40000) = exit
v0 handle = resume
v0 vmenter
v0 tileload(2) = exit
v0 handle = resume
v0 vmenter = #NM
v0 rdmsr(IA32_XFD_ERR)
v0 out = exit
v0 handle = exit
t0 ... KVM_RUN
t0 ioctl(v0, KVM_GET_MSRS, IA32_XFD) = 1 [0x40000]
"""
    )
    *_, action, last = found.actions
    assert action.run is not None
    assert action.run.end == script.OUT
    shown = [(str(g.expected.op.template), str(g.expected.model)) for g in action.run.guest if g.expected]
    assert [result for _, result in shown] == ["ok", "ok", "#NM", "ok [0x40000]", "ok"]
    assert str(last.last.good) == "1 [0x40000]"
    insns = of_vcpu(found)
    assert [first.address + len(first.data) for first in insns[:-1]] == [second.address for second in insns[1:]]
    operand = insns[0].operand
    assert operand is not None
    assert operand.data == contents.pattern(xf.XTILE_CFG, vcpu_token(0, 1))


@pytest.mark.parametrize(
    ("text", "end", "waits"),
    [
        ("v0 vmenter\nv0 interrupt\nt0 ... KVM_RUN = -EINTR\n", script.SIGNAL, 1),
        ("v0 vmenter\nv0 interrupt\nv0 vmenter\nv0 hlt\nv0 handle\nt0 ... KVM_RUN\n", script.HLT, 1),
        ("t0 ... KVM_RUN = -EINTR\n", script.NEVER_ENTERED, 0),
        ("v0 vmenter\nv0 tilerelease\n", script.DONE, 1),
    ],
)
def test_how_a_kvm_run_ends(text: str, end: str, waits: int) -> None:
    action = scripted(GUEST + "t0 ioctl(v0, KVM_RUN) ...\n" + text).actions[-1]
    assert action.run is not None
    assert action.run.end == end
    assert sum(g.expected is None for g in action.run.guest) == waits


def test_what_meets_a_kvm_run_is_its_rival() -> None:
    found = scripted(
        "t1 user\n"
        + GUEST
        + """t0 ioctl(v0, KVM_RUN) ...
v0 vmenter
v0 wrmsr(IA32_XFD, 0x40000) = exit
cpu0 schedule(t1)
t1 user
cpu0 schedule(t0)
v0 handle
v0 vmenter
v0 hlt
v0 handle
t0 ... KVM_RUN
cpu0 schedule(t1)
t1 user
"""
    )
    (action,) = (action for action in found.actions if action.run)
    assert [str(rival.op.template) for rival in action.rivals] == [
        "cpu{cpu} schedule(t{task})",
        "t{task} user",
        "cpu{cpu} schedule(t{task})",
    ]
    assert action.control == control.OVERLAP
    assert [rival.task for rival in action.rivals] == [1, 1, 0]
    assert found.tasks == (0, 1)
    assert [action.task for action in found.actions[-2:]] == [1, 1]


def test_a_sigreturn_meets_what_ran_while_its_task_was_away() -> None:
    text = "t0 signal ...\nt0 ... signal\ncpu0 schedule(t1)\nt1 vmovups(2)\ncpu0 schedule(t0)\nt0 sigreturn\n"
    *_, last = scripted(text).actions
    assert ([rival.last.line for rival in last.rivals], last.control) == (["t1 vmovups(2)"], control.OVERLAP)
    *_, last = scripted("t0 signal ...\nt0 ... signal\nt0 vmovups(2)\nt0 sigreturn\n").actions
    assert (last.rivals, last.control) == ((), control.EXACT)


def test_an_instruction_that_one_kernel_faults_has_both_results() -> None:
    """What stands behind it in the program cannot happen on the good kernel, and says nothing there."""
    text = (Path(__file__).parent.parent / "corpus/open/wrmsr-xfd-lost-then-tiles-lost.xfd").read_text()
    good = resolve("v7.3-cured").kernel
    extended, added = watching.watched(parse(text), good)
    found = script.script_of(extended, resolve("v7.3").kernel, good, added)
    (loaded,) = (
        g.expected
        for action in found.flat()
        if action.run
        for g in action.run.guest
        if g.expected and isinstance(g.expected.op, guest.GuestTileload)
    )
    assert (str(loaded.model), str(loaded.good)) == ("ok", "#NM")


def test_watching_reads_what_should_be_left() -> None:
    text = GUEST + "t0 ioctl(v0, KVM_SET_XSAVE, {xstate_bv: x87|xtile, data: 3})\n"
    extended, added = watching.watched(program(text), resolve("v7.3").kernel)
    ops = extended.ops[len(extended.ops) - added :]
    assert [type(op) for op in ops if isinstance(op, GuestOp)] == [
        guest.GuestRdmsr,
        guest.GuestFxsave,
        guest.GuestSttilecfg,
        guest.GuestTilestore,
        guest.GuestOut,
    ]
    assert isinstance(ops[-1], run.KvmRunReturns)
    assert watching.watched(program("t0 user\n"), resolve("v7.3").kernel)[1] == 0


def test_a_script_of_what_nobody_controls_is_refused() -> None:
    with pytest.raises(ValueError, match="suspends the whole machine"):
        scripted("t0 suspend\n")


@pytest.mark.parametrize("vector", [0, 1, 2])
def test_streams_of_vcpus_do_not_meet(vector: int) -> None:
    assert layout.base(vector) + layout.BLOCK <= layout.MEMORY


def test_every_user_instruction_has_code() -> None:
    plain: list[Callable[[], Op]] = [c for n, c in OPS.items() if n.startswith("User")]
    for make in plain:
        if control.control_of(make()).no:
            continue
        insn = user_insn(make())
        assert insn is not None
        assert insn.bytes
    assert user_insn(tasks.ReturnToUser(0)) is None


def test_the_corpus_has_a_script_or_a_reason() -> None:
    """Every instruction of a guest gets a result of its own, and every value a way to compare it."""
    kernel, good = resolve("v7.3").kernel, resolve("v7.3-cured").kernel
    fit = 0
    for file in CORPUS:
        wanted = parse(file.read_text(), file.name)
        if control.unfit(wanted):
            continue
        fit += 1
        found = script.script_of(wanted, kernel, good)
        for stream in found.streams:
            slots = [insn.slot for insn in stream.insns]
            assert len(set(slots)) == len(slots)
            assert stream.end < layout.base(stream.vcpu) + layout.CONTENTS
        for action in found.flat():
            for step in (
                *action.expected,
                *(g.expected for g in (action.run.guest if action.run else ()) if g.expected),
            ):
                if step.model is not None and step.model.out is not None:
                    assert values.value_of(step.op) is not None, step.line
    assert fit > 230  # half of the corpus, until much came into it that only a kernel can do
