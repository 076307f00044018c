"""Marks without a branch: what is counted in files and in answers, beside which controls, and what is refused."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import wm
from registry.verdict import NULLS_MIN
from wm import data
from wm.architectures import Architecture, build
from wm.pixels import to_pixels
from wm.schemes import frontier_stitching
from wm.schemes.catalogue import SCHEMES
from wm.schemes.evidence import SchemeEvidence, load_scheme_evidence, save_scheme_evidence
from wm.schemes.frontier_stitching.keyed import hidden
from wm.schemes.info import SchemeInfo, decode_scheme_info, encode_scheme_info
from wm.schemes.locked_parameters import LockedPayload, lockable, positions
from wm.schemes.locked_parameters.places import signs
from wm.schemes.margin import MarginPayload
from wm.schemes.measuring import NULLS_LEAST, chance_of
from wm.schemes.scheme import answers
from wm.statistics import clopper_pearson_upper
from wm.training import fit
from wm.triggers import InputSpec, Normalisation
from wm.weights import save_weights

pytestmark = pytest.mark.long

KEY, OTHER_KEY, SEED = bytes(range(32)), bytes(32), b"\x07" * 32
SMALL = Architecture("shufflenet_v2_x0_5", {"num_classes": 10})
DIGITS = data.digits()
NOTHING = SchemeInfo(scheme="margin", architecture=SMALL, input=DIGITS.input, classes=10)


def margin_evidence(place: Path, model: nn.Module, **files: object) -> Path:
    """Evidence of triggers that nobody was trained on."""
    pixels = (255 * torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))).to(torch.uint8)
    return written(place, model, MarginPayload(pixels, DIGITS.input, 10), "margin", **files)


def written(place: Path, model: nn.Module, payload: object, scheme: str, **files: object) -> Path:
    sha256 = save_weights(model, place / "model.safetensors")
    info = replace(NOTHING, scheme=scheme, payload=payload.fields()).with_files(
        model_sha256=sha256, base_sha256=None, **files
    )
    save_scheme_evidence(place / "evidence.safetensors", SchemeEvidence(info, payload, bytes(32)))
    return place / "evidence.safetensors"


def locked(model: nn.Module, key: bytes, count: int = 200) -> LockedPayload:
    """Write a key's signs into a network as it is."""
    shapes = lockable(model)
    places, held = positions(key, shapes, count), model.state_dict()
    values = torch.where(signs(key, count), 0.05, -0.05)
    for number, name in enumerate(places.names):
        chosen, where = places.of(number)
        held[name][where] = values[chosen]
    return LockedPayload(values, shapes)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build(SMALL, seed=3).eval()


def test_a_black_box_mark_is_counted_in_a_file_and_in_answers_alike(model, tmp_path):
    evidence = margin_evidence(tmp_path, model)
    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=2)
    shown = wm.class_triggers(evidence, KEY)
    said = answers(model, shown.pixels, DIGITS.input).tolist()
    heard = wm.verify_answers(said, evidence, KEY, control_seed=SEED, controls=2)
    assert found == heard
    assert (found.total, found.statistic, found.chance) == (40, "classes", Fraction(1, 10))
    assert [control.name for control in found.controls] == ["fresh-0", "fresh-1"]
    assert found.matched == sum(a == b for a, b in zip(said, shown.labels.tolist(), strict=True))


def test_answers_as_demanded_match_all_and_of_another_key_by_chance(model, tmp_path):
    evidence = margin_evidence(tmp_path, model)
    demanded = wm.class_triggers(evidence, KEY).labels.tolist()
    assert wm.verify_answers(demanded, evidence, KEY, control_seed=SEED, controls=0).matched == 40
    assert wm.verify_answers(demanded, evidence, OTHER_KEY, control_seed=SEED, controls=0).matched < 15


