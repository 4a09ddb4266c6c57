"""Ops that do as well as another one, as often as not, and are plainer: a rough order among ops of different kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache

from xfdfuzz.program.ops.base import OPS, Op
from xfdfuzz.program.ops.guest import (
    GuestCpuid,
    GuestHlt,
    GuestInterrupt,
    GuestOut,
    GuestRdmsr,
    GuestVmlaunch,
    GuestVmlaunchNm,
    GuestWrmsr,
    GuestXsetbv,
)
from xfdfuzz.program.ops.kvm import KvmGetMpState, KvmGetSupportedCpuid, KvmSetCpuid2Supported
from xfdfuzz.program.ops.run import KvmRun
from xfdfuzz.program.ops.tasks import ReturnToUser, UserTileload, UserTilestore

#: VM exits that something is left to handle after; an interrupt is one that leaves nothing.
EXITS = (GuestCpuid, GuestOut, GuestRdmsr, GuestVmlaunch, GuestVmlaunchNm, GuestWrmsr, GuestXsetbv)

_OF_ANOTHER_KIND: dict[type[Op], type[Op]] = {
    **dict.fromkeys(EXITS, GuestInterrupt),
    GuestInterrupt: GuestHlt,
    UserTilestore: UserTileload,
    KvmGetMpState: KvmRun,
    KvmSetCpuid2Supported: KvmGetSupportedCpuid,
}


@cache
def plainer_classes(name: str) -> list[type[Op]]:
    """The classes to try in place of one, by its name, the boldest first: never in a circle."""
    cls = OPS[name]
    return [*_of_another_kind(cls), *_of_its_kind(cls)]


def _of_another_kind(cls: type[Op]) -> Iterator[type[Op]]:
    if cls.__module__ == ReturnToUser.__module__ and cls is not ReturnToUser:
        yield ReturnToUser
    if cls in _OF_ANOTHER_KIND:
        yield _OF_ANOTHER_KIND[cls]


def _of_its_kind(cls: type[Op]) -> list[type[Op]]:
    """Those that take less, or as much and are defined before it, and nothing of another type by the same name."""
    found = [
        other
        for other in OPS.values()
        if (other.__module__, other.__base__) == (cls.__module__, cls.__base__) and _alike(other, cls)
    ]
    # last what does not mean the same on every revision
    found.sort(key=lambda other: (other is KvmSetCpuid2Supported, len(fields(other))))  # type: ignore[arg-type]
    return found[: found.index(cls)]


def _alike(one: type[Op], other: type[Op]) -> bool:
    """Whether the fields that they share by name are of the same types."""
    types = {f.name: f.type for f in fields(one)}  # type: ignore[arg-type]
    return all(types.get(f.name, f.type) == f.type for f in fields(other))  # type: ignore[arg-type]
