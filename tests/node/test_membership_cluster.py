"""Promised, on real processes: members come and go while entries come in, and nothing that was acknowledged is lost."""

import json
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from cluster import Cluster, NodeProcess, eventually, http
from fakes import binding, private_key, replayed

from client.command import run as run_command
from node.config import load_config
from node.init import ClusterOptions, init_state
from registry import commitments
from registry.checkpoint import Checkpoint
from registry.entry import Entry
from registry.envelope import message_hash, seal
from registry.errors import UntrustedError
from registry.messages import Publication
from registry.note import Note
from registry.receipt import Receipt, verify_receipt
from registry.tiles import entry_bundle, parse_entry_bundle
from registry.trust import TrustPolicy

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ORIGIN = "cluster.test/wmreg"


@pytest.fixture
def cluster(tmp_path: Path):
    with Cluster.make(tmp_path / "ledger", options=ClusterOptions(submit_timeout_s=8, submissions_per_s=0)) as cluster:
        yield cluster


class Load:
    """A client that publishes one model after the other, at whichever node answers, until it is stopped."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._is_stopping = cluster, threading.Event()
        self.receipts: dict[int, Receipt] = {}
        self.longest_pause_s = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        goal = len(self.receipts) + count
        eventually(lambda: len(self.receipts) >= goal, timeout_s=90, what=f"{count} more publications")

    def _run(self) -> None:
        number, last_s = 0, time.monotonic()
        while not self._is_stopping.is_set():
            envelope, number = publication(number), number + 1
            while not self._is_stopping.is_set():
                answer = self._try_all(envelope)
                if answer is not None:
                    self.receipts[answer[0]] = answer[1]
                    self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - last_s)
                    last_s = time.monotonic()
                    break

    def _try_all(self, envelope: bytes) -> tuple[int, Receipt] | None:
        for node in list(self._cluster.nodes):
            try:
                answer = node.submit(envelope)
            except OSError:
                continue
            if answer.status == 200:
                return answer.json["index"], Receipt.parse(answer.json["receipt"])
        return None


def publication(number: int) -> bytes:
    key = binding("alice", origin=ORIGIN, number=number).watermark_key
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=commitments.key_commitment(key),
        head_commitment=b"h" * 32,
        info_commitment=b"i" * 32,
    )
    return seal(message, origin=ORIGIN, private_keys=[private_key("alice")])


def wmreg(cluster: Cluster, *arguments: object) -> None:
    line = [str(argument) for argument in arguments]
    assert run_command([*line, "--policy", str(cluster.policy_path)]) == 0, line


def change(cluster: Cluster, *wish: object, signers: list[NodeProcess]) -> None:
    """Propose, sign, submit and follow a change."""
    draft = cluster.directory / f"change-{time.monotonic_ns()}.json"
    wmreg(cluster, "node", "member", "propose", *wish, "--out", draft)
    for node in signers:
        wmreg(cluster, "node", "member", "sign", draft, "--node", node.directory, "--yes")
    wmreg(cluster, "node", "member", "submit", draft)
    wmreg(cluster, "policy", "update")


def join(cluster: Cluster, name: str, *, signers: list[NodeProcess]) -> NodeProcess:
    directory = cluster.directory / name
    wmreg(cluster, "node", "init", directory, "--name", name)
    url = f"http://127.0.0.1:{_api_port(directory)}"
    node = NodeProcess(name, directory, url)
    change(cluster, "--add", directory / "member.json", signers=[*signers, node])
    node.start()
    cluster.nodes.append(node)
    eventually(node.is_healthy, timeout_s=60, what=f"{name} healthy")
    return node


def leave(cluster: Cluster, node: NodeProcess, *, signers: list[NodeProcess]) -> None:
    change(cluster, "--remove", node.name, signers=signers)
    assert eventually(lambda: node.process.poll() is not None, timeout_s=30, what=f"{node.name} stops")
    assert node.process.returncode == 6, node.log()[-2000:]
    node.process = None
    cluster.nodes.remove(node)


def _api_port(directory: Path) -> int:
    return load_config(directory / "node.toml").api.port


def audit(cluster: Cluster) -> list[bytes]:
    """Replay the whole log of every node and check it against the checkpoint that a quorum cosigned."""
    size = max(node.state()["size"] for node in cluster.running)
    cluster.wait_until_equal(size)
    logs = set()
    for node in cluster.running:
        checkpoint = eventually(lambda n=node: _trusted(cluster, n, size), timeout_s=60, what=f"{node.name} at {size}")
        bundles = [
            parse_entry_bundle(node.get(_tile(start // 256, min(256, checkpoint.size - start))).body)
            for start in range(0, checkpoint.size, 256)
        ]
        entries = [entry for bundle in bundles for entry in bundle]
        replayed(entries).tree.check(checkpoint)
        logs.add(tuple(entries))
    (log,) = logs
    return list(log)


def _trusted(cluster: Cluster, node: NodeProcess, size: int) -> Checkpoint | None:
    """A node's checkpoint of at least a size; None while those who cosigned it have left, and others sign again."""
    answer = node.get("/checkpoint")
    if answer.status == 503:
        return None
    try:
        checkpoint = cluster.trust.check(Note.parse(answer.body.decode())).checkpoint
    except UntrustedError:
        return None
    return checkpoint if checkpoint.size >= size else None


