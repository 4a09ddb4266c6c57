"""What must hold: universal invariants by theme, and one module per revision that adds its own.

To add one, write a function with the :func:`~xfdfuzz.invariants.vocabulary.invariant` decorator in a module of this
folder, or in a file of your own (``--invariants FILE``, or the entry-point group ``xfdfuzz.invariants``).  Nothing is
registered by hand.  docs/invariants.md walks through an example.

Three modules hold no invariant: vocabulary (what one is written with), loading (where they come from) and checker (who
looks when).
"""

if __name__ == "invariants":
    raise ImportError("import it as xfdfuzz.invariants: this folder is linked into the package")