def test_answers_must_be_as_many_as_triggers(model, tmp_path):
    evidence = margin_evidence(tmp_path, model)
    with pytest.raises(wm.WatermarkError, match="39 answers to 40 triggers"):
        wm.verify_answers([0] * 39, evidence, KEY, control_seed=SEED)


def test_signs_are_read_from_weights_and_no_endpoint_shows_those(tmp_path):
    marked = build(SMALL, seed=4).eval()
    evidence = written(tmp_path, marked, locked(marked, KEY), "locked_parameters")
    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=2)
    assert (found.matched, found.total, found.statistic) == (200, 200, "signs")
    assert all(70 < control.matched < 130 for control in found.controls)
    wrong = wm.verify(tmp_path / "model.safetensors", evidence, OTHER_KEY, control_seed=SEED, controls=0)
    assert 70 < wrong.matched < 130
    with pytest.raises(wm.WatermarkError, match="needs the model's file"):
        wm.class_triggers(evidence, KEY)


def test_a_replaced_classifier_does_not_hide_locked_weights_but_ends_a_black_box(tmp_path):
    marked = build(SMALL, seed=4).eval()
    evidence = written(tmp_path, marked, locked(marked, KEY), "locked_parameters")
    reused = build(Architecture("shufflenet_v2_x0_5", {"num_classes": 3}), seed=4)
    reused.load_state_dict({**reused.state_dict(), **{n: t for n, t in marked.state_dict().items() if "fc." not in n}})
    save_weights(reused, tmp_path / "reused.safetensors")
    assert wm.verify(tmp_path / "reused.safetensors", evidence, KEY, control_seed=SEED, controls=0).matched == 200
    with pytest.raises(wm.WatermarkError, match="fc"):
        wm.verify(
            tmp_path / "reused.safetensors", margin_evidence(tmp_path, marked), KEY, control_seed=SEED, controls=0
        )


def test_declared_models_are_controls(model, tmp_path):
    evidence = margin_evidence(tmp_path, model)
    files = wm.ControlFiles(base=tmp_path / "model.safetensors", nulls=(tmp_path / "model.safetensors",) * 2)
    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=0, control_files=files)
    assert [control.kind for control in found.controls] == ["base", "null", "null"]
    assert {(it.matched, it.suspect_only, it.control_only) for it in found.controls} == {(found.matched, 0, 0)}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_says_what_it_counts_and_how(scheme):
    found = SCHEMES[scheme]
    assert (found.class_triggers is None) != (found.agreements is None)
    assert found.settings() is not None
    assert found.quick() is not None


def test_an_info_has_one_spelling(model, tmp_path):
    text = encode_scheme_info(load_scheme_evidence(margin_evidence(tmp_path, model)).info)
    assert encode_scheme_info(decode_scheme_info(text)) == text
    with pytest.raises(wm.WatermarkError, match="canonical"):
        decode_scheme_info(text.replace(",", ", ", 1))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"classes":10', '"classes":0', "classes"),
        ('"classes":10', '"classes":"10"', "classes"),
        ('"nulls_sha256":[]', '"nulls_sha256":["ab"]', "nulls_sha256"),
        ('"nulls_sha256":[]', '"nulls_sha256":null', "nulls_sha256"),
        ('"payload":{"triggers":40}', '"payload":[40]', "payload"),
        ('"payload":{"triggers":40}', '"payload":{"triggers":true}', "payload"),
        ('"height":32', '"height":100000', "input.height"),
        ('"name":"shufflenet_v2_x0_5"', '"name":"own"', "own"),
        ('"base_sha256":null', '"base_sha256":"x"', "base_sha256"),
        ('"scheme":"margin"', '"scheme":"margin","z":1', "keys"),
    ],
)
def test_a_field_that_is_wrong_is_named(model, tmp_path, old, new, what):
    text = encode_scheme_info(load_scheme_evidence(margin_evidence(tmp_path, model)).info)
    assert old in text
    with pytest.raises(wm.WatermarkError, match=what):
        decode_scheme_info(text.replace(old, new))


