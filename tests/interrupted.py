"""A training that is killed: its savepoint is written so often, and then nothing more happens."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wm.savepoint import Savepoint


class KilledError(Exception):
    """Stands for a signal: whatever was not written is lost."""


class Killing(Savepoint):
    """Keeps every state, and kills the training after so many."""

    def __init__(self, path: Path, *, after: int) -> None:
        super().__init__(path, every_s=0)
        self._left = after

    def write(self, state: Mapping[str, Tensor]) -> None:
        super().write(state)
        self._left -= 1
        if not self._left:
            raise KilledError
