"""Which files a process may open, and nothing else of the file system: Landlock.

What a ruleset handles is denied except where a rule allows it, for this process and all it starts, for ever. A process
under Landlock also may not trace processes outside, so their memory and environment in /proc stay closed to it.

Sources: landlock(7); Linux, Documentation/userspace-api/landlock.rst. Each version of the interface ("ABI") knows more
rights than the one before; what the kernel does not know is not asked for.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from node.verifier import kernel

_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR, _WRITE_FILE, _IOCTL_DEV = 1 << 2, 1 << 3, 1 << 1, 1 << 15
_FILE_RIGHTS = 1 << 0 | _WRITE_FILE | _READ_FILE | 1 << 14 | _IOCTL_DEV  # those that a rule on a file may name
_FIRST_FS = (1 << 13) - 1
_FS_SINCE = {2: 1 << 13, 3: 1 << 14, 5: _IOCTL_DEV}
_NET_SINCE, _NET = 4, 0b11  # binding and connecting TCP sockets
_SCOPED_SINCE, _SCOPED = 6, 0b11  # abstract UNIX sockets and signals


def abi() -> int:
    """The version of Landlock that the kernel has; raises OSError where it has none."""
    return kernel.system_call("landlock_create_ruleset", None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)


def restrict(*, readable: Iterable[Path], listable: Iterable[Path], devices: Iterable[Path]) -> int:
    """Let this thread, and threads and processes that it starts from now on, open only these files.

    Args:
        readable: files, and directories with all that is in them, to be read.
        listable: directories whose names may be read, not their files.
        devices: to be read, written and given commands.

    Returns:
        The version of Landlock that is in force.

    Raises:
        OSError: nothing is in force. no_new_privs must be set before.
    """
    version = abi()
    handled = _FIRST_FS | sum(right for since, right in _FS_SINCE.items() if since <= version)
    words = [handled]
    if version >= _NET_SINCE:
        words.append(_NET)
    if version >= _SCOPED_SINCE:
        words.append(_SCOPED)
    attribute = struct.pack(f"={len(words)}Q", *words)
    ruleset = kernel.system_call("landlock_create_ruleset", attribute, ctypes.c_size_t(len(attribute)), 0)
    try:
        for paths, rights in (
            (readable, _READ_FILE | _READ_DIR),
            (listable, _READ_DIR),
            (devices, _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV),
        ):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        kernel.system_call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Add a rule; a path that is not there needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        if rights:
            rule = struct.pack("=Qi", rights, descriptor)
            kernel.system_call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