def test_an_unknown_scheme_is_refused_by_name(model, tmp_path):
    path = written(tmp_path, model, MarginPayload(torch.zeros(20, 3, 32, 32, dtype=torch.uint8), DIGITS.input, 10), "x")
    with pytest.raises(wm.WatermarkError, match="this version knows mtlsign, frontier_stitching") as refused:
        wm.verify(tmp_path / "model.safetensors", path, KEY, control_seed=SEED)
    assert refused.value.code == "unknown_scheme"


def test_what_embed_is_not_told_of_a_scheme_is_refused(model):
    with pytest.raises(ValueError, match="neither negatives nor a savepoint"):
        wm.embed(model, DIGITS, KEY, architecture=SMALL, scheme="margin", negatives=[model], seed=1)
    with pytest.raises(wm.WatermarkError, match="scheme 'x'"):
        wm.embed(model, DIGITS, KEY, architecture=SMALL, scheme="x", seed=1)


def frontier_evidence(place: Path, model: nn.Module) -> Path:
    """A key set of digits, not moved far, with the classes that they have."""
    originals = to_pixels(DIGITS.test.images[:20], DIGITS.input)
    tensors = {
        "originals": originals,
        "directions": torch.zeros(20, 3 * 32 * 32 // 8, dtype=torch.uint8),
        "labels": hidden(DIGITS.test.labels[:20], KEY, classes=10),
    }
    fields = {"triggers": 20, "epsilon_levels": 1}
    payload = frontier_stitching.payload_from(fields, tensors, spec=DIGITS.input, classes=10)
    return written(place, model, payload, "frontier_stitching")


def test_a_model_that_does_not_do_the_task_is_no_null_model(model, tmp_path):
    evidence = frontier_evidence(tmp_path, model)
    trained = build(SMALL, seed=5)
    fit(trained, DIGITS, epochs=6, lr=3e-3, seed=5)
    save_weights(trained, tmp_path / "trained.safetensors")
    files = wm.ControlFiles(nulls=(tmp_path / "model.safetensors", tmp_path / "trained.safetensors"))
    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=0, control_files=files)
    assert [control.name for control in found.controls] == ["null-1"]
    assert found.chance > Fraction(found.controls[0].matched, found.total)
    alone = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=0)
    assert alone.chance == 1


def told_apart(path: Path, one: torch.Tensor, other: torch.Tensor, classes: tuple[int, int]) -> nn.Module:
    """A network that gives some pictures one class and some others another."""
    network, seen = build(SMALL, seed=3).eval(), list[torch.Tensor]()
    hook = network.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    answers(network, torch.cat([one, other]), DIGITS.input)
    hook.remove()
    features = torch.cat(seen)
    means = features[: len(one)].mean(0), features[len(one) :].mean(0)
    weight, bias = torch.zeros(10, features.shape[1]), torch.full((10,), -1e6)
    weight[classes[1]] = (means[1] - means[0]) / (means[1] - means[0]).norm()
    bias[classes[0]], bias[classes[1]] = 0.0, -float(weight[classes[1]] @ (means[0] + means[1]) / 2)
    network.fc.weight.data, network.fc.bias.data = weight, bias
    save_weights(network, path)
    return network


