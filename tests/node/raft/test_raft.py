"""Promised: whatever is lost, cut or restarted, all nodes apply the same commands in the same order, and none is lost.

The faults are drawn from a seed; a crash loses everything that the node had not made durable.
"""

import itertools
from collections import Counter

import pytest
from raft_simulation import Simulation

from node.raft.journal_format import JournalError
from node.raft.raft import TERM_STEP_MAX

pytestmark = pytest.mark.long


def fault(simulation: Simulation) -> None:
    """Draw one change of the network or of a node."""
    names, draw = simulation.names, simulation.random
    victim = draw.choice(names)
    kind = draw.choice(["heal", "isolate", "one way", "loss", "crash", "crash", "crash all"])
    if kind == "heal":
        simulation.network.heal()
    elif kind == "isolate":
        simulation.network.isolate(victim, names)
    elif kind == "one way":
        simulation.network.cut.add((victim, draw.choice(names.replace(victim, ""))))
    elif kind == "loss":
        simulation.network.loss = draw.choice([0.05, 0.3])
    elif kind == "crash" and victim in simulation.nodes:
        simulation.crash(victim)
    elif kind == "crash all":
        for name in list(simulation.nodes):
            simulation.crash(name)
    for name in names:
        if name not in simulation.nodes and draw.random() < 0.6:
            simulation.start(name)


def check_agreement(simulation: Simulation) -> None:
    logs = [machine.durable for machine in simulation.machines.values()]
    longest = max(logs, key=len)
    for log in logs:
        assert log == longest[: len(log)]


@pytest.mark.parametrize(("names", "seed"), [("ABC", 1), ("ABC", 2), ("ABC", 3), ("AB", 4), ("ABCDE", 5)])
def test_random_faults_never_lose_reorder_or_repeat_a_command(tmp_path, monkeypatch, names, seed):
    simulation = Simulation(names, tmp_path, monkeypatch, seed=seed)
    numbers = itertools.count()
    applied_somewhere: list[bytes] = []
    for _ in range(35):
        fault(simulation)
        for _ in range(simulation.random.randrange(50)):
            for name in list(simulation.nodes):
                if simulation.random.random() < 0.5:
                    simulation.nodes[name].propose(b"%d" % next(numbers) + b"x" * 500, lambda _reason: None)
            simulation.step()
        check_agreement(simulation)
        longest = max((machine.commands for machine in simulation.machines.values()), key=len)
        assert longest[: len(applied_somewhere)] == applied_somewhere
        applied_somewhere = longest
    simulation.network.heal()
    for name in names:
        if name not in simulation.nodes:
            simulation.start(name)
    simulation.run_until(simulation.is_converged, steps_max=1500)
    check_agreement(simulation)
    commands = simulation.machines["A"].commands
    assert commands[: len(applied_somewhere)] == applied_somewhere
    assert len(commands) == len(set(commands))
    assert len(commands) > 20
    simulation.stop()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    simulation = Simulation("ABC", tmp_path, monkeypatch)
    yield simulation
    simulation.stop()


def test_a_cluster_of_one_elects_itself_and_commits(tmp_path, monkeypatch):
    simulation = Simulation("A", tmp_path, monkeypatch)
    simulation.run_until(lambda: simulation.leader() == "A", steps_max=100)
    simulation.propose("A", b"alone")
    simulation.step(2)
    assert simulation.machines["A"].commands == [b"alone"]
    simulation.stop()


def test_the_state_machine_sees_every_index_from_one_on(cluster):
    cluster.elect("A")
    cluster.propose("A", b"first")
    cluster.run_until(cluster.is_converged)
    assert cluster.machines["B"].durable == [(1, None), (2, None), (3, b"first")]


def test_a_restart_applies_nothing_twice(cluster):
    cluster.elect("A")
    cluster.propose("A", b"first")
    cluster.run_until(cluster.is_converged)
    before = list(cluster.machines["A"].durable)
    cluster.crash("A")
    cluster.start("A")
    cluster.run_until(lambda: cluster.leader() not in (None, "A"))
    cluster.run_until(cluster.is_converged)
    assert cluster.machines["A"].durable[: len(before)] == before
    assert cluster.machines["A"].commands == [b"first"]


def test_a_node_whose_journal_is_gone_refuses_to_start(cluster, tmp_path):
    cluster.elect("A")
    cluster.run_until(cluster.is_converged)
    cluster.crash("B")
    (tmp_path / "B.journal").unlink()
    with pytest.raises(JournalError, match="a part of the journal is lost"):
        cluster.start("B")


def test_a_command_proposed_without_a_leader_is_refused(cluster):
    cluster.propose("A", b"too early")
    cluster.step()
    assert cluster.failures == ["no_leader"]


