"""A watermark key becomes distinct integers and label bits.

    keystream = ChaCha20(key, nonce, counter 0)      RFC 8439
    integers  = consecutive 4-byte big-endian words & (2^m - 1), repeats skipped, first N; m = 3⌈log2 N⌉
    label i   = bit i mod 8 (least significant first) of byte ⌊i / 8⌋

Integers and labels use two nonces. Labels are PRG bits rather than alternating ones (as in the authors'
code), because the exact Binomial(N, 1/2) null of the verdict rests on them.

Source: Li et al. 2022, section 3.2 (π^key, l^key, m); the construction is SCHEMES 5, with a test vector.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

KEY_BYTES = 32
INTEGER_NONCE = b"wmreg/int/v1"
LABEL_NONCE = b"wmreg/lab/v1"
WORD_BITS = 32
COUNT_MAX = 1024  # the largest N whose m still fits a 4-byte word: m = 30


def keystream(key: bytes, nonce: bytes, length_bytes: int) -> bytes:
    """Read the ChaCha20 keystream from block 0.

    Args:
        key: 32 bytes.
        nonce: 12 bytes, one per purpose.
        length_bytes: how much to read.

    Returns:
        `length_bytes` bytes.

    Raises:
        ValueError: the key or the nonce has another length.
    """
    if len(key) != KEY_BYTES or len(nonce) != 12:
        raise ValueError(f"a key has {KEY_BYTES} bytes and a nonce 12, not {len(key)} and {len(nonce)}")
    # cryptography's 16-byte nonce is RFC 8439's block counter (4 bytes, little-endian) and its nonce.
    cipher = Cipher(ChaCha20(key, bytes(4) + nonce), mode=None)
    return cipher.encryptor().update(bytes(length_bytes))


def integers_below(bound: int, key: bytes, nonce: bytes, *, count: int) -> NDArray[np.int64]:
    """Draw integers below a bound, all equally likely.

    The i-th is w mod bound of the i-th 4-byte big-endian word w of the keystream that lies below the greatest multiple
    of the bound; those above are skipped.

    Args:
        bound: in [1, 2^32].
        key: 32 bytes.
        nonce: 12 bytes.
        count: how many.

    Raises:
        ValueError: the key, the nonce or the bound is out of range.
    """
    if not 1 <= bound <= 1 << WORD_BITS:
        raise ValueError(f"integers are drawn below a bound between 1 and 2^{WORD_BITS}, not {bound}")
    limit = (1 << WORD_BITS) // bound * bound
    words = count
    while True:  # a word is skipped with a probability below 1/2: each turn is half as likely as the one before
        stream = np.frombuffer(keystream(key, nonce, 4 * words), dtype=">u4").astype(np.int64)
        kept = stream[stream < limit]
        if len(kept) >= count:
            return kept[:count] % bound
        words *= 2


def integer_bits(count: int) -> int:
    """Return m = 3⌈log2 count⌉, so that two keys' integers hardly ever meet (paper, appendix A)."""
    return 3 * (count - 1).bit_length()


def distinct_integers(key: bytes, count: int) -> NDArray[np.uint32]:
    """Draw π^key.

    Args:
        key: the watermark key, 32 bytes.
        count: N, in [2, 1024].

    Returns:
        N different integers below 2^m, shape (count,), in the order of the keystream.

    Raises:
        ValueError: the key or the count is out of range.
    """
    if not 2 <= count <= COUNT_MAX:
        raise ValueError(f"between 2 and {COUNT_MAX} integers can be drawn, not {count}")
    mask = (1 << integer_bits(count)) - 1
    seen: dict[int, None] = {}
    words = 2 * count
    while len(seen) < count:
        stream = np.frombuffer(keystream(key, INTEGER_NONCE, 4 * words), dtype=">u4") & mask
        seen = dict.fromkeys(stream.tolist())
        words *= 2  # reached only for tiny counts, where a repeat is likely
    return np.fromiter(list(seen)[:count], dtype=np.uint32)


def label_bits(key: bytes, count: int) -> NDArray[np.bool_]:
    """Draw l^key.

    Args:
        key: the watermark key, 32 bytes.
        count: N, at least 1.

    Returns:
        N bits, shape (count,).

    Raises:
        ValueError: the key is out of range.
    """
    stream = np.frombuffer(keystream(key, LABEL_NONCE, -(-count // 8)), dtype=np.uint8)
    return np.unpackbits(stream, bitorder="little")[:count].astype(np.bool_)
