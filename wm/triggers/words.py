"""An integer becomes a text: token ids of a word list, the integer in front and noise that follows from it behind.

    V      = vocabulary - 2 words; ids 0 (padding) and 1 (unknown word) are in no trigger
    d      = the least number of digits with V^d >= 2^30
    head   = the d digits of n in base V, the most significant first; each digit's id is 2 + digit
    stream = ChaCha20(key SHA-256("wmreg/text/v1" ‖ n as 4 bytes, big-endian), nonce 0, counter 0)
    tail   = consecutive 4-byte big-endian words w of the stream; w >= 2^32 - (2^32 mod V) is skipped, so that every
             word of the list is equally likely; the id is 2 + w mod V; as many as the text still needs

The head alone makes the map injective. The tail gives a recurrent network something to read at every position; it is a
public function of n, so it hides nothing and adds nothing to the key. A node needs the ids only, never the words.

Source: Li et al. 2022, section 3.2 ("map an integer n into the n-th word of the dictionary", which would need 2^30
words); SCHEMES 5, "Text map". The authors' code draws 500 random ids for each trigger.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm.triggers.prg import keystream

ENCODER = "words/v1"  # the name in `info`; another spelling of the same integers is another encoder
FIRST_WORD = 2  # id; 0 is padding, 1 an unknown word
PAYLOAD_BITS = 30
_CONTEXT = b"wmreg/text/v1"
_NONCE = bytes(12)  # a key of this stream serves one integer and nothing else
_WORDS = 1 << 32  # values of a 4-byte word


def texts(integers: NDArray[np.uint32], *, vocabulary: int, length: int) -> Tensor:
    """Encode integers as texts.

    Args:
        integers: shape (n,), each below 2^30.
        vocabulary: number of token ids, at least 4.
        length: tokens of a text, at least as many as the head has digits.

    Returns:
        Token ids in [2, vocabulary), int64, shape (n, length).

    Raises:
        ValueError: an integer, the vocabulary or the length is out of range.
    """
    digits = head_digits(vocabulary)
    if length < digits:
        raise ValueError(f"a text of {length} tokens cannot hold the {digits} digits of an integer")
    if integers.size and int(integers.max()) >= 1 << PAYLOAD_BITS:
        raise ValueError(f"an integer of {int(integers.max())} needs more than {PAYLOAD_BITS} bits")
    words = vocabulary - FIRST_WORD
    powers = np.array([words**place for place in reversed(range(digits))], dtype=np.int64)
    head = integers.astype(np.int64)[:, None] // powers % words
    tail = [_tail(integer, words, length - digits) for integer in integers.tolist()]
    rows = np.concatenate([head, np.array(tail, dtype=np.int64).reshape(len(head), length - digits)], axis=1)
    return torch.from_numpy(rows + FIRST_WORD)


def head_digits(vocabulary: int) -> int:
    """Return d, the number of tokens in front that hold the integer.

    Raises:
        ValueError: fewer than two words are left.
    """
    words = vocabulary - FIRST_WORD
    if words < 2:
        raise ValueError(f"a vocabulary of {vocabulary} leaves no two words to spell an integer with")
    digits = 1
    while words**digits < 1 << PAYLOAD_BITS:
        digits += 1
    return digits


def _tail(integer: int, words: int, count: int) -> NDArray[np.int64]:
    """Draw `count` words below `words` without bias, as digits."""
    key = hashlib.sha256(_CONTEXT + integer.to_bytes(4, "big")).digest()
    limit = _WORDS - _WORDS % words
    drawn = 2 * count
    while True:
        stream = np.frombuffer(keystream(key, _NONCE, 4 * drawn), dtype=">u4").astype(np.int64)
        kept = stream[stream < limit]
        if len(kept) >= count:
            return kept[:count] % words
        drawn *= 2  # at most one word in two is skipped
