"""The rules that the members of a ledger agree on: who they are, how many bind, and what a vote must show.

The first policy is part of the genesis message, signed by all founding members. It is never edited in place: a change
of policy is an entry of its own, and what was decided under the old one stays as it was decided.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import cast

from registry import schema
from registry.encoding import Value
from registry.errors import MalformedError
from registry.note import KeyType, VerifierKey
from registry.signing import public_key
from registry.spelling import API_URL_CHARACTERS_MAX, is_api_url, is_key_name

MEMBERS_MAX = 31
# Words of the trust policy that follows from this one, where a member's name would mean something else.
GROUP_OF_NODES, NO_QUORUM = "nodes", "none"
_Members = list["Member"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One verifier node: four public identities, each with a private key of its own, and two addresses.

    Attributes:
        name: short name, unique in the ledger, such as "node-1"; neither "nodes" nor "none".
        signing_key: Ed25519, signs the node's messages (genesis, votes).
        note_key: Ed25519, signs checkpoints under the ledger's origin.
        cosigner_key: Ed25519, cosigns checkpoints under "<origin>/<name>".
        tls_certificates: DER; one that the node may show to its peers, two while it is being replaced.
        raft_host, raft_port: where peers reach its consensus port.
        api_url: where everyone reaches its HTTP API; http or https, without user, query and fragment.
    """

    name: str
    signing_key: bytes
    note_key: bytes
    cosigner_key: bytes
    tls_certificates: tuple[bytes, ...]
    raft_host: str
    raft_port: int
    api_url: str

    @property
    def tls_pins(self) -> tuple[str, ...]:
        """SHA-256 of each certificate, lower-case hex."""
        return tuple(hashlib.sha256(der).hexdigest() for der in self.tls_certificates)

    def log_key(self, origin: str) -> VerifierKey:
        """The key that checks this member's signature on a checkpoint."""
        return VerifierKey(name=origin, type=KeyType.ED25519, public_key=self.note_key)

    def cosigner(self, origin: str) -> VerifierKey:
        """The key that checks this member's cosignature."""
        name = f"{origin}/{self.name}"
        return VerifierKey(name=name, type=KeyType.COSIGNATURE, public_key=self.cosigner_key)

    def to_value(self) -> dict[str, Value]:
        """The member as part of a message's body."""
        value = cast("dict[str, Value]", asdict(self))
        value["tls_certificates"] = list(self.tls_certificates)
        return value

    @classmethod
    def from_value(cls, value: Value) -> "Member":
        """Read a member; raises MalformedError."""
        read = schema.fields(value, _MEMBER, what="member")
        read["tls_certificates"] = tuple(cast("list[bytes]", read["tls_certificates"]))
        return cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields, checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What a measurement must show, all in integers so that everyone computes the same outcome (DESIGN 6.3).

    Attributes:
        gamma_permille: S1, least share of matched triggers (Li et al. 2022: 0.7).
        alpha_bits: S1, the exact binomial tail must be at most 2^-alpha_bits.
        refute_permille: below this share the answer is no; between it and gamma it is inconclusive.
        permutations_min: S2, least number of channel permutations drawn.
        permutation_p_permille: S2, greatest p-value of the permutation calibration.
        controls_min: S3, least number of freshly initialised control models.
        control_permille: S3, greatest share that a fresh control may match.
        paired_alpha_digits: S3, the suspect must beat each control with p ≤ 10^-digits over all controls.
    """

    gamma_permille: int = 700
    alpha_bits: int = 64
    refute_permille: int = 600
    permutations_min: int = 999
    permutation_p_permille: int = 1
    controls_min: int = 8
    control_permille: int = 590
    paired_alpha_digits: int = 6

    @classmethod
    def from_value(cls, value: Value) -> "Thresholds":
        """Read thresholds; raises MalformedError."""
        read = schema.fields(value, _THRESHOLDS, what="thresholds")
        return cls(**cast("dict[str, int]", read))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Members, quorum, limits and thresholds of one ledger.

    Attributes:
        members: in the order of their names.
        quorum: nodes whose agreement binds; a majority at least, so that two quorums share a node.
        time_skew_s: greatest distance between an author's time and the time of recording, seconds.
        claim_deadline_s: how long after a claim votes on it are recorded, seconds.
        model_bytes_max, evidence_bytes_max: largest files that nodes fetch.
    """

    members: tuple[Member, ...]
    quorum: int
    time_skew_s: int = 300
    claim_deadline_s: int = 30 * 86400
    model_bytes_max: int = 4 * 2**30
    evidence_bytes_max: int = 64 * 2**20
    thresholds: Thresholds = field(default_factory=Thresholds)

    def member_of(self, signing_key: bytes) -> Member | None:
        """The member with this signing key, or None."""
        for member in self.members:
            if member.signing_key == signing_key:
                return member
        return None

    def to_value(self) -> dict[str, Value]:
        """The policy as part of a message's body."""
        value = cast("dict[str, Value]", {f.name: getattr(self, f.name) for f in dataclass_fields(self)})
        value["members"] = [member.to_value() for member in self.members]
        value["thresholds"] = cast("dict[str, Value]", asdict(self.thresholds))
        return value

    @classmethod
    def from_value(cls, value: Value) -> "Policy":
        """Read a policy and check that it can work.

        Raises:
            MalformedError: a field is wrong, a member's name is reserved, members share a name or a key, or the quorum
                is not a majority.
        """
        read = schema.fields(value, _POLICY, what="policy")
        read["members"] = tuple(cast("_Members", read["members"]))
        policy = cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields, checked
        _check_members(policy.members)
        if not len(policy.members) < 2 * policy.quorum <= 2 * len(policy.members):
            raise MalformedError(f"a quorum of {policy.quorum} of {len(policy.members)} is not a majority")
        return policy


