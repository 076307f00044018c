"""One verifier process: starts, says that it is ready, answers one job, and is ended.

It is ended whatever became of its job. A process has read a stranger's files once it has answered, and whoever took it
over by them could answer the next owner's claim as he likes.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from node.config import VerifierSettings
from node.logs import fields
from node.verifier.protocol import (
    EXIT_TROUBLE,
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    READY,
    Answer,
    Job,
    frame,
    frame_bytes,
    plain,
)
from node.verifier.questions import QUESTIONS_BYTES_MAX, Questions, decode_reply
from registry.errors import MalformedError

START_TIMEOUT_S = 180.0
END_TIMEOUT_S = 5.0
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

logger = logging.getLogger(__name__)
Reply = TypeVar("Reply")


class CrashError(Exception):
    """The process ended or spoke nonsense."""


class VerifierTroubleError(Exception):
    """The job could not be run, for a reason that is this machine's and not the job's."""


class WorkerProcess:
    """A process that has said that it is ready; `start` makes one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output = asyncio.create_task(_log_output(process.stderr))

    @classmethod
    async def start(cls, command: Sequence[str], *, threads: int) -> "WorkerProcess":
        """Start a process and wait until it is ready.

        Args:
            command: the program and its arguments.
            threads: of the libraries that ask the environment.

        Raises:
            TimeoutError: it was not ready within START_TIMEOUT_S.
            OSError: the system does not start it.
            CrashError: it ended, or said something else.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_STDERR_LINE_MAX,
            env=_environment(threads),
            cwd="/",
            start_new_session=True,
        )
        started = cls(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await started._read_ready()
        except BaseException:  # whoever waited no longer does, among them: nobody else would end it
            await asyncio.shield(started.end())
            raise
        return started

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def ask(self, job: Job) -> Answer:
        """Run the one job of this process.

        Raises:
            CrashError: it ended or spoke nonsense.
            VerifierTroubleError: it found no room on the device beside other programs, or cannot read the files.
        """
        return await self._asked(job, Answer.decode, bytes_max=FRAME_BYTES_MAX)

    async def ask_questions(self, job: Job) -> Questions | Answer:
        """Run the one job of this process, which wants pictures; errors as of `ask`."""
        return await self._asked(job, decode_reply, bytes_max=QUESTIONS_BYTES_MAX)

    async def _asked(self, job: Job, read: Callable[[bytes], Reply], *, bytes_max: int) -> Reply:
        await self._write(job.encode())
        raw = await self._read(bytes_max=bytes_max)
        try:
            return read(raw)
        except MalformedError as error:
            raise CrashError(f"unreadable answer: {error}") from error

    async def end(self) -> None:
        """Kill the process and whatever it started, and take its last words; but do not wait for them for ever."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        ended = asyncio.create_task(self._process.wait())
        # A descendant that left the group may hold the pipes.
        _, pending = await asyncio.wait({ended, self._output}, timeout=END_TIMEOUT_S)
        self._process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 -- asyncio has no other way to its pipes
        for task in pending:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _read_ready(self) -> None:
        if await self._read() != READY:
            raise CrashError("it did not say that it is ready")

    async def _write(self, content: bytes) -> None:
        if self._process.stdin is None:
            raise CrashError("it has no input")
        try:
            self._process.stdin.write(frame(content))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise CrashError(f"it closed its input: {error!r}") from error

    async def _read(self, *, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
        if self._process.stdout is None:
            raise CrashError("it has no output")
        try:
            length = frame_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), bytes_max=bytes_max)
            return await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError as error:
            code = await self._process.wait()
            if code == EXIT_TROUBLE:
                raise VerifierTroubleError(
                    "the device is full of other programs' memory, or a fetched file cannot be read"
                ) from error
            raise CrashError(f"it ended with code {code}") from error
        except MalformedError as error:
            raise CrashError(str(error)) from error


def worker_command(settings: VerifierSettings, readable: Sequence[Path]) -> tuple[str, ...]:
    """The command of the real process, which ends with this one.

    Args:
        settings: device, threads and limits.
        readable: directories of the files that jobs name.
    """
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
