"""Three real node processes on loopback: nothing acknowledged is lost, and everyone signs one tree."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import owner
import pytest
from cluster import Cluster, eventually
from fakes import replayed
from marked import make_marked
from owner import claimed, publication, upload, watermark_key
from safetensors.numpy import save

from node.init import ClusterOptions
from registry.certificate import verify_certificate
from registry.evidence import parse_evidence
from registry.note import Note
from registry.policy import Thresholds
from registry.tiles import parse_entry_bundle
from registry.verdict import Outcome

pytestmark = [pytest.mark.cluster, pytest.mark.long]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster") / "ledger"
    with Cluster.make(directory, options=ClusterOptions(unreachable_retry_s=5, submit_timeout_s=8)) as cluster:
        yield cluster


numbers = iter(range(1, 10_000))


def accepted(cluster: Cluster, node: int, envelope: bytes | None = None) -> int:
    """Submit to a node, a publication of no other use unless told; return the index."""
    return owner.accepted(cluster, node, envelope or publication(next(numbers)))


def audit(cluster: Cluster, node: int) -> list[bytes]:
    """Replay a node's whole log from its tiles and check it against the cosigned checkpoint."""
    note = Note.parse(cluster.nodes[node].get("/checkpoint").body.decode())
    checkpoint = cluster.trust.check(note).checkpoint
    entries = parse_entry_bundle(cluster.nodes[node].get(f"/tile/entries/000.p/{checkpoint.size}").body)
    replayed(entries).tree.check(checkpoint)
    return entries


def test_any_node_takes_a_publication_and_all_sign_one_tree(cluster: Cluster):
    indexes = [accepted(cluster, node) for node in (0, 1, 2)]
    assert indexes == sorted(set(indexes))
    cluster.wait_until_equal(indexes[-1] + 1)
    assert len({tuple(audit(cluster, node)) for node in range(3)}) == 1


def test_each_node_may_be_killed_while_the_others_go_on_and_catches_up(cluster: Cluster):
    known = []
    for victim in range(3):
        others = [node for node in range(3) if node != victim]
        known.append(accepted(cluster, victim))
        cluster.nodes[victim].kill()
        known += [accepted(cluster, node) for node in others]
        cluster.nodes[victim].start()
        cluster.wait_until_healthy()
        cluster.wait_until_equal(max(known) + 1)
        known.append(accepted(cluster, victim))
    assert known == sorted(set(known))
    cluster.wait_until_equal(max(known) + 1)
    assert len({tuple(audit(cluster, node)) for node in range(3)}) == 1


def test_without_a_majority_nothing_is_accepted_and_afterwards_the_same_message_is(cluster: Cluster):
    envelope = publication(next(numbers))
    for node in (0, 1):
        cluster.nodes[node].kill()
    answer = cluster.nodes[2].submit(envelope)
    assert (answer.status, answer.json["error"]["code"]) in {(503, "no_leader"), (503, "timeout"), (503, "quorum")}
    for node in (0, 1):
        cluster.nodes[node].start()
    cluster.wait_until_healthy()
    index = accepted(cluster, 2, envelope)
    assert accepted(cluster, 0, envelope) == index


def test_an_older_copy_of_the_ledger_is_completed_from_the_journal_and_signed_on(cluster: Cluster, tmp_path: Path):
    node = cluster.nodes[1]
    assert node.stop() == 0
    shutil.copy(node.directory / "state/ledger.db", tmp_path / "ledger.db")
    node.start()
    cluster.wait_until_healthy()
    last = [accepted(cluster, 1) for _ in range(3)][-1]
    cluster.wait_until_equal(last + 1)
    assert node.stop() == 0
    shutil.copy(tmp_path / "ledger.db", node.directory / "state/ledger.db")
    node.start()
    cluster.wait_until_healthy()
    cluster.wait_until_equal(last + 1)
    assert accepted(cluster, 1) == last + 1


def test_a_claim_whose_head_was_not_published_is_refuted_by_every_node(cluster: Cluster):
    metadata = {"format": "wmreg-evidence/1", "salt": "00" * 32, "info": '{"scheme":"mtlsign"}'}
    evidence, model = save({"w": np.zeros(3, np.float32)}, metadata), b"a model that nobody gets to read"
    for node, content in ((0, evidence), (0, model), (1, evidence)):
        assert upload(cluster, node, content) == 201
    number = next(numbers)
    published = publication(number)
    accepted(cluster, 1, published)
    digest = claimed(cluster, published, number=number, model=model, evidence=evidence)
    assert cluster.verdict(digest) == (Outcome.REFUTED, "head_mismatch")
    votes = eventually(lambda: _votes(cluster, digest, 3), timeout_s=60, what="three votes")
    assert {vote["outcome"] for vote in votes} == {"REFUTED"}
    assert cluster.nodes[0].get(f"/v1/certificates/{digest.hex()}").status == 409


