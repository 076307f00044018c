"""What a node signed long ago and a disk has changed since is noticed by the running node itself."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from stored import OpenedNode, StoredNode

from node.errors import InconsistentStateError
from node.patrol import Patrol

pytestmark = pytest.mark.long


@pytest.fixture
def node(tmp_path: Path) -> StoredNode:
    node = StoredNode.make(tmp_path / "ledger")
    node.publish(100)
    return node


def patrol(node: StoredNode, parts: OpenedNode) -> Patrol:
    path = node.config.state_directory / "signer.db"
    return Patrol(path, name="node-1", store=parts.store, signer=parts.signer)


def edit(node: StoredNode, statement: str) -> None:
    with sqlite3.connect(node.directory / "state/signer.db") as connection:
        connection.execute(statement)
    connection.close()


async def test_what_is_sound_is_read_again_and_again(node: StoredNode, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.patrol.PERIOD_S", 0.01)
    with node.opened() as parts:
        guard, rounds = patrol(node, parts), []
        read = guard._read
        monkeypatch.setattr(guard, "_read", lambda: rounds.append(read()))
        running = asyncio.create_task(guard.run())
        async with asyncio.timeout(30):
            while len(rounds) < 3:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checkpoints SET root = zeroblob(32) WHERE size = 7",
        "UPDATE checkpoints SET log_line = (SELECT log_line FROM checkpoints WHERE size = 8) WHERE size = 7",
        "UPDATE checkpoints SET cosignature_line = CAST(x'ff' AS TEXT) WHERE size = 90",
        "UPDATE checkpoints SET time_s = time_s + 1 WHERE size = 7",
        "DELETE FROM checkpoints WHERE size = 7",
        "UPDATE checkpoints SET size = 0 WHERE size = 7",
    ],
)
async def test_what_was_changed_ends_it_with_the_way_out(node: StoredNode, damage: str):
    edit(node, damage)
    with node.opened() as parts, pytest.raises(InconsistentStateError, match="wmreg node fsck"):
        async with asyncio.timeout(30):
            await patrol(node, parts).run()


async def test_a_file_that_cannot_be_read_any_more_ends_it_too_and_is_told_in_the_log(
    node: StoredNode, caplog: pytest.LogCaptureFixture
):
    path = node.directory / "state/signer.db"
    with node.opened() as parts, caplog.at_level("INFO", "node.patrol"):
        raw = bytearray(path.read_bytes())
        raw[4096 : 4096 + 512] = bytes(512)  # the first page of the table, as on a failing disk
        path.write_bytes(raw)
        with pytest.raises(InconsistentStateError, match=r"malformed.*wmreg node fsck"):
            patrol(node, parts)._read()
    assert [(record.message, record.fields["problems"]) for record in caplog.records] == [("own checkpoints read", 1)]


async def test_a_ledger_that_is_still_behind_its_signatures_is_no_alarm(node: StoredNode, tmp_path: Path):
    with node.opened() as parts:
        behind = Patrol(
            node.config.state_directory / "signer.db", name="node-1", store=parts.store, signer=parts.signer
        )
        signed = parts.signer.size
        parts.store._size = 50
        behind._read()  # or it would raise
        assert 50 < signed == parts.signer.size
        assert parts.signer.alarm is None
