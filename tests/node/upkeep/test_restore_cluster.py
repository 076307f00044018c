"""A node is lost for good and removed; a new member begins with its backup and joins, on real nodes."""

import time
from pathlib import Path

import pytest
from cluster import Cluster, NodeProcess, eventually
from torture.load import check_files, load

from client.command import run as run_command
from node.config import load_config
from node.init import ClusterOptions
from node.raft import JournalReader

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def wmreg(cluster: Cluster, *words: object) -> None:
    assert run_command([*map(str, words), "--policy", str(cluster.policy_path)]) == 0, words


def change(cluster: Cluster, *wish: object, signers: list[NodeProcess]) -> None:
    draft = cluster.directory / f"change-{time.monotonic_ns()}.json"
    wmreg(cluster, "node", "member", "propose", *wish, "--out", draft)
    for node in signers:
        wmreg(cluster, "node", "member", "sign", draft, "--node", node.directory, "--yes")
    wmreg(cluster, "node", "member", "submit", draft)
    wmreg(cluster, "policy", "update")


def test_a_lost_node_is_replaced_by_a_new_member_that_begins_with_its_backup(tmp_path: Path):
    options = ClusterOptions(submissions_per_s=0, submit_timeout_s=4)
    with Cluster.make(tmp_path / "ledger", options=options) as cluster:
        lost = cluster.nodes[2]
        with load(cluster, seed=1) as running:
            running.wait_for_more(30, timeout_s=60)
            assert run_command(["node", "backup", str(lost.directory), str(tmp_path / "backup")]) == 0
            lost.kill()
            cluster.nodes.remove(lost)
            running.wait_for_more(10, timeout_s=60)
            directory = cluster.directory / "node-4"
            wmreg(cluster, "node", "init", directory, "--name", "node-4")
            assert run_command(["node", "restore", str(tmp_path / "backup"), str(directory)]) == 0
            with JournalReader(directory / "state/raft.journal", is_exclusive=True) as journal:
                assert journal.last_index > 30
            api = load_config(directory / "node.toml").api
            new = NodeProcess("node-4", directory, f"http://{api.host}:{api.port}")
            others = list(cluster.nodes)
            change(cluster, "--remove", lost.name, signers=others)
            change(cluster, "--add", directory / "member.json", signers=[*others, new])
            new.start()
            cluster.nodes.append(new)
            eventually(new.is_healthy, timeout_s=60, what="the new member is healthy")
            running.wait_for_more(20, timeout_s=60)
        assert new.logged("history confirmed")
        cluster.wait_until_healthy()
        size = max(node.state()["size"] for node in cluster.nodes)
        cluster.wait_until_equal(size)
        check_files(cluster)
