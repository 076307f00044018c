"""Which system calls a process may make: a filter in classic BPF, run by the kernel before each call.

What a verification needs after its libraries are loaded is reading files, memory, threads and, on a GPU, ioctl.
Refused are sockets, programs, other processes, every change of the file system, and the doors behind which kernel bugs
are found (io_uring, bpf, perf, userfaultfd, namespaces, keys). A list of what is allowed would be stricter, but CUDA's
needs are neither documented nor stable; calls newer than this file are refused as unknown, so the list does not rot.

Sources: seccomp(2); Linux, Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/bpf_common.h, seccomp.h
and audit.h.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

from node.verifier import kernel

_LOAD, _IF_EQUAL, _IF_ABOVE, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT, _ARGUMENT_BYTES = 0, 4, 16, 8
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_FROM = 0x40000000  # the same calls again under other numbers, on x86-64
_NEWEST = 462  # mseal, Linux 6.10; later calls did not exist when this list was made
_MODE_FILTER, _ALL_THREADS = 1, 1

_CLONE_THREAD = 0x00010000
_O_WRITING, _O_MAKING = 0o3, 0o100 | 0o1000 | 0o20000000  # O_WRONLY, O_RDWR; O_CREAT, O_TRUNC, O_TMPFILE

# What these ask for is behind a pointer, out of a filter's sight; glibc then does what it did before they existed.
_UNKNOWN = ("clone3", "openat2")
_OWN_PROCESS_ONLY = ("kill", "tgkill")
_REFUSED = (
    *("accept", "accept4", "bind", "connect", "listen", "socket", "socketpair"),
    *("execve", "execveat", "fork", "vfork"),
    *("kcmp", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "process_madvise", "process_vm_readv"),
    *("process_vm_writev", "ptrace", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill"),
    *("ioprio_set", "migrate_pages", "move_pages", "sched_setaffinity", "sched_setattr", "sched_setparam"),
    *("sched_setscheduler", "setpriority"),
    *("chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_by_handle_at"),
    *("open_tree", "pivot_root", "setns", "umount2", "unshare"),
    *("add_key", "bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "perf_event_open"),
    *("request_key", "userfaultfd"),
    *("acct", "adjtimex", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module"),
    *("kexec_file_load", "kexec_load", "personality", "quotactl", "reboot", "setdomainname", "sethostname"),
    *("settimeofday", "swapoff", "swapon", "syslog"),
    *(
        "capset",
        "setfsgid",
        "setfsuid",
        "setgid",
        "setgroups",
        "setregid",
        "setresgid",
        "setresuid",
        "setreuid",
        "setuid",
    ),
    *("chmod", "chown", "creat", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fremovexattr", "fsetxattr"),
    *("futimesat", "lchown", "link", "linkat", "lremovexattr", "lsetxattr", "mkdir", "mkdirat", "mknod", "mknodat"),
    *("removexattr", "rename", "renameat", "renameat2", "rmdir", "setxattr", "symlink", "symlinkat", "truncate"),
    *("unlink", "unlinkat", "utime", "utimensat", "utimes"),
    *("fanotify_init", "mq_open", "msgget", "semget", "shmget"),
)


def install(*, with_devices: bool) -> None:
    """Put the filter on every thread of this process, for ever.

    Args:
        with_devices: whether files may be opened for writing, as a GPU's are.

    Raises:
        OSError: nothing is in force. no_new_privs must be set before.
    """
    program = assemble(platform.machine(), process=os.getpid(), with_devices=with_devices)
    code = ctypes.create_string_buffer(program)
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    thread = kernel.system_call("seccomp", _MODE_FILTER, _ALL_THREADS, head)
    if thread:
        raise OSError(f"thread {thread} has a filter of its own")


def assemble(machine: str, *, process: int, with_devices: bool) -> bytes:
    """The filter as instructions of eight bytes.

    Args:
        machine: as uname(2) says it.
        process: the id of the process that may send itself signals.
        with_devices: whether files may be opened for writing.

    Raises:
        OSError: a machine that is not known.
    """
    if machine not in _MACHINES:
        raise OSError(f"system calls of {machine} are not known")
    opening = _O_MAKING if with_devices else _O_MAKING | _O_WRITING
    code = [
        _load(_MACHINE_AT),
        _jump(_IF_EQUAL, _MACHINES[machine], true=1),
        _give(_KILL),
        _load(_NUMBER_AT),
        _jump(_IF_AT_LEAST, _X32_FROM, false=1),
        _give(_KILL),
        _jump(_IF_ABOVE, _NEWEST, false=1),
        _give(_ERRNO | errno.ENOSYS),
    ]
    for name in _UNKNOWN:
        code += _rule(machine, name, [_give(_ERRNO | errno.ENOSYS)])
    for name in _REFUSED:
        code += _rule(machine, name, [_give(_ERRNO | errno.EPERM)])
    code += _rule(machine, "clone", _allowed_if(0, _IF_ANY_BIT, _CLONE_THREAD))
    code += _rule(machine, "open", _refused_if(1, _IF_ANY_BIT, opening))
    code += _rule(machine, "openat", _refused_if(2, _IF_ANY_BIT, opening))
    for name in _OWN_PROCESS_ONLY:
        code += _rule(machine, name, _allowed_if(0, _IF_EQUAL, process))
    code += _rule(machine, "prlimit64", _allowed_if(0, _IF_EQUAL, 0))
    return b"".join([*code, _give(_ALLOW)])


def _rule(machine: str, name: str, answer: Sequence[bytes]) -> list[bytes]:
    """What to do at one call, if the machine has it; the answer ends the filter."""
    number = kernel.number_of(name, machine)
    return [] if number is None else [_jump(_IF_EQUAL, number, false=len(answer)), *answer]


def _allowed_if(argument: int, test: int, value: int) -> list[bytes]:
    return [_load_argument(argument), _jump(test, value, false=1), _give(_ALLOW), _give(_ERRNO | errno.EPERM)]


def _refused_if(argument: int, test: int, value: int) -> list[bytes]:
    return [_load_argument(argument), _jump(test, value, false=1), _give(_ERRNO | errno.EPERM), _give(_ALLOW)]


def _load_argument(argument: int) -> bytes:
    """The lower half of an argument, on a little-endian machine; all that is compared here are ints."""
    return _load(_ARGUMENTS_AT + _ARGUMENT_BYTES * argument)


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", _LOAD, 0, 0, offset)


def _jump(test: int, value: int, *, true: int = 0, false: int = 0) -> bytes:
    """Skip so many instructions, as the test of the loaded word comes out."""
    return struct.pack("=HBBI", test, true, false, value)


def _give(action: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, action)
