"""What people and programs read of a run.

A module for each thing that is shown, such as a finding, a verdict or a matrix: its ``terminal()`` prints it for
people, its ``as_object()`` gives what `--format json` writes.  The keys are documented in docs/cli.md; they are only
ever added.  ``console`` is what all are written with, ``files`` what is saved.
"""
