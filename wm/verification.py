"""Verification: rebuild the watermark branch from a suspect's backbone and the owner's head, count, run the controls.

What the counts mean is judged elsewhere, by the ledger's verdict engine in exact integers. Here only floating point
happens, and as little of it as possible differs between machines: evaluation mode, fp32, no TF32, deterministic
kernels, a fixed batch size and order.

The suspect is first read as it is. Only where that does not convict, and the evidence holds a reference, are its
channels aligned and read again (`wm.alignment`); then all controls go the same way. Of the two counts the greater one
stands.

Source: Li et al. 2022, Algorithm 1; controls: SCHEMES 4.4; alignment: SCHEMES 4.5.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.alignment import Reference
from wm.architectures import Architecture
from wm.branch import Branch, agreements, logit_margins
from wm.computing import name_of, place_of, reproducible, software
from wm.controls import Control, ControlFiles, compare_with_files, compare_with_fresh, permutations_as_good
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence
from wm.info import Info
from wm.progress import ProgressCallback, silent
from wm.schemes import mtlsign
from wm.schemes.evidence import info_in, load_scheme_evidence, scheme_named_in
from wm.schemes.measuring import Controls, SchemeCount, check_file, class_triggers_of, count_in_answers, count_in_file
from wm.schemes.scheme import ClassTriggers
from wm.statistics import tail, tail_of
from wm.triggers import make_triggers
from wm.weights import MODEL_BYTES_MAX, check_backbone, load_backbone

PERMUTATIONS = 999
CONTROLS = 8
NO_FILES = ControlFiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one verification measured.

    Attributes:
        matched: triggers that the branch answers as the key demands.
        total: all triggers.
        p_value: exact binomial tail of the count.
        permutations: channel permutations drawn (S2).
        permutations_as_good: those that matched at least as many.
        controls: the same on other networks (S3).
        statistic: what was counted, in the words of the ledger's engine: branch, signs, classes, calibrated, integrity.
        chance: that a model without the mark matches one.
        device: what computed it, such as "cpu" or the name of a GPU.
        software: versions that computed it.
        aligned: whether the suspect's channels, and those of all controls, were aligned for these numbers.
        matched_unaligned: what the suspect matched before; None where nothing was aligned, or where it has other
            numbers of channels and cannot be read as it is.
    """

    matched: int
    total: int
    p_value: float
    permutations: int
    permutations_as_good: int
    controls: tuple[Control, ...]
    device: str
    software: str
    statistic: str = "branch"
    chance: Fraction = Fraction(1, 2)
    aligned: bool = False
    matched_unaligned: int | None = None


def verify(  # noqa: PLR0913 (the public face: what the claim names, and what the node decides)
    model_path: Path | str,
    evidence_path: Path | str,
    watermark_key: bytes,
    *,
    control_seed: bytes,
    permutations: int = PERMUTATIONS,
    controls: int = CONTROLS,
    control_files: ControlFiles = NO_FILES,
    least_matched: int = 0,
    builder: Callable[[], nn.Module] | None = None,
    device: str = "cpu",
    progress: ProgressCallback = silent,
) -> Evidence:
    """Measure how far a suspect carries the watermark of a key and a head.

    Args:
        model_path: the suspect's weights, safetensors; nothing behind the last tap is read.
        evidence_path: the owner's evidence file.
        watermark_key: 32 bytes.
        control_seed: decides permutations and fresh networks; must not have been known to the owner when he published.
        permutations: channel permutations of S2; 0 leaves them out. A mark without a branch has none.
        controls: fresh networks of S3; 0 leaves them out.
        control_files: the base that the owner declared and public models, as further controls.
        least_matched: of a branch; below this count the controls are left out, since they cannot turn a no into a yes.
            Nothing is aligned from it on, and from the info's own share of the triggers on. Of a mark without a branch
            controls are always run: what is few of it may depend on them.
        builder: makes the network where it is its owner's own and not of the catalogue, freshly initialised; its code
            is run, so it must not be a stranger's.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        progress: called now and then.

    Returns:
        The counts.

    Raises:
        WatermarkError: a file is malformed, too large, of another architecture, or of a scheme unknown here.
        OSError: a file cannot be read.
        ValueError: the key's length, or a negative number of permutations or controls.
    """
    if min(permutations, controls) < 0:
        raise ValueError(f"permutations {permutations} and controls {controls} must be 0 or more")
    model_path, evidence_path = Path(model_path), Path(evidence_path)
    place = place_of(device)
    if scheme_named_in(evidence_path) != mtlsign.NAME:
        of_scheme = load_scheme_evidence(evidence_path, builder=builder)
        of_files = Controls(fresh=controls, seed=control_seed, files=control_files)
        with reproducible():
            count = count_in_file(model_path, of_scheme, watermark_key, of_files, device=place, progress=progress)
        return _of_scheme(count, place)
    evidence = load_evidence(evidence_path, builder=builder)
    beside = _Beside(permutations, controls, control_seed, control_files, least_matched)
    with reproducible():
        return _verify_branch(model_path, evidence, watermark_key, beside, place=place, progress=progress)


