"""Whether the Promela model is xfdfuzz's: the same graph, shortest programs that break the same, the same cycles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.peers import graph, spin
from bench.peers.scope import PEERS
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, resolve

#: The bucket that a WARN or a fault in a function is for xfdfuzz.
BUCKETS = {
    **{name: f"no-warning@{name}" for name in ("kvm_set_msr_common", "fpu_guest_realloc_fpstate")},
    **{
        name: f"host-xrstor-never-faults@{name}"
        for name in ("switch_fpu_return", "fpu_swap_kvm_fpstate", "fpstate_realloc")
    },
}


class DisagreementError(Exception):
    """The two models are not the same; as text it is one line that says where."""


class Explored(NamedTuple):
    """What the explorer said: going on after everything, as SPIN does, and as `xfdfuzz explore` is."""

    unpruned: dict[str, Any]
    pruned: dict[str, Any]

    def ops(self, bucket: str) -> tuple[int, int]:
        """How long the bucket's program is in both; 0: none."""
        one, other = (run["found"].get(bucket, 0) for run in self)
        return one, other


def compare(directory: Path, revision: str, explored: Explored) -> Iterator[str]:
    """What they agree about, a line each.  Raises DisagreementError."""
    yield _graphs(directory, revision, explored)
    for function, bucket in BUCKETS.items():
        yield f"{bucket}: {_shortest(directory, revision, function, explored)}"
    yield f"request-is-eventually-cleared: {_cycles(directory, revision, explored)}"


def _graphs(directory: Path, revision: str, explored: Explored) -> str:
    flags = ["-DTRACE", *spin.DEFINES[revision]]
    printing = spin.verifier(directory, f"{revision}-graph", flags, ["-DSAFETY", "-DPRINTF"])
    run = printing.run()
    theirs, ours = graph.of_spin(run.output), graph.of_xfdfuzz(resolve(revision))
    different = sorted(theirs.arcs ^ ours.arcs)
    if different:
        arc = different[0]
        who = "SPIN" if arc in theirs.arcs else "xfdfuzz"
        raise DisagreementError(f"{revision}: {len(different)} arcs differ; only {who} has {PEERS.ops[arc.op]}: {arc}")
    if (run.states, run.transitions) != (len(theirs.states), len(theirs.arcs)):
        raise DisagreementError(f"{revision}: SPIN printed other states and arcs than it counts")
    if explored.unpruned["states"] != ours.whole:
        raise DisagreementError(f"{revision}: explore has {explored.unpruned['states']} states, expected {ours.whole}")
    return (
        f"the same graph: {len(ours.states)} states, {len(ours.arcs)} arcs with the same op, result and WARN, "
        f"which is {ours.whole} states of explore in what amx_v1.pml has of them"
    )


def _shortest(directory: Path, revision: str, function: str, explored: Explored) -> str:
    searching = spin.at_site(directory, revision, function, "-DTRACE")
    ops = searching.trail() if searching.run().errors else []
    unpruned, pruned = explored.ops(BUCKETS[function])
    if unpruned != len(ops):
        raise DisagreementError(f"{revision}: SPIN reaches {function} with {len(ops)} ops, explore with {unpruned}")
    if not ops:
        return "out of reach for both"
    if not _breaks(ops, BUCKETS[function], resolve(revision)):
        raise DisagreementError(f"{revision}: replaying SPIN's {ops} does not break {BUCKETS[function]}")
    without = "" if pruned == unpruned else f" ({pruned} where explore does not go on from corruption)"
    return f"{len(ops)} ops for both{without}; the last one of SPIN's breaks it on xfdfuzz too"


def _breaks(ops: list[int], bucket: str, revision: Revision) -> bool:
    """Whether the last op breaks it, and none before."""

    def broken(numbers: list[int]) -> bool:
        program = Program(PEERS.machine, tuple(PEERS.ops[number] for number in numbers))
        return bucket in judge(program, revision, expectations=False).buckets

    return broken(ops) and not broken(ops[:-1])


def _cycles(directory: Path, revision: str, explored: Explored) -> str:
    looking = spin.verifier(directory, f"{revision}-cycle", [*spin.DEFINES[revision], "-DLIVE", "-DTRACE"], [])
    errors = looking.run("-a").errors
    for run in explored:
        if bool(errors) != bool(run["lassos"]):
            raise DisagreementError(f"{revision}: SPIN finds {errors} cycles, explore {run['lassos']}")
    if not errors:
        return "no cycle for either"
    ((ops, loop),) = explored.unpruned["lassos"]
    program = Program(PEERS.machine, tuple(PEERS.ops[number] for number in looking.trail()))
    if "request-is-eventually-cleared" not in judge(program, resolve(revision), expectations=False).broken:
        raise DisagreementError(f"{revision}: replaying SPIN's cycle does not break request-is-eventually-cleared")
    return (
        f"a cycle for both, explore's {ops} ops with its loop of {loop}, SPIN's {len(program.ops)}, which break it on "
        "xfdfuzz too"
    )