def test_a_follower_without_a_connection_to_the_leader_reports_at_once(cluster):
    cluster.elect("A")
    original = cluster.network.send
    cluster.network.send = lambda source, target, message: (
        message["type"] != "forward" and original(source, target, message)
    )
    cluster.propose("B", b"nowhere to go")
    cluster.step()
    assert cluster.failures == ["leader_changed"]


def test_a_forwarded_command_that_reaches_a_deposed_leader_is_refused(cluster):
    cluster.elect("A")
    cluster.propose("B", b"too late")
    cluster.nodes["A"]._adopt_term(cluster.nodes["A"].fields.term + 1)
    cluster.step(3)
    assert cluster.failures == ["no_leader"]


def test_a_command_proposed_at_a_follower_is_forwarded(cluster):
    cluster.elect("A")
    cluster.propose("B", b"from afar")
    cluster.run_until(lambda: cluster.machines["C"].commands == [b"from afar"])
    cluster.step(200)
    assert cluster.failures == []


def test_commands_that_come_together_are_forwarded_together(cluster):
    cluster.elect("A")
    commands = [b"from afar %d" % number for number in range(200)]
    sent = Counter()
    original = cluster.network.send

    def send(source: str, target: str, message: dict) -> bool:
        sent[message["type"], message.get("count")] += 1
        return original(source, target, message)

    cluster.network.send = send
    for command in commands:
        cluster.propose("B", command)
    cluster.run_until(lambda: cluster.machines["C"].commands == commands)
    assert (sent["forward", None], sent["forward_accepted", 200]) == (1, 1)
    cluster.step(200)
    assert cluster.failures == []


def test_commands_that_do_not_fit_one_message_are_forwarded_in_several(cluster):
    cluster.elect("A")
    commands = [b"%d" % number * 20_000 for number in range(9)]
    for command in commands:
        cluster.propose("B", command)
    cluster.run_until(lambda: cluster.machines["C"].commands == commands)
    assert cluster.failures == []


def test_each_of_the_commands_that_went_together_is_reported_when_it_fails(cluster):
    cluster.elect("A")
    cluster.network.cut.add(("B", "A"))
    for number in range(3):
        cluster.propose("B", b"lost? %d" % number)
    cluster.step()
    cluster.nodes["B"].transport._onNodeDisconnected(cluster.nodes["A"].selfNode)
    assert cluster.failures == ["leader_changed"] * 3


def test_a_leader_that_is_cut_off_reports_what_it_could_not_commit(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.propose("A", b"lost?")
    cluster.run_until(lambda: cluster.failures, steps_max=100)
    assert cluster.failures == ["leader_changed"]


def test_a_forwarded_command_whose_connection_breaks_is_reported(cluster):
    cluster.elect("A")
    cluster.network.cut.add(("B", "A"))
    cluster.propose("B", b"lost?")
    cluster.step()
    cluster.nodes["B"].transport._onNodeDisconnected(cluster.nodes["A"].selfNode)
    assert cluster.failures == ["leader_changed"]


def test_a_read_waits_for_the_proof_of_leadership(cluster):
    cluster.elect("A")
    answers = []
    cluster.nodes["A"].read(answers.append)
    cluster.run_until(lambda: answers, steps_max=5)
    assert answers == [True]


def test_a_leader_that_is_cut_off_never_grants_a_read(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    answers = []
    cluster.nodes["A"].read(answers.append)
    cluster.step(20)
    assert answers == []
    cluster.run_until(lambda: answers, steps_max=200)
    assert answers == [False]


def test_one_message_cannot_push_the_term_to_its_end(cluster, caplog):
    cluster.elect("A")
    term = cluster.nodes["B"].fields.term
    vote = {"type": "request_vote", "term": term + TERM_STEP_MAX + 1, "last_log_index": 10**6, "last_log_term": 10**6}
    cluster.nodes["B"].transport._onMessageReceived(cluster.nodes["C"].selfNode, vote)
    assert cluster.nodes["B"].fields.term == term
    assert "leaps over terms" in caplog.text


def test_a_leader_without_a_majority_stops_appending(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    for number in range(cluster.settings.uncommitted_entries_max + 100):
        cluster.propose("A", b"%d" % number)
    cluster.step(5)
    fields = cluster.nodes["A"].fields
    assert cluster.nodes["A"].journal_entries - fields.commit_index == cluster.settings.uncommitted_entries_max


def test_stopping_reports_what_is_under_way(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.propose("A", b"appended")
    cluster.step()
    cluster.propose("A", b"queued")
    cluster.nodes.pop("A").close()
    assert cluster.failures == ["stopped", "stopped"]
