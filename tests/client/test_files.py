"""Promises: a file or directory is there whole or not at all, and nothing that exists is lost."""

import hashlib

import pytest

from client.errors import InputError
from client.files import read_limited, sha256_file, staged_directory, write_atomic


class HalfWayError(Exception):
    """Whatever stops a write half-way."""


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
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
