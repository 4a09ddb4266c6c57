"""Where kernel functions stand: what docstrings cite, and that all of them do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from xfdfuzz import cli
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.text import parse
from xfdfuzz.report import trace
from xfdfuzz.revisions import names, resolve
from xfdfuzz.revisions.sources import Sources, cited, patch_mail

ROOT = Path(__file__).parent.parent
OPEN = ROOT / "corpus" / "open"
WITNESS = ROOT / "corpus" / "witness"
#: The folders of the kernel's tree that are modelled.
FOLDERS = "arch/x86|drivers/idle|drivers/iommu|fs|include/linux|kernel|lib|mm|virt/kvm"
CORE, XSTATE, X86 = "arch/x86/kernel/fpu/core.c", "arch/x86/kernel/fpu/xstate.c", "arch/x86/kvm/x86.c"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(ROOT)

    def call(*argv: str) -> tuple[int, str]:
        return cli.main(argv), capsys.readouterr().out

    return call


# -- docstrings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doc", "function", "files", "origin", "patches"),
    [
        ("The end of a path (fpu/core.c, 0781d60f658e).", "", (CORE,), ("0781d60f658e",), ()),
        ("Several patches (x86.c, patches 09, 13 and 14).", "", (X86,), (), (9, 13, 14)),
        ("A helper's name besides (fpu/core.c, fpu_clone()).", "", (CORE,), (), ()),
        ("fpu__drop(): another name (fpu/core.c).", "fpu__drop", (CORE,), (), ()),
        ("guest_cpuid_has(vcpu, X86_FEATURE_XFD) (cpuid.h).", "guest_cpuid_has", ("arch/x86/kvm/cpuid.h",), (), ()),
        ("execve(2) is a system call (fs/exec.c).", "", ("fs/exec.c",), (), ()),
        ("vcpu_run()'s end is no name (x86.c).", "", (X86,), (), ()),
        (
            "In a mail\n    (x86.c, 1@redhat.com).\n\n    Not here (x86.h, 0781d60f658e).",
            "",
            (X86,),
            ("1@redhat.com",),
            (),
        ),
        ("Mentioned until 10e4b5166df9 (6.9), not cited.", "", (), (), ()),
        ("IA32_XFD (820a6ee944e7), then IA32_XFD_ERR (x86.c).", "", (X86,), ("820a6ee944e7",), ()),
        (None, "", (), (), ()),
    ],
)
def test_what_a_docstring_cites(
    doc: str | None, function: str, files: tuple[str, ...], origin: tuple[str, ...], patches: tuple[int, ...]
) -> None:
    assert cited(doc) == (function, files, origin, patches)


def test_mails_are_numbered_as_git_does() -> None:
    """The posting of "x86/fpu: Add reallocation mechanims for KVM", patch 06 of amx-v1."""
    cover = "20211208000359.2853257-1-yang.zhong@intel.com"
    assert patch_mail(cover, 6) == "20211208000359.2853257-7-yang.zhong@intel.com"
    assert patch_mail("20211214022825.563892248@linutronix.de", 6) == "20211214022825.563892248@linutronix.de"


@pytest.mark.parametrize("name", names())
def test_every_function_names_its_file_and_itself(name: str) -> None:
    sources = Sources(resolve(name))
    assert len(sources) > 150
    for function, source in sources.items():
        assert re.fullmatch(rf"({FOLDERS})/[\w/-]+\.[ch]", source.file or "?"), (function, source)
        assert re.fullmatch(r"[A-Za-z_]\w+", source.function), source
        assert all(re.fullmatch(r"v5\.16|[0-9a-f]{12}|[a-z0-9-]+|\S+@\S+\.\w+", one) for one in source.origin), source


# -- revisions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "function", "file", "origin"),
    [
        ("v5.16", "xfd_update_state", "arch/x86/kernel/fpu/xstate.h", ["v5.16"]),
        ("v5.16", "fpu_swap_kvm_fpstate", CORE, ["d69c1382e1b7"]),
        ("v5.17", "fpu_update_guest_xfd", CORE, ["8eb9a48ac1e8"]),
        ("v7.3", "fpu_update_guest_xfd", CORE, ["b45f72177594"]),
        ("v7.3-b45f72177594", "fpu_update_guest_xfd", CORE, ["8eb9a48ac1e8"]),
        ("v6.12+b45f72177594", "fpu_update_guest_xfd", CORE, ["b45f72177594"]),
        # its phases are methods of their own
        ("v5.17", "vcpu_enter_guest", X86, ["ec5be88ab29f", "b5274b1b7ba8"]),
        ("v7.3", "kvm_load_guest_fpu", "arch/x86/kvm/fpu.h", ["9bc610b6a2a7"]),
        ("v6.12", "kvm_load_guest_fpu", X86, ["v5.16"]),
        ("amx-v1", "fpu_guest_realloc_fpstate", CORE, ["20211208000359.2853257-7-yang.zhong@intel.com"]),
        ("amx-v1", "kvm_emulate_xsetbv", X86, ["20211208000359.2853257-12-yang.zhong@intel.com"]),
        # the review gave the changed lines only, in two mails
        ("amx-review-a", "kvm_put_guest_fpu", X86, ["dae6cc09-2464-f1f5-c909-2374d33c75b5@redhat.com"]),
        ("amx-review-b", "kvm_put_guest_fpu", X86, ["16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com"]),
        ("amx-review-c", "fpstate_realloc", XSTATE, ["c270ce393dfd"]),
        ("amx-tglx", "fpstate_realloc", XSTATE, ["20211214024947.991506193@linutronix.de"]),
        # amx-v3 took it up again
        ("amx-v2", "vmx_set_msr", "arch/x86/kvm/vmx/vmx.c", ["v5.16"]),
        ("amx-v4", "vmx_set_msr", "arch/x86/kvm/vmx/vmx.c", ["b5274b1b7ba8"]),
        ("amx-px25", "kvm_get_msr_common", X86, ["20251224001249.1041934-3-pbonzini@redhat.com"]),
        ("v7.3-cured", "fpu_update_guest_xfd", CORE, ["open-2-write-xfd-when-loaded"]),
    ],
)
def test_what_last_replaced_a_function(revision: str, function: str, file: str, origin: list[str]) -> None:
    source = Sources(resolve(revision))[function]
    assert (source.function, source.file, list(source.origin)) == (function, file, origin)


def test_a_method_with_another_name_says_the_kernels() -> None:
    for revision in ("v5.16", "v7.3-cured"):
        assert Sources(resolve(revision))["fpu_resume_cpu"].function == "fpu__resume_cpu"


def test_what_nobody_read_is_inferred() -> None:
    assert Sources(resolve("v5.16"))["vzalloc"].inferred
    assert Sources(resolve("amx-tglx"))["kvm_set_msr_common"].inferred
    assert not Sources(resolve("amx-v1"))["kvm_set_msr_common"].inferred


def test_a_series_from_outside_is_the_origin_of_what_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "cited.py"
    file.write_text(
        "from xfdfuzz.revisions import Series\n"
        "from xfdfuzz.revisions.amx_v6 import AmxV6\n\n"
        'series = Series("cited-series", base="v7.3", title="one patch")\n\n\n'
        '@series.patch("cited-1", "new code")\nclass One(AmxV6):\n    """One."""\n\n'
        "    def fpu_update_guest_xfd(self, guest_fpu, xfd):\n        self.fpu_new_helper(self.fpu_uncited())\n\n"
        '    def fpu_new_helper(self, size):\n        """New (arch/x86/kernel/fpu/new.c)."""\n\n'
        '    def fpu_uncited(self):\n        """New."""\n'
    )
    sources = Sources(resolve(str(file)))
    assert sources["fpu_update_guest_xfd"] == ("fpu_update_guest_xfd", CORE, ("cited-1",), False)
    assert sources["fpu_new_helper"] == ("fpu_new_helper", "arch/x86/kernel/fpu/new.c", ("cited-1",), False)
    assert sources["fpu_uncited"].file is None


# -- what runs name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted([*OPEN.glob("*.xfd"), *WITNESS.glob("t*.xfd")]), ids=lambda file: file.stem)
def test_every_call_trace_of_the_corpus_is_found(file: Path) -> None:
    program = parse(file.read_text())
    for name in ("amx-v1", "v5.16", "v5.17", "v7.3"):
        revision = resolve(name)
        verdict = judge(program, revision, expectations=False)
        assert set(trace.functions(verdict.trace)) <= Sources(revision).keys()


def test_replay_prints_them_below_reports_and_violations(run: Run) -> None:
    code, out = run("replay", "--sources", "--revision", "amx-v1", str(WITNESS / "t02-stale-request.xfd"))
    assert code == 0
    lines = out.splitlines()
    at = next(nr for nr, line in enumerate(lines) if "WARN in fpu_guest_realloc_fpstate <- " in line)
    sixth, fifteenth = (f"20211208000359.2853257-{nr + 1}-yang.zhong@intel.com" for nr in (6, 15))
    assert lines[at].startswith("      ! no-warning (warn): ")
    assert lines[at + 1 : at + 5] == [
        f"        fpu_guest_realloc_fpstate  {CORE}  {sixth}",
        f"        fpu_swap_kvm_fpstate       {CORE}  {sixth}, {fifteenth}",
        f"        kvm_load_guest_fpu         {X86}          v5.16",
        f"        kvm_arch_vcpu_ioctl_run    {X86}          20211208000359.2853257-8-yang.zhong@intel.com",
    ]
    # no function is named there
    other = lines.index("      ! no-realloc-on-enter (warn): v0 enters KVM_RUN with a request for xtiledata")
    assert "arch/" not in "".join(lines[at + 5 : other + 3])


def test_replay_without_the_option_prints_none(run: Run) -> None:
    argv = ("replay", "--revision", "amx-v1", str(WITNESS / "t02-stale-request.xfd"))
    assert X86 not in run(*argv)[1]
    (verdict,) = json.loads(run(*argv, "--format", "json")[1])["verdicts"].values()
    assert verdict.keys() == {"violations", "results", "expected", "hindrances", "windows", "differs", "because"}


def test_replay_as_json_has_every_function_that_the_text_names(run: Run) -> None:
    argv = ("replay", "--sources", "--revision", "v7.3", str(OPEN / "set-xsave-then-set-msrs-xfd.xfd"))
    sources = json.loads(run(*argv, "--format", "json")[1])["verdicts"]["v7.3"]["sources"]
    shown = {line.split()[0] for line in run(*argv)[1].splitlines() if re.match(r" {8}\w+ +\w+/", line)}
    assert shown == sources.keys()
    assert sources["handle_xfd_event"] == {
        "function": "handle_xfd_event",
        "file": "arch/x86/kernel/traps.c",
        "origin": ["v5.16"],
        "inferred": False,
    }
    assert sources["kvm_load_guest_fpu"]["origin"] == ["9bc610b6a2a7"]