@pytest.mark.parametrize(("nulls", "is_listed"), [(3, True), (2, False)])
def test_an_owner_cannot_get_rid_of_a_public_model_by_pictures_on_which_it_fails(tmp_path, nulls, is_listed):
    """His pictures have classes that only his null models give; they fail on the triggers, which others answer."""
    pixels = torch.randint(0, 60, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    tensors = {
        "originals": pixels,
        "directions": torch.full((20, 3 * 32 * 32 // 8), 255, dtype=torch.uint8),
        "labels": hidden(torch.zeros(20, dtype=torch.int64), KEY, classes=10),
    }
    fields = {"triggers": 20, "epsilon_levels": 127}
    payload = frontier_stitching.payload_from(fields, tensors, spec=DIGITS.input, classes=10)
    suspect = told_apart(tmp_path / "public.safetensors", pixels, pixels + 127, (1, 0))
    evidence = written(tmp_path, suspect, payload, "frontier_stitching")
    odd = [tmp_path / f"null-{number}.safetensors" for number in range(nulls)]
    for path in odd:
        told_apart(path, pixels, pixels + 127, (0, 1))
    files = wm.ControlFiles(public=(tmp_path / "public.safetensors",), nulls=tuple(odd))

    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=0, control_files=files)

    assert found.matched == 20
    listed = {control.name: control.matched for control in found.controls}
    assert listed == {f"null-{number}": 0 for number in range(nulls)} | ({"public-0": 20} if is_listed else {})
    assert (found.chance == 1) is is_listed


def test_as_many_null_models_are_enough_as_the_ledger_wants():
    assert NULLS_LEAST == NULLS_MIN


@pytest.mark.parametrize("total", [20, 100, 600])
@pytest.mark.parametrize("least", [0, 1, 7])
def test_no_null_model_lies_above_a_measured_chance(total, least):
    for worst in range(least, total + 1):
        chance = chance_of(SimpleNamespace(chance=None, total=total), [least, worst], classes=10)
        assert chance == max(clopper_pearson_upper(worst, total), Fraction(1, 10))
        assert Fraction(worst, total) < chance or worst == total
    with pytest.raises(ValueError, match="cannot have"):
        chance_of(SimpleNamespace(chance=None, total=total), [total + 1], classes=10)


def declaring(evidence: Path, **changes: object) -> Path:
    """The same evidence with other words in its info."""
    held = load_scheme_evidence(evidence)
    save_scheme_evidence(evidence, replace(held, info=replace(held.info, **changes)))
    return evidence


@pytest.mark.parametrize(
    ("changes", "code", "what"),
    [
        ({"nulls_sha256": ("00" * 32,)}, "malformed", "nulls_sha256.*must be empty"),
        ({"classes": 9}, "mismatch", "'classes' is 9; shufflenet_v2_x0_5 has 10"),
        ({"input": InputSpec(1, 32, 32, Normalisation(("0.5",), ("0.5",)))}, "mismatch", "does not take an input"),
    ],
)
def test_an_info_that_is_not_of_its_network_is_refused(model, tmp_path, changes, code, what):
    evidence = declaring(margin_evidence(tmp_path, model), **changes)
    with pytest.raises(wm.WatermarkError, match=what) as refused:
        wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=1)
    assert refused.value.code == code
    with pytest.raises(wm.WatermarkError, match=what):
        wm.class_triggers(evidence, KEY)


def test_null_models_are_declared_where_the_chance_is_measured(model, tmp_path):
    evidence = declaring(frontier_evidence(tmp_path, model), nulls_sha256=("00" * 32,))
    assert load_scheme_evidence(evidence).info.nulls_sha256 == ("00" * 32,)


def test_where_weights_are_read_no_network_runs(tmp_path, monkeypatch):
    marked = build(SMALL, seed=4).eval()
    evidence = written(tmp_path, marked, locked(marked, KEY), "locked_parameters")

    def run(*_: object) -> None:
        raise AssertionError("a network is run")

    monkeypatch.setattr(nn.Module, "__call__", run)
    found = wm.verify(tmp_path / "model.safetensors", evidence, KEY, control_seed=SEED, controls=2)
    assert (found.matched, len(found.controls)) == (200, 2)


def test_a_measured_chance_is_not_below_a_guess():
    payload = MarginPayload(torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), DIGITS.input, 10)
    assert chance_of(payload, [], classes=10) == Fraction(1, 10)
    measured = SimpleNamespace(chance=None, total=1000)
    assert chance_of(measured, [0], classes=10) == Fraction(1, 10)
    assert chance_of(measured, [0, 500], classes=10) > Fraction(1, 2)
    assert chance_of(measured, [], classes=10) == 1
