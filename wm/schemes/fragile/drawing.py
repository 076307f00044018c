"""What the watermark key draws: the labels, the latents, and what the generator's first weights are seeded with.

    keystream = ChaCha20(key, nonce, counter 0), as `wm.triggers.prg` reads it, one nonce for each purpose
    label i   = the i-th 4-byte big-endian word below ⌊2^32 / C⌋ C, modulo C: exactly uniform
    latents   = Box-Muller of pairs of words, (w + 1/2) / 2^32 each

The labels are rebuilt by everybody who is told the key. Latents and first weights are needed by the owner alone, so it
does not matter that another machine's logarithm may end in another digit.

Source: Yin et al. 2022, "secret key"; their code repeats the labels 0 to 9, which a verifier could guess.
"""

import numpy as np
import torch
from torch import Tensor

from wm.triggers.prg import integers_below, keystream

LABEL_NONCE = b"wmreg/fgl/v1"
LATENT_NONCE = b"wmreg/fgz/v1"
WEIGHT_NONCE = b"wmreg/fgw/v1"
_WORDS = 1 << 32


def draw_labels(watermark_key: bytes, *, count: int, classes: int) -> Tensor:
    """Draw the classes that the triggers must be given.

    Args:
        watermark_key: 32 bytes.
        count: how many, at least 1.
        classes: at least 2.

    Returns:
        int64 in [0, classes), shape (count,), equal on every machine.

    Raises:
        ValueError: the key's length.
    """
    return torch.from_numpy(integers_below(classes, watermark_key, LABEL_NONCE, count=count))


def draw_latents(watermark_key: bytes, *, first: int, count: int, size: int) -> Tensor:
    """Draw standard normal rows of one endless sequence.

    Args:
        watermark_key: 32 bytes.
        first: index of the first row.
        count: rows.
        size: numbers in a row.

    Returns:
        float32, shape (count, size).

    Raises:
        ValueError: the key's length.
    """
    pairs = -(-size // 2)
    words = _words(watermark_key, LATENT_NONCE, (first + count) * 2 * pairs)[first * 2 * pairs :]
    unit = (words.reshape(count, 2, pairs) + 0.5) / _WORDS
    radius, angle = np.sqrt(-2 * np.log(unit[:, 0])), 2 * np.pi * unit[:, 1]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(normal[:, :size].astype(np.float32))


def weight_seed(watermark_key: bytes) -> bytes:
    """Return 32 bytes to seed the generator's first weights with."""
    return keystream(watermark_key, WEIGHT_NONCE, 32)


def _words(watermark_key: bytes, nonce: bytes, count: int) -> np.ndarray:
    return np.frombuffer(keystream(watermark_key, nonce, 4 * count), dtype=">u4").astype(np.int64)
