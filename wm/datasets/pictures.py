"""Labelled pictures in the layouts of their authors, read without torchvision's loaders: those unpickle.

MNIST and Fashion-MNIST:  {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz, in DIR, DIR/raw or DIR/MNIST/raw
CIFAR-10:                 data_batch_1.bin ... data_batch_5.bin and test_batch.bin, in DIR or DIR/cifar-10-batches-bin
a folder:                 DIR/{train,test}/<class>/<picture>, all of one size

Of CIFAR-10 there is also a version of Python pickles, which is refused. Grey pictures are repeated to three channels,
as the networks of the catalogue take them. A tenth of the training set is for validation.
"""

import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm.data import VALIDATION_FRACTION, Dataset, of_images, stratified_split
from wm.errors import WatermarkError
from wm.info_fields import SIDE_MAX

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_IDX_PLACES = {"mnist": ("", "raw", "MNIST/raw"), "fashion-mnist": ("", "raw", "FashionMNIST/raw")}
_IDX_BYTES_MAX = 1 << 28
_IDX_UNSIGNED = b"\x00\x00\x08"  # then the number of dimensions
_CIFAR_PARTS = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_CIFAR_SIDE, _CIFAR_CLASSES = 32, 10
_CIFAR_RECORD_BYTES = 1 + 3 * _CIFAR_SIDE**2
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # of others some start programs
_Labelled = tuple[Tensor, Tensor]  # float32 in [0, 1], shape (n, 3, height, width), and int64


def mnist(path: Path, *, name: str = "mnist", seed: int = 0) -> Dataset:
    """Load MNIST or a data set with its files.

    Args:
        path: a directory.
        name: "mnist" or "fashion-mnist".
        seed: decides which tenth of the training set becomes the validation set.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file.
        OSError: a file cannot be read.
    """
    parts = []
    for part in ("train", "t10k"):
        images = _idx(_idx_file(path, name, f"{part}-images-idx3-ubyte"), dimensions=3)
        labels = _idx(_idx_file(path, name, f"{part}-labels-idx1-ubyte"), dimensions=1)
        if len(images) != len(labels):
            raise WatermarkError("malformed", f"{path}: {len(images)} {part} images, but {len(labels)} labels")
        grey = torch.from_numpy(images).float()[:, None] / 255
        parts.append((grey.repeat(1, 3, 1, 1), torch.from_numpy(labels).long()))
    return _dataset(name, *parts, seed=seed)


def cifar10(path: Path, *, seed: int = 0) -> Dataset:
    """Load the binary version of CIFAR-10.

    Args:
        path: a directory.
        seed: decides which tenth of the training set becomes the validation set.

    Raises:
        WatermarkError: `malformed`, naming the file.
        OSError: a file cannot be read.
    """
    root = next((root for root in (path, path / "cifar-10-batches-bin") if (root / "test_batch.bin").is_file()), None)
    if root is None:
        raise WatermarkError(
            "malformed",
            f"{path}: no test_batch.bin; take the binary version, cifar-10-binary.tar.gz (that for Python is pickled, "
            "and nothing is unpickled here), or an .npz file",
        )
    train, test = ([_cifar_batch(root / file) for file in files] for files in _CIFAR_PARTS.values())
    return _dataset("cifar10", _joined(train), _joined(test), seed=seed)


def folder(path: Path, *, seed: int = 0) -> Dataset:
    """Load a directory of pictures, one folder for each class; the classes are numbered in alphabetical order.

    Args:
        path: a directory with train/ and test/.
        seed: decides which tenth of the training set becomes the validation set.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the folder or picture.
        OSError: a file cannot be read.
    """
    classes = {part: _class_folders(path / part) for part in ("train", "test")}
    if [each.name for each in classes["train"]] != [each.name for each in classes["test"]]:
        raise WatermarkError("malformed", f"{path}: train and test have folders of different names")
    train, test = (_joined([_class(each, label) for label, each in enumerate(classes[part])]) for part in classes)
    return _dataset(path.resolve().name, train, test, seed=seed)


