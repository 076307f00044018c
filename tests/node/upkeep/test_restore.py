"""A lost node comes back as somebody else or not at all; a lost ledger.db comes back from the node's own journal."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import ROOT
from stored import StoredNode

from node.errors import ConfigError, InconsistentStateError
from node.init import NewNode, init_node
from node.upkeep.backup import back_up
from node.upkeep.fsck import examine
from node.upkeep.manifest import Manifest, hash_files
from node.upkeep.restore import rebuild, restore
from registry.entry import Entry
from registry.trust import TrustPolicy

pytestmark = pytest.mark.long


@pytest.fixture
def node(tmp_path: Path) -> StoredNode:
    node = StoredNode.make(tmp_path / "ledger")
    node.publish(5)
    node.order(None)
    return node


@pytest.fixture
def backup(node: StoredNode, tmp_path: Path) -> Path:
    back_up(node.directory / "node.toml", tmp_path / "backup", with_keys=True)
    return tmp_path / "backup"


@pytest.fixture
def new(node: StoredNode, tmp_path: Path) -> StoredNode:
    """A node that is to join the same ledger, as `wmreg node init` makes it."""
    return joining(node, tmp_path / "new", name="node-1b")


def joining(node: StoredNode, directory: Path, *, name: str) -> StoredNode:
    entry = Entry.decode(genesis_of(node))
    trust = TrustPolicy.parse((node.directory.parent / "policy.txt").read_text())
    init_node(
        directory,
        NewNode(name=name, host="127.0.0.1", api_port=None, raft_port=None, https=False),
        genesis=entry.envelope,
        recorded_s=entry.recorded_s,
        trust=trust,
    )
    return StoredNode(directory)


def genesis_of(node: StoredNode) -> bytes:
    with node.opened() as parts:
        return parts.store.entry(0)


def test_a_new_node_begins_with_the_history_and_no_promise(node: StoredNode, backup: Path, new: StoredNode):
    assert restore(backup, new.config).size == 6
    with new.opened() as parts:
        assert (parts.store.size, parts.store.applied_index, parts.signer.size) == (6, 6, 0)
        assert (parts.journal.last_index, parts.journal.term, parts.journal.voted_for) == (6, 1, None)
    findings = examine(new.config)
    assert findings.problems == []
    assert any("not a member" in remark for remark in findings.remarks)
    with pytest.raises(ConfigError, match="has state already"):
        restore(backup, new.config)


@pytest.mark.parametrize("name", ["node-1", "node-2"])
def test_a_name_that_was_a_members_is_refused(node: StoredNode, backup: Path, tmp_path: Path, name: str):
    other = joining(node, tmp_path / "again", name=name)
    before = other.snapshot()
    with pytest.raises(ConfigError, match="must not come back as itself"):
        restore(backup, other.config)
    assert other.snapshot() == before


def test_a_key_that_was_a_members_is_refused_under_any_name(node: StoredNode, backup: Path, new: StoredNode):
    shutil.copy(node.directory / "keys/note.pem", new.directory / "keys/note.pem")
    with pytest.raises(ConfigError, match="must not come back as itself"):
        restore(backup, new.config)


def test_a_node_with_state_is_refused(node: StoredNode, backup: Path):
    before = node.snapshot()
    with pytest.raises(ConfigError, match="has state already"):
        restore(backup, node.config)
    assert node.snapshot() == before


@pytest.mark.parametrize("file", ["raft.journal", "notes.db", "anything"])
def test_a_node_that_has_run_is_refused_whatever_is_left_of_its_state(backup: Path, new: StoredNode, file: str):
    (new.directory / "state" / file).write_bytes(b"")
    with pytest.raises(ConfigError, match="has state already"):
        restore(backup, new.config)


def test_a_node_that_has_signed_is_refused(backup: Path, new: StoredNode):
    with new.opened() as parts:
        parts.sign()
    for name in ("raft.journal", "notes.db"):
        (new.directory / "state" / name).unlink()
    with pytest.raises(ConfigError, match="has state already"):
        restore(backup, new.config)


def test_a_backup_that_was_changed_is_refused(backup: Path, new: StoredNode):
    with (backup / "journal").open("ab") as file:
        file.write(b"x")
    before = new.snapshot()
    with pytest.raises(ConfigError, match="another backup"):
        restore(backup, new.config)
    assert new.snapshot() == before


def test_a_backup_with_an_honest_manifest_over_a_forged_ledger_is_refused(backup: Path, new: StoredNode):
    with sqlite3.connect(backup / "ledger.db") as connection:
        connection.execute("DELETE FROM entries WHERE position = 5")
    connection.close()
    manifest = Manifest.load(backup)
    fields = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
    (backup / "manifest.json").write_bytes(Manifest(**{**fields, "files": hash_files(backup)}).encode())
    with pytest.raises(InconsistentStateError):
        restore(backup, new.config)


def test_a_backup_of_another_ledger_is_refused(new: StoredNode, tmp_path: Path):
    other = StoredNode.make(tmp_path / "other")
    other.publish(2)
    back_up(other.directory / "node.toml", tmp_path / "others")
    with pytest.raises(ConfigError, match="of another ledger"):
        restore(tmp_path / "others", new.config)


@pytest.mark.parametrize("damage", ["gone", "zeroed", "entry"])
def test_a_ledger_is_made_anew_from_the_journal_and_the_damaged_one_is_kept(node: StoredNode, damage: str):
    whole, path = node.contents(), node.directory / "state/ledger.db"
    if damage == "gone":
        path.unlink()
    elif damage == "zeroed":
        raw = path.read_bytes()
        path.write_bytes(raw[:4096] + bytes(4096) + raw[8192:])
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM entries WHERE position = 3")
        connection.close()
    kept = rebuild(node.config)
    assert kept.exists()
    assert (kept == path) == (damage == "gone")
    assert examine(node.config).problems == []
    with node.opened() as parts:  # as a node does when it starts
        parts.store.begin()
        for index in range(1, parts.journal.commit_index + 1):
            command = parts.journal.entry(index)[0]
            parts.store.apply(index, command[1:] if command[:1] == b"\0" else None)
        parts.store.commit()
    assert node.contents() == whole


def test_a_sound_ledger_is_left_alone(node: StoredNode):
    before = node.snapshot()
    with pytest.raises(ConfigError, match="sound"):
        rebuild(node.config)
    assert node.snapshot() == before


@pytest.mark.parametrize("also", ["raft.journal", "signer.db"])
def test_a_ledger_is_not_made_anew_when_a_promise_is_lost_as_well(node: StoredNode, also: str):
    (node.directory / "state/ledger.db").unlink()
    (node.directory / "state" / also).unlink()
    with pytest.raises(ConfigError, match="cannot be made anew"):
        rebuild(node.config)
    assert not (node.directory / "state/ledger.db").exists()


def test_a_running_nodes_ledger_is_not_made_anew(node: StoredNode):
    with node.opened(), pytest.raises(ConfigError, match="another process"):
        rebuild(node.config)


def wmreg(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "client.command", "node", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_the_commands(node: StoredNode, backup: Path, new: StoredNode):
    done = wmreg("restore", str(backup), str(new.directory))
    assert done.returncode == 0, done.stderr
    assert "member propose --add" in done.stdout
    done = wmreg("restore", str(backup), str(node.directory))
    assert done.returncode == 2
    assert "has state already" in done.stderr
    (node.directory / "state/ledger.db").write_bytes(b"")
    assert wmreg("rebuild", str(node.directory)).returncode == 0
    assert wmreg("fsck", str(node.directory)).returncode == 0
