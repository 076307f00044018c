"""A file:// pointer leads to a regular file in the directory that the operator allows, and nowhere else."""

import os
import socket
from pathlib import Path

import pytest

from node import local_files
from node.download import FetchError
from node.local_files import chunks_of, open_inside


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory of models, with a secret beside it and ways out of it."""
    root = tmp_path / "models"
    (root / "deeper").mkdir(parents=True)
    (root / "deeper" / "a model").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "models-too").mkdir()
    (tmp_path / "models-too" / "x").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "outer").symlink_to(tmp_path)
    (root / "inner").symlink_to("deeper")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    return root


def pointer(allowed: Path, path: str) -> str:
    return f"file://{allowed}/{path}"


@pytest.mark.parametrize("path", ["deeper/a%20model", "inner/a%20model", "deeper/../deeper/a model"])
async def test_a_file_in_the_directory_is_read(allowed: Path, path: str):
    file = open_inside(allowed, pointer(allowed, path))
    assert b"".join([chunk async for chunk in chunks_of(file)]) == b"weights"
    assert file.closed


@pytest.mark.parametrize(
    "path",
    ["../secret", "out", "outer/secret", "deeper/../../secret", "%2e%2e/secret", "..%2fsecret", "../models-too/x", "."],
)
def test_no_way_leads_out_of_the_directory(allowed: Path, path: str):
    with pytest.raises(FetchError) as refused:
        open_inside(allowed, pointer(allowed, path))
    assert (refused.value.reason, refused.value.may_pass) == ("unsupported_pointer", False)


def test_a_directory_a_pipe_a_socket_and_a_device_are_no_files(allowed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(allowed)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path, reason in (
            ("deeper", "unsupported_pointer"),
            ("pipe", "unsupported_pointer"),
            ("socket", "unreachable"),
        ):
            with pytest.raises(FetchError) as refused:
                open_inside(allowed, pointer(allowed, path))
            assert refused.value.reason == reason
    with pytest.raises(FetchError, match="regular"):
        open_inside(Path("/dev"), "file:///dev/zero")


@pytest.mark.parametrize("path", ["absent", "loop", "deeper/absent/x", "x" * 300])
def test_what_is_not_there_may_turn_up(allowed: Path, path: str):
    with pytest.raises(FetchError) as refused:
        open_inside(allowed, pointer(allowed, path))
    assert (refused.value.reason, refused.value.may_pass) == ("unreachable", True)


@pytest.mark.parametrize(
    "text",
    [
        "file:relative",
        "file://host/etc/passwd",
        "file:///x?y",
        "file:///x#y",
        "file:///a%00b",
        "FILE:",
        "file://[::1",
        "/x",
    ],
)
def test_a_pointer_has_one_form(allowed: Path, text: str):
    with pytest.raises(FetchError) as refused:
        open_inside(allowed, text)
    assert (refused.value.reason, refused.value.may_pass) == ("unsupported_pointer", False)


def test_a_link_that_is_put_in_the_way_meanwhile_is_noticed(allowed: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.open

    def swap_then_open(path: Path, flags: int) -> int:
        (allowed / "deeper").rename(allowed / "moved")
        (allowed / "deeper").symlink_to(allowed.parent / "elsewhere")
        return real(path, flags)

    (allowed.parent / "elsewhere").mkdir()
    (allowed.parent / "elsewhere" / "a model").write_bytes(b"secret")
    monkeypatch.setattr(local_files.os, "open", swap_then_open)
    with pytest.raises(FetchError, match="changed"):
        open_inside(allowed, pointer(allowed, "deeper/a%20model"))
