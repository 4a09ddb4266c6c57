"""A finding as a mail to those who maintain the code: ASCII in 72 columns, with a program that replays from it.

Every sentence is true of these runs, or is not there.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata

from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import INVARIANTS, Violation
from xfdfuzz.program import mail
from xfdfuzz.program.ops.host import FailAlloc
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_op, format_program
from xfdfuzz.report import because
from xfdfuzz.report.because import MANY
from xfdfuzz.report.folding import Folding
from xfdfuzz.report.page.runs import Finding, Run
from xfdfuzz.revisions import Revision, find

#: What is said instead of a mail about what may be a vulnerability.
REMINDER = (
    "no mail: this may be a vulnerability of a current kernel. SECURITY.md says whom to write to first; "
    "--i-have-reported-it gives the text"
)


def text(found: Finding, others: Sequence[Run]) -> str:
    """The mail about the violation at which a page would open; ``others`` are the runs on other kernels.

    Raises ValueError where nothing is broken.
    """
    violation = found.main
    if violation is None:
        raise ValueError("nothing is broken")
    run = found.chosen
    parts = [
        headers(run.verdict.revision, f"{run.name}: {violation.bucket}"),
        wrapped(f"xfdfuzz checked a model of {_kernel(run.verdict.revision)} and found:"),
        wrapped(f"{violation.invariant}: {violation.message}", "  "),
        wrapped(INVARIANTS[violation.invariant].doc),
        wrapped(_reproducer(found.program)),
        "\n".join(_steps(run, violation)),
        _because(run, violation),
        _elsewhere(found.program, others),
        _caveats(found.program),
        _how(found),
        "If you fix it, please add:\n  Reported-by: <name and address of the sender>\n"
        "  Closes: https://lore.kernel.org/r/<Message-Id of this mail>",
        f"{mail.ABOVE} {found.file.name}\n{mail.folded(format_program(found.program))}{mail.BELOW}",
        f"-- \nxfdfuzz {version()}, bucket {violation.bucket}",
    ]
    whole = "\n\n".join(part for part in parts if part) + "\n"
    return whole.encode("ascii", "backslashreplace").decode()


def headers(revision: Revision, subject: str) -> str:
    """Those of an answer to the posting of a series, or of a mail about another kernel with that subject."""
    posted = "@" in revision.source
    subject = f"Re: {revision.title}" if posted else subject
    return "\n".join(
        [
            f"To: <{'the author of the series' if posted else 'as scripts/get_maintainer.pl says'}>",
            "Cc: kvm@vger.kernel.org, linux-kernel@vger.kernel.org",
            *([f"In-Reply-To: <{revision.source}>"] if posted else []),
            textwrap.shorten(f"Subject: {subject}", mail.WIDTH, placeholder=" ..."),
        ]
    )


def _kernel(revision: Revision) -> str:
    name = f"this series as posted ({revision.name})" if "@" in revision.source else f"Linux {revision.name}"
    for word, commits in (("with", revision.applied), ("without", revision.reverted)):
        name += "".join(f' {word} {commit} ("{find(commit).title}")' for commit in commits)
    return name


def _reproducer(program: Program) -> str:
    kinds = {"t": "task", "v": "vCPU"}
    named = {name for op in program.ops for name in re.findall(r"\b[tv]\d\b", format_op(op))}
    actors = Counter(name[0] for name in named)
    of = ", ".join(f"{count} {kinds[kind]}{'s' * (count > 1)}" for kind, count in sorted(actors.items()))
    return f"Reproducer ({of or 'no task'}, {program.machine.cpus} CPU{'s' * (program.machine.cpus > 1)}):"


def _steps(run: Run, violation: Violation) -> Iterator[str]:
    """Up to where it is broken: the ops with their results, and what of their changes matters."""
    reasons = run.because.get(violation, ())
    folding = Folding(run.verdict.trace, {violation: reasons}, lambda item: violation in item.violations)
    for item in run.verdict.trace:
        if item.step is None:
            yield wrapped("at the end, when all that was pending has come to its end:", "  ")
        else:
            yield wrapped(f"{item.step.number:3}  {format_op(item.step.op)} = {item.step.result}", "", "       ")
            named, _ = folding.changes(item) if reasons else ([], 0)
            yield from _reports(item)
            yield from (wrapped(f"{one.path}  {one.before} -> {one.after}", " " * 7, " " * 9) for one in named)
        if violation in item.violations:
            said = violation.message
            for event in item.step.events if item.step else ():  # which stands above
                said = said.replace(" <- ".join(event.trace), event.trace[0])
            yield wrapped(f"! {violation.invariant}: {said}", " " * 7, " " * 9)
            return


def _reports(item: Judged) -> Iterator[str]:
    """What the kernel reported, its call trace below it."""
    for event in item.step.defects if item.step else ():
        yield f"       {event.kind} in {event.trace[0]}"
        yield from (f"         {name}" for name in event.trace[1:])


def _because(run: Run, violation: Violation) -> str:
    reasons = run.because.get(violation, ())[:MANY]
    rows = [because.words(reason, violation.step) for reason in reasons]
    return "\n".join(["Because:", "", *(wrapped(f"{row}", "  ", "    ") for row in rows)]) if rows else ""


def _elsewhere(program: Program, others: Sequence[Run]) -> str:
    """What the same program does on other kernels, those together that do the same."""
    if not others:
        return ""
    same: dict[str, list[str]] = {}
    for run in others:
        same.setdefault(_verdict(run), []).append(run.name)
    parts = ["The same program on other kernels:"]
    parts += [f"{wrapped(' '.join(names), '  ')}\n{wrapped(said, '      ')}" for said, names in same.items()]
    for commits, done in ((program.apply, "added to those that lack it"), (program.revert, "left out of all")):
        parts += [wrapped(f"{commit} is {done}.") for commit in commits]
    return "\n\n".join(parts)


def _verdict(run: Run) -> str:
    if run.verdict.broken:
        return f"violates {', '.join(run.verdict.broken)}"
    if not run.verdict.happened:
        return "nothing of it can happen there"
    partly = run.verdict.left_out or windows.missed(run.verdict.trace)
    return "clean as far as it goes there" if partly else "clean"


def _caveats(program: Program) -> str:
    injected = [f"step {nr}" for nr, op in enumerate(program.ops, 1) if isinstance(op, FailAlloc)]
    said = [f"Faults injected: allocations are made to fail ({', '.join(injected)})."] if injected else []
    said += ["Not run on hardware, and not on the compiled kernel.", f"The {_machine(program)} is the only one tried."]
    said += ["A model can be wrong: if it reads the code wrongly, please say so."]
    return wrapped(" ".join(said))


def _machine(program: Program) -> str:
    return " ".join(("machine", *program.machine.words())).replace("machine ", "machine of this program (", 1) + ")"


def _how(found: Finding) -> str:
    name = found.file.name
    return "\n".join(
        [
            "To see it again, with xfdfuzz installed:",
            "",
            "  b4 mbox -o - <Message-Id of this mail> | xfdfuzz replay -",
            "",
            "and on a series of your own, with the program in a file:",
            "",
            *(f"  {line}" for line in _command(name)),
        ]
    )


def _command(name: str) -> Iterator[str]:
    line = f"xfdfuzz replay {name} --revision my_series.py"
    if len(line) + 2 <= mail.WIDTH:
        yield line
    else:
        yield "xfdfuzz replay --revision my_series.py \\"
        yield f"  {name}"


def version() -> str:
    """That of xfdfuzz."""
    try:
        return metadata.version("xfdfuzz")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a checkout


def wrapped(said: str, indent: str = "", below: str | None = None) -> str:
    """In lines of a mail, so far in, those below the first one as far as is said."""
    rows = textwrap.wrap(
        said,
        mail.WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if below is None else below,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(rows)
