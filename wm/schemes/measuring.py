"""Verification of a mark without a branch: count what the key demands, in the suspect and in the controls.

A scheme that reads weights reads those of the suspect's file; a black-box scheme shows pictures, to the network that is
built from the file or, where the suspect sits behind an endpoint, to that: then the answers come in, and only they.

The chance of a match is exact where a PRG drew what is demanded. Where it did not, it is measured: the worst null
model's matches, bounded from above (Clopper and Pearson) so that bad luck with few triggers does not make it small.

Source: DESIGN 6.1, 6.3; SCHEMES 1.2 to 1.5, 5.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.architectures import build, skeleton
from wm.controls import Control, ControlFiles, calibrate_whole
from wm.errors import WatermarkError
from wm.progress import Progress, ProgressCallback
from wm.schemes.catalogue import scheme_of
from wm.schemes.evidence import SchemeEvidence
from wm.schemes.info import SchemeInfo
from wm.schemes.scheme import ClassTriggers, Payload, answers
from wm.statistics import MILLION, clopper_pearson_upper
from wm.weights import check_named, check_weights, load_named, load_weights

CALIBRATED_KINDS = ("null", "public")
NULLS_LEAST = 3  # of them, that do the task; the ledger's engine wants as many


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeCount:
    """What was counted.

    Attributes:
        matched, total: of the suspect.
        statistic: what that is, in the words of the ledger's engine.
        chance: of a match by a model without the mark; in millionths, rounded up.
        controls: what others match.
    """

    matched: int
    total: int
    statistic: str
    chance: Fraction
    controls: tuple[Control, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Which controls to run.

    Attributes:
        fresh: how many freshly initialised networks.
        seed: the j-th is initialised from SHA-256(seed ‖ j as 4 bytes, big-endian).
        files: the declared base, public models, null models.
    """

    fresh: int
    seed: bytes
    files: ControlFiles


def count_in_file(
    path: Path,
    evidence: SchemeEvidence,
    watermark_key: bytes,
    controls: Controls,
    *,
    device: torch.device,
    progress: ProgressCallback,
) -> SchemeCount:
    """Count in a suspect's weights.

    Args:
        path: safetensors, of exactly the architecture, as far as the scheme reads it.
        evidence: the owner's.
        watermark_key: 32 bytes.
        controls: none are run for a mark of integrity, whose answers nobody else gives.
        device: where to compute.
        progress: called after every control.

    Raises:
        WatermarkError: a file is malformed, too large or of another architecture, or a value is not finite.
        OSError: a file cannot be read.
    """
    reader = _Reader(evidence, watermark_key)
    suspect = reader.read(_loaded(path, evidence).to(device))
    return _counted(reader, suspect, controls, device, progress)


def count_in_answers(
    answered: Sequence[int],
    evidence: SchemeEvidence,
    watermark_key: bytes,
    controls: Controls,
    *,
    device: torch.device,
    progress: ProgressCallback,
) -> SchemeCount:
    """Count in the classes that an endpoint gave the triggers, in the order of `class_triggers_of`.

    Raises:
        WatermarkError: `mismatch` where the scheme reads weights, or the answers are not as many as the triggers; else
            as of `count_in_file`.
        OSError: a file cannot be read.
    """
    reader, triggers = _Reader(evidence, watermark_key), class_triggers_of(evidence, watermark_key)
    if len(answered) != len(triggers):
        raise WatermarkError("mismatch", f"{len(answered)} answers to {len(triggers)} triggers")
    suspect = torch.tensor(list(answered), dtype=torch.int64) == triggers.labels
    return _counted(reader, suspect, controls, device, progress)


def check_file(path: Path, info: SchemeInfo, *, file_bytes_max: int) -> None:
    """Check that `count_in_file` would read a file, without building the network; errors as there."""
    architecture, read_names = info.architecture, scheme_of(info.scheme).read_names
    if read_names is None:
        check_weights(path, architecture, file_bytes_max=file_bytes_max)
    else:
        check_named(path, architecture, read_names(skeleton(architecture)), file_bytes_max=file_bytes_max)


def class_triggers_of(evidence: SchemeEvidence, watermark_key: bytes) -> ClassTriggers:
    """Return what a suspect is shown.

    Raises:
        WatermarkError: `mismatch`; the scheme reads weights, which no endpoint shows.
    """
    triggers = evidence.scheme.class_triggers
    if triggers is None:
        raise WatermarkError("mismatch", f"scheme {evidence.info.scheme!r} reads weights; it needs the model's file")
    return triggers(evidence.payload, watermark_key)


def matches_in(network: nn.Module, evidence: SchemeEvidence, watermark_key: bytes) -> Tensor:
    """Tell what any network of the architecture matches; bool, shape (total,), on the CPU."""
    return _Reader(evidence, watermark_key).read(network)