@pytest.mark.slow
def test_a_marked_model_is_verified_and_certified_and_an_independent_one_is_refuted(tmp_path: Path):
    files = make_marked(tmp_path, watermark_key(0))
    model, evidence, independent = (path.read_bytes() for path in (files.model, files.evidence, files.independent))
    parsed = parse_evidence(evidence)
    thresholds = Thresholds(permutations_min=99, permutation_p_permille=10)
    with Cluster.make(tmp_path / "ledger", options=ClusterOptions(thresholds=thresholds)) as cluster:
        for content in (model, evidence, independent):
            assert [upload(cluster, node, content) for node in (0, 1)] == [201, 201]
        published = publication(0, head=parsed.head_commitment, info=parsed.info_commitment)
        accepted(cluster, 0, published)
        digest = claimed(cluster, published, number=0, model=model, evidence=evidence)
        assert cluster.verdict(digest, timeout_s=280) == (Outcome.VERIFIED, "matched")
        other = claimed(cluster, published, number=0, model=independent, evidence=evidence)
        assert cluster.verdict(other, timeout_s=120) == (Outcome.REFUTED, "below_threshold")
        raw = cluster.certificate(digest, node=cluster.nodes[2])
        story = verify_certificate(raw, cluster.trust)
        assert (story.claim_hash, story.model_sha256) == (digest, hashlib.sha256(model).digest())
        numbers_of_all = {(vote.matched, vote.total, vote.p_value) for vote in story.votes}
        assert numbers_of_all == {(600, 600, "2.41e-181")}


@pytest.mark.slow
def test_any_one_node_may_be_killed_while_it_verifies_and_the_others_reach_the_verdict(tmp_path: Path):
    files = make_marked(tmp_path, watermark_key(0))
    model, evidence = files.model.read_bytes(), files.evidence.read_bytes()
    parsed = parse_evidence(evidence)
    thresholds = Thresholds(permutations_min=99, permutation_p_permille=10)
    with Cluster.make(tmp_path / "ledger", options=ClusterOptions(thresholds=thresholds)) as cluster:
        for content in (model, evidence):
            assert [upload(cluster, node, content) for node in (0, 1, 2)] == [201, 201, 201]
        published = publication(0, head=parsed.head_commitment, info=parsed.info_commitment)
        accepted(cluster, 0, published)
        for victim in (0, 1, 2):
            other = (victim + 1) % 3
            digest = claimed(cluster, published, number=0, model=model, evidence=evidence, node=other)
            cluster.nodes[victim].kill()
            assert cluster.verdict(digest, timeout_s=120) == (Outcome.VERIFIED, "matched")
            raw = cluster.certificate(digest, node=cluster.nodes[other])
            voters = {vote.member for vote in verify_certificate(raw, cluster.trust).votes}
            assert voters == {"node-1", "node-2", "node-3"} - {cluster.nodes[victim].name}
            cluster.nodes[victim].start()
            cluster.wait_until_healthy()


def _votes(cluster: Cluster, digest: bytes, count: int) -> list[dict[str, object]]:
    votes: list[dict[str, object]] = cluster.nodes[0].get(f"/v1/claims/{digest.hex()}").json["votes"]
    return votes if len(votes) >= count else []


def test_a_killed_node_leaves_no_verifier_process_behind(cluster: Cluster):
    node = cluster.nodes[2]
    eventually(lambda: node.state()["verifier"]["state"] == "ready", timeout_s=120, what="a verifier that is ready")
    children = eventually(lambda: _children(node.process.pid), timeout_s=60, what="a verifier process")
    node.kill()
    eventually(lambda: not any(_is_alive(pid) for pid in children), timeout_s=30, what="the verifier's end")
    node.start()
    cluster.wait_until_healthy()
    assert not any(_is_alive(pid) for pid in children)


def _children(parent: int) -> list[int]:
    return [
        int(pid) for pid in (path.name for path in Path("/proc").iterdir()) if pid.isdigit() and _parent(pid) == parent
    ]


def _parent(pid: str) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