def verify_answers(  # noqa: PLR0913 (as of `verify`)
    answers: Sequence[int],
    evidence_path: Path,
    watermark_key: bytes,
    *,
    control_seed: bytes,
    controls: int = CONTROLS,
    control_files: ControlFiles = NO_FILES,
    device: str = "cpu",
    progress: ProgressCallback = silent,
) -> Evidence:
    """Measure how far the answers of a prediction endpoint carry a black-box mark.

    Args:
        answers: the class that the endpoint gave each of `class_triggers`, in their order.
        evidence_path: the owner's evidence file.
        watermark_key: 32 bytes.
        control_seed: decides the fresh networks; as of `verify`.
        controls: fresh networks, which are run here, as all controls are.
        control_files: the base that the owner declared, public models and null models.
        device: where the controls are computed; as of `verify`.
        progress: called after every control.

    Raises:
        WatermarkError: a file is malformed, or `mismatch` where the scheme needs a model's file, or the answers are not
            as many as the triggers.
        OSError, ValueError: as of `verify`.
    """
    place = place_of(device)
    evidence = load_scheme_evidence(evidence_path)
    of_scheme = Controls(fresh=controls, seed=control_seed, files=control_files)
    with reproducible():
        count = count_in_answers(answers, evidence, watermark_key, of_scheme, device=place, progress=progress)
    return _of_scheme(count, place)


def class_triggers(evidence_path: Path, watermark_key: bytes) -> ClassTriggers:
    """Return the pictures that a black-box claim shows a suspect, and the class that the key demands of each.

    Raises:
        WatermarkError: as of `verify_answers`.
        OSError: the file cannot be read.
    """
    if scheme_named_in(evidence_path) == mtlsign.NAME:
        raise WatermarkError("mismatch", "scheme 'mtlsign' reads a network's features; it needs the model's file")
    return class_triggers_of(load_scheme_evidence(evidence_path), watermark_key)


def architecture_in(evidence_path: Path) -> Architecture:
    """Return the architecture that an evidence file names, whatever its scheme.

    Raises:
        WatermarkError: the evidence is malformed.
        OSError: the file cannot be read.
    """
    return info_in(evidence_path).architecture


def check_suspect(model_path: Path, evidence_path: Path, *, model_bytes_max: int = MODEL_BYTES_MAX) -> None:
    """Check that `verify` would read a model's file, without building the network.

    Args:
        model_path: safetensors.
        evidence_path: the owner's evidence file.
        model_bytes_max: largest acceptable model.

    Raises:
        WatermarkError: it would not, naming the tensor; or the evidence is malformed.
        OSError: a file cannot be read.
    """
    info = info_in(evidence_path)
    if isinstance(info, Info):
        check_backbone(model_path, info, file_bytes_max=model_bytes_max)
    else:
        check_file(model_path, info, file_bytes_max=model_bytes_max)


def _of_scheme(count: SchemeCount, place: torch.device) -> Evidence:
    return Evidence(
        matched=count.matched,
        total=count.total,
        p_value=tail_of(count.matched, count.total, count.chance),
        permutations=0,
        permutations_as_good=0,
        controls=count.controls,
        device=name_of(place),
        software=software(),
        statistic=count.statistic,
        chance=count.chance,
    )


@dataclass(frozen=True, slots=True)
class _Beside:
    """What is run beside the suspect; as of `verify`."""

    permutations: int
    controls: int
    seed: bytes
    files: ControlFiles
    least_matched: int


def _verify_branch(
    model_path: Path,
    evidence: EvidenceFile,
    watermark_key: bytes,
    beside: _Beside,
    *,
    place: torch.device,
    progress: ProgressCallback,
) -> Evidence:
    """Count what a head answers on a suspect's features, and run the controls if they can change anything."""
    info, seed = evidence.info, beside.seed
    triggers = make_triggers(watermark_key, info.input, count=info.triggers)
    suspect = load_backbone(model_path, info).to(place)
    enough = max(beside.least_matched, math.ceil(Fraction(info.gamma) * info.triggers))
    found = _count(Branch(evidence.head.to(place), info, triggers), suspect, evidence.reference, enough=enough)
    if found.matched < beside.least_matched:
        beside = _Beside(0, 0, seed, NO_FILES, beside.least_matched)
    branch, matches = found.branch, found.matches
    as_good = permutations_as_good(branch, found.read, draws=beside.permutations, seed=seed, progress=progress)
    compared = compare_with_fresh(branch, matches, count=beside.controls, seed=seed, progress=progress)
    compared += compare_with_files(branch, matches, beside.files, progress=progress)
    return Evidence(
        matched=found.matched,
        total=info.triggers,
        p_value=tail(found.matched, info.triggers),
        permutations=beside.permutations,
        permutations_as_good=as_good,
        controls=tuple(compared),
        device=name_of(place),
        software=software(),
        aligned=branch.reference is not None,
        matched_unaligned=found.matched_unaligned,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Count:
    """One reading of the suspect: with which branch, the features, which triggers match, and what did before."""

    branch: Branch
    read: Tensor
    matches: Tensor
    matched_unaligned: int | None = None

    @property
    def matched(self) -> int:
        return int(self.matches.sum())


def _count(branch: Branch, suspect: nn.Module, reference: Reference | None, *, enough: int) -> _Count:
    """Count as it is, and aligned where that is not enough; the greater count stands."""
    plain: _Count | None = None
    try:
        plain = _counted(branch, suspect)
    except WatermarkError as error:
        # Other numbers of channels than the head reads, or channels so large that its answers overflow: a thief's
        # factor, which alignment takes back. Where the head or the network is to blame, the second reading raises too.
        if reference is None or error.code not in {"mismatch", "malformed"}:
            raise
    if plain is not None and (reference is None or plain.matched >= enough):
        return plain
    aligned = _counted(replace(branch, reference=reference), suspect)
    if plain is None:
        return aligned
    return replace(aligned, matched_unaligned=plain.matched) if aligned.matched > plain.matched else plain


@torch.no_grad()
def _counted(branch: Branch, suspect: nn.Module) -> _Count:
    read = branch.read(suspect)
    return _Count(branch, read, agreements(logit_margins(branch.head, read).cpu(), branch.triggers.labels))
