"""A word list: what the token ids of a text network mean, and the tokeniser that goes with it.

One word a line, UTF-8, the most frequent first; the word of line k, from 0, has id k + 2. Id 0 is padding, 1 any other
word. The list is made of the training set alone, of words that occur there at least twice: those that occur once stand
in for the unknown ones, so that the network learns what to do with them. The list belongs to the model as its weights
do; `info` has its hash.

The tokeniser takes lower-case letters and digits in a row as a word and any other sign as one of its own, and parts
contractions as the Penn Treebank does (do n't, it 's), as public word vectors expect.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wm.errors import WatermarkError
from wm.networks.bilstm import ARGUMENTS, PADDING, VOCABULARY
from wm.triggers.words import FIRST_WORD

UNKNOWN = 1
OCCURRENCES_LEAST = 2
FILE_BYTES_MAX = 64 << 20
_TOKEN = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|\w+(?=n't\b)|\w+|[^\w\s]")
_BREAK = re.compile(r"<br\s*/?>")  # IMDb's reviews are pieces of HTML


@dataclass(frozen=True, slots=True)
class WordList:
    """Words in the order of their ids, from 2 on; different, none empty."""

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {word: number for number, word in enumerate(self.words, start=FIRST_WORD)})

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return FIRST_WORD + len(self.words)

    @property
    def sha256(self) -> str:
        """Hash of the file that `str` spells, lower-case hexadecimal."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __str__(self) -> str:
        return "".join(f"{word}\n" for word in self.words)

    def encode(self, texts: Iterable[Sequence[str]], *, length: int) -> Tensor:
        """Spell tokenised texts as ids.

        Args:
            texts: lists of tokens.
            length: tokens of a row; a longer text is cut, a shorter one ends in padding.

        Returns:
            int64, shape (n, length).
        """
        rows = [[self._ids.get(token, UNKNOWN) for token in text[:length]] for text in texts]
        return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.int64)


def tokens(text: str) -> list[str]:
    """Take a text apart."""
    return _TOKEN.findall(_BREAK.sub(" ", text).lower())


def word_list_of(texts: Iterable[Sequence[str]], *, vocabulary_max: int = VOCABULARY) -> WordList:
    """Make a word list of the most frequent words of tokenised texts; words as frequent are in alphabetical order.

    Raises:
        WatermarkError: `malformed`, so few words are left that no network of the catalogue takes them.
    """
    counts = Counter(token for text in texts for token in text)
    frequent = sorted((-count, word) for word, count in counts.items() if count >= OCCURRENCES_LEAST)
    return _checked(WordList(tuple(word for _, word in frequent[: vocabulary_max - FIRST_WORD])), "the training set")


def load_word_list(path: Path) -> WordList:
    """Read a word list.

    Raises:
        WatermarkError: `malformed`, it is no such list; `too_large`.
        OSError: it cannot be read.
    """
    if path.stat().st_size > FILE_BYTES_MAX:
        raise WatermarkError("too_large", f"{path.name} is larger than {FILE_BYTES_MAX} bytes")
    content = path.read_bytes()
    try:
        words = tuple(content.decode().split("\n")[:-1])
    except UnicodeDecodeError as error:
        raise WatermarkError("malformed", f"{path.name} is not UTF-8") from error
    found = WordList(words)
    if str(found).encode() != content or len(set(words)) < len(words) or not all(_is_word(word) for word in words):
        raise WatermarkError("malformed", f"{path.name} is no word list: different words, one a line, without spaces")
    return _checked(found, path.name)


def _is_word(word: str) -> bool:
    return bool(word) and not any(sign.isspace() for sign in word)


def _checked(words: WordList, name: str) -> WordList:
    _, least, most = ARGUMENTS["vocabulary"]
    if not least <= words.vocabulary <= most:
        raise WatermarkError(
            "malformed",
            f"{name} has {len(words.words)} words, and between {least - FIRST_WORD} and {most - FIRST_WORD} are needed",
        )
    return words
