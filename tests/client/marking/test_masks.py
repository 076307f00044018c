"""Promises: what finds objects is trained, marked, measured and attacked by the same verbs, or told why not."""

import json
from pathlib import Path

import pytest

from client.bundle import Bundle
from client.keystore import create_signing_key, create_watermark_key
from client.marking.embedding import embed, write_bundle
from client.marking.fitting import check_fits
from client.marking.models import FINE_TUNING, MASKS_FROM_SCRATCH, schedule_of
from client.marking.task import Task, measured_by
from client.publishing import Owner, make_publication
from client.verbs.attack import _text
from wm import EmbedSettings
from wm.data import digits
from wm.datasets.shapes import shapes

pytestmark = pytest.mark.long

ORIGIN = "test.example/ledger"
ARCH, SIDE = "maskrcnn_resnet18_fpn", 72
QUICK = EmbedSettings(
    triggers=100, hidden=32, shadows=0, steps=1, trigger_batch=20, primary_batch=2, head_steps=150, feature_noise=0
)


def task(**changes) -> Task:
    usual = {
        "data": "shapes:20",
        "fraction": 0.2,
        "arch": ARCH,
        "weights": None,
        "seed": 1,
        "epochs": 1,
        "device": "cpu",
    }
    return Task(**(usual | changes))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    place = tmp_path_factory.mktemp("masks")
    private_key = create_signing_key(place / "key.pem")
    key_file = create_watermark_key(private_key, origin=ORIGIN)
    made = embed(task(image_size=SIDE), [key_file], settings=QUICK, show=lambda *_progress: None)
    out = Bundle(place / "out")
    out.directory.mkdir()
    write_bundle(out, made, [key_file], base_sha256=None, keep_clean=False)
    return out, Owner(private_key)


def test_a_bundle_of_a_network_that_finds_objects_can_be_published_and_tells_its_mask_map(bundle):
    made, owner = bundle
    report = json.loads(made.report.read_text())

    assert make_publication(made, owner, origin=ORIGIN).scheme == "mtlsign"
    check_fits(made.model, made)
    assert measured_by(report) == ("mask_map", report["test_mask_map"])
    assert set(report["test_mask_map"]) == {"clean", "marked"}
    assert "test_accuracy" not in report
    assert (report["image_size"], report["data"]) == (SIDE, "shapes:20")
    assert made.plot.read_bytes().startswith(b"\x89PNG")


def test_the_marked_network_answers_its_triggers_and_another_does_not(wmreg, bundle, tmp_path):
    made, _ = bundle
    trained = wmreg(
        "train", "--arch", ARCH, "--data", "shapes:20", "--image-size", SIDE, "--epochs", 0, "--seed", 9,
        "--device", "cpu", "--out", tmp_path / "own.safetensors",
    )  # fmt: skip

    marked = wmreg("measure", made.model, "--evidence", made.directory, "--json")
    other = wmreg("measure", tmp_path / "own.safetensors", "--evidence", made.directory, "--json")

    assert trained.code == 0
    assert "mask mAP" in trained.out
    assert "accuracy" not in trained.out
    assert marked.document["matched"] >= 90
    assert other.document["matched"] <= 75


@pytest.mark.slow
def test_attacks_take_the_size_of_the_pictures_from_the_evidence_and_speak_of_mask_map(wmreg, bundle):
    made, _ = bundle

    told = wmreg("attack", made.directory, "--attack", "distillation,quantisation", "--strength", "8", "--json")

    assert told.code == 0
    assert [refused["name"] for refused in told.document["refused"]] == ["distillation"]
    assert told.document["measure"] == "mask_map"
    assert told.document["attacks"][0]["points"][0]["matched"] >= 90
    assert _text(told.document).startswith("before any attack: mask mAP ")


