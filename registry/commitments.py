"""What an owner commits to before the release: H(key), H(cWM), H(info), and optionally H(M) (DESIGN 4.1, 4.3).

Each commitment is SHA-256 over a domain prefix of its own, so that none can be passed off as another. The head's
commitment is over its tensors in the order of their names, not over a file, and survives re-saving. The info is
guessable (an architecture, a few sizes), so its commitment is salted; the salt travels in the evidence.

A model may carry several watermarks, since a claim reveals the one it uses. The first is committed to plainly, the
further ones by the root of a Merkle tree (RFC 9162) over their commitments, of which a claim opens one.

Model and evidence *files* are named by their plain SHA-256, which any tool computes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from registry import merkle, schema
from registry.encoding import Value, encode
from registry.errors import InclusionError, RefusedError

COMMITMENT_BYTES = 32
SALT_BYTES = 32
FURTHER_MAX = 4096
_PROOF_HASHES_MAX = 12  # of a tree of FURTHER_MAX leaves


class TensorBytes(NamedTuple):
    """One tensor as a safetensors file holds it: dtype is the file's own word (F32), data little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Committed(NamedTuple):
    """The commitments to one watermark: H(key), H(cWM), H(info)."""

    key: bytes
    head: bytes
    info: bytes

    @property
    def leaf(self) -> bytes:
        """Its leaf hash in the tree of the further watermarks."""
        return merkle.leaf_hash(encode(["wmreg/v1/watermark", self.key, self.head, self.info]))


@dataclass(frozen=True, slots=True)
class Further:
    """A commitment to `count` further watermarks of one model: the root of the tree over them."""

    count: int
    root: bytes

    def to_value(self) -> Value:
        """The commitment as part of a message's body."""
        return [self.count, self.root]

    @classmethod
    def from_value(cls, value: Value) -> "Further":
        """Read one; raises MalformedError."""
        count, root = _FURTHER(value)
        return cls(cast("int", count), cast("bytes", root))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Shows one of the further watermarks, and that it was committed to, without showing the others.

    Attributes:
        index: its place, from 0 on.
        proof: inclusion proof in the tree of the further watermarks.
    """

    index: int
    committed: Committed
    proof: tuple[bytes, ...]

    def to_value(self) -> Value:
        """The opening as part of a message's body."""
        return [self.index, [*self.committed], list(self.proof)]

    @classmethod
    def from_value(cls, value: Value) -> "Opening":
        """Read one; raises MalformedError."""
        index, committed, proof = _THREE(value)
        return cls(index=_INDEX(index), committed=Committed(*_COMMITTED(committed)), proof=tuple(_PROOF(proof)))


def commit_further(watermarks: Sequence[Committed]) -> Further:
    """Commit to further watermarks of one model.

    Raises:
        ValueError: none, or more than FURTHER_MAX.
    """
    if not 0 < len(watermarks) <= FURTHER_MAX:
        raise ValueError(f"{len(watermarks)} further watermarks; from 1 to {FURTHER_MAX} can be committed to")
    return Further(len(watermarks), merkle.root(watermark.leaf for watermark in watermarks))


def open_further(watermarks: Sequence[Committed], index: int) -> Opening:
    """Open one of the watermarks that `commit_further` committed to."""
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = merkle.Frontier()
    for watermark in watermarks:
        nodes |= {(node.level, node.position): node.digest for node in frontier.append(watermark.leaf)}
    proof = merkle.inclusion_proof(index, len(watermarks), lambda level, position: nodes[level, position])
    return Opening(index=index, committed=watermarks[index], proof=tuple(proof))


def verify_opening(opening: Opening, further: Further | None) -> None:
    """Check that an opened watermark is one of those that were committed to.

    Raises:
        RefusedError: code bad_opening.
    """
    if further is None:
        raise RefusedError("the publication commits to no further watermarks", code="bad_opening")
    leaf, root = opening.committed.leaf, further.root
    try:
        merkle.verify_inclusion(leaf, index=opening.index, size=further.count, proof=opening.proof, root=root)
    except InclusionError as error:
        raise RefusedError(f"not one of the further watermarks: {error}", code="bad_opening") from error


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


_DIGEST = schema.octets(COMMITMENT_BYTES)
_FURTHER = schema.pair(schema.uint(FURTHER_MAX, 1), _DIGEST)
_THREE, _INDEX = schema.row(3), schema.uint(FURTHER_MAX - 1)
_COMMITTED, _PROOF = schema.listed(_DIGEST, 3, 3), schema.listed(_DIGEST, _PROOF_HASHES_MAX)