def _tile(number: int, width: int) -> str:
    return f"/tile/entries/{number:03d}" + (f".p/{width}" if width < 256 else "")


def test_a_node_joins_and_another_leaves_while_entries_come_in(cluster: Cluster):
    founders, first_trust = list(cluster.nodes), cluster.trust
    with Load(cluster) as load:
        load.wait_for(20)
        joined = join(cluster, "node-4", signers=founders[:2])
        load.wait_for(20)
        leave(cluster, founders[0], signers=[*founders[1:], joined])
        load.wait_for(20)
    entries = audit(cluster)
    for index, receipt in load.receipts.items():
        assert entries[index] == receipt.entry
    assert len(load.receipts) >= 60
    assert [member["name"] for member in _members(cluster)] == ["node-2", "node-3", "node-4"]
    assert first_trust != cluster.trust
    print(json.dumps({"receipts": len(load.receipts), "longest_pause_s": round(load.longest_pause_s, 2)}))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_leader_may_be_told_to_stop_or_killed_while_entries_come_in(cluster: Cluster, how: str):
    pauses = []
    with Load(cluster) as load:
        for _ in range(3):
            load.wait_for(10)
            name = eventually(lambda: cluster.nodes[0].state()["raft"]["leader"], timeout_s=30, what="a leader")
            leader = next(node for node in cluster.nodes if node.name == name)
            load.longest_pause_s = 0.0
            assert getattr(leader, how)() in {0, None}
            load.wait_for(10)
            pauses.append(round(load.longest_pause_s, 2))
            leader.start()
            cluster.wait_until_healthy()
    entries = audit(cluster)
    for index, receipt in load.receipts.items():
        assert entries[index] == receipt.entry
    print(json.dumps({how: pauses}))


def test_a_wiped_node_is_refused_under_its_old_name_and_a_new_one_takes_its_place(cluster: Cluster):
    with Load(cluster) as load:
        load.wait_for(10)
        others, victim = cluster.nodes[:2], cluster.nodes[2]
        eventually(lambda: _has_seen(others[0], victim.name), timeout_s=60, what="a signature that others know of")
        victim.kill()
        shutil.rmtree(victim.directory / "state")
        config = load_config(victim.directory / "node.toml")
        genesis = Entry.decode(parse_entry_bundle(others[0].get("/tile/entries/000.p/1").body)[0])
        init_state(config, genesis=genesis.envelope, recorded_s=genesis.recorded_s)
        victim.start()
        assert victim.process.wait(60) == 5, victim.log()[-2000:]
        assert "must not run under this name again" in victim.log()
        victim.process = None
        change(cluster, "--remove", victim.name, signers=others)
        cluster.nodes.remove(victim)
        victim.start()
        assert victim.process.wait(60) in {5, 6}, victim.log()[-2000:]
        victim.process = None
        join(cluster, "node-4", signers=others)
        load.wait_for(10)
    entries = audit(cluster)
    for index, receipt in load.receipts.items():
        assert entries[index] == receipt.entry


