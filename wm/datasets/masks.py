"""Pictures with a mask for each object, in the layouts of their authors: Penn-Fudan and Pascal VOC.

Penn-Fudan:  PNGImages/NAME.png and PedMasks/NAME_mask.png, in DIR or DIR/PennFudanPed
VOC:         ImageSets/Segmentation/{train,val}.txt, JPEGImages/NAME.jpg, SegmentationObject/NAME.png and
             SegmentationClass/NAME.png, in DIR, DIR/VOC2012 or DIR/VOCdevkit/VOC2012 (of several years the last)

A mask is a picture of one channel with the object's number in each of its pixels, and 0 beside them; VOC draws a border
of 255 around objects, which belongs to none. Pictures are brought to one square size: shrunk or enlarged until the
longer side fits, and filled up at the right or the bottom with the grey that a network's normalisation maps to about 0.
An object of which nothing is left at that size is none.

VOC is tested on its `val`, since the masks of its own test set are not published; a tenth of its `train` is for
validation. Of Penn-Fudan a fifth is for the test and a tenth for validation.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wm.data import TEST_FRACTION, VALIDATION_FRACTION, Dataset, stratified_split
from wm.datasets.pictures import opened
from wm.errors import WatermarkError
from wm.scenes import LEVELS, Objects, Scenes, input_of, scenes_of

SIDE = 256  # pixels to which pictures are brought
FILE_SIDE_MAX = 4096  # pixels of a file's picture
COUNT_MAX = 20_000  # pictures
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
_VOID = 255
_LISTS_BYTES_MAX = 1 << 20
_YEARS = tuple(f"VOC{year}" for year in range(2012, 2006, -1))
_VOC_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")
Scene = tuple[Tensor, Objects]  # pixels, uint8, shape (3, side, side), and the objects


def penn_fudan(path: Path, *, side: int = SIDE, seed: int = 0) -> Dataset:
    """Load Penn-Fudan: pedestrians, one class beside the background.

    Args:
        path: a directory.
        side: pixels to which the pictures are brought.
        seed: decides the split.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file.
        OSError: a file cannot be read.
    """
    root = next((root for root in (path, path / "PennFudanPed") if (root / "PNGImages").is_dir()), None)
    if root is None:
        raise WatermarkError("malformed", f"{path}: no folder PNGImages, also not in PennFudanPed")
    names = sorted(file.stem for file in (root / "PNGImages").glob("*.png"))
    _check_count(root / "PNGImages", names)

    def read(name: str) -> Scene:
        picture, mask = root / "PNGImages" / f"{name}.png", root / "PedMasks" / f"{name}_mask.png"
        return _scene(picture, mask, lambda _object, _where: 1, side=side)

    every = _scenes([read(name) for name in names])
    test, validation, train = stratified_split(every.labels, (TEST_FRACTION, VALIDATION_FRACTION), seed=seed)
    return _dataset("pennfudan", 2, every.take(train), every.take(validation), every.take(test))


def voc(path: Path, *, side: int = SIDE, seed: int = 0) -> Dataset:
    """Load the segmented pictures of Pascal VOC: twenty classes beside the background.

    Args:
        path: a directory.
        side: pixels to which the pictures are brought.
        seed: decides which tenth of `train` becomes the validation set.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file.
        OSError: a file cannot be read.
    """
    root = _voc_root(path)

    def read(name: str) -> Scene:
        classes = _numbers(root / "SegmentationClass" / f"{name}.png")
        mask = root / "SegmentationObject" / f"{name}.png"
        picture = root / "JPEGImages" / f"{name}.jpg"
        return _scene(picture, mask, lambda number, where: _voc_class(classes, number, where, mask), side=side)

    known, test = (_scenes([read(name) for name in _listed(root, part)]) for part in ("train", "val"))
    validation, train = stratified_split(known.labels, (VALIDATION_FRACTION,), seed=seed)
    return _dataset("voc", len(VOC_CLASSES), known.take(train), known.take(validation), test)


def _dataset(name: str, classes: int, train: Scenes, validation: Scenes, test: Scenes) -> Dataset:
    for what, part in {"training": train, "validation": validation, "test": test}.items():
        if not any(len(each.labels) for each in part.objects):
            message = f"{name}: no object in the {len(part)} pictures for {what}; take more pictures, or larger ones"
            raise WatermarkError("malformed", message)
    return Dataset(name, classes, input_of(train.images.shape[-1]), train, validation, test)


def _scenes(each: Sequence[Scene]) -> Scenes:
    return scenes_of(torch.stack([image for image, _ in each]), [objects for _, objects in each])


def _scene(
    picture_path: Path, mask_path: Path, class_of: Callable[[int, NDArray[np.bool_]], int], *, side: int
) -> Scene:
    """Read a picture and its mask, and bring both to one size.

    Args:
        picture_path: the picture.
        mask_path: the mask, of the same size.
        class_of: tells an object's class from its number and its pixels, bool, in the file's size.
        side: pixels.
    """
    numbers = _numbers(mask_path)
    with opened(_existing(picture_path), side_max=FILE_SIDE_MAX) as picture:
        width, height = picture.size
        if numbers.shape != (height, width):
            there = " x ".join(map(str, numbers.shape[::-1]))
            raise WatermarkError("malformed", f"{mask_path}: a mask of {there} for a picture of {width} x {height}")
        across, down = (max(1, round(length * side / max(width, height))) for length in (width, height))
        pixels = torch.from_numpy(np.array(picture.convert("RGB").resize((across, down))))
    image = torch.tensor([float(mean) for mean in LEVELS.mean]).mul(255).round().byte()
    image = image[:, None, None].repeat(1, side, side)
    image[:, :down, :across] = pixels.permute(2, 0, 1)
    found = [int(number) for number in np.unique(numbers) if number not in {0, _VOID}]
    if not found:
        raise WatermarkError("malformed", f"{mask_path}: no object in it; leave such pictures out")
    labels = torch.tensor([class_of(number, numbers == number) for number in found])
    masks = _brought(torch.from_numpy(numbers), found, down=down, across=across, side=side)
    left = masks.flatten(1).any(1)
    return image, Objects(labels[left], masks[left])


def _brought(numbers: Tensor, found: Sequence[int], *, down: int, across: int, side: int) -> Tensor:
    """Each object's mask in the new size, bool, shape (objects, side, side)."""
    shrunk = functional.interpolate(numbers[None, None].float(), size=(down, across), mode="nearest-exact")[0, 0]
    masks = torch.zeros(len(found), side, side, dtype=torch.bool)
    for mask, number in zip(masks, found, strict=True):
        mask[:down, :across] = shrunk == number
    return masks


