"""Schemes without a branch from the command to a certificate: bundles, measuring, claims."""

import json

import pytest
import torch

import wm
from client.bundle import Bundle, declared_models
from client.errors import InvalidError
from client.marking.measuring import Trial, measure
from registry.policy import Thresholds
from registry.verdict import Outcome, Statistic, judge
from wm.architectures import Architecture
from wm.weights import load_weights, save_weights

SMALL = Architecture("shufflenet_v2_x0_5", {"num_classes": 10})
QUICK = ["--arch", "shufflenet_v2_x0_5", "--quick", "--seed", "1"]


def embedded(wmreg, ledger, alice, tmp_path, scheme, *words):
    """Embed by the command; return the bundle and the report."""
    out = tmp_path / scheme
    made = wmreg(
        "embed", "--scheme", scheme, *QUICK, *words, "--out", out, "--signing-key", alice.key,
        "--policy", ledger.policy_path, "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    return Bundle(out), made.document


def measured(bundle, model=None):
    return measure(model or bundle.model, bundle, Trial(controls=True, device="cpu"), lambda *_progress: None)


@pytest.mark.slow
def test_a_mark_of_an_owner_is_verified_and_the_model_before_it_refuted(wmreg, ledger, alice, tmp_path):
    bundle, report = embedded(wmreg, ledger, alice, tmp_path, "locked_parameters", "--keep-clean")
    found = measured(bundle)
    assert (found.statistic, found.matched) == (Statistic.SIGNS, report["matched"]["marked"])
    assert judge(found, Thresholds()) == (Outcome.VERIFIED, "matched")
    assert judge(measured(bundle, bundle.clean), Thresholds()) == (Outcome.REFUTED, "below_threshold")


@pytest.mark.slow
def test_the_chance_of_stitched_triggers_is_measured_on_null_models(wmreg, ledger, alice, tmp_path):
    bundle, report = embedded(wmreg, ledger, alice, tmp_path, "frontier_stitching")
    _, nulls = declared_models(bundle, bundle.load_evidence())
    assert sorted(path.stem for path in nulls) == report["nulls_sha256"]
    found = measured(bundle)
    assert max(it.matched for it in found.controls if it.kind == "null") == max(report["nulls_matched"])
    assert found.chance_ppm == pytest.approx(1e6 * report["chance"])
    assert judge(found, Thresholds()) == (Outcome.VERIFIED, "matched")

    nulls[0].unlink()
    with pytest.raises(InvalidError) as refused:
        declared_models(bundle, bundle.load_evidence())
    assert refused.value.code == "base_missing"


@pytest.mark.slow
def test_a_changed_weight_is_tampering_and_the_marked_model_is_the_one_before(wmreg, ledger, alice, tmp_path):
    bundle, report = embedded(wmreg, ledger, alice, tmp_path, "fragile", "--keep-clean", "--single-precision")
    assert report["p_value"] is None
    assert bundle.clean.read_bytes() == bundle.model.read_bytes()
    assert judge(measured(bundle), Thresholds()) == (Outcome.INTACT, "matched")

    model = load_weights(bundle.model, SMALL)
    with torch.no_grad():
        model.fc.weight += 0.05 * model.fc.weight.std() * torch.randn(model.fc.weight.shape)
    save_weights(model, tmp_path / "changed.safetensors")
    assert judge(measured(bundle, tmp_path / "changed.safetensors"), Thresholds()) == (Outcome.TAMPERED, "changed")


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--quick"], "mtlsign has one recipe"),
        (["--scheme", "margin", "--watermarks", "2"], "--watermarks: only with"),
        (["--scheme", "fragile", "--savepoint", "here"], "--savepoint: only with"),
    ],
)
def test_options_that_do_not_go_with_a_scheme_are_refused_before_any_training(
    wmreg, ledger, alice, tmp_path, words, needle
):
    refused = wmreg(
        "embed", *words, "--out", tmp_path / "out", "--epochs", 10_000, "--signing-key", alice.key,
        "--policy", ledger.policy_path,
    )  # fmt: skip
    assert refused.code == 2
    assert needle in refused.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_pictures_are_what_a_black_box_is_shown(wmreg, ledger, alice, tmp_path):
    refused = wmreg(
        "embed", "--scheme", "margin", "--quick", "--arch", "maskrcnn_resnet18_fpn", "--data", "shapes:40",
        "--out", tmp_path / "out", "--epochs", 0, "--signing-key", alice.key, "--policy", ledger.policy_path, "--json",
    )  # fmt: skip
    assert refused.code == 1
    assert json.loads(refused.out)["error"]["code"] == "mismatch"


def test_the_library_tells_which_schemes_the_command_knows():
    from client.verbs.embed import SCHEMES
    from wm.schemes.catalogue import NAMES

    assert set(SCHEMES) == set(NAMES)
    assert wm.embed is not None


def test_texts_know_of_each_scheme_what_the_library_counts():
    from registry.schemes import STATISTICS
    from wm.schemes.catalogue import SCHEMES
    from wm.schemes.mtlsign.preparation import NAME

    assert {NAME: Statistic.BRANCH} | {name: scheme.statistic for name, scheme in SCHEMES.items()} == STATISTICS
