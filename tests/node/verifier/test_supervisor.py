"""Whatever the verifier process does, the job gets an answer, and the next job gets its own.

The processes here are small programs that speak the protocol and then misbehave as their first argument says.
"""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from descriptors import no_free_descriptor
from nodeset import JOB

from node.config import VerifierSettings
from node.verifier import supervisor as supervisor_module
from node.verifier.protocol import Answer, Job, unmeasured
from node.verifier.supervisor import Verifier, VerifierTroubleError
from registry.verdict import Outcome

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from node.verifier.protocol import Job, unmeasured, frame, frame_bytes, READY
from registry.verdict import Outcome

behaviour, directory = sys.argv[1], Path(sys.argv[2])
runs = len(list(directory.iterdir()))
(directory / str(os.getpid())).touch()
out, given = sys.stdout.buffer, sys.stdin.buffer
if behaviour == "leaves a descendant":
    subprocess.Popen(["cat"], stdin=open(sys.argv[3]), stdout=2, start_new_session=True)
if behaviour == "dies at start" or (behaviour == "dies at first start" and runs == 0):
    sys.exit(3)
out.write(frame(READY if behaviour != "says nonsense at start" else b"hello")); out.flush()
print("starting", file=sys.stderr, flush=True)
if behaviour == "floods":
    sys.stderr.write("a line" * 10 + "\\n" * 5000); sys.stderr.flush()
while header := given.read(4):
    job = Job.decode(given.read(frame_bytes(header)))
    if behaviour == "crashes" or (behaviour == "crashes once" and runs == 0):
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour == "finds the device full":
        sys.exit(75)
    if behaviour == "hangs" or (behaviour == "hangs on odd" and job.permutations % 2):
        time.sleep(60)
    if behaviour == "answers nonsense":
        out.write(frame(b"nonsense"))
    elif behaviour == "answers too much":
        out.write((2**31).to_bytes(4, "big"))
    else:
        environment = ",".join(sorted(os.environ))
        out.write(frame(unmeasured(Outcome.REFUTED, f"{job.permutations}", environment).encode()))
    out.flush()