def _numbers(path: Path) -> NDArray[np.uint8]:
    """Read a picture of numbers, shape (height, width)."""
    with opened(_existing(path), side_max=FILE_SIDE_MAX) as picture:
        if picture.mode not in {"L", "P"}:  # of one channel, as grey or with a palette
            message = (
                f"{path}: no picture of one channel with the number of an object in each pixel, but {picture.mode}"
            )
            raise WatermarkError("malformed", message)
        return np.array(picture)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise WatermarkError("malformed", f"{path}: no such file")
    return path


def _check_count(place: Path, names: Sequence[str]) -> None:
    if not names:
        raise WatermarkError("malformed", f"{place}: no pictures")
    if len(names) > COUNT_MAX:
        raise WatermarkError("too_large", f"{place}: {len(names)} pictures, more than {COUNT_MAX}")


def _voc_root(path: Path) -> Path:
    places = ("", *(f"{above}{year}" for year in _YEARS for above in ("", "VOCdevkit/", "TrainVal/VOCdevkit/")))
    root = next((path / place for place in places if (path / place / "ImageSets" / "Segmentation").is_dir()), None)
    if root is None:
        raise WatermarkError("malformed", f"{path}: no folder ImageSets/Segmentation, also not in VOCdevkit/VOC2012")
    return root


def _listed(root: Path, part: str) -> list[str]:
    path = _existing(root / "ImageSets" / "Segmentation" / f"{part}.txt")
    with path.open("rb") as file:
        content = file.read(_LISTS_BYTES_MAX + 1)
    if len(content) > _LISTS_BYTES_MAX:
        raise WatermarkError("too_large", f"{path}: more than {_LISTS_BYTES_MAX} bytes")
    names = content.decode("ascii", errors="replace").split()
    if wrong := next((name for name in names if not _VOC_NAME.fullmatch(name)), None):
        raise WatermarkError("malformed", f"{path}: {wrong[:80]!r} is no name of a picture")
    _check_count(path, names)
    return names


def _voc_class(classes: NDArray[np.uint8], number: int, where: NDArray[np.bool_], path: Path) -> int:
    """The class that most of an object's pixels have."""
    if classes.shape != where.shape:
        raise WatermarkError("malformed", f"{path}: of another size than the picture in SegmentationClass")
    label = int(np.bincount(classes[where]).argmax())
    if not 1 <= label < len(VOC_CLASSES):
        raise WatermarkError("malformed", f"{path}: object {number} has the class {label}, not 1 to 20")
    return label
