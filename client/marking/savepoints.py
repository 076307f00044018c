"""What an unfinished `wmreg train` or `wmreg embed` keeps, so that the same command goes on after an interruption.

::

    training.safetensors       the plain training
    embedding-<n>.safetensors  the embedding of each watermark
    watermark_key-<n>.json     its key, without which nothing else here is of use

All of it is as secret as a bundle. It goes away when the result is written, and when the result was refused.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import ClientError, InputError, InvalidError
from client.files import check_writable
from client.keystore import WatermarkKeyFile, create_watermark_key, load_watermark_key, save_watermark_key
from registry.watermark_key import bind
from wm.savepoint import Savepoint

_NAME = re.compile(
    r"\.?(training|embedding-[0-9]+)\.safetensors(\.partial)?|\.?watermark_key-[0-9]+\.json(\.[0-9a-f]+)?"
)
_FINAL = {"base_passes", "diverged"}  # going on would end there again


@dataclass(frozen=True, slots=True)
class Savepoints:
    """A directory of savepoints, and how many seconds lie between two states at least."""

    directory: Path
    every_s: float

    def training(self) -> Savepoint:
        """Of the plain training."""
        return Savepoint(self.directory / "training.safetensors", every_s=self.every_s)

    def embedding(self, number: int) -> Savepoint:
        """Of the embedding of one watermark, from 0."""
        return Savepoint(self.directory / f"embedding-{number}.safetensors", every_s=self.every_s)

    def watermark_key(self, number: int, private_key: Ed25519PrivateKey, *, origin: str) -> WatermarkKeyFile:
        """The key of one watermark, from 0: the one that is kept, or else a fresh one, which is kept first.

        Raises:
            InputError: others may read it.
            InvalidError: it is damaged, or bound to another signing key or ledger.
            OSError: it cannot be read or written.
        """
        path = self.directory / f"watermark_key-{number}.json"
        if not path.exists():
            save_watermark_key(path, create_watermark_key(private_key, origin=origin))
        key_file = load_watermark_key(path)
        if key_file.origin != origin or key_file.binding != bind(
            private_key, origin=origin, nonce=key_file.binding.nonce
        ):
            message = f"{path}: bound to another signing key or ledger; go on with those, or choose another --savepoint"
            raise InvalidError(message, code="mismatch")
        return key_file

    def hold_a_state(self) -> bool:
        """Whether there is anything to go on from."""
        return any(path.suffix == ".safetensors" for path in self.directory.iterdir())

    def remove(self) -> None:
        """Remove the directory and all that is in it."""
        for path in self.directory.iterdir():
            if _NAME.fullmatch(path.name):
                path.unlink()
        self.directory.rmdir()


@contextmanager
def kept_in(directory: Path | None, *, every_s: float, out: Path) -> Iterator[Savepoints | None]:
    """Give the savepoints in a directory, made if there is none; they are removed when the block ends well.

    Args:
        directory: None keeps nothing, and None is given.
        every_s: seconds between two states.
        out: where the result goes.

    Raises:
        InputError: the directory holds something else, is where the result goes, or is in use.
        OSError: it cannot be written.
    """
    if directory is None:
        yield None
        return
    _check_place(directory, out)
    check_writable(directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, directory)
        savepoints = Savepoints(directory, every_s)
        try:
            yield savepoints
        except ClientError as error:
            if error.code in _FINAL or not savepoints.hold_a_state():
                savepoints.remove()
            raise
        savepoints.remove()
    finally:
        os.close(descriptor)


def _check_place(directory: Path, out: Path) -> None:
    if directory.resolve().is_relative_to(out.resolve()):
        raise InputError(f"--savepoint {directory}: lies in --out, which is made when all is done; choose another")
    if directory.is_dir() and (other := next((it for it in directory.iterdir() if not _NAME.fullmatch(it.name)), None)):
        raise InputError(f"--savepoint {directory}: holds {other.name}, which is no savepoint; choose a new directory")
    if not directory.resolve().parent.is_dir():
        raise InputError(f"{directory.resolve().parent}: no such directory", code="file")


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"--savepoint {directory}: in use by another command", code="busy") from None
