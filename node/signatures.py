"""Signatures that this node has found to hold: each is verified once here, and not at every station of its way.

A submission is verified before it is proposed, again when it is applied, and again in the receipt. What is remembered
is a hash over key, signature and signed bytes together, so any other byte in any of them is verified anew.
"""

import hashlib
import threading

from registry import signing

REMEMBERED_MAX = 8192  # about 100 bytes each


class VerifiedSignatures:
    """Remembers the latest signatures that held; may be asked from any thread."""

    def __init__(self) -> None:
        self._held: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def is_signed(self, signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        """Whether `signature` is `signer`'s over these bytes; see `registry.signing.is_signed`."""
        lengths = len(signer).to_bytes(8, "big") + len(signature).to_bytes(8, "big")
        digest = hashlib.sha256(lengths + signer + signature + signed).digest()
        if digest in self._held:
            return True
        if not signing.is_signed(signed, signer=signer, signature=signature):
            return False
        with self._lock:
            self._held[digest] = None
            if len(self._held) > REMEMBERED_MAX:
                del self._held[next(iter(self._held))]
        return True
