"""What user threads do: system calls and instructions."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.ops import host, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import targets


class SyscallRules(Rules):
    """What user threads do: system calls and instructions."""

    SHARE = 3

    arch_get_xcomp_supp = one(tasks.GetXcompSupp, on="tasks")
    arch_get_xcomp_perm = one(tasks.GetXcompPerm, on="tasks")
    arch_get_xcomp_guest_perm = one(tasks.GetXcompGuestPerm, on="tasks")
    arch_req_xcomp_perm = one(tasks.ReqXcompPerm, on="tasks")
    arch_req_xcomp_guest_perm = one(tasks.ReqXcompGuestPerm, on="tasks")
    sigaltstack = one(tasks.Sigaltstack, on="tasks")
    return_to_user = one(tasks.ReturnToUser, on="tasks")
    user_fld = one(tasks.UserFld, on="tasks")
    user_movups = one(tasks.UserMovups, on="tasks")
    user_ldmxcsr = one(tasks.UserLdmxcsr, on="tasks")
    user_stmxcsr = one(tasks.UserStmxcsr, on="tasks")
    user_vmovups = one(tasks.UserVmovups, on="tasks")
    user_ldtilecfg = one(tasks.UserLdtilecfg, on="tasks")
    user_tileload = one(tasks.UserTileload, on="tasks")
    user_wrpkru = one(tasks.UserWrpkru, on="tasks")
    user_tilestore = one(tasks.UserTilestore, on="tasks")
    user_xgetbv = one(tasks.UserXgetbv, on="tasks")
    user_getauxval = one(tasks.UserGetauxval, on="tasks")
    user_tilerelease = one(tasks.UserTilerelease, on="tasks")
    user_dyn2load = one(tasks.UserDyn2load, on="dyn2_tasks")
    user_mov_egpr = one(tasks.UserMovEgpr, on="apx_tasks")
    open_dsa = one(tasks.OpenDsa, on="pasid_tasks")
    user_enqcmd = one(tasks.UserEnqcmd, on="pasid_tasks")
    perf_event_open = one(tasks.PerfEventOpen, on="lbr_tasks")
    user_call = one(tasks.UserCall, on="lbr_tasks")
    shstk_enable = one(tasks.ShstkEnable, on="cet_tasks")
    shstk_lock = one(tasks.ShstkLock, on="cet_tasks")
    shstk_unlock = one(tasks.ShstkUnlock, on="cet_tasks")
    shstk_status = one(tasks.ShstkStatus, on="cet_tasks")
    shstk_disable = one(tasks.ShstkDisable, on="cet_tasks")
    user_xsave = one(tasks.UserXsave, on="long_mode")
    user_xsavec = one(tasks.UserXsavec, on="long_mode")
    user_fxsave = one(tasks.UserFxsave, on="long_mode")
    user_fxrstor = one(tasks.UserFxrstor, on="long_mode")
    user_vextractf128 = one(tasks.UserVextractf128, on="tasks")
    user_sttilecfg = one(tasks.UserSttilecfg, on="tasks")
    user_tilezero = one(tasks.UserTilezero, on="tasks")
    user_rdpkru = one(tasks.UserRdpkru, on="tasks")
    user_cpuid = one(tasks.UserCpuid, on="tasks")
    user_xrstor = one(tasks.UserXrstor, on="long_mode")

    @on("lbr_tasks", n=targets, other=targets)
    def perf_event_close(self, n: int, other: int) -> Iterator[Op]:
        """A thread is profiled no longer, and the one that it took turns with on its CPU is sampled then."""
        task = self.choice("lbr_tasks", n)
        cpu = self.now.current.index(task)
        if (another := self.another(cpu, other)) is None:
            yield tasks.PerfEventClose(task)
            return
        yield host.Schedule(cpu, another)
        yield host.Schedule(cpu, task)
        yield tasks.PerfEventClose(task)
        yield host.Schedule(cpu, another)
        yield host.Pmi(cpu)
