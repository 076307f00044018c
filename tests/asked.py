"""Evidence of a black-box mark that nobody was trained on, for tests of what is asked and counted."""

import hashlib
from pathlib import Path

import torch

from wm import data
from wm.architectures import Architecture
from wm.schemes.evidence import SchemeEvidence, save_scheme_evidence
from wm.schemes.fragile import FragilePayload
from wm.schemes.info import SchemeInfo
from wm.schemes.margin import MarginPayload

KEY = bytes(range(32))
SMALL = Architecture("shufflenet_v2_x0_5", {"num_classes": 10})
COUNT = 100


def margin_evidence(path: Path, model: bytes = b"the marked model") -> Path:
    """Write the evidence of random triggers, whose labels any key draws, for a model's file."""
    spec = data.digits().input
    pixels = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    payload = MarginPayload(pixels, spec, 10)
    info = SchemeInfo(scheme="margin", architecture=SMALL, input=spec, classes=10, payload=payload.fields())
    sha256 = hashlib.sha256(model).hexdigest()
    save_scheme_evidence(
        path, SchemeEvidence(info.with_files(model_sha256=sha256, base_sha256=None), payload, bytes(32))
    )
    return path


def fragile_evidence(path: Path, model: bytes) -> Path:
    """Write the evidence of an integrity mark with random triggers, which no model answers, for a model's file."""
    spec = data.digits().input
    pixels = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    payload = FragilePayload(
        pixels=pixels, classes=10, tolerates_tf32=False, margin_least="1.000e-05", margin_most="2.000e-05"
    )
    info = SchemeInfo(scheme="fragile", architecture=SMALL, input=spec, classes=10, payload=payload.fields())
    sha256 = hashlib.sha256(model).hexdigest()
    save_scheme_evidence(
        path, SchemeEvidence(info.with_files(model_sha256=sha256, base_sha256=None), payload, bytes(32))
    )
    return path
