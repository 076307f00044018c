"""Minds the verifier process: starts it, gives it one job at a time, and ends it when it must be ended.

The process is started warm, with torch imported once. It is killed when a job takes too long, started again after
any end with a growing pause, and replaced after a number of jobs so that a leak does not add up. A job on which the
process died is tried once more in a fresh one; then the answer is that this claim crashes the verifier. A process that
does not even start says nothing of the job: that is no answer but this node's trouble, and an alarm until it starts.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from prometheus_client import Histogram

from node.config import VerifierSettings
from node.logs import fields
from node.verifier.protocol import (
    EXIT_TROUBLE,
    LENGTH_BYTES,
    READY,
    Answer,
    Job,
    frame,
    frame_bytes,
    plain,
    unmeasured,
)
from registry.errors import MalformedError
from registry.verdict import Outcome

START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 5.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 30.0
JOBS_MAX = 64
ATTEMPTS_MAX = 2
DURATION_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_STDERR_LINE_MAX = 64 * 1024
STDERR_LINES_MAX = 1000  # of one process; a hostile file must not fill the disk with its log
_PASSED_ON = (
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "TMPDIR",
)
_PACKAGES = Path(__file__).resolve().parents[2]

State = Literal["stopped", "starting", "ready", "busy"]
logger = logging.getLogger(__name__)


def _ignore() -> None:
    """Nobody wants to know."""


class _CrashError(Exception):
    """The process ended or spoke nonsense."""


class VerifierTroubleError(Exception):
    """The job could not be run, for a reason that is this machine's and not the job's."""


class Verifier:
    """The verifier process of this node.

    Args:
        settings: device, threads and limits.
        readable: directories of the files that jobs name; the process can open no others.
        command: what to start; for tests that need a process which misbehaves.

    Attributes:
        alarm: why the process did not start; None when it did.
        durations: how long each job took.
    """

    def __init__(
        self, settings: VerifierSettings, *, readable: Sequence[Path], command: tuple[str, ...] | None = None
    ) -> None:
        self._settings, self._command = settings, command or _worker_command(settings, readable)
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._jobs, self._backoff_s = 0, 0.0
        self.state: State = "stopped"
        self.waiting = 0
        self.alarm: str | None = None
        self.durations = Histogram(
            "wmreg_verification_duration_seconds",
            "How long the verifier process took for a claim.",
            buckets=DURATION_BUCKETS_S,
            registry=None,  # whoever is asked for metrics collects it from here
        )

    @property
    def process_id(self) -> int | None:
        """The process, when it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def warm_up(self) -> None:
        """Start the process before it is needed; until it does there is an alarm, and it is tried again."""
        while True:
            with suppress(VerifierTroubleError):
                async with self._one_at_a_time:
                    await self._ensure_started()
                return

    async def verify(self, job: Job, *, on_begun: Callable[[], None] = _ignore) -> Answer:
        """Run one job; jobs wait for each other. Time-outs and crashes are answers.

        Args:
            job: what to verify.
            on_begun: called when it is the job's turn.

        Raises:
            VerifierTroubleError: the process does not start, found no room on the device beside other programs, or
                cannot read the fetched files.
        """
        self.waiting += 1
        try:
            async with self._one_at_a_time:
                on_begun()
                with self.durations.time():
                    return await self._attempt(job)
        finally:
            self.waiting -= 1

    async def stop(self) -> None:
        """End the process."""
        await self._end()

    async def _attempt(self, job: Job) -> Answer:
        crash = ""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                await self._ensure_started()
                return await self._run(job)
            except TimeoutError:
                await self._end()
                return unmeasured(Outcome.UNVERIFIABLE, "timeout", f"not done within {self._settings.timeout_s} s")
            except VerifierTroubleError:
                await self._end()
                raise
            except asyncio.CancelledError:
                await asyncio.shield(self._end())  # or the next job would get this one's answer
                raise
            except _CrashError as error:
                crash = str(error)
                logger.warning("the verifier process ended", extra=fields(why=crash, attempt=attempt))
                await self._end()
                self._back_off()
        return unmeasured(Outcome.UNVERIFIABLE, "crashed", crash)

    async def _run(self, job: Job) -> Answer:
        self.state = "busy"
        async with asyncio.timeout(self._settings.timeout_s):
            await self._write(job.encode())
            raw = await self._read()
        try:
            answered = Answer.decode(raw)
        except MalformedError as error:
            raise _CrashError(f"unreadable answer: {error}") from error
        self.state, self._backoff_s = "ready", 0.0
        self._jobs += 1
        if self._jobs >= JOBS_MAX:
            await self._end()
        return answered

    def _back_off(self) -> None:
        self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_MIN_S), BACKOFF_MAX_S)

    async def _ensure_started(self) -> None:
        if self._process is not None and self._process.returncode is None:
            return
        await self._end()
        await asyncio.sleep(self._backoff_s)
        self.state = "starting"
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_STDERR_LINE_MAX,
                env=_environment(self._settings.threads),
                cwd="/",
                start_new_session=True,
            )
            self._output = asyncio.create_task(_log_output(self._process.stderr))
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._read_ready()
        except (TimeoutError, OSError, _CrashError) as error:
            await self._end()
            self._back_off()
            self.alarm = f"the verifier process did not start: {error!r}"
            logger.error("the verifier process did not start", extra=fields(why=repr(error)))  # noqa: TRY400 -- said
            raise VerifierTroubleError(self.alarm) from error
        self.state, self._jobs, self.alarm = "ready", 0, None
        logger.info("the verifier process is ready", extra=fields(device=self._settings.device))

    async def _read_ready(self) -> None:
        if await self._read() != READY:
            raise _CrashError("it did not say that it is ready")

    async def _write(self, content: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            raise _CrashError("it is not running")
        try:
            self._process.stdin.write(frame(content))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise _CrashError(f"it closed its input: {error!r}") from error

    async def _read(self) -> bytes:
        if self._process is None or self._process.stdout is None:
            raise _CrashError("it is not running")
        try:
            length = frame_bytes(await self._process.stdout.readexactly(LENGTH_BYTES))
            return await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError as error:
            code = await self._process.wait()
            if code == EXIT_TROUBLE:
                raise VerifierTroubleError(
                    "the device is full of other programs' memory, or a fetched file cannot be read"
                ) from error
            raise _CrashError(f"it ended with code {code}") from error
        except MalformedError as error:
            raise _CrashError(str(error)) from error

    async def _end(self) -> None:
        """Kill the process and whatever it started, and take its last words."""
        process, self._process = self._process, None
        output, self._output = self._output, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await _finish(process, output)
        self.state = "stopped"


async def _finish(process: asyncio.subprocess.Process, output: "asyncio.Task[None] | None") -> None:
    """Wait for the end and the last words, but not for ever: a descendant that left the group may hold the pipes."""
    ended = asyncio.create_task(process.wait())
    _, pending = await asyncio.wait({ended, output} if output else {ended}, timeout=END_TIMEOUT_S)
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 -- asyncio has no other way to its pipes
    for task in pending:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _worker_command(settings: VerifierSettings, readable: Sequence[Path]) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", "node.verifier.worker"),
        *("--device", settings.device, "--threads", str(settings.threads)),
        *("--memory-bytes-max", str(settings.memory_bytes_max)),
        *("--parent", str(os.getpid())),
        *(f"--readable={directory.resolve()}" for directory in readable),
        *([f"--public={Path(settings.controls_directory).resolve()}"] if settings.controls_directory else []),
    )


def _environment(threads: int) -> dict[str, str]:
    """Only what torch needs: no proxy, no token, no home directory of the operator's."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    determinism = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return {
        **passed_on,
        **limits,
        **determinism,
        "PYTHONPATH": str(_PACKAGES),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
    }


async def _log_output(stream: asyncio.StreamReader | None) -> None:
    """Log what the process prints, a line at a time; a line that is too long is dropped, and so is a flood."""
    count = 0
    while stream is not None:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return
        count += 1
        if count <= STDERR_LINES_MAX:
            logger.info("verifier output", extra=fields(line=plain(line.decode(errors="replace").rstrip(), 500)))
        elif count == STDERR_LINES_MAX + 1:
            logger.warning("the verifier process prints too much; the rest is dropped")
