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
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.alignment import Reference
from wm.branch import Branch, agreements, logit_margins
from wm.controls import Control, ControlFiles, compare_with_files, compare_with_fresh, permutations_as_good
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence
from wm.progress import ProgressCallback, silent
from wm.statistics import tail
from wm.triggers import make_triggers
from wm.weights import load_backbone

SCHEMES = ("mtlsign",)
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
        controls: the head on other networks (S3).
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
    aligned: bool = False
    matched_unaligned: int | None = None


def verify(  # noqa: PLR0913 (the public face: what the claim names, and what the node decides)
    model_path: Path,
    evidence_path: Path,
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
        permutations: channel permutations of S2; 0 leaves them out.
        controls: fresh networks of S3; 0 leaves them out.
        control_files: the base that the owner declared and public models, as further controls.
        least_matched: below this count the controls are left out, since they cannot turn a no into a yes. Nothing is
            aligned from it on, and from the info's own share of the triggers on.
        builder: makes the network where it is its owner's own and not of the catalogue, freshly initialised; its code
            is run, so it must not be a stranger's.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        progress: called now and then.

    Returns:
        The counts.

    Raises:
        WatermarkError: a file is malformed, too large, of another architecture, or of a scheme unknown here.
        OSError: a file cannot be read.
        ValueError: the key's length.
    """
    evidence = load_evidence(evidence_path, builder=builder)
    _check_scheme(evidence)
    place = torch.device(_resolve(device))
    with reproducible():
        info = evidence.info
        triggers = make_triggers(watermark_key, info.input, count=info.triggers)
        suspect = load_backbone(model_path, info).to(place)
        enough = max(least_matched, math.ceil(Fraction(info.gamma) * info.triggers))
        found = _count(Branch(evidence.head.to(place), info, triggers), suspect, evidence.reference, enough=enough)
        if found.matched < least_matched:
            permutations, controls, control_files = 0, 0, NO_FILES
        branch, matches = found.branch, found.matches
        as_good = permutations_as_good(branch, found.read, draws=permutations, seed=control_seed, progress=progress)
        compared = compare_with_fresh(branch, matches, count=controls, seed=control_seed, progress=progress)
        compared += compare_with_files(branch, matches, control_files, progress=progress)
    return Evidence(
        matched=found.matched,
        total=info.triggers,
        p_value=tail(found.matched, info.triggers),
        permutations=permutations,
        permutations_as_good=as_good,
        controls=tuple(compared),
        device=_name(place),
        software=software(),
        aligned=branch.reference is not None,
        matched_unaligned=found.matched_unaligned,
    )


def software() -> str:
    """Versions that a measurement depends on."""
    return f"torch {version('torch')}, torchvision {version('torchvision')}, Python {platform.python_version()}"


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
    except WatermarkError:  # other numbers of channels than the head reads
        if reference is None:
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


def _check_scheme(evidence: EvidenceFile) -> None:
    if evidence.info.scheme not in SCHEMES:
        raise WatermarkError(
            "unknown_scheme", f"scheme {evidence.info.scheme!r}; this version knows {', '.join(SCHEMES)}"
        )


def _resolve(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic fp32 inside the block; the settings are restored."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=deterministic)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
