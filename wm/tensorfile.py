"""Reading and writing safetensors files that may come from anybody.

The limits are checked before the parser sees the file: the header's claimed length against the file's real
one, the header's size, the file's size, and that no name stands in it twice, since one reader would take the
first and another the last. The format holds tensors and text only; a pickle is refused by its
first bytes. Writing goes to a temporary name, is flushed to the disk and renamed, so that a reader never meets
half a file.
"""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wm.errors import WatermarkError

HEADER_BYTES_MAX = 1 << 20
TENSORS_MAX = 8192
ELEMENTS_MAX = 1 << 40  # of a tensor, where extents of 0 count as 1
_LENGTH_BYTES = 8  # the header's length, little-endian


@contextmanager
def opened(path: Path, *, file_bytes_max: int) -> Iterator[Any]:
    """Open a safetensors file whose outline has been checked.

    Args:
        path: the file.
        file_bytes_max: largest acceptable file.

    Yields:
        safetensors' handle: `keys()`, `metadata()`, `get_slice(name)`, `get_tensor(name)`. Tensors are read
        when asked for.

    Raises:
        WatermarkError: `too_large` or `malformed`, naming the file.
        OSError: the file cannot be read.
    """
    _check_outline(path, file_bytes_max)
    try:
        with safe_open(path, framework="pt") as handle:
            _check_count(path, len(handle.keys()))
            yield handle
    except SafetensorError as error:
        raise WatermarkError("malformed", f"{path.name} is not a valid safetensors file: {error}") from error


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write a safetensors file atomically, readable by its owner only.

    Args:
        path: replaced if it exists; its folder must exist.
        tensors: contiguous, on the CPU.
        metadata: text by name.

    Returns:
        SHA-256 of the file, lower-case hexadecimal.

    Raises:
        OSError: the folder cannot be written; an existing file is left as it was.
    """
    content = safetensors.torch.save(dict(tensors), dict(metadata) if metadata else None)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Hash a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_outline(path: Path, file_bytes_max: int) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        # Opening a pipe would wait for whoever writes into it; opening a directory says by itself that it is one.
        raise WatermarkError("malformed", f"{path.name} is no file but a pipe, a socket or a device")
    file_bytes = status.st_size
    if file_bytes > file_bytes_max:
        raise WatermarkError("too_large", f"{path.name} has {file_bytes} bytes, the limit is {file_bytes_max}")
    with path.open("rb") as file:
        length = file.read(_LENGTH_BYTES)
        first = file.read(1)
    header_bytes = int.from_bytes(length, "little")
    if len(length) < _LENGTH_BYTES or first != b"{" or header_bytes > file_bytes - _LENGTH_BYTES:
        raise WatermarkError(
            "malformed",
            f"{path.name} is not a safetensors file (a pickle, or cut short?); "
            "write the weights with safetensors.torch.save_file",
        )
    if header_bytes > HEADER_BYTES_MAX:
        raise WatermarkError(
            "too_large", f"{path.name} has a header of {header_bytes} bytes, the limit is {HEADER_BYTES_MAX}"
        )
    _check_names(path, header_bytes)


def _check_names(path: Path, header_bytes: int) -> None:
    with path.open("rb") as file:
        file.seek(_LENGTH_BYTES)
        header = file.read(header_bytes)
    try:
        _check_shapes(json.loads(header, object_pairs_hook=_distinct))
    except (ValueError, RecursionError) as error:
        raise WatermarkError("malformed", f"{path.name} is not a valid safetensors file: {error}") from error


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands twice in its header")
    return dict(pairs)


def _check_shapes(entries: object) -> None:
    """Check that no shape is beyond all bounds, such as one of 2^63 rows without columns; raises ValueError."""
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        elements = 1
        for extent in shape if isinstance(shape, list) else ():
            elements *= max(extent, 1) if isinstance(extent, int) else 1
            if elements > ELEMENTS_MAX:
                raise ValueError(f"the shape of {name!r:.80} is beyond all bounds")


def _check_count(path: Path, tensors: int) -> None:
    if tensors > TENSORS_MAX:
        raise WatermarkError("too_large", f"{path.name} holds {tensors} tensors, the limit is {TENSORS_MAX}")


def flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives."""
    # Without this the new name may be lost in a power cut although the content is safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
