"""Promised: pictures are read from their authors' files, nothing is unpickled, and a file that is none is named."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wm.datasets import load
from wm.errors import WatermarkError

SOURCE = np.random.default_rng(1)
SIZES = {"train": 40, "t10k": 10}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, *, zipped: bool = False) -> dict[str, np.ndarray]:
    root.mkdir(parents=True, exist_ok=True)
    images = {part: SOURCE.integers(0, 256, (size, 28, 28), dtype=np.uint8) for part, size in SIZES.items()}
    for part, size in SIZES.items():
        for stem, array in {"images-idx3": images[part], "labels-idx1": np.arange(size, dtype=np.uint8) % 4}.items():
            content = idx(array)
            name = f"{part}-{stem}-ubyte" + (".gz" if zipped else "")
            (root / name).write_bytes(gzip.compress(content) if zipped else content)
    return images


@pytest.mark.parametrize(
    ("name", "place", "zipped"),
    [("mnist", "", False), ("mnist", "MNIST/raw", True), ("fashion-mnist", "FashionMNIST/raw", False),
     ("fashion-mnist", "raw", True)],
)  # fmt: skip
def test_idx_files_become_a_data_set(tmp_path: Path, name: str, place: str, zipped: bool) -> None:
    images = write_mnist(tmp_path / place, zipped=zipped)
    loaded = load(f"{name}:{tmp_path}")
    assert (loaded.name, loaded.classes, str(loaded.input)) == (name, 4, "3 x 28 x 28")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (36, 4, 10)
    assert loaded.test.labels.tolist() == [number % 4 for number in range(10)]
    levels = loaded.input.normalisation
    shown = loaded.test.images[:, 2] * float(levels.std[2]) + float(levels.mean[2])
    assert torch.allclose(shown * 255, torch.from_numpy(images["t10k"]).float(), atol=1e-3)


@pytest.mark.parametrize(
    ("file", "content", "needle"),
    [
        ("train-images-idx3-ubyte", None, "train-images-idx3-ubyte"),
        ("t10k-labels-idx1-ubyte", None, "t10k-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 28, 28), np.uint8))[:-1], "cut short"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 28, 28), np.uint8)) + b"x", "cut short"),
        ("train-images-idx3-ubyte", b"", "cut short"),
        ("train-images-idx3-ubyte", idx(np.zeros((40, 28), np.uint8)), "3 dimensions"),
        ("train-images-idx3-ubyte", b"\x00\x00\x0d\x03" + bytes(12), "no idx file"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 28, 28), np.uint8)), "no idx file"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4), "cut short"),
        ("train-labels-idx1-ubyte", idx(np.zeros(39, np.uint8)), "39 labels"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((10, 20, 28), np.uint8)), "different sizes"),
    ],
)
def test_idx_files_that_are_none_are_refused_by_name(
    tmp_path: Path, file: str, content: bytes | None, needle: str
) -> None:
    write_mnist(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(WatermarkError, match=needle) as caught:
        load(f"mnist:{tmp_path}")
    assert caught.value.code == "malformed"


def test_a_zipped_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-30], b"no gzip", whole[:10] + b"\xff" * 4 + whole[14:]):
        path.write_bytes(content)
        with pytest.raises(WatermarkError, match="gzip"):
            load(f"mnist:{tmp_path}")


def write_cifar(root: Path, *, records: int = 16) -> np.ndarray:
    root.mkdir(parents=True, exist_ok=True)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        content = SOURCE.integers(0, 256, (records, 3073), dtype=np.uint8)
        content[:, 0] = np.arange(records) % 8
        (root / name).write_bytes(content.tobytes())
    return content


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_the_binary_version_of_cifar_10_becomes_a_data_set(tmp_path: Path, place: str) -> None:
    last = write_cifar(tmp_path / place)
    loaded = load(f"cifar10:{tmp_path}")
    assert (loaded.classes, str(loaded.input), len(loaded.train) + len(loaded.validation)) == (8, "3 x 32 x 32", 80)
    levels = loaded.input.normalisation
    red = loaded.test.images[0, 0] * float(levels.std[0]) + float(levels.mean[0])
    assert torch.allclose(red.flatten() * 255, torch.from_numpy(last[0, 1:1025]).float(), atol=1e-3)


def test_the_pickled_version_of_cifar_10_is_refused_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x04}.")
    with pytest.raises(WatermarkError, match="binary version") as caught:
        load(f"cifar10:{tmp_path}")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes([10]) + bytes(3072)])
def test_a_batch_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(WatermarkError, match="data_batch_3"):
        load(f"cifar10:{tmp_path}")


def write_folder(root: Path) -> Path:
    for part, count in (("train", 10), ("test", 3)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((24, 32, 3), 200 if label == "dog" else 50, np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number}.png")
    return root


def test_a_directory_of_pictures_becomes_a_data_set(tmp_path: Path) -> None:
    loaded = load(str(write_folder(tmp_path / "pets")))
    assert (loaded.name, loaded.classes, str(loaded.input)) == ("pets", 2, "3 x 24 x 32")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (18, 2, 6)
    bright = loaded.test.images.mean((1, 2, 3)) > 0
    assert bright.tolist() == [False] * 3 + [True] * 3
    assert loaded.test.labels.tolist() == [0] * 3 + [1] * 3


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (lambda root: (root / "train" / "cat").rename(root / "train" / "lion"), "different names"),
        (lambda root: [file.unlink() for file in (root / "test" / "cat").iterdir()], "no pictures"),
        (lambda root: (root / "test" / "cat").rename(root / "elsewhere"), "no two folders"),
        (lambda root: (root / "test" / "cat" / "0.png").write_bytes(b"no picture"), "0.png"),
        (lambda root: Image.new("RGB", (32, 24)).save(root / "test" / "cat" / "9.png", format="GIF"), "9.png"),
        (lambda root: (root / "test" / "cat" / "9.png").write_bytes(
            (root / "test" / "cat" / "0.png").read_bytes()[:60]), "9.png"),
        (lambda root: Image.new("RGB", (9, 9)).save(root / "test" / "cat" / "9.png"), "different sizes"),
        (lambda root: Image.new("RGB", (1025, 9)).save(root / "test" / "cat" / "9.png"), "1024 pixels"),
    ],
)  # fmt: skip
def test_a_directory_that_is_none_is_refused_by_name(tmp_path: Path, change, needle: str) -> None:
    change(write_folder(tmp_path))
    with pytest.raises(WatermarkError, match=needle) as caught:
        load(str(tmp_path))
    assert caught.value.code in {"malformed", "too_large"}