"""


class Run:
    def __init__(self, tmp_path: Path, behaviour: str, *, timeout_s: int = 30, more: Sequence[str] = ()) -> None:
        self.starts = tmp_path / "starts"
        self.starts.mkdir()
        settings = VerifierSettings(
            device="cpu", threads=1, timeout_s=timeout_s, memory_bytes_max=2**31, controls_directory=""
        )
        command = (sys.executable, "-c", PROGRAM, behaviour, str(self.starts), *more)
        self.verifier = Verifier(settings, readable=(), command=command)

    @property
    def started(self) -> int:
        return len(list(self.starts.iterdir()))

    async def answers(self, *numbers: int) -> list[Answer]:
        try:
            return [await self.verifier.verify(job(number)) for number in numbers]
        finally:
            await self.verifier.stop()


def job(number: int) -> Job:
    return dataclasses.replace(JOB, permutations=number)


async def test_jobs_are_answered_by_one_warm_process(tmp_path: Path):
    run = Run(tmp_path, "works")
    await run.verifier.warm_up()
    assert (run.verifier.state, run.started) == ("ready", 1)
    assert [answer.reason for answer in await run.answers(1, 2, 3)] == ["1", "2", "3"]
    assert (run.verifier.state, run.started) == ("stopped", 1)


async def test_jobs_that_come_at_once_wait_for_each_other(tmp_path: Path):
    run = Run(tmp_path, "works")
    jobs = [asyncio.create_task(run.verifier.verify(job(number))) for number in range(5)]
    await asyncio.sleep(0)
    assert run.verifier.waiting == 5
    assert [answer.reason for answer in await asyncio.gather(*jobs)] == list("01234")
    await run.verifier.stop()
    assert run.started == 1


async def test_the_process_sees_nothing_of_the_nodes_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    (answer,) = await Run(tmp_path, "works").answers(1)
    assert "SECRET_TOKEN" not in answer.detail
    assert "OMP_NUM_THREADS" in answer.detail


async def test_a_process_that_prints_without_end_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    (answer,) = await Run(tmp_path, "floods").answers(1)
    assert answer.reason == "1"
    assert caplog.messages.count("verifier output") == supervisor_module.STDERR_LINES_MAX
    assert caplog.messages.count("the verifier process prints too much; the rest is dropped") == 1


async def test_a_job_that_takes_too_long_is_ended_and_the_next_one_gets_its_own_answer(tmp_path: Path):
    run = Run(tmp_path, "hangs on odd", timeout_s=1)
    late, good = await run.answers(1, 2)
    assert (late.outcome, late.reason) == (Outcome.UNVERIFIABLE, "timeout")
    assert good.reason == "2"
    assert run.started == 2


async def test_a_crash_is_tried_once_more(tmp_path: Path):
    run = Run(tmp_path, "crashes once")
    (answer,) = await run.answers(1)
    assert (answer.reason, run.started) == ("1", 2)


@pytest.mark.parametrize("behaviour", ["crashes", "answers nonsense", "answers too much"])
async def test_a_process_that_fails_twice_is_an_answer(tmp_path: Path, behaviour: str):
    run = Run(tmp_path, behaviour)
    (answer,) = await run.answers(1)
    assert answer == unmeasured(Outcome.UNVERIFIABLE, "crashed", answer.detail)
    assert run.started == 2


@pytest.mark.parametrize("behaviour", ["dies at start", "says nonsense at start"])
async def test_a_process_that_does_not_start_is_no_answer_but_an_alarm(tmp_path: Path, behaviour: str):
    run = Run(tmp_path, behaviour)
    with pytest.raises(VerifierTroubleError):
        await run.answers(1)
    assert run.started == 1
    assert "did not start" in run.verifier.alarm


async def test_a_device_that_is_full_of_other_programs_is_no_answer(tmp_path: Path):
    run = Run(tmp_path, "finds the device full")
    with pytest.raises(VerifierTroubleError):
        await run.answers(1)
    assert run.verifier.state == "stopped"


async def test_a_failed_warm_up_is_an_alarm_until_it_succeeds(tmp_path: Path):
    run = Run(tmp_path, "dies at first start")
    warming = asyncio.create_task(run.verifier.warm_up())
    async with asyncio.timeout(60):
        while not run.verifier.alarm:
            await asyncio.sleep(0.01)
        await warming
    assert (run.verifier.state, run.started, run.verifier.alarm) == ("ready", 2, None)
    (answer,) = await run.answers(1)
    assert (answer.reason, run.started) == ("1", 2)


async def test_a_process_that_was_killed_between_jobs_is_started_again(tmp_path: Path):
    run = Run(tmp_path, "works")
    assert (await run.verifier.verify(job(1))).reason == "1"
    os.kill(int(next(run.starts.iterdir()).name), signal.SIGKILL)
    (answer,) = await run.answers(2)
    assert (answer.reason, run.started) == ("2", 2)


async def test_a_program_that_is_not_there_is_no_answer():
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=1, memory_bytes_max=2**31, controls_directory="")
    with pytest.raises(VerifierTroubleError):
        await Verifier(settings, readable=(), command=("/nonexistent/program",)).verify(job(1))


async def test_no_free_descriptor_is_no_answer_and_the_next_job_is_run(tmp_path: Path):
    run = Run(tmp_path, "works")
    with no_free_descriptor(), pytest.raises(VerifierTroubleError):
        await run.verifier.verify(job(1))
    (answer,) = await run.answers(2)
    assert answer.reason == "2"


async def test_a_descendant_that_holds_the_output_open_does_not_hold_up_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor_module, "END_TIMEOUT_S", 0.2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end_of_descendant = os.open(fifo, os.O_RDWR)
    run = Run(tmp_path, "leaves a descendant", more=[str(fifo)])
    try:
        async with asyncio.timeout(60):
            (answer,) = await run.answers(1)
    finally:
        os.close(end_of_descendant)
    assert answer.reason == "1"


async def test_a_cancelled_job_does_not_leave_its_answer_to_the_next(tmp_path: Path):
    run = Run(tmp_path, "hangs on odd")
    cancelled = asyncio.create_task(run.verifier.verify(job(1)))
    while run.verifier.state != "busy":
        await asyncio.sleep(0.01)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    (answer,) = await run.answers(2)
    assert answer.reason == "2"


async def test_the_process_is_replaced_after_many_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor_module, "JOBS_MAX", 2)
    run = Run(tmp_path, "works")
    assert [answer.reason for answer in await run.answers(1, 2, 3)] == ["1", "2", "3"]
    assert run.started == 2


async def test_what_the_process_prints_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    await Run(tmp_path, "works").answers(1)
    assert any(getattr(record, "fields", {}).get("line") == "starting" for record in caplog.records)


async def test_nothing_is_left_running(tmp_path: Path):
    run = Run(tmp_path, "hangs", timeout_s=1)
    await run.answers(1)
    for path in run.starts.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
