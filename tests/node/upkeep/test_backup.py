"""A backup is one consistent, checked state of a node, running or not, and nothing that a node could sign on from."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cluster import ROOT
from damage import with_flipped_bit
from stored import ORIGIN, StoredNode

from node.errors import ConfigError, InconsistentStateError
from node.raft import JournalReader
from node.upkeep.backup import back_up, check_copy
from node.upkeep.manifest import Manifest
from registry.checkpoint import Checkpoint
from registry.note import Note

pytestmark = pytest.mark.long

PLAIN = {"manifest.json", "ledger.db", "notes.db", "journal", "genesis", "node.toml"}


@pytest.fixture
def node(tmp_path: Path) -> StoredNode:
    node = StoredNode.make(tmp_path / "ledger")
    node.publish(5)
    return node


def settings(node: StoredNode) -> Path:
    return node.directory / "node.toml"


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_stopped_node_is_copied_whole_and_left_as_it_was(node: StoredNode, tmp_path: Path):
    before = node.snapshot()
    manifest = back_up(settings(node), tmp_path / "backup")
    assert node.snapshot() == before
    assert files(tmp_path / "backup") == PLAIN
    assert (manifest.name, manifest.origin, manifest.size) == ("node-1", ORIGIN, 6)
    assert Manifest.load(tmp_path / "backup") == manifest
    manifest.check_files(tmp_path / "backup")
    assert check_copy(tmp_path / "backup", show=lambda _: None).root.hex() == manifest.root


def test_the_last_own_checkpoint_is_told_as_evidence_and_the_signers_file_is_not_copied(
    node: StoredNode, tmp_path: Path
):
    manifest = back_up(settings(node), tmp_path / "backup")
    checkpoint = Checkpoint.parse(Note.parse(manifest.checkpoint).text)
    assert (checkpoint.size, checkpoint.root.hex()) == (6, manifest.root)
    assert not [path for path in files(tmp_path / "backup") if "signer" in path]


def test_no_vote_and_nothing_that_is_not_committed_is_copied(node: StoredNode, tmp_path: Path):
    with node.opened() as parts:
        parts.journal.set_vote(7, "node-2")
        parts.journal.add((b"\0uncommitted", parts.journal.last_index + 1, 7))
        parts.journal.sync()
        back_up(settings(node), tmp_path / "backup")
    with JournalReader(tmp_path / "backup/journal", is_exclusive=False) as journal:
        assert (journal.last_index, journal.hard_state) == (5, (1, None, 5))


def test_a_running_node_is_copied_in_one_state_while_it_writes(node: StoredNode, tmp_path: Path):
    with node.opened() as parts:
        commands = [node.publication() for _ in range(300)]
        stop = threading.Event()

        def write() -> None:
            while commands and not stop.is_set():
                parts.order(commands.pop())

        writer = threading.Thread(target=write)
        writer.start()
        try:
            sizes = [back_up(settings(node), tmp_path / f"backup-{number}").size for number in range(4)]
        finally:
            stop.set()
            writer.join()
        last = back_up(settings(node), tmp_path / "last")
        assert (last.size, last.root) == (parts.store.size, parts.store.root(parts.store.size).hex())
    assert sizes == sorted(sizes)
    assert sizes[-1] > 6


def test_keys_are_copied_only_when_asked_for_and_only_their_owner_reads_them(node: StoredNode, tmp_path: Path):
    back_up(settings(node), tmp_path / "backup", with_keys=True)
    keys = {f"keys/{name}" for name in ("signing.pem", "note.pem", "cosigner.pem", "tls.pem", "tls.crt")}
    assert files(tmp_path / "backup") == PLAIN | keys
    assert {(tmp_path / "backup" / key).stat().st_mode & 0o777 for key in keys} == {0o600}


def test_a_directory_that_is_in_use_is_refused(node: StoredNode, tmp_path: Path):
    back_up(settings(node), tmp_path / "backup")
    with pytest.raises(ConfigError, match="a new directory"):
        back_up(settings(node), tmp_path / "backup")


def test_a_node_that_contradicts_itself_is_not_copied(node: StoredNode, tmp_path: Path):
    with sqlite3.connect(node.directory / "state/ledger.db") as connection:
        connection.execute("UPDATE nodes SET digest = zeroblob(32) WHERE level = 0 AND position = 3")
    connection.close()
    with pytest.raises(InconsistentStateError, match="fsck"):
        back_up(settings(node), tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_a_node_whose_journal_was_lost_is_not_copied(node: StoredNode, tmp_path: Path):
    (node.directory / "state/raft.journal").unlink()
    with pytest.raises(ConfigError, match="cannot be made"):
        back_up(settings(node), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_any_changed_missing_or_added_file_of_a_backup_is_noticed(node: StoredNode, tmp_path: Path, name: str):
    back_up(settings(node), tmp_path / "backup")
    path = tmp_path / "backup" / name
    whole = path.read_bytes()

    def check() -> None:
        Manifest.load(tmp_path / "backup").check_files(tmp_path / "backup")

    path.write_bytes(with_flipped_bit(whole))
    with pytest.raises(ConfigError, match="another backup"):
        check()
    path.unlink()
    with pytest.raises(ConfigError, match="backup"):
        check()
    path.write_bytes(whole)
    check()
    shutil.copy(path, tmp_path / "backup/more")
    with pytest.raises(ConfigError, match="not in the manifest"):
        check()


def test_the_command_tells_what_was_copied(node: StoredNode, tmp_path: Path):
    words = [
        sys.executable,
        "-m",
        "client.command",
        "node",
        "backup",
        str(node.directory),
        str(tmp_path / "b"),
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, json.loads(done.stdout)["size"]) == (0, 6)
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("verb", ["fsck", "rebuild", "run"])
def test_a_backup_that_is_taken_for_a_node_is_called_a_backup_and_no_alarm(node: StoredNode, tmp_path: Path, verb: str):
    back_up(settings(node), tmp_path / "backup")
    done = subprocess.run(
        [sys.executable, "-m", "client.command", "node", verb, str(tmp_path / "backup")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "a backup, not a node's directory; wmreg node restore checks it" in done.stderr
    assert files(tmp_path / "backup") == PLAIN
