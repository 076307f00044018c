"""Promised: followers catch up whatever the leader's and their own history; a leader that breaks Raft is not obeyed.

Also here is the proof that PySyncObj itself does not keep the first promise, by the same scenario.
"""

import pytest
from raft_simulation import Simulation, StockSimulation


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    simulation = Simulation("ABC", tmp_path, monkeypatch)
    yield simulation
    simulation.stop()


def fork(simulation, *, conflicting: int, newer: int, size: int) -> None:
    """A leads and writes alone; B is elected behind its back and writes more; then the network heals."""
    simulation.elect("A")
    simulation.network.isolate("A", "ABC")
    for number in range(conflicting):
        simulation.nodes["A"].propose(b"old%d" % number, *simulation_arguments(simulation))
    simulation.step(3)
    simulation.elect("B")
    for number in range(newer):
        simulation.nodes["B"].propose(b"%08d" % number + b"n" * size, *simulation_arguments(simulation))
    simulation.step(60)
    simulation.network.cut.clear()


def simulation_arguments(simulation) -> list:
    return [lambda _reason: None] if isinstance(simulation, Simulation) else []


def test_pysyncobj_itself_never_catches_up_two_batches_behind_a_conflict(monkeypatch):
    stock = StockSimulation("ABC", monkeypatch)
    fork(stock, conflicting=1, newer=200, size=1000)
    stock.step(1500)
    assert stock.nodes["B"].raftLastApplied > 200
    assert stock.nodes["A"].raftLastApplied < stock.nodes["B"].raftLastApplied


@pytest.mark.parametrize(
    ("conflicting", "newer", "size"), [(0, 400, 1000), (1, 200, 1000), (3, 10, 1000), (5, 400, 1000), (40, 300, 60_000)]
)
def test_a_deposed_leader_catches_up_past_its_conflict(cluster, conflicting, newer, size):
    fork(cluster, conflicting=conflicting, newer=newer, size=size)
    cluster.run_until(cluster.is_converged, steps_max=300)
    assert len(cluster.machines["A"].commands) == newer
    assert cluster.machines["A"].durable == cluster.machines["B"].durable == cluster.machines["C"].durable
    assert cluster.log("A") == cluster.log("B") == cluster.log("C")


def test_a_follower_far_behind_a_conflict_is_found_in_a_few_questions(cluster):
    fork(cluster, conflicting=100, newer=100, size=10)
    resets = []
    original = cluster.network.send
    cluster.network.send = lambda source, target, message: (
        resets.append(message) if message.get("reset") else None,
        original(source, target, message),
    )[1]
    cluster.run_until(cluster.is_converged)
    assert 1 <= len(resets) <= 3


def test_entries_that_the_leader_does_not_have_are_not_committed_by_its_heartbeat(cluster):
    cluster.elect("A")
    _, last_index, term = cluster.log("B")[-1]
    stale = [(b"\x00stale", last_index + offset, term) for offset in range(1, 5)]
    deliver(cluster, "A", "B", **append_entries(cluster, entries=stale))
    heartbeat = append_entries(cluster, term=term + 1, prevLogIdx=last_index, prevLogTerm=term)
    deliver(cluster, "C", "B", **(heartbeat | {"commit_index": last_index + 4}))
    assert cluster.nodes["B"].fields.commit_index == last_index
    assert cluster.log("B")[-1] == stale[-1]


def test_an_old_message_does_not_take_back_what_was_acknowledged(written):
    before = written.log("B")
    old = append_entries(written, prevLogIdx=5, prevLogTerm=before[4][2], entries=before[5:8], commit_index=8)
    deliver(written, "A", "B", **old)
    assert written.log("B") == before
    assert written.nodes["B"].fields.commit_index == before[-1][1]
    deliver(written, "C", "B", type="request_vote", term=9, last_log_index=8, last_log_term=before[-1][2])
    assert written.nodes["B"]._journal.voted_for is None


