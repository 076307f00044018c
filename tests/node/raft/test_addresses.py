"""Promised: literals are known at once, names soon, and an unknown name is nobody's problem but its own."""

import pytest
from raft_cluster import wait_for

from node.raft.addresses import AddressBook, resolve
from node.raft.types import RaftPeer


def peer(host: str) -> RaftPeer:
    return RaftPeer(name=host, host=host, port=4000, certificate_pins=(), certificate_pem="")


def test_a_literal_is_known_at_once():
    book = AddressBook([peer("127.0.0.1"), peer("::1")])
    assert book.address("127.0.0.1").address == ("127.0.0.1", 4000)
    assert book.address("::1").address[:2] == ("::1", 4000)
    book.close()


def test_a_name_is_found_by_the_thread():
    book = AddressBook([peer("localhost")])
    wait_for(lambda: book.address("localhost") is not None)
    assert book.address("localhost").address[0] in ("127.0.0.1", "::1")
    book.close()


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 64 + ".invalid"])
def test_a_name_that_does_not_resolve_stays_unknown_and_hides_no_other(name):
    book = AddressBook([peer(name), peer("localhost")])
    wait_for(lambda: book.address("localhost") is not None)
    assert book.address(name) is None
    book.close()


def test_a_name_is_no_literal():
    with pytest.raises(OSError, match=r"not known|not supported"):
        resolve("localhost", 1, is_literal=True)
