"""Clients that publish all the time, at any node, and note what they saw; afterwards the log is held against it."""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster import ORIGIN, ROOT, Cluster, NodeProcess, eventually, http
from fakes import binding, private_key
from torture.history import Append, Verdict, judge

from node.config import load_config
from node.upkeep.fsck import examine
from registry import commitments
from registry.entry import Entry
from registry.envelope import message_hash, seal
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt
from registry.tiles import parse_entry_bundle, tile_path

CLIENTS = 4
ATTEMPT_TIMEOUT_S = 3.0
_numbers = itertools.count(1)


@dataclass
class Load:
    """Clients of one cluster.

    Attributes:
        appends: what they saw.
        refusals: answers that say no for good, by code.
    """

    cluster: Cluster
    seed: int
    appends: list[Append] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{self.seed}/{number}"),), daemon=True)
            for number in range(CLIENTS)
        ]

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged(self) -> int:
        with self._lock:
            return sum(append.answered_s is not None for append in self.appends)

    def wait_for_more(self, count: int, *, timeout_s: float) -> None:
        """Until so many more appends are acknowledged."""
        target = self.acknowledged + count
        eventually(lambda: self.acknowledged >= target, timeout_s=timeout_s, what=f"{count} more appends")

    def _run(self, draw: random.Random) -> None:
        while not self._stopping.is_set():
            envelope, invoked_s = fresh_publication(), time.monotonic()
            index = self._submit(envelope, draw)
            answered_s = None if index is None else time.monotonic()
            append = Append(message=message_hash(envelope), invoked_s=invoked_s, answered_s=answered_s, index=index)
            with self._lock:
                self.appends.append(append)

    def _submit(self, envelope: bytes, draw: random.Random) -> int | None:
        """Submit to one node after another until it is acknowledged; None at the end of the run."""
        headers = {"Content-Type": "application/octet-stream"}
        while not self._stopping.is_set():
            node = draw.choice(self.cluster.nodes)
            try:
                answer = http("POST", f"{node.url}/v1/entries", envelope, headers=headers, timeout_s=ATTEMPT_TIMEOUT_S)
            except (OSError, urllib.error.URLError, ValueError):
                self._stopping.wait(0.05)
                continue
            if answer.status == 200:
                verified = verify_receipt(Receipt.parse(answer.json["receipt"]), self.cluster.trust)
                return verified.index
            if answer.status != 503:
                with self._lock:
                    code = answer.json["error"]["code"]
                    self.refusals[code] = self.refusals.get(code, 0) + 1
            self._stopping.wait(0.05)
        return None


def fresh_publication() -> bytes:
    """One that nobody has submitted."""
    return publication(next(_numbers))


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


@contextmanager
def load(cluster: Cluster, *, seed: int) -> Iterator[Load]:
    running = Load(cluster, seed).start()
    try:
        yield running
    finally:
        running.stop()


def leader_of(cluster: Cluster, *, timeout_s: float = 30) -> NodeProcess:
    """The node that the most recent term has as its leader, asked for until there is one."""

    def find() -> NodeProcess | None:
        states = [state["raft"] for node in cluster.running if (state := state_of(node)) is not None]
        leading = [state for state in states if state["state"] == "leader"]
        if not leading:
            return None
        name = max(leading, key=lambda state: state["term"])["leader"]
        return next((node for node in cluster.running if node.name == name), None)

    found: NodeProcess = eventually(find, timeout_s=timeout_s, what="a leader")
    return found


def state_of(node: NodeProcess) -> dict | None:
    try:
        return node.get("/v1/node", timeout_s=2).json
    except (OSError, urllib.error.URLError, ValueError):
        return None


def converged(cluster: Cluster, running: Load, *, timeout_s: float = 60) -> Verdict:
    """Wait until every node has every acknowledged entry and one log; judge it, and audit it as anybody could."""
    last = max((append.index for append in running.appends if append.index is not None), default=0)
    cluster.wait_until_healthy()
    size = max(node.state()["size"] for node in cluster.nodes)
    cluster.wait_until_equal(max(size, last + 1), timeout_s=timeout_s)
    size = cluster.nodes[0].state()["size"]
    cluster.wait_until_equal(size, timeout_s=timeout_s)
    logs = [entries_of(node, size) for node in cluster.nodes]
    assert all(log == logs[0] for log in logs), "two nodes have another order"
    check_audit(cluster)
    return judge(running.appends, [message_hash(Entry.decode(entry).envelope) for entry in logs[0]])


def entries_of(node: NodeProcess, size: int) -> list[bytes]:
    entries: list[bytes] = []
    while len(entries) < size:
        number, width = len(entries) // 256, min(256, size - len(entries))
        answer = node.get(f"/tile/entries/{tile_path(number, width)}")
        assert answer.status == 200, answer.body
        entries += parse_entry_bundle(answer.body)
    return entries


def check_audit(cluster: Cluster) -> None:
    """`wmreg audit` with its own memory: replay, every node's checkpoints, times."""
    command = [sys.executable, "-m", "client.command", "audit", "--policy", str(cluster.policy_path), "--json"]
    home = cluster.directory / "auditor"
    done = subprocess.run(
        [*command, "--evidence", str(home / "evidence")],
        cwd=ROOT,
        env={**os.environ, "WMREG_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["findings"] == []


def check_files(cluster: Cluster) -> None:
    """Stop every node and check all of its files: what it signed, journalled and stored is one history."""
    for node in cluster.nodes:
        if node.process is not None:
            assert node.stop() == 0, node.log()[-2000:]
        findings = examine(load_config(node.directory / "node.toml"))
        assert findings.problems == [], (node.name, findings.problems)