def _check_members(members: tuple[Member, ...]) -> None:
    names = [member.name for member in members]
    if names != sorted(set(names)):
        raise MalformedError("members are not in the order of their names, or two have one name")
    if not all(is_key_name(name) and "/" not in name for name in names):
        raise MalformedError("a member's name has a space, a plus or a slash")
    if not {GROUP_OF_NODES, NO_QUORUM}.isdisjoint(names):
        raise MalformedError(f"no member is called {GROUP_OF_NODES} or {NO_QUORUM}: these words mean others")
    keys = [key for m in members for key in (m.signing_key, m.note_key, m.cosigner_key)]
    pins = [pin for member in members for pin in member.tls_pins]
    if len(set(keys)) != len(keys) or len(set(pins)) != len(pins):
        raise MalformedError("one key or certificate serves twice; every role of every member needs its own")


def _api_url(value: Value) -> str:
    if not isinstance(value, str) or not is_api_url(value):
        raise MalformedError(
            f"expected the URL of an API: http or https, a host, no spaces, at most {API_URL_CHARACTERS_MAX} characters"
        )
    return value


_MEMBER: dict[str, schema.Checker[object]] = {
    "name": schema.text(64),
    "signing_key": public_key,
    "note_key": public_key,
    "cosigner_key": public_key,
    "tls_certificates": schema.listed(schema.octets(1, 4096), 2, 1),
    "raft_host": schema.text(253),
    "raft_port": schema.uint(65535, 1),
    "api_url": _api_url,
}
_THRESHOLDS: dict[str, schema.Checker[object]] = {
    "gamma_permille": schema.uint(1000, 501),
    "alpha_bits": schema.uint(256, 20),
    "refute_permille": schema.uint(1000, 500),
    "permutations_min": schema.uint(10**6),
    "permutation_p_permille": schema.uint(1000),
    "controls_min": schema.uint(31),  # a vote lists 32 controls at most, and one of them may be the base
    "control_permille": schema.uint(1000, 500),
    "paired_alpha_digits": schema.uint(30),
}
_POLICY: dict[str, schema.Checker[object]] = {
    "members": schema.listed(Member.from_value, MEMBERS_MAX, 1),
    "quorum": schema.uint(MEMBERS_MAX, 1),
    "time_skew_s": schema.uint(7 * 86400, 1),
    "claim_deadline_s": schema.uint(366 * 86400, 60),
    "model_bytes_max": schema.uint(2**43, 1),
    "evidence_bytes_max": schema.uint(2**32, 1),
    "thresholds": Thresholds.from_value,
}
