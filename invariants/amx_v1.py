"""amx-v1 and the review's alternatives: the life of a reallocation request.

The request stands in struct fpu_guest in amx-v1 and in vcpu->arch in the alternatives; the design of each promises
when it is cleared.
"""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.program.ops.base import makers
from xfdfuzz.program.ops.kvm import KvmSetMsrs, KvmSetXcrs
from xfdfuzz.program.ops.run import HandleExit, KvmRun, KvmRunReturns, VmEnter

_LAZY = ("amx-v1", "amx-review-a", "amx-review-b")


def request(vcpu: Vcpu) -> int:
    """The components whose reallocation is asked for."""
    return vcpu.arch.guest_fpu.realloc_request | vcpu.arch.xfd_realloc_request


@invariant("no-realloc-on-enter", "warn", ("INV-01", "REQ"), ops=(KvmRun,), revisions=("amx-v1",))
def no_realloc_on_enter(view: View) -> Iterator[Broken]:
    """fpu_swap_kvm_fpstate(enter_guest = true) can serve no request: it warns, throws the request away and returns an
    error that nobody looks at.  User space gets there with KVM_SET_MSRS before KVM_RUN."""
    nr = view.vcpu_nr
    pending = request(view.before.vcpus[nr])
    if pending and view.step.result.ret == "ok":
        yield Broken(f"v{nr} enters KVM_RUN with a request for {xf.format_mask(pending)}")


@invariant("request-is-not-stale", "abi", ("INV-02", "REQ"), state=True, revisions=_LAZY)
def request_is_not_stale(view: View) -> Iterator[Broken]:
    """A request names only components that have no room yet: a stale one reallocates the buffer for nothing, again and
    again, and clears XFD bits that the guest has set since."""
    for nr, vcpu in view.vcpus:
        if request(vcpu) & vcpu.arch.guest_fpu.xfeatures:
            yield Broken(f"v{nr}: {xf.format_mask(request(vcpu))} is requested and allocated", key=nr)


@invariant("request-is-discharged", "abi", ("INV-03", "REQ"), ops=(KvmRunReturns,), revisions=_LAZY)
def request_is_discharged(view: View) -> Iterator[Broken]:
    """When KVM_RUN has returned, the request was served and cleared; where the design keeps a failed one for a retry,
    KVM_RUN has returned the error."""
    for nr, vcpu in enumerate(view.k.vcpus):
        if view.before.vcpus[nr].task and not vcpu.task and request(vcpu):
            failed = isinstance(view.step.result.ret, int) and view.step.result.ret < 0
            kept = vcpu.arch.xfd_realloc_request & ~vcpu.arch.guest_fpu.xfeatures
            if not (failed and kept):
                yield Broken(f"v{nr}: KVM_RUN returned and {xf.format_mask(request(vcpu))} is still requested")


@invariant("realloc-failure-is-reported", "abi", ("INV-04", "REQ"), ops=(KvmRunReturns,), revisions=_LAZY)
def realloc_failure_is_reported(view: View) -> Iterator[Broken]:
    """If the reallocation on the way out of KVM_RUN fails, KVM_RUN returns an error, this one or another."""
    for nr, vcpu in enumerate(view.k.vcpus):
        wanted = request(view.before.vcpus[nr])
        returned = bool(view.before.vcpus[nr].task and not vcpu.task)
        failed = isinstance(view.step.result.ret, int) and view.step.result.ret < 0
        if returned and wanted & ~vcpu.arch.guest_fpu.xfeatures and not failed:
            yield Broken(f"v{nr}: {xf.format_mask(wanted)} was not allocated and KVM_RUN returned {view.step.result}")


@invariant(
    "request-accumulates",
    "abi",
    ("INV-05", "REQ"),
    ops=(*makers(KvmSetMsrs, KvmSetXcrs), HandleExit),
    revisions=_LAZY,
)
def request_accumulates(view: View) -> Iterator[Broken]:
    """A new request adds to one that is still to be served ("This should be |="): replaced, the first one is gone
    although nothing has served it."""
    for nr, vcpu in enumerate(view.k.vcpus):
        lost = request(view.before.vcpus[nr]) & ~request(vcpu) & ~vcpu.arch.guest_fpu.xfeatures
        if vcpu.exists and lost and request(vcpu):
            yield Broken(
                f"v{nr}: the request for {xf.format_mask(lost)} was replaced by {xf.format_mask(request(vcpu))}"
            )


@invariant(
    "request-is-eventually-cleared",
    "abi",
    ("INV-03", "REQ"),
    at_end=True,
    progress=(KvmRunReturns, VmEnter),
    revisions=_LAZY,
)
def request_is_eventually_cleared(view: View) -> Iterator[Broken]:
    """With memory to be had and every KVM_RUN finished and repeated, no request is left: one that stays is served
    again at every return to user space, for ever."""
    for nr, vcpu in view.vcpus:
        if request(vcpu):
            field = "guest_fpu.realloc_request" if vcpu.arch.guest_fpu.realloc_request else "arch.xfd_realloc_request"
            yield Broken(f"v{nr}: {field} is still {xf.format_mask(request(vcpu))}", "drained")
