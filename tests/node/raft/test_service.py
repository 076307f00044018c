"""Promised: the interface that the node uses, on services in one process over real TLS connections."""

import asyncio
import dataclasses
import logging
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from raft_cluster import FAST, STEADY, make_peers, make_service, stand_soon, wait_for
from raft_simulation import ListMachine

from node.ports import free_ports
from node.raft import JournalCorruptError, JournalError
from node.raft.failstop import EXIT_SOFTWARE

pytestmark = pytest.mark.long


class Cluster:
    def __init__(self, directory, count: int) -> None:
        self.directory = directory
        self.names = [f"node-{number}" for number in range(1, count + 1)]
        self.peers = make_peers(directory, self.names)
        self.machines = {name: ListMachine() for name in self.names}
        self.notices: list[int] = []
        self.services = {
            name: make_service(
                directory,
                name,
                self.peers,
                machine=self.machines[name],
                settings=STEADY if count > 1 else FAST,
                on_applied=lambda: self.notices.append(1),
            )
            for name in self.names
        }

    def start(self) -> None:
        for service in self.services.values():
            service.start()
        stand_soon(list(self.services.values()))
        wait_for(lambda: self.leader() is not None and all(s.status().leader for s in self.services.values()))

    def stop(self) -> None:
        for service in self.services.values():
            service.stop()

    def leader(self) -> str | None:
        leading = [name for name, service in self.services.items() if service.status().state == "leader"]
        return leading[0] if leading else None

    def follower(self) -> str:
        return next(name for name in self.names if name != self.leader())


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path, 3)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def single(tmp_path):
    made = Cluster(tmp_path, 1)
    made.start()
    yield made
    made.stop()


UNEXPECTED: list[str] = []
unexpected = UNEXPECTED.append  # what raises in the thread that reports is only logged


@pytest.fixture(autouse=True)
def nothing_unexpected():
    UNEXPECTED.clear()
    yield
    assert UNEXPECTED == []


def test_commands_from_any_node_reach_all_in_one_order(cluster):
    for number in range(300):
        name = cluster.names[number % 3]
        cluster.services[name].propose(b"%d" % number, unexpected)
    wait_for(lambda: all(len(machine.commands) == 300 for machine in cluster.machines.values()))
    orders = {tuple(machine.commands) for machine in cluster.machines.values()}
    assert len(orders) == 1
    assert set(orders.pop()) == {b"%d" % number for number in range(300)}
    assert cluster.notices


def test_large_commands_pass_one_by_one_and_in_batches(cluster):
    commands = [bytes([number]) * FAST.command_bytes_max for number in range(40)]
    for command in commands:
        cluster.services[cluster.follower()].propose(command, unexpected)
    wait_for(lambda: all(len(machine.commands) == 40 for machine in cluster.machines.values()))
    assert cluster.machines[cluster.follower()].commands == commands


def test_a_status_names_what_an_operator_asks_for(cluster):
    leader, follower = cluster.leader(), cluster.follower()
    wait_for(lambda: len(cluster.services[follower].status().connected) == 2)
    status = cluster.services[follower].status()
    assert status.state == "follower"
    assert status.leader == leader
    assert status.term >= 1
    assert status.connected == tuple(name for name in cluster.names if name != follower)
    assert 1 <= status.applied_index <= status.commit_index <= status.journal_entries
    assert (status.rejected_connections, status.last_rejection) == (0, "")


def test_a_read_is_granted_at_every_node_that_has_a_leader(cluster):
    assert asyncio.run(cluster.services[cluster.leader()].read_barrier(5.0)) is True
    assert asyncio.run(cluster.services[cluster.follower()].read_barrier(5.0)) is True


def test_a_read_that_cannot_be_proved_in_time_is_refused(cluster):
    leader = cluster.services[cluster.leader()]
    leader._node.transport.drop_rule = lambda _direction, _peer, _message: True
    assert asyncio.run(leader.read_barrier(0.05)) is False


