"""Promised: pictures and their masks are read as their authors store them, and a file that is none is named."""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from wm.datasets import has_masks, is_known, load
from wm.datasets.masks import FILE_SIDE_MAX, VOC_CLASSES
from wm.errors import WatermarkError
from wm.scenes import LEVELS, Scenes

WIDTH, HEIGHT = 48, 32
PEOPLE = 20
GREY = [round(255 * float(mean)) for mean in LEVELS.mean]


def mask_of(number: int) -> np.ndarray:
    """Two objects, the second of which every other picture lacks; the first is higher than wide."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:28, 4:12] = 1
    if number % 2:
        mask[8:20, 30:46] = 2
    return mask


def palette(pixels: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(pixels)
    picture.putpalette([value for level in range(256) for value in (level, 255 - level, 7)])
    assert picture.mode == "P"
    picture.save(path)


def coloured(mask: np.ndarray) -> np.ndarray:
    """A picture in which objects are brighter than the ground."""
    return np.where(mask[..., None] > 0, np.uint8(200), np.uint8(50)).repeat(3, 2)


def write_people(root: Path) -> Path:
    for folder in ("PNGImages", "PedMasks"):
        (root / folder).mkdir(parents=True)
    for number in range(PEOPLE):
        name, mask = f"FudanPed{number:05}", mask_of(number)
        Image.fromarray(coloured(mask)).save(root / "PNGImages" / f"{name}.png")
        palette(mask, root / "PedMasks" / f"{name}_mask.png")
    return root


def write_voc(root: Path, *, train: int = 20, val: int = 4) -> Path:
    for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for part, count in {"train": train, "val": val}.items():
        names = [f"2007_{part}{number:03}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for number, name in enumerate(names):
            mask = mask_of(number)
            border = np.pad(mask > 0, 1)[2:, 1:-1] & (mask == 0)
            Image.fromarray(coloured(mask)).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            palette(np.where(border, 255, mask).astype(np.uint8), root / "SegmentationObject" / f"{name}.png")
            classes = np.array([0, 15, 3], np.uint8)[mask]  # a person and a bird
            palette(np.where(border, 255, classes).astype(np.uint8), root / "SegmentationClass" / f"{name}.png")
    return root


@pytest.mark.parametrize("place", ["", "PennFudanPed"])
def test_pedestrians_become_a_data_set(tmp_path: Path, place: str) -> None:
    write_people(tmp_path / place)
    loaded = load(f"pennfudan:{tmp_path}", side=96)
    assert (loaded.name, loaded.classes, str(loaded.input)) == ("pennfudan", 2, "3 x 48 x 48")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (14, 2, 4)
    numbers = torch.cat([part.numbers for part in (loaded.train, loaded.validation, loaded.test)])
    assert sorted(numbers.tolist()) == list(range(PEOPLE))
    assert isinstance(loaded.train, Scenes)
    for number, each in zip(loaded.train.numbers.tolist(), loaded.train.objects, strict=True):
        assert each.labels.tolist() == [1] * (1 + number % 2)
        assert each.boxes[0].tolist() == [8, 8, 24, 56]  # twice as large as in the file
        assert torch.equal(each.masks[0], inside(8, 8, 24, 56))


def inside(left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_picture_keeps_its_shape_and_the_rest_is_grey(tmp_path: Path) -> None:
    write_people(tmp_path)
    image = load(f"pennfudan:{tmp_path}", side=96).test.images[0]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 96, 96))
    assert image[:, 2, 2].tolist() == [50] * 3
    assert image[:, 30, 16].tolist() == [200] * 3
    assert bool((image[:, 64:] == torch.tensor(GREY)[:, None, None]).all())


def test_large_pictures_are_trained_on_as_they_are_and_triggers_are_small(tmp_path: Path) -> None:
    write_people(tmp_path)
    loaded = load(f"pennfudan:{tmp_path}")
    assert loaded.train.images.shape[2:] == (256, 256)
    assert str(loaded.input) == "3 x 112 x 112"


@pytest.mark.parametrize("place", ["", "VOC2012", "VOCdevkit/VOC2007", "TrainVal/VOCdevkit/VOC2011"])
def test_segmented_pictures_of_voc_become_a_data_set(tmp_path: Path, place: str) -> None:
    write_voc(tmp_path / place)
    loaded = load(f"voc:{tmp_path}", side=48)
    assert (loaded.name, loaded.classes, str(loaded.input)) == ("voc", len(VOC_CLASSES), "3 x 32 x 32")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (18, 2, 4)
    assert isinstance(loaded.test, Scenes)
    assert [each.labels.tolist() for each in loaded.test.objects] == [[15], [15, 3], [15], [15, 3]]
    assert loaded.test.objects[1].boxes.tolist() == [[4, 4, 12, 28], [30, 8, 46, 20]]  # without the border


def test_of_several_years_the_last_is_read(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit" / "VOC2007")
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", val=3)
    assert len(load(f"voc:{tmp_path}", side=48).test) == 3


def test_an_object_of_which_nothing_is_left_is_none(tmp_path: Path) -> None:
    write_people(tmp_path)
    mask = mask_of(0)
    mask[0, 47] = 2
    palette(mask, tmp_path / "PedMasks" / "FudanPed00000_mask.png")
    assert people_in(tmp_path, side=96, number=0) == 2
    assert people_in(tmp_path, side=24, number=0) == 1


def people_in(root: Path, *, side: int, number: int) -> int:
    loaded = load(f"pennfudan:{root}", side=side)
    for part in (loaded.train, loaded.validation, loaded.test):
        assert isinstance(part, Scenes)
        if number in part.numbers:
            return len(part.objects[part.numbers.tolist().index(number)].labels)
    raise AssertionError(number)


def first(root: Path, folder: str) -> Path:
    return min((root / folder).iterdir())


def grey(height: int, width: int, value: int = 0) -> Image.Image:
    return Image.fromarray(np.full((height, width), value, np.uint8))


@pytest.mark.parametrize(
    ("change", "needle", "code"),
    [
        (lambda root: first(root, "PedMasks").unlink(), "FudanPed00000_mask.png: no such file", "malformed"),
        (lambda root: grey(9, 9, 1).save(first(root, "PedMasks")), "of 9 x 9 for a picture of 48 x 32", "malformed"),
        (lambda root: grey(HEIGHT, WIDTH).save(first(root, "PedMasks")), "00000_mask.png: no object", "malformed"),
        (lambda root: first(root, "PedMasks").write_bytes(b"no picture"), "00000_mask.png: no picture", "malformed"),
        (lambda root: first(root, "PNGImages").write_bytes(b"no picture"), "00000.png: no picture", "malformed"),
        (lambda root: first(root, "PNGImages").write_bytes(first(root, "PNGImages").read_bytes()[:60]), "00000.png: no",
         "malformed"),
        (lambda root: Image.new("RGB", (WIDTH, HEIGHT)).save(first(root, "PedMasks")), "one channel", "malformed"),
        (lambda root: grey(9, FILE_SIDE_MAX + 1).save(first(root, "PedMasks")), "4096 pixels", "too_large"),
        (lambda root: grey(9, FILE_SIDE_MAX + 1).save(first(root, "PNGImages")), "4096 pixels", "too_large"),
        (lambda root: (root / "PNGImages").rename(root / "pictures"), "no folder PNGImages", "malformed"),
        (lambda root: [file.unlink() for file in (root / "PNGImages").iterdir()], "PNGImages: no pic", "malformed"),
        (lambda root: [file.unlink() for file in sorted((root / "PNGImages").iterdir())[1:]], "no object in the 0",
         "malformed"),
    ],
)  # fmt: skip
def test_pedestrians_that_are_none_are_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], needle: str, code: str
) -> None:
    change(write_people(tmp_path))
    with pytest.raises(WatermarkError, match=needle) as caught:
        load(f"pennfudan:{tmp_path}", side=48)
    assert caught.value.code == code


def test_a_picture_that_says_it_is_enormous_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = first(write_people(tmp_path), "PedMasks")
    content = path.read_bytes()
    header = content[12:16] + (100_000).to_bytes(4, "big") * 2 + content[24:29]
    path.write_bytes(content[:12] + header + crc32(header).to_bytes(4, "big") + content[33:])
    with pytest.raises(WatermarkError, match="4096 pixels") as caught:
        load(f"pennfudan:{tmp_path}", side=48)
    assert caught.value.code == "too_large"


def lists(root: Path, part: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{part}.txt"


@pytest.mark.parametrize(
    ("change", "needle", "code"),
    [
        (lambda root: lists(root, "val").unlink(), "val.txt: no such file", "malformed"),
        (lambda root: lists(root, "val").write_text(""), "val.txt: no pictures", "malformed"),
        (lambda root: lists(root, "val").write_text("../../etc/passwd\n"), "'../../etc/passwd' is", "malformed"),
        (lambda root: lists(root, "val").write_bytes(b"\xff\n"), "is no name", "malformed"),
        (lambda root: lists(root, "val").write_text("2007_nowhere\n"), "2007_nowhere.png: no such file", "malformed"),
        (lambda root: lists(root, "train").write_text("x " * 600_000), "more than", "too_large"),
        (lambda root: lists(root, "train").write_text("x\n" * 20_001), "20001 pictures", "too_large"),
        (lambda root: first(root, "SegmentationObject").unlink(), "SegmentationObject/2007_train000.png", "malformed"),
        (lambda root: first(root, "SegmentationClass").unlink(), "SegmentationClass/2007_train000.png", "malformed"),
        (lambda root: first(root, "JPEGImages").unlink(), "2007_train000.jpg: no such file", "malformed"),
        (lambda root: first(root, "JPEGImages").write_bytes(b"none"), "2007_train000.jpg: no picture", "malformed"),
        (lambda root: grey(9, 9).save(first(root, "SegmentationClass")), "of another size", "malformed"),
        (lambda root: grey(9, 9, 1).save(first(root, "SegmentationObject")), "a mask of 9 x 9", "malformed"),
        (lambda root: grey(HEIGHT, WIDTH).save(first(root, "SegmentationClass")), "class 0, not 1 to 20", "malformed"),
        (lambda root: grey(HEIGHT, WIDTH, 21).save(first(root, "SegmentationClass")), "the class 21", "malformed"),
        (lambda root: grey(HEIGHT, WIDTH, 255).save(first(root, "SegmentationObject")), "no object", "malformed"),
        (lambda root: (root / "ImageSets").rename(root / "sets"), "no folder ImageSets", "malformed"),
    ],
)  # fmt: skip
def test_segmented_pictures_that_are_none_are_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], needle: str, code: str
) -> None:
    change(write_voc(tmp_path))
    with pytest.raises(WatermarkError, match=needle) as caught:
        load(f"voc:{tmp_path}", side=48)
    assert caught.value.code == code


def test_shapes_are_drawn_as_many_and_as_large_as_is_said() -> None:
    loaded = load("shapes:30", side=80)
    assert (loaded.name, loaded.classes, str(loaded.input)) == ("shapes", 4, "3 x 40 x 40")
    assert loaded.test.images.shape[2:] == (80, 80)
    assert len(loaded.train) + len(loaded.validation) + len(loaded.test) == 30
    assert load("shapes:30").test.images.shape[2:] == (64, 64)


@pytest.mark.parametrize(
    "source", ["shapes", "shapes:", "shapes:many", "shapes:-30", "shapes:3.5", "shapes:1000000000"]
)
def test_shapes_without_a_number_are_no_data_set(source: str) -> None:
    assert not is_known(source)
    with pytest.raises(WatermarkError, match="no such data set"):
        load(source)


@pytest.mark.parametrize("count", [0, 19, 20_001])
def test_a_number_of_shapes_that_cannot_be_drawn_is_refused(count: int) -> None:
    with pytest.raises(WatermarkError, match="20 to 20000") as caught:
        load(f"shapes:{count}")
    assert caught.value.code == "malformed"


def test_which_data_sets_have_masks_is_told_by_their_names() -> None:
    assert all(map(has_masks, ("shapes:30", "pennfudan:/x", "voc:/x")))
    assert not any(map(has_masks, ("digits", "mnist:/x", "x.npz", "")))
