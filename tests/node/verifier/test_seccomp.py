"""The filter decides right on every machine that it knows, told by an interpreter of its instructions.

That the kernel of this machine decides the same is tried in test_sandbox.
"""

import errno
import struct

import pytest

from node.verifier import kernel, seccomp

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
PROCESS = 4711
HARMLESS = {  # what a verification does all the time, by its number
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "ioctl": 16, "futex": 202, "exit_group": 231, "getrandom": 318},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "ioctl": 29, "futex": 98, "exit_group": 94, "getrandom": 278},
}
O_CREAT, O_TRUNC, O_TMPFILE, O_CLOEXEC = 0o100, 0o1000, 0o20000000, 0o2000000
THREAD, PROCESS_FLAGS = 0x3D0F00, 0x1200011  # what glibc gives clone for a thread, and for fork


def decide(program: bytes, number: int, *arguments: int, audit: int) -> int:
    """Run a filter on one call, as the kernel would."""
    given = struct.pack("<IIQ6Q", number, audit, 0, *(*arguments, *[0] * 6)[:6])
    word, at = 0, 0
    while True:
        code, true, false, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (word,) = struct.unpack_from("<I", given, value)
        elif code == 0x06:
            return value
        else:
            holds = {0x15: word == value, 0x25: word > value, 0x35: word >= value, 0x45: bool(word & value)}[code]
            at += true if holds else false


class Filter:
    def __init__(self, machine: str, *, with_devices: bool) -> None:
        self.machine = machine
        self.program = seccomp.assemble(machine, process=PROCESS, with_devices=with_devices)

    def __call__(self, name: str, *arguments: int) -> int:
        return decide(self.program, kernel.number_of(name, self.machine), *arguments, audit=AUDIT[self.machine])


@pytest.fixture(params=[(machine, with_devices) for machine in AUDIT for with_devices in (False, True)], ids=str)
def decision(request: pytest.FixtureRequest) -> Filter:
    machine, with_devices = request.param
    return Filter(machine, with_devices=with_devices)


def test_every_call_of_the_table_is_refused_but_those_whose_arguments_decide(decision: Filter):
    by_arguments = {"clone", "kill", "tgkill", "prlimit64", "open", "openat"}
    not_for_it = {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    for name, number in kernel.numbers(decision.machine).items():
        if number is not None and name not in by_arguments | not_for_it:
            assert decision(name) == (ENOSYS if name in {"clone3", "openat2"} else EPERM), name


def test_what_a_verification_does_is_allowed(decision: Filter):
    for name, number in HARMLESS[decision.machine].items():
        assert decide(decision.program, number, audit=AUDIT[decision.machine]) == ALLOW, name


def test_threads_are_made_and_processes_are_not(decision: Filter):
    assert (decision("clone", THREAD), decision("clone", PROCESS_FLAGS)) == (ALLOW, EPERM)


def test_signals_go_to_the_own_process_only(decision: Filter):
    for name in ("kill", "tgkill"):
        assert (decision(name, PROCESS), decision(name, 1), decision(name, (1 << 64) - 1)) == (ALLOW, EPERM, EPERM)


def test_limits_are_the_own_ones_only(decision: Filter):
    assert (decision("prlimit64", 0), decision("prlimit64", 1)) == (ALLOW, EPERM)


@pytest.mark.parametrize("machine", AUDIT)
def test_files_are_opened_for_reading_and_devices_for_writing(machine: str):
    plain, devices = (Filter(machine, with_devices=with_devices) for with_devices in (False, True))
    assert plain("openat", 0, 0, O_CLOEXEC) == devices("openat", 0, 0, O_CLOEXEC) == ALLOW
    for writing in (1, 2):
        assert (plain("openat", 0, 0, writing), devices("openat", 0, 0, writing)) == (EPERM, ALLOW)
    for making in (O_CREAT, O_TRUNC, O_TMPFILE):
        assert plain("openat", 0, 0, making) == devices("openat", 0, 0, 2 | making) == EPERM


def test_other_machines_calls_and_other_spellings_are_not_let_through(decision: Filter):
    other = next(audit for machine, audit in AUDIT.items() if machine != decision.machine)
    assert decide(decision.program, 0, audit=other) == KILL
    assert decide(decision.program, 0x40000000 + 41, audit=AUDIT[decision.machine]) == KILL
    assert decide(decision.program, 463, audit=AUDIT[decision.machine]) == ENOSYS


def test_a_machine_that_is_not_known_gets_no_filter():
    with pytest.raises(OSError, match="riscv64"):
        seccomp.assemble("riscv64", process=1, with_devices=False)
