"""Revisions: named kernels.  A revision is a base plus a queue of patches."""

from xfdfuzz.revisions.cured import findings_of
from xfdfuzz.revisions.labels import Revision, base_of, find, resolve, stands_for, with_stack
from xfdfuzz.revisions.outside import load_entries, series_files
from xfdfuzz.revisions.queue import PATCHES, PROPOSED, Patch, RevisionError, UnknownRevision, in_order
from xfdfuzz.revisions.ranges import concerns, lines, posted_between, queue_between, selects
from xfdfuzz.revisions.series import Series
from xfdfuzz.revisions.table import ALIASES, family, names

__all__ = [
    "ALIASES",
    "PATCHES",
    "PROPOSED",
    "Patch",
    "Revision",
    "RevisionError",
    "Series",
    "UnknownRevision",
    "base_of",
    "concerns",
    "family",
    "find",
    "findings_of",
    "in_order",
    "lines",
    "load_entries",
    "names",
    "posted_between",
    "queue_between",
    "resolve",
    "selects",
    "series_files",
    "stands_for",
    "with_stack",
]
