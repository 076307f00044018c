"""Promised: splits are disjoint, stratified and decided by their seed; files are checked."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from wm import data
from wm.errors import WatermarkError


def test_the_digits_are_split_once_and_for_all() -> None:
    first, again = data.digits(), data.digits()
    assert (len(first.train), len(first.validation), len(first.test)) == (1258, 180, 359)
    assert first.train.images.shape[1:] == (3, 32, 32)
    assert torch.equal(first.test.images, again.test.images)
    assert first.input.normalisation.mean == ("0.3049",) * 3
    assert float(first.train.images.mean()) == pytest.approx(0, abs=1e-3)
    assert float(first.train.images.std()) == pytest.approx(1, abs=1e-3)


def test_another_seed_splits_otherwise() -> None:
    assert not torch.equal(data.digits(seed=1).test.labels, data.digits(seed=0).test.labels)


def test_every_class_is_divided_alike_and_no_index_is_lost() -> None:
    labels = torch.tensor([0] * 100 + [1] * 40 + [2] * 10)
    parts = data.stratified_split(labels, (0.2, 0.1), seed=3)
    assert sorted(torch.cat(parts).tolist()) == list(range(150))
    assert [labels[part].bincount().tolist() for part in parts] == [[20, 8, 2], [10, 4, 1], [70, 28, 7]]


def test_a_fraction_takes_its_share_of_every_class() -> None:
    digits = data.digits()
    tenth = data.fraction_of(digits.train, 0.1, seed=1)
    assert abs(len(tenth) - 126) <= 3
    assert int(tenth.labels.bincount().min()) >= 12
    assert data.fraction_of(digits.train, 1, seed=1) is digits.train


def test_a_fraction_of_few_examples_is_at_least_one_of_them_the_same_for_one_seed() -> None:
    few = data.Examples(torch.arange(4), torch.arange(4))
    chosen = [int(data.fraction_of(few, 0.1, seed=seed).labels) for seed in (1, 1, 2, 3, 4, 5, 6)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        data.fraction_of(data.digits().train, fraction, seed=1)


def arrays() -> dict[str, np.ndarray]:
    source = np.random.default_rng(1)
    sizes = {"train": 40, "test": 10}
    images = {f"x_{part}": source.integers(0, 256, (size, 24, 22), dtype=np.uint8) for part, size in sizes.items()}
    return images | {f"y_{part}": np.arange(size) % 4 for part, size in sizes.items()}


def test_an_npz_file_becomes_a_data_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays())
    loaded = data.load_npz(tmp_path / "own.npz")
    assert (loaded.name, loaded.classes, loaded.input.channels) == ("own", 4, 3)
    assert (loaded.input.height, loaded.input.width) == (24, 22)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (36, 4, 10)
    assert loaded.test.labels.tolist() == [number % 4 for number in range(10)]


def test_coloured_images_keep_their_channels(tmp_path: Path) -> None:
    coloured = arrays()
    for name in ("x_train", "x_test"):
        coloured[name] = np.stack([coloured[name]] * 4, axis=-1)
    np.savez(tmp_path / "own.npz", **coloured)
    assert data.load_npz(tmp_path / "own.npz").input.channels == 4


@pytest.mark.parametrize(
    "change",
    [
        {"x_train": np.zeros((40, 24, 22))},
        {"x_test": np.zeros((10, 24), dtype=np.uint8)},
        {"y_train": np.zeros(39, dtype=int)},
        {"y_test": np.full(10, -1)},
        {"y_test": np.zeros(10)},
        {"y_test": np.array([{}] * 10)},
        {"y_train": np.full(40, 2**63, dtype=np.uint64)},
        {"y_train": np.zeros(40, dtype="m8[s]")},
        {"x_train": np.zeros((40, 0, 22), dtype=np.uint8), "x_test": np.zeros((10, 0, 22), dtype=np.uint8)},
        {"x_train": np.zeros((1, 24, 22), dtype=np.uint8), "y_train": np.zeros(1, dtype=int)},
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "own.npz", **(arrays() | change))
    with pytest.raises(WatermarkError) as caught:
        data.load_npz(tmp_path / "own.npz")
    assert caught.value.code == "malformed"


def test_a_file_that_lacks_an_array_or_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", x_train=arrays()["x_train"])
    (tmp_path / "text.npz").write_text("hello")
    for name in ("part.npz", "text.npz"):
        with pytest.raises(WatermarkError) as caught:
            data.load_npz(tmp_path / name)
        assert caught.value.code == "malformed"


ABSURD = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**400},)}}".encode()
MEMBERS = {
    "nothing": b"",
    "no array": b"no array",
    "a header that is cut short": b"\x93NUMPY\x01\x00\x0e\x00{'descr': '|u1'",
    "a size beyond all bounds": b"\x93NUMPY\x01\x00" + len(ABSURD).to_bytes(2, "little") + ABSURD,
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_an_archive_of_something_else_is_refused(tmp_path: Path, member: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", member)
    with pytest.raises(WatermarkError) as caught:
        data.load_npz(tmp_path / "own.npz")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(("images", "labels"), [(40, 39), (39, 40)])
def test_images_and_labels_are_counted_part_by_part(tmp_path: Path, images: int, labels: int) -> None:
    shifted = arrays() | {"x_train": arrays()["x_train"][:images], "y_train": arrays()["y_train"][:labels]}
    total = len(shifted["x_train"]) + len(shifted["x_test"]) - labels  # the totals agree
    np.savez(tmp_path / "own.npz", **shifted | {"y_test": np.arange(total) % 4})
    with pytest.raises(WatermarkError, match="x_train has"):
        data.load_npz(tmp_path / "own.npz")


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays() | {"x_test": np.zeros((10, 8, 8), np.uint8)})
    with pytest.raises(WatermarkError, match="different sizes"):
        data.load_npz(tmp_path / "own.npz")


def test_a_file_that_is_cut_or_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "own.npz", **arrays())
    whole = (tmp_path / "own.npz").read_bytes()
    for position in range(0, len(whole) - 1, len(whole) // 40):
        for spoiled in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]):
            (tmp_path / "own.npz").write_bytes(spoiled)
            try:
                data.load_npz(tmp_path / "own.npz")
            except WatermarkError as error:
                assert error.code == "malformed"  # noqa: PT017 -- some bytes of a zip file matter to nobody
            else:
                assert spoiled != whole[:position]
