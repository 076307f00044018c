"""Three real nodes fetch the base that evidence declares, and judge by it, or say why they cannot have it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster, eventually
from marked import MarkedFiles, declaring, make_marked
from owner import accepted, claimed, publication, upload, watermark_key
from safetensors.numpy import load, save

from node.config import load_config
from node.init import BLOBS_DIRECTORY, ClusterOptions
from registry.certificate import verify_certificate
from registry.evidence import parse_evidence
from registry.policy import Thresholds
from registry.verdict import ControlKind, Outcome

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
VERDICT_S = 180
THRESHOLDS = Thresholds(permutations_min=99, permutation_p_permille=10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = ClusterOptions(thresholds=THRESHOLDS, unreachable_retry_s=5)
    with Cluster.make(tmp_path_factory.mktemp("base") / "ledger", options=options) as cluster:
        yield cluster


@dataclass(frozen=True)
class Marked:
    """Alice's model and the model that her evidence declares as its base."""

    number: int
    files: MarkedFiles
    evidence: bytes
    base: bytes

    def claim(self, cluster: Cluster) -> bytes:
        """Upload model and evidence, publish and claim; the claim's hash."""
        parsed, model = parse_evidence(self.evidence), self.files.model.read_bytes()
        assert [upload(cluster, 1, content) for content in (model, self.evidence)] == [201, 201]
        published = publication(self.number, head=parsed.head_commitment, info=parsed.info_commitment)
        accepted(cluster, 0, published)
        return claimed(cluster, published, number=self.number, model=model, evidence=self.evidence)

    @property
    def base_sha256(self) -> bytes:
        return hashlib.sha256(self.base).digest()


def marked(directory: Path, number: int, *, with_base_of_its_own: bool = True) -> Marked:
    """A marked model; its base is another network, or has all of its layers but the last."""
    files, base = make_marked(directory, watermark_key(number), seed=2 * number + 1), directory / "base.safetensors"
    if with_base_of_its_own:
        base.write_bytes(files.independent.read_bytes())
    else:
        tensors = load(files.model.read_bytes())
        base.write_bytes(save({**tensors, "fc.weight": -tensors["fc.weight"]}))
    evidence = declaring(files, base, directory / "declaring.safetensors")
    return Marked(number, files, evidence.read_bytes(), base.read_bytes())


def stored_at(cluster: Cluster, node: int, sha256: bytes) -> Path:
    """Where a node keeps an upload."""
    return load_config(cluster.nodes[node].directory / "node.toml").state_directory / BLOBS_DIRECTORY / sha256.hex()


def base_counts(cluster: Cluster, claim: bytes) -> list[list[int]]:
    """What every node counted on the base, as soon as all three have voted."""

    def votes() -> list[dict]:
        found = cluster.nodes[0].get(f"/v1/claims/{claim.hex()}").json["votes"]
        return found if len(found) == 3 else []

    controls = [vote["controls"] for vote in eventually(votes, timeout_s=VERDICT_S, what="three votes")]
    return [[one["matched"] for one in of_node if one["kind"] == ControlKind.BASE] for of_node in controls]


def test_a_mark_that_its_base_does_not_have_is_verified_by_all_and_certified(cluster: Cluster, tmp_path: Path):
    mine = marked(tmp_path, 0)
    assert upload(cluster, 0, mine.base) == 201
    claim = mine.claim(cluster)
    assert cluster.verdict(claim, timeout_s=VERDICT_S) == (Outcome.VERIFIED, "matched")
    counts = base_counts(cluster, claim)
    assert counts == [counts[0]] * 3
    assert 240 < counts[0][0] < 360
    story = verify_certificate(cluster.certificate(claim, node=cluster.nodes[2]), cluster.trust)
    assert story.claim_hash == claim


def test_a_head_that_its_base_answers_too_is_refuted_by_all(cluster: Cluster, tmp_path: Path):
    mine = marked(tmp_path, 1, with_base_of_its_own=False)
    assert upload(cluster, 0, mine.base) == 201
    claim = mine.claim(cluster)
    assert cluster.verdict(claim, timeout_s=VERDICT_S) == (Outcome.REFUTED, "shared_ancestor")
    assert base_counts(cluster, claim) == [[600]] * 3
    assert cluster.nodes[0].get(f"/v1/certificates/{claim.hex()}").status == 409


def test_a_base_that_nobody_can_fetch_leaves_the_claim_unverifiable(cluster: Cluster, tmp_path: Path):
    claim = marked(tmp_path, 2).claim(cluster)
    assert cluster.verdict(claim, timeout_s=VERDICT_S) == (Outcome.UNVERIFIABLE, "base_unreachable")


def test_another_file_in_the_bases_place_is_no_base(cluster: Cluster, tmp_path: Path):
    mine = marked(tmp_path, 3)
    other = mine.files.model.read_bytes()  # one that would make the claim refuted
    assert upload(cluster, 0, other, digest=mine.base_sha256) == 422
    assert upload(cluster, 0, mine.base) == 201
    stored_at(cluster, 0, mine.base_sha256).write_bytes(other)
    assert cluster.nodes[0].get(f"/v1/blobs/{mine.base_sha256.hex()}").body == other
    claim = mine.claim(cluster)
    assert cluster.verdict(claim, timeout_s=VERDICT_S) == (Outcome.UNVERIFIABLE, "base_unreachable")


def test_another_file_at_one_node_does_not_hide_the_base_at_the_next(cluster: Cluster, tmp_path: Path):
    mine = marked(tmp_path, 4)
    assert [upload(cluster, node, mine.base) for node in (0, 1)] == [201, 201]
    stored = stored_at(cluster, 0, mine.base_sha256)
    stored.write_bytes(mine.files.model.read_bytes())
    claim = mine.claim(cluster)
    assert cluster.verdict(claim, timeout_s=VERDICT_S) == (Outcome.VERIFIED, "matched")
    counts = base_counts(cluster, claim)
    assert counts == [counts[0]] * 3
    assert not stored.exists()  # the node found it out itself, and fetched the base from another
