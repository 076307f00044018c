"""Promises: whoever lies about an entry's time is named, or the report says that nothing could tell; nobody else is."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from fakes import START_S, LedgerMaker, private_key

from client.audit.attesting import Attestations
from client.audit.dating import check_times, fetch_attestations
from client.audit.findings import Findings
from client.audit.mirror import Mirror
from registry.audit import replay
from registry.note import KeyType, Note, VerifierKey, cosign, sign
from registry.rules import Accepted
from registry.trust import TrustPolicy

HOUR_S = 3600
Act = Callable[["Cluster"], None]


class Cluster(LedgerMaker):
    """A ledger that orders one entry in each step, and nodes that signed each size when its last entry was ordered."""

    def __init__(self, entries: int, special: dict[int, Act] | None = None, *, step_s: int = HOUR_S) -> None:
        super().__init__()
        self.ordered_s, self.names = [START_S], {}
        self.two_keys = False
        while self.ledger.size < entries:
            index = self.ledger.size
            self.now_s = START_S + index * step_s
            (special or {}).get(index, lambda cluster: cluster.publish("alice", number=cluster.ledger.size))(self)
            assert self.ledger.size == index + 1
            self.ordered_s.append(START_S + index * step_s)

    def note(self, size: int | None = None, **_: object) -> Note:
        """The checkpoint as it is asked for later; none is signed while the ledger is built."""
        text, lines = str(self.checkpoint(size)), []
        if size is None:
            return Note(text, ())
        for name in (member.name for member in self.policy.members):
            cosigner, time_s = f"{self.origin}/{name}", self.ordered_s[size - 1] + 2
            lines.append(sign(text, name=self.origin, private_key=private_key(f"{name}/note")))
            for key in [private_key(f"{name}/cosigner"), *([pq_key(name)] if self.two_keys else [])]:
                lines.append(cosign(text, name=cosigner, private_key=key, timestamp_s=time_s))
        return Note(text, tuple(lines))


@dataclass
class Nodes:
    """One node's answers; `lost` are sizes whose checkpoints it does not have."""

    cluster: Cluster
    lost: frozenset[int] = frozenset()
    urls: tuple[str, ...] = ("http://node",)
    asked: list[int] = field(default_factory=list)

    @property
    def transport(self) -> "Nodes":
        return self

    async def own_note(self, _url: str, size: int) -> Note | None:
        self.asked.append(size)
        return None if size in self.lost else self.cluster.note(size)


@dataclass
class Told:
    """What the audit of the times says."""

    found: list[tuple[str, str]]
    remarks: list[str]
    asked: int

    def says(self, *words: str) -> bool:
        return any(all(word in remark for word in words) for remark in self.remarks)


def told(cluster: Cluster, directory: Path, *, trust: TrustPolicy | None = None, lost: frozenset[int] = frozenset()):
    state, nodes = replay(cluster.entries), Nodes(cluster, lost)
    attestations = Attestations(trust or cluster.trust, Mirror(directory), state.tree)
    asyncio.run(fetch_attestations(nodes, attestations, state))
    findings, remarks = Findings(), []
    check_times(attestations, state, findings, remarks)
    return Told([(one.code, one.where) for one in findings.all], remarks, len(nodes.asked))


def dated(hours: float, *, owner: str = "bob") -> Act:
    """A publication that says another time than it was recorded at."""

    def act(cluster: Cluster) -> None:
        time_s = cluster.now_s + int(hours * HOUR_S)
        message = replace(cluster.publication_message(owner, number=cluster.ledger.size), time_s=time_s)
        assert isinstance(cluster.submit(cluster.seal(message, owner), recorded_s=time_s), Accepted)

    return act


def skew(seconds: int) -> Act:
    """A policy with another skew."""

    def act(cluster: Cluster) -> None:
        assert isinstance(
            cluster.change_policy(replace(cluster.policy, time_skew_s=seconds), "node-1", "node-2"), Accepted
        )

    return act


def pq_key(name: str) -> MLDSA44PrivateKey:
    return MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(name.encode()).digest())


def with_two_keys(cluster: Cluster) -> TrustPolicy:
    """A trust policy that knows each node by two keys."""
    own = cluster.trust
    lines = [f"log {log.key}" for log in own.logs]
    for witness in own.witnesses:
        public = pq_key(witness.name).public_key().public_bytes_raw()
        second = VerifierKey(name=witness.key.name, type=KeyType.ML_DSA_COSIGNATURE, public_key=public)
        lines += [f"witness {witness.name} {witness.key}", f"witness {witness.name}-pq {second}"]
        lines.append(f"group either-{witness.name} any {witness.name} {witness.name}-pq")
    lines.append("group nodes 2 " + " ".join(f"either-{witness.name}" for witness in own.witnesses))
    return TrustPolicy.parse("\n".join([*lines, "quorum nodes", ""]))


def test_an_entry_is_judged_by_the_skew_that_was_in_force_for_it(tmp_path):
    slow, lowered = {20: dated(-250 / HOUR_S)}, {30: skew(60)}

    assert told(Cluster(40, slow | lowered, step_s=100), tmp_path / "lowered").found == []
    assert told(Cluster(40, {30: skew(60), 35: dated(-59 / HOUR_S)}, step_s=100), tmp_path / "within").found == []


def test_a_skew_that_was_raised_later_clears_no_backdated_entry(tmp_path):
    found = told(Cluster(40, {20: dated(-20), 30: skew(7 * 86400)}), tmp_path).found

    assert found == [("backdated", "entry 20")]


@pytest.mark.parametrize("two_keys", [False, True])
def test_a_node_with_two_keys_has_one_clock(tmp_path, two_keys):
    cluster = Cluster(8, {4: dated(-4)})
    cluster.two_keys = two_keys

    said = told(cluster, tmp_path, trust=with_two_keys(cluster))

    assert said.found == [("backdated", "entry 4")]
    assert not said.says("bound no entry's time")


def test_checkpoints_that_bound_nothing_are_a_remark(tmp_path):
    cluster = Cluster(4)
    lines = [f"log {log.key}" for log in cluster.trust.logs]
    lines += [f"witness {witness.name} {witness.key}" for witness in cluster.trust.witnesses]
    lines += [f"witness further-{number} {_further(number)}" for number in range(4)]

    said = told(cluster, tmp_path, trust=TrustPolicy.parse("\n".join([*lines, "quorum node-1", ""])))

    assert said.says("4 cosigned checkpoints bound no entry's time")


def _further(number: int) -> VerifierKey:
    public = private_key(f"further {number}").public_key().public_bytes_raw()
    return VerifierKey(name=f"example.org/{number}", type=KeyType.COSIGNATURE, public_key=public)
