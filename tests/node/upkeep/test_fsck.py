"""A sound directory is sound whatever ended its node; whatever is changed in it is found, and told with the way out."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import ROOT
from damage import with_flipped_bit
from stored import StoredNode

from node.config import load_config
from node.errors import ConfigError
from node.raft import JournalReader
from node.raft.journal_file import JournalFile
from node.raft.journal_format import HardState
from node.upkeep.fsck import examine

pytestmark = pytest.mark.long

Damage = Callable[[Path], None]


@pytest.fixture
def node(tmp_path: Path) -> StoredNode:
    """A node that has stored and signed a few entries, refused some and stopped."""
    node = StoredNode.make(tmp_path / "ledger")
    node.publish(12)
    node.order(None, b"nonsense")
    node.publish(3)
    return node


def problems(node: StoredNode) -> dict[str, str]:
    """By part, the remedy of the last problem."""
    return {problem.part: problem.remedy for problem in examine(load_config(node.directory / "node.toml")).problems}


def test_a_node_that_stopped_is_sound_and_nothing_is_changed(node: StoredNode):
    before = node.snapshot()
    findings = examine(node.config)
    assert (findings.problems, findings.remarks) == ([], [])
    assert findings.figures == {"journal": 17, "applied_index": 17, "entries": 16, "signed": 16, "uploads": 0}
    assert node.snapshot() == before


def test_a_node_that_has_done_nothing_yet_is_sound(tmp_path: Path):
    node = StoredNode.make(tmp_path / "ledger")
    (node.config.state_directory / "raft.journal").unlink(missing_ok=True)
    assert examine(node.config).problems == []


def test_a_node_that_was_killed_is_sound_and_its_write_ahead_log_is_read(node: StoredNode, tmp_path: Path):
    with node.opened() as parts:
        parts.order(node.publication())
        parts.sign()
        shutil.copytree(node.directory, tmp_path / "killed")
    killed = StoredNode(tmp_path / "killed")
    assert (killed.directory / "state/ledger.db-wal").stat().st_size > 0
    (killed.directory / "state/ledger.db-shm").unlink()
    before = killed.snapshot()
    findings = examine(killed.config)
    assert (findings.problems, findings.figures["entries"]) == ([], 17)
    assert killed.snapshot() == before


@pytest.mark.parametrize("content", [None, "notes of somebody else"])
def test_a_state_directory_that_is_no_nodes_is_a_wrong_setting_and_no_problem(node: StoredNode, content: str | None):
    shutil.rmtree(node.config.state_directory)
    if content is not None:
        node.config.state_directory.mkdir(mode=0o700)
        (node.config.state_directory / "notes.txt").write_text(content)
    with pytest.raises(ConfigError, match=r"`state_directory` in node\.toml may be wrong"):
        examine(node.config)


def test_a_torn_write_and_a_ledger_behind_its_journal_are_no_problems(node: StoredNode, tmp_path: Path):
    shutil.copy(node.directory / "state/ledger.db", tmp_path / "ledger.db")
    node.publish(2)
    shutil.copy(tmp_path / "ledger.db", node.directory / "state/ledger.db")
    with (node.directory / "state/raft.journal").open("ab") as file:
        file.write(b"\xf1wmr torn")
    findings = examine(node.config)
    assert findings.problems == []
    assert any("2 entries behind" in remark for remark in findings.remarks)
    assert any("torn write" in remark for remark in findings.remarks)


def test_a_running_node_is_left_alone(node: StoredNode):
    with node.opened(), pytest.raises(ConfigError, match="another process runs this node's state"):
        examine(node.config)


def sql(name: str, statement: str, *parameters: object) -> Damage:
    def damage(directory: Path) -> None:
        with sqlite3.connect(directory / "state" / name) as connection:
            connection.execute(statement, parameters)
        connection.close()

    return damage


def flip(name: str, at: float) -> Damage:
    def damage(directory: Path) -> None:
        path = directory / name
        raw = bytearray(path.read_bytes())
        raw[int(at * len(raw))] ^= 1
        path.write_bytes(raw)

    return damage


def forged_entry(directory: Path) -> None:
    with sqlite3.connect(directory / "state/ledger.db") as connection:
        (entry,) = connection.execute("SELECT entry FROM entries WHERE position = 5").fetchone()
        connection.execute("UPDATE entries SET entry = ? WHERE position = 5", (with_flipped_bit(entry),))
    connection.close()


def journal_of_another_history(directory: Path) -> None:
    path = directory / "state/raft.journal"
    with JournalReader(path, is_exclusive=False) as reader:
        entries, state = list(reader.entries(1, reader.last_index)), reader.hard_state
    path.unlink()
    entries[4], entries[5] = (entries[5][0], *entries[4][1:]), (entries[4][0], *entries[5][1:])
    journal = JournalFile.open(path)
    journal.write(truncate_from=None, entries=entries, hard_state=state)
    journal.close()


def shorter_journal(directory: Path) -> None:
    path = directory / "state/raft.journal"
    with JournalReader(path, is_exclusive=False) as reader:
        entries = list(reader.entries(1, reader.last_index - 2))
    path.unlink()
    journal = JournalFile.open(path)
    journal.write(truncate_from=None, entries=entries, hard_state=HardState(term=1, voted_for=None, commit_index=0))
    journal.close()


def other_signer(directory: Path) -> None:
    shutil.copy(directory.parent / "node-2/state/signer.db", directory / "state/signer.db")


REBUILD, NEW, INQUIRY = "wmreg node rebuild", "new member", "two histories"
DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "an entry is missing": (sql("ledger.db", "DELETE FROM entries WHERE position = 7"), "state/ledger.db", REBUILD),
    "an entry was changed": (forged_entry, "state/ledger.db", REBUILD),
    "a hash was changed": (
        sql("ledger.db", "UPDATE nodes SET digest = zeroblob(32) WHERE level = 1 AND position = 2"),
        "state/ledger.db",
        REBUILD,
    ),
    "a hash too many": (sql("ledger.db", "INSERT INTO nodes VALUES (9, 9, zeroblob(32))"), "state/ledger.db", REBUILD),
    "no applied index": (sql("ledger.db", "DELETE FROM raft"), "state/ledger.db", REBUILD),
    "another version": (sql("ledger.db", "PRAGMA user_version = 9"), "state/ledger.db", REBUILD),
    "another table": (sql("ledger.db", "CREATE TABLE more (x)"), "state/ledger.db", REBUILD),
    "the ledger is gone": (lambda d: (d / "state/ledger.db").unlink(), "state/ledger.db", REBUILD),
    "the ledger is no database": (
        lambda d: (d / "state/ledger.db").write_bytes(b"x" * 9000),
        "state/ledger.db",
        REBUILD,
    ),
    "an applied index beyond the journal": (
        sql("ledger.db", "UPDATE raft SET applied_index = 99"),
        "state/raft.journal",
        NEW,
    ),
    "the journal is gone": (lambda d: (d / "state/raft.journal").unlink(), "state/raft.journal", NEW),
    "the journal is empty": (lambda d: (d / "state/raft.journal").write_bytes(b""), "state/raft.journal", NEW),
    "the journal's end is gone": (shorter_journal, "state/raft.journal", NEW),
    "a bit of the journal flipped": (flip("state/raft.journal", 0.4), "state/raft.journal", NEW),
    "the journal tells another history": (journal_of_another_history, "state/ledger.db", INQUIRY),
    "a signed root was changed": (
        sql("signer.db", "UPDATE checkpoints SET root = zeroblob(32) WHERE size = 9"),
        "state/signer.db",
        INQUIRY,
    ),
    "a signed size is missing": (sql("signer.db", "DELETE FROM checkpoints WHERE size = 9"), "state/signer.db", NEW),
    "a signed size that no tree has": (
        sql("signer.db", "UPDATE checkpoints SET size = -9 WHERE size = 9"),
        "state/signer.db",
        NEW,
    ),
    "a signature was changed": (
        sql(
            "signer.db",
            "UPDATE checkpoints SET log_line = (SELECT log_line FROM checkpoints WHERE size = 3) WHERE size = 4",
        ),
        "state/signer.db",
        NEW,
    ),
    "a time was changed": (
        sql("signer.db", "UPDATE checkpoints SET time_s = 5 WHERE size = 4"),
        "state/signer.db",
        NEW,
    ),
    "more was signed than is stored": (
        sql(
            "signer.db",
            "INSERT INTO checkpoints "
            "SELECT size + 16, root, time_s, log_line, cosignature_line, previous + 16 FROM checkpoints",
        ),
        "state/signer.db",
        NEW,
    ),
    "a signature is no text any more": (
        sql("signer.db", "UPDATE checkpoints SET cosignature_line = CAST(x'ff00fe' AS TEXT) WHERE size = 9"),
        "state/signer.db",
        NEW,
    ),
    "another node's signatures": (other_signer, "state/signer.db", NEW),
    "the signatures are gone": (lambda d: (d / "state/signer.db").unlink(), "state/signer.db", NEW),
    "another node's key": (
        lambda d: shutil.copy(d.parent / "node-2/keys/cosigner.pem", d / "keys/cosigner.pem"),
        "keys",
        "put back",
    ),
    "another node's certificate": (
        lambda d: shutil.copy(d.parent / "node-2/keys/tls.crt", d / "keys/tls.crt"),
        "keys",
        "put back",
    ),
    "a key that others may read": (lambda d: (d / "keys/note.pem").chmod(0o644), "keys", "mode 600"),
    "a state that others may write": (lambda d: (d / "state").chmod(0o777), "state", "mode 700"),
    "another genesis": (lambda d: (d / "genesis").write_bytes(b"\0"), "genesis", "copy"),
    "a damaged note": (
        sql("notes.db", "UPDATE notes SET note = 'x'"),
        "state/notes.db",
        "delete it",
    ),
    "an upload that is another file": (
        lambda d: ((d / "state/blobs").mkdir(), (d / "state/blobs" / ("ab" * 32)).write_bytes(b"x")),
        "state/blobs",
        "delete it",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_with_its_way_out_and_is_left_as_it_is(node: StoredNode, what: str):
    damage, part, remedy = DAMAGES[what]
    damage(node.directory)
    before = node.snapshot()
    found = problems(node)
    assert part in found
    assert remedy in found[part]
    assert node.snapshot() == before


def test_a_ledger_that_cannot_be_made_anew_is_not_said_to_be(node: StoredNode):
    (node.directory / "state/ledger.db").unlink()
    (node.directory / "state/raft.journal").unlink()
    assert "rebuild" not in problems(node)["state/ledger.db"]


def test_no_flipped_bit_of_any_database_or_journal_passes_unseen_if_it_says_anything(node: StoredNode):
    draw = random.Random(4)
    whole = node.contents()
    for name in ("ledger.db", "signer.db", "raft.journal"):
        path = node.directory / "state" / name
        raw = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(raw)
            damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            if not problems(node):
                assert node.contents() == whole  # a byte that nothing reads: free space, or the journal's torn tail
        path.write_bytes(raw)
    assert problems(node) == {}


def fsck(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "client.command", "node", "fsck", str(directory), *options]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_the_command_says_0_or_5_and_every_problem_in_json(node: StoredNode):
    done = fsck(node.directory)
    assert (done.returncode, done.stdout.split("\n")[0]) == (0, "node-1: sound")
    (node.directory / "state/ledger.db").unlink()
    done = fsck(node.directory, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["sound"]) == (5, False)
    assert [problem["what"] for problem in document["problems"]] == ["missing"]
    assert fsck(node.directory / "state").returncode == 2