def test_a_steady_cluster_sends_every_entry_once_to_each_follower(cluster):
    cluster.elect("A")
    cluster.step(5)
    sent = []
    original = cluster.network.send
    cluster.network.send = lambda source, target, message: (
        sent.extend((target, entry) for entry in message.get("entries", [])),
        original(source, target, message),
    )[1]
    for number in range(500):
        cluster.propose("A", b"%d" % number)
        if number % 7 == 0:
            cluster.step()
    cluster.run_until(lambda: len(cluster.machines["C"].commands) == 500 == len(cluster.machines["B"].commands))
    assert len(sent) == len(set(sent)) == 1000


def test_a_follower_that_was_down_gets_everything(cluster):
    cluster.elect("A")
    cluster.crash("C")
    for number in range(3000):
        cluster.propose("A", b"%d" % number + b"x" * 300)
    cluster.step(40)
    cluster.start("C")
    cluster.run_until(cluster.is_converged, steps_max=200)
    assert cluster.machines["C"].commands == cluster.machines["A"].commands
    assert len(cluster.machines["C"].commands) == 3000


def deliver(cluster, source: str, target: str, **message: object) -> None:
    cluster.nodes[target].transport._onMessageReceived(cluster.nodes[source].selfNode, message)


def append_entries(cluster, **changes: object) -> dict:
    last_command, last_index, last_term = cluster.log("B")[-1]
    assert last_command
    message = {
        "type": "append_entries",
        "term": cluster.nodes["B"].fields.term,
        "commit_index": last_index,
        "prevLogIdx": last_index,
        "prevLogTerm": last_term,
        "entries": [],
        "sequence": 10**6,
    }
    return message | changes


@pytest.fixture
def written(cluster):
    cluster.elect("A")
    for number in range(20):
        cluster.propose("A", b"%d" % number)
    cluster.run_until(cluster.is_converged)
    return cluster


def test_the_leader_of_the_term_is_obeyed(written):
    _, last_index, term = written.log("B")[-1]
    entry = (b"\x00more", last_index + 1, term)
    deliver(written, "A", "B", **append_entries(written, entries=[entry]))
    assert written.log("B")[-1] == entry


def test_a_second_leader_in_one_term_is_not_obeyed(written, caplog):
    before = written.log("B")
    _, last_index, term = before[-1]
    deliver(written, "C", "B", **append_entries(written, entries=[(b"\x00more", last_index + 1, term)]))
    assert written.log("B") == before
    assert "breaks Raft" in caplog.text


@pytest.mark.parametrize("changed_term", [False, True])
def test_a_leader_cannot_replace_a_committed_entry(written, caplog, changed_term):
    before = written.log("B")
    term = written.nodes["B"].fields.term + 1
    entry = (b"\x00forged", 5, term if changed_term else before[4][2])
    message = append_entries(written, term=term, prevLogIdx=4, prevLogTerm=before[3][2], entries=[entry])
    deliver(written, "C", "B", **message)
    assert written.log("B") == before
    assert "breaks Raft" in caplog.text


def test_a_leader_whose_log_forks_below_the_commit_index_is_not_obeyed(written, caplog):
    before = written.log("B")
    term = written.nodes["B"].fields.term + 1
    deliver(written, "C", "B", **append_entries(written, term=term, prevLogIdx=5, prevLogTerm=term))
    assert written.log("B") == before
    assert "breaks Raft" in caplog.text


def test_an_acknowledgement_of_entries_that_do_not_exist_counts_for_nothing(written, caplog):
    leader = written.nodes["A"]
    before = dict(leader.fields.match_index)
    answer = {
        "type": "next_node_idx",
        "term": leader.fields.term,
        "next_node_idx": 10**9,
        "last_index": 10**9,
        "reset": False,
        "success": True,
        "sequence": leader._replication.next_sequence - 1,
    }
    deliver(written, "B", "A", **answer)
    assert leader.fields.match_index == before
    assert "do not exist" in caplog.text


def test_a_peer_that_lost_what_it_acknowledged_is_named_and_counts_no_more(written, caplog):
    leader = written.nodes["A"]
    answer = {
        "type": "next_node_idx",
        "term": leader.fields.term,
        "next_node_idx": 2,
        "last_index": 1,
        "reset": True,
        "success": False,
        "sequence": leader._replication.next_sequence - 1,
    }
    deliver(written, "B", "A", **answer)
    assert leader.fields.match_index[written.nodes["B"].selfNode] == 1
    assert "has lost entries" in caplog.text
