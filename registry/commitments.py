"""What an owner commits to before the release: H(key), H(cWM), H(info), and optionally H(M) (DESIGN 4.1, 4.3).

Each commitment is SHA-256 over a domain prefix of its own, so that none can be passed off as another. The head's
commitment is over its tensors in the order of their names, not over a file, and survives re-saving. The info is
guessable (an architecture, a few sizes), so its commitment is salted; the salt travels in the evidence.

Model and evidence *files* are named by their plain SHA-256, which any tool computes.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from registry.encoding import encode

COMMITMENT_BYTES = 32
SALT_BYTES = 32


class TensorBytes(NamedTuple):
    """One tensor as a safetensors file holds it: dtype is the file's own word (F32), data little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def key_commitment(watermark_key: bytes) -> bytes:
    """H(key): commits to the watermark key without revealing it."""
    return _digest("key", watermark_key)


def head_commitment(tensors: Iterable[TensorBytes]) -> bytes:
    """H(cWM): over names, types, shapes and contents of the head's tensors, in the order of their names.

    Raises:
        ValueError: two tensors have one name.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    if len({tensor.name for tensor in ordered}) != len(ordered):
        raise ValueError("two tensors of a head have one name")
    listing = encode([[t.name, t.dtype, list(t.shape), hashlib.sha256(t.data).digest()] for t in ordered])
    return _digest("head", listing)


def info_commitment(salt: bytes, info: bytes) -> bytes:
    """H(info): over the salt and the canonical spelling of info.

    Raises:
        ValueError: the salt is not SALT_BYTES long.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return _digest("info", salt + info)


def model_commitment(salt: bytes, model_sha256: bytes) -> bytes:
    """Optional H(M): hides which file was published until the owner shows the salt."""
    if len(salt) != SALT_BYTES or len(model_sha256) != COMMITMENT_BYTES:
        raise ValueError("a model commitment takes a 32-byte salt and a SHA-256 hash")
    return _digest("model", salt + model_sha256)


def _digest(domain: str, content: bytes) -> bytes:
    return hashlib.sha256(f"wmreg/v1/commitment/{domain}\0".encode() + content).digest()
