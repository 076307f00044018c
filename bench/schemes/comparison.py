"""All five schemes on one network and one data set: what each costs, what it survives, whom it accuses.

One network is trained plainly; each scheme embeds into it by its quick recipe (MTLSign by its only one). Every suspect
is written to a file and goes through `wm.verify` and the ledger's engine with all controls, as on a node. The same
attacks meet every scheme; where the mark is of integrity, TAMPERED is what should come of an attack that changes the
function.

The network is a ResNet-18 whose stages have a quarter of the channels, so that three seeds take two CPU cores less than
an hour. The catalogue lacks it, so that a node would refuse it; the code that counts is the same.
"""

import math
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import wm
from bench.paper.subjects import key_file
from client.bundle import Bundle
from client.keystore import WatermarkKeyFile
from client.marking.measuring import SEED_BYTES
from client.marking.models import saved_weights
from registry.binomial import MILLION
from registry.counted import measurement_of
from registry.policy import Thresholds
from registry.verdict import WON, Measurement, Outcome, Statistic, judge
from wm.architectures import Architecture, OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.data import Dataset, fraction_of
from wm.evidence import EvidenceFile, save_evidence, with_reference
from wm.randomness import key_of
from wm.schemes.catalogue import NAMES, SCHEMES
from wm.schemes.evidence import SchemeEvidence, save_scheme_evidence
from wm.statistics import tail_of
from wm.training import accuracy, fit

