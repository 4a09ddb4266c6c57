"""Mainline from v5.17 to v7.3 as a queue of patches; :data:`SERIES` is its order, as in quilt's file of that name.

Only what changes the behaviour of the modelled functions is here; the rest of the history comes with its revisions.
Each class names what the commit changed.  Commit ids were looked up.
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
    LbrByXsave,
    NoSva,
    SvaAgain,
    UserShadowStacks,
    XsavecInKernel,
)
from xfdfuzz.revisions.mainline.guest_fpu import ClearXstateBv, GuestAllocSize, GuestDefault, GuestXfeatures, UabiSize
from xfdfuzz.revisions.mainline.host import (
    ChildBeginsWithZeros,
    ExecInvalidatesTask,
    IdleReleasesTiles,
    InitFpstateStatic,
    IrqFpuNotInLockedRegion,
    KernelFpuAllowed,
    KthreadsHaveNoFpu,
    NoPasidForChildren,
    NoStatusOfKthreads,
    PermsInheritedUnlocked,
    SoftirqsWaitForKernelFpu,
    XfdOnSignal,
    XfdStateInSync,
)
from xfdfuzz.revisions.mainline.kvm import (
    BugOnImbalance,
    CetOnSvm,
    CetXss,
    EexistFirst,
    EferInSregs,
    LoadFpuForMsrs,
    MpStateWithoutFpu,
    NmiInNoinstr,
    XfdErrNotByTs,
    XssOfGuestsWithXsaves,
)
from xfdfuzz.revisions.mainline.permissions import PermAdds, PermKeepsSupervisor, PermSizeSupervisor
from xfdfuzz.revisions.mainline.pkru import (
    AllPkeysForFrame,
    PkruNeedsOspke,
    PtraceWritesPkru,
    SigframeHasPkru,
    SigframePkruAdded,
)
from xfdfuzz.revisions.mainline.protected import (
    FpuIntoVmsa,
    GhcbXcr0Checked,
    GhcbXss,
    MsrsOfDefaultType,
    MsrsOfVmsa,
    SevEsType,
    TdxRestoresHost,
    TdxType,
    VmsaSyncedOnce,
)
from xfdfuzz.revisions.mainline.ptrace import ShstkRegset, SspGetIfActive
from xfdfuzz.revisions.mainline.sigframe import AltstackFirst, Magic2AtUserSize, Magic2AtXstateSize
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
    NmiInNoinstr,
    FilteredXcr0,
    CetUser,
    UserShadowStacks,
    ShstkRegset,
    ExecInvalidatesTask,
    PkruNeedsOspke,
    GetXsaveLimited,
    XfdStateInSync,
    FpuIntoVmsa,
    SevEsType,
    MsrsOfVmsa,
    MsrsOfDefaultType,
    LbrByXsave,
    AllPkeysForFrame,
    AltstackFirst,
    SigframeHasPkru,
    SspGetIfActive,
    CpuidProcessedAtCreation,
    GuestCpuCaps,
    GuestAllocSize,
    Magic2AtUserSize,
    GuestXfeatures,
    XfdErrNotByTs,
    DeferredCpuid,
    SoftirqsWaitForKernelFpu,
    PermKeepsSupervisor,
    SigframePkruAdded,
    Apx,
    ApxWithoutMpx,
    ApxEnabled,
    TdxRestoresHost,
    TdxType,
    KthreadsHaveNoFpu,
    ChildBeginsWithZeros,
    KernelFpuAllowed,
    GuestDefault,
    CetKernelGuestOnly,
    NoStatusOfKthreads,
    GhcbXcr0Checked,
    XssOfGuestsWithXsaves,
    CetXss,
    LoadFpuForMsrs,
    GhcbXss,
    CetOnSvm,
    MpStateWithoutFpu,
    XfdOnSignal,
    NoSva,
    SvaAgain,
    BugOnImbalance,
    CpuidUpdatedFirst,
    ClearXstateBv,
    VmsaSyncedOnce,
    Magic2AtXstateSize,
    EferInSregs,
    EexistFirst,
)
enqueue(SERIES)
