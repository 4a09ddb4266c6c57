"""What clone(2) is asked to share (include/uapi/linux/sched.h)."""

CLONE_VM = 0x100
CLONE_VFORK = 0x4000
CLONE_THREAD = 0x10000
