"""The command `xfdfuzz`, and `python -m xfdfuzz`: handles Ctrl-C before there is anything that could."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line; returns the exit code."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _leave)
    from xfdfuzz.cli import main as run

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run()
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to be interrupted
        return code
    except KeyboardInterrupt:  # it came just before or behind what handles it
        _leave()
        raise


def _leave(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End with the exit code of a command that was interrupted: while modules are loaded nothing is half done.

    No exception, because one that is raised in an import may be lost.
    """
    os.write(2, b"xfdfuzz: interrupted\n")
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
