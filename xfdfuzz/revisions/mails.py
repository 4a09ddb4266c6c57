"""Which revision models the series that a mail belongs to, by its Message-Id and by what it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser

from xfdfuzz.revisions.table import NAMED

#: How git numbers the mails of a series: the cover letter is ``<date>.<process>-1-<author>``.
_NUMBERED = re.compile(r"(\d+\.\d+)-1-(.+)")


def revision_of_mail(mail: bytes) -> str | None:
    """The name of the revision whose source is the series of the mail, or the thread that it answers to.

    None if that is not modelled; of several, the first one.  A series from outside has to be loaded.
    """
    for identity in _identities(BytesHeaderParser().parsebytes(mail)):
        for name, about in NAMED.items():
            if _in_series(identity, about.source):
                return name
    return None


def _identities(mail: Message) -> Iterator[str]:
    """Its own, then those of the mails that it answers to, the nearest first."""
    for header in ("Message-Id", "In-Reply-To", "References"):
        yield from reversed(re.findall(r"<([^<>\s]+)>", str(mail.get(header, ""))))


def _in_series(identity: str, source: str) -> bool:
    numbered = _NUMBERED.fullmatch(source)
    if numbered is None:
        return identity == source
    start, author = map(re.escape, numbered.groups())
    return re.fullmatch(rf"{start}-\d+-{author}", identity) is not None
