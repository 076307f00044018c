"""Claims on files that harm whoever reads them, at three real nodes: each ends in its reason, and no node ends.

The verifier's own tests have more such files; here nodes fetch them, vote, and verify an honest claim after them all.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster
from marked import make_demanding, make_marked
from owner import accepted, claimed, publication, upload, watermark_key
from safetensors.numpy import save

from node.init import ClusterOptions
from registry.evidence import parse_evidence
from registry.policy import Thresholds
from registry.verdict import Outcome

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]
VERDICT_S = 240
MEMORY_BYTES_MAX = 500_000_000
PICKLE = b"\x80\x04\x95" + b"cposix\nsystem\n(S'true'\ntR." * 20
MODELS = {
    "a pickle": (PICKLE, "malformed"),
    "a header of 2^60 bytes": (struct.pack("<Q", 2**60) + b"{}", "malformed"),
    "a tensor that is not there": (
        struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'[:60],
        "malformed",
    ),
    "another network": (save({"w": np.zeros(3, np.float32)}), "wrong_architecture"),
}
POINTERS = [
    "https://127.0.0.1/m",
    "https://169.254.169.254/latest/meta-data",
    "http://example.org/m",
    "file:///etc/passwd",
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    thresholds = Thresholds(permutations_min=99, permutation_p_permille=10)
    cluster = Cluster.make(tmp_path / "ledger", options=ClusterOptions(thresholds=thresholds, unreachable_retry_s=5))
    for node in cluster.nodes:
        path = node.directory / "node.toml"
        settings = path.read_text()
        limited = settings.replace(f"memory_bytes_max = {8 * 2**30}", f"memory_bytes_max = {MEMORY_BYTES_MAX}")
        assert limited != settings
        path.write_text(limited)
    with cluster:
        yield cluster


def published(cluster: Cluster, evidence: bytes, *, number: int) -> bytes:
    """Upload evidence and publish what belongs to it; the publication."""
    parsed = parse_evidence(evidence)
    assert upload(cluster, number % 3, evidence) == 201
    envelope = publication(number, head=parsed.head_commitment, info=parsed.info_commitment)
    accepted(cluster, 0, envelope)
    return envelope


def test_hostile_files_are_answers_and_an_honest_claim_is_verified_after_them(cluster: Cluster, tmp_path: Path):
    pids = [node.process.pid for node in cluster.nodes]
    files = make_marked(tmp_path, watermark_key(0))
    model, evidence = files.model.read_bytes(), files.evidence.read_bytes()
    by = published(cluster, evidence, number=0)
    assert upload(cluster, 0, model) == 201
    claims = {}
    for name, (content, reason) in MODELS.items():
        assert upload(cluster, 1, content) == 201
        claims[name] = claimed(cluster, by, number=0, model=content, evidence=evidence), reason
    for pointer in POINTERS:
        digest = claimed(cluster, by, number=0, model=model, evidence=evidence, pointer=pointer)
        claims[pointer] = digest, "unsupported_pointer"
    claims["evidence that is a pickle"] = claimed(cluster, by, number=0, model=model, evidence=PICKLE), "malformed"
    greedy, asking = make_demanding(tmp_path, side=1024)
    assert upload(cluster, 2, greedy) == 201
    digest = claimed(cluster, published(cluster, asking, number=1), number=1, model=greedy, evidence=asking)
    claims["a network that takes all memory"] = digest, "too_large"
    for name, (digest, reason) in claims.items():
        assert cluster.verdict(digest, timeout_s=VERDICT_S) == (Outcome.UNVERIFIABLE, reason), name
    honest = claimed(cluster, by, number=0, model=model, evidence=evidence)
    assert cluster.verdict(honest, timeout_s=VERDICT_S) == (Outcome.VERIFIED, "matched")
    assert [node.process.pid for node in cluster.nodes if node.process.poll() is None] == pids
    assert [node.name for node in cluster.nodes if '"traceback"' in node.log()] == []
