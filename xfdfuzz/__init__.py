"""xfdfuzz: a stateful fuzzer and invariant checker for KVM and dynamically enabled XSAVE features (AMX, XFD)."""
