"""Mainline from v5.17 to v7.3 as a queue of patches; :data:`SERIES` is its order, as in quilt's file of that name.

Only what changes the behaviour of the modelled functions is here; the rest of the history comes with its revisions.
Each class names what the commit changed.  Commit ids were looked up, but for kvm-eexist-first.
"""

from __future__ import annotations

from xfdfuzz.revisions.mainline.cpuid import (
    CpuidProcessedAtCreation,
    CpuidUpdatedFirst,
    DeferredCpuid,
    FilteredXcr0,
    GuestCpuCaps,
    SameCpuidAfterRun,
    SystemAttribute,
)
from xfdfuzz.revisions.mainline.features import (
    Apx,
    ApxEnabled,
    ApxWithoutMpx,
    CetKernelGuestOnly,
    CetUser,
    Enqcmd,
    UserShadowStacks,
    XsavecInKernel,
)
from xfdfuzz.revisions.mainline.guest_fpu import ClearXstateBv, GuestAllocSize, GuestDefault, GuestXfeatures, UabiSize
from xfdfuzz.revisions.mainline.host import (
    ExecInvalidatesTask,
    IdleReleasesTiles,
    InitFpstateStatic,
    IrqFpuNotInLockedRegion,
    KthreadsHaveNoFpu,
    NoPasidForChildren,
    NoStatusOfKthreads,
    PermsInheritedUnlocked,
    XfdOnSignal,
    XfdStateInSync,
)
from xfdfuzz.revisions.mainline.kvm import (
    BugOnImbalance,
    CetXss,
    EexistFirst,
    EferInSregs,
    LoadFpuForMsrs,
    MpStateWithoutFpu,
    XfdErrNotByTs,
)
from xfdfuzz.revisions.mainline.permissions import PermAdds, PermKeepsSupervisor, PermSizeSupervisor
from xfdfuzz.revisions.mainline.pkru import (
    AllPkeysForFrame,
    PkruNeedsOspke,
    PtraceWritesPkru,
    SigframeHasPkru,
    SigframePkruAdded,
)
from xfdfuzz.revisions.mainline.protected import FpuIntoVmsa, SevEsType, TdxRestoresHost, TdxType
from xfdfuzz.revisions.mainline.sigframe import Magic2AtUserSize, Magic2AtXstateSize
from xfdfuzz.revisions.mainline.uabi import InitStatesZeroed, NoAddressInInitFpstate, OffsetsByXcompBv
from xfdfuzz.revisions.mainline.user_xfeatures import (
    AlwaysFpSse,
    GetXsaveLimited,
    LimitUserXfeatures,
    SupportedXcr0Again,
    UserXfeaturesAreSupported,
)
from xfdfuzz.revisions.queue import enqueue

#: Oldest first.
SERIES = (
    SameCpuidAfterRun,
    SystemAttribute,
    LimitUserXfeatures,
    UserXfeaturesAreSupported,
    NoPasidForChildren,
    Enqcmd,
    PermAdds,
    IrqFpuNotInLockedRegion,
    OffsetsByXcompBv,
    PermSizeSupervisor,
    XsavecInKernel,
    UabiSize,
    SupportedXcr0Again,
    AlwaysFpSse,
    IdleReleasesTiles,
    InitFpstateStatic,
    InitStatesZeroed,
    PermsInheritedUnlocked,
    PtraceWritesPkru,
    NoAddressInInitFpstate,
    FilteredXcr0,
    CetUser,
    UserShadowStacks,
    ExecInvalidatesTask,
    PkruNeedsOspke,
    GetXsaveLimited,
    XfdStateInSync,
    FpuIntoVmsa,
    SevEsType,
    AllPkeysForFrame,
    SigframeHasPkru,
    CpuidProcessedAtCreation,
    GuestCpuCaps,
    GuestAllocSize,
    Magic2AtUserSize,
    GuestXfeatures,
    XfdErrNotByTs,
    DeferredCpuid,
    PermKeepsSupervisor,
    SigframePkruAdded,
    Apx,
    ApxWithoutMpx,
    ApxEnabled,
    TdxRestoresHost,
    TdxType,
    KthreadsHaveNoFpu,
    GuestDefault,
    CetKernelGuestOnly,
    NoStatusOfKthreads,
    CetXss,
    LoadFpuForMsrs,
    MpStateWithoutFpu,
    XfdOnSignal,
    BugOnImbalance,
    CpuidUpdatedFirst,
    ClearXstateBv,
    Magic2AtXstateSize,
    EferInSregs,
    EexistFirst,
)
enqueue(SERIES)
