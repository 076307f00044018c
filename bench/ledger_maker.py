"""Ledgers for benches: three nodes, one owner, publications, claims and votes, as honest nodes would write them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.audit.mirror import Mirror
from registry import commitments, merkle, tiles
from registry.audit import Tree
from registry.certificate import Certificate, ProvenEntry
from registry.checkpoint import Checkpoint
from registry.entry import Entry
from registry.envelope import message_hash, seal
from registry.messages import Claim, Genesis, Message, Publication, Vote
from registry.note import Note, cosign, sign
from registry.policy import Member, Policy
from registry.rules import Accepted, Ledger
from registry.trust import TrustPolicy
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome
from registry.watermark_key import KeyBinding, bind

START_S = 1_800_000_000
_NODES = 3
_CYCLE = 10  # publications, a claim on the first of them, a vote of each node


class Ledgers:
    """Makes the messages of one ledger; the same each time."""

    def __init__(self) -> None:
        self.origin = "bench.example/wmreg"
        self.owner = _key("owner")
        self._policy_hash = b""
        self.policy = Policy(members=tuple(_member(number) for number in range(1, _NODES + 1)), quorum=2)

    @property
    def trust(self) -> TrustPolicy:
        """The policy of a reader who trusts the nodes."""
        return TrustPolicy.of(self.policy, self.origin)

    def binding(self, number: int) -> KeyBinding:
        """The binding of the number-th watermark key."""
        return bind(self.owner, origin=self.origin, nonce=number.to_bytes(16, "big"))

    def publication(self, number: int) -> Publication:
        """The number-th publication."""
        return Publication(
            time_s=START_S + number,
            scheme="mtlsign",
            key_commitment=commitments.key_commitment(self.binding(number).watermark_key),
            head_commitment=_hash(f"head {number}"),
            info_commitment=_hash(f"info {number}"),
        )

    def envelopes(self) -> Iterator[bytes]:
        """The envelopes of a ledger without an end: six publications, a claim on the first, three votes, and again."""
        founders = [_key(f"node-{number}/signing") for number in range(1, _NODES + 1)]
        genesis = Genesis(time_s=START_S, origin=self.origin, policy=self.policy)
        envelope = seal(genesis, origin=self.origin, private_keys=founders)
        self._policy_hash = message_hash(envelope)
        yield envelope
        number = 0
        while True:
            published = [self._seal(self.publication(number + i), self.owner) for i in range(_CYCLE - 1 - _NODES)]
            yield from published
            claim = self._seal(self._claim(message_hash(published[0]), number), self.owner)
            yield claim
            for node in founders:
                yield self._seal(self._vote(message_hash(claim), number), node)
            number += _CYCLE

    def note(self, checkpoint: Checkpoint, time_s: int) -> str:
        """A checkpoint that all nodes signed."""
        text, lines = str(checkpoint), []
        for number in range(1, _NODES + 1):
            name = f"node-{number}"
            lines.append(sign(text, name=self.origin, private_key=_key(f"{name}/note")))
            cosigner, key = f"{self.origin}/{name}", _key(f"{name}/cosigner")
            lines.append(cosign(text, name=cosigner, private_key=key, timestamp_s=time_s))
        return str(Note(text, tuple(lines)))

    def _seal(self, message: Message, private_key: Ed25519PrivateKey) -> bytes:
        return seal(message, origin=self.origin, private_keys=[private_key])

    def _claim(self, publication: bytes, number: int) -> Claim:
        model, evidence = _hash(f"model {number}"), _hash(f"evidence {number}")
        return Claim(
            time_s=START_S + number,
            publication=publication,
            model_pointer=f"blob:sha256:{model.hex()}",
            model_sha256=model,
            evidence_pointer=f"blob:sha256:{evidence.hex()}",
            evidence_sha256=evidence,
            binding=self.binding(number),
        )

    def _vote(self, claim: bytes, number: int) -> Vote:
        return Vote(
            time_s=START_S + number,
            claim=claim,
            policy=self._policy_hash,
            outcome=Outcome.VERIFIED,
            reason="matched",
            measurement=_measurement(number // _CYCLE),
            device="cpu",
            software="wmreg 0.1.0, torch 2.11.0",
        )


def make_mirror(directory: Path, entries: int) -> tuple[Mirror, Path]:
    """Write a mirror of a ledger and the policy to check it by."""
    ledgers, mirror, tree = Ledgers(), Mirror(directory / "mirror"), Tree()
    envelopes = ledgers.envelopes()
    for begin in range(0, entries, tiles.TILE_WIDTH):
        numbers = range(begin, min(begin + tiles.TILE_WIDTH, entries))
        bundle = [Entry(next(envelopes), START_S + number).encode() for number in numbers]
        for raw in bundle:
            tree.append(merkle.leaf_hash(raw))
        path = mirror.bundle(begin // tiles.TILE_WIDTH, len(bundle))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiles.entry_bundle(bundle))
    checkpoint = Checkpoint(origin=ledgers.origin, size=entries, root=tree.root_at(entries))
    mirror.store_checkpoint(ledgers.note(checkpoint, START_S + entries))
    policy_path = directory / "policy.txt"
    policy_path.write_text(str(ledgers.trust))
    return mirror, policy_path


def make_certificate() -> tuple[bytes, TrustPolicy]:
    """A certificate of one verified claim, and the policy to check it by."""
    ledgers, ledger, tree = Ledgers(), Ledger(), Tree()
    raws = [
        Entry(envelope, START_S).encode() for envelope, _ in zip(ledgers.envelopes(), range(1 + _CYCLE), strict=False)
    ]
    for raw in raws:
        if not isinstance(ledger.apply(raw), Accepted):
            raise RuntimeError("the bench's own ledger breaks the rules")  # noqa: TRY004 (not about a type)
        tree.append(merkle.leaf_hash(raw))
    checkpoint = Checkpoint(origin=ledgers.origin, size=tree.size, root=tree.root_at(tree.size))
    indexes = [0, 1, *range(_CYCLE - _NODES, _CYCLE + 1)]
    entries = tuple(
        ProvenEntry(index=i, entry=raws[i], proof=tuple(merkle.inclusion_proof(i, tree.size, tree.read_node)))
        for i in indexes
    )
    note = ledgers.note(checkpoint, START_S)
    certificate = Certificate(origin=ledgers.origin, checkpoint_note=note, entries=entries, attestations=())
    return certificate.encode(), ledgers.trust


def _measurement(number: int) -> Measurement:
    """Numbers that verify, different ones for each claim; honest nodes come to the same."""
    matched = 600 - number % 61
    controls = tuple(_control(matched, number + 13 * place) for place in range(8))
    return Measurement(matched=matched, total=600, permutations=999, permutations_as_good=0, controls=controls)


def _control(matched: int, number: int) -> ControlCounts:
    chance, control_only = 285 + number % 31, min(600 - matched, number % 17)
    return ControlCounts(
        kind=ControlKind.FRESH, matched=chance, suspect_only=matched - chance + control_only, control_only=control_only
    )


def _member(number: int) -> Member:
    name = f"node-{number}"
    keys = {what: _key(f"{name}/{what}").public_key().public_bytes_raw() for what in ("signing", "note", "cosigner")}
    return Member(
        name=name,
        signing_key=keys["signing"],
        note_key=keys["note"],
        cosigner_key=keys["cosigner"],
        tls_certificates=(name.encode(),),
        raft_host="127.0.0.1",
        raft_port=4000 + number,
        api_url=f"http://127.0.0.1:{5000 + number}",
    )


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_hash(name))


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
