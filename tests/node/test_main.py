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

from node import logs, main
from node.config import load_config
from node.identity import load_identity
from node.init import init_cluster
from node.signer import Signer, SignerName
from registry import merkle


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


def test_a_missing_settings_file_is_exit_2(tmp_path: Path, log: io.StringIO):
    code, why = run(tmp_path, log)
    assert code == 2
    assert "node.toml" in why


def test_a_key_of_another_node_is_exit_2(directory: Path, log: io.StringIO):
    shutil.copy(directory.parent / "node-2/keys/cosigner.pem", directory / "keys/cosigner.pem")
    code, why = run(directory, log)
    assert (code, why) == (2, "the cosigner key is not the one that the genesis lists for node-1")


def test_a_name_that_is_no_member_yet_is_exit_4(directory: Path, log: io.StringIO):
    settings = directory / "node.toml"
    settings.write_text(settings.read_text().replace('name = "node-1"', 'name = "node-9"'))
    code, why = run(directory, log)
    assert code == 4
    assert "'node-9' is not a member" in why


def test_a_flipped_bit_in_the_ledger_is_exit_5(directory: Path, log: io.StringIO):
    with sqlite3.connect(directory / "state/ledger.db") as connection:
        (entry,) = connection.execute("SELECT entry FROM entries").fetchone()
        connection.execute("UPDATE entries SET entry = ?", (entry[:-1] + bytes([entry[-1] ^ 1]),))
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
