"""Promised: hostile files are refused by their outline, and a reader never meets half a file."""

import hashlib
import json
import pickle  # noqa: TID251 (to make the file that must be refused)
from pathlib import Path

import pytest
import torch

from wm import tensorfile
from wm.errors import WatermarkError

LIMIT = 1 << 20


def read(path: Path) -> list[str]:
    with tensorfile.opened(path, file_bytes_max=LIMIT) as handle:
        return list(handle.keys())


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    tensorfile.write(path, {"a": torch.ones(3)}, {"format": "x"})
    return path


def test_what_is_written_is_read_and_hashed(good: Path) -> None:
    assert read(good) == ["a"]
    again = tensorfile.write(good, {"b": torch.ones(3)})
    assert read(good) == ["b"]
    assert again == tensorfile.sha256_of(good) == hashlib.sha256(good.read_bytes()).hexdigest()
    assert [path.name for path in good.parent.iterdir()] == ["good.safetensors"]


def test_a_write_that_fails_leaves_the_old_file(good: Path) -> None:
    before = good.read_bytes()
    with pytest.raises(OSError, match="No such file"):
        tensorfile.write(good.parent / "missing" / "x.safetensors", {"a": torch.ones(1)})
    assert good.read_bytes() == before


def headed(shape: list[int]) -> bytes:
    """A file of one tensor without contents."""
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "malformed"),
        (b"\x02", "malformed"),
        (pickle.dumps({"a": [1, 2, 3]}), "malformed"),
        (b"PK\x03\x04" + bytes(60), "malformed"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "malformed"),
        ((100).to_bytes(8, "little") + b'{"a":', "malformed"),
        ((2).to_bytes(8, "little") + b"[]", "malformed"),
        (headed(shape=[2**63, 0]), "malformed"),
        (headed(shape=[0, 2**40, 2**40, 3]), "malformed"),
        ((9).to_bytes(8, "little") + b'{"a": 1}}', "malformed"),
        (((1 << 20) - 16).to_bytes(8, "little") + b"{" + b" " * ((1 << 20) - 17), "malformed"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WatermarkError) as caught:
        read(path)
    assert caught.value.code == code
    assert "bad.safetensors" in str(caught.value)


def test_a_file_cut_short_is_refused(good: Path) -> None:
    good.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(WatermarkError) as caught:
        read(good)
    assert caught.value.code == "malformed"


def test_a_file_a_header_or_a_count_over_the_limit_is_refused(tmp_path: Path) -> None:
    large, header, many = (tmp_path / name for name in ("large", "header", "many"))
    large.write_bytes(bytes(LIMIT + 1))
    header.write_bytes((3 << 19).to_bytes(8, "little") + b"{" + b" " * (3 << 19))
    tensorfile.write(many, {str(number): torch.zeros(0) for number in range(tensorfile.TENSORS_MAX + 1)})
    for path in (large, header, many):
        with (
            pytest.raises(WatermarkError) as caught,
            tensorfile.opened(path, file_bytes_max=LIMIT if path == large else 1 << 22),
        ):
            pass
        assert caught.value.code == "too_large"


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
