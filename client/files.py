"""Files that are whole or absent: written beside their place, flushed to disk, then renamed.

Source: POSIX rename(2) replaces a file atomically within one directory; the data must be on disk before it.
"""

import codecs
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.errors import ClientError, InputError, UnfinishedError
from registry.errors import RegistryError

CHUNK_BYTES = 1 << 20
_OF_SHELL = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


def state_directory() -> Path:
    """Where the command keeps keys and what it remembers: $WMREG_HOME or ~/.local/share/wmreg."""
    home = os.environ.get("WMREG_HOME")
    return Path(home) if home else Path.home() / ".local" / "share" / "wmreg"


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """Write a file as a whole.

    Args:
        path: its directory must exist.
        content: all of the file.
        mode: permission bits; they are set before anything is written.
        replace: False refuses an existing file, also one that appears meanwhile.

    Raises:
        FileExistsError: the file exists and replace is False.
        OSError: the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _called(path, temporary):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)  # unlike a rename, a link never replaces
        finally:
            temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def check_new(path: Path) -> None:
    """Check that a result can be written to a new file, before any work is done for it.

    Raises:
        InputError: it exists, or its directory does not.
        OSError: the directory cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory", code="file")
    if path.exists():
        raise InputError(f"{path}: exists and is not overwritten; choose another name", code="exists")
    check_writable(path.parent)


def write_new(path: Path, content: bytes) -> None:
    """Write a result that the user asked for into a file that does not exist yet.

    Raises:
        InputError: it exists, or its directory does not.
        OSError: the directory cannot be written.
    """
    check_new(path)
    try:
        write_atomic(path, content, replace=False)
    except FileExistsError as error:  # it appeared meanwhile
        raise InputError(f"{path}: exists and is not overwritten; choose another name", code="exists") from error


def sync_directory(directory: Path) -> None:
    """Flush a directory, so that a rename in it survives a loss of power; or a file, which works alike."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_no_pipe(path: Path) -> None:
    """Check that opening a file for reading cannot wait for ever, as it does at a pipe into which nobody writes.

    Pipes that the shell has opened, /dev/stdin and those of `<(command)`, are no such.

    Raises:
        InputError: it is a named pipe or a socket.
        OSError: there is no such file.
    """
    mode = path.stat().st_mode
    if stat.S_ISSOCK(mode) or (stat.S_ISFIFO(mode) and not str(path).startswith(_OF_SHELL)):
        raise InputError(f"{path}: a pipe or socket; give a file", code="file")


def check_regular(path: Path) -> None:
    """Check that a file has an end and can be read again: no pipe, and no device such as /dev/zero.

    Raises:
        InputError: it is something else.
        OSError: there is no such file.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a directory says by itself that it is one
        raise InputError(f"{path}: a pipe, socket or device; give a file", code="file")


def read_limited(path: Path, bytes_max: int) -> bytes:
    """Read a file of at most `bytes_max` bytes.

    Raises:
        InputError: it is larger, or a pipe into which nobody may ever write.
        OSError: it cannot be read.
    """
    check_no_pipe(path)
    with path.open("rb") as stream:
        content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise InputError(f"{path}: larger than the {bytes_max} bytes that such a file may have", code="too_large")
    return content


def read_text(path: Path, bytes_max: int) -> str:
    """Read a text file of at most `bytes_max` bytes.

    Raises:
        InputError: it is larger, or not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return read_limited(path, bytes_max).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file", code="malformed") from error


def check_private(path: Path) -> None:
    """Check that only its owner may read a secret.

    Raises:
        InputError: others may.
        OSError: there is no such file.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path}: others may read this secret; run: chmod 600 {path}", code="readable_by_others")


@contextmanager
def explaining(raw: bytes) -> Iterator[None]:
    """Add to an error about a text file what an editor or a transfer did to it, which no eye can see."""
    try:
        yield
    except (ClientError, RegistryError) as error:
        if raw.startswith(codecs.BOM_UTF8):
            error.add_note("the file begins with a byte order mark, which an editor put there; take it out")
        if b"\r\n" in raw[:CHUNK_BYTES]:
            error.add_note("the file has Windows line ends (CRLF), which an editor or a transfer made of its own (LF)")
        raise


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Put a file's path in front of what the rules object to in it; None for what is no file."""
    try:
        yield
    except RegistryError as error:
        if path is not None:
            error.args = (f"{path}: {error}", *error.args[1:])  # the same error, with all that it knows besides
        raise


def sha256_file(path: Path) -> tuple[bytes, int]:
    """Hash a file while streaming it; return the hash and the number of bytes.

    Raises:
        InputError: it is a pipe or a device, which may have no end.
        OSError: it cannot be read.
    """
    check_regular(path)
    digest, bytes_total = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            bytes_total += len(chunk)
    return digest.digest(), bytes_total


def check_output(directory: Path) -> None:
    """Check that an output directory can be made, before any work is done for it.

    Raises:
        InputError: it exists and is not empty, or is not a directory.
        FileNotFoundError: its parent does not exist.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists and is not empty; choose another directory", code="exists")
    if not directory.resolve().parent.is_dir():
        raise InputError(f"{directory.resolve().parent}: no such directory", code="file")


def check_writable(directory: Path) -> None:
    """Make a directory if there is none, and check that files can be written there, before it matters.

    Raises:
        OSError: they cannot, naming the directory.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = directory / f".probe.{secrets.token_hex(4)}"
    try:
        probe.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(directory)) from error
    probe.unlink()


@contextmanager
def staged_directory(directory: Path) -> Iterator[Path]:
    """Give a temporary sibling to write into; it becomes `directory` when the block ends well, else it vanishes.

    Begin it before the work whose result goes there: it finds out whether there is a place for it.

    Raises:
        InputError: the directory exists and is not empty.
        UnfinishedError: it could not be put in its place at the end; what was made is kept, and named.
        OSError: there is no place for it.
    """
    check_output(directory)
    target = directory.resolve()
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with _called(directory, staging):
        staging.mkdir(mode=0o755)
        try:
            yield staging
            _sync_files(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    with _keeping(staging, directory):
        staging.replace(target)
        sync_directory(target.parent)


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """The same for a file: give the name of a temporary sibling, which becomes `path` when the block ends well.

    Raises:
        InputError: the file exists, or its directory does not.
        UnfinishedError: it appeared meanwhile; what was made is kept, and named.
        OSError: the directory cannot be written.
    """
    if path.exists():
        raise InputError(f"{path}: exists and is not overwritten", code="exists")
    target = path.resolve()
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such directory")
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with _called(path, staging):
        staging.touch(exist_ok=False)
        try:
            yield staging
        except BaseException:
            staging.unlink(missing_ok=True)
            raise
    with _keeping(staging, path):
        target.hardlink_to(staging)
        staging.unlink()
        sync_directory(target.parent)


@contextmanager
def _called(path: Path, temporary: Path) -> Iterator[None]:
    """Errors speak of the path that was asked for, not of its temporary sibling or, as on a full disk, of none."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _keeping(staging: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: {error.strerror or error}; what was made for it is kept in {staging}"
        raise UnfinishedError(message, code="file") from error


def _sync_files(directory: Path) -> None:
    for path in directory.iterdir():
        sync_directory(path)
    sync_directory(directory)