def test_a_leader_behind_a_partition_is_replaced_and_reports_its_command(cluster):
    old = cluster.leader()
    failures: list[str] = []
    cluster.services[old]._node.transport.drop_rule = lambda _direction, _peer, _message: True
    cluster.services[old].propose(b"cut off", failures.append)
    others = [name for name in cluster.names if name != old]
    wait_for(lambda: any(cluster.services[name].status().state == "leader" for name in others))
    wait_for(lambda: failures == ["leader_changed"])
    new = next(name for name in others if cluster.services[name].status().state == "leader")
    cluster.services[new].propose(b"goes on", unexpected)
    wait_for(lambda: cluster.machines[new].commands == [b"goes on"])
    cluster.services[old]._node.transport.drop_rule = lambda _direction, _peer, _message: False
    wait_for(lambda: cluster.machines[old].commands == [b"goes on"])


def test_idle_peers_stay_connected(cluster, caplog):
    wait_for(lambda: all(len(service.status().connected) == 2 for service in cluster.services.values()))
    followers = [name for name in cluster.names if name != cluster.leader()]
    connection = cluster.services[followers[0]]._node.transport._ready[followers[1]]
    with caplog.at_level(logging.INFO, logger="node.raft"):
        deadline_s = time.monotonic() + 1.5 * STEADY.connection_timeout_s
        wait_for(lambda: time.monotonic() > deadline_s)
    assert cluster.services[followers[0]]._node.transport._ready[followers[1]] is connection
    assert "peer disconnected" not in caplog.text


def test_a_single_node_is_a_cluster(single):
    service = single.services["node-1"]
    service.propose(b"alone", unexpected)
    wait_for(lambda: single.machines["node-1"].commands == [b"alone"])
    assert asyncio.run(service.read_barrier(5.0)) is True


def test_a_restart_goes_on_where_it_stopped(single):
    service = single.services["node-1"]
    service.propose(b"before", unexpected)
    wait_for(lambda: single.machines["node-1"].commands == [b"before"])
    service.stop()
    again = make_service(single.directory, "node-1", single.peers, machine=single.machines["node-1"])
    again.start()
    wait_for(lambda: again.status().state == "leader")
    again.propose(b"after", unexpected)
    wait_for(lambda: single.machines["node-1"].commands == [b"before", b"after"])
    again.stop()


def test_a_command_too_long_is_refused_and_the_longest_is_not(single):
    failures: list[str] = []
    service = single.services["node-1"]
    service.propose(b"x" * (FAST.command_bytes_max + 1), failures.append)
    assert failures == ["too_large"]
    service.propose(b"x" * FAST.command_bytes_max, unexpected)
    wait_for(lambda: len(single.machines["node-1"].commands) == 1)


def test_an_empty_command_is_the_callers_mistake(single):
    with pytest.raises(ValueError, match="at least one byte"):
        single.services["node-1"].propose(b"", unexpected)


def test_a_full_queue_refuses(tmp_path):
    cluster = Cluster(tmp_path, 1)
    settings = dataclasses.replace(FAST, queue_commands_max=2)
    service = make_service(tmp_path, "node-1", cluster.peers, machine=ListMachine(), settings=settings)
    service._node = service._open_node()
    failures: list[str] = []
    for _ in range(3):
        service.propose(b"x", failures.append)
    assert failures == ["queue_full"]
    service._node.close()


def test_without_a_leader_a_command_is_refused(tmp_path):
    cluster = Cluster(tmp_path, 3)
    service = cluster.services["node-1"]
    service.start()
    failures: list[str] = []
    service.propose(b"too early", failures.append)
    wait_for(lambda: failures)
    service.stop()
    assert failures == ["no_leader"]


def raises(reason: str) -> None:
    raise AssertionError(reason)


def test_an_on_failed_that_raises_does_not_stop_the_reports(tmp_path, caplog):
    cluster = Cluster(tmp_path, 3)
    service = cluster.services["node-1"]
    service.start()
    failures: list[str] = []
    service.propose(b"x", raises)
    service.propose(b"x", failures.append)
    wait_for(lambda: failures == ["no_leader"])
    assert "on_failed raised" in caplog.text
    service.stop()