@contextmanager
def opened(path: Path, *, side_max: int) -> Iterator["Picture"]:
    """Open a picture for reading its pixels within the block.

    Args:
        path: a file.
        side_max: pixels that a side may have, which is known before any of them is unpacked.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file.
        OSError: it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 -- a verifier process reads no pictures

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the sides are looked at below
            picture = Image.open(path, formats=_FORMATS)
        with picture:
            if max(picture.size) > side_max:
                raise WatermarkError("too_large", f"{path}: a side of more than {side_max} pixels")
            yield picture
    except Image.DecompressionBombError as error:
        raise WatermarkError("too_large", f"{path}: a side of more than {side_max} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, NotImplementedError) as error:
        if isinstance(error, WatermarkError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise WatermarkError("malformed", f"{path}: no picture, or cut short: {error}") from error


def _dataset(name: str, train: _Labelled, test: _Labelled, *, seed: int) -> Dataset:
    if train[0].shape[1:] != test[0].shape[1:]:
        raise WatermarkError("malformed", f"{name}: pictures for training and for the test of different sizes")
    images, labels = _joined([train, test])
    validation, rest = stratified_split(train[1], (VALIDATION_FRACTION,), seed=seed)
    return of_images(name, images, labels, [torch.arange(len(train[1]), len(labels)), validation, rest])


def _joined(parts: list[_Labelled]) -> _Labelled:
    if len({images.shape[1:] for images, _ in parts}) != 1:
        raise WatermarkError("malformed", "the pictures are of different sizes; resize them to one")
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def _idx_file(path: Path, name: str, stem: str) -> Path:
    places = [path / place / f"{stem}{suffix}" for place in _IDX_PLACES[name] for suffix in ("", ".gz")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise WatermarkError("malformed", f"{path}: neither {stem} nor {stem}.gz, also not in {_IDX_PLACES[name][-1]}")
    return found


def _idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of bytes: magic number, the sizes as 4 bytes big-endian each, then the values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_IDX_BYTES_MAX + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise WatermarkError("malformed", f"{path}: no whole gzip file") from error
    if len(content) > _IDX_BYTES_MAX:
        raise WatermarkError("too_large", f"{path}: more than {_IDX_BYTES_MAX} bytes")
    begin = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:begin], dtype=">u4").astype(int).tolist() if len(content) >= begin else [0]
    if content[:4] != _IDX_UNSIGNED + bytes([dimensions]) or not all(sizes) or len(content) != begin + math.prod(sizes):
        raise WatermarkError("malformed", f"{path}: no idx file of bytes in {dimensions} dimensions, or cut short")
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(sizes).copy()


def _cifar_batch(path: Path) -> _Labelled:
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(content) or len(content) % _CIFAR_RECORD_BYTES:
        raise WatermarkError("malformed", f"{path}: not whole records of {_CIFAR_RECORD_BYTES} bytes")
    records = torch.from_numpy(content.reshape(-1, _CIFAR_RECORD_BYTES).copy())
    labels = records[:, 0].long()
    if int(labels.max()) >= _CIFAR_CLASSES:
        raise WatermarkError("malformed", f"{path}: a label of {int(labels.max())}; CIFAR-100 or another file?")
    return records[:, 1:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE).float() / 255, labels


def _class_folders(directory: Path) -> list[Path]:
    folders = sorted(each for each in directory.iterdir() if each.is_dir()) if directory.is_dir() else []
    if len(folders) < 2:
        raise WatermarkError("malformed", f"{directory}: no two folders, one for each class of pictures")
    return folders


def _class(directory: Path, label: int) -> _Labelled:
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise WatermarkError("malformed", f"{directory}: no pictures ({', '.join(sorted(_SUFFIXES))})")
    images = [_picture(file) for file in files]
    return _joined([(image[None], torch.tensor([label])) for image in images])


def _picture(path: Path) -> Tensor:
    with opened(path, side_max=SIDE_MAX) as picture:
        pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
