"""The command `xfdfuzz`, and `python -m xfdfuzz`: handles Ctrl-C and SIGTERM before there is anything that could."""

import os
import sys


def _leave(*_: object) -> None:
    """End with the exit code of a command that was interrupted: while modules are loaded nothing is half done.

    No exception, because one that is raised in an import may be lost.
    """
    os.write(2, b"xfdfuzz: interrupted\n")
    os._exit(3)


try:
    import signal
except KeyboardInterrupt:
    _leave()

#: What asks a command to end, and what Python does then if nobody said anything else.
_INTERRUPTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def main() -> int:
    """Run the command line; returns the exit code."""
    ours = [number for number, handler in _INTERRUPTS.items() if signal.getsignal(number) == handler]
    for number in ours:
        signal.signal(number, _leave)
    from xfdfuzz.cli import main as run

    try:
        for number in ours:
            signal.signal(number, signal.default_int_handler)
        code = run()
        for number in ours:
            signal.signal(number, signal.SIG_IGN)  # nothing is left to be interrupted
        # Python ends by SIGINT, not with our exit code, if one came in the exec() of a text (dataclasses have such) and
        # there was none since
        exec("")
        return code
    except KeyboardInterrupt:  # it came just before or behind what handles it
        _leave()
        raise


if __name__ == "__main__":
    sys.exit(main())
