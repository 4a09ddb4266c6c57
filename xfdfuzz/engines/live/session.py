"""A host to run programs on: what was asked of it once, and a lockstep for each program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from xfdfuzz.engines.live.danger import Lookout, neighbours
from xfdfuzz.engines.live.facts import Facts, look
from xfdfuzz.engines.live.lockstep import Compared, Lockstep, Refused, Verdict
from xfdfuzz.engines.live.quirks import Quirk, modelled, quirks_of
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision


@dataclass(frozen=True)
class Outcome:
    """What a program came to: its ops as far as it was run, in the order in which they were compared.

    ``refused``: it was not run, and why.
    """

    name: str
    program: Program
    compared: tuple[Compared, ...]
    refused: Refused | None = None

    def count(self, verdict: Verdict) -> int:
        """How many ops came out so."""
        return sum(one.verdict is verdict for one in self.compared)

    @property
    def different(self) -> Compared | None:
        """The op in which the two part."""
        return next((one for one in self.compared if one.verdict is Verdict.DIFFERENT), None)

    @property
    def not_reached(self) -> int:
        """How many ops stand behind it."""
        return len(self.program.ops) - self.different.number if self.different else 0


@dataclass(frozen=True)
class Session:
    """The host, the revision that it is held against, and the model of it, which has the host's quirks.

    ``revisions`` are those on which nothing that is run may be dangerous; none: whatever it is, it is run.
    """

    facts: Facts
    revision: Revision
    quirks: tuple[Quirk, ...]
    kernel: type[Kernel]
    revisions: tuple[Revision, ...]
    device: str

    @staticmethod
    def on(device: str, revision: Revision, facts: Facts | None = None, *, reckless: bool = False) -> Session:
        """With what the host says, or ``facts``; raises NoHost."""
        facts = look(device) if facts is None else facts
        quirks = quirks_of(facts, revision)
        kernel = modelled(facts, revision, quirks)
        around = () if reckless else neighbours(revision, facts.release)
        return Session(facts, revision, quirks, kernel, around, device)

    @property
    def machine(self) -> Machine:
        """The model's, with all CPUs of the host's that it can have."""
        return self.facts.machine

    def machine_for(self, program: Program) -> Machine:
        """The host, with as many of its CPUs as the program wants."""
        return replace(self.machine, cpus=min(program.machine.cpus, self.machine.cpus))

    def lockstep(self, machine: Machine) -> Lockstep:
        """For one program."""
        lookout = Lookout(self.revisions, machine) if self.revisions else None
        return Lockstep(self.facts, self.kernel, machine, self.quirks, lookout, self.device)

    def judge(self, program: Program, name: str = "") -> Outcome:
        """Run a whole program, up to the first difference; nothing of it if any op may not be run."""
        compared: list[Compared] = []
        try:
            for one in self._run(program):
                compared.append(one)
                if one.verdict is Verdict.DIFFERENT:
                    break
        except Refused as refused:
            return Outcome(name, program, (), refused)
        return Outcome(name, program, tuple(compared))

    def _run(self, program: Program) -> Iterator[Compared]:
        with self.lockstep(self.machine_for(program)) as lockstep:
            lockstep.check(program.ops)
            for op in program.ops:
                yield from lockstep.execute(op)
            yield from lockstep.finish()