def test_before_the_start_and_after_the_stop_everything_is_refused(tmp_path):
    cluster = Cluster(tmp_path, 1)
    service = cluster.services["node-1"]
    failures: list[str] = []
    service.propose(b"x", failures.append)
    assert asyncio.run(service.read_barrier(1.0)) is False
    assert service.status().journal_entries == 0
    cluster.start()
    service.stop()
    service.stop()
    service.propose(b"x", failures.append)
    assert failures == ["no_leader", "stopped"]
    assert asyncio.run(service.read_barrier(1.0)) is False


def test_a_raft_thread_that_fails_ends_the_process(tmp_path):
    program = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from raft_cluster import make_peers, make_service
        from raft_simulation import ListMachine
        directory = Path({str(tmp_path)!r})
        service = make_service(directory, "node-1", make_peers(directory, ["node-1"]), machine=ListMachine())
        service.start()
        service._node._election = None
        time.sleep(20)
        print("still alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == EXIT_SOFTWARE
    assert done.stdout == ""
    assert "the raft thread failed" in done.stderr


def test_a_service_starts_once(single):
    with pytest.raises(RuntimeError, match="starts once"):
        single.services["node-1"].start()


def test_a_service_that_never_started_can_be_stopped(tmp_path):
    service = Cluster(tmp_path, 1).services["node-1"]
    before = set(tmp_path.iterdir())
    service.stop()
    assert set(tmp_path.iterdir()) == before


def test_a_port_in_use_is_an_error_at_the_start_and_releases_the_journal(single, tmp_path):
    (tmp_path / "other").mkdir()
    other = Cluster(tmp_path / "other", 1)
    peers = [dataclasses.replace(other.peers[0], port=single.peers[0].port)]
    service = make_service(tmp_path / "other", "node-1", peers, machine=ListMachine())
    with pytest.raises(OSError, match="in use"):
        service.start()
    other.start()
    other.stop()


def test_a_damaged_journal_is_an_error_at_the_start(tmp_path):
    cluster = Cluster(tmp_path, 1)
    (tmp_path / "node-1.journal").write_bytes(b"garbage")
    with pytest.raises(JournalCorruptError, match="not a journal"):
        cluster.services["node-1"].start()


def test_a_lost_journal_is_an_error_at_the_start(single):
    service = single.services["node-1"]
    wait_for(lambda: single.machines["node-1"].applied_index >= 2)
    service.stop()
    (single.directory / "node-1.journal").unlink()
    again = make_service(single.directory, "node-1", single.peers, machine=single.machines["node-1"])
    with pytest.raises(JournalError, match="a part of the journal is lost"):
        again.start()


@pytest.mark.parametrize("change", ["twice", "not among them"])
def test_a_cluster_that_makes_no_sense_is_refused(tmp_path, change):
    peers = make_peers(tmp_path, ["node-1", "node-2"])
    wrong = [*peers, peers[1]] if change == "twice" else peers[1:]
    with pytest.raises(ValueError, match="a name of its own"):
        make_service(tmp_path, "node-1", wrong, machine=ListMachine())


def test_the_listening_address_can_differ_from_the_advertised_one(tmp_path):
    peers = make_peers(tmp_path, ["node-1"])
    peers = [dataclasses.replace(peers[0], host="192.0.2.1", port=free_ports("127.0.0.1", 1)[0])]
    settings = dataclasses.replace(FAST, bind_host="127.0.0.1")
    service = make_service(tmp_path, "node-1", peers, machine=ListMachine(), settings=settings)
    service.start()
    wait_for(lambda: service.status().state == "leader")
    with socket.create_connection(("127.0.0.1", peers[0].port), timeout=5) as listening:
        assert listening.getpeername() == ("127.0.0.1", peers[0].port)
    service.stop()
