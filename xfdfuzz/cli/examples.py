"""Two command lines for each command, for its help."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "review": (
        "xfdfuzz review my_series.py",
        "xfdfuzz review amx-v1 --base v5.16 --time 2m --format mail",
    ),
    "fuzz": ("xfdfuzz fuzz --revision mainline --time 10m", "xfdfuzz fuzz --revision my_series.py --mode change"),
    "explore": ("xfdfuzz explore --revision v7.3-cured", "xfdfuzz explore --scope contents --depth 8 --workers 2"),
    "replay": ("xfdfuzz replay findings", "xfdfuzz replay corpus/bugs/perm-overwrite.xfd --revision v5.17"),
    "report": ("xfdfuzz report findings -o pages", "xfdfuzz report corpus/bugs/perm-overwrite.xfd -o out.html"),
    "export": ("xfdfuzz export findings/a.xfd", "xfdfuzz export corpus/bugs/perm-overwrite.xfd -o -"),
    "matrix": ("xfdfuzz matrix findings", "xfdfuzz matrix --corpus --revision v6.12 --format markdown"),
    "bisect": (
        "xfdfuzz bisect corpus/bugs/perm-overwrite.xfd",
        "xfdfuzz bisect corpus/bugs/xcr0-before-xfd.xfd --from v5.17 --to v6.6",
    ),
    "diff": ("xfdfuzz diff amx-v4 amx-v5", "xfdfuzz diff v6.12 v6.12+b45f72177594 --time 2m"),
    "conform": ("xfdfuzz conform recordings", "xfdfuzz conform host.jsonl --revision v6.12"),
    "live": ("xfdfuzz live corpus/conformance", "xfdfuzz live --fuzz --time 10m"),
    "corpus": ("xfdfuzz corpus add findings", "xfdfuzz corpus check corpus"),
    "baseline": ("xfdfuzz baseline update known.toml findings", "xfdfuzz baseline check known.toml"),
    "field": ("xfdfuzz field v0.xcr0", "xfdfuzz field v0.guest_fpu.fpstate.xfd --revision v7.3"),
    "warnings": ("xfdfuzz warnings amx-v1", "xfdfuzz warnings v7.3 --format json"),
    "vmm": ("xfdfuzz vmm --revision v6.12", "xfdfuzz vmm --revision mainline --save procedures"),
    "list": ("xfdfuzz list revisions", "xfdfuzz list invariants --revision v7.3"),
    "explain": ("xfdfuzz explain no-warning@fpu_guest_realloc_fpstate", "xfdfuzz explain b45f72177594"),
    "new": ("xfdfuzz new revision my-series-v1", "xfdfuzz new invariant my-invariant"),
    "doctor": ("xfdfuzz doctor", "xfdfuzz doctor --format json"),
    "completion": ("xfdfuzz completion bash", "xfdfuzz completion zsh"),
    "help": ("xfdfuzz help fuzz", "xfdfuzz help notation"),
}
