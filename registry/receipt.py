"""Receipts: offline proof that one entry is in the log (C2SP tlog-proof, version 1).

The entry itself travels in the file's ``extra`` line. That line is not authenticated by the format; it needs no
trust, since the inclusion proof starts from its hash.
"""

from dataclasses import dataclass

from registry import merkle
from registry.checkpoint import parse_decimal
from registry.entry import Entry
from registry.envelope import SignedMessage, Unseal, unseal
from registry.errors import MalformedError, UntrustedError, shown
from registry.messages import Genesis
from registry.note import NOTE_BYTES_MAX, Note
from registry.spelling import decode_base64, encode_base64
from registry.trust import TrustedCheckpoint, TrustPolicy

HEADER = "c2sp.org/tlog-proof@v1"
RECEIPT_BYTES_MAX = NOTE_BYTES_MAX + 128 * 1024
_PROOF_HASHES_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An entry, its place, and the signed checkpoint of a tree that has it there."""

    entry: bytes
    index: int
    proof: tuple[bytes, ...]
    checkpoint_note: str

    @classmethod
    def parse(cls, text: str) -> "Receipt":
        """Read a receipt; nothing is verified.

        Raises:
            MalformedError: not a tlog-proof with the entry in its extra line.
        """
        if len(text) > RECEIPT_BYTES_MAX:
            raise MalformedError(f"a receipt of more than {RECEIPT_BYTES_MAX} bytes", code="too_large")
        head, separator, note = text.partition("\n\n")
        lines = head.split("\n")
        if not separator or lines[0] != HEADER:
            raise MalformedError(f"a receipt begins with the line {HEADER!r}")
        if len(lines) < 3 or not lines[1].startswith("extra ") or not lines[2].startswith("index "):
            raise MalformedError("a receipt has an extra line with the entry, then an index line")
        if len(lines) - 3 > _PROOF_HASHES_MAX:
            raise MalformedError("an inclusion proof has at most 64 hashes")
        proof = tuple(decode_base64(line) for line in lines[3:])
        index = parse_decimal(lines[2].removeprefix("index "))
        entry = decode_base64(lines[1].removeprefix("extra "))
        return cls(entry=entry, index=index, proof=proof, checkpoint_note=note)

    def __str__(self) -> str:
        lines = [HEADER, f"extra {encode_base64(self.entry)}", f"index {self.index}"]
        return "\n".join([*lines, *map(encode_base64, self.proof), "", self.checkpoint_note])


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """What a receipt proves to a reader who trusts the policy that it was checked against."""

    index: int
    recorded_s: int
    signed: SignedMessage
    trusted: TrustedCheckpoint


def verify_receipt(receipt: Receipt, trust: TrustPolicy) -> VerifiedReceipt:
    """Check a receipt offline, in the order of the tlog-proof specification.

    Args:
        receipt: the receipt.
        trust: whom the reader trusts.

    Raises:
        UntrustedError: the policy does not vouch for the checkpoint, or the entry is another ledger's genesis.
        InclusionError: the entry is not in that tree at that index.
        MalformedError, RefusedError: the checkpoint or the message in the entry does not hold.
    """
    return verify_under(receipt, trust.check(Note.parse(receipt.checkpoint_note)))


def verify_under(receipt: Receipt, trusted: TrustedCheckpoint, *, unseal: Unseal = unseal) -> VerifiedReceipt:
    """Check a receipt whose checkpoint was checked before, as for one of many receipts on it.

    Args:
        receipt: the receipt; its note is not looked at.
        trusted: what its note was found to say.
        unseal: reads the entry's envelope; a node may pass one that remembers.

    Raises:
        UntrustedError: the entry is another ledger's genesis.
        InclusionError: the entry is not in that tree at that index.
        MalformedError, RefusedError: the message in the entry does not hold.
    """
    origin, size, root = trusted.checkpoint.origin, trusted.checkpoint.size, trusted.checkpoint.root
    digest = merkle.leaf_hash(receipt.entry)
    merkle.verify_inclusion(digest, index=receipt.index, size=size, proof=receipt.proof, root=root)
    entry = Entry.decode(receipt.entry)
    signed = unseal(entry.envelope, origin=origin if receipt.index else None)
    if isinstance(signed.message, Genesis) and signed.message.origin != origin:
        raise UntrustedError(f"the genesis is of the ledger {shown(signed.message.origin)}; the policy trusts {origin}")
    return VerifiedReceipt(index=receipt.index, recorded_s=entry.recorded_s, signed=signed, trusted=trusted)
