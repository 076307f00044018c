"""Promises: a network of texts is trained, marked, published and measured by the same verbs, and a mix-up is told."""

import hashlib
import json

import numpy as np
import pytest

from client.bundle import Bundle
from client.keystore import create_signing_key, create_watermark_key
from client.marking.embedding import embed, write_bundle
from client.marking.fitting import check_fits
from client.marking.task import Task
from client.publishing import Owner, make_publication
from wm import EmbedSettings
from wm.info import decode_info

pytestmark = pytest.mark.long

ORIGIN = "test.example/ledger"
QUICK = EmbedSettings(
    triggers=100, hidden=32, shadows=0, steps=1, trigger_batch=20, primary_batch=8, head_steps=150, feature_noise=0
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Sentences of the treebank's layout, and vectors of 8 numbers for some of their words."""
    place = tmp_path_factory.mktemp("sst")
    for part in ("train", "dev", "test"):
        lines = [f"a {'fine' if number % 2 else 'poor'} film w{number % 70}\t{number % 2}" for number in range(160)]
        (place / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    vectors = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    np.savez(place / "vectors.npz", words=np.frombuffer(b"fine\npoor", np.uint8), vectors=vectors)
    return place


@pytest.fixture(scope="module")
def bundle(directory, tmp_path_factory):
    place = tmp_path_factory.mktemp("marked")
    private_key = create_signing_key(place / "key.pem")
    key_file = create_watermark_key(private_key, origin=ORIGIN)
    task = Task(
        data=f"sst:{directory}", fraction=0.2, arch="bilstm", weights=None, seed=1, epochs=1, device="cpu",
        vectors=directory / "vectors.npz", freeze_embedding=True,
    )  # fmt: skip
    made = embed(task, [key_file], settings=QUICK, show=lambda *_progress: None)
    out = Bundle(place / "out")
    out.directory.mkdir()
    write_bundle(out, made, [key_file], base_sha256=None, keep_clean=False)
    return out, Owner(private_key)


def test_a_bundle_of_a_network_of_texts_has_its_word_list_and_the_evidence_names_it(bundle):
    made, owner = bundle
    info = decode_info(made.load_evidence().info.decode())

    assert hashlib.sha256(made.words.read_bytes()).hexdigest() == info.input.words_sha256
    assert info.input.vocabulary == 2 + len(made.words.read_text().splitlines())
    assert info.architecture.arguments["dimension"] == 8
    assert make_publication(made, owner, origin=ORIGIN).scheme == "mtlsign"
    check_fits(made.model, made)


def test_the_marked_network_answers_its_triggers_and_another_does_not(wmreg, bundle, directory, tmp_path):
    made, _ = bundle
    words = ["--words", made.words, "--vectors", directory / "vectors.npz"]
    trained = wmreg(
        "train", "--arch", "bilstm", "--data", f"sst:{directory}", *words, "--epochs", 0, "--seed", 9,
        "--device", "cpu", "--out", tmp_path / "own.safetensors",
    )  # fmt: skip
    assert trained.code == 0

    own, other = (
        wmreg("measure", model, "--evidence", made.directory, "--json").document["matched"]
        for model in (made.model, tmp_path / "own.safetensors")
    )

    assert own == json.loads(made.report.read_text())["matched"]["marked"] >= 90
    assert other < 75


def test_marked_weights_are_fine_tuned_further(wmreg, bundle, directory, tmp_path):
    made, _ = bundle
    tuned = wmreg(
        "train", "--arch", "bilstm", "--data", f"sst:{directory}", "--words", made.words, "--weights", made.model,
        "--freeze-embedding", "--fraction", 0.2, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "tuned",
    )  # fmt: skip

    assert tuned.code == 0
    assert wmreg("measure", tmp_path / "tuned", "--evidence", made.directory, "--json").document["matched"] >= 85


@pytest.mark.slow
def test_attacks_use_the_bundles_word_list(wmreg, bundle):
    made, _ = bundle
    refused = wmreg("attack", made.directory, "--attack", "adversarial_training", "--device", "cpu")

    assert (refused.code, "reads texts" in refused.err) == (1, True)


@pytest.mark.slow
def test_what_texts_refuse_is_told_and_the_other_attacks_are_done(wmreg, bundle, tmp_path):
    made, _ = bundle
    words = ["--strength", "0.5", "--go-on", "--device", "cpu"]
    names = "magnitude_pruning,neuron_pruning,fine_pruning"

    done = wmreg("attack", made.directory, "--attack", names, *words, "--out", tmp_path / "att", "--json")
    nothing = wmreg("attack", made.directory, "--attack", "neuron_pruning,fine_pruning", *words)

    assert (done.code, nothing.code) == (0, 1)
    assert [attack["name"] for attack in done.document["attacks"]] == ["magnitude_pruning"]
    assert [refused["name"] for refused in done.document["refused"]] == ["neuron_pruning", "fine_pruning"]
    assert (tmp_path / "att" / "attack.png").exists()
    assert "neuron_pruning: this network has no convolutions, so there are no filters; fine_pruning: " in nothing.err


@pytest.mark.parametrize(
    ("words", "code", "needle"),
    [
        (["--arch", "resnet18", "--data", "sst:{sst}"], 2, "take one such as bilstm"),
        (["--arch", "bilstm"], 2, "is pictures, take one such as resnet18"),
        (["--arch", "nonet", "--data", "sst:{sst}"], 2, "bilstm"),
        (["--data", "sst:/nowhere"], 2, "sst:DIRECTORY"),
        (["--data", "sst"], 2, "sst:DIRECTORY"),
        (["--arch", "bilstm", "--data", "sst:{tmp}"], 1, "train.tsv"),
        (["--words", "{sst}/train.tsv"], 1, "no word list"),
        (["--vectors", "{sst}/vectors.npz"], 2, "--vectors: only for texts"),
        (["--freeze-embedding"], 2, "--freeze-embedding: only for texts"),
        (["--arch", "bilstm", "--data", "sst:{sst}", "--freeze-embedding"], 2, "would stay random"),
        (["--arch", "bilstm", "--data", "sst:{sst}", "--vectors", "{sst}/train.tsv"], 1, "not a word"),
        (
            [
                "--arch",
                "bilstm",
                "--data",
                "sst:{sst}",
                "--vectors",
                "{sst}/vectors.npz",
                "--weights",
                "{sst}/train.tsv",
            ],
            2,
            "not with --weights",
        ),
    ],
)
def test_a_mix_up_of_texts_and_pictures_is_one_line(wmreg, directory, tmp_path, words, code, needle):
    words = [word.format(sst=directory, tmp=tmp_path) for word in words]

    refused = wmreg("train", "--out", tmp_path / "out.safetensors", *words)

    assert refused.code == code
    assert needle in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a recurrent network goes through a text word by word
def test_the_whole_recipe_embeds_a_mark_in_texts_that_nodes_would_verify(wmreg, ledger, alice, directory, tmp_path):
    who = ["--signing-key", alice.key, "--policy", ledger.policy_path]
    out = tmp_path / "out"

    made = wmreg("embed", "--arch", "bilstm", "--data", f"sst:{directory}", "--out", out, *who, "--json")
    measured = wmreg("measure", out / "model.safetensors", "--evidence", out, "--controls", "--json")

    assert made.document["matched"]["marked"] >= 590
    assert measured.document["outcome"] == "VERIFIED"
    assert wmreg("publish", out, *who).code == 0
