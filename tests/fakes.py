"""A whole ledger in memory, with real keys and signatures: what several test files need.

`LedgerMaker` plays owners, nodes and clocks. It applies entries through the real rulebook and signs real
checkpoints, so whatever it makes is what an honest cluster would have made.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import commitments, merkle, watermark_key
from registry.audit import Replay
from registry.certificate import Attestation, Certificate, ProvenEntry, entries_of
from registry.checkpoint import Checkpoint
from registry.commitments import Committed, Further
from registry.entry import Entry
from registry.envelope import message_hash, seal
from registry.errors import UntrustedError
from registry.messages import Challenge, Claim, Genesis, Message, PolicyChange, Publication, Rotation, Vote, Withdrawal
from registry.note import Note, cosign, sign
from registry.policy import Member, Policy
from registry.receipt import Receipt
from registry.rules import Accepted, Applied, Ledger, Refused
from registry.trust import TrustPolicy
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, Statistic

ORIGIN = "example.org/wmreg"
START_S = 1_800_000_000


def private_key(name: str) -> Ed25519PrivateKey:
    """The Ed25519 key that belongs to a name, the same each time."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_key(name: str) -> bytes:
    return private_key(name).public_key().public_bytes_raw()


def member(name: str, *, port: int = 4000) -> Member:
    return Member(
        name=name,
        signing_key=public_key(f"{name}/signing"),
        note_key=public_key(f"{name}/note"),
        cosigner_key=public_key(f"{name}/cosigner"),
        tls_certificates=(f"certificate of {name}".encode(),),
        raft_host="127.0.0.1",
        raft_port=port,
        api_url=f"http://127.0.0.1:{port + 1}",
    )


