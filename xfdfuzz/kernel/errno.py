"""The errno values that the modelled calls return (include/uapi/asm-generic/errno*.h), and their names."""

from __future__ import annotations

EPERM = 1
ENOENT = 2
EINTR = 4
EIO = 5
ENXIO = 6
E2BIG = 7
EBADF = 9
EAGAIN = 11
ENOMEM = 12
EFAULT = 14
EEXIST = 17
EBUSY = 16
ENODEV = 19
ENOTTY = 25
EINVAL = 22
ENOSPC = 28
EMFILE = 24
EUNATCH = 49
EOPNOTSUPP = 95
#: For the kernel's own use, not part of the ABI (include/linux/errno.h).
ENOTSUPP = 524

NAMES: dict[int, str] = {
    value: name for name, value in dict(globals()).items() if name.startswith("E") and name.isupper()
}
