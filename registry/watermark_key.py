"""The watermark key is bound to its owner's signing key (DESIGN 4.2; the tangling of Li et al. 2022, section 3).

The owner signs the ledger's origin and a fresh nonce; the watermark key is a hash of that signature. A claim
reveals nonce and signature, every verifier checks both, and a pirate who replays them is not their signer.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import signing
from registry.errors import RefusedError

NONCE_BYTES = 16
WATERMARK_KEY_BYTES = 32
_CONTEXT = "wmreg/v1/watermark-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBinding:
    """What a claim reveals: the owner's signature over the nonce, from which the watermark key follows."""

    nonce: bytes
    signature: bytes

    @property
    def watermark_key(self) -> bytes:
        """The 32-byte secret that the triggers are drawn from; public once the binding is."""
        return hashlib.sha256(f"{_CONTEXT}\0".encode() + self.signature).digest()


def bind(private_key: Ed25519PrivateKey, *, origin: str, nonce: bytes) -> KeyBinding:
    """Make the binding of a fresh nonce.

    Raises:
        ValueError: the nonce is not NONCE_BYTES long.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return KeyBinding(nonce=nonce, signature=signing.sign(private_key, _signed(origin, nonce)))


def verify_binding(
    binding: KeyBinding, *, origin: str, owner: bytes, is_signed: signing.IsSigned = signing.is_signed
) -> None:
    """Check that `owner` (an Ed25519 public key) made this binding for this ledger.

    Raises:
        RefusedError: code key_not_bound.
    """
    signed = _signed(origin, binding.nonce)
    if not is_signed(signed, signer=owner, signature=binding.signature):
        raise RefusedError("the watermark key is not bound to the claimant's signing key", code="key_not_bound")


def _signed(origin: str, nonce: bytes) -> bytes:
    return signing.statement(_CONTEXT, origin, nonce)
