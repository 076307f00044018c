"""A Raft cluster in one thread, with a virtual clock and a network that obeys the test.

Nodes are the real RaftNode on real journals; only the transport is another one, and every message still goes through
wire.encode and wire.decode, so that a message outside the whitelist fails the test that sent it. Every message is also
held against the disk of its sender: what it promises must be durable when it leaves.
"""

import random
from collections import Counter, deque
from pathlib import Path

import pysyncobj.syncobj
import pytest
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from node.raft.applier import Applier
from node.raft.journal import DurableJournal
from node.raft.membership import MembersChangedError, Roster
from node.raft.raft import RaftNode
from node.raft.types import RaftSettings
from node.raft.wire import decode, encode

STEP_S = 0.02
MEMBERS = b"members:"  # "members:ABC>ABCD" changes the members, one letter each, if ABC are the members
SETTINGS = RaftSettings(
    election_timeout_min_s=0.4,
    election_timeout_max_s=1.4,
    leader_fallback_s=1.4,
    heartbeat_period_s=0.1,
    tick_period_s=0.05,
)


class ListMachine:
    """A state machine that checks what it is promised: every index once and in order, inside one transaction."""

    def __init__(self) -> None:
        self.durable: list[tuple[int, bytes | None]] = []
        self._batch: list[tuple[int, bytes | None]] | None = None

    @property
    def applied_index(self) -> int:
        return self.durable[-1][0] if self.durable else 0

    @property
    def commands(self) -> list[bytes]:
        return [command for _, command in self.durable if command is not None]

    def begin(self) -> None:
        assert self._batch is None
        self._batch = []

    def apply(self, raft_index: int, command: bytes | None) -> None:
        assert self._batch is not None
        expected = self.applied_index + len(self._batch) + 1
        assert raft_index == expected, f"index {raft_index} in place of {expected}"
        self._batch.append((raft_index, command))

    def commit(self) -> None:
        assert self._batch
        self.durable += self._batch
        self._batch = None


def check_promise(sender: RaftNode, target: Node, message: dict) -> None:
    """Fail if a message says what would be untrue after a power cut."""
    durable = sender._journal._file
    if message["type"] == "next_node_idx" and message["success"]:
        assert message["next_node_idx"] - 1 <= durable.last_index
    elif message["type"] == "append_entries":
        assert message["commit_index"] <= durable.last_index
    elif message["type"] == "request_vote":
        assert durable.hard_state[:2] == (message["term"], sender.selfNode.id)
    elif message["type"] == "response_vote":
        assert durable.hard_state[:2] == (message["term"], target.id)


class SimulatedTransport(Transport):
    """Puts what a node sends into the simulation's queue."""

    def __init__(self, syncobj: SyncObj, own_node: Node, other_nodes: set[Node], *, network: "Network") -> None:
        super().__init__(syncobj, own_node, other_nodes)
        self.name = own_node.id
        self._network = network
        self._syncobj = syncobj

    def send(self, node: Node, message: dict) -> bool:
        if isinstance(self._syncobj, RaftNode):
            check_promise(self._syncobj, node, message)
        return self._network.send(self.name, node.id, message)


class Network:
    """Messages in flight, first in, first out, and the links that are cut."""

    def __init__(self, *, command_bytes_max: int | None) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.in_flight: deque[tuple[str, str, dict]] = deque()
        self.sent = Counter()
        self.loss = 0.0
        self.random = random.Random(1)
        self._command_bytes_max = command_bytes_max  # None: PySyncObj's own messages, not checked

    def send(self, source: str, target: str, message: dict) -> bool:
        self.sent[message["type"]] += 1
        if self._command_bytes_max is not None:
            message = decode(encode(message), command_bytes_max=self._command_bytes_max)
        if (source, target) not in self.cut and self.random.random() >= self.loss:
            self.in_flight.append((source, target, message))
        return True

    def isolate(self, name: str, others: str) -> None:
        for other in others:
            if other != name:
                self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()
        self.loss = 0.0


