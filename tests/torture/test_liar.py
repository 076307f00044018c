"""A node that forks, replays, votes falsely or shows another certificate changes nothing for the others, and is named.

The liar is the tests themselves with the keys of a stopped node; the two others are real and have all the work.
"""

import dataclasses
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster import ORIGIN, ROOT, Cluster, eventually
from fakes import LedgerMaker, binding, private_key, public_key
from safetensors.numpy import save
from torture.arena import OPTIONS, judged_arena
from torture.liar import Liar, is_let_in
from torture.measured import Measured

from node.raft import make_certificate
from registry import commitments, signing
from registry.envelope import message_hash, seal
from registry.evidence import parse_evidence
from registry.messages import Claim, Publication
from registry.verdict import Outcome

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]
FORK = "fork: a peer signed another tree"
STALE = [
    {"type": "append_entries", "term": 1, "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0, "sequence": 1}
    | {"entries": [(b"\x00a", 2, 1)]},
    {"type": "next_node_idx", "term": 1, "next_node_idx": 10**6, "last_index": 10**6, "sequence": 1}
    | {"reset": False, "success": True},
    {"type": "request_vote", "term": 1, "last_log_index": 10**6, "last_log_term": 10**6},
    {"type": "forward_accepted", "request_id": 1, "count": 1, "index": 10**6, "term": 1},
]


def test_a_node_that_forks_replays_and_shows_another_certificate(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "a lying node", pause_max_s=25) as a:
        honest, node = a.cluster.nodes[:2], a.cluster.nodes[2]  # the last one dials both others
        assert node.stop() == 0
        a.progress()
        liar = Liar(node)
        with liar.serving_forks():
            a.events += 1
            for victim in honest:
                eventually(lambda v=victim: v.logged(FORK), timeout_s=60, what=f"{victim.name} notices the fork")
            a.progress()
            findings = audit_of(a.cluster, tmp_path / "auditor")
        assert {finding["where"] for finding in findings if finding["code"] == "fork"} == {node.url}
        for victim in honest:
            a.events += 1
            for _ in range(5):
                liar.send(victim, STALE * 2)
            a.progress()
        stranger = make_certificate(node.name, now=dt.datetime.now(dt.UTC))
        certificate, key = tmp_path / "another.crt", tmp_path / "another.pem"
        certificate.write_text(stranger.certificate_pem)
        key.write_text(stranger.private_key_pem)
        for victim in honest:
            a.events += 1
            assert not is_let_in(victim, certificate, key)
            keys = liar.config.keys
            assert is_let_in(victim, keys.tls_certificate, keys.tls_private_key)
        assert all(one.process.poll() is None for one in honest)


def audit_of(cluster: Cluster, home: Path) -> list[dict]:
    """What anybody's `wmreg audit` finds."""
    command = [sys.executable, "-m", "client.command", "audit", "--policy", str(cluster.policy_path), "--json"]
    done = subprocess.run(
        [*command, "--evidence", str(home / "evidence")],
        cwd=ROOT,
        env={**os.environ, "WMREG_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 5, done.stdout + done.stderr
    return json.loads(done.stdout)["findings"]


def test_a_false_vote_decides_nothing(tmp_path: Path):
    options = dataclasses.replace(OPTIONS, unreachable_retry_s=5)
    with Cluster.make(tmp_path / "ledger", options=options) as cluster:
        liar_node, honest = cluster.nodes[2], cluster.nodes[:2]
        digest = claim_without_its_head(cluster)
        liar_node.kill()
        vote = LedgerMaker().vote_message(digest)
        genesis = (liar_node.directory / "genesis").read_bytes()
        vote = dataclasses.replace(vote, time_s=int(time.time()), policy=message_hash(genesis))
        assert vote.outcome is Outcome.VERIFIED
        liar = Liar(liar_node)
        answer = honest[0].submit(seal(vote, origin=ORIGIN, private_keys=[liar.identity.signing]))
        assert answer.status in {200, 422}, answer.body
        assert cluster.verdict(digest, node=honest[0]) == (Outcome.REFUTED, "head_mismatch")
        assert honest[0].get(f"/v1/certificates/{digest.hex()}").status == 409
        votes = honest[0].get(f"/v1/claims/{digest.hex()}").json["votes"]
        assert [vote["outcome"] for vote in votes].count("REFUTED") >= 2


def claim_without_its_head(cluster: Cluster) -> bytes:
    """Publish one head and claim with another, whose files every node has; return the claim's hash."""
    metadata = {"format": "wmreg-evidence/1", "salt": "00" * 32, "info": '{"scheme":"mtlsign"}'}
    evidence, model = save({"w": np.zeros(3, np.float32)}, metadata), b"a model that nobody gets to read"
    files = {}
    for name, content in (("evidence", evidence), ("model", model)):
        sha256 = hashlib.sha256(content).digest()
        signature = signing.sign(private_key("alice"), signing.blob_upload(ORIGIN, sha256, len(content)))
        headers = {"Wmreg-Signer": public_key("alice").hex(), "Wmreg-Signature": signature.hex()}
        for node in cluster.nodes:
            assert node.put_blob(sha256, content, headers).status in {200, 201}
        files |= {f"{name}_pointer": f"blob:sha256:{sha256.hex()}", f"{name}_sha256": sha256}
    key = binding("alice", origin=ORIGIN, number=9_999)
    published = seal(
        Publication(
            time_s=int(time.time()),
            scheme="mtlsign",
            key_commitment=commitments.key_commitment(key.watermark_key),
            head_commitment=b"h" * 32,
            info_commitment=parse_evidence(evidence).info_commitment,
        ),
        origin=ORIGIN,
        private_keys=[private_key("alice")],
    )
    assert cluster.nodes[0].submit(published).status == 200
    message = Claim(time_s=int(time.time()), publication=message_hash(published), binding=key, **files)
    envelope = seal(message, origin=ORIGIN, private_keys=[private_key("alice")])
    assert cluster.nodes[0].submit(envelope).status == 200
    return message_hash(envelope)
