"""Labelled images or texts for the primary task, split once and for all by a seed.

Two sources: the 1,797 handwritten digits that come with scikit-learn (the demo needs no download) and an .npz
file of the caller. Images are held normalised; the normalisation is kept as decimal strings because it goes into
`info`.
"""

import lzma
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from wm.errors import WatermarkError
from wm.randomness import generator
from wm.triggers import InputSpec, Normalisation, Spec

DIGITS_SIDE = 32  # pixels, from 8
DIGITS_LEVELS = 16
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2
_TRAINED_LEAST = 2  # of one alone batch normalisation has no statistics
# What numpy and the unzipping below it raise for a file that is cut short, encrypted, or none.
NPZ_ERRORS = (
    *(ValueError, TypeError, EOFError, OverflowError, SyntaxError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
_LABEL_MAX = 2**31 - 1
_NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, slots=True)
class Examples:
    """What the network is shown, and labels.

    Attributes:
        images: normalised pictures, float32, shape (n, channels, height, width), or texts as token ids, int64, shape
            (n, length).
        labels: int64, shape (n,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Examples":
        """Select rows; `indices` is int64, shape (k,)."""
        return Examples(self.images[indices], self.labels[indices])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A primary task: three disjoint sets, the number of classes and what the model takes.

    Attributes:
        words: of a task with texts, the word list, ids from 2 on.
    """

    name: str
    classes: int
    input: Spec
    train: Examples
    validation: Examples
    test: Examples
    words: tuple[str, ...] | None = None


def digits(*, seed: int = 0) -> Dataset:
    """Load scikit-learn's digits: 1,257 for training, 180 for validation, 360 for the test, about.

    Args:
        seed: decides the stratified split.

    Returns:
        The digits drawn up from 8 x 8 to 32 x 32 (bilinear) and repeated to 3 channels.
    """
    import sklearn.datasets  # noqa: PLC0415 -- a second and 60 MB, which a verifier process has no use for

    loaded = sklearn.datasets.load_digits()
    small = torch.from_numpy(loaded.images).float()[:, None] / DIGITS_LEVELS
    large = F.interpolate(small, size=(DIGITS_SIDE, DIGITS_SIDE), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(loaded.target).long()
    parts = stratified_split(labels, (TEST_FRACTION, VALIDATION_FRACTION), seed=seed)
    return of_images("digits", large.repeat(1, 3, 1, 1), labels, parts)


def load_npz(path: Path, *, seed: int = 0) -> Dataset:
    """Load x_train, y_train, x_test and y_test from an .npz file.

    Args:
        path: images are uint8, shape (n, height, width) or (n, height, width, channels); labels are integers
            from 0. Grey images are repeated to 3 channels.
        seed: decides which tenth of the training set becomes the validation set.

    Returns:
        The data set, named after the file.

    Raises:
        WatermarkError: `malformed`, naming the array.
        OSError: the file cannot be read.
    """
    arrays = _read_npz(path)
    parts = [_as_examples(arrays, part) for part in ("train", "test")]
    if len({images.shape[1:] for images, _ in parts}) != 1:
        raise WatermarkError("malformed", "x_train and x_test hold images of different sizes")
    images, labels = (torch.cat(halves) for halves in zip(*parts, strict=True))
    train = len(arrays["y_train"])
    validation, rest = stratified_split(labels[:train], (VALIDATION_FRACTION,), seed=seed)
    test = torch.arange(train, len(labels))
    return of_images(path.stem, images, labels, [test, validation, rest])


def stratified_split(labels: Tensor, fractions: tuple[float, ...], *, seed: int) -> list[Tensor]:
    """Divide indices so that every class is divided alike.

    Args:
        labels: int64, shape (n,).
        fractions: one per part, adding up to less than 1; the rest is the last part.
        seed: decides the division.

    Returns:
        len(fractions) + 1 tensors of sorted indices, disjoint, together all of [0, n).
    """
    parts: list[list[Tensor]] = [[] for _ in range(len(fractions) + 1)]
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator("split", seed, label))]
        ends = [round(sum(fractions[: i + 1]) * len(members)) for i in range(len(fractions))]
        for part, chunk in zip(parts, members.tensor_split(ends), strict=True):
            part.append(chunk)
    return [torch.cat(part).sort().values for part in parts]


