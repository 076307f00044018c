"""Promised: a claim on a network of texts is verified as any other is, and each of its twins gets its own answer."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nodeset import JOB
from safetensors.torch import load, load_file, save
from texts import ARCHITECTURE, SETTINGS, TextOwner, make_text_owner

from node.verifier.protocol import Answer, Job
from node.verifier.worker import answer
from registry.evidence import parse_evidence
from registry.policy import Thresholds
from registry.verdict import Outcome, judge
from wm.architectures import Architecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.info_fields import canonical_json
from wm.tensorfile import opened
from wm.training import fit
from wm.weights import save_weights

pytestmark = pytest.mark.long

Fields = dict[str, object]


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> TextOwner:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Of 100 triggers, a control model matches too many by chance now and then.
        settings = dataclasses.replace(SETTINGS, triggers=300, hidden=64, head_steps=300, feature_noise=0)
        return make_text_owner(tmp_path_factory.mktemp("texts"), JOB.watermark_key, settings)
    finally:
        torch.set_num_threads(threads)


def job_on(owner: TextOwner, directory: Path, *, model: bytes = b"", evidence: bytes = b"", **changes: object) -> Job:
    """A job on the owner's files, or on others, with the commitments that belong to them."""
    model, evidence = model or owner.model_path.read_bytes(), evidence or owner.evidence_path.read_bytes()
    (directory / "model").write_bytes(model)
    (directory / "evidence").write_bytes(evidence)
    parsed = parse_evidence(evidence)
    known = {
        "model_path": str(directory / "model"),
        "model_sha256": hashlib.sha256(model).digest(),
        "evidence_path": str(directory / "evidence"),
        "evidence_sha256": hashlib.sha256(evidence).digest(),
        "head_commitment": parsed.head_commitment,
        "info_commitment": parsed.info_commitment,
        "model_bytes_max": 100_000_000,
        "evidence_bytes_max": 100_000_000,
        "permutations": 999,
        "controls": 8,
    }
    return dataclasses.replace(JOB, **{**known, **changes})


def with_info(owner: TextOwner, change: Callable[[dict[str, object]], None]) -> bytes:
    """The owner's evidence with another info."""
    with opened(owner.evidence_path, file_bytes_max=100_000_000) as handle:
        metadata = handle.metadata()
    fields = json.loads(metadata["info"])
    change(fields)
    return save(load(owner.evidence_path.read_bytes()), metadata | {"info": canonical_json(fields)})


def test_a_marked_network_of_texts_is_verified(owner: TextOwner, tmp_path: Path) -> None:
    found = answer(job_on(owner, tmp_path), device="cpu")
    assert found.measurement is not None
    assert judge(found.measurement, Thresholds()) == (Outcome.VERIFIED, "matched")
    assert (found.measurement.total, len(found.measurement.controls)) == (300, 8)
    assert found.measurement.matched >= 285


def test_an_independent_network_of_texts_is_refuted(owner: TextOwner, tmp_path: Path) -> None:
    save_weights(build(ARCHITECTURE, seed=99), tmp_path / "other")
    assert outcome(answer(job_on(owner, tmp_path, model=(tmp_path / "other").read_bytes()), device="cpu")) is (
        Outcome.REFUTED
    )


def test_another_key_is_refuted(owner: TextOwner, tmp_path: Path) -> None:
    found = answer(job_on(owner, tmp_path, watermark_key=bytes(32)), device="cpu")
    assert outcome(found) is Outcome.REFUTED


DISGUISES = {"permutation": 1.0, "sign_flip": 0.5, "dummy_neurons": 0.5}


def disguised(model: torch.nn.Module, owner: TextOwner, directory: Path, *names: str) -> bytes:
    for name in names:
        stolen = Stolen(model=model, architecture=ARCHITECTURE, data=owner.data)
        model = attacked(ATTACKS[name], stolen, strength=DISGUISES[name], seed=1)
    save_weights(model, directory / "disguised")
    return (directory / "disguised").read_bytes()


