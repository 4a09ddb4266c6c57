"""A search's memory: what was executed, what came out, what is already known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from xfdfuzz.engines.judge.minimise import for_ever
from xfdfuzz.engines.rules.situation import Looks, Situation
from xfdfuzz.engines.search.precedence import Precedence
from xfdfuzz.engines.search.reach import Change, Reach
from xfdfuzz.engines.search.reached import Reached
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.watched import Watched
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.strategies.boots import Boot


class Discovery(Protocol):
    """What a campaign looks for: a violation, or a difference of two revisions.  Two of one bucket are the same, or two
    of one kind where that is looked at."""

    @property
    def bucket(self) -> str:
        """What makes it the same again."""

    @property
    def kind(self) -> str:
        """The bucket and the shape in which it shows."""

    @property
    def message(self) -> str:
        """What was seen, in a sentence."""


D = TypeVar("D", bound=Discovery)


class Discovered(Exception):
    """Something that the campaign does not know, and the program up to it.

    One subclass per key: Hypothesis tells failures apart by type, would merge two of one type, and would slip from
    one to the other while it shrinks.
    """

    def __init__(self, discovery: Discovery, program: Program) -> None:
        super().__init__(f"{discovery.bucket}: {discovery.message}")
        self.discovery = discovery
        self.program = program


@dataclass(kw_only=True)
class Campaign(Generic[D]):
    """The memory of a search; a subclass says what is searched and for what.

    ``known`` are the buckets, and the kinds, that are nothing new, ``met`` the buckets of those that showed.
    ``by_shape``: what was found is known in its shape only.  ``wanted`` is the one bucket or kind that is looked for,
    None: any.  A discovery is shrunk as long as it is ``in_time``.  ``reached`` notes which
    programs reached what none had, None: nobody wants to know.  ``precedence`` is what was broken before what, where a
    run notes that.
    """

    known: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    by_shape: bool = False
    wanted: str | None = None
    in_time: Callable[[], bool] = for_ever
    stats: Stats = field(default_factory=Stats)
    reached: Reached | None = None
    precedence: Precedence = field(default_factory=Precedence)
    errors: dict[str, type[Discovered]] = field(default_factory=dict)
    looks: Looks = field(default_factory=Looks)
    _watches: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False)
    #: A run for each machine, and where it was, switched on and after each boot.
    _runs: dict[Machine, Run] = field(default_factory=dict, init=False, repr=False)
    _booted: dict[tuple[Machine, Boot | None], Any] = field(default_factory=dict, init=False, repr=False)
    #: What the exception is called that a test fails with.
    error_name: ClassVar[str]

    # -- what a subclass says ------------------------------------------------------------------------------------------

    def start(self, machine: Machine) -> Run:
        """A run on a machine that was switched on just now."""
        raise NotImplementedError

    def shown(self, program: Program) -> Sequence[D]:
        """Everything that the program shows, run from its beginning, known or not."""
        raise NotImplementedError

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program that still shows the bucket or kind, as far as there is time."""
        raise NotImplementedError

    def change(self) -> Change | None:
        """What is of interest in it, if it is a change."""
        return None

    # -- examples ------------------------------------------------------------------------------------------------------

    def begin(self, machine: Machine, boot: Boot | None = None) -> Run:
        """Begin an example behind a boot, or without one; raises Discovered for something new in it.

        A machine is switched on once, and a boot executed once on it; after that both are memory copies.
        """
        if machine not in self._runs:
            self._runs[machine] = self.start(machine)
            self._booted[machine, None] = self._runs[machine].save()
        run = self._runs[machine]
        if boot and (machine, boot) not in self._booted:
            run.restore(self._booted[machine, None])
            for op in boot(machine):
                run.execute(op)
            self._booted[machine, boot] = run.save()
        run.restore(self._booted[machine, boot])
        return run

    def again(self, machine: Machine, saved: Any) -> Run:
        """Begin an example where an earlier one on that machine was saved."""
        run = self._runs[machine]
        run.restore(saved)
        return run

    def replay(self, program: Program, note: bool = True) -> None:
        """A program as an example; raises Discovered for the first thing that is new in it.

        Without ``note`` what it reaches is reached, but nobody wants to know by which program.
        """
        run = self.begin(program.machine)
        try:
            for op in program.ops:
                if not run.alive:
                    break
                run.execute(op)
        finally:
            if self.reached is not None and not note:
                self.reached.take()
        run.finish()

    def example_done(self) -> None:
        """Count an example and tell all who watch; raises what they raise."""
        self.stats.examples += 1
        for watch in self._watches:
            watch()

    @contextmanager
    def after_each_example(self, *watches: Callable[[], None]) -> Iterator[None]:
        """Call these, in their order, after each example that ends inside the block."""
        before = len(self._watches)
        self._watches += watches
        try:
            yield
        finally:
            del self._watches[before:]

    @contextmanager
    def timed(self) -> Iterator[Callable[[], None]]:
        """The statistics' seconds are those since the block began, as of the last example here or the last call of what
        the block is given."""
        began = time.monotonic()

        def look() -> None:
            self.stats.seconds = time.monotonic() - began

        try:
            with self.after_each_example(look):
                yield look
        finally:
            look()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The statistics get what the functions of the change do inside the block."""
        change = self.change()
        with Watched(change.watched if change else ()) as watched, self.after_each_example(watched.example_done):
            try:
                yield
            finally:
                self.stats.ran(watched)

    def reach(self, found: Iterable[Program]) -> Reach | None:
        """How far it came into the change; ``found`` are programs that show what it looks for."""
        change = self.change()
        if change is None:
            return None
        with Watched(change.watched) as watched:
            for program in found if change.compared else ():
                self.shown(program)
        return change.reach(self.stats, watched.lines)

    def count_anew(self) -> Stats:
        """Begin new statistics and return them."""
        self.stats = Stats()
        return self.stats

    # -- what is new ---------------------------------------------------------------------------------------------------

    def key(self, found: Discovery) -> str:
        """What it is known by from now on."""
        return found.kind if self.by_shape else found.bucket

    def is_new(self, found: Discovery) -> bool:
        """Whether it should be raised."""
        if self.wanted is not None:
            return self.wanted in (found.bucket, found.kind)
        if self.known.isdisjoint((found.bucket, found.kind)):
            return True
        self.met.add(found.bucket)
        return False

    def learn(self, keys: Iterable[str]) -> None:
        """These are nothing new from now on."""
        self.known.update(keys)

    def looking_for(self, key: str) -> Self:
        """A campaign on the same that looks for one bucket or kind only, counts for itself and is watched by nobody."""
        return replace(self, wanted=key, stats=Stats(), reached=None)

    def discovered(self, discovery: Discovery, program: Program) -> Discovered:
        """The exception for it, of the key's own type."""
        named = {"__module__": "xfdfuzz"}  # it stands in no module, and tests show its name
        error = self.errors.setdefault(self.key(discovery), type(self.error_name, (Discovered,), named))
        return error(discovery, program)


