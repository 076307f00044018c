"""Promises: a killed command goes on to the same files, nobody else's does, and nothing of it stays at the end."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from client.errors import InputError, InvalidError
from client.keystore import create_signing_key
from client.marking.savepoints import Savepoints, kept_in
from wm.evidence import load_evidence

ORIGIN = "test.example/ledger"
WAIT_S_MAX = 600
QUICK = ["--fraction", 0.06, "--device", "cpu", "--savepoint-s", 1]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """One count of threads here and in other processes, since the bits depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


def killed_when(reached, *words):
    """Run a command in a process of its own and kill it when something is true."""
    command = [sys.executable, "-m", "client.command", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ.copy())
    deadline_s = time.monotonic() + WAIT_S_MAX
    try:
        while not reached():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
            assert process.poll() is None, process.stdout.read().decode()
            assert time.monotonic() < deadline_s
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def steps_in(path, name):
    """How far a state is: the number that a tensor holds, or how many numbers it has."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as state:
        value = state.get_tensor(name)
    return int(value) if value.ndim == 0 else len(value)


def test_without_a_directory_nothing_is_kept(tmp_path):
    with kept_in(None, every_s=0, out=tmp_path / "out") as savepoints:
        assert savepoints is None


def test_what_is_kept_is_secret_and_goes_away_at_the_end(tmp_path):
    private_key = create_signing_key(tmp_path / "key.pem")
    place = tmp_path / "state"
    with kept_in(place, every_s=0, out=tmp_path / "out") as savepoints:
        first = savepoints.watermark_key(0, private_key, origin=ORIGIN)
        savepoint = savepoints.embedding(0)
        savepoint.begin({})
        savepoint.write({"head": torch.ones(1)})
        (place / ".embedding-1.safetensors.partial").write_bytes(b"half")
        assert savepoints.watermark_key(0, private_key, origin=ORIGIN) == first
        assert savepoints.watermark_key(1, private_key, origin=ORIGIN) != first
        assert place.stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in place.iterdir() if ".partial" not in path.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem"]


def test_a_key_of_another_owner_or_ledger_is_not_gone_on_with(tmp_path):
    alice, eve = (create_signing_key(tmp_path / f"{name}.pem") for name in ("alice", "eve"))
    (tmp_path / "state").mkdir()
    savepoints = Savepoints(tmp_path / "state", 0)
    savepoints.watermark_key(0, alice, origin=ORIGIN)
    for private_key, origin in ((eve, ORIGIN), (alice, "other.example/ledger")):
        with pytest.raises(InvalidError, match="another signing key or ledger") as refused:
            savepoints.watermark_key(0, private_key, origin=origin)
        assert refused.value.code == "mismatch"


@pytest.mark.parametrize(("code", "stays"), [("mismatch", True), ("base_passes", False), ("diverged", False)])
def test_an_error_keeps_the_state_unless_going_on_would_end_there_again(tmp_path, code, stays):
    def fail():
        with kept_in(tmp_path / "state", every_s=0, out=tmp_path / "out") as savepoints:
            savepoints.training().write({"weights": torch.ones(1)})
            raise InvalidError("no", code=code)

    with pytest.raises(InvalidError, match="no"):
        fail()
    assert (tmp_path / "state").exists() is stays


def test_one_command_at_a_time_uses_a_directory(tmp_path):
    (tmp_path / "state").mkdir()
    descriptor = os.open(tmp_path / "state", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="in use"), kept_in(tmp_path / "state", every_s=0, out=tmp_path / "out"):
        pass
    os.close(descriptor)
    with kept_in(tmp_path / "state", every_s=0, out=tmp_path / "out") as savepoints:
        assert savepoints is not None


@pytest.mark.parametrize(
    ("place", "needle"), [("home", "holds notes.txt"), ("out.safetensors", "lies in --out"), ("no/state", "no such")]
)
def test_a_directory_that_is_for_something_else_is_refused_and_left_alone(wmreg, tmp_path, place, needle):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")
    refused = wmreg("train", "--out", tmp_path / "out.safetensors", "--savepoint", tmp_path / place)
    assert refused.code == 2
    assert needle in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert (tmp_path / "home" / "notes.txt").read_text() == "mine"


def test_a_task_that_cannot_be_done_leaves_no_savepoints(wmreg, tmp_path):
    refused = wmreg("train", "--arch", "nonet", "--out", tmp_path / "out", "--savepoint", tmp_path / "state")
    assert refused.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_file(wmreg, tmp_path):
    task = ["train", "--epochs", 12, *QUICK, "--savepoint-s", 0]
    kept = tmp_path / "state" / "training.safetensors"
    killed_when(
        lambda: steps_in(kept, "losses") >= 4,
        *task, "--out", tmp_path / "killed", "--savepoint", tmp_path / "state",
    )  # fmt: skip
    assert 4 <= steps_in(kept, "losses") < 12

    refused = wmreg(*task, "--seed", 2, "--out", tmp_path / "other", "--savepoint", tmp_path / "state")
    resumed = wmreg(*task, "--out", tmp_path / "resumed", "--savepoint", tmp_path / "state")
    whole = wmreg(*task, "--out", tmp_path / "whole")

    assert refused.code == 1
    assert "savepoint of another training" in refused.err
    assert (resumed.code, whole.code) == (0, 0)
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_embedding_goes_on_to_the_same_files_and_no_other_command_does(wmreg, ledger, alice, bob, tmp_path):
    def embed(out, state, *more, key=alice.key):
        who = ["--signing-key", key, "--policy", ledger.policy_path]
        return ["embed", "--epochs", 2, *QUICK, *who, "--out", tmp_path / out, "--savepoint", tmp_path / state, *more]

    kept = tmp_path / "state" / "embedding-0.safetensors"
    killed_when(lambda: steps_in(kept, "mark.history.done.steps") >= 13, *embed("killed", "state"))
    assert 13 <= steps_in(kept, "mark.history.done.steps") < 60
    assert not (tmp_path / "killed").exists()
    for state in ("copy", "flipped", "short"):
        shutil.copytree(tmp_path / "state", tmp_path / state)
    (tmp_path / "begun").mkdir(mode=0o700)  # what a whole run begins with, to have the same key
    shutil.copy(tmp_path / "state" / "watermark_key-0.json", tmp_path / "begun")
    damage(tmp_path / "flipped" / kept.name, cut=0)
    damage(tmp_path / "short" / kept.name, cut=1)

    resumed, whole = wmreg(*embed("resumed", "state")), wmreg(*embed("whole", "begun"))

    assert (resumed.code, whole.code) == (0, 0)
    assert not (tmp_path / "state").exists()
    assert same_bundles(tmp_path / "resumed", tmp_path / "whole")
    for words, code in [
        (embed("no", "copy", "--seed", 2), "mismatch"),
        (embed("no", "copy", "--precision", "bfloat16"), "mismatch"),
        (embed("no", "copy", key=bob.key), "mismatch"),
        (embed("no", "flipped"), "malformed"),
        (embed("no", "short"), "malformed"),
    ]:
        refused = wmreg(*words, "--json")
        assert (refused.code, refused.document["error"]["code"]) == (1, code)
        assert not (tmp_path / "no").exists()
        assert (tmp_path / "copy" / kept.name).exists()


def damage(path: Path, *, cut: int) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 if not cut else 0
    path.write_bytes(content[: len(content) - cut])


def same_bundles(first: Path, other: Path) -> bool:
    """Whether two bundles are the same but for the evidence's salt, which is random, and for seconds."""
    (ours, theirs), reports = (load_evidence(it / "evidence.safetensors") for it in (first, other)), []
    for directory in (first, other):
        report = json.loads((directory / "report.json").read_text())
        report["embedding"].pop("seconds")
        report.pop("evidence_sha256")
        reports.append(report)
    same_heads = all(torch.equal(value, theirs.head.tensors()[name]) for name, value in ours.head.tensors().items())
    same_models = (first / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    same_keys = (first / "watermark_key.json").read_bytes() == (other / "watermark_key.json").read_bytes()
    return same_heads and same_models and same_keys and ours.info == theirs.info and reports[0] == reports[1]
