"""`wmreg train`: a model without a watermark."""

from pathlib import Path

import click

from client import options
from client.marking.task import MEASURES, Task, unlearnt
from client.output import Report


@click.command("train", epilog="Example:  wmreg train --arch resnet18 --data digits --out baseline.safetensors")
@options.task
@options.savepoint
@click.option("--out", type=options.NEW_FILE, required=True, help="Weights file to write (safetensors).")
@options.as_json
def command(*, task: Task, savepoint: Path | None, savepoint_s: float, out: Path) -> Report:
    """Train a model without a watermark: a baseline, a control, or a model of one's own."""
    from client.files import staged_file
    from client.marking.models import (
        architecture_of,
        constant_score,
        load_data,
        measured_score,
        saved_weights,
        trained_model,
    )
    from client.marking.savepoints import kept_in
    from client.progress import phases

    with kept_in(savepoint, every_s=savepoint_s, out=out) as savepoints, staged_file(out) as staging:
        dataset = load_data(task)
        architecture = architecture_of(task, dataset)
        with phases() as show:
            first = None if savepoints is None else savepoints.training()
            model = trained_model(task, architecture, dataset, show, savepoint=first)
        (measure, score), constant = measured_score(model, dataset), constant_score(dataset)
        sha256 = saved_weights(model, staging)
    document = {
        "path": str(out),
        "sha256": sha256,
        "arch": task.arch,
        "seed": task.seed,
        f"test_{measure}": score,
        "test_constant": constant,
    }
    text = [
        f"weights        {out}",
        f"SHA-256        {sha256}",
        f"{MEASURES[measure]:<13}  {score:.2%}",
        *unlearnt(score, constant),
    ]
    return Report(document=document, text="\n".join(text))
