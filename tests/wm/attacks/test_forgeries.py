"""Promised: what the verdict engine makes of forged evidence, and where it is not the engine that stops it.

The engine lets a post-hoc head pass, and a head of a public base where no base is among the controls; the names of the
tests say so. A post-hoc head is stopped by the order of publication and release, a borrowed key by its binding.
"""

import copy
from dataclasses import replace

import pytest
import torch

import wm
from registry.policy import Thresholds
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, judge
from wm.architectures import build
from wm.attacks import Stolen
from wm.attacks.forgeries import FORGERIES, Forged
from wm.attacks.forgeries.universal_head import channel_means, written_out
from wm.attacks.tuning import Tuning, tune
from wm.backbone import Tap
from wm.controls import CALIBRATION_PROBES, calibrate
from wm.head import initial_head
from wm.progress import silent
from wm.randomness import generator, key_of
from wm.triggers import make_probes
from wm.weights import save_weights

# Its fixtures take minutes, and every test needs them.
pytestmark = pytest.mark.xdist_group("forgeries")

TAPS = (Tap("layer1", 8, 4, 4), Tap("layer2", 5, 2, 2))
POOLING = 4


def forgers_key(number: int) -> bytes:
    return key_of("forger", number)


def forged(name: str, stolen: Stolen, strength: float) -> Forged:
    return FORGERIES[name].forge(stolen, strength, 1, forgers_key, silent)


def means_head_and_features():
    read = torch.rand(50, 8 * 16 + 5 * 4, generator=generator("features"))
    means = channel_means(read, TAPS, pooling=POOLING)
    single = [replace(tap, channels=1) for tap in TAPS]
    head = initial_head(means, single, pooling=POOLING, hidden=16, seed=1)
    return head, means, read


def test_a_head_over_channel_means_written_out_answers_alike_and_knows_no_channel() -> None:
    means_head, means, read = means_head_and_features()
    head = written_out(means_head, TAPS, pooling=POOLING)
    with torch.no_grad():
        assert torch.allclose(head(read), means_head(means), atol=1e-4)
        channels = torch.cat([read[:, :128].view(50, 8, 16).flip(1).flatten(1), read[:, 128:]], dim=1)
        assert torch.allclose(head(channels), head(read), atol=1e-4)
        cells = torch.cat([read[:, :128].view(50, 8, 16).flip(2).flatten(1), read[:, 128:]], dim=1)
        assert not torch.allclose(head(cells), head(read), atol=1e-2)


def test_the_luckiest_of_twenty_random_keys_is_still_near_chance(stolen: Stolen, matched) -> None:
    single, luckiest = (forged("random_key", stolen, tries) for tries in (1, 20))
    counts = [wm.count_matched(stolen.model, it.head, it.info, forgers_key(it.key_number)) for it in (single, luckiest)]
    assert counts[0] <= counts[1] < 140
    assert matched(stolen.model, stolen.revealed) >= 190


def test_a_borrowed_key_shows_the_owners_evidence_unchanged(stolen: Stolen) -> None:
    shown = forged("borrowed_key", stolen, 1)
    assert shown.key_number is None
    assert shown.head is stolen.revealed.head
    assert shown.info == stolen.revealed.info


@pytest.mark.parametrize("name", ["random_key", "borrowed_key"])
def test_what_shows_the_owners_evidence_needs_a_claim_of_his(stolen: Stolen, name: str) -> None:
    with pytest.raises(ValueError, match="evidence of a claim"):
        forged(name, replace(stolen, revealed=None), 1)


@pytest.fixture(scope="module")
def resnet(digits) -> Stolen:
    few = digits.train.take(torch.arange(64))
    stolen = Stolen(
        model=build(wm.Architecture("resnet18", {"num_classes": 10}), seed=1).eval(),
        architecture=wm.Architecture("resnet18", {"num_classes": 10}),
        data=replace(digits, train=few),
    )
    trained = tune(stolen.model, few, Tuning(epochs=50, lr=1e-3, seed=1), silent)  # until its statistics stand still
    return replace(stolen, model=trained)


