"""On real nodes: a backup while they work, a ledger made anew from the journal, and no way back for a lost promise."""

import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ORIGIN, Cluster
from fakes import binding, private_key

from node.config import load_config
from node.upkeep.backup import back_up
from node.upkeep.fsck import examine
from node.upkeep.restore import rebuild
from registry import commitments
from registry.envelope import seal
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt

pytestmark = [pytest.mark.cluster, pytest.mark.long]
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.make(tmp_path_factory.mktemp("upkeep") / "ledger") as cluster:
        yield cluster


def accepted(cluster: Cluster, node: int) -> int:
    key = binding("alice", origin=ORIGIN, number=next(numbers)).watermark_key
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=commitments.key_commitment(key),
        head_commitment=b"h" * 32,
        info_commitment=b"i" * 32,
    )
    answer = cluster.nodes[node].submit(seal(message, origin=ORIGIN, private_keys=[private_key("alice")]))
    assert answer.status == 200, answer.body
    return verify_receipt(Receipt.parse(answer.json["receipt"]), cluster.trust).index


def test_a_running_node_is_backed_up_and_a_stopped_one_is_sound(cluster: Cluster, tmp_path: Path):
    for _ in range(3):
        last = accepted(cluster, 0)
    cluster.wait_until_equal(last + 1)
    settings = cluster.nodes[1].directory / "node.toml"
    manifest = back_up(settings, tmp_path / "backup")
    assert manifest.size >= last + 1
    cluster.nodes[1].kill()
    assert examine(load_config(settings)).problems == []
    cluster.nodes[1].start()
    cluster.wait_until_healthy()


def test_a_damaged_ledger_is_refused_at_start_and_comes_back_from_the_journal(cluster: Cluster):
    node, last = cluster.nodes[2], accepted(cluster, 0)
    cluster.wait_until_equal(last + 1)
    assert node.stop() == 0
    with sqlite3.connect(node.directory / "state/ledger.db") as connection:
        connection.execute("DELETE FROM entries WHERE position = 1")
    connection.close()
    node.start()
    assert node.process is not None
    assert node.process.wait(60) == 5
    node.process = None
    config = load_config(node.directory / "node.toml")
    assert [problem.part for problem in examine(config).problems] == ["state/ledger.db"]
    rebuild(config)
    node.start()
    cluster.wait_until_healthy()
    cluster.wait_until_equal(last + 1)
    assert accepted(cluster, 2) == last + 1


def test_a_node_whose_journal_is_gone_does_not_start(cluster: Cluster):
    node = cluster.nodes[2]
    assert node.stop() == 0
    path = node.directory / "state/raft.journal"
    kept = path.read_bytes()
    path.unlink()
    node.start()
    assert node.process is not None
    assert node.process.wait(60) == 5
    assert "a part of the journal is lost" in node.log()
    path.write_bytes(kept)
    node.start()
    cluster.wait_until_healthy()
