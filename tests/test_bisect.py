"""`xfdfuzz bisect`: the patch that history names, found and checked alone, or a plain word about why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

BUGS = Path(__file__).parent.parent / "corpus" / "bugs"
WITNESS = BUGS.parent / "witness"


@pytest.mark.parametrize(
    ("name", "invariant", "commit", "version"),
    [
        ("perm-overwrite", "permission-only-grows", "063452fd94d1", "v5.18"),
        ("perm-size-supervisor", "no-buffer-overrun", "781c64bfcb73", "v5.18"),
        ("cve-2022-49557-uabi-size", "no-buffer-overrun", "d187ba531230", "v5.19"),
        ("xtilecfg-without-xtiledata", "supported-cpuid-is-usable", "55cd57b596e8", "v6.4"),
        ("cve-2026-23005-irq-window", "host-xrstor-never-faults", "b45f72177594", "v6.19"),
    ],
)
def test_the_fix_that_history_names_is_found(run: Run, name: str, invariant: str, commit: str, version: str) -> None:
    code, out, err = run("bisect", str(BUGS / f"{name}.xfd"), "--invariant", invariant, "--format", "json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    (change,) = result["changes"]
    assert (change["invariant"], change["change"], change["at"]) == (invariant, "cures", commit)
    assert change["version"] == version
    assert change["verified"]
    assert len(result["tried"]) < result["kernels"] / 2


def test_what_introduces_a_violation_is_found_too(run: Run) -> None:
    """ENQCMD's PASID is the first supervisor state that the buffer, sized for user states, has no room for."""
    program = str(BUGS / "guest-buffer-uabi-size.xfd")
    code, out, _ = run("bisect", program, "--to", "v6.12")
    assert code == 0
    assert "7c1ef59145f1 introduces fpstate-fits-its-features\n  x86/cpufeatures: Re-enable ENQCMD\n" in out
    assert "  first in v5.18\n  verified: v6.12 without it is clean\n" in out


def test_a_verdict_that_comes_and_goes_is_said_plainly(run: Run) -> None:
    code, out, _ = run("bisect", str(BUGS / "guest-buffer-uabi-size.xfd"))
    assert code == 3
    assert "both ends are clean" in out
    assert "not monotonic: broken from 7c1ef59145f1 on, clean from 1937e18cc3cf on" in out


def test_between_posted_series_every_one_is_tried(run: Run) -> None:
    program = str(WITNESS / "t07-set-msrs-writes-the-host.xfd")
    code, out, _ = run("bisect", program, "--from", "amx-v1", "--to", "amx-review-c", "--format", "json")
    assert code == 0
    result = json.loads(out)
    assert [point["label"] for point in result["tried"]] == ["amx-v1", "amx-review-a", "amx-review-b", "amx-review-c"]
    found = {change["invariant"]: change["at"] for change in result["changes"]}
    assert found["host-xfd-guards-unbacked-features"] == "amx-review-a"


def test_series_that_waver_are_not_verified(run: Run) -> None:
    """t19 breaks request-is-not-stale on amx-review-a alone."""
    program = str(WITNESS / "t19-happy-path.xfd")
    command = ("bisect", program, "--from", "amx-v1", "--to", "amx-review-c", "--invariant", "request-is-not-stale")
    code, out, _ = run(*command)
    assert code == 3
    assert "not monotonic: broken from amx-review-a on, clean from amx-review-b on" in out


def test_the_patches_of_a_series_from_outside_are_searched(run: Run, tmp_path: Path) -> None:
    series = tmp_path / "series.py"
    series.write_text(
        "from xfdfuzz.kernel.fpu.xstate import Xstate\n"
        "from xfdfuzz.kernel.kvm.main import KvmMain\n"
        "from xfdfuzz.revisions import Series\n\n"
        'series = Series("bisected-series", base="v7.3", title="three patches")\n\n\n'
        '@series.patch("bisected-1", "nothing")\nclass One(KvmMain):\n    """One."""\n\n\n'
        '@series.patch("bisected-2", "overwrite")\nclass Two(Xstate):\n    """Two."""\n\n'
        "    def write_state_perm(self, perm, permitted, requested):\n        perm.state_perm = requested\n\n\n"
        '@series.patch("bisected-3", "nothing more")\nclass Three(KvmMain):\n    """Three."""\n'
    )
    program = str(BUGS / "perm-overwrite.xfd")
    code, out, err = run("bisect", program, "--from", "v7.3", "--to", str(series))
    assert (code, err) == (0, "")
    assert "bisected-2 introduces permission-only-grows" in out
    assert "verified: bisected-series without it is clean" in out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--from", "v9"], 2, "unknown revision v9"),
        (["--from", "v7.3", "--to", "v5.17"], 2, "no queue of patches leads from v7.3 to v5.17"),
        (["--from", "amx-v1", "--to", "v7.3"], 2, "no queue of patches leads from amx-v1 to v7.3"),
        (["--invariant", "no-such-thing"], 2, "unknown invariant no-such-thing"),
        (["--from", "v5.18"], 3, "breaks the same on v5.18 and v7.3: nothing"),
    ],
)
def test_what_cannot_be_bisected(run: Run, argv: list[str], code: int, message: str) -> None:
    given, _, err = run("bisect", str(BUGS / "perm-overwrite.xfd"), *argv)
    assert given == code
    assert message in err
    assert len(err.splitlines()) == 1
