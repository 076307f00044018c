"""Promised: reviews and sentences are read from the layouts people have, and a file that is none is named."""

import csv
import gzip
from pathlib import Path

import pytest
import torch

from wm.data import Dataset
from wm.datasets import is_known, load
from wm.datasets.texts import IMDB_LENGTH, imdb
from wm.datasets.word_list import WordList
from wm.errors import WatermarkError

REVIEWS = [
    f"A fine<br />film no{number} isn't {'great' if number % 2 else 'bad'}, word{number % 70}!" for number in range(160)
]


def write_folders(root: Path) -> None:
    for part in ("train", "test"):
        for label, sentiment in enumerate(("neg", "pos")):
            (root / part / sentiment).mkdir(parents=True)
            for number, text in enumerate(REVIEWS[label::2]):
                (root / part / sentiment / f"{number:03}_7.txt").write_text(text)


def write_table(path: Path, rows: list[tuple[object, ...]], header: str = "split,label,text") -> Path:
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def rows() -> list[tuple[object, ...]]:
    every = [(0, text) for text in REVIEWS[::2]] + [(1, text) for text in REVIEWS[1::2]]
    return [(part, *row) for part in ("train", "test") for row in every]


def write_sst(root: Path, name: str = "sst_binary_{}", classes: int = 2) -> None:
    for part in ("train", "dev", "test"):
        lines = [f'{text.lower()} -lrb- "quoted\tend\t{number % classes}' for number, text in enumerate(REVIEWS)]
        lines = [line.replace("\tend", " end") for line in lines]
        (root / f"{name.format(part)}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")


def same(first: Dataset, second: Dataset) -> bool:
    return first.words == second.words and all(
        torch.equal(getattr(first, part).images, getattr(second, part).images) for part in ("train", "test")
    )


def test_reviews_in_folders_in_a_table_and_in_a_zipped_table_are_the_same(tmp_path: Path) -> None:
    write_folders(tmp_path / "a" / "aclImdb")
    (tmp_path / "b").mkdir()
    write_table(tmp_path / "b" / "reviews.csv.gz", rows())
    write_table(tmp_path / "plain.csv", rows())
    folders, zipped, plain = (load(f"imdb:{tmp_path / name}") for name in ("a", "b", "plain.csv"))
    assert (len(folders.train), len(folders.validation), len(folders.test)) == (144, 16, 160)
    assert folders.classes == 2
    assert folders.test.labels.tolist() == [0] * 80 + [1] * 80
    assert same(folders, zipped)
    assert same(folders, plain)


def test_a_review_becomes_ids_and_ends_in_padding(tmp_path: Path) -> None:
    loaded = imdb(write_table(tmp_path / "r.csv", rows()))
    assert loaded.words is not None
    ids = loaded.test.images[0]
    spelt = [loaded.words[number - 2] if number > 1 else "?" for number in ids[ids > 0].tolist()]
    assert spelt == ["a", "fine", "film", "?", "is", "n't", "bad", ",", "word0", "!"]
    assert ids.shape == (IMDB_LENGTH,)
    assert not bool(ids[10:].any())
    assert loaded.input.vocabulary == 2 + len(loaded.words)
    assert loaded.input.words_sha256 == WordList(loaded.words).sha256


def test_the_word_list_is_made_of_the_training_set_alone(tmp_path: Path) -> None:
    changed = [(part, label, f"{text} secret secret" if part == "test" else text) for part, label, text in rows()]
    loaded = imdb(write_table(tmp_path / "r.csv", changed))
    assert loaded.words is not None
    assert "secret" not in loaded.words
    assert loaded.words == imdb(write_table(tmp_path / "s.csv", rows())).words


def test_a_given_word_list_is_used(tmp_path: Path) -> None:
    words = WordList((*(f"filler{number}" for number in range(80)), "fine"))
    loaded = load(f"imdb:{write_table(tmp_path / 'r.csv', rows())}", words=words)
    assert loaded.words == words.words
    assert loaded.test.images[0, :3].tolist() == [1, 82, 1]


def test_sentences_are_read_with_their_brackets_and_quotes(tmp_path: Path) -> None:
    write_sst(tmp_path)
    loaded = load(f"sst:{tmp_path}")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test), loaded.classes) == (160, 160, 160, 2)
    assert loaded.words is not None
    assert {"(", '"', "quoted"} <= set(loaded.words)
    assert loaded.test.labels.tolist() == [0, 1] * 80


def test_five_classes_and_short_names_are_read_too(tmp_path: Path) -> None:
    write_sst(tmp_path, name="{}", classes=5)
    loaded = load(f"sst-fine:{tmp_path}")
    assert (loaded.name, loaded.classes) == ("sst-fine", 5)
    with pytest.raises(WatermarkError, match="labels from 0 to 1"):
        load(f"sst:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (lambda root: (root / "sst_binary_dev.tsv").unlink(), "sst_binary_dev.tsv"),
        (lambda root: (root / "sst_binary_dev.tsv").write_text("sentence\tlabel\n"), "no rows"),
        (lambda root: (root / "sst_binary_dev.tsv").write_text("sentence\nfine\n"), "row 2"),
        (lambda root: (root / "sst_binary_test.tsv").write_text("sentence\tlabel\nfine\n"), "row 2"),
        (lambda root: (root / "sst_binary_test.tsv").write_text("sentence\tlabel\nfine\tgood\n"), "no integer"),
        (lambda root: (root / "sst_binary_test.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n"), "UTF-8"),
        (lambda root: (root / "sst_binary_test.tsv").write_text("sentence\tlabel\nfine\t-1\n"), "labels from 0"),
        (lambda root: (root / "sst_binary_train.tsv").write_text("sentence\tlabel\nfine\t1\n"), "words"),
    ],
)
def test_sentences_that_are_none_are_refused_by_name(tmp_path: Path, change, needle: str) -> None:
    write_sst(tmp_path)
    change(tmp_path)
    with pytest.raises(WatermarkError, match=needle) as caught:
        load(f"sst:{tmp_path}")
    assert caught.value.code == "malformed"


def test_reviews_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    write_folders(tmp_path / "a")
    for file in (tmp_path / "a" / "test" / "pos").iterdir():
        file.unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "c.csv.gz").write_bytes(write_table(tmp_path / "d.csv.gz", rows()).read_bytes()[:-20])
    (tmp_path / "e.csv.gz").write_text("split,label,text")
    write_table(tmp_path / "f.csv", rows(), header="part,label,text")
    for name, needle in {
        "a": "test/pos", "b": "aclImdb", "c.csv.gz": "gzip", "e.csv.gz": "gzip", "f.csv": "row 2",
    }.items():  # fmt: skip
        with pytest.raises(WatermarkError, match=needle) as caught:
            load(f"imdb:{tmp_path / name}")
        assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "source", ["", "nodata", "sst", "sst:", "sst:/nowhere", "imdb:/nowhere.csv", "iris:/tmp", "x.npz"]
)
def test_a_source_that_is_nowhere_is_refused(source: str) -> None:
    assert not is_known(source)
    with pytest.raises(WatermarkError, match="no such data set"):
        load(source)
