"""A line of the kernel that seldom matters is missed where it does: searches find what leaving it out breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.hunt import BothEngines
from xfdfuzz.engines.search.plan import STEPS, Budget
from xfdfuzz.engines.search.violations import ViolationCampaign
from xfdfuzz.invariants.loading import load
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.values import domains

#: The kernel that the line is left out of, of which nothing else is known to be wrong.
SOUND = "v7.3-cured"
#: The class whose method it is, and the method without the line.
OMISSIONS = {
    # 089f9fba56fa: a CPU that still has the registers of a task takes them for those that a tracer wrote
    "ptrace": (
        "xfdfuzz.kernel.fpu.regset.Regset",
        "fpu_force_restore(self, fpu): pass",
    ),
    # 1be0e61c1f25: the thread gets the PKRU back that it had at the first vcpu_load()
    "host-pkru": (
        "xfdfuzz.kernel.kvm.x86.KvmX86",
        "kvm_arch_vcpu_load(self, vcpu):\n"
        "        old = vcpu.arch.host_pkru\n"
        "        super().kvm_arch_vcpu_load(vcpu)\n"
        "        vcpu.arch.host_pkru = old or vcpu.arch.host_pkru",
    ),
    # 612263b30c68: XCR0 with a part of AVX-512
    "avx512": (
        "xfdfuzz.kernel.kvm.x86.KvmX86",
        "_kvm_set_xcr(self, vcpu, index, xcr):\n"
        "        whole = xcr | (0xe0 if xcr & 0xe0 else 0)\n"
        "        allowed = not whole & ~self.kvm_guest_supported_xcr0(vcpu) and xcr & 7 == 7\n"
        "        lacks = allowed and whole != xcr\n"
        "        return self.kvm_set_xcr_tail(vcpu, xcr) if lacks else super()._kvm_set_xcr(vcpu, index, xcr)",
    ),
    # a554d207dc46: INIT leaves BNDREGS and BNDCSR as they are
    "init": (
        "xfdfuzz.kernel.kvm.x86.KvmX86",
        "fpstate_clear_xstate_components(self, vcpu, features): pass",
    ),
    # 98cfa4630912: a new program has ARCH_SHSTK_SHSTK of the one before
    "exec": (
        "xfdfuzz.kernel.exec.Exec",
        "reset_thread_features(self): pass",
    ),
}


@pytest.mark.parametrize("name", OMISSIONS)
def test_what_leaving_a_line_out_breaks_is_found(name: str, file_of: Callable[[str], Path]) -> None:
    """Within programs that take half a minute; most need a second's."""
    load()
    campaign = ViolationCampaign(revision=resolve(str(file_of(name))))
    budget = Budget(examples=5000)
    with campaign.after_each_example(budget.spend_example):
        found = BothEngines(campaign, 1, STEPS).find()
    assert found.key not in judge(found.program, resolve(SOUND), expectations=False).buckets


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[str], Path]:
    """A series that leaves the line out."""

    def write(name: str) -> Path:
        where, method = OMISSIONS[name]
        module, _, base = where.rpartition(".")
        file = tmp_path / f"without_{name}.py"
        file.write_text(
            f"from {module} import {base}\n"
            "from xfdfuzz import Series\n\n"
            f'series = Series("without-{name}", base="{SOUND}", title="without {name}")\n\n\n'
            f'@series.patch("without-{name}-1", "leave a line out")\n'
            f"class Without({base}):\n"
            f"    def {method}\n"
        )
        return file

    return write


@pytest.mark.parametrize("machine", [Machine(), Machine(mpx=True), Machine(apx=True)])
def test_every_part_of_what_xcr0_couples_is_drawn(machine: Machine) -> None:
    domain, full = domains(machine)["xcr0"], machine.user_xfeatures
    drawn = {domain.value(number) for number in domain.numbers.values}
    assert {full & ~(1 << i) for i in xf.components_in(full)} <= drawn
    legal = [domain.value(number) for number in domain.numbers.values if xf.legal_xcr0(domain.value(number))]
    assert len(legal) > len(domain.numbers.values) * 3 / 4