class Run:
    """One example: the ops executed so far, on what a subclass has booted, and what to do at its end.

    ``parted``: kernels that are compared are in different states, and go on all the same.
    """

    def __init__(self, campaign: Campaign[Any], machine: Machine) -> None:
        self.campaign = campaign
        self.machine = machine
        self.ops: list[Op] = []
        self.over = self.parted = False
        self._situations = campaign.looks.on(machine)

    @property
    def kernel(self) -> Kernel:
        """The one that says who can do what."""
        raise NotImplementedError

    def execute(self, op: Op) -> None:
        """Execute and judge ``op``; raises Discovered for something new."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether anything can still happen."""
        return not self.kernel.system.dead

    def program(self, *more: Op) -> Program:
        """What was executed so far, and ``more``."""
        return Program(self.machine, (*self.ops, *more))

    def situation(self) -> Situation:
        """Who can do what now."""
        return self._situations.now(self.kernel)

    def save(self) -> Any:
        """Where the run is, for :meth:`restore`."""
        raise NotImplementedError

    def restore(self, saved: Any) -> None:
        """Go back to where this run, or another one on the same machine, was."""
        raise NotImplementedError

    def finish(self) -> None:
        """Look at what is left, and count the example, unless a discovery ended it."""
        try:
            if not self.over:
                self.look_at_end()
        finally:
            if not self.over:
                self.campaign.example_done()

    def look_at_end(self) -> None:
        """Judge what the program leaves behind; raises Discovered."""

    def go_back(self, ops: Iterable[Op]) -> None:
        """Be where these ops have led to, what is under test being there."""
        self.ops = [*ops]
        self.over = False

    def done(self, step: Step) -> None:
        """Note and count an op that was executed."""
        self.ops.append(step.op)
        self.campaign.stats.count(step.op, step.result)

    def judge(self, found: Iterable[Discovery]) -> None:
        """Note what the last step has reached, then raise the first of them that is new."""
        if self.campaign.reached is not None:
            self.campaign.reached.look(self.campaign.stats, self.program)
        for one in found:
            if self.campaign.is_new(one):
                self.over = True
                raise self.campaign.discovered(one, self.program())
