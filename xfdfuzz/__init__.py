"""xfdfuzz: a stateful fuzzer and invariant checker for KVM and dynamically enabled XSAVE features (AMX, XFD).

What is named here is what a program that imports xfdfuzz needs (docs/library.md).  Each is loaded when it is first
asked for, so that nobody waits for what is not used: the command line for the model, a replay for Hypothesis.
"""

# type checkers know the name; to import typing takes a while, in which nobody handles Ctrl-C yet
TYPE_CHECKING = False

__all__ = [
    "Broken",
    "InvariantError",
    "Plan",
    "Program",
    "ProgramError",
    "Revision",
    "RevisionError",
    "Series",
    "View",
    "format_program",
    "fuzz",
    "invariant",
    "judge",
    "load_invariants",
    "parse",
    "resolve",
    "revisions_for",
    "state_machine",
]

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.verdict import judge, revisions_for
    from xfdfuzz.engines.search.plan import Plan
    from xfdfuzz.engines.search.violations import fuzz
    from xfdfuzz.invariants.loading import load as load_invariants
    from xfdfuzz.invariants.vocabulary import Broken, InvariantError, View, invariant
    from xfdfuzz.program.program import Program
    from xfdfuzz.program.text import ProgramError, format_program, parse
    from xfdfuzz.revisions import Revision, RevisionError, Series, resolve
    from xfdfuzz.testing import state_machine
else:
    #: Where each name is, as pkgutil.resolve_name() takes it.
    _HOMES = {
        "Broken": "xfdfuzz.invariants.vocabulary:Broken",
        "InvariantError": "xfdfuzz.invariants.vocabulary:InvariantError",
        "Plan": "xfdfuzz.engines.search.plan:Plan",
        "Program": "xfdfuzz.program.program:Program",
        "ProgramError": "xfdfuzz.program.text:ProgramError",
        "Revision": "xfdfuzz.revisions:Revision",
        "RevisionError": "xfdfuzz.revisions:RevisionError",
        "Series": "xfdfuzz.revisions:Series",
        "View": "xfdfuzz.invariants.vocabulary:View",
        "format_program": "xfdfuzz.program.text:format_program",
        "fuzz": "xfdfuzz.engines.search.violations:fuzz",
        "invariant": "xfdfuzz.invariants.vocabulary:invariant",
        "judge": "xfdfuzz.engines.judge.verdict:judge",
        "load_invariants": "xfdfuzz.invariants.loading:load",
        "parse": "xfdfuzz.program.text:parse",
        "resolve": "xfdfuzz.revisions:resolve",
        "revisions_for": "xfdfuzz.engines.judge.verdict:revisions_for",
        "state_machine": "xfdfuzz.testing:state_machine",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pkgutil import resolve_name

        found = globals()[name] = resolve_name(_HOMES[name])
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