def fraction_of(examples: Examples, fraction: float, *, seed: int) -> Examples:
    """Take a seeded, stratified fraction of the examples.

    Args:
        examples: all of them.
        fraction: in (0, 1]; 1 returns all.
        seed: decides which.

    Returns:
        About `fraction * len(examples)` of them, at least one.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction lies in (0, 1], not {fraction}")
    if fraction == 1:
        return examples
    chosen = stratified_split(examples.labels, (fraction,), seed=seed)[0]
    if not len(chosen):  # so few of each class that the fraction of each is rounded to none
        chosen = torch.randperm(len(examples), generator=generator("one", seed))[:1]
    return examples.take(chosen)


def of_images(name: str, images: Tensor, labels: Tensor, parts: list[Tensor]) -> Dataset:
    """Make a data set of pictures, normalised by the mean and deviation of its training set.

    Args:
        name: of the data set.
        images: with pixels in [0, 1], float32, shape (n, channels, height, width).
        labels: int64, shape (n,), from 0.
        parts: indices of the test, validation and training sets.

    Raises:
        WatermarkError: `malformed`, pictures without pixels, or too few of them to learn from and to measure on.
    """
    test, validation, train = parts
    if not images.numel():
        raise WatermarkError("malformed", f"pictures of shape {tuple(images.shape[1:])} have no pixels")
    if len(train) < _TRAINED_LEAST or not len(validation) or not len(test):
        counts = f"{len(train)} for training, {len(validation)} for validation and {len(test)} for the test"
        raise WatermarkError("malformed", f"too few pictures: {counts}; some dozens of each class are wanted")
    pixels = images[train]
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp_min(1e-4)
    levels = Normalisation(
        mean=tuple(f"{value:.4f}" for value in mean.tolist()), std=tuple(f"{value:.4f}" for value in std.tolist())
    )
    every = Examples(levels.apply(images), labels)
    _, channels, height, width = images.shape
    spec = InputSpec(channels, height, width, levels)
    classes = int(labels.max()) + 1
    return Dataset(name, classes, spec, every.take(train), every.take(validation), every.take(test))


def plain_array(value: object, name: str) -> NDArray[np.generic]:
    """Return what an archive holds under a name; raises WatermarkError, `malformed`, where that is no array."""
    if not isinstance(value, np.ndarray):  # numpy hands out the bytes of what it does not know
        raise WatermarkError("malformed", f"{name} is not an array; write the file with numpy.savez")
    return value


def _read_npz(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: plain_array(archive[name], name) for name in _NPZ_ARRAYS}
    except WatermarkError:
        raise
    except KeyError as error:
        raise WatermarkError("malformed", f"it lacks an array: needs {', '.join(_NPZ_ARRAYS)}") from error
    except NPZ_ERRORS as error:
        # What numpy says is left out: of anything that is no archive it says that it should be unpickled.
        raise WatermarkError("malformed", "not an .npz file of plain arrays; write one with numpy.savez") from error


def _as_examples(arrays: dict[str, NDArray[np.generic]], part: str) -> tuple[Tensor, Tensor]:
    images, labels = _as_images(arrays[f"x_{part}"], f"x_{part}"), _as_labels(arrays[f"y_{part}"], f"y_{part}")
    if len(images) != len(labels):
        raise WatermarkError("malformed", f"x_{part} has {len(images)} images, but y_{part} {len(labels)} labels")
    return images, labels


def _as_images(array: NDArray[np.generic], name: str) -> Tensor:
    if array.dtype != np.uint8 or array.ndim not in {3, 4} or not len(array):
        raise WatermarkError("malformed", f"{name} must be uint8 of shape (n, height, width) or (..., channels)")
    images = torch.from_numpy(array).float() / 255
    if images.ndim == 3:
        return images[:, None].repeat(1, 3, 1, 1)
    images = images.permute(0, 3, 1, 2).contiguous()
    return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images


def _as_labels(array: NDArray[np.generic], name: str) -> Tensor:
    is_row = array.ndim == 1 and array.dtype.kind in "iu" and len(array) > 0
    if not is_row or not 0 <= int(array.min()) <= int(array.max()) <= _LABEL_MAX:
        raise WatermarkError("malformed", f"{name} must be a row of integers from 0 to {_LABEL_MAX} at most")
    return torch.from_numpy(array.astype(np.int64))
