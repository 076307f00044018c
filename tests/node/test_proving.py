"""A restored node signs nothing before its tree is proved to be the one that a quorum of the others signs."""

import asyncio
import time
from pathlib import Path

import pytest
from nodeset import NodeParts, NodeSet, publication

from node import proving
from node.errors import InconsistentStateError
from node.proving import Proof, is_unproven, mark_unproven
from registry.entry import Entry


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "RETRY_S", 0.02)


def proof_of(nodes: NodeSet, node: NodeParts) -> Proof:
    state = node.config.state_directory
    return Proof(node.name, state, store=node.ledger.store, applied=node.ledger.applied, session=nodes.session)


async def restored(nodes: NodeSet) -> NodeParts:
    """The third node, as one that came from a backup of the genesis."""
    node = nodes.nodes[2]
    assert await node.ledger.signed.wait_for(1, 30)
    await node.ledger.stop()
    mark_unproven(node.config.state_directory, size=1)
    node.ledger.start(nodes.order, proof=proof_of(nodes, node))
    return node


async def until(condition, *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def submit(nodes: NodeSet, number: int) -> None:
    await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=30)


async def test_it_signs_once_it_has_what_a_quorum_signed_and_is_never_asked_again(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        node = await restored(nodes)
        before = node.ledger.signer.size
        await submit(nodes, 0)
        await until(lambda: node.ledger.signing_trouble == proving.WAITING)
        assert (node.ledger.store.size, node.ledger.signer.size) == (2, before)
        await nodes.serve(0, 1)
        await until(lambda: node.ledger.signed.value == 2)
        assert node.ledger.signing_trouble is None
        assert not is_unproven(node.config.state_directory)


async def test_the_word_of_fewer_nodes_than_a_quorum_is_not_enough(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(0)
        await submit(nodes, 0)
        mark_unproven(nodes.nodes[2].config.state_directory, size=1)
        assert not await proof_of(nodes, nodes.nodes[2])._try()
        await nodes.serve(1)
        await proof_of(nodes, nodes.nodes[2]).give()


async def test_what_it_has_not_caught_up_with_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proving, "CATCH_UP_S", 0.05)
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(0, 1)
        nodes.order.ledgers = [node.ledger for node in nodes.nodes[:2]]
        await submit(nodes, 0)
        await nodes.nodes[1].ledger.signed.wait_for(2, 30)
        assert not await proof_of(nodes, nodes.nodes[2])._try()


async def test_another_history_is_never_signed(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(0, 1)
        nodes.order.ledgers = [node.ledger for node in nodes.nodes[:2]]
        node = await restored(nodes)
        before = node.ledger.signer.size
        for number in range(2):
            await submit(nodes, number)
        await nodes.nodes[1].ledger.signed.wait_for(3, 30)
        nodes.order.ledgers = [node.ledger]
        for number in (5, 6):
            nodes.order.order(Entry(publication(number=number), int(time.time())).encode())
        await until(lambda: node.ledger.signer.alarm)
        assert "another history" in node.ledger.signer.alarm
        assert node.ledger.signer.size == before
        assert is_unproven(node.config.state_directory)
        with pytest.raises(InconsistentStateError):
            await proof_of(nodes, node).give()
