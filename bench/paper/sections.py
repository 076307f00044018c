"""The sections of docs/results.md about one setting, each from the rows that are there; empty where there are none."""

from collections.abc import Callable, Collection, Iterator, Sequence

from bench.paper.cost import TRIGGERS, WHOLE
from bench.paper.plan import ABLATION, COSTS, FALSE
from bench.paper.settings import FIRST_OVERWRITING_EPOCHS, PAPER_OVERWRITING_EPOCHS, THIEFS_RATES, Task
from bench.paper.table import Table, by_task, goal_in, markdown, spelt
from bench.paper.units import ABLATED, ABLATED_RATE
from wm.training import BATCH_IMAGES

_POSTHOC = "post-hoc head, on the model that it was made against"
_EMBEDDING_SHARE = 0.3  # of the training, the goal


def _done(table: Table) -> Iterator[str]:
    """Say what was trained on what, and how many seeds there are of it."""
    head = ("task", "network", "training examples", "epochs", "seeds")
    yield markdown(
        head,
        [
            (
                task.name,
                _network(task),
                table.cell(task.name, "training examples", digits=0),
                str(task.epochs),
                str(table.rows[f"{task.name}: training examples"]["repeats"]),
            )
            for task in table.tasks
        ],
    )


def _network(task: Task) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in task.arguments.items())
    cut = f"first {task.tokens} tokens" if task.tokens else ""
    return ", ".join(part for part in (task.arch, chosen, cut) if part)


def _mark(table: Table) -> Iterator[str]:
    yield "### The mark and the task\n"
    figures = {
        "task accuracy, clean": "accuracy, clean, %",
        "task accuracy, marked": "marked, %",
        "task accuracy lost to the mark": "lost, points",
        "matched, marked": "matched, %",
        "marked model VERIFIED": "VERIFIED",
        "matched, marked, another key": "with another key, %",
        "matched, clean": "before the mark, %",
        "‖ΔW‖ of the tapped layers": "‖ΔW‖, % of ‖W‖",
    }
    yield by_task(table, figures, digits=2)
    yield (
        "Before the mark: what the owner's head counts on his own model as it was. The embedding keeps the two close,\n"
        "so that model passes as well, and must not be released.\n"
    )


def _tuning(table: Table) -> Iterator[str]:
    changes = [f"fine-tuning at {rate:g}" for rate in THIEFS_RATES]
    changes.append(f"fine-pruning of {100 * table.setting.pruned_share:g} %")
    figures = {}
    for change in changes:
        figures[f"matched after {change}"] = f"{change}: matched, %"
        figures[f"task accuracy after {change}"] = "task, %"
    if told := by_task(table, figures):
        yield "### After tuning with a tenth of the data\n"
        yield told
        yield f"![Matched triggers after tuning](images/results-{table.setting.name}-tuning.png)\n"


def _overwriting(table: Table) -> Iterator[str]:
    figures = _points_lost(PAPER_OVERWRITING_EPOCHS)
    last = f"overwriting, {PAPER_OVERWRITING_EPOCHS[-1]} epochs"
    figures[f"{last}: thief's own matched"] = "thief's own matched then, %"
    if not (told := by_task(table, figures, with_goals=True)):
        return
    yield "### Overwriting, beside the paper's table 3\n"
    yield (
        f"Seeds: {min(_repeats(table, figures))}. "
        "Epochs are passes over the thief's triggers, as many as the owner's; goals are the\n"
        "paper's figures. Nothing but the distance holds the thief's Adam, and after hundreds of passes with hardly\n"
        "any loss it makes leaps that take the mark and the task's accuracy with them: read what is lost beside the\n"
        "task accuracy that he is left with.\n"
    )
    yield told
    accuracies = {
        f"overwriting, {epoch} epochs: task accuracy": f"{epoch} epochs: task, %" for epoch in PAPER_OVERWRITING_EPOCHS
    }
    if left := by_task(table, accuracies):
        fewest, most = min(repeats := _repeats(table, accuracies)), max(repeats)
        fewer = "" if fewest == most else f", of {fewest} seeds where a figure was not kept of the others"
        yield f"The task accuracy that he is left with{fewer}:\n"
        yield left
    yield "Of the first passes, in which his weights move most and come back, the paper does not tell:\n"
    yield by_task(table, _points_lost(FIRST_OVERWRITING_EPOCHS))
    yield f"![Watermark accuracy lost to overwriting](images/results-{table.setting.name}-overwriting.png)\n"
    yield (
        "The thief is the authors' code's: Adam at 5e-4 on his triggers alone, held back by 1.0 ‖W - W0‖². The one of\n"
        "[attacks.md](attacks.md), `overwriting`, is harder.\n"
    )