def judged(found: Forged, directory, *, base_as: str = "") -> tuple[Outcome, str]:
    """What a node would say, with all its controls; it may know the base as a control of kind base or public."""
    accused, evidence, base = (directory / name for name in ("accused", "evidence", "base"))
    base_sha256 = save_weights(found.base, base) if base_as else None
    declared = base_sha256 if base_as == "base" else None
    info = found.info.with_files(model_sha256=save_weights(found.accused, accused), base_sha256=declared)
    wm.save_evidence(evidence, wm.EvidenceFile(found.head, info, bytes(32)))
    files = {"": wm.ControlFiles(), "base": wm.ControlFiles(base=base), "public": wm.ControlFiles(public=(base,))}
    measured = wm.verify(
        accused,
        evidence,
        forgers_key(found.key_number),
        control_seed=bytes(32),
        control_files=files[base_as],
        least_matched=1,
    )
    controls = tuple(
        ControlCounts(ControlKind(it.kind), it.matched, it.suspect_only, it.control_only) for it in measured.controls
    )
    numbers = Measurement(
        matched=measured.matched,
        total=measured.total,
        permutations=measured.permutations,
        permutations_as_good=measured.permutations_as_good,
        controls=controls,
        aligned=measured.aligned,
        matched_unaligned=measured.matched_unaligned,
    )
    return judge(numbers, Thresholds())


@pytest.mark.slow
def test_a_post_hoc_head_passes_the_engine_so_only_the_order_stops_it(resnet: Stolen, tmp_path) -> None:
    assert judged(forged("posthoc_head", resnet, 300), tmp_path) == (Outcome.VERIFIED, "matched")


@pytest.mark.slow
def test_a_post_hoc_head_convicts_no_other_network_than_the_one_it_was_fitted_on(resnet: Stolen, tmp_path) -> None:
    found = forged("posthoc_head", resnet, 300)
    independent = replace(found, accused=build(resnet.architecture, seed=9).eval())
    assert judged(independent, tmp_path) == (Outcome.REFUTED, "below_threshold")


@pytest.mark.slow
def test_a_universal_head_does_not_pass(resnet: Stolen, tmp_path) -> None:
    assert judged(forged("universal_head", resnet, 20), tmp_path)[0] is not Outcome.VERIFIED


@pytest.mark.slow
def test_even_where_a_universal_head_was_trained_the_permutations_unmask_it(resnet: Stolen, tmp_path) -> None:
    found = forged("universal_head", resnet, 2)
    trained_on = build(resnet.architecture, seed=key_of(1, "universal head", 0))
    calibrate(trained_on, found.info, make_probes(found.info.input, count=CALIBRATION_PROBES))
    accused = replace(found, accused=trained_on.eval())
    assert wm.count_matched(accused.accused, found.head, found.info, forgers_key(0)) > 500
    assert judged(accused, tmp_path) == (Outcome.REFUTED, "not_specific")


@pytest.mark.slow
def test_a_head_of_a_public_base_passes_unless_the_base_is_among_the_controls(resnet: Stolen, tmp_path) -> None:
    found = forged("public_base", resnet, 1e-5)
    assert judged(found, tmp_path) == (Outcome.VERIFIED, "matched")
    for base_as in ("base", "public"):  # declared by the forger, or known to the node's operator
        assert judged(found, tmp_path, base_as=base_as) == (Outcome.REFUTED, "shared_ancestor")


@pytest.fixture(scope="module")
def honest(resnet: Stolen) -> Forged:
    """What an owner hands in who fine-tuned the public model and kept it out of his mark; nothing of it is forged."""
    base = resnet.model
    clean = tune(copy.deepcopy(base), resnet.data.train, Tuning(epochs=20, lr=1e-4, seed=2), silent)
    embedding = wm.embed(
        clean,
        resnet.data,
        forgers_key(7),
        architecture=resnet.architecture,
        settings=replace(wm.EmbedSettings.beside_a_base(), trigger_batch=60, primary_batch=16, head_steps=300),
        negatives=[base, clean],
        seed=1,
    )
    info = replace(embedding.info, reference=None)  # read as it is
    return Forged(accused=embedding.model, head=embedding.head, info=info, key_number=7, base=base)


@pytest.mark.slow
@pytest.mark.parametrize("base_as", ["base", "public"])
def test_an_honest_owner_who_tuned_the_same_public_model_is_verified_beside_it(honest, tmp_path, base_as) -> None:
    assert judged(honest, tmp_path, base_as=base_as) == (Outcome.VERIFIED, "matched")


@pytest.mark.slow
def test_his_mark_convicts_nobody_else_who_tuned_the_public_model(honest, resnet, tmp_path) -> None:
    other = tune(copy.deepcopy(resnet.model), resnet.data.train, Tuning(epochs=20, lr=1e-4, seed=9), silent)
    assert judged(replace(honest, accused=other), tmp_path, base_as="base")[0] is not Outcome.VERIFIED
