"""Promises: whoever lies about an entry's time is named, or the report says that nothing could tell; nobody else is."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from fakes import START_S, LedgerMaker, private_key, replayed

from client.audit import attesting
from client.audit.attesting import Attestations
from client.audit.dating import check_times, fetch_attestations
from client.audit.findings import Findings
from client.audit.mirror import Mirror
from registry.envelope import message_hash
from registry.note import KeyType, Note, VerifierKey, cosign, sign
from registry.rules import Accepted
from registry.trust import TrustPolicy

pytestmark = pytest.mark.long

HOUR_S = 3600
Act = Callable[["Cluster"], None]


class Cluster(LedgerMaker):
    """A ledger that orders one entry in each step, and nodes that signed each size when its last entry was ordered."""

    def __init__(self, entries: int, special: dict[int, Act] | None = None, *, step_s: int = HOUR_S) -> None:
        super().__init__()
        self.ordered_s = [START_S]
        self.published = self.claimed = b""
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
            keys = [private_key(f"{name}/cosigner"), *([pq_key(name)] if self.two_keys else [])]
            lines += [cosign(text, name=cosigner, private_key=key, timestamp_s=time_s) for key in keys]
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
    state, nodes = replayed(cluster.entries), Nodes(cluster, lost)
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


def claimed(cluster: Cluster) -> None:
    """A claim on the entry before."""
    number = cluster.ledger.size - 1
    message = cluster.claim_message("alice", cluster.published, number=number)
    cluster.submit(envelope := cluster.seal(message, "alice"))
    cluster.claimed = message_hash(envelope)


def published(cluster: Cluster) -> None:
    cluster.published = cluster.publish("alice", number=cluster.ledger.size)


def voted(node: int, *, hours: float = 0) -> Act:
    """A vote on the claim, which says another time than it was recorded at."""

    def act(cluster: Cluster) -> None:
        time_s = cluster.now_s + int(hours * HOUR_S)
        vote = replace(cluster.vote_message(cluster.claimed), time_s=time_s)
        assert isinstance(cluster.submit(cluster.seal(vote, f"node-{node}/signing"), recorded_s=time_s), Accepted)

    return act


def deadline(hours: int) -> Act:
    def act(cluster: Cluster) -> None:
        cluster.change_policy(replace(cluster.policy, claim_deadline_s=hours * HOUR_S), "node-1", "node-2")

    return act


CLAIM = {5: deadline(24), 8: published, 9: claimed, 12: voted(1)}


def test_an_honest_ledger_of_many_entries_raises_no_alarm_and_the_report_says_how_wide_the_bounds_are(tmp_path):
    said = told(Cluster(600), tmp_path)

    assert said.found == []
    assert len(said.remarks) == 1
    assert said.says("no cosigned checkpoint of their own", "entries 1 to 254", "10.6 days")


@pytest.mark.parametrize(("index", "hours"), [(400, -90), (100, -90), (200, -500_000), (255, -3), (257, -3), (1, -0.5)])
def test_a_backdated_entry_is_named_wherever_it_is(tmp_path, index, hours):
    said = told(Cluster(600, {index: dated(hours)}), tmp_path)

    assert said.found == ([("backdated", f"entry {index}")] if index > 1 else [])
    assert index > 1 or said.says("ordered later than recorded", "entry 1 by 30.0 minutes")


@pytest.mark.parametrize(("index", "hours"), [(400, 90), (100, 3), (200, 10**9), (254, 1000), (256, 2)])
def test_a_postdated_entry_is_named_wherever_it_is(tmp_path, index, hours):
    assert told(Cluster(600, {index: dated(hours)}), tmp_path).found == [("postdated", f"entry {index}")]


def test_a_liar_accuses_none_of_his_neighbours_and_costs_few_questions(tmp_path):
    honest = told(Cluster(600), tmp_path / "honest")
    liars = told(Cluster(600, {100: dated(10**6), 150: dated(-(10**5)), 300: dated(50)}), tmp_path / "liars")

    assert sorted(liars.found) == [("backdated", "entry 150"), ("postdated", "entry 100"), ("postdated", "entry 300")]
    assert liars.asked < honest.asked + 40


def test_a_backdated_entry_is_found_among_those_that_could_have_waited_with_it(tmp_path):
    special = {700: dated(-2000 / HOUR_S)}

    assert told(Cluster(900, special, step_s=10), tmp_path).found == [("backdated", "entry 700")]


@pytest.mark.parametrize("last", [180, 255])
def test_many_backdated_entries_in_a_row_are_named(tmp_path, last):
    row = {index: dated(99.5 - index + index / 10**4) for index in range(100, last + 1)}

    found = told(Cluster(600, row), tmp_path).found

    assert {code for code, _ in found} == {"backdated"}
    assert {where for _, where in found} >= {f"entry {index}" for index in range(102, last + 1)}


def test_a_vote_that_came_after_the_deadline_and_says_otherwise_is_named(tmp_path):
    cluster = Cluster(600, CLAIM | {200: voted(2, hours=-170)})

    said = told(cluster, tmp_path)

    assert cluster.ledger.verdict(cluster.claimed).outcome == "VERIFIED"
    assert said.found == [("backdated", "entry 200")]


def test_a_late_vote_in_a_silence_is_a_remark_for_it_may_have_waited(tmp_path):
    cluster = Cluster(14, CLAIM)
    cluster.now_s += 200 * HOUR_S
    voted(2, hours=-190)(cluster)
    cluster.ordered_s.append(cluster.ordered_s[-1] + 200 * HOUR_S)

    said = told(cluster, tmp_path)

    assert said.found == []
    assert said.says("entry 14: a vote", "deadline", "waited for a quorum, or it is late")
    assert said.says("ordered later than recorded", "7.9 days")


def test_votes_in_time_are_not_doubted(tmp_path):
    said = told(Cluster(600, CLAIM | {20: voted(2)}), tmp_path)

    assert said.found == []
    assert not said.says("a vote")


def test_claims_cost_a_bounded_number_of_questions(monkeypatch):
    maker = LedgerMaker()
    claims = [maker.verified_claim(owner) for owner in ("alice", "bob", "carol")]
    first, last = maker.ledger.claim_state(claims[0]).claim.index, maker.ledger.claim_state(claims[-1]).claim.index
    while maker.ledger.size < 257:
        maker.publish("alice", number=maker.ledger.size)

    assert {first, first + 1, last, last + 1} <= attesting.sizes_of_interest(maker.ledger)
    monkeypatch.setattr(attesting, "CLAIMS_MAX", 1)
    assert {first, last, last + 1} & attesting.sizes_of_interest(maker.ledger) == {last, last + 1}


def test_a_suspicion_that_no_checkpoint_settles_is_a_remark(tmp_path):
    said = told(Cluster(600, {100: dated(-90)}), tmp_path, lost=frozenset(range(1, 255)))

    assert said.found == []
    assert said.says("contradict each other", "to 100", "no checkpoint that would tell which are wrong")
