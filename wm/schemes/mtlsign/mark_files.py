"""The files of a mark, as a bundle of `wmreg embed` has them."""

import secrets
import shutil
from pathlib import Path

from torch import nn

from wm import tensorfile
from wm.architectures import OwnArchitecture
from wm.evidence import SALT_BYTES, EvidenceFile, save_evidence, with_reference
from wm.head import Head
from wm.info import Info
from wm.schemes.mtlsign.preparation import check_precision
from wm.weights import check_backbone, save_weights

MODEL, EVIDENCE, BASE = "model.safetensors", "evidence.safetensors", "base.safetensors"


def write_mark(directory: Path, model: nn.Module, head: Head, info: Info, *, base: Path | None) -> None:
    """Write weights, evidence and a copy of the base; arguments and errors as of `Mark.save`."""
    directory.mkdir(parents=True, exist_ok=True)
    base_sha256 = None if base is None else tensorfile.sha256_of(base)
    check_precision(model)
    info = info.with_files(model_sha256=save_weights(model, directory / MODEL), base_sha256=base_sha256)
    if not isinstance(info.architecture, OwnArchitecture):
        check_backbone(directory / MODEL, info)
    # The one thing here that no seed may decide: the salt hides the info behind a hash.
    evidence = EvidenceFile(head, info, secrets.token_bytes(SALT_BYTES))
    save_evidence(directory / EVIDENCE, with_reference(evidence, model))
    if base is not None and base.resolve() != (directory / BASE).resolve():
        shutil.copyfile(base, directory / BASE)