def policy(*numbers: int) -> Policy:
    """A policy of these nodes, three by default."""
    members = tuple(member(f"node-{number}", port=4000 + 2 * number) for number in numbers or (1, 2, 3))
    return Policy(members=members, quorum=len(members) // 2 + 1)


def good_measurement(matched: int = 600, *, total: int = 600) -> Measurement:
    """Numbers that verify: every control at chance, no permutation as good."""
    chance = total // 2
    both = matched * chance // total
    control = ControlCounts(
        kind=ControlKind.FRESH, matched=chance, suspect_only=matched - both, control_only=chance - both
    )
    return Measurement(matched=matched, total=total, permutations=999, permutations_as_good=0, controls=(control,) * 8)


def counted(statistic: Statistic, matched: int = 100) -> Measurement:
    """Numbers of a mark without a branch, of 100; all of them verify, or are intact."""
    chance_ppm = {Statistic.SIGNS: 500_000, Statistic.CALIBRATED: 300_000}.get(statistic, 100_000)
    if statistic is Statistic.INTEGRITY:
        return Measurement(matched=matched, total=100, statistic=statistic, chance_ppm=chance_ppm, controls=())
    kinds = [ControlKind.FRESH] * 8 + [ControlKind.NULL] * (4 if statistic is Statistic.CALIBRATED else 0)
    both = chance_ppm // 20_000
    controls = tuple(ControlCounts(kind, both, matched - both, 0) for kind in kinds)
    return Measurement(matched=matched, total=100, statistic=statistic, chance_ppm=chance_ppm, controls=controls)


def with_control(measurement: Measurement, kind: ControlKind, matched: int) -> Measurement:
    """The measurement with one more control, which matches what the suspect matches as far as it can."""
    both = min(matched, measurement.matched)
    control = ControlCounts(
        kind=kind, matched=matched, suspect_only=measurement.matched - both, control_only=matched - both
    )
    return replace(measurement, controls=(*measurement.controls, control))


def binding(owner: str, *, origin: str = ORIGIN, number: int = 0) -> watermark_key.KeyBinding:
    return watermark_key.bind(private_key(owner), origin=origin, nonce=number.to_bytes(16, "big"))


def refused(applied: Applied) -> str:
    """The code of a refusal; fails for anything else."""
    assert isinstance(applied, Refused), applied
    return applied.code


def replayed(entries: Iterable[bytes]) -> Replay:
    """The replay of a log that keeps every rule; fails for any other."""
    state = Replay()
    for raw in entries:
        state.take(raw)
    assert state.refusal is None, state.refusal
    return state


class LedgerMaker:
    """A ledger of `nodes` members and a clock that moves 10 s with each accepted entry."""

    def __init__(self, nodes: int = 3, *, origin: str = ORIGIN) -> None:
        self.origin, self.now_s = origin, START_S
        self.ledger, self.entries, self.notes = Ledger(), [], {}
        self._tree, self._nodes = merkle.Frontier(), {}
        genesis = Genesis(time_s=self.now_s, origin=origin, policy=policy(*range(1, nodes + 1)))
        self.submit(self.seal(genesis, *(f"{m.name}/signing" for m in genesis.policy.members)))

    @property
    def policy(self) -> Policy:
        return self.ledger.policy

    @property
    def trust(self) -> TrustPolicy:
        return TrustPolicy.of(self.policy, self.origin)

    def submit(self, envelope: bytes, *, recorded_s: int | None = None) -> Applied:
        entry = Entry(envelope, self.now_s if recorded_s is None else recorded_s).encode()
        applied = self.ledger.apply(entry)
        if isinstance(applied, Accepted):
            self.entries.append(entry)
            for node in self._tree.append(merkle.leaf_hash(entry)):
                self._nodes[node.level, node.position] = node.digest
            self.now_s += 10
            self.notes[self.ledger.size] = self.note()
        return applied

    def seal(self, message: Message, *signers: str) -> bytes:
        return seal(message, origin=self.origin, private_keys=[private_key(signer) for signer in signers])

    def committed(self, owner: str, *, number: int = 0) -> Committed:
        key = binding(owner, origin=self.origin, number=number).watermark_key
        hashes = (hashlib.sha256(what).digest() for what in (b"head", b"info"))
        return Committed(commitments.key_commitment(key), *hashes)

    def publication_message(
        self, owner: str, *, number: int = 0, further: Further | None = None, scheme: str = "mtlsign"
    ) -> Publication:
        key, head, info = self.committed(owner, number=number)
        return Publication(
            time_s=self.now_s,
            scheme=scheme,
            key_commitment=key,
            head_commitment=head,
            info_commitment=info,
            further=further,
        )

    def publish(self, owner: str, **what: object) -> bytes:
        """Publish a model for an owner; return the message's hash. `what` as `publication_message` takes it."""
        envelope = self.seal(self.publication_message(owner, **what), owner)
        self.submit(envelope)
        return message_hash(envelope)

    def change_policy(self, new: Policy, *signers: str, previous: bytes | None = None) -> Applied:
        """Let these nodes sign a new policy."""
        previous = self.ledger.policy_hashes[-1] if previous is None else previous
        change = PolicyChange(time_s=self.now_s, previous=previous, policy=new)
        return self.submit(self.seal(change, *(f"{name}/signing" for name in signers)))

    def rotate(self, old: str, new: str, *, signers: Sequence[str] | None = None) -> Applied:
        rotation = Rotation(time_s=self.now_s, old_key=public_key(old), new_key=public_key(new))
        return self.submit(self.seal(rotation, *((old, new) if signers is None else signers)))

    def withdraw(self, owner: str, target: bytes) -> Applied:
        return self.submit(self.seal(Withdrawal(time_s=self.now_s, target=target, reason="a mistake"), owner))

    def challenge_message(self, claim: bytes, publication: bytes) -> Challenge:
        return Challenge(time_s=self.now_s, claim=claim, publication=publication, reason="the model is mine")

    def challenge(self, challenger: str, claim: bytes, publication: bytes) -> Applied:
        return self.submit(self.seal(self.challenge_message(claim, publication), challenger))

    def claim_message(self, owner: str, publication: bytes, *, model: bytes = b"model", number: int = 0) -> Claim:
        model_sha256, evidence_sha256 = hashlib.sha256(model).digest(), hashlib.sha256(b"evidence").digest()
        return Claim(
            time_s=self.now_s,
            publication=publication,
            model_pointer=f"blob:sha256:{model_sha256.hex()}",
            model_sha256=model_sha256,
            evidence_pointer=f"blob:sha256:{evidence_sha256.hex()}",
            evidence_sha256=evidence_sha256,
            binding=binding(owner, origin=self.origin, number=number),
        )

    def claim(self, owner: str, publication: bytes, *, model: bytes = b"model", number: int = 0) -> bytes:
        message = self.claim_message(owner, publication, model=model, number=number)
        envelope = self.seal(message, owner)
        self.submit(envelope)
        return message_hash(envelope)

    def vote_message(
        self,
        claim: bytes,
        *,
        outcome: Outcome = Outcome.VERIFIED,
        reason: str = "matched",
        measurement: Measurement | None = None,
    ) -> Vote:
        if measurement is None and outcome is Outcome.VERIFIED:
            measurement = good_measurement()
        state = self.ledger.claim_state(claim)
        return Vote(
            time_s=self.now_s,
            claim=claim,
            policy=state.policy_hash if state else self.ledger.policy_hashes[-1],
            outcome=outcome,
            reason=reason,
            measurement=measurement,
            device="cpu",
            software="wmreg 0.1.0, torch 2.15.0",
        )

    def vote(self, node: int, claim: bytes, **what: object) -> Applied:
        return self.submit(self.seal(self.vote_message(claim, **what), f"node-{node}/signing"))

    def verified_claim(self, owner: str = "alice", *, model: bytes = b"model", number: int = 0) -> bytes:
        """Publish, claim and let every node verify; return the claim's hash."""
        claim = self.claim(owner, self.publish(owner, number=number), model=model, number=number)
        for node in range(1, len(self.policy.members) + 1):
            self.vote(node, claim)
        return claim

    def read_node(self, level: int, position: int) -> bytes:
        return self._nodes[level, position]

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        size = self.ledger.size if size is None else size
        return Checkpoint(origin=self.origin, size=size, root=merkle.root_at(size, self.read_node))

    def note(self, size: int | None = None, *, nodes: Sequence[int] | None = None) -> Note:
        """The checkpoint of a size, signed and cosigned by these nodes (all by default) at the present time."""
        text, lines = str(self.checkpoint(size)), []
        for name in [f"node-{number}" for number in nodes or ()] or [m.name for m in self.policy.members]:
            lines.append(sign(text, name=self.origin, private_key=private_key(f"{name}/note")))
            cosigner, key = f"{self.origin}/{name}", private_key(f"{name}/cosigner")
            lines.append(cosign(text, name=cosigner, private_key=key, timestamp_s=self.now_s))
        return Note(text, tuple(lines))

    def receipt(self, digest: bytes) -> Receipt:
        index = self.ledger.find(digest).index
        proof = merkle.inclusion_proof(index, index + 1, self.read_node)
        note = str(self.notes[index + 1])
        return Receipt(entry=self.entries[index], index=index, proof=tuple(proof), checkpoint_note=note)

    def proven(self, index: int) -> ProvenEntry:
        proof = merkle.inclusion_proof(index, self.ledger.size, self.read_node)
        return ProvenEntry(index=index, entry=self.entries[index], proof=tuple(proof))

    def attestation(self, size: int) -> Attestation:
        """The checkpoint of a size as it was cosigned, or by the present members if others cosigned it."""
        note = self.notes[size]
        try:
            self.trust.check(note)
        except UntrustedError:
            note = self.note(size)
        proof = merkle.consistency_proof(size, self.ledger.size, self.read_node)
        return Attestation(checkpoint_note=str(note), proof=tuple(proof))

    def certificate(self, claim: bytes) -> Certificate:
        """The certificate of a claim with every vote that there is."""
        edges = {edge for index in self.ledger.claim_state(claim).order for edge in (index, index + 1)}
        return Certificate(
            origin=self.origin,
            checkpoint_note=str(self.note()),
            entries=tuple(self.proven(index) for index in entries_of(self.ledger, claim)),
            attestations=tuple(self.attestation(edge) for edge in sorted(edges)),
        )