def test_a_node_put_back_to_an_older_copy_is_refused_although_all_start_at_once(cluster: Cluster, tmp_path: Path):
    victim, others = cluster.nodes[0], cluster.nodes[1:]
    assert victim.stop() == 0
    shutil.copytree(victim.directory, tmp_path / "older")
    victim.start()
    cluster.wait_until_healthy()
    with Load(cluster) as load:
        load.wait_for(5)
    known = _signed_size(tmp_path / "older")
    eventually(lambda: any(_seen_size(node, victim.name) > known for node in others), timeout_s=60, what="a later one")
    for node in cluster.nodes:
        assert node.stop() == 0
    shutil.rmtree(victim.directory)
    shutil.copytree(tmp_path / "older", victim.directory)
    for node in cluster.nodes:
        node.start()
    assert victim.process.wait(60) == 5, victim.log()[-2000:]
    assert "put back to an older copy" in victim.log()
    victim.process = None
    cluster.wait_until_healthy()


def test_a_node_that_was_down_when_it_was_removed_hears_of_it_and_stops(cluster: Cluster):
    victim = cluster.nodes[2]
    assert victim.stop() == 0
    change(cluster, "--remove", victim.name, signers=cluster.nodes[:2])
    for _ in range(2):
        victim.start()
        assert victim.process.wait(60) == 6, victim.log()[-2000:]
        victim.process = None
    assert "has left it" in victim.log()


def test_a_node_that_joins_waits_for_its_change_and_signs_only_a_history_that_others_confirm(cluster: Cluster):
    directory = cluster.directory / "node-4"
    wmreg(cluster, "node", "init", directory, "--name", "node-4")
    early = NodeProcess("node-4", directory, f"http://127.0.0.1:{_api_port(directory)}")
    early.start()
    assert early.process.wait(60) == 4, early.log()[-2000:]
    early.process = None
    change(cluster, "--add", directory / "member.json", signers=[*cluster.nodes[:2], early])
    cluster.nodes.append(early)
    early.start()
    size = cluster.nodes[0].state()["size"]
    eventually(lambda: early.logged("history confirmed"), timeout_s=60, what="a confirmed history")
    assert early.get(f"/v1/checkpoints/{size}?wait_s=20").status == 200
    cluster.wait_until_healthy()
    audit(cluster)


def test_a_node_changes_its_certificate_by_two_changes_of_the_policy(cluster: Cluster):
    node, others = cluster.nodes[1], [cluster.nodes[0], cluster.nodes[2]]
    description, next_certificate = cluster.directory / "replace.json", node.directory / "keys/tls-next.crt"
    assert run_command(["node", "new-certificate", str(node.directory)]) == 0
    wmreg(
        cluster,
        "node",
        "member",
        "describe",
        node.directory,
        "--also-certificate",
        next_certificate,
        "--out",
        description,
    )
    change(cluster, "--replace", description, signers=others)
    settings = node.directory / "node.toml"
    settings.write_text(
        settings.read_text().replace("keys/tls.pem", "keys/tls-next.pem").replace("tls.crt", "tls-next.crt")
    )
    assert node.stop() == 0
    node.start()
    cluster.wait_until_healthy()
    description.unlink()
    wmreg(cluster, "node", "member", "describe", node.directory, "--out", description)
    change(cluster, "--replace", description, signers=others)
    for one in cluster.nodes:
        eventually(lambda one=one: len(one.state()["raft"]["connected"]) == 2, timeout_s=30, what=f"all at {one.name}")
    assert cluster.nodes[1].submit(publication(10_000)).status == 200
    audit(cluster)


