"""Recorded results of real kernels, held against the model.

A recording (docs/conform.md) is translated, operation by operation, into ops of a program; the program is executed on
the model of the recorded kernel, and what the ops give is compared with what was recorded.

:mod:`recording` reads the files and :mod:`nesting` puts concurrent ones in order; :mod:`session` holds what a harness
process knows (files, selections) and executes; :mod:`contents` and :mod:`memory` turn bytes into register contents and
back; :mod:`host`, :mod:`ioctls` and :mod:`guest` translate; :mod:`score` judges.
"""
