"""`xfdfuzz field --emit`: a relation as an invariant, with its test."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import common_options, positive
from xfdfuzz.cli.exits import BadInput
from xfdfuzz.cli.skeleton import Place, add_places, check_invariant

if TYPE_CHECKING:
    from xfdfuzz.engines.review.biography import Biography
    from xfdfuzz.engines.review.space import Space


def add_emit(command: argparse.ArgumentParser) -> None:
    """The options."""
    command.add_argument("--emit", metavar="NAME", help="write a relation as an invariant, with its test")
    more = common_options(command)
    more.add_argument("--relation", type=positive, default=1, metavar="N", help="which one, by its number (1)")
    add_places(more)


def wanted(args: argparse.Namespace) -> Place | None:
    """Where the invariant goes, if one is wanted."""
    if args.emit is None:
        return None
    check_invariant(args.emit)
    return Place.of(args, args.emit)


def emit(place: Place, found: Biography, space: Space, number: int) -> None:
    """Write the relation with that number; raises BadInput for one that does not hold, or that nothing breaks."""
    from xfdfuzz.engines.review.promise import NoPromiseError, promise
    from xfdfuzz.report.promise import words

    if number > len(found.relations):
        raise BadInput(f"relation {number}: there are {len(found.relations)} of {found.subject.path}")
    known = found.relations[number - 1]
    if known.broken:
        raise BadInput(f"relation {number} does not hold: see xfdfuzz field {found.subject.path}")
    try:
        made = promise(known.mined, found.subject, space)
    except NoPromiseError as error:
        raise BadInput(f"{error}; xfdfuzz new invariant {place.name} begins one by hand") from None
    place.write("relation", words(made, found.held(known)))
