"""Making a bundle: train or fine-tune, embed the watermark, measure, and write it all at once.

Nothing appears under the bundle's name until every file of it is written; what was interrupted leaves nothing.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Any

from torch import nn

import wm
from client.bundle import Bundle
from client.files import write_atomic
from client.keystore import WatermarkKeyFile, save_watermark_key
from client.models import (
    Show,
    Task,
    architecture_of,
    check_scheme,
    check_taps,
    load_data,
    reporting,
    saved_weights,
    task_accuracy,
    trained_model,
    watermark_errors,
)
from client.plots import plot_report
from registry.verdict import p_value
from wm.branch import count_matched
from wm.evidence import SALT_BYTES, EvidenceFile, save_evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A model before and after, and what embedding it gave."""

    clean: nn.Module
    embedding: wm.Embedding
    report: dict[str, Any]


def embed(
    task: Task,
    key_file: WatermarkKeyFile,
    *,
    scheme: str,
    settings: wm.EmbedSettings | None = None,
    show: Show,
) -> Marked:
    """Train the model plainly, then embed the watermark; `wm.embed` works on a copy.

    Args:
        task: what to train, on what.
        key_file: the watermark key.
        scheme: the watermark scheme's name.
        settings: its recipe; None takes the measured one.
        show: is told how far it is.

    Raises:
        InputError, InvalidError: the task cannot be done as it is put.
    """
    check_scheme(scheme)
    data = load_data(task)
    architecture = architecture_of(task, data)
    check_taps(architecture, settings)
    clean = trained_model(task, architecture, data, show)
    watermark_key = key_file.binding.watermark_key
    with watermark_errors():
        embedding = wm.embed(
            clean,
            data,
            watermark_key,
            architecture=architecture,
            scheme=scheme,
            settings=settings,
            seed=task.seed,
            progress=reporting(show),
        )
    head, info = embedding.head, embedding.info
    matched = {
        "clean": count_matched(clean, head, info, watermark_key),
        "marked": count_matched(embedding.model, head, info, watermark_key),
    }
    report = {
        "scheme": scheme,
        "arch": task.arch,
        "data": task.data,
        "fraction": task.fraction,
        "seed": task.seed,
        "training_images": len(data.train),
        "test_accuracy": {"clean": task_accuracy(clean, data), "marked": task_accuracy(embedding.model, data)},
        "matched": matched,
        "triggers": info.triggers,
        "p_value": p_value(matched["marked"], info.triggers),
        "embedding": embedding.report,
    }
    return Marked(clean=clean, embedding=embedding, report=report)


def write_bundle(
    bundle: Bundle, marked: Marked, key_file: WatermarkKeyFile, *, base_sha256: str | None, keep_clean: bool
) -> dict[str, Any]:
    """Write a bundle into an empty directory; return its report.

    Args:
        bundle: in a staged directory.
        marked: what to write.
        key_file: the watermark key that was embedded.
        base_sha256: hash of the weights that the training began with, if any.
        keep_clean: whether to write the model before the embedding as well.
    """
    model_sha256 = saved_weights(marked.embedding.model, bundle.model)
    info = marked.embedding.info.with_files(model_sha256=model_sha256, base_sha256=base_sha256)
    evidence = EvidenceFile(marked.embedding.head, info, secrets.token_bytes(SALT_BYTES))
    evidence_sha256 = save_evidence(bundle.evidence, evidence)
    bundle.evidence.chmod(0o600)  # secret until a claim: whoever holds the head can train against it
    save_watermark_key(bundle.watermark_key, key_file)
    if keep_clean:
        saved_weights(marked.clean, bundle.clean)
    files = {"model_sha256": model_sha256, "evidence_sha256": evidence_sha256, "base_sha256": base_sha256}
    report = marked.report | files
    write_atomic(bundle.report, (json.dumps(report, indent=1) + "\n").encode())
    plot_report(report, bundle.plot)
    return report
