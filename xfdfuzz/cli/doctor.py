"""`xfdfuzz doctor`: what is installed, what could be, and whether this computer can run guests."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import re
import sys
from collections.abc import Iterator
from fcntl import ioctl
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, complain

_KVM = Path("/dev/kvm")
_KVM_GET_API_VERSION, _API_VERSION = 0xAE00, 12


class Fact(NamedTuple):
    """A thing, its state, and more about it.  ``needed``: nothing works without it."""

    name: str
    state: str
    detail: str
    needed: bool = False


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "doctor", _doctor, "say what is installed, what could be, and whether /dev/kvm can be used")


def _doctor(args: argparse.Namespace) -> int:
    from xfdfuzz.report.console import console, table, write

    facts = [*_this(), *_packages(), _kvm(), _amx()]
    if args.format == "json":
        for fact in facts:
            write(fact._asdict(), sys.stdout)
    else:
        table(console(sys.stdout), ("what", "state", "more"), [fact[:3] for fact in facts])
    missing = [fact.name for fact in facts if fact.needed and fact.state == "missing"]
    return complain(f"cannot work without {', '.join(missing)}", NOT_JUDGED) if missing else CLEAN


def _this() -> Iterator[Fact]:
    yield Fact("Python", platform.python_version(), sys.executable, needed=True)
    yield Fact("system", platform.release(), f"{platform.system()}, {platform.machine()}")


def _packages() -> Iterator[Fact]:
    """This package, what it needs, and what its extras need, by what it says itself."""
    home = str(Path(__file__).parent.parent)
    try:
        yield Fact("xfdfuzz", metadata.version("xfdfuzz"), home, needed=True)
        required = metadata.requires("xfdfuzz") or []
    except metadata.PackageNotFoundError:
        yield Fact("xfdfuzz", "unknown", f"{home}; not installed, so what it needs is not known", needed=True)
        return
    for text in required:
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
        if name is not None:
            yield _package(name[0], extra[1] if extra else "")


def _package(name: str, extra: str) -> Fact:
    of = f"for the extra {extra}" if extra else ""
    try:
        return Fact(name, metadata.version(name), of, needed=not extra)
    except metadata.PackageNotFoundError:
        wanted = f"xfdfuzz[{extra}]" if extra else name
        return Fact(name, "missing", f"{f'{of}: ' if of else ''}pip install '{wanted}'", needed=not extra)


# -- guests ------------------------------------------------------------------------------------------------------------


def _kvm() -> Fact:
    """Only recordings of real kernels need it (docs/conform.md)."""
    try:
        device = os.open(_KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Fact(str(_KVM), "unusable", f"{_why_not(error)}; only to record real kernels")
    try:
        version = ioctl(device, _KVM_GET_API_VERSION)
    except OSError as error:
        return Fact(str(_KVM), "unusable", f"KVM_GET_API_VERSION: {error.strerror}")
    finally:
        os.close(device)
    if version != _API_VERSION:
        return Fact(str(_KVM), "unusable", f"API version {version}, expected {_API_VERSION}")
    return Fact(str(_KVM), "usable", f"API version {version}")


def _why_not(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied: ask for the group kvm"
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "not there: no module kvm_intel or kvm_amd, or no virtualisation"
    return error.strerror or str(error)


def _amx() -> Fact:
    """By the flags that the kernel shows."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return Fact("AMX", "unknown", f"/proc/cpuinfo: {error.strerror}")
    has = re.search(r"^flags\s*:.*\bamx_tile\b", flags, re.MULTILINE)
    return Fact("AMX", "yes" if has else "no", "of this processor; the model needs none")
