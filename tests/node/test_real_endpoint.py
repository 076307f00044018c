"""The whole way of a claim on an endpoint: the sandboxed verifier, the reference server, the vote that comes of it."""

import hashlib
import time
from pathlib import Path

import pytest
import torch
from asked import COUNT, margin_evidence
from ballots import until, upload, votes, voting
from endpoints import serving
from fakes import binding, private_key
from nodeset import ORIGIN, NodeSet, claim, sealed
from torch import nn

import wm
from client.serving.network import Network
from client.serving.server import Limits, Server
from node.init import ClusterOptions
from registry import commitments
from registry.endpoint import endpoint_pointer, endpoint_sha256
from registry.envelope import message_hash
from registry.evidence import parse_evidence
from registry.messages import Publication
from registry.verdict import Outcome, Statistic
from wm.data import digits

pytestmark = pytest.mark.slow
LIMITS = Limits(pictures_max=16, requests_max=4, timeout_s=60)


class Nearest(nn.Module):
    """Gives a picture the class of the nearest one that it knows: a network that carries a mark, without a training."""

    def __init__(self, known: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.known = nn.Parameter(known.flatten(1))
        self.labels = nn.functional.one_hot(labels, 10).float()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.labels[torch.cdist(images.flatten(1), self.known).argmin(1)]


def published(evidence: bytes) -> bytes:
    """Alice's publication of a mark."""
    parsed, key = parse_evidence(evidence), binding("alice", origin=ORIGIN).watermark_key
    message = Publication(
        time_s=int(time.time()),
        scheme="margin",
        key_commitment=commitments.key_commitment(key),
        head_commitment=parsed.head_commitment,
        info_commitment=parsed.info_commitment,
    )
    return sealed(message, private_key("alice"))


@pytest.mark.parametrize(("shift", "outcome"), [(0, Outcome.VERIFIED), (1, Outcome.REFUTED)])
async def test_an_endpoint_is_judged_by_what_it_answers(tmp_path: Path, shift: int, outcome: Outcome):
    evidence, spec = margin_evidence(tmp_path / "evidence").read_bytes(), digits().input
    triggers = wm.class_triggers(tmp_path / "evidence", binding("alice", origin=ORIGIN).watermark_key)
    known = spec.normalisation.apply(triggers.pixels.float() / 255)
    server = Server(Network(Nearest(known, (triggers.labels + shift) % 10), spec, 10), "m", LIMITS)
    message = published(evidence)
    async with (
        serving(server.app()) as port,
        NodeSet(tmp_path / "ledger", nodes=1, options=ClusterOptions(unreachable_retry_s=0), command=()) as nodes,
    ):
        await upload(nodes.nodes[0], evidence)
        url, evidence_sha256 = f"http://127.0.0.1:{port}/v2/models/m", hashlib.sha256(evidence).digest()
        envelope = claim(
            message,
            model_pointer=endpoint_pointer(url),
            model_sha256=endpoint_sha256(url),
            evidence_pointer=f"blob:sha256:{evidence_sha256.hex()}",
            evidence_sha256=evidence_sha256,
        )
        for one in (message, envelope):
            await nodes.nodes[0].ledger.submit(one, timeout_s=5)
        digest = message_hash(envelope)
        nodes.nodes[0].services.verifier._settings = nodes.nodes[0].config.verifier  # with its patience
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest), timeout_s=250)
        vote = nodes.nodes[0].ledger.store.claim_state(digest).votes["node-1"].signed.message
    assert vote.outcome is outcome, vote
    assert (vote.measurement.statistic, vote.measurement.total, vote.device) == (Statistic.CLASSES, COUNT, "endpoint")
    assert vote.measurement.matched == (COUNT if outcome is Outcome.VERIFIED else 0)
