"""Promises: what a training loop of the owner's own leaves is a bundle: measured, published, and no key is lost."""

import json

import pytest
import torch

import wm
from client.keystore import load_signing_key, load_watermark_key
from registry.watermark_key import verify_binding
from wm.architectures import Architecture, build

pytestmark = pytest.mark.long

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
SETTINGS = wm.EmbedSettings(
    triggers=100, hidden=32, trigger_batch=20, tuning_regularizer="none", head_steps=160, feature_noise=0
)


def make_key(wmreg, ledger, alice, directory, *words):
    who = ["--signing-key", alice.key, "--policy", ledger.policy_path]
    return wmreg("keygen", "--watermark-key", directory, *who, *words)


def test_a_mark_of_the_owners_own_loop_is_measured_and_published(wmreg, ledger, alice, tmp_path):
    directory = tmp_path / "mine"
    made = make_key(wmreg, ledger, alice, directory, "--json")
    binding = load_watermark_key(directory / "watermark_key.json").binding
    model = build(ARCHITECTURE, seed=1)
    mark = wm.Mark(
        model, binding.watermark_key, taps=["layer1"], input_spec=(3, 32, 32), architecture=ARCHITECTURE,
        settings=SETTINGS,
    )  # fmt: skip
    optimizer = torch.optim.SGD([*model.parameters(), *mark.parameters()], lr=1e-3)
    mark.loss(model).backward()
    optimizer.step()
    mark.finish(model)
    mark.save(directory, model)

    measured = wmreg("measure", directory / "model.safetensors", "--evidence", directory, "--json")
    published = wmreg("publish", directory, "--signing-key", alice.key, "--policy", ledger.policy_path)

    assert made.document["origin"] == json.loads((directory / "watermark_key.json").read_text())["origin"]
    verify_binding(
        binding, origin=made.document["origin"], owner=load_signing_key(alice.key).public_key().public_bytes_raw()
    )
    assert measured.document["matched"] == mark.matched(model) >= 90
    assert published.code == 0


def test_a_watermark_key_is_not_overwritten(wmreg, ledger, alice, tmp_path):
    assert make_key(wmreg, ledger, alice, tmp_path / "mine").code == 0
    before = (tmp_path / "mine" / "watermark_key.json").read_bytes()

    again = make_key(wmreg, ledger, alice, tmp_path / "mine")

    assert (again.code, "not overwritten" in again.err) == (2, True)
    assert (tmp_path / "mine" / "watermark_key.json").read_bytes() == before


def test_a_watermark_key_is_for_one_ledger_and_in_one_place(wmreg, ledger, alice, tmp_path):
    without = wmreg("keygen", "--watermark-key", tmp_path / "mine", "--signing-key", alice.key)
    both = make_key(wmreg, ledger, alice, tmp_path / "mine", "--out", tmp_path / "other")

    assert (without.code, "--policy" in without.err) == (2, True)
    assert (both.code, "--out" in both.err) == (2, True)
    assert not (tmp_path / "mine").exists()
