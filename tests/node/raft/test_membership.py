"""Promised: members come and go one at a time, at any moment and under any fault, and there is always one history."""

import itertools

import pytest
from raft_simulation import MEMBERS, Simulation

from node.raft.journal import DurableJournal

pytestmark = pytest.mark.long


def fault(simulation: Simulation) -> None:
    names, draw = simulation.names, simulation.random
    victim = draw.choice(names)
    kind = draw.choice(["heal", "heal", "isolate", "pair", "loss", "crash", "crash"])
    if kind == "heal":
        simulation.network.heal()
    elif kind == "isolate":
        simulation.network.isolate(victim, names)
    elif kind == "pair":
        simulation.network.isolate(victim, draw.choice(names))
    elif kind == "loss":
        simulation.network.loss = 0.2
    elif victim in simulation.nodes:
        simulation.crash(victim)
    for name in names:
        if name not in simulation.nodes and draw.random() < 0.7:
            simulation.start(name)


def change(simulation: Simulation, members: str) -> bytes:
    """A command that lets one node join or leave."""
    joining = [name for name in simulation.names if name not in members]
    leaving = list(members) if len(members) > 2 else []
    name = simulation.random.choice(joining + leaving)
    return MEMBERS + f"{members}>{''.join(sorted(set(members) ^ {name}))}".encode()


FAST_SEEDS = (3, 19, 32)  # each of them fails without the order that membership.py keeps between two changes
SEEDS = [pytest.param(seed, marks=[] if seed in FAST_SEEDS else pytest.mark.slow) for seed in range(60)]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_changes_and_faults_leave_one_history(tmp_path, monkeypatch, seed):
    simulation = Simulation("ABCDE", tmp_path, monkeypatch, seed=seed, voters="ABC")
    numbers, history, seen = itertools.count(), [], set()
    for _ in range(60):
        fault(simulation)
        for name in list(simulation.nodes):
            node, members = simulation.nodes[name], simulation.voters(name)
            node.propose(b"%d" % next(numbers), lambda _reason: None)
            node.propose(change(simulation, members), lambda _reason: None)
            seen.add(members)
        simulation.step(simulation.random.randrange(120))
        logs = sorted((machine.durable for machine in simulation.machines.values()), key=len)
        for log in logs:
            assert log == logs[-1][: len(log)]
        assert logs[-1][: len(history)] == history
        history = list(logs[-1])
    assert len(seen) > 3
    assert len(history) > 40
    simulation.stop()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    simulation = Simulation("ABCD", tmp_path, monkeypatch, voters="ABC")
    yield simulation
    simulation.stop()


def applied(cluster: Simulation, names: str, command: bytes) -> bool:
    return all(command in cluster.machines[name].commands for name in names)


def test_a_node_that_joins_gets_the_past_and_counts_from_then_on(cluster):
    cluster.elect("A")
    cluster.propose("A", b"before")
    cluster.propose("A", MEMBERS + b"ABC>ABCD")
    cluster.run_until(lambda: applied(cluster, "ABCD", MEMBERS + b"ABC>ABCD"))
    cluster.crash("A"), cluster.crash("B")
    assert all(cluster.nodes[name]._roster.voters == tuple("ABCD") for name in "CD")
    cluster.step(500)
    assert cluster.leader() is None
    cluster.start("B")
    cluster.run_until(cluster.leader)
    cluster.propose(cluster.leader(), b"by three of four")
    cluster.run_until(lambda: applied(cluster, "BCD", b"by three of four"))


def test_a_node_that_is_no_member_never_stands(cluster):
    for name in "ABC":
        cluster.crash(name)
    cluster.nodes["D"].fields.election_deadline_s = 0.0
    cluster.step(500)
    assert cluster.nodes["D"].fields.term == 0


def test_a_leader_that_leaves_hands_the_office_on(cluster):
    cluster.elect("A")
    cluster.propose("A", MEMBERS + b"ABC>BC")
    cluster.run_until(lambda: applied(cluster, "ABC", MEMBERS + b"ABC>BC"))
    cluster.run_until(lambda: cluster.leader() in {"B", "C"})
    cluster.propose(cluster.leader(), b"without A")
    cluster.run_until(lambda: applied(cluster, "BC", b"without A"))
    assert cluster.leader() != "A"


def test_a_second_change_waits_until_the_first_is_applied(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABCD")
    cluster.propose("A", MEMBERS + b"ABC>ABCD")
    cluster.propose("A", MEMBERS + b"ABCD>ABD")
    cluster.step()
    assert cluster.failures == ["no_leader"]
    assert [command for command, _, _ in cluster.log("A") if MEMBERS in command] == [b"\x00members:ABC>ABCD"]


def test_a_follower_takes_no_second_change_before_it_has_applied_the_first(cluster):
    cluster.elect("A")
    follower = cluster.nodes["B"]
    term, last = follower.fields.term, follower.journal_entries
    changes = [b"\x00members:ABC>ABCD", b"\x00members:ABCD>ABD"]
    message = {
        "type": "append_entries",
        "term": term,
        "commit_index": last,
        "prevLogIdx": last,
        "prevLogTerm": term,
        "entries": [(command, last + number, term) for number, command in enumerate([changes[0], b"\x00x"], start=1)],
        "sequence": 100,
    }
    follower.transport._onMessageReceived(cluster.nodes["A"].selfNode, message)
    second = {**message, "prevLogIdx": last + 2, "entries": [(changes[1], last + 3, term)]}
    follower.transport._onMessageReceived(cluster.nodes["A"].selfNode, second)
    assert [command for command, _, _ in cluster.log("B")][-2:] == [changes[0], b"\x00x"]
    both = {**message, "entries": [*message["entries"], (changes[1], last + 3, term)]}
    follower.transport._onMessageReceived(cluster.nodes["A"].selfNode, both)
    assert follower.journal_entries == last + 2


def test_a_ledger_that_was_put_back_applies_what_its_journal_proves_before_it_stands(cluster, tmp_path):
    cluster.crash("C")
    journal = DurableJournal(tmp_path / "C.journal", cache_bytes_max=10_000)
    commands = [MEMBERS + b"ABC>ABCD", b"x", MEMBERS + b"ABCD>ABD", b"y"]
    for command in commands:
        journal.add((b"\x00" + command, journal.last_index + 1, 1))
    proven = journal.last_index - 3
    journal.close()
    cluster.start("C")
    assert cluster.nodes["C"].fields.commit_index == proven
    cluster.step()
    assert cluster.machines["C"].commands == commands[:1]
    assert cluster.nodes["C"]._roster.voters == tuple("ABCD")


def test_an_answer_of_a_stranger_is_not_counted(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    before = cluster.nodes["A"].fields.commit_index
    cluster.propose("A", b"by one of three")
    cluster.step()
    node = cluster.nodes["A"]
    last, sequence = node.journal_entries, node._replication.next_sequence - 1
    answer = {
        "type": "next_node_idx",
        "term": node.fields.term,
        "next_node_idx": last + 1,
        "last_index": last,
        "reset": False,
        "success": True,
        "sequence": sequence,
    }
    for name in ("D", "E"):
        node.transport._onMessageReceived(type(node.selfNode)(name), answer)
    cluster.step()
    assert node.fields.commit_index == before
