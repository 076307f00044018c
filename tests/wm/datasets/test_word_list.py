"""Promised: a text is taken apart one way, a word list has one spelling, and vectors find their words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.datasets.vectors import load_vectors
from wm.datasets.word_list import WordList, load_word_list, tokens, word_list_of
from wm.errors import WatermarkError
from wm.tensorfile import sha256_of

WORDS = WordList(tuple(f"word{number}" for number in range(70)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic!", ["do", "n't", "panic", "!"]),
        ("do n't", ["do", "n't"]),
        ("It's o'clock, they'll", ["it", "'s", "o", "'", "clock", ",", "they", "'ll"]),
        ("a<br /><br/>b <BR>", ["a", "b", "<", "br", ">"]),
        ("self-righteous -- 10/10", ["self", "-", "righteous", "-", "-", "10", "/", "10"]),
        ("Café naïve 東京", ["café", "naïve", "東京"]),
        (" \n\t ", []),
    ],
)
def test_a_text_is_taken_apart(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text())
def test_any_text_is_taken_apart_into_words_without_spaces(text: str) -> None:
    assert all(token and not any(sign.isspace() for sign in token) for token in tokens(text))


def test_the_most_frequent_words_come_first_and_single_ones_not_at_all() -> None:
    filler = [f"w{number:03}" for number in range(70)]
    texts = [["b", "a", "b", "once"], ["b", "c", "a", "c"], filler, filler]
    words = word_list_of(texts).words
    assert words[:3] == ("b", "a", "c")
    assert words[3:] == tuple(filler)
    assert len(word_list_of(texts, vocabulary_max=70).words) == 68


def test_too_few_words_are_refused() -> None:
    with pytest.raises(WatermarkError, match="between 62 and"):
        word_list_of([["a", "a"]])


def test_texts_are_cut_filled_up_and_unknown_words_marked() -> None:
    rows = WORDS.encode([["word0", "x", "word69"], ["word1"] * 9, []], length=4)
    assert rows.tolist() == [[2, 1, 71, 0], [3, 3, 3, 3], [0, 0, 0, 0]]
    assert rows.dtype == torch.int64


def test_a_word_list_survives_the_disk_and_is_hashed_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(str(WORDS))
    assert load_word_list(tmp_path / "words.txt") == WORDS
    assert WORDS.sha256 == sha256_of(tmp_path / "words.txt")
    assert WORDS.sha256 == "a279d5ab70979895de8ad19a80e9c0859ffd83e2c81caa78b1ccac61e4a08ca0"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"few\nwords\n",
        str(WORDS).encode()[:-1],
        str(WORDS).encode() + b"word0\n",
        str(WORDS).encode() + b"\n",
        str(WORDS).encode() + b"two words\n",
        str(WORDS).encode().replace(b"\n", b"\r\n"),
        str(WORDS).encode() + b"\xff\n",
    ],
)
def test_a_file_that_is_no_word_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(WatermarkError, match=r"words\.txt") as caught:
        load_word_list(tmp_path / "words.txt")
    assert caught.value.code == "malformed"


def write_npz(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "words": np.frombuffer(b"other\nword5\nword7", np.uint8),
        "vectors": np.arange(12, dtype=np.float16).reshape(3, 4),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_vectors_find_their_words_in_either_format(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("other 0 1 2 3\nword5 4 5 6 7\nword7 8 9 10 11\n")
    for path in (tmp_path / "glove.txt", write_npz(tmp_path / "v.npz")):
        found = load_vectors(path, WORDS)
        assert found.dimension == 4
        assert found.known.nonzero().flatten().tolist() == [7, 9]
        assert found.rows[[7, 9]].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
        assert (found.rows.shape, found.rows.dtype) == ((72, 4), torch.float32)


@pytest.mark.parametrize(
    "text", ["", "other 1 2\n", "word5 1 2\nword7 1\n", "word5 1 x\n", "word5\n", "word5 nan 1\n", "word5 inf 1\n"]
)
def test_a_text_that_holds_no_vectors_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "glove.txt").write_text(text)
    with pytest.raises(WatermarkError, match=r"glove\.txt") as caught:
        load_vectors(tmp_path / "glove.txt", WORDS)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"words": np.frombuffer(b"word5", np.uint8)},
        {"words": np.frombuffer(b"\xff\n\n", np.uint8)},
        {"vectors": np.zeros(3)},
        {"vectors": np.zeros((3, 4), np.int64)},
        {"vectors": np.array([[{}]] * 3)},
    ],
)
def test_arrays_that_hold_no_vectors_are_refused(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    write_npz(tmp_path / "v.npz", **changes)
    with pytest.raises(WatermarkError) as caught:
        load_vectors(tmp_path / "v.npz", WORDS)
    assert caught.value.code == "malformed"
