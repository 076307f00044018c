"""What an embedding measured on its way, a row for each few steps: for curves, not for verdicts.

Nothing is computed for it alone but the head's answers without noise: the losses are those of the steps, and the
triggers are counted in the batches in which they are met, so that one pass over them counts each once.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wm.savepoint import State, prefixed, under

ROWS_MAX = 200  # about as many as a plot can show
STEP = "step"
MARKED, SHADOW, NEGATIVE = "marked", "unseen_shadow", "negative"  # curves


class History:
    """Rows of means, each over the same number of steps; and shares of all triggers, counted now and then.

    Args:
        steps: how many there will be.
        pass_steps: in how many of them every trigger is met once; a row has at least as many.
        curves: names of the counted shares.

    Attributes:
        steps: how many are done.
        curves: by name, [step, share of the triggers].
    """

    def __init__(self, *, steps: int, pass_steps: int, curves: Sequence[str]) -> None:
        self.steps = 0
        self.curves: dict[str, list[list[float]]] = {name: [] for name in curves}
        self._steps_a_row = max(pass_steps, -(-steps // ROWS_MAX))
        self._rows: dict[str, list[float]] = {STEP: []}  # NaN where a row lacks a value
        self._pending: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Add to the present row.

        Args:
            values: by name: a scalar, or one entry for each of several networks, of which the greatest mean counts. No
                value is read before the row is full, so that a GPU need not be waited for.
        """
        for name, value in values.items():
            kept = value.detach() if isinstance(value, Tensor) else torch.tensor(value)
            self._pending.setdefault(name, []).append(kept.double())

    @property
    def latest(self) -> dict[str, Tensor]:
        """The last values of the present row by name, scalars, not read yet; none when no row is under way."""
        return {name: kept[-1].max() for name, kept in self._pending.items()}

    def note(self, name: str, share: float) -> None:
        """Put a share of all triggers into a curve, as of now."""
        self.curves[name].append([self.steps, share])

    def end_row(self, *, early: bool = False) -> None:
        """End the present row, if it is full; or early, at the end of the training."""
        if not self._pending or (self.steps % self._steps_a_row and not early):
            return
        values = {name: float(torch.stack(kept).mean(0).max()) for name, kept in self._pending.items()}
        self._pending = {}
        rows = len(self._rows[STEP])
        for name in values:
            self._rows.setdefault(name, [math.nan] * rows)
        for name, column in self._rows.items():
            column.append(float(self.steps) if name == STEP else values.get(name, math.nan))

    def rows(self) -> list[dict[str, float]]:
        """Return the rows, JSON-able: `step`, how many steps were done, and what was measured by name."""
        told = []
        for number, step in enumerate(self._rows[STEP]):
            values = {name: column[number] for name, column in self._rows.items() if math.isfinite(column[number])}
            told.append({**values, STEP: int(step)})
        return told

    def state(self) -> State:
        """Return all of it, with the row that is not full yet."""
        rows = {name: torch.tensor(column, dtype=torch.float64) for name, column in self._rows.items()}
        pending = {name: torch.stack(kept) for name, kept in self._pending.items()}
        curves = {name: torch.tensor(points, dtype=torch.float64) for name, points in self.curves.items()}
        parts = {"rows": rows, "pending": pending, "curves": curves, "done": {"steps": torch.tensor(self.steps)}}
        return {name: value for part, it in parts.items() for name, value in prefixed(part, it).items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""
        self.steps = int(state["done.steps"])
        self._rows = {STEP: [], **{name: column.tolist() for name, column in under("rows", state).items()}}
        self._pending = {name: list(kept) for name, kept in under("pending", state).items()}
        held = under("curves", state)
        self.curves = {name: [[int(step), share] for step, share in held[name].tolist()] for name in self.curves}
