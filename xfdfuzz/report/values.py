"""How a number of the modelled system reads, by the kind of its field."""

from __future__ import annotations

from collections.abc import Callable

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.kinds import REGISTER_INDEX, REGISTER_VALUE, TOKEN, XFD, XFEATURES, Enumeration, Kind, Mask, Reference
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import fpstate_name, task_name
from xfdfuzz.program.ghost import content, tenant_name


def text(kind: Kind, value: int) -> str:
    """The value as reports write it; a number where nothing is known that says more."""
    if isinstance(kind, Enumeration):
        return kind.names.get(value, str(value))
    return _TEXTS.get(kind, str)(value)


def _components(mask: int) -> str:
    locked = mask & st.FPU_GUEST_PERM_LOCKED
    names = xf.format_mask(mask & ~locked)
    return f"{names}, locked" if locked else names


def _vms(mask: int) -> str:
    return "|".join(f"vm{nr}" for nr in range(st.NR_VMS) if mask >> nr & 1) or "0"


def _plus_1(name: Callable[[int], str], none: str) -> Callable[[int], str]:
    return lambda value: name(value - 1) if value else none


_KEPT = {
    **dict(enumerate(("xcr0", "image", "fpu", "xfd", "xfd_err", "xss", "u_cet", "pl0_ssp"))),
    **dict(enumerate(("s_cet", "pl1_ssp", "pl2_ssp", "pl3_ssp", "int_ssp_tab", "ssp"), 11)),
}


def _kept(mask: int) -> str:
    return "|".join(name for bit, name in _KEPT.items() if mask >> bit & 1) or "0"


_vcpu = "v{}".format
_TEXTS: dict[Kind, Callable[[int], str]] = {
    XFEATURES: _components,
    XFD: hex,
    REGISTER_INDEX: hex,
    REGISTER_VALUE: hex,
    Mask("vm"): _vms,
    TOKEN: content,
    Reference("cpu", 1): _plus_1("cpu{}".format, "none"),
    Reference("task"): task_name,
    Reference("task", 1): _plus_1(task_name, "NULL"),
    Reference("vcpu"): _vcpu,
    Reference("vcpu", 1): _plus_1(_vcpu, "NULL"),
    Reference("vm"): "vm{}".format,
    Reference("tenant", 1): _plus_1(tenant_name, "its own"),
    Mask("kept thing"): _kept,
    Reference("fpstate"): fpstate_name,
}
