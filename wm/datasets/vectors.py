"""Word vectors that others trained, to begin an embedding with.

Either GloVe's text format, a word and its numbers on each line, or an .npz file with the arrays `words` (UTF-8 bytes,
words parted by line ends) and `vectors`, shape (words, dimension).

Source: Pennington, Socher, Manning, EMNLP 2014.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm.data import NPZ_ERRORS, plain_array
from wm.datasets.word_list import WordList
from wm.errors import WatermarkError
from wm.networks.bilstm import ARGUMENTS
from wm.triggers.words import FIRST_WORD


@dataclass(frozen=True, slots=True)
class WordVectors:
    """Vectors by token id.

    Attributes:
        rows: float32, shape (vocabulary, dimension); 0 where nothing is known.
        known: bool, shape (vocabulary,).
    """

    rows: Tensor
    known: Tensor

    @property
    def dimension(self) -> int:
        """Of a vector."""
        return self.rows.shape[1]


def load_vectors(path: Path, words: WordList) -> WordVectors:
    """Read the vectors of the words of a list.

    Raises:
        WatermarkError: `malformed`, the file is neither, or knows none of the words.
        OSError: it cannot be read.
    """
    numbers = {word: number for number, word in enumerate(words.words, start=FIRST_WORD)}
    pairs = _from_npz(path) if path.suffix == ".npz" else _from_text(path, wanted=numbers)
    found = {numbers[word]: vector for word, vector in pairs if word in numbers}
    sizes = {len(vector) for vector in found.values()}
    _, least, most = ARGUMENTS["dimension"]
    if len(sizes) != 1 or not least <= (dimension := min(sizes)) <= most:
        raise WatermarkError("malformed", f"{path}: no word vectors of one size for words of this list")
    rows, known = torch.zeros(words.vocabulary, dimension), torch.zeros(words.vocabulary, dtype=torch.bool)
    for number, vector in found.items():
        rows[number], known[number] = torch.from_numpy(vector), True
    if not bool(torch.isfinite(rows).all()):
        raise WatermarkError("malformed", f"{path}: a vector holds a value that is not finite")
    return WordVectors(rows, known)


def _from_text(path: Path, *, wanted: Container[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Read the lines of the words that are wanted; GloVe has up to two million others."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            word, _, rest = line.rstrip("\n").partition(" ")
            if word not in wanted:
                continue
            spelt = rest.split(" ")
            try:
                yield word, np.array(spelt, dtype=np.float32)
            except ValueError as error:
                raise WatermarkError("malformed", f"{path}, line {number}: not a word and its numbers") from error


def _from_npz(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            listed, vectors = (plain_array(archive[name], name) for name in ("words", "vectors"))
            words = listed.tobytes().decode().split("\n")
    except (*NPZ_ERRORS, KeyError) as error:
        raise WatermarkError("malformed", f"{path}: not an .npz file of the arrays words and vectors") from error
    if vectors.ndim != 2 or len(vectors) != len(words) or not np.issubdtype(vectors.dtype, np.floating):
        raise WatermarkError("malformed", f"{path}: vectors must be floating point, one row for each of the words")
    yield from zip(words, vectors.astype(np.float32), strict=True)