def _repeats(table: Table, figures: Collection[str]) -> list[int]:
    """Of how many seeds each task's figures are."""
    return [row["repeats"] for metric, row in table.rows.items() if metric.partition(": ")[2] in figures]


def _points_lost(epochs: Sequence[int]) -> dict[str, str]:
    return {f"overwriting, {epoch} epochs: lost": f"{epoch} epochs: points lost" for epoch in epochs}


def _expense(table: Table) -> Iterator[str]:
    figures = {}
    for name, unit in (
        ("magnitude pruning", "share of weights"),
        ("neuron pruning", "share of filters"),
        ("spoil", "steps"),
    ):
        figures[f"{name}: mark fails at"] = f"{name}: fails at, {unit}"
        figures[f"{name}: task accuracy lost then"] = "task lost, points"
    if told := by_task(table, figures, digits=2):
        yield "### What it costs a thief to remove the mark\n"
        yield "Strength is raised until fewer than 70 % match; a dash where the mark held to the last strength.\n"
        yield told


def _equivalence(table: Table) -> Iterator[str]:
    figures = {}
    for name in ("permutation", "scaling", "sign flip"):
        figures[f"matched after {name}, as it is"] = f"{name}: as it is, %"
        figures[f"matched after {name}, aligned"] = "aligned, %"
        figures[f"VERIFIED after {name}"] = "VERIFIED"
    if told := by_task(table, figures):
        yield "### Permutation and scaling\n"
        yield (
            "All channels or hidden units renumbered; channels scaled by factors up to 10; half of the hidden units\n"
            "with the other sign. The network computes the same.\n"
        )
        yield told


def _false_positives(table: Table) -> Iterator[str]:
    suffix = ": models"
    names = [
        metric.removeprefix(f"{FALSE}: ").removesuffix(suffix)
        for metric in table.rows
        if metric.startswith(FALSE) and metric.endswith(suffix)
    ]
    if not names:
        return
    yield "### False positives\n"
    yield (
        f"On the data of {table.setting.ablated}. The paper's Algorithm 1 convicts whoever matches 70 %; beside it\n"
        "the ledger's engine with all controls. Counts are of one seed's models, as median [least, greatest] over the\n"
        "seeds. Independent models and siblings are ShuffleNets, forged heads are held against the task's network.\n"
    )
    columns = {
        "models": "models of each",
        "greatest count": "greatest count, %",
        "bare statistic convicts": "bare statistic convicts",
        "VERIFIED by the engine": "engine: VERIFIED (goal: none)",
        "the owner's own VERIFIED": "owner's own VERIFIED (goal: yes)",
    }
    rows = []
    for name in names:
        cells = [table.cell(FALSE, f"{name}: {it}", digits=1 if it == "greatest count" else 0) for it in columns]
        rows.append((name, str(table.rows[f"{FALSE}: {name}{suffix}"]["repeats"]), *cells))
    yield markdown(("who", "seeds", *columns.values()), rows)
    accuracy = table.cell(FALSE, "independent models: task accuracy of the last")
    yield f"The last independent model of each seed classifies {accuracy} % of the test set as it should.\n"
    row = table.rows.get(f"{FALSE}: {_POSTHOC}: VERIFIED by the engine")
    if row is not None and row["value"]:
        yield (
            "A post-hoc head is VERIFIED on the very model that it was fitted to: no number tells it from an honest\n"
            "one. What refuses it is the order alone: it cannot have been published before that model was there\n"
            "([attacks.md](attacks.md)).\n"
        )


