"""What the watermark key decides: which pictures become triggers, and which class it demands of each.

    chosen    = the first n indices, sorted by 8-byte big-endian words of keystream(key, "wmreg/mpx/v1"); ties by index
    shown     = SHA-256 of all that the network is shown: the size, the normalisation's text, all pixels in order
    label key = HMAC-SHA256(key, "wmreg/mlb/v1" ‖ shown)
    label i   = w mod C of the i-th 4-byte big-endian word w of keystream(label key, "wmreg/mlb/v1") that lies below
                the greatest multiple of C; those above are skipped, so that all classes are equally likely

The labels come last and from everything together: who changes one pixel, or the normalisation, gets all labels anew.
So pictures cannot be made to suit labels, and a model that was made in ignorance of the key, whatever it answers,
matches Binomial(n, 1/C) of them. Trying keys or pixels until a stranger's model matches k costs as many tries as the
tail of that distribution is small.

Source: ours; Kim et al. 2023 draw wrong labels, for which no model's chance is known. The keystream is
`wm.triggers.prg`'s.
"""

import hashlib
import hmac

import numpy as np
import torch
from torch import Tensor

from wm.triggers import InputSpec
from wm.triggers.prg import KEY_BYTES, WORD_BITS, integers_below, keystream

PICTURE_NONCE = b"wmreg/mpx/v1"
LABEL_NONCE = b"wmreg/mlb/v1"


def chosen_indices(watermark_key: bytes, *, count: int, pool: int) -> Tensor:
    """Choose which of a row of pictures become triggers.

    Args:
        watermark_key: 32 bytes.
        count: how many, in [0, pool].
        pool: how many there are to choose from.

    Returns:
        Distinct indices in [0, pool) in the order in which they are drawn, int64, shape (count,).

    Raises:
        ValueError: the key or the count is out of range.
    """
    if not 0 <= count <= pool:
        raise ValueError(f"cannot choose {count} of {pool} pictures")
    words = np.frombuffer(keystream(watermark_key, PICTURE_NONCE, 8 * pool), dtype=">u8")
    return torch.from_numpy(words.argsort(kind="stable")[:count].astype(np.int64))


def labels_for(watermark_key: bytes, pixels: Tensor, spec: InputSpec, *, classes: int) -> Tensor:
    """Draw the classes that the key demands of these pictures, all of them together.

    Args:
        watermark_key: 32 bytes.
        pixels: uint8, shape (n, channels, height, width).
        spec: how a network is shown them.
        classes: C, in [2, 2^32].

    Returns:
        int64, shape (n,), in [0, C); some are the pictures' true classes.

    Raises:
        ValueError: the key or the number of classes is out of range.
    """
    if len(watermark_key) != KEY_BYTES:
        raise ValueError(f"a watermark key has {KEY_BYTES} bytes, not {len(watermark_key)}")
    if not 2 <= classes <= 1 << WORD_BITS:
        raise ValueError(f"labels are of between 2 and 2^{WORD_BITS} classes, not {classes}")
    label_key = hmac.digest(watermark_key, LABEL_NONCE + _shown(pixels, spec), "sha256")
    return torch.from_numpy(integers_below(classes, label_key, LABEL_NONCE, count=len(pixels)))


def _shown(pixels: Tensor, spec: InputSpec) -> bytes:
    """Hash all that decides what a network is shown, so that no part of it can be chosen once labels are known."""
    levels = spec.normalisation
    outline = [str(spec), *levels.mean, *levels.std, str(len(pixels))]
    digest = hashlib.sha256()
    for text in outline:
        digest.update(len(text).to_bytes(4, "big") + text.encode())
    digest.update(pixels.cpu().contiguous().numpy().tobytes())
    return digest.digest()
