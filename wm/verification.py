"""Verification: rebuild the watermark branch from a suspect's backbone and the owner's head, count, run the controls.

What the counts mean is judged elsewhere, by the ledger's verdict engine in exact integers. Here only floating point
happens, and as little of it as possible differs between machines: evaluation mode, fp32, no TF32, deterministic
kernels, a fixed batch size and order.

Source: Li et al. 2022, Algorithm 1; controls: SCHEMES 4.4.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from wm.backbone import features_in_evaluation
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
    """

    matched: int
    total: int
    p_value: float
    permutations: int
    permutations_as_good: int
    controls: tuple[Control, ...]
    device: str
    software: str


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
        least_matched: below this count the controls are left out, since they cannot turn a no into a yes.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        progress: called now and then.

    Returns:
        The counts.

    Raises:
        WatermarkError: a file is malformed, too large, of another architecture, or of a scheme unknown here.
        OSError: a file cannot be read.
        ValueError: the key's length.
    """
    evidence = load_evidence(evidence_path)
    _check_scheme(evidence)
    place = torch.device(_resolve(device))
    with _reproducible():
        info = evidence.info
        triggers = make_triggers(watermark_key, info.input, count=info.triggers)
        branch = Branch(evidence.head.to(place), info, triggers)
        suspect = load_backbone(model_path, info).to(place)
        read = features_in_evaluation(suspect, info.modules, triggers.images, pooling=info.pooling)
        with torch.no_grad():
            matches = agreements(logit_margins(branch.head, read).cpu(), triggers.labels)
        if int(matches.sum()) < least_matched:
            permutations, controls, control_files = 0, 0, NO_FILES
        as_good = permutations_as_good(branch, read, draws=permutations, seed=control_seed, progress=progress)
        compared = compare_with_fresh(branch, matches, count=controls, seed=control_seed, progress=progress)
        compared += compare_with_files(branch, matches, control_files, progress=progress)
    matched = int(matches.sum())
    return Evidence(
        matched=matched,
        total=info.triggers,
        p_value=tail(matched, info.triggers),
        permutations=permutations,
        permutations_as_good=as_good,
        controls=tuple(compared),
        device=_name(place),
        software=software(),
    )


def software() -> str:
    """Versions that a measurement depends on."""
    return f"torch {version('torch')}, torchvision {version('torchvision')}, Python {platform.python_version()}"


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
def _reproducible() -> Iterator[None]:
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
