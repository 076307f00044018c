"""Files of this machine that a claim may name: those in one directory that the operator chose, and no others.

A pointer is a stranger's word, and may name a way out: "..", a link, a device that never ends. So the path is resolved
first and must lie in the directory, and what was opened must be the regular file of that very path: a link that is put
in its place meanwhile is noticed. The file may change later; the caller copies it while hashing it.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO

from yarl import URL

from node.bodies import CHUNK_BYTES
from node.download import FetchError, is_own_trouble


def open_inside(directory: Path, pointer: str) -> BinaryIO:
    """Open what a ``file:///path`` pointer names.

    Args:
        directory: where the file must be, directly or deeper.
        pointer: an absolute path, percent-encoded as URLs are.

    Raises:
        FetchError: unsupported_pointer for what is not in the directory or no regular file; unreachable for what is
            not there or cannot be read.
        OSError: this node's own trouble.
    """
    path = _path_of(pointer)
    try:
        root, resolved = directory.resolve(strict=True), path.resolve(strict=True)
        if not resolved.is_relative_to(root):
            raise FetchError("unsupported_pointer", "it leads out of the directory that this node allows")
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError) as error:  # a RuntimeError tells of links in a circle
        if is_own_trouble(error):
            raise
        raise FetchError("unreachable", f"{type(error).__name__}", may_pass=True) from error
    try:
        _check_opened(descriptor, resolved)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


async def chunks_of(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """Yield a file's content and close it."""
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


def _check_opened(descriptor: int, expected: Path) -> None:
    if Path(f"/proc/self/fd/{descriptor}").readlink() != expected:
        raise FetchError("unsupported_pointer", "its path changed while it was opened", may_pass=True)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise FetchError("unsupported_pointer", "it is no regular file")


def _path_of(pointer: str) -> Path:
    try:
        url = URL(pointer)
        path = url.path
    except ValueError as error:
        raise FetchError("unsupported_pointer", str(error)) from error
    plain = url.scheme == "file" and not url.host and not url.query_string and not url.fragment
    if not plain or not path.startswith("/") or "\0" in path:
        raise FetchError("unsupported_pointer", "a pointer to a file is file:///absolute/path")
    return Path(path)
