"""`wmreg train`: a model without a watermark."""

from pathlib import Path

import click

from client import options
from client.marking.task import MEASURES, Task
from client.output import Report


@click.command("train", epilog="Example:  wmreg train --arch resnet18 --data digits --out baseline.safetensors")
@options.task
@options.savepoint
@click.option("--out", type=options.NEW_FILE, required=True, help="Weights file to write (safetensors).")
@options.as_json
def command(*, task: Task, savepoint: Path | None, savepoint_s: float, out: Path) -> Report:
    """Train a model without a watermark: a baseline, a control, or a model of one's own."""
    from client.files import staged_file
    from client.marking.models import architecture_of, load_data, measured_score, saved_weights, trained_model
    from client.marking.savepoints import kept_in
    from client.progress import phases

    with kept_in(savepoint, every_s=savepoint_s, out=out) as savepoints, staged_file(out) as staging:
        dataset = load_data(task)
        architecture = architecture_of(task, dataset)
        with phases() as show:
            first = None if savepoints is None else savepoints.training()
            model = trained_model(task, architecture, dataset, show, savepoint=first)
        measure, score = measured_score(model, dataset)
        sha256 = saved_weights(model, staging)
    return Report(
        document={"path": str(out), "sha256": sha256, "arch": task.arch, "seed": task.seed, f"test_{measure}": score},
        text=f"weights        {out}\nSHA-256        {sha256}\n{MEASURES[measure]:<13}  {score:.2%}",
    )
