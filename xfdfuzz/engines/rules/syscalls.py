"""What user threads do: system calls and instructions."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.fields import Undefined
from xfdfuzz.program.ops import tasks
from xfdfuzz.strategies.values import flags, picks, targets, tokens


class SyscallRules(Rules):
    """What user threads do: system calls and instructions."""

    SHARE = 3

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_supp(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_SUPP."""
        self.do(tasks.GetXcompSupp(self.task(n), null))

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_perm(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_PERM."""
        self.do(tasks.GetXcompPerm(self.task(n), null))

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_guest_perm(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_GUEST_PERM."""
        self.do(tasks.GetXcompGuestPerm(self.task(n), null))

    @on("tasks", n=targets, facility=picks)
    def arch_req_xcomp_perm(self, n: int, facility: int) -> None:
        """ARCH_REQ_XCOMP_PERM."""
        self.do(tasks.ReqXcompPerm(self.task(n), self.domains.facility.value(facility)))

    @on("tasks", n=targets, facility=picks, undefined=flags)
    def arch_req_xcomp_guest_perm(self, n: int, facility: int, undefined: bool) -> None:
        """ARCH_REQ_XCOMP_GUEST_PERM."""
        garbage = Undefined(7 if undefined else 0)
        self.do(tasks.ReqXcompGuestPerm(self.task(n), self.domains.facility.value(facility), garbage))

    @on("tasks", n=targets, size=picks)
    def sigaltstack(self, n: int, size: int) -> None:
        """sigaltstack()."""
        self.do(tasks.Sigaltstack(self.task(n), self.domains.altstack.value(size)))

    @on("tasks", n=targets)
    def return_to_user(self, n: int) -> None:
        """Back to user mode."""
        self.do(tasks.ReturnToUser(self.task(n)))

    @on("tasks", n=targets, token=tokens)
    def user_vmovups(self, n: int, token: int) -> None:
        """AVX in user mode."""
        self.do(tasks.UserVmovups(self.task(n), token))

    @on("tasks", n=targets, token=tokens)
    def user_ldtilecfg(self, n: int, token: int) -> None:
        """LDTILECFG in user mode."""
        self.do(tasks.UserLdtilecfg(self.task(n), token))

    @on("tasks", n=targets, token=tokens)
    def user_tileload(self, n: int, token: int) -> None:
        """TILELOADD in user mode."""
        self.do(tasks.UserTileload(self.task(n), token))

    @on("tasks", n=targets, token=targets)
    def user_wrpkru(self, n: int, token: int) -> None:
        """WRPKRU."""
        self.do(tasks.UserWrpkru(self.task(n), token))

    @on("tasks", n=targets)
    def user_tilestore(self, n: int) -> None:
        """TILESTORED in user mode."""
        self.do(tasks.UserTilestore(self.task(n)))

    @on("tasks", n=targets, inuse=flags)
    def user_xgetbv(self, n: int, inuse: bool) -> None:
        """XGETBV in user mode."""
        self.do(tasks.UserXgetbv(self.task(n), int(inuse)))

    @on("tasks", n=targets)
    def user_tilerelease(self, n: int) -> None:
        """TILERELEASE in user mode."""
        self.do(tasks.UserTilerelease(self.task(n)))

    @on("dyn2_tasks", n=targets, token=tokens)
    def user_dyn2load(self, n: int, token: int) -> None:
        """The synthetic feature in user mode."""
        self.do(tasks.UserDyn2load(self.task(n), token))

    @on("tasks", n=targets, mask=picks)
    def user_xsave(self, n: int, mask: int) -> None:
        """XSAVE in user mode."""
        self.do(tasks.UserXsave(self.task(n), self.domains.xfeatures.value(mask)))
