"""Whether this node keeps up with the ledger, and for how long it has not (DESIGN 5: health by freshness).

Four things follow each other: Raft commits, the store applies, this node signs, a quorum cosigns. Sizes alone say
nothing, since under load each is always a little behind the one before. What counts is for how long the same entries
have waited. Checkpoints are cosigned when somebody asks for them; so that the last entries of a busy hour do not stay
unattested until then, and a quorum that has gone is noticed, the watch asks as well.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from node.gather import Gatherer
from node.ledger import LedgerService
from node.raft.types import RaftStatus
from registry.errors import RegistryError

PERIOD_S = 1.0
GATHER_TIMEOUT_S = 30.0
_IDLE_S = 3600.0


class Lag:
    """For how long something has stayed behind what it has to reach.

    Of a goal that moves on, one value at a time is watched, so a lag that is made up for in part is shorter than it
    seems to an observer of the numbers, and one that keeps its length while both move on is none.
    """

    def __init__(self) -> None:
        self._goal, self._since_s = 0, 0.0

    def observe(self, *, goal: int, reached: int, now_s: float) -> None:
        """Take note of both numbers at a time, in seconds that never go back."""
        if self._goal and reached < self._goal:
            return
        self._goal, self._since_s = (goal, now_s) if reached < goal else (0, 0.0)

    def late_s(self, now_s: float) -> float:
        """Seconds for which the watched value has not been reached."""
        return now_s - self._since_s if self._goal else 0.0


class Watch:
    """Looks now and then how far each step has come.

    Args:
        ledger: what is applied and signed.
        gatherer: what a quorum has cosigned.
        raft_status: what is committed.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        ledger: LedgerService,
        gatherer: Gatherer,
        raft_status: Callable[[], RaftStatus],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._gatherer, self._raft_status, self._clock = ledger, gatherer, raft_status, clock
        self._lags = {"applied": Lag(), "signed": Lag(), "cosigned": Lag()}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observe())
            tasks.create_task(self._gather())

    def lags_s(self) -> dict[str, float]:
        """Seconds by which each step is late: applied, signed, cosigned."""
        raft, size, now_s = self._raft_status(), self._ledger.store.size, self._clock()
        steps = {
            "applied": (raft.commit_index, raft.applied_index),
            "signed": (size, self._ledger.signed.value),
            "cosigned": (size, self._gatherer.latest_size),
        }
        for step, (goal, reached) in steps.items():
            self._lags[step].observe(goal=goal, reached=reached, now_s=now_s)
        return {step: lag.late_s(now_s) for step, lag in self._lags.items()}

    async def _observe(self) -> None:
        while True:
            self.lags_s()
            await asyncio.sleep(PERIOD_S)

    async def _gather(self) -> None:
        """Have every growth of the log cosigned, at most once in a period."""
        while True:
            if await self._ledger.signed.wait_for(self._gatherer.latest_size + 1, _IDLE_S):
                with suppress(RegistryError):  # too few peers answer: the lag says so
                    await self._gatherer.quorum_note(self._ledger.signed.value, timeout_s=GATHER_TIMEOUT_S)
            await asyncio.sleep(PERIOD_S)
