"""What pages are made of, and what keeps them to themselves: a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from importlib import resources

#: What SECURITY.md says, in short.
NOTICE = (
    "may be a vulnerability of a current kernel. Before you publish it, compare the functions with the current source"
    " and write to security@kernel.org (SECURITY.md)."
)


@cache
def text(name: str) -> str:
    """A template."""
    return (resources.files("xfdfuzz.report.page") / name).read_text(encoding="utf-8")


@cache
def style(*names: str) -> str:
    """Styles, one after another, without the blanks that mean nothing there."""
    plain = "\n".join(map(_stripped, names))
    return re.sub(r"\s*([{};,])\s*|(:)\s+", r"\1\2", plain)


@cache
def script(name: str) -> str:
    """A script."""
    return _stripped(name)


def _stripped(name: str) -> str:
    """Without what only its authors read: comments on lines of their own, and indentation."""
    plain = re.sub(r"^\s*(//.*|/\*.*\*/)\s*$", "", text(name), flags=re.MULTILINE)
    return "\n".join(line.strip() for line in plain.splitlines() if line.strip())


def policy(style: str, script: str = "") -> str:
    """A Content-Security-Policy for this style and this script, and nothing else: no network, no other code."""
    parts = ["default-src 'none'", "img-src data:", f"style-src '{_digest(style)}'"]
    if script:
        parts.append(f"script-src '{_digest(script)}'")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def notice(private: bool, what: str = "This") -> str:
    """What stands on a page of ``what`` may be a vulnerability."""
    return f'<p class="notice" role="note">{what} {escape(NOTICE)}</p>\n' if private else ""