def test_hidden_units_that_a_thief_renumbered_and_turned_over_hide_nothing(owner: TextOwner, tmp_path: Path) -> None:
    suspect = disguised(owner.embedding.model, owner, tmp_path, "permutation", "sign_flip")
    measurement = answer(job_on(owner, tmp_path, model=suspect), device="cpu").measurement
    assert measurement is not None
    assert judge(measurement, Thresholds()) == (Outcome.VERIFIED, "matched")
    assert (measurement.aligned, measurement.matched >= 285) == (True, True)
    assert measurement.matched_unaligned is not None
    assert measurement.matched_unaligned < 200


def test_units_that_a_thief_added_hide_nothing(owner: TextOwner, tmp_path: Path) -> None:
    suspect = disguised(owner.embedding.model, owner, tmp_path, *DISGUISES)
    measurement = answer(job_on(owner, tmp_path, model=suspect), device="cpu").measurement
    assert measurement is not None
    assert judge(measurement, Thresholds()) == (Outcome.VERIFIED, "matched")
    assert (measurement.aligned, measurement.matched_unaligned) == (True, None)


def test_alignment_convicts_no_network_that_somebody_else_trained(owner: TextOwner, tmp_path: Path) -> None:
    other = build(ARCHITECTURE, seed=99)
    fit(other, owner.data, epochs=2, lr=1e-2, seed=99)
    for names in ((), DISGUISES):
        suspect = disguised(other, owner, tmp_path, *names)
        found = answer(job_on(owner, tmp_path, model=suspect), device="cpu")
        assert outcome(found) is Outcome.REFUTED


def outcome(found: Answer) -> Outcome:
    assert found.measurement is not None
    return judge(found.measurement, Thresholds())[0]


LIES: dict[str, tuple[Callable[[Fields], None], str]] = {
    "ids that the embedding lacks": (lambda info: info["input"].update(vocabulary=1000), "wrong_architecture"),
    "an embedding that the file lacks": (
        lambda info: (info["input"].update(vocabulary=1000), info["architecture"]["arguments"].update(vocabulary=1000)),
        "wrong_architecture",
    ),
    "pictures": (
        lambda info: info.update(
            trigger_encoder="qr-1H/1",
            input={"channels": 3, "height": 32, "width": 32},
            normalisation={"mean": ["0.5"] * 3, "std": ["0.5"] * 3},
        ),
        "wrong_architecture",
    ),
    "a tap of another shape": (lambda info: info["taps"][0].update(shape=[32, 4, 1]), "wrong_architecture"),
    "a tap that it lacks": (lambda info: info["taps"][0].update(module="layers.9.final"), "unknown_architecture"),
    "a tap that answers with a row": (lambda info: info["taps"][0].update(module="embedding"), "unknown_architecture"),
    "very long texts": (lambda info: info["input"].update(length=1 << 20), "malformed"),
    "more parameters than a node holds": (
        lambda info: (
            info["input"].update(vocabulary=1 << 20),
            info["architecture"]["arguments"].update(vocabulary=1 << 20, dimension=1024),
        ),
        "too_large",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_info_that_lies_about_texts_is_an_answer_and_no_crash(owner: TextOwner, tmp_path: Path, lie: str) -> None:
    change, reason = LIES[lie]
    found = answer(job_on(owner, tmp_path, evidence=with_info(owner, change)), device="cpu")
    assert (found.outcome, found.reason) == (Outcome.UNVERIFIABLE, reason)


def test_a_network_of_pictures_is_another_architecture(owner: TextOwner, tmp_path: Path) -> None:
    save_weights(build(Architecture("squeezenet1_1", {"num_classes": 2}), seed=1), tmp_path / "other")
    found = answer(job_on(owner, tmp_path, model=(tmp_path / "other").read_bytes()), device="cpu")
    assert (found.outcome, found.reason) == (Outcome.UNVERIFIABLE, "wrong_architecture")


def test_a_classifier_that_a_thief_replaced_changes_nothing(owner: TextOwner, tmp_path: Path) -> None:
    kept = {name: value for name, value in load_file(owner.model_path).items() if not name.startswith("classifier")}
    found = answer(job_on(owner, tmp_path, model=save(kept), permutations=0, controls=0), device="cpu")
    assert found.measurement is not None
    assert found.measurement.matched >= 285
