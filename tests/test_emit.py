"""`xfdfuzz field --emit`: a relation that holds becomes an invariant, with a test that can fail."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz import Broken, load_invariants, parse
from xfdfuzz.cli.emit import emit
from xfdfuzz.cli.exits import BadInput
from xfdfuzz.cli.skeleton import Place
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.review.biography import Biography, biography
from xfdfuzz.engines.review.mining import Table, mined
from xfdfuzz.engines.review.promise import promise
from xfdfuzz.engines.review.relations import Form, Relation
from xfdfuzz.engines.review.rows import Column, Rows
from xfdfuzz.engines.review.space import Space, explored
from xfdfuzz.engines.review.subjects import subject
from xfdfuzz.engines.review.survival import Break, Checker
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.invariants.vocabulary import INVARIANTS, View
from xfdfuzz.kernel import state as st
from xfdfuzz.program.executor import Executor
from xfdfuzz.report.python import Body
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent
REQUEST = "v.guest_fpu.realloc_request"
#: amx-v1 with a request that nobody clears: the stale one of the review.
STALE = """\
from xfdfuzz import Series
from xfdfuzz.revisions.amx_v1 import AmxV1

series = Series("stale", base="amx-v1", title="a request that stays")


@series.patch("stale-1", "x86/fpu: keep the request")
class Keeps(AmxV1):
    def xfd_enable_guest_features(self, guest_fpu):
        request = guest_fpu.realloc_request
        done = super().xfd_enable_guest_features(guest_fpu)
        guest_fpu.realloc_request = request
        return done