ARCHITECTURE = "ResNet-18 of a quarter of the channels"
NARROWER, LAST_CHANNELS, TAPS = 4, 512, ("layer1", "layer2", "layer3")
EPOCHS, LR = 6, 3e-3
INDEPENDENT = 3
NULLS = 3
THIEFS_FRACTION = 0.1
ATTACKED = (
    ("ftal", 1e-4),
    ("ftal", 1e-3),
    ("magnitude_pruning", 0.5),
    ("quantisation", 8.0),
    ("quantisation", 4.0),
    ("permutation", 1.0),
    ("extraction_soft", 20.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    """One scheme's mark, and where its files are."""

    scheme: str
    bundle: Bundle
    key: WatermarkKeyFile
    nulls: tuple[Path, ...]
    architecture: OwnArchitecture
    model: nn.Module
    seconds: float


class NarrowResNet(ResNet):
    """ResNet-18 whose stages have a quarter of the channels; its first convolution is as it was.

    Args:
        classes: that it tells apart.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=classes)
        self.fc = nn.Linear(LAST_CHANNELS // NARROWER, classes)

    def _make_layer(self, block: Any, planes: int, *others: Any, **named: Any) -> nn.Sequential:  # noqa: ANN401
        # torchvision's one place where a stage's width is decided.
        return super()._make_layer(block, planes // NARROWER, *others, **named)


def measure(seed: int, data: Dataset, *, schemes: Sequence[str] = NAMES) -> dict[str, float]:
    """Measure schemes on one network, all by default.

    Returns:
        By scheme: per cent of accuracies and matches, seconds of this process, 1 or 0 of verdicts.
    """
    architecture = OwnArchitecture(builder=partial(NarrowResNet, data.classes))
    clean = _trained(architecture, data, seed)
    others = [_trained(architecture, data, 1000 * (seed + 1) + number) for number in range(INDEPENDENT)]
    nulls = tuple(_trained(architecture, data, 5000 * (seed + 1) + number) for number in range(NULLS))
    figures = {"task accuracy, clean": _per_cent(clean, data)}
    with tempfile.TemporaryDirectory() as place:
        for scheme in schemes:
            owner = _owner(scheme, clean, nulls, architecture, data, Path(place) / scheme, seed)
            figures |= {f"{scheme}: {name}": value for name, value in _figures(owner, others, data, seed)}
            print(f"comparison, seed {seed}: {scheme} is measured", flush=True)
    return figures


def _figures(owner: _Owner, others: list[nn.Module], data: Dataset, seed: int) -> Iterator[tuple[str, float]]:
    begun_s = time.process_time()
    found = _judged(owner, owner.model)
    yield "verification, seconds", time.process_time() - begun_s
    yield "embedding, seconds", owner.seconds
    yield "task accuracy", _per_cent(owner.model, data)
    yield "evidence file, kB", owner.bundle.evidence.stat().st_size / 1000
    yield "chance of a match, %", float(100 * _chance_of(found))
    yield from _told("marked", found)
    thief = Stolen(model=owner.model, architecture=owner.architecture, data=_few(data, seed))
    for name, strength in ATTACKED:
        model = attacked(ATTACKS[name], thief, strength=strength, seed=seed)
        yield from _told(f"{name} {strength:g}", _judged(owner, model))
        yield f"{name} {strength:g}: task accuracy", _per_cent(model, data)
    strangers = [_judged(owner, model) for model in others]
    yield "independent models: won", float(sum(_is_won(it) for it in strangers))
    yield "independent models: greatest matched", max(100 * it.matched / it.total for it in strangers)


def _chance_of(found: Measurement) -> Fraction:
    """That a model without the mark matches a trigger or sign, as the engine counts with it."""
    return Fraction(found.chance_ppm, MILLION)


def _told(who: str, found: Measurement) -> Iterator[tuple[str, float]]:
    outcome, _ = judge(found, Thresholds())
    yield f"{who}: matched", 100 * found.matched / found.total
    if found.statistic is not Statistic.INTEGRITY:  # that asks for all answers, and needs no chance
        yield f"{who}: evidence, bits", -math.log2(tail_of(found.matched, found.total, _chance_of(found)))
    yield f"{who}: won", float(outcome in WON)
    yield f"{who}: inconclusive", float(outcome is Outcome.INCONCLUSIVE)


def _owner(  # noqa: PLR0913, PLR0917 (what an owner has)
    scheme: str,
    clean: nn.Module,
    nulls: tuple[nn.Module, ...],
    architecture: OwnArchitecture,
    data: Dataset,
    directory: Path,
    seed: int,
) -> _Owner:
    directory.mkdir()
    bundle, key = Bundle(directory), key_file(seed, scheme)
    begun_s = time.process_time()
    embedding = wm.embed(
        clean,
        data,
        key.binding.watermark_key,
        architecture=architecture,
        scheme=scheme,
        settings=SCHEMES[scheme].quick() if scheme in SCHEMES else wm.EmbedSettings(taps=TAPS),
        seed=seed,
    )
    seconds = time.process_time() - begun_s
    files: Mapping[str, str | None] = {
        "model_sha256": saved_weights(embedding.model, bundle.model),
        "base_sha256": None,
    }
    salt, names = key_of(seed, "salt"), tuple[str, ...]()
    if isinstance(embedding, wm.SchemeEmbedding):
        is_calibrated = SCHEMES[scheme].statistic == "calibrated"
        names = _written(bundle, nulls) if is_calibrated else ()
        info = embedding.info.with_files(**files, nulls_sha256=names)  # type: ignore[arg-type]
        save_scheme_evidence(bundle.evidence, SchemeEvidence(info, embedding.payload, salt))
    else:
        evidence = EvidenceFile(embedding.head, embedding.info.with_files(**files), salt)  # type: ignore[arg-type]
        save_evidence(bundle.evidence, with_reference(evidence, embedding.model))
    return _Owner(
        scheme=scheme,
        bundle=bundle,
        key=key,
        nulls=tuple(bundle.null(name) for name in names),
        architecture=architecture,
        model=embedding.model,
        seconds=seconds,
    )


def _written(bundle: Bundle, nulls: tuple[nn.Module, ...]) -> tuple[str, ...]:
    partial = bundle.null("partial")
    partial.parent.mkdir()
    names = []
    for null in nulls:
        names.append(saved_weights(null, partial))
        partial.replace(bundle.null(names[-1]))
    return tuple(names)


def _judged(owner: _Owner, model: nn.Module) -> Measurement:
    path = owner.bundle.directory / "suspect.safetensors"
    saved_weights(model, path)
    counted = wm.verify(
        path,
        owner.bundle.evidence,
        owner.key.binding.watermark_key,
        control_seed=secrets.token_bytes(SEED_BYTES),
        control_files=wm.ControlFiles(nulls=owner.nulls),
        builder=owner.architecture.builder,
    )
    return measurement_of(counted)


def _is_won(found: Measurement) -> bool:
    return judge(found, Thresholds())[0] in WON


def _trained(architecture: Architecture, data: Dataset, seed: int) -> nn.Module:
    model = build(architecture, seed=seed)
    fit(model, data, epochs=EPOCHS, lr=LR, seed=seed)
    return model.eval()


def _few(data: Dataset, seed: int) -> Dataset:
    return replace(data, train=fraction_of(data.train, THIEFS_FRACTION, seed=seed + 2000))


def _per_cent(model: nn.Module, data: Dataset) -> float:
    return 100 * accuracy(model, data.test.images, data.test.labels)
