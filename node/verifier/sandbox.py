"""What the verifier process gives up before it reads a stranger's file (DESIGN 5).

It holds no secret and needs neither network nor files of its own, so it drops what the kernel lets it drop: new
privileges, core dumps, writing files, the network (where the kernel allows an unprivileged namespace), and memory
beyond a limit. What could not be dropped is reported, not fatal: containers often forbid namespaces.

Sources: prctl(2), unshare(2), getrlimit(2). RLIMIT_DATA counts private writable memory since Linux 4.7; RLIMIT_AS would
count the address space that CUDA and the allocator only reserve.
"""

import ctypes
import os
import resource
import signal
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def drop_privileges(parent: int) -> list[str]:
    """Before the imports: no new privileges, no core dumps, no network; die with the parent.

    Args:
        parent: process id of who started this one.

    Returns:
        What could not be done, as words for the log.

    Raises:
        SystemExit: the parent died before it could be followed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = []
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        failed.append(f"network: {os.strerror(ctypes.get_errno())}")
    calls = {
        "parent-death signal": (_PR_SET_PDEATHSIG, signal.SIGKILL),
        "not dumpable": (_PR_SET_DUMPABLE, 0),
        "no new privileges": (_PR_SET_NO_NEW_PRIVS, 1),
    }
    failed += [name for name, (option, value) in calls.items() if libc.prctl(option, value, 0, 0, 0)]
    if os.getppid() != parent:  # it was gone before the signal was asked for, which then never comes
        raise SystemExit(1)
    return failed


def limit_resources(memory_bytes_max: int | None) -> None:
    """After the imports: write no file, and use only so much more memory than now.

    Args:
        memory_bytes_max: private memory to add, in bytes; None sets no limit.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes_max is not None:
        limit = private_bytes() + memory_bytes_max
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def private_bytes() -> int:
    """Private writable memory of this process, in bytes (VmData of proc(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")
