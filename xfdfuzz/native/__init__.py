"""A program as what a real machine can do: which system calls, which machine code, what is seen then.

:mod:`.script` is the door: ``script_of(program, kernel, good)`` gives the actions of a program, in order, with what the
model expects of each; :mod:`.watching` adds ops that look at what a program leaves in registers.  :mod:`.control` says
which ops user space can control, :mod:`.values` how what a real machine gives is held against the model's.

:mod:`.guestcode` and :mod:`.usercode` have the machine code, :mod:`.assembler` its instructions, :mod:`.contents` the
bytes that a token stands for, :mod:`.layout` the guest's memory.  Nothing here makes a system call.
"""