class Simulation:
    """Nodes named by one letter each. monkeypatch puts SyncObj, and with it our code, on the virtual clock.

    All of them are members at first, unless voters names fewer.
    """

    def __init__(
        self, names: str, directory: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int = 1, voters: str = ""
    ) -> None:
        self.now_s = 1000.0
        self.names = names
        self.first_voters = voters or names
        self.settings = SETTINGS
        self.random = random.Random(seed)
        self.network = Network(command_bytes_max=SETTINGS.command_bytes_max)
        self.network.random = self.random
        self.nodes: dict[str, RaftNode] = {}
        self.machines = {name: ListMachine() for name in names}
        self.failures: list[str] = []
        self._directory = directory
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: self.now_s)
        monkeypatch.setattr(pysyncobj.syncobj, "random", self.random)
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        journal = DurableJournal(self._directory / f"{name}.journal", cache_bytes_max=10_000)
        self.nodes[name] = RaftNode(
            roster=self._roster(name),
            settings=self.settings,
            journal=journal,
            applier=Applier(self.machines[name], on_applied=lambda: None),
            make_transport=lambda *arguments: SimulatedTransport(*arguments, network=self.network),
            report=lambda on_failed, reason: on_failed(reason),
        )
        for other in self.nodes:
            if other != name:
                self._connect(name, other)

    def voters(self, name: str) -> str:
        """The members by what a node has applied."""
        voters = self.first_voters
        for command in self.machines[name].commands:
            if command.startswith(MEMBERS + voters.encode() + b">"):
                voters = command.partition(b">")[2].decode()
        return voters

    def _roster(self, name: str) -> Roster:
        voters = self.voters(name)
        return Roster(
            name=name,
            voters=tuple(voters),
            changes_members=lambda command: command.startswith(MEMBERS),
            is_stale=lambda: self.voters(name) != voters,
        )

    def _tick(self, name: str) -> None:
        try:
            self.nodes[name].tick(0.0)
        except MembersChangedError:
            self.nodes.pop(name).close()
            self.start(name)

    def crash(self, name: str) -> None:
        """Lose the process and everything that it had not written."""
        node = self.nodes.pop(name)
        node._journal._file.close()
        node._waker.close()
        self.network.in_flight = deque(flight for flight in self.network.in_flight if name not in flight[:2])
        for survivor in self.nodes.values():
            survivor.transport._onNodeDisconnected(Node(name))

    def stop(self) -> None:
        for node in self.nodes.values():
            node.close()
        self.nodes.clear()

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_s += STEP_S
            before = {name: node.fields.commit_index for name, node in self.nodes.items()}
            for name in list(self.nodes):
                self._tick(name)
            self._deliver()
            for name, commit_index in before.items():
                assert self.nodes[name].fields.commit_index >= commit_index

    def run_until(self, condition, *, steps_max: int = 2000) -> None:
        for _ in range(steps_max):
            if condition():
                return
            self.step()
        raise AssertionError("the condition was not met in time")

    def leader(self) -> str | None:
        leaders = [(node.fields.term, name) for name, node in self.nodes.items() if node.fields.state == 2]
        return max(leaders)[1] if leaders else None

    def elect(self, name: str) -> None:
        """Let one node stand first."""
        self.nodes[name].fields.election_deadline_s = 0.0
        self.run_until(lambda: self.leader() == name)
        self.run_until(lambda: self.nodes[name].fields.last_applied >= self.nodes[name].fields.noop_index)

    def propose(self, name: str, command: bytes) -> None:
        reason = self.nodes[name].propose(command, self.failures.append)
        assert reason is None

    def is_converged(self) -> bool:
        lengths = {len(self.machines[name].durable) for name in self.nodes}
        journals = {node.journal_entries for node in self.nodes.values()}
        return len(lengths) == 1 and lengths == journals

    def log(self, name: str) -> list[tuple[bytes, int, int]]:
        journal = self.nodes[name]._journal
        return [journal.entry(index) for index in range(1, journal.last_index + 1)]

    def _connect(self, name: str, other: str) -> None:
        self.nodes[name].transport._onNodeConnected(Node(other))
        self.nodes[other].transport._onNodeConnected(Node(name))

    def _deliver(self) -> None:
        for _ in range(len(self.network.in_flight)):
            source, target, message = self.network.in_flight.popleft()
            if (source, target) not in self.network.cut and target in self.nodes:
                self.nodes[target].transport._onMessageReceived(Node(source), message)


class StockNode(SyncObj):
    """Unmodified PySyncObj, but for commands that are bytes: the layer has taken pickling out of it."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.commands: list[bytes] = []
        super().__init__(*arguments, **options)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802
        if command[:1] == b"\x00":
            self.commands.append(command[1:])

    def propose(self, command: bytes) -> None:
        self._applyCommand(command, None, 0)


class StockSimulation:
    """The same for PySyncObj as it is: what the proofs of its faults run on."""

    def __init__(self, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.network = Network(command_bytes_max=None)
        monkeypatch.setattr(pysyncobj.syncobj, "monotonicTime", lambda: self.now_s)
        self.nodes = {name: self._make(name, names) for name in names}
        for name in names:
            for other in names:
                if other != name:
                    self.nodes[name]._SyncObj__transport._onNodeConnected(Node(other))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_s += STEP_S
            for node in self.nodes.values():
                node._onTick(0.0)
            for _ in range(len(self.network.in_flight)):
                source, target, message = self.network.in_flight.popleft()
                if (source, target) not in self.network.cut:
                    self.nodes[target]._SyncObj__transport._onMessageReceived(Node(source), message)

    def elect(self, name: str) -> None:
        self.nodes[name]._SyncObj__raftElectionDeadline = 0
        self.step(20)
        assert self.nodes[name]._isLeader()

    def _make(self, name: str, names: str) -> StockNode:
        settings = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=False,
            raftMinTimeout=0.4,
            raftMaxTimeout=1.4,
            logCompactionMinEntries=10**9,
            logCompactionMinTime=10**9,
        )
        others = [Node(other) for other in names if other != name]
        return StockNode(
            Node(name),
            others,
            settings,
            transportClass=lambda *arguments: SimulatedTransport(*arguments, network=self.network),
        )
