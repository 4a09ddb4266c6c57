"""Commit ids as people write them."""

from __future__ import annotations

import re


def is_meant(known: str, given: str) -> bool:
    """Whether ``given`` means the commit that is cited as ``known``, with 12 digits: 6 of them, or more than it has."""
    if len(given) < 6:
        return False
    whole = re.fullmatch(r"[0-9a-f]{12}", known) and re.fullmatch(rf"{known}[0-9a-f]{{,28}}", given)
    return known.startswith(given) or bool(whole)
