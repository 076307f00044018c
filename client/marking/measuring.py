"""Measuring a model as a node would, with the owner's own files.

The node's verifier process does the same with the files that a claim points to; both leave the judgement to the
ledger's verdict engine.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import wm
from client.bundle import Bundle, declared_models
from client.errors import InvalidError
from client.files import sha256_file
from client.marking.models import Show, device_of, reporting, watermark_errors
from registry.counted import ACCUSES_ITSELF, accuses_itself, measurement_of
from registry.verdict import Measurement
from wm.schemes.frontier_stitching import theta

__all__ = ["Trial", "measure", "theta"]

PERMUTATIONS, CONTROLS = 999, 8
SEED_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How to measure.

    Attributes:
        controls: whether to run S2 and S3 as well, with a fresh seed.
        device: torch's word for where to compute, or "auto".
        public: weights of public models, as further controls.
    """

    controls: bool
    device: str
    public: tuple[Path, ...] = ()


def measure(model: Path, bundle: Bundle, trial: Trial, show: Show) -> Measurement:
    """Count the matched triggers, and run the controls if they are wanted, with the models that the bundle declares.

    Args:
        model: the suspect's weights, safetensors.
        bundle: the owner's evidence and watermark key.
        trial: how to measure.
        show: is told how far the controls are.

    Raises:
        InputError: there is no such device.
        InvalidError: a file is malformed, the model is of another architecture, or evidence of integrity contradicts
            itself.
        OSError: a file cannot be read.
    """
    watermark_key = bundle.load_watermark_key().binding.watermark_key
    evidence = bundle.load_evidence()  # the ledger's own, stricter reading of the file
    base, nulls = declared_models(bundle, evidence) if trial.controls else (None, ())
    with watermark_errors():
        found = wm.verify(
            model,
            bundle.evidence,
            watermark_key,
            control_seed=secrets.token_bytes(SEED_BYTES),
            permutations=PERMUTATIONS if trial.controls else 0,
            controls=CONTROLS if trial.controls else 0,
            control_files=wm.ControlFiles(base=base, public=trial.public, nulls=nulls),
            device=str(device_of(trial.device)),
            progress=reporting(show),
        )
    measurement = measurement_of(found)
    if accuses_itself(measurement, evidence, sha256_file(model)[0]):
        message = f"{bundle.evidence}: {ACCUSES_ITSELF}; nodes find a claim with it UNVERIFIABLE"
        raise InvalidError(message, code="malformed")
    return measurement
