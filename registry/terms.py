"""What an entry can be found by: every hash that it bears, and the keys that signed it.

Nodes keep an index of these, and whoever gets an entry for an answer checks by them that it is one. All are 32 bytes
long, so that no search needs to know what kind of hash it has.
"""

from dataclasses import fields
from typing import NamedTuple

from registry import merkle
from registry.commitments import key_commitment
from registry.envelope import SignedMessage
from registry.messages import KINDS, Claim, Publication

SIGNER = "signer"
TERM_BYTES = 32
_NAMES = {kind: tuple(field.name for field in fields(message)) for kind, message in KINDS.items()}


class Term(NamedTuple):
    """A value that an entry bears, and as what: `signer`, `message`, or the name of a field of its message."""

    role: str
    value: bytes


def terms_of(entry: bytes, signed: SignedMessage) -> frozenset[Term]:
    """What an entry can be found by.

    Args:
        entry: its bytes, as the log holds them.
        signed: the message in it.

    Returns:
        Its leaf hash, its message's hash, its signers, and what the message names or commits to. A claim bears the
        watermark key that it reveals, and therefore the commitment to it.
    """
    message = signed.message
    terms = {Term("leaf", merkle.leaf_hash(entry)), Term("message", signed.hash)}
    terms.update([Term(SIGNER, signer) for signer in signed.signers])
    for name in _NAMES[message.KIND]:
        value = getattr(message, name)
        if isinstance(value, bytes) and len(value) == TERM_BYTES:
            terms.add(Term(name, value))
    if isinstance(message, Publication) and message.further is not None:
        terms.add(Term("further", message.further.root))
    elif isinstance(message, Claim):
        terms.update([Term(role, value) for role, value in _revealed(message).items()])
    return frozenset(terms)


def _revealed(claim: Claim) -> dict[str, bytes]:
    """What a claim shows of the watermark that it speaks of."""
    key = claim.binding.watermark_key
    revealed = {"watermark_key": key, "key_commitment": key_commitment(key)}
    if claim.opening is not None:
        committed = claim.opening.committed
        revealed |= {"head_commitment": committed.head, "info_commitment": committed.info}
    return revealed
