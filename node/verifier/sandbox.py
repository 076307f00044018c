"""What the verifier process gives up before it reads a stranger's file (DESIGN 5).

It holds no secret and needs neither network nor files of its own, so it drops what the kernel lets it drop, in two
steps. Before the libraries are loaded: new privileges, capabilities, core dumps, the network, and every file but the
libraries', the fetched ones and the devices. After that, when CUDA has its threads and devices: sockets, programs,
other processes, writing files, and memory beyond a limit. What could not be dropped is reported, not fatal: containers
often forbid namespaces, and old kernels have no Landlock. Most things are forbidden by more than one of these.

Sources: prctl(2), unshare(2), capset(2), getrlimit(2). RLIMIT_DATA counts private writable memory since Linux 4.7;
RLIMIT_AS would count the address space that CUDA and the allocator only reserve.
"""

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from node.verifier import kernel, landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITIES_VERSION = 0x20080522
_PACKAGES = Path(__file__).resolve().parents[2]
_OWN_PACKAGES = ("node", "registry", "wm")
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc",
    "/sys",
    "/dev/urandom",
    "/dev/random",
)
_DEVICES = ("null", "zero", "nvidia*", "dri", "kfd")


class Report:
    """What is in force and what is not, as one line for the log."""

    def __init__(self) -> None:
        self._in_force: list[str] = []
        self._missing: list[str] = []

    def attempt(self, what: str, drop: Callable[[], object]) -> None:
        """Drop something; an OSError is noted and passed over."""
        try:
            drop()
        except OSError as error:
            self._missing.append(f"{what} ({error.strerror or error})")
        else:
            self._in_force.append(what)

    def __str__(self) -> str:
        missing = ", ".join(self._missing) or "nothing is missing"
        return f"sandbox: in force: {', '.join(self._in_force)}; not in force: {missing}"


def drop_privileges(parent: int, *, readable: Sequence[Path], report: Report) -> None:
    """Before the imports: no new privileges, no network, no other files; die with the parent.

    Args:
        parent: process id of who started this one.
        readable: directories of the files to verify.
        report: takes what is in force.

    Raises:
        SystemExit: the parent died before it could be followed.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report.attempt("end with the parent", lambda: kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    report.attempt("no network", _leave_network)
    report.attempt("no tracing", lambda: kernel.prctl(_PR_SET_DUMPABLE, 0))
    report.attempt("no new privileges", lambda: kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1))
    report.attempt("no capabilities", _drop_capabilities)
    report.attempt("no files but its own (Landlock)", lambda: _close_files(readable))
    if os.getppid() != parent:  # it was gone before the signal was asked for, which then never comes
        raise SystemExit(1)


def confine(memory_bytes_max: int | None, *, with_devices: bool, report: Report) -> None:
    """After the imports: make no sockets, run no programs, write no file, and use only so much more memory than now.

    Args:
        memory_bytes_max: private memory to add, in bytes; None sets no limit.
        with_devices: whether devices may be opened, as a GPU needs.
        report: takes what is in force.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes_max is not None:
        limit = private_bytes() + memory_bytes_max
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    report.attempt(
        "no sockets, programs, other processes or changed files (seccomp)",
        lambda: seccomp.install(with_devices=with_devices),
    )


def private_bytes() -> int:
    """Private writable memory of this process, in bytes (VmData of proc(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")


def _leave_network() -> None:
    """Move into a network of its own, which has nothing; whoever may not do that may in a user namespace of his own."""
    try:
        kernel.unshare(_CLONE_NEWNET)
    except OSError:
        kernel.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _drop_capabilities() -> None:
    """Root in a container has some, and everybody has all in a user namespace of his own."""
    kernel.system_call("capset", struct.pack("=Ii", _CAPABILITIES_VERSION, 0), bytes(24))


def _close_files(readable: Sequence[Path]) -> None:
    # Of the folder that the packages are in only the names may be read: in a checkout, a ledger may lie beside them.
    own = [_PACKAGES / name for name in _OWN_PACKAGES]
    libraries = [Path(path) for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    python = [Path(path) for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}]
    system = [Path(path) for path in _SYSTEM]
    landlock.restrict(
        readable=[*system, *python, *libraries, *own, *readable],
        listable=[_PACKAGES],
        devices=[path for pattern in _DEVICES for path in Path("/dev").glob(pattern)],
    )