def test_nodes_change_the_keys_of_their_checkpoints_and_every_size_of_before_is_vouched_for_by_the_new_ones(
    cluster: Cluster,
):
    envelopes = [publication(number) for number in range(40)]
    headers = {"Content-Type": "application/octet-stream"}
    for begin in range(0, 40, 20):
        body = entry_bundle(envelopes[begin : begin + 20])
        answer = http("POST", f"{cluster.nodes[0].url}/v1/batches", body, headers=headers)
        assert {result.get("status") for result in answer.json["results"]} == {None}
    cluster.wait_until_equal(41)
    before = cluster.trust
    said_s = _attested_s(cluster, before, range(1, 42))
    for node in cluster.nodes:
        others = [other for other in cluster.nodes if other is not node]
        description = node.directory / "replace.json"
        assert run_command(["node", "new-keys", str(node.directory)]) == 0
        wmreg(cluster, "node", "member", "describe", node.directory, "--next-keys", "--out", description)
        change(cluster, "--replace", description, signers=others)
        size = others[0].state()["size"]
        eventually(
            lambda node=node, size=size: node.state()["size"] == size, timeout_s=30, what="the change is applied"
        )
        assert node.stop() == 0
        for role in ("note", "cosigner"):
            (node.directory / f"keys/{role}-next.pem").rename(node.directory / f"keys/{role}.pem")
        node.start()
        cluster.wait_until_healthy()
    after = cluster.trust
    assert {w.key for w in before.witnesses}.isdisjoint(w.key for w in after.witnesses)
    assert _attested_s(cluster, after, range(1, 42)) == said_s
    receipt = Receipt.parse(cluster.nodes[1].get(f"/v1/receipts/{message_hash(envelopes[0]).hex()}").body.decode())
    assert verify_receipt(receipt, after).index == 1
    audit(cluster)
    wmreg(cluster, "audit", "--mirror", cluster.directory / "mirror")


def _attested_s(cluster: Cluster, trust: TrustPolicy, sizes: range) -> list[dict[str, int]]:
    """When each node says that it had each size."""
    found = []
    for size in sizes:
        notes = [Note.parse(node.get(f"/v1/checkpoints/{size}?wait_s=20").body.decode()) for node in cluster.nodes]
        lines = tuple(line for note in notes for line in note.signatures)
        found.append(dict(trust.check(Note(notes[0].text, lines)).times_s))
    assert all(len(times_s) == len(cluster.nodes) for times_s in found)
    return found


def test_without_a_majority_nothing_goes_on_and_what_was_acknowledged_is_proven_without_nodes(cluster: Cluster):
    answer = cluster.nodes[0].submit(publication(1))
    cluster.wait_until_equal(answer.json["index"] + 1)
    for lost in cluster.nodes[1:]:
        lost.kill()
        shutil.rmtree(lost.directory)
    survivor = cluster.nodes[0]
    draft = cluster.directory / "change.json"
    assert survivor.submit(publication(2)).status == 503
    line = [
        "node",
        "member",
        "propose",
        "--remove",
        "node-2",
        "--out",
        str(draft),
        "--policy",
        str(cluster.policy_path),
    ]
    assert run_command(line) == 0  # drafting needs one node that answers; a quorum would have to sign it
    line = ["node", "member", "sign", str(draft), "--node", str(survivor.directory), "--yes"]
    assert run_command([*line, "--policy", str(cluster.policy_path)]) == 0
    line = ["node", "member", "submit", str(draft), "--policy", str(cluster.policy_path), "--patience-s", "1"]
    assert run_command(line) == 1
    verified = verify_receipt(Receipt.parse(answer.json["receipt"]), cluster.trust)
    assert verified.index == answer.json["index"]


def _signed_size(directory: Path) -> int:
    """Largest size that a stopped node has signed."""
    with closing(sqlite3.connect(directory / "state/signer.db")) as signed:
        return signed.execute("SELECT max(size) FROM checkpoints").fetchone()[0]


def _seen_size(node: NodeProcess, member: str) -> int:
    answer = node.get(f"/v1/cosignatures/{member}")
    return int(answer.body.split(b"\n")[1]) if answer.status == 200 else 0


def _has_seen(node: NodeProcess, member: str) -> bool:
    return node.get(f"/v1/cosignatures/{member}").status == 200


def _members(cluster: Cluster) -> list[dict[str, str]]:
    return [{"name": name} for name in cluster.nodes[0].state()["policy"]["members"]]
