"""Promises: a bundle is written whole, its files fit each other, and measuring tells the mark from chance."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from client.bundle import Bundle
from client.errors import InputError, InvalidError
from client.files import staged_directory
from client.keystore import WatermarkKeyFile, create_signing_key, create_watermark_key, save_watermark_key
from client.marking.embedding import _check_base_out, embed, write_bundle
from client.marking.models import saved_weights, watermark_errors
from client.marking.task import Task
from client.publishing import make_publication
from client.verbs.measure import _with_controls
from registry.messages import Publication
from wm import EmbedSettings
from wm.attacks import ATTACKS, Stolen, attacked
from wm.data import digits
from wm.evidence import load_evidence
from wm.weights import load_weights, save_weights

pytestmark = pytest.mark.long

ORIGIN = "test.example/ledger"


@pytest.fixture
def measure(wmreg, marked):
    """Measure a model with the bundle's evidence, or with another's."""
    return lambda model, directory=None, *more: wmreg(
        "measure", model, "--evidence", directory or marked[0].directory, "--json", *more
    )


def test_a_bundle_has_all_its_files_and_nothing_else(marked):
    bundle, _ = marked

    assert sorted(path.name for path in bundle.directory.iterdir()) == [
        "clean.safetensors",
        "evidence.safetensors",
        "model.safetensors",
        "report.json",
        "report.png",
        "watermark_key.json",
    ]
    assert bundle.plot.read_bytes().startswith(b"\x89PNG")


def test_the_owners_secrets_are_his_alone(marked):
    bundle, _ = marked

    assert bundle.evidence.stat().st_mode & 0o077 == 0
    assert bundle.watermark_key.stat().st_mode & 0o077 == 0


def test_a_bundle_can_be_published_as_it_is(marked):
    bundle, owner = marked

    publication = make_publication(bundle, owner, origin=ORIGIN)

    assert isinstance(publication, Publication)
    assert publication.scheme == "mtlsign"
    assert publication.model_commitment is not None


def test_the_report_tells_the_mark_before_and_after(marked):
    report = json.loads(marked[0].report.read_text())

    assert report["matched"]["marked"] >= 540
    assert set(report["test_accuracy"]) == {"clean", "marked"}
    assert report["triggers"] == 600


def test_the_marked_model_answers_its_triggers(marked, measure):
    found = measure(marked[0].model).document

    assert found["matched"] == json.loads(marked[0].report.read_text())["matched"]["marked"]
    assert found["total"] == 600


@pytest.mark.slow
def test_a_copy_whose_channels_are_in_another_order_is_known_and_the_words_say_how(marked, measure, wmreg, tmp_path):
    bundle, moved = marked[0], tmp_path / "moved.safetensors"
    architecture = load_evidence(bundle.evidence).info.architecture
    stolen = Stolen(model=load_weights(bundle.model, architecture), architecture=architecture, data=digits())
    save_weights(attacked(ATTACKS["permutation"], stolen, strength=1.0, seed=1), moved)

    found = measure(moved).document
    told = wmreg("measure", moved, "--evidence", bundle.directory).out

    assert found["aligned"] is True
    assert found["matched"] >= 540
    assert found["matched_unaligned"] < 360
    assert f"aligned to those of the published model; as it is, the model answers {found['matched_unaligned']}" in told
    assert measure(bundle.model).document["aligned"] is False


@pytest.mark.slow
def test_an_unrelated_model_answers_by_chance(marked, measure, wmreg, tmp_path):
    trained = wmreg("train", "--out", tmp_path / "own.safetensors", "--epochs", 0, "--seed", 9, "--device", "cpu")
    assert trained.code == 0

    assert measure(tmp_path / "own.safetensors").document["matched"] < 375


def test_another_key_finds_no_mark(marked, measure, tmp_path):
    private_key = create_signing_key(tmp_path / "eve.pem")
    (tmp_path / "eve").mkdir()
    eve = Bundle(tmp_path / "eve")
    eve.evidence.write_bytes(marked[0].evidence.read_bytes())
    save_watermark_key(eve.watermark_key, create_watermark_key(private_key, origin=ORIGIN))

    assert measure(marked[0].model, eve.directory).document["matched"] < 375


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "malformed"), (b"\x80\x04\x95", "malformed"), (safetensors.torch.save({"w": torch.zeros(1)}), "mismatch")],
)
def test_a_file_that_is_no_such_model_is_refused(measure, tmp_path, content, code):
    (tmp_path / "model").write_bytes(content)

    refused = measure(tmp_path / "model")

    assert (refused.code, refused.document["error"]["code"]) == (1, code)


def test_a_suspect_that_answers_with_infinities_is_refused_in_one_line(marked, wmreg, tmp_path):
    weights = safetensors.torch.load_file(marked[0].model)
    enlarged = {name: 1e30 * it if it.is_floating_point() else it for name, it in weights.items()}
    safetensors.torch.save_file(enlarged, tmp_path / "enlarged.safetensors")

    refused = wmreg("measure", tmp_path / "enlarged.safetensors", "--evidence", marked[0].directory)

    assert refused.code == 1
    assert "a value that is not finite" in refused.err
    assert refused.err.count("\n") == 1


def test_a_failure_leaves_no_bundle(marked, tmp_path):
    bundle, _ = marked
    key_file = WatermarkKeyFile(origin=ORIGIN, binding=bundle.load_watermark_key().binding)

    def fail_half_way():
        with staged_directory(tmp_path / "out") as staging:
            save_watermark_key(Bundle(staging).watermark_key, key_file)
            write_bundle(Bundle(staging), None, [key_file], base_sha256=None, keep_clean=False)

    with pytest.raises(AttributeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "needle"),
    [
        (["--arch", "nonet"], 2, "nonet"),
        (["--arch", "resnet"], 2, "do you mean"),
        (["--data", "nodata"], 2, "nodata"),
        (["--data", "{tmp}/garbled.npz"], 1, "garbled.npz"),
        (["--data", "{tmp}/short.npz"], 1, "short.npz"),
        (["--data", "{tmp}/mixed.npz"], 1, "different sizes"),
        (["--weights", "{tmp}/garbled.npz"], 1, "garbled.npz"),
        (["--fraction", "0"], 2, "--fraction"),
        (["--fraction", "1.5"], 2, "--fraction"),
        (["--device", "abacus"], 2, "abacus"),
    ],
)
def test_a_task_that_cannot_be_done_is_one_line_and_leaves_nothing(wmreg, tmp_path, words, code, needle):
    (tmp_path / "garbled.npz").write_bytes(b"garbage")
    write_npz(tmp_path / "mixed.npz", test_side=20)
    write_npz(tmp_path / "short.npz")
    (tmp_path / "short.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:-500])
    words = [word.format(tmp=tmp_path) for word in words]

    refused = wmreg("train", "--out", tmp_path / "out.safetensors", *words)

    assert refused.code == code
    assert needle in refused.err
    assert refused.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garbled.npz", "mixed.npz", "short.npz"]


def write_npz(path, test_side=16):
    images = {"x_train": np.zeros((20, 16, 16), np.uint8), "x_test": np.zeros((5, test_side, test_side), np.uint8)}
    np.savez(path, **images, y_train=np.arange(20) % 2, y_test=np.arange(5) % 2)


def test_an_existing_output_is_refused_before_any_work(wmreg, ledger, alice, tmp_path):
    weights = wmreg("train", "--out", alice.model)
    bundle = wmreg("embed", "--out", alice.directory, "--signing-key", alice.key, "--policy", ledger.policy_path)

    assert (weights.code, bundle.code) == (2, 2)
    assert "not overwritten" in weights.err
    assert "not empty" in bundle.err


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--scheme", "none"], "not one of 'mtlsign'"),
        (["--arch", "vit_b_32"], "--arch vit_b_32: the network does not take an input of 3 x 32 x 32"),
        (["--arch", "inception_v3"], "--arch inception_v3: the network does not take"),
        (["--taps", "layer1,layer9"], "no module 'layer9'; take modules such as layer"),
        (["--taps", "fc"], "--taps fc: the module 'fc' does not answer with channels"),
        (["--arch", "swin_t", "--taps", "features.1"], "--taps features.1: the module 'features.1' answers with"),
        (["--taps", "layer1,layer1"], "--taps layer1,layer1: 1 to 16 modules, each named once"),
        (["--taps", "layer1,"], "--taps layer1,: module paths with commas"),
        (["--taps", ""], "--taps : module paths with commas"),
        (["--scheme", "margin", "--taps", "layer1"], "--taps: only with --scheme mtlsign"),
        (["--scheme", "margin", "--theta", "10"], "--theta: only with --scheme mtlsign"),
        (["--theta", "0"], "--theta"),
        (["--theta", "inf"], "--theta"),
        (["--theta", "1e-310"], "--theta 1e-310: too near to 0"),
    ],
)
def test_what_cannot_be_marked_is_found_before_the_training(wmreg, ledger, alice, tmp_path, words, needle):
    begun_s = time.monotonic()

    refused = wmreg(
        "embed", "--out", tmp_path / "out", *words, "--epochs", 10_000, "--signing-key", alice.key,
        "--policy", ledger.policy_path,
    )  # fmt: skip

    assert refused.code == 2
    assert needle in refused.err
    assert time.monotonic() - begun_s < 30
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("verb", ["train", "embed"])
def test_a_place_that_cannot_be_written_is_found_before_the_training(wmreg, ledger, alice, verb):
    who = ["--signing-key", alice.key, "--policy", ledger.policy_path] if verb == "embed" else []

    refused = wmreg(verb, "--out", "/proc/self/out", "--epochs", 10_000, *who)

    assert refused.code == 2
    assert "/proc/" in refused.err


def test_a_training_that_diverged_is_not_kept(tmp_path):
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, float("nan"))

    with pytest.raises(InvalidError, match="diverged"):
        saved_weights(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_room_is_told_in_one_line():
    with pytest.raises(InputError, match="not enough memory"), watermark_errors():
        raise torch.OutOfMemoryError


def test_with_controls_the_exit_code_is_the_vote(good):
    poor = replace(good, matched=301)

    assert _with_controls(good, {}, "").exit_code == 0
    assert _with_controls(poor, {}, "").exit_code == 1


@pytest.mark.parametrize(("matched", "passes"), [(354, False), (355, True), (600, True)])
def test_a_base_above_the_nodes_threshold_is_an_error_and_nothing_is_kept(matched, passes):
    counted, chance = {"clean": 300, "base": matched}, {"clean": 300, "base": 300}
    as_it_is = {"matched": {**counted, "marked": 600}, "matched_aligned": chance, "triggers": 600}
    aligned = {"matched": {**chance, "marked": 600}, "matched_aligned": counted, "triggers": 600}

    for told, how in ((as_it_is, ""), (aligned, ", with its channels aligned,")):
        if not passes:
            _check_base_out(told)
            continue
        with pytest.raises(InvalidError, match=rf"base itself{how} answers {matched} of 600") as refused:
            _check_base_out(told)
        assert refused.value.code == "base_passes"


@pytest.mark.parametrize(("matched", "passes"), [(390, False), (391, True)])
def test_a_strangers_model_from_the_same_base_that_passes_is_an_error(matched, passes):
    counted, chance = {"base": 300, "neighbour": matched}, {"base": 300, "neighbour": 300}
    for told in ((counted, chance), (chance, counted)):
        both = {"matched": told[0], "matched_aligned": told[1], "triggers": 600}
        if not passes:
            _check_base_out(both)
            continue
        with pytest.raises(InvalidError, match=f"tuned from the base.* answers {matched} of 600") as refused:
            _check_base_out(both)
        assert refused.value.code == "neighbour_passes"


def test_without_a_base_there_is_nothing_to_be_kept_out():
    _check_base_out({"matched": {"clean": 600, "marked": 600}, "matched_aligned": {}, "triggers": 600})


@pytest.mark.slow
def test_without_negative_controls_a_base_passes_and_the_command_says_so(marked, tmp_path):
    bundle, _ = marked
    quick = EmbedSettings(
        pooling=2, hidden=64, shadows=0, steps=1, head_steps=200, feature_noise=0, negative_weight=0,
        siblings=0, fresh_negatives=0,
    )  # fmt: skip
    base = bundle.clean
    task = Task(data="digits", fraction=0.06, arch="resnet18", weights=None, seed=1, epochs=0, device="cpu", base=base)

    with pytest.raises(InvalidError) as refused:
        embed(task, [bundle.load_watermark_key()], settings=quick, show=lambda *_progress: None)
    assert refused.value.code == "base_passes"


def test_a_control_model_is_only_for_the_control_tests(marked, wmreg):
    bundle, _ = marked

    refused = wmreg("measure", bundle.model, "--evidence", bundle.directory, "--control", bundle.clean)

    assert refused.code == 2
    assert "--controls" in refused.err


@pytest.mark.slow
def test_the_marked_model_as_a_public_one_shows_that_the_mark_is_of_a_shared_ancestor(marked, wmreg):
    bundle, _ = marked

    found = wmreg(
        "measure", bundle.model, "--evidence", bundle.directory, "--controls", "--control", bundle.model, "--json"
    )

    assert (found.code, found.document["reason"]) == (1, "shared_ancestor")
    assert found.document["measurement"]["controls"][-1] == ["public", found.document["matched"], 0, 0]


@pytest.mark.slow
def test_the_whole_recipe_embeds_a_mark_that_nodes_would_verify(wmreg, ledger, alice, tmp_path):
    who = ["--signing-key", alice.key, "--policy", ledger.policy_path]
    out = tmp_path / "out"

    made = wmreg("embed", "--out", out, *who, "--json")
    measured = wmreg("measure", out / "model.safetensors", "--evidence", out, "--controls", "--json")

    assert made.document["matched"]["marked"] >= 590
    assert measured.document["outcome"] == "VERIFIED"
    assert wmreg("publish", out, *who).code == 0
