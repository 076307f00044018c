"""A node that cannot run safely does not start; its exit code says what to mend: 2 the settings, 5 the state."""

import io
import json
import logging
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ROOT
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from damage import with_flipped_bit
from nacl.exceptions import BadSignatureError

from node import logs, main
from node.config import load_config
from node.identity import load_identity
from node.init import init_cluster
from node.raft.journal_file import JournalFile
from node.signer import Signer, SignerName
from node.store import Store
from registry import merkle, signing
from registry.checkpoint import Checkpoint
from registry.note import sign

pytestmark = pytest.mark.long


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What run() logs; the test's own logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure = logs.configure
    monkeypatch.setattr(logs, "configure", lambda: configure(stream))
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    init_cluster(tmp_path / "ledger", nodes=2, origin="main.test")
    return tmp_path / "ledger" / "node-1"


def run(directory: Path, log: io.StringIO) -> tuple[int, str]:
    code = main.run(directory / "node.toml")
    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    return code, line["why"]


def test_no_room_on_the_disk_is_exit_74_and_no_verdict_on_the_state(
    directory: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(main, "START_BYTES_MIN", 2**80)
    assert main.run(directory / "node.toml") == 74
    assert "the disk is full" in log.getvalue()


def test_a_missing_settings_file_is_exit_2(tmp_path: Path, log: io.StringIO):
    code, why = run(tmp_path, log)
    assert code == 2
    assert "node.toml" in why


def test_a_library_that_takes_signatures_of_small_order_is_exit_2(
    directory: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signing, "is_for_everybody", lambda _point: False)
    monkeypatch.setattr(signing, "crypto_sign_open", without_a_look_at_points)
    code, why = run(directory, log)
    assert code == 2
    assert "R of small order" in why
    assert "PyNaCl" in why
    assert "S not below the order" not in why


def without_a_look_at_points(signed: bytes, key: bytes) -> None:
    """What OpenSSL holds for a signature, as PyNaCl says it."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed[:64], signed[64:])
    except InvalidSignature as error:
        raise BadSignatureError from error


def test_a_key_of_another_node_is_exit_2(directory: Path, log: io.StringIO):
    shutil.copy(directory.parent / "node-2/keys/cosigner.pem", directory / "keys/cosigner.pem")
    code, why = run(directory, log)
    assert code == 2
    assert why.startswith("the cosigner key is not the one that the policy lists for node-1: in node.toml, `name` is ")
    assert "or `[keys] cosigner` leads to another node's file" in why


def test_a_name_that_is_no_member_yet_is_exit_4(directory: Path, log: io.StringIO):
    settings = directory / "node.toml"
    settings.write_text(settings.read_text().replace('name = "node-1"', 'name = "node-9"'))
    code, why = run(directory, log)
    assert code == 4
    assert "'node-9' is not a member" in why


def test_a_flipped_bit_in_the_ledger_is_exit_5(directory: Path, log: io.StringIO):
    with sqlite3.connect(directory / "state/ledger.db") as connection:
        (entry,) = connection.execute("SELECT entry FROM entries").fetchone()
        connection.execute("UPDATE entries SET entry = ?", (with_flipped_bit(entry),))
    connection.close()
    code, why = run(directory, log)
    assert code == 5
    assert "entry 0" in why


def test_a_ledger_of_another_genesis_is_exit_5(directory: Path, tmp_path: Path, log: io.StringIO):
    init_cluster(tmp_path / "other", nodes=2, origin="main.test")
    shutil.copy(tmp_path / "other/node-1/genesis", directory / "genesis")
    code, why = run(directory, log)
    assert code == 5
    assert "not the genesis" in why


@pytest.mark.parametrize("name", ["ledger.db", "signer.db"])
def test_missing_state_is_exit_5_and_is_not_made(directory: Path, log: io.StringIO, name: str):
    (directory / "state" / name).unlink()
    code, why = run(directory, log)
    assert code == 5
    assert name in why
    assert not (directory / "state" / name).exists()


def point_state_at(directory: Path, path: Path) -> None:
    settings = directory / "node.toml"
    settings.write_text(settings.read_text().replace('state_directory = "state"', f'state_directory = "{path}"'))


@pytest.mark.parametrize(
    ("place", "wrong"), [("absent", "missing"), ("empty", "holds no state"), ("file", "Not a dir")]
)
def test_a_state_directory_that_is_no_nodes_is_exit_2_and_nothing_is_made(
    directory: Path, log: io.StringIO, place: str, wrong: str
):
    (directory / "empty").mkdir(mode=0o700)
    (directory / "file").touch()
    point_state_at(directory, directory / place)
    code, why = run(directory, log)
    assert code == 2
    assert why.startswith(f"{directory / place}: {wrong}")
    assert "`state_directory` in node.toml may be wrong, or its volume not mounted" in why
    assert not (directory / "absent").exists()
    assert not list((directory / "empty").iterdir())


@pytest.mark.parametrize("name", ["ledger.db", "signer.db"])
def test_a_database_that_the_file_system_does_not_give_is_exit_2(directory: Path, log: io.StringIO, name: str):
    (directory / "state" / name).unlink()
    (directory / "state" / name).mkdir()
    code, why = run(directory, log)
    assert code == 2
    assert why.startswith(f"{directory / 'state' / name}: unable to open database file; `state_directory`")


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A node that waits for no other before it opens its journal."""
    init_cluster(tmp_path / "alone", nodes=1, origin="main.test")
    return tmp_path / "alone" / "node-1"


def test_a_journal_that_another_process_holds_is_exit_2(alone: Path):
    holder = JournalFile.open(alone / "state/raft.journal")
    done = run_as_process(alone)
    holder.close()
    assert done.returncode == 2, done.stderr
    assert b"another process runs this node's state" in done.stderr
    assert b"inconsistent" not in done.stderr


def test_a_journal_that_is_damaged_is_exit_5(alone: Path):
    (alone / "state/raft.journal").write_bytes(b"not a journal, and long enough to be one" * 10)
    done = run_as_process(alone)
    assert done.returncode == 5, done.stderr
    assert b"raft.journal" in done.stderr


def test_a_signature_on_another_tree_is_exit_5(directory: Path, log: io.StringIO):
    config = load_config(directory / "node.toml")
    name = SignerName(origin="main.test", member="node-1")
    signer = Signer(directory / "state/signer.db", name=name, identity=load_identity(config.keys), clock=lambda: 1.0)
    forged = merkle.leaf_hash(b"forged")
    signer.sign_up_to(1, lambda _level, _position: forged)
    signer.close()
    code, why = run(directory, log)
    assert code == 5
    assert "not the one this node signed" in why


def run_as_process(directory: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "node.main", str(directory / "node.toml")],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_a_tls_key_that_is_not_the_certificates_is_exit_2(directory: Path):
    shutil.copy(directory.parent / "node-2/keys/tls.pem", directory / "keys/tls.pem")
    done = run_as_process(directory)
    assert done.returncode == 2, done.stderr
    assert b"[keys]" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_port_that_is_taken_is_exit_2(directory: Path):
    config = load_config(directory / "node.toml")
    with socket.create_server((config.api.host, config.api.port)):
        done = run_as_process(directory)
    assert done.returncode == 2, done.stderr
    assert b"cannot listen" in done.stderr
    assert b"Traceback" not in done.stderr


def sign_up_to(directory: Path, size: int) -> None:
    """Let a node of one entry sign larger trees, as if its ledger had been cut."""
    config = load_config(directory / "node.toml")
    name = SignerName(origin="main.test", member="node-1")
    store = Store(config.state_directory / "ledger.db")
    nodes = {(0, 0): store.read_node(0, 0)}
    store.close()
    frontier = merkle.Frontier(1, lambda level, position: nodes[level, position])
    for index in range(1, size):
        nodes |= {(n.level, n.position): n.digest for n in frontier.append(merkle.leaf_hash(b"%d" % index))}
    identity = load_identity(config.keys)
    signer = Signer(config.state_directory / "signer.db", name=name, identity=identity, clock=lambda: 1.0)
    signer.sign_up_to(size, lambda level, position: nodes[level, position])
    signer.close()


def test_a_ledger_that_lost_what_was_signed_and_no_journal_has_is_exit_5(directory: Path, log: io.StringIO):
    sign_up_to(directory, 3)
    code, why = run(directory, log)
    assert code == 5
    assert "signed 3 entries, its ledger holds 1" in why
    assert "new member" in why


def test_signatures_of_another_node_are_exit_5(directory: Path, log: io.StringIO):
    sign_up_to(directory, 1)
    key = Ed25519PrivateKey.generate()
    with sqlite3.connect(directory / "state/signer.db") as connection:
        (root,) = connection.execute("SELECT root FROM checkpoints").fetchone()
        text = str(Checkpoint(origin="main.test", size=1, root=root))
        line = str(sign(text, name="main.test", private_key=key))
        connection.execute("UPDATE checkpoints SET log_line = ?", (line,))
    connection.close()
    code, why = run(directory, log)
    assert code == 5
    assert "not signed by this node's keys" in why
    assert "wmreg node fsck" in why


def test_a_state_directory_that_others_may_write_to_is_exit_2(directory: Path, log: io.StringIO):
    (directory / "state").chmod(0o770)
    code, why = run(directory, log)
    assert code == 2
    assert "chmod 700" in why


def test_tables_of_another_version_are_exit_5(directory: Path, log: io.StringIO):
    with sqlite3.connect(directory / "state/ledger.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    code, why = run(directory, log)
    assert code == 5
    assert "tables of version 9" in why


@pytest.mark.parametrize("key", ["file_directory", "controls_directory"])
def test_a_directory_of_the_settings_that_is_not_there_is_exit_2(directory: Path, log: io.StringIO, key: str):
    settings = directory / "node.toml"
    settings.write_text(settings.read_text().replace(f'{key} = ""', f'{key} = "/nowhere/at/all"'))
    code, why = run(directory, log)
    assert code == 2
    assert f"{key}: /nowhere/at/all: no such directory" in why