"""
#: Two vCPUs: the request of the first one waits while the second one enters its guest.
ANOTHER = """\
# xfdfuzz program 1
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)
t0 ioctl(kvm, KVM_CREATE_VM)
t0 ioctl(vm0, KVM_CREATE_VCPU, 0)
t0 ioctl(vm0, KVM_CREATE_VCPU, 1)
t0 ioctl(v0, KVM_SET_CPUID2, {xcr0: x87|sse|avx|xtile, xfd, amx})
t0 ioctl(v0, KVM_SET_XCRS, x87|sse|avx|xtile)
t0 ioctl(v0, KVM_SET_MSRS, {IA32_XFD: 0})
t0 ioctl(v1, KVM_RUN) ...
v1 vmenter
"""
PLACE = Place("promise", Path("promise.py"), Path("test_promise.py"))
WHERE = ("--revision", "amx-v1", "--scope", "tiny", "--scope", "tiny", "--time", "0.4", "--seed", "1")


@pytest.fixture(scope="module")
def v1() -> Space:
    return explored(resolve("amx-v1"), "tiny")


@pytest.fixture(scope="module")
def known(v1: Space) -> Biography:
    return biography(subject(REQUEST), v1, Plan(seed=1, engine="scout", examples=1), elsewhere=[])


def number_of(text: str, known: Biography) -> int:
    """The number that a relation is shown with."""
    return 1 + [str(one.mined.relation) for one in known.relations].index(text)


def test_a_promise_is_kept_from_then_on(run: Run, known: Biography) -> None:
    """The stale request of the review: it is caught where it is stale, and the kernel that it was seen on keeps it."""
    number = number_of(f"{REQUEST} & v.guest_fpu.xfeatures == 0", known)
    command = ("field", REQUEST, *WHERE, "--emit", "not-stale", "--relation", str(number), "--format", "json")
    code, out, err = run(*command, "--directory", "code", "--tests", "t")
    assert code == 0, err
    assert json.loads(out)["emitted"] == {"file": "code/not_stale.py", "test": "t/test_not_stale.py"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "t"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1].startswith("2 passed"), done.stdout

    load_invariants([Path("code/not_stale.py")])
    Path("stale.py").write_text(STALE)
    (program,) = re.findall(r'BREAKS = """\\\n(.*?)"""', Path("t/test_not_stale.py").read_text(), re.DOTALL)
    assert "not-stale" in judge(program, resolve("stale.py"), expectations=False).broken
    assert "not-stale" not in judge(program, resolve("amx-v1"), expectations=False).broken
    found = fuzz(resolve("amx-v1"), Plan(seed=1, engine="scout", examples=20)).found
    assert found
    assert "not-stale" not in {one.violation.invariant for one in found}


def test_what_holds_after_ops_is_asked_after_them_of_what_they_are_about(v1: Space, known: Biography) -> None:
    emit(PLACE, known, v1, number_of(f"{REQUEST} == 0 after KvmRun, VmEnter, KvmRunReturns", known))
    load_invariants([PLACE.file])
    made = INVARIANTS["promise"]
    assert {op.__name__ for op in made.ops} == {"KvmRun", "VmEnter", "KvmRunReturns"}
    assert not made.state
    # another vCPU keeps its request while one enters the guest
    program = parse(ANOTHER)
    *_, last = Executor(v1.revision.kernel, program.machine).run(program.ops)
    assert last.result.ret == "ok"
    assert last.after.vcpus[0].arch.guest_fpu.realloc_request
    assert "promise" not in judge(program, v1.revision, expectations=False).broken


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--emit", "no-warning"), "invariant no-warning exists already"),
        (("--emit", "Not A Name"), "Not A Name: expected lower-case words"),
        (("--emit", "there"), "there.py: exists already"),
    ],
)
def test_what_cannot_be_written_gives_a_line(run: Run, argv: tuple[str, ...], message: str) -> None:
    Path("there.py").write_text("mine")
    code, out, err = run("field", REQUEST, *WHERE, *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["there.py"]


def test_what_is_broken_elsewhere_or_not_there_is_no_promise(v1: Space, known: Biography) -> None:
    first = replace(known.relations[0], broken=Break("fuzz", v1.program_to(1)))
    with pytest.raises(BadInput, match="relation 1 does not hold"):
        emit(PLACE, replace(known, relations=(first,)), v1, 1)
    with pytest.raises(BadInput, match=f"there are 1 of {REQUEST}"):
        emit(PLACE, replace(known, relations=(first,)), v1, 2)
    assert not [*Path().iterdir()]


# -- the code says what the relation says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [REQUEST, "v.guest_fpu.fpstate.xfd", "cpu.MSR_IA32_XFD", "t.fpu.fpstate", "vm.vcpus_0"]
)
def test_the_code_of_a_relation_finds_what_the_relation_says(v1: Space, path: str) -> None:
    """In states of the scope, most of them with something changed that the relation is about."""
    chance, asked = random.Random(path), subject(path)
    columns = {one.path: one for one in Rows(asked.of, v1.scope.machine.cpus).columns}
    relations = [(one.relation.general, one.other) for one in mined(Table(v1, asked.of), asked)]
    relations += [
        (Relation(form, path, other, 1), columns[other])
        for form, other in zip(Form, others(columns, path), strict=True)
    ]
    executor, seen = Executor(v1.revision.kernel, v1.scope.machine), set()
    for relation, other in relations:
        body = Body(relation, asked.of, asked.column, other if relation.other else None).text()
        look = compiled(body)
        checker = Checker([relation], asked.of, v1.scope.machine.cpus)
        for _ in range(40):
            raw = changed(v1, [asked.column, *([other] if other else [])], Rows(asked.of, 1), chance)
            executor.kernel.load(raw)
            expected = [nr for nr, _, _ in checker.broken(raw)]
            assert [one.key for one in look(View(executor.kernel, None))] == expected, body  # type: ignore[arg-type]
            seen.add(bool(expected))
    assert seen == {True, False}


def others(columns: dict[str, Column], path: str) -> list[str]:
    """Fields of the object itself, one for each form."""
    found = [one for one, column in columns.items() if not column.several and column.via is None and one != path]
    return (found * len(Form))[: len(Form)]


def compiled(body: str) -> Callable[[View], Any]:
    """The code in a function, as the file has it."""
    names: dict[str, Any] = {"Broken": Broken, "st": st}
    exec("def look(view):\n" + "\n".join(f"    {line}" for line in body.splitlines()), names)
    return lambda view: names["look"](view)


def changed(space: Space, columns: list[Column], rows: Rows, chance: random.Random) -> bytes:
    """A state, with other values where the columns are; pointers are left alone."""
    raw = bytearray(space.raw(chance.randrange(len(space.states))))
    for column in columns:
        if column.compared or "+" in str(column.kind) or column.path.endswith("fpstate"):
            continue
        for start, size in rows.places_now(column, raw):
            if chance.random() < 0.7:
                raw[start : start + size] = chance.choice((0, 1, 2, 1 << 17)).to_bytes(8, "little")[:size]
    return bytes(raw)


def test_every_relation_that_is_shown_first_has_a_mistake_that_breaks_it(v1: Space) -> None:
    """Of the fields that a reviewer asks about."""
    for path in (REQUEST, "cpu.xfd_state"):
        asked = subject(path)
        first = mined(Table(v1, asked.of), asked)[0]
        made = promise(first, asked, v1)
        assert made.breaks.ops
        assert hasattr(v1.revision.kernel, made.mistake.method)
