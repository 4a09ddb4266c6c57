"""How the value of a result is held against what a real machine gave: not all of it is the same on every machine."""

from __future__ import annotations

from enum import Enum

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops import Op, guest, host, kvm, run, signals, tasks, xsave
from xfdfuzz.program.ops.ptrace import PtraceGetFpregs, PtraceGetXstate


class Value(Enum):
    """What a value is, and so how it is compared."""

    NUMBER = "the same number"
    #: The machine of the program and the real one may have different components: only those that the model's machine
    #: has (:func:`known_features`) are looked at, and of these only those that the real one has.
    FEATURES = "the same components, of those that both machines have"
    #: Processors may say that more is in use than was written (SDM vol. 1, 13.6).
    IN_USE = "at least these components in use"
    #: A sample of one component's contents (:mod:`.contents`).
    CONTENT = "the same contents"
    #: XSTATE_BV says only which components are not initial; one that is absent has its initial contents.
    IMAGE = "the same contents in each component that both machines have"
    FRAME = "both magics, the features as above; a size that is large enough"
    X87 = "the same contents of x87, SSE and MXCSR, as far as they were copied"


#: The kinds, by op; of other ops no value is looked at.
VALUES: dict[type[Op], Value] = {
    tasks.GetXcompSupp: Value.FEATURES,
    tasks.GetXcompPerm: Value.FEATURES,
    tasks.GetXcompGuestPerm: Value.FEATURES,
    tasks.UserXgetbv: Value.FEATURES,
    tasks.UserTilestore: Value.CONTENT,
    tasks.UserSttilecfg: Value.CONTENT,
    tasks.UserVextractf128: Value.CONTENT,
    tasks.UserRdpkru: Value.CONTENT,
    tasks.UserStmxcsr: Value.CONTENT,
    **dict.fromkeys((tasks.UserXsave, tasks.UserXsavec, tasks.UserFxsave), Value.IMAGE),
    signals.Signal: Value.IMAGE,
    signals.SignalNotOnstack: Value.IMAGE,
    signals.SigframeRead: Value.FRAME,
    PtraceGetXstate: Value.IMAGE,
    PtraceGetFpregs: Value.X87,
    kvm.KvmGetSupportedCpuid: Value.FEATURES,
    kvm.KvmGetDeviceAttr: Value.FEATURES,
    kvm.KvmGetMsrIndexList: Value.NUMBER,
    kvm.KvmSetCpuid2Supported: Value.FEATURES,
    kvm.KvmGetCpuid2: Value.FEATURES,
    kvm.KvmGetXcrs: Value.NUMBER,
    kvm.KvmGetMsrs: Value.NUMBER,
    xsave.KvmGetXsave: Value.IMAGE,
    xsave.KvmGetXsave2: Value.IMAGE,
    xsave.KvmGetFpu: Value.X87,
    run.HandleExit: Value.NUMBER,
    guest.GuestRdmsr: Value.NUMBER,
    guest.GuestXgetbv: Value.NUMBER,
    guest.GuestCpuid: Value.NUMBER,
    guest.GuestSttilecfg: Value.CONTENT,
    guest.GuestTilestore: Value.CONTENT,
    guest.GuestVextractf128: Value.CONTENT,
    guest.GuestStmxcsr: Value.CONTENT,
    guest.GuestFxsave: Value.IMAGE,
    guest.GuestXsave: Value.IMAGE,
    guest.GuestXsavec: Value.IMAGE,
    guest.GuestXsaves: Value.IMAGE,
    host.HostRdmsr: Value.NUMBER,
}
#: The component whose contents an op with Value.CONTENT stores.
STORED: dict[type[Op], int] = {
    tasks.UserVextractf128: xf.YMM,
    tasks.UserSttilecfg: xf.XTILE_CFG,
    tasks.UserTilestore: xf.XTILE_DATA,
    tasks.UserRdpkru: xf.PKRU,
    tasks.UserStmxcsr: xf.MXCSR,
    guest.GuestStmxcsr: xf.MXCSR,
    guest.GuestSttilecfg: xf.XTILE_CFG,
    guest.GuestTilestore: xf.XTILE_DATA,
    guest.GuestVextractf128: xf.YMM,
}


def value_of(op: Op) -> Value | None:
    """How the value of this op's result is compared, None if it is not."""
    if isinstance(op, guest.GuestXgetbv | tasks.UserXgetbv) and op.index:
        return Value.IN_USE
    return VALUES.get(type(op))


def known_features(machine: Machine) -> int:
    """The components that are the same question on a real machine: those of users that the model's machine has.

    PASID and CET are left out: kernels differ in them for reasons of their own.
    """
    features = xf.MASK_FPSSE | xf.MASK_YMM
    features |= xf.MASK_AVX512 if machine.avx512 else 0
    features |= xf.MASK_PKRU if machine.pku else 0
    return features | (xf.MASK_XTILE if machine.amx else 0)
