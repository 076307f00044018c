"""Promised, on three processes over loopback: an acknowledged command is on every node, once, at the same place.

A command counts as acknowledged when the node that it was proposed at has applied it. Nodes are killed with SIGKILL,
restarted, and cut off from each other while commands come in.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import raft_member
from raft_cluster import make_peers, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.long]
NAMES = ["node-1", "node-2", "node-3"]


class Member:
    """One process, its last status and what it has applied."""

    def __init__(self, name: str, directory: Path, *, pace: str) -> None:
        self.name = name
        self.directory = directory
        self.pace = pace
        self.events: Counter[str] = Counter()
        self.status: dict = {}
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        tests, root = Path(raft_member.__file__).parent, Path(raft_member.__file__).parents[1]
        self.status = {}
        with (self.directory / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, raft_member.__file__, self.name, str(self.directory), self.pace],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{root}:{tests}"},
            )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self) -> None:
        if self.process is not None:
            self.check_running()
            self.process.stdin.close()
            assert self._end() == 0

    def check_running(self) -> None:
        if self.process.poll() is not None:
            log = (self.directory / f"{self.name}.log").read_text()
            raise AssertionError(f"{self.name} ended with {self._end()}: {log[-2000:]}")

    def say(self, **order: object) -> None:
        self.check_running()
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def applied(self) -> list[str]:
        path = self.directory / f"{self.name}.applied"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [line.split(" ", 1)[1] for line in lines if not line.endswith(" -")]

    def _end(self) -> int:
        code = self.process.wait(30)
        self._reader.join(30)
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process = None
        return code

    def _read(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            event = json.loads(line)
            self.events[event["event"]] += 1
            if event["event"] == "status":
                self.status = event


class Cluster:
    def __init__(self, directory: Path, *, pace: str = "fast") -> None:
        peers = [dataclasses.asdict(peer) for peer in make_peers(directory, NAMES)]
        (directory / "peers.json").write_text(json.dumps(peers))
        self.members = {name: Member(name, directory, pace=pace) for name in NAMES}
        self.numbers = itertools.count()
        self.acknowledged: list[str] = []
        for member in self.members.values():
            member.start()

    def running(self) -> list[Member]:
        return [member for member in self.members.values() if member.process is not None]

    def stop(self) -> None:
        for member in self.members.values():
            member.stop()

    def leader(self, among: list[str] = NAMES) -> Member | None:
        for member in self.running():
            member.say(order="status")
        leading = [m for m in self.running() if m.name in among and m.status.get("state") == "leader"]
        return max(leading, key=lambda member: member.status["term"]) if leading else None

    def wait_for_leader(self, among: list[str] = NAMES) -> Member:
        found: list[Member] = []
        wait_for(lambda: found or found.extend(filter(None, [self.leader(among)])))
        return found[0]

    def write(self, member: Member, count: int) -> list[str]:
        """Propose at one member, do not wait."""
        commands = [f"{member.name}/{next(self.numbers)}" for _ in range(count)]
        for command in commands:
            member.say(order="propose", command=command)
        return commands

    def write_until_acknowledged(self, count: int, among: list[str] = NAMES) -> None:
        """Propose new commands, at the leader of the moment, until so many of them are applied there."""
        done: set[str] = set()
        commands: list[str] = []

        def is_done() -> bool:
            member = self.leader(among)
            if member is None:
                return False
            if len(commands) - len(done) < count:
                commands.extend(self.write(member, 10))
            done.update(set(commands).intersection(member.applied()))
            return len(done) >= count

        wait_for(is_done)
        self.acknowledged += sorted(done)

    def lost(self) -> set[str]:
        """Acknowledged commands that are missing; before that, all members agree on an order without repetitions."""
        wait_for(lambda: len({tuple(member.applied()) for member in self.members.values()}) == 1)
        applied = self.members["node-1"].applied()
        assert len(applied) == len(set(applied))
        assert len(self.acknowledged) > 50
        return set(self.acknowledged) - set(applied)


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.stop()


def test_killed_leaders_lose_nothing_that_was_acknowledged(cluster):
    for _ in range(3):
        leader = cluster.wait_for_leader()
        cluster.write_until_acknowledged(30)
        cluster.write(leader, 20)
        leader.kill()
        cluster.write_until_acknowledged(30)
        leader.start()
    assert cluster.lost() == set()


def test_all_nodes_killed_at_once_lose_nothing_that_was_acknowledged(cluster):
    for _ in range(2):
        cluster.write(cluster.wait_for_leader(), 20)
        cluster.write_until_acknowledged(30)
        for member in cluster.running():
            member.kill()
        for member in cluster.members.values():
            member.start()
    assert cluster.lost() == set()


def test_a_leader_behind_a_partition_commits_nothing_and_comes_back(cluster):
    for _ in range(2):
        cluster.write_until_acknowledged(30)
        old = cluster.wait_for_leader()
        others = [name for name in NAMES if name != old.name]
        before = old.applied()
        old.say(order="cut", peers=others)
        lost = cluster.write(old, 10)
        cluster.write_until_acknowledged(30, among=others)
        wait_for(lambda old=old: old.events["leader_changed"] >= 10)
        assert not set(lost).intersection(old.applied()[len(before) :])
        old.say(order="cut", peers=[])
        old.events.clear()
    assert cluster.lost() == set()


@pytest.fixture
def steady_cluster(tmp_path):
    made = Cluster(tmp_path, pace="steady")
    yield made
    made.stop()


def test_a_follower_with_one_link_cut_does_not_disturb_the_leader(steady_cluster):
    cluster = steady_cluster
    cluster.write_until_acknowledged(30)
    leader = cluster.wait_for_leader()
    term = leader.status["term"]
    follower = next(member for member in cluster.running() if member is not leader)
    follower.say(order="cut", peers=[leader.name])
    cluster.write_until_acknowledged(300, among=[leader.name])
    assert cluster.wait_for_leader().status["term"] == term
    follower.say(order="cut", peers=[])
    assert cluster.lost() == set()
    assert cluster.wait_for_leader().status["term"] == term
