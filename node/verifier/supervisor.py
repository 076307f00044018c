"""Minds the verifier processes: a fresh one for each claim, started before it is needed.

A process reads the files of one claim and is then ended, whatever came of it, so what a hostile file does to it is done
to no other claim. Importing torch takes seconds; therefore the next process starts while one works, and waits when the
work is done. There are at most two, and one when there is nothing to do. A process that was forked after the import
would be cheaper, but torch's threads and CUDA do not survive a fork.

A job takes only so long. One on which the process died is tried once more; then the answer is that this claim crashes
the verifier. After each death the pause before the next start grows. A process that does not even start says nothing of
the job: that is no answer but this node's trouble, and an alarm until it starts.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from prometheus_client import Histogram

from node.config import VerifierSettings
from node.logs import fields
from node.verifier.process import CrashError, VerifierTroubleError, WorkerProcess, worker_command
from node.verifier.protocol import Answer, Job, unmeasured
from node.verifier.public import PublicModels
from node.verifier.questions import Questions
from registry.verdict import Outcome

__all__ = ["ENDINGS", "Verifier", "VerifierTroubleError"]

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 30.0
ATTEMPTS_MAX = 2
DURATION_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
ENDINGS = ("answered", "timeout", "crashed", "trouble", "cancelled", "idle")

State = Literal["stopped", "starting", "ready", "busy"]
Reply = TypeVar("Reply")
Ask: TypeAlias = Callable[[WorkerProcess, Job], Awaitable[Reply]]
logger = logging.getLogger(__name__)


def _ignore() -> None:
    """Nobody wants to know."""


class Verifier:
    """The verifier processes of this node: one that works, and one that has read nothing and waits.

    Args:
        settings: device, threads and limits.
        readable: directories of the files that jobs name; the processes can open no others.
        command: what to start; for tests that need a process which misbehaves.

    Attributes:
        alarm: why no process starts; None when one did.
        durations: how long each job took.
        ended: how many processes ended, by why: one of ENDINGS.
        public: which of the operator's public models could not be used as controls.
    """

    def __init__(
        self, settings: VerifierSettings, *, readable: Sequence[Path], command: tuple[str, ...] | None = None
    ) -> None:
        self._settings, self._command = settings, command or worker_command(settings, readable)
        self._working: WorkerProcess | None = None
        self._fresh: WorkerProcess | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._one_at_a_time, self._one_start = asyncio.Lock(), asyncio.Lock()
        self._backoff_s = 0.0
        self.waiting = 0
        self.alarm: str | None = None
        self.ended: Counter[str] = Counter(dict.fromkeys(ENDINGS, 0))
        self.public = PublicModels()
        self.durations = Histogram(
            "wmreg_verification_duration_seconds",
            "How long the verifier process took for a claim.",
            buckets=DURATION_BUCKETS_S,
            registry=None,  # whoever is asked for metrics collects it from here
        )

    @property
    def state(self) -> State:
        """What is going on: a job, or else what the process is at that waits for the next one."""
        if self._working is not None:
            return "busy"
        if self._fresh is not None and self._fresh.is_running:
            return "ready"
        return "starting" if self._one_start.locked() else "stopped"

    @property
    def process_ids(self) -> list[int]:
        """The processes that run: two at most."""
        return [one.process_id for one in (self._working, self._fresh) if one is not None and one.is_running]

    async def warm_up(self) -> None:
        """Start a process before it is needed; until one starts there is an alarm, and it is tried again."""
        while True:
            with suppress(VerifierTroubleError):
                await self._ensure_fresh()
                return

    async def verify(self, job: Job, *, on_begun: Callable[[], None] = _ignore) -> Answer:
        """Run one job in a process of its own; jobs wait for each other. Time-outs and crashes are answers.

        Args:
            job: what to verify.
            on_begun: called when it is the job's turn.

        Raises:
            VerifierTroubleError: no process starts, or it found no room on the device beside other programs, or cannot
                read the fetched files.
        """
        answered = await self._in_turn(job, WorkerProcess.ask, on_begun)
        self.public.note(answered)
        return answered

    async def questions(self, job: Job, *, on_begun: Callable[[], None] = _ignore) -> Questions | Answer:
        """Get the pictures that an endpoint is to be asked about, or why there are none; as `verify`.

        Args:
            job: of a claim on an endpoint that was not asked yet.
            on_begun: called when it is the job's turn.
        """
        return await self._in_turn(job, WorkerProcess.ask_questions, on_begun)

    async def stop(self) -> None:
        """End the processes."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        await self._end_working("cancelled")
        await self._end_fresh()

    async def _in_turn(self, job: Job, ask: Ask[Reply], on_begun: Callable[[], None]) -> Reply | Answer:
        self.waiting += 1
        try:
            async with self._one_at_a_time:
                on_begun()
                with self.durations.time():
                    return await self._attempt(job, ask)
        finally:
            self.waiting -= 1

    async def _attempt(self, job: Job, ask: Ask[Reply]) -> Reply | Answer:
        crash = ""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            process = self._working = await self._take_fresh()
            why = "cancelled"
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    answered = await ask(process, job)
            except TimeoutError:
                why = "timeout"
                return unmeasured(Outcome.UNVERIFIABLE, "timeout", f"not done within {self._settings.timeout_s} s")
            except VerifierTroubleError:
                why = "trouble"
                raise
            except CrashError as error:
                why, crash = "crashed", str(error)
                logger.warning("the verifier process ended", extra=fields(why=crash, attempt=attempt))
                self._back_off()
            else:
                why, self._backoff_s = "answered", 0.0
                return answered
            finally:
                await asyncio.shield(self._end_working(why))
        return unmeasured(Outcome.UNVERIFIABLE, "crashed", crash)

    async def _take_fresh(self) -> WorkerProcess:
        """A process that has read nothing yet, and never serves again; the next one is started meanwhile."""
        await self._ensure_fresh()
        process, self._fresh = self._fresh, None
        if process is None:
            raise VerifierTroubleError("the verifier was stopped")
        if self._preparing is None or self._preparing.done():  # one that is not will find that none waits any more
            self._preparing = asyncio.create_task(self.warm_up())
        return process

    async def _ensure_fresh(self) -> None:
        """Have a process that waits; one that died while it waited is replaced."""
        async with self._one_start:
            if self._fresh is not None and self._fresh.is_running:
                return
            await self._end_fresh()
            await asyncio.sleep(self._backoff_s)
            try:
                self._fresh = await WorkerProcess.start(self._command, threads=self._settings.threads)
            except (TimeoutError, OSError, CrashError, VerifierTroubleError) as error:
                self._back_off()
                self.alarm = f"the verifier process did not start: {error!r}"
                logger.error("the verifier process did not start", extra=fields(why=repr(error)))  # noqa: TRY400 -- said
                raise VerifierTroubleError(self.alarm) from error
            self.alarm = None
            logger.info("the verifier process is ready", extra=fields(device=self._settings.device))

    def _back_off(self) -> None:
        self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_MIN_S), BACKOFF_MAX_S)

    async def _end_working(self, why: str) -> None:
        process, self._working = self._working, None
        if process is not None:
            self.ended[why] += 1
            await process.end()

    async def _end_fresh(self) -> None:
        process, self._fresh = self._fresh, None
        if process is not None:
            self.ended["idle"] += 1
            await process.end()
