"""Promises: a ledger whose nodes speak https is used like any other, if an authority vouches for the nodes."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from cluster import ORIGIN, Cluster, eventually
from fakes import private_key

from client.api import open_ledger
from client.transport import Timing
from node.init import ClusterOptions
from registry.envelope import seal
from registry.messages import Publication

pytestmark = [pytest.mark.cluster, pytest.mark.long]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca.pem")


@pytest.fixture
def cluster(tmp_path: Path, authority: Authority) -> Iterator[Cluster]:
    cluster = Cluster.make(tmp_path / "ledger", options=ClusterOptions(https=True))
    for node in cluster.nodes:
        assert node.url.startswith("https://")
        authority.issue(node.directory / "keys/api.crt", node.directory / "keys/api.pem")
        config = node.directory / "node.toml"
        config.write_text(config.read_text().replace('tls_authorities = ""', f'tls_authorities = "{authority.path}"'))
        node.start()
    yield cluster
    cluster.stop()


def test_nodes_attest_and_owners_publish_over_https(cluster, authority, wmreg):
    def status(*words):
        return wmreg("node", "status", "--policy", cluster.policy_path, "--json", *words)

    def ready():
        found = status("--ca-file", authority.path)
        said = found.document.get("nodes", [])
        return found.code == 0 and [node.get("problems") for node in said] == [{}, {}, {}]

    eventually(ready, timeout_s=60, what="three healthy nodes")
    stranger = status()
    assert stranger.code == 4
    assert "not trusted" in stranger.document["nodes"][0]["problem"]
    assert status("--ca-file", cluster.policy_path).code == 2

    assert asyncio.run(publish(cluster, authority)) == 1
    words = ["--policy", cluster.policy_path, "--ca-file", authority.path, "--json"]
    eventually(lambda: wmreg("log", *words).document["size"] >= 2, timeout_s=30, what="the entry at the node asked")

    node = cluster.nodes[0]
    authority.issue(node.directory / "keys/api.crt", node.directory / "keys/api.pem")
    node.process.send_signal(signal.SIGHUP)
    eventually(lambda: node.logged("the API's certificate was read again"), timeout_s=30, what="a new certificate")
    assert status("--ca-file", authority.path).document["answering"] == 3
    assert node.stop() == 0


async def publish(cluster: Cluster, authority: Authority) -> int:
    """Publish something; the index by a receipt that a quorum attests."""
    commitment = b"c" * 32
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=commitment,
        head_commitment=commitment,
        info_commitment=commitment,
    )
    envelope = seal(message, origin=ORIGIN, private_keys=[private_key("alice")])
    async with open_ledger(cluster.trust, Timing(patience_s=30), ca_file=authority.path) as api:
        return (await api.submit(envelope)).verified.index
