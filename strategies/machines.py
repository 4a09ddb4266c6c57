"""Machine set-ups to fuzz on, plainest first."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.machine import Machine

#: XINUSE of large components alone, which may need no tracking; and of all, "on a processor that does not support the
#: init optimization" (SDM vol. 1, 13.6).
_EXTENDED = xf.U64_MAX & ~(xf.MASK_FPSSE | xf.MASK_PKRU)
#: The switches that change what a guest can do, or what the layout of an image hides; two of them often matter
#: together.  ``amx_ignores_ts`` is not there: which #NM an AMX instruction reports under CR0.TS is not settled
#: (docs/fidelity.md).
_SWITCHES: tuple[dict[str, Any], ...] = (
    {"cpus": 2},
    {"dyn2": True},
    {"dense": True},
    {"cet": True},
    {"lbr": True},
    {"mpx": True},
    {"debug_fpu": True},
    {"rt": True},
    # AMD's without protection keys are those before Zen 3
    {"pku": False, "fxsave_leak": True},
    {"avx512": False},
    {"exact_sse": True},
    {"in_use": _EXTENDED},
)
#: Without one of these there is little to do.
_LACKS: tuple[dict[str, Any], ...] = (
    {"pasid": False},
    {"amx": False},
    {"xfd": False},
    {"xfd": False, "cet": True},
    {"xsave": False, "fxsave_leak": True},
    {"xsaves": False},
    {"xsaves": False, "xsavec": False, "xgetbv1": False, "fxsave_leak": True},
    {"avx": False, "mpx": True, "in_use": xf.MASK_MPX},
    {"in_use": xf.MASK_PKRU},
    {"in_use": xf.U64_MAX},
    {"nopku": True},
    {"strict_sas_size": True},
    {"apx": True},
    {"amx_ud_first": True},
    {"cet": True, "cet_kernel": False},
    {"lbr": True, "lbr_xsaves": False},
    {"cpus": 4},
    {"amx": False, "pku": False, "avx512": False},
    # an Atom: x87 and SSE alone
    {"avx": False, "pku": False, "xfd": False, "amx": False},
    {"amd": True, "cet": True},
    # AMD's family 15h
    {
        "amd": True,
        "xsaves": False,
        "xsavec": False,
        "xgetbv1": False,
        "avx512": False,
        "pku": False,
        "fxsave_leak": True,
    },
)
_PLAIN = (Machine(), Machine(cpus=2), Machine(dyn2=True), Machine(cpus=2), Machine(cpus=2, dyn2=True), Machine(cpus=2))

#: A third of them can do everything; every pair of switches comes once.
MACHINES: tuple[Machine, ...] = (
    *_PLAIN,
    *(Machine(**switch) for switch in (*_SWITCHES, *_LACKS)),
    *_PLAIN * 3,
    *(Machine(**{"cpus": 2, **lack}) for lack in _LACKS),
    *(Machine(**one, **other) for one, other in combinations(_SWITCHES, 2)),
)
