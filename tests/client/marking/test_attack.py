"""Promises: what cannot be attacked is refused before any work; the report says what failed where, at what cost."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import wm
from client.bundle import Bundle
from client.errors import InputError, InvalidError
from client.keystore import create_signing_key, create_watermark_key, save_watermark_key
from client.marking.attacking import Plan, methods_of, run
from client.marking.task import Task
from client.verbs.attack import _numbers, _text
from wm import data
from wm.architectures import Architecture, build
from wm.attacks import ATTACKS
from wm.attacks.forgeries import FORGERIES
from wm.backbone import feature_count
from wm.errors import WatermarkError
from wm.head import Head
from wm.info import Info
from wm.tap_shapes import taps_of
from wm.weights import save_weights


def untrained(place: Path, of: Architecture, modules: Sequence[str]) -> Bundle:
    """A bundle whose files fit each other; its model and head have learned nothing."""
    made, model, spec = Bundle(place / "bundle"), build(of, seed=1), data.digits().input
    made.directory.mkdir()
    info = Info(
        scheme="mtlsign",
        architecture=of,
        taps=tuple(taps_of(model, modules, spec)),
        pooling=1,
        hidden=64,
        triggers=600,
        gamma="0.7",
        input=spec,
    )
    info = info.with_files(model_sha256=save_weights(model, made.model), base_sha256=None)
    head = Head(inputs=feature_count(info.taps, pooling=info.pooling), hidden=info.hidden)
    wm.save_evidence(made.evidence, wm.EvidenceFile(head, info, bytes(32)))
    key_file = create_watermark_key(create_signing_key(place / "key.pem"), origin="test.example/ledger")
    save_watermark_key(made.watermark_key, key_file)
    made.report.write_text(json.dumps({"data": "digits"}))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    of = Architecture("resnet18", {"num_classes": 10})
    return untrained(tmp_path_factory.mktemp("untrained"), of, ["layer1", "layer2", "layer3"])


@pytest.fixture(scope="module")
def unnormalised(tmp_path_factory) -> Bundle:
    """One of a network without batch normalisation, which refuses `sign_flip`."""
    of = Architecture("squeezenet1_1", {"num_classes": 10})
    return untrained(tmp_path_factory.mktemp("unnormalised"), of, ["features.3"])


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--attack", "ftl"], "no such attack; there are all, ftll"),
        (["--attack", "ftll", "--strength", "7"], "strength 7 is not in [1e-06, 0.1]"),
        (["--attack", "permutation,quantisation", "--strength", "1,0.5"], "quantisation: strength 0.5"),
        (["--attack", "ftll", "--strength", "much"], "not numbers"),
        (["--attack", "ftll", "--strength", "nan"], "finite"),
        (["--attack", "ftll", "--data", "nowhere"], "no such data set"),
        (["--attack", "ftll", "--fraction", "0"], "--fraction"),
        (["--attack", "ftll", "--keep-models"], "--out"),
        (["--attack", "ftll", "--device", "abacus"], "no such device"),
        ([], "--attack"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(wmreg, bundle, words, needle):
    refused = wmreg("attack", bundle.directory, *words)

    assert refused.code == 2
    assert needle in refused.err
    assert refused.err.count("\n") == 1


def test_a_directory_that_is_no_bundle_or_lacks_its_model_is_refused(wmreg, bundle, tmp_path):
    nothing = wmreg("attack", tmp_path, "--attack", "ftll")
    for path in (bundle.evidence, bundle.watermark_key):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / path.name).chmod(0o600)
    without_report = wmreg("attack", tmp_path, "--attack", "ftll")
    without_model = wmreg("attack", tmp_path, "--attack", "ftll", "--data", "digits")

    assert [answer.code for answer in (nothing, without_report, without_model)] == [2, 2, 2]
    assert "evidence.safetensors" in nothing.err
    assert "say with --data" in without_report.err
    assert "the marked model is what is attacked" in without_model.err


def test_an_output_that_exists_is_refused_and_nothing_is_left_of_a_failure(wmreg, bundle, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()

    taken = wmreg("attack", bundle.directory, "--attack", "ftll", "--out", tmp_path / "full")
    failed = wmreg("attack", bundle.directory, "--attack", "ftll", "--data", "none", "--out", tmp_path / "new")

    assert (taken.code, failed.code) == (2, 2)
    assert "not empty" in taken.err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_other_data_than_the_model_was_marked_for_are_refused(wmreg, bundle, tmp_path):
    import numpy as np

    images, labels = np.zeros((20, 24, 24), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "other.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    refused = wmreg("attack", bundle.directory, "--attack", "ftll", "--data", tmp_path / "other.npz")

    assert refused.code == 2
    assert "other sizes or classes" in refused.err


def test_what_a_network_refuses_is_told_with_its_reason_and_the_others_are_done(wmreg, unnormalised, tmp_path):
    names, out = "sign_flip,magnitude_pruning", tmp_path / "out"

    done = wmreg(
        "attack", unnormalised.directory, "--attack", names, "--strength", "0.5", "--device", "cpu", "--out", out
    )

    assert done.code == 0
    document = json.loads((out / "attack.json").read_text())
    reason = "no channels of this network can be turned over"
    assert document["refused"] == [{"name": "sign_flip", "code": "unknown_architecture", "reason": reason}]
    assert [attack["name"] for attack in document["attacks"]] == ["magnitude_pruning"]
    assert f"  sign_flip: {reason}" in done.out
    assert (out / "attack.png").read_bytes().startswith(b"\x89PNG")


def test_a_single_attack_that_the_network_refuses_is_an_error_and_nothing_is_left(wmreg, unnormalised, tmp_path):
    refused = wmreg(
        "attack", unnormalised.directory, "--attack", "sign_flip", "--device", "cpu", "--out", tmp_path / "out"
    )

    assert refused.code == 1
    assert "no channels of this network can be turned over" in refused.err
    assert "sign_flip" not in refused.err
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def refusing_from(strength: float) -> Callable:
    """An attack or a forgery whose strengths from one on are refused."""

    def do(stolen, asked, *_others):
        if asked >= strength:
            raise WatermarkError("too_large", f"strength {asked:g} is too much")
        return stolen.model

    return do


def test_a_forgery_and_a_stronger_attack_may_be_refused_as_well(unnormalised):
    weak = replace(ATTACKS["distillation"], name="weak", run=refusing_from(2))
    none = replace(FORGERIES["random_key"], name="none", forge=refusing_from(1))
    task = Task(data="digits", fraction=0.1, arch="", weights=None, seed=0, epochs=None, device="cpu")
    plan = Plan(bundle=unnormalised, methods=(none, weak), strengths=(1, 2, 3), task=task, goes_on=True, models=None)

    told = run(plan, lambda *_progress: None)

    assert [point["strength"] for point in told["attacks"][0]["points"]] == [1]
    assert told["forgeries"] == []
    assert [(each["name"], each["code"], each["reason"]) for each in told["refused"]] == [
        ("none", "too_large", "strength 1 is too much"),
        ("weak", "too_large", "strength 2 is too much"),
    ]
    with pytest.raises(InvalidError, match=r"^none: strength 2 is too much; weak: strength 2 is too much$") as caught:
        run(replace(plan, strengths=(2,)), lambda *_progress: None)
    assert caught.value.code == "too_large"


def test_all_is_every_attack_and_forgery_once():
    assert methods_of(["permutation", "all"], ())[0].name == "permutation"
    assert {method.name for method in methods_of(["all"], ())} == set(ATTACKS) | set(FORGERIES)
    with pytest.raises(InputError):
        methods_of(["all", "none"], ())


def test_strengths_are_numbers_with_commas():
    assert _numbers(None) == ()
    assert _numbers("0.5, 1e-3") == (0.5, 1e-3)
    with pytest.raises(InputError, match="at most 32"):
        _numbers(",".join(["1"] * 33))


def point(strength, outcome, accuracy, *, aligned=False, before=None):
    counts = {"matched": 590, "total": 600, "outcome": outcome, "reason": "because"}
    counts |= {"aligned": aligned, "matched_unaligned": before}
    return {"strength": strength, "task_accuracy": accuracy, **counts}


def test_the_text_says_where_the_mark_failed_and_what_the_task_lost():
    points = [point(0.1, "VERIFIED", 0.98), point(0.2, "REFUTED", 0.61)]
    attack = {"name": "ftll", "summary": "", "strength": "", "points": points}
    failed = attack | {"fails_at": 0.2, "task_accuracy_at_failure": 0.61}
    held = attack | {"fails_at": None, "task_accuracy_at_failure": None}
    forgery = {"name": "random_key", "summary": "", "strength": "", "points": points}
    report = {"measure": "accuracy", "marked": point(None, "VERIFIED", 0.99), "attacks": [failed, held]}
    report |= {"left_out": [], "refused": []}

    text = _text(report | {"forgeries": [forgery | {"passes_at": [0.1]}, forgery | {"passes_at": []}]})

    assert "The mark failed at strength 0.2, with a task accuracy of 61.00%." in text
    assert "The mark held." in text
    assert "The numbers alone would convict at 0.1." in text
    assert "No node would vote VERIFIED." in text


@pytest.mark.parametrize(
    ("aligned", "before", "told"),
    [(False, None, "590 of 600  "), (True, 301, "590 of 600, aligned from 301"), (True, None, "590 of 600, aligned  ")],
)
def test_the_text_says_which_counts_are_of_aligned_channels(aligned, before, told):
    points = [point(1, "VERIFIED", 0.98, aligned=aligned, before=before)]
    attack = {"name": "permutation", "summary": "", "strength": "", "points": points}
    attack |= {"fails_at": None, "task_accuracy_at_failure": None}

    report = {
        "measure": "accuracy",
        "marked": point(None, "VERIFIED", 0.99),
        "attacks": [attack],
        "forgeries": [],
        "left_out": [],
        "refused": [],
    }
    assert told in _text(report)


@pytest.mark.slow
def test_the_command_attacks_the_digits_and_tells_what_is_left(wmreg, marked, tmp_path):
    out, names = tmp_path / "out", "permutation,dummy_neurons"

    done = wmreg(
        "attack", marked[0].directory, "--attack", names, "--strength", "1,0.5", "--out", out, "--keep-models", "--json"
    )

    assert done.code == 0
    assert done.document == json.loads((out / "attack.json").read_text())
    assert (out / "attack.png").read_bytes().startswith(b"\x89PNG")
    permutation, dummies = done.document["attacks"]
    before = done.document["marked"]
    assert before["outcome"] == "VERIFIED"
    assert [attack["fails_at"] for attack in (permutation, dummies)] == [None, None]
    assert {point["task_accuracy"] for point in permutation["points"]} == {before["task_accuracy"]}
    moved, widened = permutation["points"][0], dummies["points"][0]
    assert (moved["outcome"], moved["aligned"], widened["outcome"], widened["aligned"]) == ("VERIFIED", True) * 2
    assert moved["matched_unaligned"] < 360  # before the alignment, and after it
    assert moved["matched"] >= 594
    assert (widened["matched_unaligned"], before["aligned"]) == (None, False)
    kept = {path.name for path in out.glob("*.safetensors")}
    assert kept == {f"{name}-{strength}.safetensors" for name in names.split(",") for strength in ("1", "0.5")}


@pytest.mark.slow
def test_the_command_goes_on_if_it_is_told_to_and_judges_forgeries(wmreg, marked):
    names = "quantisation,borrowed_key,random_key"

    done = wmreg("attack", marked[0].directory, "--attack", names, "--strength", "1", "--json")
    gone_on = wmreg(
        "attack", marked[0].directory, "--attack", "quantisation", "--strength", "1,16", "--go-on", "--json"
    )

    borrowed, random = done.document["forgeries"]
    assert done.document["attacks"][0]["fails_at"] == 1
    assert (borrowed["points"][0]["outcome"], borrowed["points"][0]["reason"]) == ("REFUSED", "key_not_bound")
    assert borrowed["points"][0]["matched"] == done.document["marked"]["matched"]
    assert (random["points"][0]["outcome"], random["passes_at"]) == ("REFUTED", [])
    outcomes = [point["outcome"] for point in gone_on.document["attacks"][0]["points"]]
    assert outcomes == ["REFUTED", "VERIFIED"]


def test_the_page_about_attacks_lists_them_all_with_their_usual_strengths():
    page = (Path(__file__).parents[3] / "docs" / "attacks.md").read_text().partition("## Measured")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): row for row in cells}

    assert list(told) == [*ATTACKS, *FORGERIES]
    for name, method in {**ATTACKS, **FORGERIES}.items():
        usual = told[name][3]
        if usual != "same":
            assert tuple(float(number) for number in usual.split(",")) == method.scale.usual
