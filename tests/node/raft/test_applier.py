"""Promised: committed entries reach the state machine once, in order, one transaction a batch; a failure ends it."""

import subprocess
import sys
import textwrap

import pytest
from raft_simulation import ListMachine

from node.raft.applier import Applier
from node.raft.failstop import EXIT_SOFTWARE

ENTRIES = [(b"\x01", 1, 0), (b"\x00a", 2, 1), (b"\x00b", 3, 1)]


def test_commands_lose_their_type_byte_and_no_ops_are_none():
    machine = ListMachine()
    Applier(machine, on_applied=lambda: None).apply(ENTRIES)
    assert machine.durable == [(1, None), (2, b"a"), (3, b"b")]


def test_what_is_applied_already_is_skipped():
    machine = ListMachine()
    notices = []
    applier = Applier(machine, on_applied=lambda: notices.append(machine.applied_index))
    applier.apply(ENTRIES[:2])
    applier.apply(ENTRIES)
    applier.apply(ENTRIES)
    assert machine.durable == [(1, None), (2, b"a"), (3, b"b")]
    assert notices == [2, 3]


def test_an_on_applied_that_raises_is_logged_and_changes_nothing(caplog):
    machine = ListMachine()
    Applier(machine, on_applied=lambda: 1 // 0).apply(ENTRIES)
    assert machine.applied_index == 3
    assert "on_applied failed" in caplog.text


@pytest.mark.parametrize("method", ["begin", "apply", "commit"])
def test_a_state_machine_that_raises_ends_the_process(method):
    program = f"""
        from node.raft.applier import Applier

        class Broken:
            applied_index = 0
            def begin(self): print("begin", flush=True)
            def apply(self, raft_index, command): print("apply", flush=True)
            def commit(self): print("commit", flush=True)

        def fail(self, *arguments):
            raise ValueError("broken on purpose")

        setattr(Broken, {method!r}, fail)
        Applier(Broken(), on_applied=lambda: print("applied", flush=True)).apply([(b"\\x00a", 1, 1)])
        print("went on", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == EXIT_SOFTWARE
    assert method not in done.stdout
    assert "went on" not in done.stdout
    assert "broken on purpose" in done.stderr
