"""A client of C2SP tlog-witness gets the node's cosignature on the tree that the node has, and on no other."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nodeset import ORIGIN, NodeParts, NodeSet, publication

from node.api import witness as witness_module
from registry import merkle
from registry.checkpoint import Checkpoint
from registry.entry import Entry
from registry.note import Note, SignatureLine, sign, verify_signatures
from registry.spelling import encode_base64

OLD, NEW = 3, 6


@asynccontextmanager
async def witness(tmp_path: Path, size: int) -> AsyncIterator[tuple[NodeSet, NodeParts]]:
    """A node that has signed so many entries; beside it a member that it knows of and that has NEW."""
    async with NodeSet(tmp_path / "ledger", nodes=2) as nodes:
        await nodes.serve(0)
        commands = [Entry(publication(number=number), int(time.time())).encode() for number in range(NEW - 1)]
        nodes.order.order(*commands[: size - 1])
        assert await nodes.nodes[0].ledger.signed.wait_for(size, 20)
        nodes.order.ledgers = [nodes.nodes[1].ledger]
        nodes.order.order(*commands[size - 1 :])
        yield nodes, nodes.nodes[0]


def request_of(
    member: NodeParts, *, old: int = OLD, size: int = NEW, root: bytes | None = None, origin: str = ORIGIN
) -> str:
    """What a client sends, with the member's signature; another root is a lie of the member."""
    store = member.ledger.store
    text = str(Checkpoint(origin=origin, size=size, root=store.root(size) if root is None else root))
    proof = merkle.consistency_proof(old, size, store.read_node) if 0 < old < size else []
    note = Note(text, (sign(text, name=origin, private_key=member.identity.note),))
    return "".join(f"{line}\n" for line in [f"old {old}", *map(encode_base64, proof)]) + f"\n{note}"


async def ask(nodes: NodeSet, node: NodeParts, body: str) -> tuple[int, str, str]:
    async with nodes.session.post(f"{node.url}/add-checkpoint", data=body.encode()) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


def is_cosigned(node: NodeParts, asked: str, line: str) -> bool:
    """Whether a line is this node's cosignature on the checkpoint that was asked for."""
    text = Note.parse(asked.partition("\n\n")[2]).text
    cosigner = next(m for m in node.ledger.store.policy.members if m.name == node.name).cosigner(ORIGIN)
    cosigned = Note(text, (SignatureLine.parse(line.rstrip("\n")),))
    return [signature.key for signature in verify_signatures(cosigned, [cosigner])] == [cosigner]


async def test_the_tree_that_the_node_has_is_cosigned(tmp_path: Path):
    async with witness(tmp_path, NEW) as (nodes, node):
        asked = request_of(nodes.nodes[1], old=NEW)
        status, kind, line = await ask(nodes, node, asked)
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        assert is_cosigned(node, asked, line)


async def test_a_larger_tree_is_cosigned_once_the_node_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checked, check = asyncio.Event(), witness_module._check_continues

    def tell(*arguments: Any) -> None:
        check(*arguments)
        checked.set()

    monkeypatch.setattr(witness_module, "_check_continues", tell)
    async with witness(tmp_path, OLD) as (nodes, node):
        asked = request_of(nodes.nodes[1])
        asking = asyncio.create_task(ask(nodes, node, asked))
        await asyncio.wait_for(checked.wait(), 20)
        rest = [nodes.nodes[1].ledger.store.entry(index) for index in range(OLD, NEW)]
        nodes.order.ledgers = [node.ledger]
        nodes.order._index -= len(rest)
        nodes.order.order(*rest)
        status, _, line = await asking
        assert (status, is_cosigned(node, asked, line)) == (200, True)


async def test_another_old_size_is_answered_by_the_one_that_the_node_has_signed(tmp_path: Path):
    async with witness(tmp_path, OLD) as (nodes, node):
        for old in (0, OLD - 1, OLD + 1):
            asked = request_of(nodes.nodes[1], old=old)
            assert await ask(nodes, node, asked) == (409, "text/x.tlog.size", f"{OLD}\n")


async def test_what_the_node_does_not_come_to_have_is_not_cosigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.api.witness.WAIT_S", 0.05)
    async with witness(tmp_path, OLD) as (nodes, node):
        status, _, told = await ask(nodes, node, request_of(nodes.nodes[1]))
        assert (status, "behind" in told) == (503, True)
        assert node.ledger.signed.value == OLD


async def test_no_other_tree_is_cosigned_whoever_signed_it(tmp_path: Path):
    async with witness(tmp_path, OLD) as (nodes, node):
        member = nodes.nodes[1]
        good = request_of(member)
        first_hash = good.split("\n")[1]
        for lie in (
            request_of(member, root=b"\x07" * 32),
            request_of(member, size=OLD, root=b"\x07" * 32),
            good.replace(first_hash, encode_base64(b"\x07" * 32)),
            good.replace(f"{first_hash}\n", "", 1),
        ):
            status, _, told = await ask(nodes, node, lie)
            assert (status, "inconsistent" in told) == (422, True)


async def test_what_no_member_has_signed_or_is_no_request_is_refused(tmp_path: Path):
    async with witness(tmp_path, OLD) as (nodes, node):
        member = nodes.nodes[1]
        good = request_of(member)
        unsigned = good.rpartition("\u2014 ")[0] + good.rpartition("\u2014 ")[2].replace(ORIGIN, "\u2014 a.stranger")
        lines = good.split("\n")
        forged = good.replace(lines[-2], lines[-2][:-8] + "AAAAAAA=")
        for body, expected in (
            (unsigned, 403),
            (forged, 403),
            (request_of(member, origin="another.log"), 404),
            (request_of(member, old=NEW).replace(f"old {NEW}", f"old {NEW + 1}"), 400),
            (good.replace("old 3", "old 03"), 400),
            (good.replace("old 3", "new 3"), 400),
            (good.replace("\n\n", "\n", 1), 400),
            (good.replace("old 3\n", "old 3\n" + f"{encode_base64(bytes(32))}\n" * 64), 400),
            ("", 400),
        ):
            status, kind, told = await ask(nodes, node, body)
            assert (status, kind) == (expected, "application/json; charset=utf-8"), (body, told)


async def test_the_last_checkpoint_of_the_witness_is_told_by_the_hash_of_the_logs_name(tmp_path: Path):
    async with witness(tmp_path, OLD) as (nodes, node):
        for origin, expected in ((ORIGIN, 200), ("another.log", 404)):
            url = f"{node.url}/{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
            async with nodes.session.get(url) as answer:
                assert answer.status == expected
                told = await answer.text()
                assert expected == 404 or Checkpoint.parse(Note.parse(told).text).size == OLD