@pytest.mark.parametrize("name", ["label_smoothing", "extraction_soft,distillation"])
def test_an_attack_that_does_not_know_masks_is_refused_before_any_work(wmreg, bundle, tmp_path, name):
    made, _ = bundle

    refused = wmreg("attack", made.directory, "--attack", name, "--out", tmp_path / "out")

    assert refused.code == 2
    assert "is for networks that answer with one class" in refused.err
    assert "there are ftll, ftal, rtll, rtal, magnitude_pruning, neuron_pruning, fine_pruning" in refused.err
    assert "distillation, overwriting" not in refused.err
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("words", "code", "needle"),
    [
        (
            ["--arch", "resnet18", "--data", "shapes:20"],
            2,
            "is pictures with masks, take one such as maskrcnn_resnet18",
        ),
        (["--arch", "bilstm", "--data", "shapes:20"], 2, "is pictures with masks, take one such as maskrcnn_resnet18"),
        (["--arch", ARCH, "--data", "digits"], 2, "is pictures, take one such as resnet18"),
        (["--arch", "fasterrcnn_resnet50_fpn", "--data", "shapes:20"], 2, "no such network of the catalogue"),
        (["--arch", "maskrcnn_resnet18", "--data", "shapes:20"], 2, "do you mean maskrcnn_resnet18_fpn"),
        (["--data", "digits", "--image-size", 64], 2, "--image-size: only for pictures with masks"),
        (["--arch", ARCH, "--data", "shapes:20", "--image-size", 20], 2, "--image-size"),
        (["--arch", ARCH, "--data", "shapes:20", "--vectors", __file__], 2, "--data shapes:20 is pictures with masks"),
        (["--arch", ARCH, "--data", "shapes:many"], 2, "no such data set; give digits, shapes:COUNT"),
        (["--arch", ARCH, "--data", "shapes:3"], 1, "20 to 20000"),
        (["--arch", ARCH, "--data", "pennfudan:/nowhere"], 2, "no such data set"),
        (["--arch", ARCH, "--data", "pennfudan:{tmp}"], 1, "no folder PNGImages"),
        (["--arch", ARCH, "--data", "voc:{tmp}"], 1, "no folder ImageSets"),
    ],
)
def test_a_mix_up_of_masks_and_others_is_one_line(wmreg, tmp_path, words, code, needle):
    words = [str(word).format(tmp=tmp_path) for word in words]

    refused = wmreg("train", "--out", tmp_path / "out.safetensors", *words)

    assert refused.code == code
    assert needle in refused.err
    assert refused.err.count("\n") == 1


def test_a_network_that_finds_objects_is_trained_for_longer_unless_it_begins_trained():
    drawn, labelled = shapes(20, side=64), digits()

    assert schedule_of(task(epochs=None), drawn) == MASKS_FROM_SCRATCH
    assert schedule_of(task(epochs=None), labelled).epochs < MASKS_FROM_SCRATCH.epochs
    assert schedule_of(task(epochs=None, base=Path("base")), drawn) == FINE_TUNING
    assert schedule_of(task(epochs=3), drawn).epochs == 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_mark_beside_a_base_is_verified_and_base_clean_model_and_another_key_are_at_chance(
    wmreg, ledger, alice, tmp_path
):
    who = ["--signing-key", alice.key, "--policy", ledger.policy_path]
    on = ["--arch", ARCH, "--data", "shapes:40"]
    base, out = tmp_path / "base.safetensors", tmp_path / "out"

    assert wmreg("train", *on, "--epochs", 6, "--seed", 7, "--out", base).code == 0
    made = wmreg("embed", *on, "--base", base, "--epochs", 2, "--out", out, *who, "--json")
    measured = wmreg("measure", out / "model.safetensors", "--evidence", out, "--controls", "--json")
    (out / "watermark_key.json").unlink()
    assert wmreg("keygen", "--watermark-key", out, *who).code == 0
    wrong = wmreg("measure", out / "model.safetensors", "--evidence", out, "--json")

    assert made.code == 0
    matched = made.document["matched"]
    assert matched["marked"] >= 590
    assert max(matched["clean"], matched["base"], wrong.document["matched"]) <= 354  # what nodes ask of a control
    assert measured.document["outcome"] == "VERIFIED"
    assert [control[0] for control in measured.document["measurement"]["controls"]] == ["fresh"] * 8 + ["base"]
