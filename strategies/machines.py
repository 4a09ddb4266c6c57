"""Machine set-ups to fuzz on, plainest first."""

from __future__ import annotations

from xfdfuzz.arch.machine import Machine

#: The default is there several times: it is the one that can do most.  ``amx_ignores_ts`` is not there: which #NM an
#: AMX instruction reports under CR0.TS is not settled (docs/fidelity.md).
MACHINES: tuple[Machine, ...] = (
    Machine(),
    Machine(cpus=2),
    Machine(dyn2=True),
    Machine(),
    Machine(mpx=True),
    Machine(cpus=2, dyn2=True),
    Machine(debug_fpu=True),
    Machine(),
    Machine(cet=True),
    Machine(xfd=False),
    Machine(amx=False),
    Machine(),
    Machine(xsave=False),
    Machine(cpus=4, pasid=False),
    Machine(avx512=False, pku=False),
    Machine(dense=True),
)
