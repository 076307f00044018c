"""Promises: a file or directory is there whole or not at all, and nothing that exists is lost."""

import errno
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.errors import InputError, UnfinishedError, exit_code_of
from client.files import (
    check_writable,
    read_limited,
    read_text,
    sha256_file,
    staged_directory,
    staged_file,
    write_atomic,
)
from client.outline import read_outline


class HalfWayError(Exception):
    """Whatever stops a write half-way."""


@pytest.fixture
def pipe(tmp_path) -> Iterator[Path]:
    """A named pipe into which nobody writes; who waits for it is woken by an error."""

    def wake(_number: int, _frame: object) -> None:
        raise TimeoutError("it waits for a writer")

    os.mkfifo(tmp_path / "pipe", 0o600)
    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(5)
    yield tmp_path / "pipe"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    write_atomic(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("client.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(path, b"new")

    assert caught.value.filename == str(path)
    assert exit_code_of(caught.value) == 70

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_made_is_called_by_the_name_that_was_asked_for(tmp_path):
    path = tmp_path / "absent" / "file"

    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(path, b"new")

    assert caught.value.filename == str(path)


def test_without_replacing_an_existing_file_stays(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old", replace=False)

    with pytest.raises(FileExistsError):
        write_atomic(path, b"new", replace=False)

    assert path.read_bytes() == b"old"


def test_a_staged_directory_appears_when_all_is_well(tmp_path):
    with staged_directory(tmp_path / "out") as staging:
        (staging / "file").write_text("content")
        assert not (tmp_path / "out").exists()

    assert (tmp_path / "out" / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stage", [staged_file, staged_directory])
def test_a_full_disk_is_told_of_by_the_name_that_was_asked_for(tmp_path, stage):
    out = tmp_path / "out"

    with pytest.raises(OSError, match="No space") as full, stage(out):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError) as other, stage(out):
        (tmp_path / "absent").read_bytes()

    assert (full.value.filename, exit_code_of(full.value)) == (str(out), 70)
    assert (other.value.filename, exit_code_of(other.value)) == (str(tmp_path / "absent"), 2)
    assert list(tmp_path.iterdir()) == []


def test_a_staged_directory_vanishes_when_something_fails(tmp_path):
    def fail_half_way():
        with staged_directory(tmp_path / "out") as staging:
            (staging / "file").write_text("content")
            raise HalfWayError

    with pytest.raises(HalfWayError):
        fail_half_way()

    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()

    with staged_directory(tmp_path / "out") as staging:
        (staging / "file").write_text("content")

    assert (tmp_path / "out" / "file").exists()


@pytest.mark.parametrize("make", [lambda p: (p.mkdir(), (p / "precious").touch()), lambda p: p.write_text("precious")])
def test_what_exists_is_refused_before_any_work(tmp_path, make):
    make(tmp_path / "out")

    with pytest.raises(InputError, match="out"), staged_directory(tmp_path / "out"):
        pytest.fail("the work was begun")


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(InputError, match="absent"), staged_directory(tmp_path / "absent" / "out"):
        pytest.fail("the work was begun")


def test_a_file_is_hashed_while_streaming(tmp_path):
    content = b"x" * (3 << 20)
    (tmp_path / "file").write_bytes(content)

    assert sha256_file(tmp_path / "file") == (hashlib.sha256(content).digest(), len(content))


def test_a_file_of_the_greatest_size_is_read_and_a_larger_one_is_not(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")

    assert read_limited(tmp_path / "file", 5) == b"12345"
    with pytest.raises(InputError, match="file"):
        read_limited(tmp_path / "file", 4)


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("read", [lambda path: read_limited(path, 9), sha256_file, read_outline])
def test_a_pipe_is_refused_and_nobody_waits_for_its_writer(pipe, is_linked, read):
    path = pipe
    if is_linked:
        path = pipe.with_name("link")
        path.symlink_to(pipe)

    with pytest.raises(InputError, match=f"{path.name}: a pipe"):
        read(path)


@pytest.mark.parametrize("option", ["--policy", "--passphrase-file", "--ca-file"])
def test_an_option_takes_no_pipe(wmreg, ledger, pipe, option):
    words = {"--policy": ledger.policy_path, option: pipe}

    answer = wmreg("rotate", ledger.policy_path, *(word for pair in words.items() for word in pair))

    assert answer.code == 2
    assert f"'{option}'" in answer.err.replace('"', "'")
    assert "a pipe or socket; give a file" in answer.err


@pytest.mark.parametrize("name", ["config.toml", "signing_key.pem"])
def test_a_file_that_the_command_finds_by_itself_is_no_pipe(wmreg, ledger, pipe, monkeypatch, name):
    pipe.rename(pipe.with_name(name))
    if name == "config.toml":
        monkeypatch.setenv("WMREG_CONFIG", str(pipe.with_name(name)))

    words = ("--signing-key", pipe.with_name(name)) if name == "signing_key.pem" else ()
    answer = wmreg("rotate", ledger.policy_path, "--policy", ledger.policy_path, *words)

    assert answer.code == 2
    assert f"{name}: a pipe or socket; give a file" in answer.err


def test_a_pipe_of_the_shell_is_read():
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    try:
        assert read_text(Path(f"/dev/fd/{reading}"), 9) == "secret\n"
    finally:
        os.close(reading)


@pytest.mark.parametrize("read", [sha256_file, read_outline])
def test_a_device_without_an_end_is_refused(read):
    with pytest.raises(InputError, match="/dev/zero: a pipe, socket or device; give a file"):
        read(Path("/dev/zero"))


def test_finished_work_whose_place_was_taken_meanwhile_is_kept_and_named(tmp_path):
    def finish_late():
        with staged_directory(tmp_path / "out") as staging:
            (staging / "file").write_text("hours of work")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other").touch()

    with pytest.raises(UnfinishedError) as raised:
        finish_late()

    kept = Path(str(raised.value).rpartition("kept in ")[2])
    assert (kept / "file").read_text() == "hours of work"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["other"]


def test_a_finished_file_whose_place_was_taken_meanwhile_is_kept_and_named(tmp_path):
    def finish_late():
        with staged_file(tmp_path / "out") as staging:
            staging.write_text("hours of work")
            (tmp_path / "out").write_text("precious")

    with pytest.raises(UnfinishedError) as raised:
        finish_late()

    kept = Path(str(raised.value).rpartition("kept in ")[2])
    assert kept.read_text() == "hours of work"
    assert (tmp_path / "out").read_text() == "precious"


def test_a_staged_file_appears_when_all_is_well_and_vanishes_when_not(tmp_path):
    with staged_file(tmp_path / "out") as staging:
        staging.write_text("content")
        assert not (tmp_path / "out").exists()
    with pytest.raises(HalfWayError), staged_file(tmp_path / "other"):
        raise HalfWayError

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "content"


def test_what_a_file_would_replace_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").write_text("precious")

    with pytest.raises(InputError, match="not overwritten"), staged_file(tmp_path / "out"):
        pytest.fail("the work was begun")
    with pytest.raises(InputError, match="absent"), staged_file(tmp_path / "absent" / "out"):
        pytest.fail("the work was begun")


def test_a_directory_is_found_writable_and_left_as_it_was(tmp_path):
    check_writable(tmp_path / "new")
    (tmp_path / "file").touch()

    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file")
    with pytest.raises(OSError, match="proc"):  # nobody makes files there, not even root
        check_writable(Path("/proc/self"))