def chance_of(payload: Payload, null_matched: Sequence[int], *, classes: int) -> Fraction:
    """Return the chance of a match: the payload's own, or the bound that null models' counts give.

    The worst null model is bounded from above; without any the chance is 1, and nobody is convicted. It is never less
    than that of a guess.

    Returns:
        Millionths, rounded up.
    """
    if payload.chance is not None:
        return Fraction(math.ceil(payload.chance * MILLION), MILLION)
    worst = max((clopper_pearson_upper(it, payload.total) for it in null_matched), default=Fraction(1))
    return max(worst, Fraction(math.ceil(Fraction(MILLION, classes)), MILLION))


def is_null(network: nn.Module, evidence: SchemeEvidence, watermark_key: bytes) -> bool:
    """Tell whether a network does the task, so that the chance can be measured on it."""
    return _Reader(evidence, watermark_key).is_null(network)


class _Reader:
    """Reads any network as the suspect is read."""

    def __init__(self, evidence: SchemeEvidence, watermark_key: bytes) -> None:
        self._evidence, self._key = evidence, watermark_key
        self._triggers = None
        if evidence.scheme.class_triggers is not None:
            self._triggers = class_triggers_of(evidence, watermark_key)

    @property
    def evidence(self) -> SchemeEvidence:
        return self._evidence

    def is_null(self, network: nn.Module) -> bool:
        is_honest = self._evidence.scheme.is_honest
        return is_honest is None or is_honest(
            network, self._evidence.payload, self._key, self._evidence.info.pictures()
        )

    @torch.no_grad()
    def read(self, network: nn.Module) -> Tensor:
        """Tell what a network matches; bool, shape (n,), on the CPU."""
        if self._triggers is not None:
            pictures = self._evidence.info.pictures()
            return answers(network, self._triggers.pixels, pictures) == self._triggers.labels
        agreements = self._evidence.scheme.agreements
        if agreements is None:
            raise AssertionError(f"{self._evidence.scheme.name} reads neither answers nor weights")
        return agreements(network, self._evidence.payload, self._key).cpu()


def _counted(
    reader: _Reader, suspect: Tensor, controls: Controls, device: torch.device, progress: ProgressCallback
) -> SchemeCount:
    scheme, payload = reader.evidence.scheme, reader.evidence.payload
    compared: tuple[Control, ...] = ()
    if scheme.statistic != "integrity":
        compared = tuple(_compared(reader, suspect, controls, device, progress))
    nulls = [it.matched for it in compared if it.kind in CALIBRATED_KINDS]
    return SchemeCount(
        matched=int(suspect.sum()),
        total=payload.total,
        statistic=scheme.statistic,
        chance=chance_of(payload, nulls, classes=reader.evidence.info.classes),
        controls=compared,
    )


def _compared(
    reader: _Reader, suspect: Tensor, controls: Controls, device: torch.device, progress: ProgressCallback
) -> Iterator[Control]:
    networks: list[tuple[str, Callable[[], nn.Module]]] = [
        (f"fresh-{number}", lambda number=number: _fresh(reader.evidence, controls.seed, number, device))  # type: ignore[misc]
        for number in range(controls.fresh)
    ]
    networks += [
        (name, lambda path=path: _loaded(path, reader.evidence).to(device))  # type: ignore[misc]
        for name, path in controls.files.named().items()
    ]
    nulls, unlike = 0, list[Control]()
    for number, (name, make) in enumerate(networks, start=1):
        network, kind = make(), name.partition("-")[0]
        is_null = kind in CALIBRATED_KINDS and reader.is_null(network)
        if kind != "null" or is_null:
            read = reader.read(network)
            control = Control(name, int(read.sum()), int((suspect & ~read).sum()), int((read & ~suspect).sum()))
            if kind != "public" or is_null:
                nulls += is_null
                yield control
            else:
                unlike.append(control)
        progress(Progress("controls", number, len(networks)))
    # Whether a model does the task is told by pictures and classes that the owner chose. A public model that he made
    # fail there is no null model, and alone would set too small a chance; beside enough of them it makes none smaller.
    if nulls >= NULLS_LEAST:
        yield from unlike


def _loaded(path: Path, evidence: SchemeEvidence) -> nn.Module:
    """Load of a file what the scheme reads, so that a thief who replaces the rest gains nothing."""
    architecture, read_names = evidence.info.architecture, evidence.scheme.read_names
    if read_names is None:
        return load_weights(path, architecture)
    return load_named(path, architecture, read_names(skeleton(architecture)))


def _fresh(evidence: SchemeEvidence, seed: bytes, number: int, device: torch.device) -> nn.Module:
    """Build a freshly initialised network; one that is run gets the batch statistics of public probes."""
    info = evidence.info
    network = build(info.architecture, seed=hashlib.sha256(seed + number.to_bytes(4, "big")).digest()).to(device)
    if evidence.scheme.read_names is None:
        calibrate_whole(network, info.input)
    return network
