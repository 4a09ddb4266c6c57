"""Which revisions have code that assigns to a field, by the name of the member.

Where two structs have a member of one name, an assignment counts for both; a field's biography observes who writes
to it (:mod:`~xfdfuzz.engines.review.accesses`).
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable, Mapping
from types import CodeType

from xfdfuzz.engines.review.sites import executable
from xfdfuzz.kernel.fields import Field
from xfdfuzz.revisions import Revision


def writing(revisions: Iterable[Revision]) -> Mapping[str, frozenset[str]]:
    """The names of the members that the code of each revision assigns to, by its label."""
    return {
        revision.label: frozenset().union(*(assigned(function.__code__) for function in executable(revision.kernel)))
        for revision in revisions
    }


def member_of(field: Field) -> str:
    """The name of the attribute that a field is."""
    return field.member.rpartition(".")[2]


@functools.cache
def assigned(code: CodeType) -> frozenset[str]:
    """What a function assigns to, the functions inside it too."""
    inner = [assigned(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(one.argval for one in dis.get_instructions(code) if one.opname == "STORE_ATTR").union(*inner)
