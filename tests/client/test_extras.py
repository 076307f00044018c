"""Promises: what is not installed is told in one line with the extra that has it, and nothing is claimed unseen."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from client import extras
from client.errors import InvalidError
from client.extras import NotInstalledError
from client.likeness import check_like_marked
from client.outline import difference, read_outline

pytestmark = pytest.mark.long


def test_an_import_of_an_extra_is_explained_and_any_other_is_not():
    told = extras.explained(ModuleNotFoundError("no", name="torch.nn"))

    assert str(told) == "this needs torch, which is not installed; run: pip install 'wmreg[wm]'"
    assert "wmreg[node]" in str(extras.explained(ModuleNotFoundError("no", name="pysyncobj")))
    assert extras.explained(ModuleNotFoundError("no", name="nothing_of_ours")) is None
    assert extras.explained(ImportError("a broken file", name="torch")) is None


def test_a_node_requires_what_measures_too(monkeypatch):
    extras.require("node")
    monkeypatch.setitem(extras.EXTRAS, "wm", ("absent_package",))

    with pytest.raises(NotInstalledError, match=r"absent_package.*wmreg\[node\]"):
        extras.require("node")
    assert not extras.is_installed("wm")
    assert extras.is_installed("node")


@pytest.fixture
def no_torch(monkeypatch):
    """A client without the extra wm, as far as it can tell."""
    monkeypatch.setitem(extras.EXTRAS, "wm", ("absent_package",))


def changed(path, name, tensor):
    """Another file with one tensor changed."""
    tensors = safetensors.numpy.load_file(path) | {name: tensor}
    other = path.with_name("suspect.safetensors")
    other.write_bytes(safetensors.numpy.save({key: value for key, value in tensors.items() if value is not None}))
    return other


LIKE = np.full((64, 3, 7, 7), 0.5, dtype=np.float32)


@pytest.mark.usefixtures("no_torch")
def test_without_torch_the_marked_model_and_what_is_like_it_are_claimed(ledger, alice, publish, claim, good):
    publish(alice)
    ledger.voting = (good, 3)

    assert claim(alice, alice.model, "--stragglers-s", "0").code == 0
    assert claim(alice, changed(alice.model, "conv1.weight", LIKE), "--stragglers-s", "0").code == 0


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(
    ("change", "code", "needle"),
    [
        (("conv1.weight", np.full((64, 3, 7, 7), np.nan, dtype=np.float32)), 1, "not finite"),
        (("conv1.weight", LIKE.astype(np.float16)), 2, "F16 of shape"),
        (("conv1.weight", LIKE[:32]), 2, "pip install 'wmreg[wm]'"),
        (("conv1.weight", None), 2, "lacks the tensor 'conv1.weight'"),
        (("more", LIKE[:1]), 2, "has a tensor 'more'"),
    ],
)
def test_without_torch_a_file_that_is_not_like_it_reveals_no_key(publish, claim, alice, change, code, needle):
    publish(alice)

    answer = claim(alice, changed(alice.model, *change))

    assert answer.code == code
    assert needle in answer.err
    assert "no key was revealed" in answer.err
    assert answer.err.count("\n") == 1
    assert not (alice.directory / "claims").exists() or not [*(alice.directory / "claims").iterdir()]


@pytest.mark.usefixtures("no_torch")
def test_without_torch_and_the_marked_model_only_that_very_file_is_claimed(alice, publish, claim):
    publish(alice)
    moved = alice.model.rename(alice.model.with_name("elsewhere.safetensors"))

    suspect = changed(moved, "conv1.weight", LIKE)
    assert "is not there to compare" in claim(alice, suspect).err
    alice.model.write_bytes(b"damaged")
    assert "to compare it with, is no file of weights" in claim(alice, suspect).err
    alice.model.unlink()
    assert claim(alice, moved, "--no-wait").code == 0


def test_an_infinity_anywhere_is_found(alice, tmp_path):
    large = np.zeros(700_001, dtype=np.float32)
    marked, suspect = tmp_path / "marked", tmp_path / "suspect"
    bundle = alice.bundle
    bundle.model.write_bytes(safetensors.numpy.save({"w": large, "n": np.zeros(3, dtype=np.int64)}))
    large[-1] = -np.inf
    suspect.write_bytes(safetensors.numpy.save({"w": large, "n": np.full(3, -1)}))
    assert not marked.exists()

    with pytest.raises(InvalidError, match="'w' has values that are not finite"):
        check_like_marked(suspect, b"", bundle.load_evidence(), bundle)

    large[-1] = np.finfo(np.float32).max
    suspect.write_bytes(safetensors.numpy.save({"w": large, "n": np.full(3, -1)}))
    check_like_marked(suspect, b"", bundle.load_evidence(), bundle)


def test_outlines_differ_by_name_type_and_shape(tmp_path):
    def outline(**tensors):
        path = tmp_path / "file"
        path.write_bytes(safetensors.numpy.save(tensors))
        return read_outline(path)

    one = outline(a=np.zeros(2, dtype=np.float32))
    assert difference(one, outline(a=np.ones(2, dtype=np.float32))) is None
    assert "F64" in difference(one, outline(a=np.zeros(2)))
    assert "[1, 2]" in difference(one, outline(a=np.zeros((1, 2), dtype=np.float32)))
    assert "'b'" in difference(one, outline(b=np.zeros(2, dtype=np.float32), a=np.zeros(2, dtype=np.float32)))


@pytest.mark.usefixtures("alice", "stolen")
@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [
        ("torch", ["train", "--out", "{tmp}/w"], "wm"),
        ("torch", ["measure", "{tmp}/stolen.safetensors", "--evidence", "{tmp}/alice"], "wm"),
        ("torch", ["attack", "{tmp}/alice", "--attack", "all", "--data", "digits"], "wm"),
        ("torch", ["embed", "--out", "{tmp}/new", "--signing-key", "{tmp}/alice.pem"], "wm"),
        ("pysyncobj", ["cluster", "init", "{tmp}/new", "--origin", "example.org/x"], "node"),
        ("pysyncobj", ["node", "fsck", "{tmp}/node"], "node"),
    ],
)
def test_a_verb_that_needs_more_says_what_to_install(ledger, tmp_path, missing, words, extra):
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "node.toml").touch()
    before = {path.name for path in tmp_path.rglob("*")}
    code = f"import sys; sys.modules[{missing!r}] = None; from client.command import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, *(word.format(tmp=tmp_path) for word in words), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"WMREG_POLICY": str(ledger.policy_path), "WMREG_HOME": str(tmp_path / "home")},
    )

    told = json.loads(done.stdout)["error"]
    assert (done.returncode, done.stderr, told["code"]) == (2, "", "not_installed")
    assert told["message"] == f"this needs {missing}, which is not installed; run: pip install 'wmreg[{extra}]'"
    assert {path.name for path in tmp_path.rglob("*")} == before
