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
from node.identity import load_identity, public_bytes
from node.proving import is_unproven
from node.upkeep.backup import back_up
from node.upkeep.fsck import examine
from node.upkeep.manifest import Manifest
from node.upkeep.restore import rebuild, restore


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


def test_the_history_comes_back_under_a_new_name_with_new_keys_and_no_promise(
    node: StoredNode, backup: Path, tmp_path: Path
):
    config = restore(backup, tmp_path / "new", name="node-1b")
    assert config.name == "node-1b"
    new, old = load_identity(config.keys), load_identity(node.config.keys)
    for role in ("signing", "note", "cosigner"):
        assert public_bytes(getattr(new, role)) != public_bytes(getattr(old, role))
    with StoredNode(tmp_path / "new").opened() as parts:
        assert (parts.store.size, parts.store.applied_index, parts.signer.size) == (6, 6, 0)
        assert (parts.journal.last_index, parts.journal.term, parts.journal.voted_for) == (6, 1, None)
    assert is_unproven(config.state_directory)
    assert examine(config).problems == []


@pytest.mark.parametrize("name", ["node-1", "node-2"])
def test_a_name_that_was_a_members_is_refused(backup: Path, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="must not come back under its name"):
        restore(backup, tmp_path / "new", name=name)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".restore.*"))


def test_a_directory_with_anything_in_it_is_refused(node: StoredNode, backup: Path):
    before = node.snapshot()
    with pytest.raises(ConfigError, match="not empty"):
        restore(backup, node.directory, name="node-1b")
    assert node.snapshot() == before


def test_a_backup_that_was_changed_is_refused(backup: Path, tmp_path: Path):
    with (backup / "journal").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match="another backup"):
        restore(backup, tmp_path / "new", name="node-1b")


def test_a_backup_with_an_honest_manifest_over_a_forged_ledger_is_refused(backup: Path, tmp_path: Path):
    with sqlite3.connect(backup / "ledger.db") as connection:
        connection.execute("DELETE FROM entries WHERE position = 5")
    connection.close()
    manifest = Manifest.load(backup)
    fields = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
    from node.upkeep.manifest import hash_files

    (backup / "manifest.json").write_bytes(Manifest(**{**fields, "files": hash_files(backup)}).encode())
    with pytest.raises(InconsistentStateError):
        restore(backup, tmp_path / "new", name="node-1b")


def test_settings_that_point_elsewhere_are_refused(node: StoredNode, tmp_path: Path):
    path = node.directory / "node.toml"
    shutil.copytree(node.directory / "state", tmp_path / "elsewhere")
    path.write_text(path.read_text().replace('state_directory = "state"', f'state_directory = "{tmp_path}/elsewhere"'))
    back_up(path, tmp_path / "backup")
    with pytest.raises(ConfigError, match="outside of the node's directory"):
        restore(tmp_path / "backup", tmp_path / "new", name="node-1b")


def test_a_name_that_is_no_name_is_refused(backup: Path, tmp_path: Path):
    with pytest.raises(ConfigError):
        restore(backup, tmp_path / "new", name='x"\nstate_directory = "/tmp/other')
    assert not (tmp_path / "new").exists()


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


def test_the_commands(node: StoredNode, backup: Path, tmp_path: Path):
    done = wmreg("restore", str(backup), str(tmp_path / "new"), "--name", "node-1b")
    assert done.returncode == 0, done.stderr
    assert "when a policy entry of the ledger has admitted it" in done.stdout
    done = wmreg("restore", str(backup), str(tmp_path / "newer"), "--name", "node-1")
    assert done.returncode == 2
    assert "must not come back under its name" in done.stderr
    (node.directory / "state/ledger.db").write_bytes(b"")
    assert wmreg("rebuild", str(node.directory)).returncode == 0
    assert wmreg("fsck", str(node.directory)).returncode == 0
