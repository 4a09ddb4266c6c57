"""What a review must say of the posting that it all began with, of the review's alternatives, and of the next posting.

Facts of the exhaustive engine alone, so that no seed decides; docs/review.md tells the same to people.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import pytest

from xfdfuzz.engines.review.accesses import Access, Action, accesses
from xfdfuzz.engines.review.change import Change
from xfdfuzz.engines.review.life import Life, life
from xfdfuzz.engines.review.mining import Table, mined
from xfdfuzz.engines.review.outcomes import Outcome, Outcomes, clearing, outcomes
from xfdfuzz.engines.review.space import Space, explored
from xfdfuzz.engines.review.subjects import Subject, subject
from xfdfuzz.kernel.state import KVM_EXIT_FPU_REALLOC, Vcpu
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.kvm import KvmSetMsrs
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step, format_ret
from xfdfuzz.revisions import resolve

#: Where the request stands.
FIRST, OTHERS = subject("v.guest_fpu.realloc_request"), subject("v.xfd_realloc_request")
REALLOC = ("KvmRunReturns", "KVM_EXIT_FPU_REALLOC")


class Request:
    """What becomes of the request of a posting."""

    def __init__(self, name: str, asked: Subject) -> None:
        self.space, self._asked = tiny(name), asked

    @functools.cached_property
    def _table(self) -> Table:
        return Table(self.space, self._asked.of)

    @functools.cached_property
    def accesses(self) -> list[Access]:
        return accesses(self.space, self._asked)

    @functools.cached_property
    def cleared(self) -> tuple[Outcome, ...]:
        return clearing(self.space, self._asked)

    @functools.cached_property
    def life(self) -> Life:
        return life(self.space, self._table, self._asked)

    @functools.cached_property
    def relations(self) -> list[str]:
        return [str(one.relation.general) for one in mined(self._table, self._asked)]


@functools.cache
def tiny(name: str) -> Space:
    return explored(resolve(name), "tiny")


@functools.cache
def against_base(name: str) -> Outcomes:
    return outcomes(tiny("v5.16"), tiny(name))


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """States of five postings are some 100 MB."""
    yield
    tiny.cache_clear()
    against_base.cache_clear()


def gives(found: Iterable[Outcome]) -> set[tuple[str, str]]:
    return {(one.op, one.result) for one in found}


def who(found: Request, action: Action) -> set[str]:
    return {one.function for one in found.accesses if one.action is action}


def last_step(program: Program, name: str) -> Step:
    *_, last = Executor(resolve(name).kernel, program.machine).run(program.ops)
    return last


def pending(vcpu: Vcpu) -> int:
    return vcpu.arch.guest_fpu.realloc_request | vcpu.arch.xfd_realloc_request


def served(step: Step) -> bool:
    """Whether a request that a step clears got its room."""
    before, after = (system.vcpus[0] for system in (step.before, step.after))
    assert pending(before)
    assert not pending(after)
    return not pending(before) & ~after.arch.guest_fpu.xfeatures


def test_the_first_posting_clears_what_was_not_served() -> None:
    found = Request("amx-v1", FIRST)
    assert who(found, Action.CLEARS) == {"fpu_guest_realloc_fpstate", "xfd_enable_guest_features"}
    assert who(found, Action.REPEATS), "set again while it waits"
    by_result = {one.result: last_step(one.program, "amx-v1") for one in found.cleared}
    assert not served(by_result["-EFAULT"])
    assert served(by_result["KVM_EXIT_FPU_REALLOC"])
    assert found.life.loop is None
    new = gives(against_base("amx-v1").only_revision)
    assert REALLOC in new, "user space has another exit to handle"
    assert ("KvmGetXsave2", "-EINVAL") in gives(against_base("amx-v1").only_base)
    for one in against_base("amx-v1").only_revision:
        assert format_ret(last_step(one.program, "amx-v1").result.ret).startswith(one.result)
    change = Change(resolve("v5.16"), resolve("amx-v1"))
    assert change.written().anew[0] == FIRST
    functions = {name for names in change.replaced().values() for name in names}
    assert {"kvm_set_msr_common", "fpu_guest_realloc_fpstate"} <= functions


def test_the_first_posting_writes_to_the_exit_reason_in_an_ioctl() -> None:
    space = tiny("amx-v1")
    bucket = "ioctl-leaves-run-state-alone@exit-reason"
    (breach,) = (one for one in space.search.breaches.values() if one.violation.bucket == bucket)
    last = last_step(space.program_to(breach.state, breach.op), "amx-v1")
    assert isinstance(last.op, KvmSetMsrs)
    assert last.after.vcpus[0].run.exit_reason == KVM_EXIT_FPU_REALLOC == 36


def test_nobody_clears_the_request_of_the_first_alternative() -> None:
    found = Request("amx-review-a", OTHERS)
    assert who(found, Action.CLEARS) == set()
    assert found.life.shortest == 0
    assert found.life.loop
    assert not found.life.loop.without_memory
    assert found.life.returning
    assert not found.life.returning.without_memory
    assert f"{OTHERS.path} & v.guest_fpu.xfeatures == 0" not in found.relations
    ops = found.life.returning.program.ops
    executor = Executor(found.space.revision.kernel, found.life.returning.program.machine)
    for step in executor.run([*ops, *ops[-found.life.returning.turns :] * 3]):
        assert step.number <= len(ops) or pending(step.after.vcpus[0])
    assert REALLOC in gives(against_base("amx-review-a").only_revision)


def test_the_second_alternative_clears_what_was_served_and_retries_while_there_is_no_memory() -> None:
    found = Request("amx-review-b", OTHERS)
    assert who(found, Action.CLEARS) == {"kvm_put_guest_fpu"}
    assert found.cleared
    assert all(served(last_step(one.program, "amx-review-b")) for one in found.cleared)
    assert found.life.returning
    assert found.life.returning.without_memory
    assert f"{OTHERS.path} & v.guest_fpu.xfeatures == 0" in found.relations
    assert REALLOC in gives(against_base("amx-review-b").only_revision)


@pytest.mark.parametrize("name", ["amx-review-c", "amx-v2"])
def test_the_simpler_designs_have_no_request_and_no_new_exit(name: str) -> None:
    assert not [one for one in (FIRST, OTHERS) if Action.SETS in {a.action for a in accesses(tiny(name), one)}]
    new = gives(against_base(name).only_revision)
    assert not {one for one in new if one[0] == "KvmRunReturns"}
    assert ("KvmSetMsrs", "1") in new, "what needs room that is not there is refused"
    assert (("KvmSetCpuid2", "-ENXIO") in new) == (name == "amx-v2")
    assert new != gives(against_base("amx-v1").only_revision)
