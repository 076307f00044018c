"""Evidence that a log was shown with two pasts: one file that convicts whoever signed both (DESIGN 2).

Two signed checkpoints of one log contradict each other when they have one size and different roots, or when the larger
tree continues another tree of the smaller size than the smaller checkpoint states. The latter is shown by that other
root and its consistency proof to the larger root: hashes, so nobody's word is taken.

Nothing but the notes' own signatures counts here, not even a quorum: a key that signed both sides has lied, and where
no key did, the log forked between the nodes, and the file says who signed which side.

The file is JSON in one spelling with a hash over itself, as a certificate is.
"""

from dataclasses import dataclass
from typing import Any

from registry import hashed_json, merkle
from registry.checkpoint import Checkpoint
from registry.errors import ConsistencyError, RefusedError, UntrustedError, shown
from registry.note import Note, VerifierKey, verify_signatures
from registry.spelling import decode_base64, encode_base64
from registry.trust import TrustedKey, TrustPolicy

FORMAT = "wmreg-equivocation/1"
EQUIVOCATION_BYTES_MAX = 2**20
_DOMAIN = "wmreg/v1/equivocation"
_PROOF_HASHES_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """A parsed file of evidence; nothing of it is verified.

    Attributes:
        smaller_note, larger_note: signed checkpoints in the order of their sizes, then of their roots.
        root: of the smaller size, the one that the larger tree continues; None for two trees of one size.
        proof: consistency proof from that root to the larger one; empty for two trees of one size.
    """

    smaller_note: str
    larger_note: str
    root: bytes | None = None
    proof: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, one: str, other: str, *, root: bytes | None = None, proof: tuple[bytes, ...] = ()) -> "Equivocation":
        """Put two signed checkpoints in order; raises MalformedError when one is no checkpoint."""
        smaller, larger = sorted((one, other), key=_place)
        return cls(smaller_note=smaller, larger_note=larger, root=root, proof=proof)

    def encode(self) -> bytes:
        """The file's bytes."""
        return hashed_json.encode(_content(self), domain=_DOMAIN)

    @classmethod
    def decode(cls, raw: bytes) -> "Equivocation":
        """Read the file.

        Raises:
            MalformedError: damaged (any changed byte), of another format, or too large.
        """
        return hashed_json.decode(
            raw, _from_content, Equivocation.encode, what="evidence", bytes_max=EQUIVOCATION_BYTES_MAX
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key of the reader's policy that signed a side; time_s is its own clock's, None for a plain signature."""

    name: str
    key: VerifierKey
    url: str | None
    time_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two checkpoints and who signed it."""

    size: int
    root: bytes
    signers: tuple[Signer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationStory:
    """What the evidence proves.

    Attributes:
        continued_root: the root of the smaller size that the larger tree continues; None for two trees of one size.
        convicted: keys that signed both sides, with the time at which they signed the larger; empty when the log
            forked between nodes.
    """

    origin: str
    smaller: Side
    larger: Side
    continued_root: bytes | None
    convicted: tuple[Signer, ...]


def verify_equivocation(raw: bytes, trust: TrustPolicy) -> EquivocationStory:
    """Check the evidence against the reader's own trust policy, offline.

    Raises:
        MalformedError: the file is damaged, or no evidence of this kind.
        UntrustedError: another log, or a side without a signature of a key that the policy knows.
        RefusedError: a known key's signature does not hold, or the two checkpoints do not contradict each other.
    """
    evidence = Equivocation.decode(raw)
    sides = [_read_side(note, trust) for note in (evidence.smaller_note, evidence.larger_note)]
    _check_conflict(evidence, *sides)
    both = {signer.key for signer in sides[0].signers}
    return EquivocationStory(
        origin=trust.origin,
        smaller=sides[0],
        larger=sides[1],
        continued_root=evidence.root,
        convicted=tuple(signer for signer in sides[1].signers if signer.key in both),
    )


def _read_side(text: str, trust: TrustPolicy) -> Side:
    note = Note.parse(text)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != trust.origin:
        raise UntrustedError(f"a checkpoint of {shown(checkpoint.origin)}; the policy trusts {trust.origin}")
    known = {trusted.key: trusted for trusted in (*trust.logs, *trust.witnesses)}
    verified = verify_signatures(note, known)
    if not verified:
        raise UntrustedError(f"no key of the policy signed the checkpoint of size {checkpoint.size}")
    signers = tuple(_signer(known[one.key], one.timestamp_s) for one in verified)
    return Side(size=checkpoint.size, root=checkpoint.root, signers=signers)


def _signer(trusted: TrustedKey, time_s: int | None) -> Signer:
    return Signer(name=trusted.name, key=trusted.key, url=trusted.url, time_s=time_s)


def _check_conflict(evidence: Equivocation, smaller: Side, larger: Side) -> None:
    if smaller.size == larger.size:
        if evidence.root is not None or evidence.proof:
            raise RefusedError("two trees of one size need no consistency proof", code="no_conflict")
        if smaller.root == larger.root:
            raise RefusedError(f"both checkpoints state the same tree of size {larger.size}", code="no_conflict")
        return
    if evidence.root is None:
        raise RefusedError("nothing shows which past the larger tree continues", code="no_conflict")
    if evidence.root == smaller.root:
        raise RefusedError(
            f"the tree of size {larger.size} continues the one of size {smaller.size}", code="no_conflict"
        )
    try:
        merkle.verify_consistency(
            old_size=smaller.size,
            old_root=evidence.root,
            new_size=larger.size,
            new_root=larger.root,
            proof=evidence.proof,
        )
    except ConsistencyError as error:  # of the file, not of the log: the reader has learnt nothing about the log
        raise RefusedError(f"the proof does not hold: {error}", code="not_proven") from error


def _place(text: str) -> tuple[int, bytes]:
    checkpoint = Checkpoint.parse(Note.parse(text).text)
    return checkpoint.size, checkpoint.root


def _content(evidence: Equivocation) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "smaller": evidence.smaller_note,
        "larger": evidence.larger_note,
        "root": None if evidence.root is None else encode_base64(evidence.root),
        "proof": [encode_base64(digest) for digest in evidence.proof],
    }


def _from_content(content: dict[str, Any]) -> Equivocation:
    if content["format"] != FORMAT:
        raise ValueError(f"format {shown(content['format'])} is not {FORMAT}")
    smaller, larger = content["smaller"], content["larger"]
    if _place(smaller) > _place(larger):
        raise ValueError("the two checkpoints are not in order")
    if len(content["proof"]) > _PROOF_HASHES_MAX:
        raise ValueError("a proof is too long")
    root = None if content["root"] is None else decode_base64(content["root"])
    proof = tuple(decode_base64(digest) for digest in content["proof"])
    return Equivocation(smaller_note=smaller, larger_note=larger, root=root, proof=proof)
