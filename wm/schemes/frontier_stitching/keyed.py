"""What the watermark key decides: in which order candidates are looked at, and how the labels are hidden.

    order  = indices sorted by the n consecutive 8-byte big-endian words of ChaCha20(key, "wmreg/fso/v1")
    shift  = i-th 8-byte big-endian word of ChaCha20(key, "wmreg/fsl/v1"), modulo the number of classes
    stored label = (class + shift) modulo the number of classes

With another key the same payload demands classes that are uniformly random (to within 2^-47 for 2^17 classes), so that
nobody can carry it over to a key of his own as long as the first is secret. Once that is revealed, so are the classes,
and anybody may hide them under another key.

Source: SCHEMES 5, "Key → D_WM", for the cipher and the naming of the nonces. The paper has no key but the pictures.
"""

import numpy as np
import torch
from torch import Tensor

from wm.triggers.prg import keystream

ORDER_NONCE = b"wmreg/fso/v1"
LABEL_NONCE = b"wmreg/fsl/v1"
_WORD_BYTES = 8


def candidate_order(watermark_key: bytes, count: int) -> Tensor:
    """Return in which order a key looks at candidates, a permutation of [0, count), int64.

    Raises:
        ValueError: the key's length.
    """
    return torch.from_numpy(np.argsort(_words(watermark_key, ORDER_NONCE, count), kind="stable"))


def hidden(labels: Tensor, watermark_key: bytes, *, classes: int) -> Tensor:
    """Hide classes as the payload stores them, int64, shape (n,); raises ValueError for the key's length."""
    return (labels + _shifts(watermark_key, len(labels), classes)) % classes


def revealed(stored: Tensor, watermark_key: bytes, *, classes: int) -> Tensor:
    """Undo `hidden`; with another key the result is random."""
    return (stored - _shifts(watermark_key, len(stored), classes)) % classes


def _shifts(watermark_key: bytes, count: int, classes: int) -> Tensor:
    return torch.from_numpy((_words(watermark_key, LABEL_NONCE, count) % classes).astype(np.int64))


def _words(watermark_key: bytes, nonce: bytes, count: int) -> np.ndarray:
    return np.frombuffer(keystream(watermark_key, nonce, _WORD_BYTES * count), dtype=">u8").astype(np.uint64)
