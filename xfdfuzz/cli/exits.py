"""Exit codes, and the one line that says what was wrong."""

from __future__ import annotations

import sys
from contextlib import suppress

CLEAN, VIOLATION, BAD_INPUT, NOT_JUDGED, SKIPPED = range(5)

EXIT_CODES = """\
exit codes:
  0  clean; replay: every expectation holds or, without one, there is no violation;
     matrix: every expectation holds; explore: nothing can be broken in what was
     covered; bisect: found and verified; diff: no difference; conform: nothing
     different, no violation that is not known; corpus: added, all checks hold;
     baseline: done, check: all entries show; field, warnings: told, whatever it is
  1  a violation that is not known, or a known one that has expired (fuzz, explore);
     an entry that does not show, or has expired (baseline check); an expectation that
     fails (replay, matrix), or a violation without one (replay); a difference (diff),
     one that is not explained, or a violation that is not known (conform); a program
     that is refused, fails a check, or could be pruned in a dry run (corpus)
  2  usage or bad input: an unknown revision, commit, scope, invariant or profile, a
     broken or contradictory program, an unreadable file or directory, a directory that
     cannot be saved to, a file that cannot be written, a file that new would
     overwrite, a name that explain or field does not know, a missing extra, a broken file
     or package of invariants or of a series, a broken recording or frontier
  3  could not judge: interrupted (with findings, too), workers that do nothing but
     die, a cluster that cannot be used, out of time or memory (explore), nothing
     executed or compared, a finding that could not be saved or that a fresh process
     does not confirm, a change that bisect does not find or cannot verify, a package
     that is missing (doctor), the
     output could not be written, internal error
  4  skipped: the mail on standard input (--revision -) belongs to no series that
     is modelled
the highest one wins when there are several
"""


class BadInput(Exception):
    """What the user gave cannot be used; as text it is one line that says why."""


class NotModelled(Exception):
    """A mail belongs to no series that is modelled; ``mail`` is its Message-Id."""

    def __init__(self, mail: str) -> None:
        super().__init__(f"no revision models the series of the mail {mail}")
        self.mail = mail


def complain(message: str, code: int) -> int:
    """Print the line; returns ``code``."""
    with suppress(OSError):
        print(f"xfdfuzz: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def reason(error: OSError) -> str:
    """What went wrong, and with which file."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
