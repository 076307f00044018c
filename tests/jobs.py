"""Jobs for the verifier process, on files that a test writes."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from marked import MarkedFiles
from nodeset import JOB
from safetensors.numpy import save

from node.verifier.protocol import Job
from registry.errors import MalformedError
from registry.evidence import parse_evidence

MODEL = b"not really a model"


def evidence_bytes(*, scheme: str = "mtlsign", base: bytes | None = None) -> bytes:
    base_sha256 = None if base is None else hashlib.sha256(base).hexdigest()
    info = json.dumps({"base_sha256": base_sha256, "scheme": scheme}, separators=(",", ":"))
    metadata = {"format": "wmreg-evidence/1", "salt": "00" * 32, "info": info}
    return save({"w": np.zeros(3, np.float32)}, metadata)


def job(tmp_path: Path, *, model: bytes = MODEL, evidence: bytes | None = None, **changes: object) -> Job:
    """A job on these files, with the commitments that belong to them."""
    evidence = evidence_bytes() if evidence is None else evidence
    (tmp_path / "model").write_bytes(model)
    (tmp_path / "evidence").write_bytes(evidence)
    try:
        parsed = parse_evidence(evidence)
        commitments = {"head_commitment": parsed.head_commitment, "info_commitment": parsed.info_commitment}
    except MalformedError:
        commitments = {}
    known = {
        "model_path": str(tmp_path / "model"),
        "model_sha256": hashlib.sha256(model).digest(),
        "model_bytes_max": 100_000_000,
        "evidence_path": str(tmp_path / "evidence"),
        "evidence_sha256": hashlib.sha256(evidence).digest(),
        "evidence_bytes_max": 100_000_000,
    }
    return dataclasses.replace(JOB, **{**known, **commitments, **changes})


def on_files(marked: MarkedFiles, tmp_path: Path, *, model: bytes | None = None, **changes: object) -> Job:
    known = {"permutations": 19, "controls": 1, **changes}
    content = marked.model.read_bytes() if model is None else model
    return job(tmp_path, model=content, evidence=marked.evidence.read_bytes(), **known)
