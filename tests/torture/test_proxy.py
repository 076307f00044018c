"""The network between the peers passes everything on, until it is told not to."""

import os
import socket
from collections.abc import Iterator

import pytest
from torture.proxy import INNER_HOST, Network

from node.ports import free_ports

TIMEOUT_S = 10
SILENCE_S = 0.2


class Pair:
    """A connection of two "nodes", both of this process: only node-2 has a process that the proxy can find."""

    def __init__(self, port: int) -> None:
        with socket.create_server((INNER_HOST, port)) as server:
            server.settimeout(TIMEOUT_S)
            self.caller = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
            self.callee, _ = server.accept()
        self.callee.settimeout(TIMEOUT_S)
        self.caller.sendall(b"hello")
        assert self.callee.recv(10) == b"hello"  # so that the proxy has the connection whole

    def close(self) -> None:
        self.caller.close()
        self.callee.close()


@pytest.fixture
def network() -> Iterator[tuple[Network, int]]:
    first, second = free_ports("127.0.0.1", 2)
    pids = {"node-1": None, "node-2": os.getpid()}
    network = Network({"node-1": first, "node-2": second}, pids.get).start()
    yield network, first
    network.stop()


@pytest.fixture
def pair(network: tuple[Network, int]) -> Iterator[Pair]:
    pair = Pair(network[1])
    yield pair
    pair.close()


def test_bytes_go_both_ways(pair: Pair):
    pair.caller.sendall(b"there")
    assert pair.callee.recv(10) == b"there"
    pair.callee.sendall(b"back")
    assert pair.caller.recv(10) == b"back"


def test_a_cut_link_is_silent_in_its_direction_only_and_loses_nothing(network: tuple[Network, int], pair: Pair):
    network[0].cut([("node-2", "node-1")])
    pair.caller.sendall(b"held")
    pair.callee.sendall(b"back")
    assert pair.caller.recv(10) == b"back"
    pair.callee.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        pair.callee.recv(10)
    network[0].heal()
    pair.callee.settimeout(TIMEOUT_S)
    assert pair.callee.recv(10) == b"held"


def test_a_reset_closes_both_ends(network: tuple[Network, int], pair: Pair):
    network[0].reset()
    assert [ended(end) for end in (pair.caller, pair.callee)] == [True, True]


def ended(end: socket.socket) -> bool:
    try:
        return end.recv(10) == b""
    except ConnectionError:
        return True


def test_a_split_cuts_what_is_not_in_one_group():
    network = Network(dict.fromkeys("abc", 1), lambda _: None)
    seen: list[set[tuple[str, str]]] = []
    network.cut = lambda links: seen.append(set(links))
    network.split("ab", "bc")
    network.isolate("a")
    network.split()
    network._loop.close()
    assert seen[0] == {("a", "c"), ("c", "a")}
    assert seen[1] == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
    assert len(seen[2]) == 6
