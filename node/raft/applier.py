"""Handing committed entries to the state machine, a batch in one transaction.

The order is the log's and each index is applied once: the state machine makes its applied index durable in the
transaction that holds the batch, and what is at or below it is not handed out again. An exception leaves a batch half
done, which nothing can repair from here, so it ends the process; PySyncObj would apply the same entry again at
every tick for ever.
"""

import logging
from collections.abc import Callable, Sequence

from node.raft.compat import REGULAR
from node.raft.failstop import EXIT_SOFTWARE, fail_stop
from node.raft.journal_format import Entry
from node.raft.types import StateMachine

logger = logging.getLogger(__name__)


class Applier:
    """The state machine as the raft thread uses it."""

    def __init__(self, machine: StateMachine, *, on_applied: Callable[[], None]) -> None:
        self._machine = machine
        self._on_applied = on_applied

    @property
    def applied_index(self) -> int:
        """Raft index of the last applied entry, durable."""
        return self._machine.applied_index

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries in one transaction and tell the node.

        Args:
            entries: contiguous; those that are applied already are skipped.
        """
        done = self._machine.applied_index
        fresh = [entry for entry in entries if entry[1] > done]
        if not fresh:
            return
        try:
            self._apply_batch(fresh)
        except Exception:  # noqa: BLE001 -- whatever it is, the batch is half done
            fail_stop(f"the state machine failed in entries {fresh[0][1]} to {fresh[-1][1]}", exit_code=EXIT_SOFTWARE)
        self._notify()

    def _apply_batch(self, entries: Sequence[Entry]) -> None:
        self._machine.begin()
        for command, index, _term in entries:
            self._machine.apply(index, command[1:] if command[:1] == REGULAR else None)
        self._machine.commit()

    def _notify(self) -> None:
        try:
            self._on_applied()
        except Exception:
            logger.exception("on_applied failed; the entries are applied all the same")
