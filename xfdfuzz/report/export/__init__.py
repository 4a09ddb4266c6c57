"""A program as a reproducer in C, in the manner of the kernel's selftests (docs/reproducers.md).

:mod:`.writer` puts a file together: what :mod:`.steps` writes of each action, the guest's code (:mod:`.guests`), and of
``harness.c`` the parts that these need (:mod:`.parts`).  :mod:`.subject` finds out which kernels it speaks of.
"""
