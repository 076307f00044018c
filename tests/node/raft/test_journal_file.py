"""Promised: one owner, no half-made file, checked reads, and no life after a failed write."""

import os
import subprocess
import sys
import textwrap

import pytest

from node.raft.failstop import EXIT_STORAGE
from node.raft.journal_file import JournalFile
from node.raft.journal_format import FILE_HEADER_BYTES, HardState, JournalCorruptError, JournalError

STATE = HardState(term=1, voted_for="node-1", commit_index=0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


def test_a_new_journal_is_empty_private_and_complete(path):
    journal = JournalFile.open(path)
    assert journal.last_index == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == FILE_HEADER_BYTES
    journal.close()


def test_a_second_owner_is_refused_until_the_first_has_closed(path):
    journal = JournalFile.open(path)
    with pytest.raises(JournalError, match="another process runs this node's state"):
        JournalFile.open(path)
    journal.close()
    JournalFile.open(path).close()


@pytest.mark.parametrize("content", [b"", b"wmreg raft", b"something else entirely, of some length ........."])
def test_a_file_that_is_no_journal_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(JournalCorruptError, match="not a journal"):
        JournalFile.open(path)


def test_a_damaged_file_header_is_refused(path):
    JournalFile.open(path).close()
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalCorruptError, match="damaged file header"):
        JournalFile.open(path)


def test_a_truncation_beyond_the_end_is_not_written(path):
    journal = JournalFile.open(path)
    journal.write(truncate_from=5, entries=[(b"a", 1, 1)], hard_state=STATE)
    journal.close()
    journal = JournalFile.open(path)
    assert journal.read(1) == (b"a", 1, 1)
    journal.close()


def test_an_unchanged_state_is_not_written_again(path):
    journal = JournalFile.open(path)
    journal.write(truncate_from=None, entries=[], hard_state=STATE)
    size = path.stat().st_size
    journal.write(truncate_from=None, entries=[], hard_state=STATE)
    assert path.stat().st_size == size
    journal.close()


def test_an_entry_that_rots_while_the_file_is_open_is_refused_when_it_is_read(path):
    journal = JournalFile.open(path)
    journal.write(truncate_from=None, entries=[(b"a" * 100, 1, 1), (b"b" * 100, 2, 1)], hard_state=STATE)
    data = path.read_bytes()
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"c", data.index(b"aaaa") + 50)
    os.close(descriptor)
    assert journal.read(2) == (b"b" * 100, 2, 1)
    with pytest.raises(JournalCorruptError, match="unreadable entry 1"):
        journal.read(1)
    journal.close()


def test_a_failed_write_ends_the_process_before_anything_else_happens(path):
    program = f"""
        import resource, signal, sys
        from pathlib import Path
        from node.raft.journal_file import JournalFile
        from node.raft.journal_format import HardState
        journal = JournalFile.open(Path({str(path)!r}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        state = HardState(term=1, voted_for=None, commit_index=0)
        journal.write(truncate_from=None, entries=[(b"small", 1, 1)], hard_state=state)
        print("written", flush=True)
        journal.write(truncate_from=None, entries=[(b"x" * 8192, 2, 1)], hard_state=state)
        print("acknowledged", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == EXIT_STORAGE
    assert done.stdout == "written\n"
    assert "fail-stop: cannot write the journal" in done.stderr
    journal = JournalFile.open(path)
    assert journal.last_index == 1
    journal.close()