def _ablation(table: Table) -> Iterator[str]:
    task = table.setting.ablated
    figures = {
        "task accuracy, clean": "accuracy, clean, %",
        "task accuracy, marked": "marked, %",
        "matched, marked": "matched, %",
        "‖ΔW‖ of the tapped layers": "‖ΔW‖, % of ‖W‖",
        f"matched after fine-tuning at {ABLATED_RATE:g}": f"fine-tuned at {ABLATED_RATE:g}: matched, %",
        f"task accuracy after fine-tuning at {ABLATED_RATE:g}": "task, %",
    }
    groups = {"R_DA head, the default": f"{task}", **{name: f"{ABLATION}: {name}" for name in ABLATED}}
    rows = []
    for name, group in groups.items():
        row = table.rows.get(f"{group}: matched, marked")
        if row is not None:
            cells = [table.cell(group, figure, digits=2) for figure in figures]
            rows.append((name, str(row["repeats"]), *cells))
    if len(rows) > 1:
        yield f"### Other losses, on {task}\n"
        yield markdown(("loss", "seeds", *figures.values()), rows)


def _cost(table: Table) -> Iterator[str]:
    figures = {
        "training, seconds": "training, s",
        "embedding, seconds": "embedding, s",
        "embedding, of the training's time": "embedding, % of training",
        "verification with all controls, seconds": "verification with all controls, s",
    }
    yield "### Cost\n"
    yield by_task(table, figures)
    yield (
        "Seconds of the processor (of the wall on a GPU). An embedding takes as long whatever the training set is:\n"
    )
    yield "\n".join(_steps(table, task) for task in table.tasks) + "\n"
    if told := _whole(table):
        yield "An embedding after a training of usual length, all of MNIST:\n"
        yield told
    triggers = [row for metric, row in table.rows.items() if metric.startswith(f"{COSTS}: {TRIGGERS} triggers")]
    if triggers:
        yield markdown(
            ("a verifier makes", "ms"),
            [
                (row["metric"].removeprefix(f"{COSTS}: ").removesuffix(", ms") + goal_in(row), spelt(row, digits=1))
                for row in triggers
            ],
        )


def _whole(table: Table) -> str:
    """Lay out what is known of the training on all of MNIST; empty where there is nothing."""
    figures = {
        "training examples": "training examples",
        "epochs": "epochs",
        "task accuracy, clean": "accuracy, clean, %",
        "task accuracy, marked": "marked, %",
        "task accuracy lost to the mark": "lost, points",
        "matched, marked": "matched, %",
        "training, seconds": "training, s",
        "embedding, seconds": "embedding, s",
        "embedding, of the training's time": "embedding, % of training",
    }
    found = [table.rows.get(f"{COSTS}: {WHOLE}: {figure}") for figure in figures]
    if None in found:
        return ""
    rows = [row for row in found if row is not None]
    cells = [
        spelt(row, digits=0 if row["value"] > 1000 or figure == "epochs" else 2)
        for figure, row in zip(figures, rows, strict=True)
    ]
    return markdown([title + goal_in(row) for title, row in zip(figures.values(), rows, strict=True)], [cells])


def _steps(table: Table, task: Task) -> str:
    """Say how long a training must be for its embedding to be a small part of it."""
    share = table.rows[f"{task.name}: embedding, of the training's time"]["value"] / 100
    examples = table.rows[f"{task.name}: training examples"]["value"]
    steps = share * task.epochs * max(1, round(examples / BATCH_IMAGES))
    least = steps / _EMBEDDING_SHARE
    return (
        f"* {task.name}: as {steps:.0f} training steps of {BATCH_IMAGES} examples; {100 * _EMBEDDING_SHARE:g} % of a "
        f"training of {least:.0f} steps,\n  {least * BATCH_IMAGES:,.0f} examples in all epochs together."
    )


def _missed(table: Table) -> Iterator[str]:
    yield "### What does not hold\n"
    missed = [row for row in table.rows.values() if row["met"] is False]
    if not missed:
        yield "Every goal is met.\n"
        return
    yield f"Of {sum(row['met'] is not None for row in table.rows.values())} goals {len(missed)} are not met:\n"
    yield (
        "\n".join(f"* {row['metric']}: {spelt({**row, 'met': None}, digits=2)}, goal {row['goal']}" for row in missed)
        + "\n"
    )


SECTIONS: Sequence[Callable[[Table], Iterator[str]]] = (
    _done,
    _mark,
    _tuning,
    _overwriting,
    _expense,
    _equivalence,
    _false_positives,
    _ablation,
    _cost,
    _missed,
)
