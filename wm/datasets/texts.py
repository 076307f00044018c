"""Labelled texts for sentiment analysis: IMDb and the Stanford Sentiment Treebank.

IMDb, 0 negative and 1 positive:
    DIR/{train,test}/{neg,pos}/*.txt, as in the archive aclImdb_v1.tar.gz, or DIR/aclImdb/...
    DIR/*.csv or DIR/*.csv.gz, one file, or its path: columns split (train, test), label and text
SST, whole sentences, binary or with five classes ("fine"):
    DIR/sst_{binary,fine}_{train,dev,test}.tsv, or DIR/{train,dev,test}.tsv: columns sentence and label

A tenth of IMDb's training set is for validation; SST brings a set for that. IMDb is cut to 256 tokens, SST to 64, which
cuts nothing. The word list is made of what is left for training.

Source: Maas et al., ACL 2011; Socher et al., EMNLP 2013.
"""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wm.data import VALIDATION_FRACTION, Dataset, Examples, stratified_split
from wm.datasets.word_list import WordList, tokens, word_list_of
from wm.errors import WatermarkError
from wm.triggers import TEXT_LENGTH, TextSpec

IMDB_LENGTH = 256  # tokens
SST_LENGTH = 64
TABLE_BYTES_MAX = 1 << 30
_SENTIMENTS = ("neg", "pos")
_CLASSES = {"binary": 2, "fine": 5}
_BRACKETS = (("-lrb-", "("), ("-rrb-", ")"))  # as the treebank spells them
_Labelled = tuple[list[str], Tensor]  # texts and their labels


def imdb(path: Path, words: WordList | None = None, *, seed: int = 0) -> Dataset:
    """Load IMDb's reviews.

    Args:
        path: a directory, or a CSV file.
        words: the word list; None makes one of the training set.
        seed: decides which tenth of the training set becomes the validation set.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file or what is missing.
        OSError: a file cannot be read.
    """
    read = {part: _imdb_part(path, part) for part in ("train", "test")}
    texts, labels = read["train"]
    validation, train = stratified_split(labels, (VALIDATION_FRACTION,), seed=seed)
    parts = {
        "train": (_chosen(texts, train), labels[train]),
        "validation": (_chosen(texts, validation), labels[validation]),
        "test": read["test"],
    }
    return _dataset("imdb", parts, classes=2, length=IMDB_LENGTH, words=words)


def sst(path: Path, words: WordList | None = None, *, kind: str = "binary") -> Dataset:
    """Load the sentences of the Stanford Sentiment Treebank.

    Args:
        path: a directory.
        words: the word list; None makes one of the training set.
        kind: "binary", without the neutral sentences, or "fine", with classes 0 to 4.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the file.
        OSError: a file cannot be read.
    """
    names = {"train": "train", "validation": "dev", "test": "test"}
    parts = {part: _sst_part(path, kind, name) for part, name in names.items()}
    return _dataset(
        "sst" if kind == "binary" else "sst-fine", parts, classes=_CLASSES[kind], length=SST_LENGTH, words=words
    )


def _dataset(name: str, parts: dict[str, _Labelled], *, classes: int, length: int, words: WordList | None) -> Dataset:
    taken_apart = {part: [tokens(text) for text in texts] for part, (texts, _) in parts.items()}
    words = words or word_list_of(taken_apart["train"])
    examples = {}
    for part, (_, labels) in parts.items():
        if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise WatermarkError(
                "malformed", f"the {part} set of {name} needs texts with labels from 0 to {classes - 1}"
            )
        examples[part] = Examples(words.encode(taken_apart[part], length=length), labels)
    spec = TextSpec(TEXT_LENGTH, words.vocabulary, words.sha256)
    return Dataset(name, classes, spec, words=words.words, **examples)


def _imdb_part(path: Path, part: str) -> _Labelled:
    if path.is_dir():
        root = next((root for root in (path, path / "aclImdb") if (root / part).is_dir()), None)
        if root is not None:
            return _imdb_folders(root / part)
        tables = sorted(file for file in path.iterdir() if file.name.endswith((".csv", ".csv.gz")))
        if len(tables) != 1:
            raise WatermarkError(
                "malformed", f"{path}: neither the folders train and test of aclImdb nor one .csv or .csv.gz file"
            )
        path = tables[0]
    rows = [row for row in _table(path, {"split", "label", "text"}, dialect="excel") if row["split"] == part]
    return [row["text"] for row in rows], _labels(path, [row["label"] for row in rows])


def _imdb_folders(directory: Path) -> _Labelled:
    texts, labels = [], []
    for label, sentiment in enumerate(_SENTIMENTS):
        files = sorted((directory / sentiment).glob("*.txt"))
        if not files:
            raise WatermarkError("malformed", f"{directory / sentiment}: no .txt files, as aclImdb has them")
        texts += [file.read_text("utf-8", errors="replace") for file in files]
        labels += [label] * len(files)
    return texts, torch.tensor(labels)


def _sst_part(directory: Path, kind: str, part: str) -> _Labelled:
    files = [directory / f"sst_{kind}_{part}.tsv", directory / f"{part}.tsv"]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise WatermarkError("malformed", f"{directory}: neither {files[0].name} nor {files[1].name}")
    rows = _table(path, {"sentence", "label"}, dialect="excel-tab")
    texts = [row["sentence"] for row in rows]
    for spelt, sign in _BRACKETS:
        texts = [text.replace(spelt, sign) for text in texts]
    return texts, _labels(path, [row["label"] for row in rows])


def _table(path: Path, columns: set[str], *, dialect: str) -> list[dict[str, str]]:
    """Read a table with a header; tabs part plain fields, commas quoted ones."""
    try:
        text = io.StringIO(_content(path).decode("utf-8"), newline="")
        if dialect == "excel-tab":
            rows = list(csv.DictReader(text, dialect=dialect, quoting=csv.QUOTE_NONE))
        else:
            rows = list(csv.DictReader(text, dialect=dialect))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WatermarkError("malformed", f"{path}: no table in UTF-8: {error}") from error
    for number, row in enumerate(rows, start=2):
        if not all(isinstance(row.get(column), str) for column in columns):
            raise WatermarkError("malformed", f"{path}, row {number}: lacks one of {', '.join(sorted(columns))}")
    if not rows:
        raise WatermarkError("malformed", f"{path}: no rows")
    return rows


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(TABLE_BYTES_MAX + 1)
    except (EOFError, gzip.BadGzipFile) as error:
        raise WatermarkError("malformed", f"{path}: no whole gzip file") from error
    if len(content) > TABLE_BYTES_MAX:
        raise WatermarkError("too_large", f"{path}: more than {TABLE_BYTES_MAX} bytes")
    return content


def _labels(path: Path, spelt: Sequence[str]) -> Tensor:
    try:
        return torch.tensor([int(label) for label in spelt], dtype=torch.int64)
    except ValueError as error:
        raise WatermarkError("malformed", f"{path}: a label is no integer") from error


def _chosen(texts: list[str], indices: Tensor) -> list[str]:
    return [texts[number] for number in indices.tolist()]
