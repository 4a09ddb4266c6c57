"""The FPU core of v5.16: arch/x86/kernel/fpu and what the context switch needs of it."""
