"""Whatever a verifier process does, its job gets an answer, and the next job gets a process of its own.

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
from endpoints import pictures
from nodeset import JOB

from node.config import VerifierSettings
from node.verifier import process as process_module
from node.verifier import supervisor as supervisor_module
from node.verifier.protocol import Answer, Job, unmeasured
from node.verifier.questions import Questions
from node.verifier.supervisor import Verifier, VerifierTroubleError
from registry.verdict import Outcome

pytestmark = pytest.mark.long

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from node.verifier.protocol import Job, unmeasured, frame, frame_bytes, READY
from registry.verdict import Outcome

behaviour, directory = sys.argv[1], Path(sys.argv[2])
runs = len(list(directory.iterdir()))  # processes before this one
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
    if behaviour == "wants pictures":
        from endpoints import pictures
        from node.verifier.questions import QUESTIONS_BYTES_MAX, Questions
        asked = Questions(pictures=pictures(2000), has_margin=True)
        out.write(frame(asked.encode(), bytes_max=QUESTIONS_BYTES_MAX))
    elif behaviour == "answers nonsense":
        out.write(frame(b"nonsense"))
    elif behaviour == "answers too much":
        out.write((2**31).to_bytes(4, "big"))
    elif behaviour == "is taken over":
        out.write(frame(unmeasured(Outcome.REFUTED, f"{job.permutations}").encode()))
        unmeasured = lambda *_: type(job)  # whoever is asked after this job gets nonsense
        Outcome.REFUTED = None
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


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def job(number: int) -> Job:
    return dataclasses.replace(JOB, permutations=number)


async def test_every_job_is_answered_by_a_process_that_was_started_before_it_came(tmp_path: Path):
    run = Run(tmp_path, "works")
    await run.verifier.warm_up()
    assert (run.verifier.state, run.started) == ("ready", 1)
    first = run.verifier.process_ids
    assert [answer.reason for answer in await run.answers(1, 2, 3)] == ["1", "2", "3"]
    assert run.verifier.state == "stopped"
    assert run.started in {3, 4}, "one for each job, and perhaps one more that waited"
    assert run.verifier.process_ids == []
    assert all(not is_alive(process_id) for process_id in first)


async def test_questions_are_as_long_as_they_need_to_be_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    packages = [str(process_module._PACKAGES), str(Path(__file__).resolve().parents[2])]  # the tests' helpers too
    monkeypatch.setattr(process_module, "_PACKAGES", os.pathsep.join(packages))
    run = Run(tmp_path, "wants pictures")
    asked = await run.verifier.questions(dataclasses.replace(JOB, model_path=""))
    assert asked == Questions(pictures=pictures(2000), has_margin=True)
    (answer,) = await run.answers(1)
    assert (answer.outcome, answer.reason) == (Outcome.UNVERIFIABLE, "crashed")


async def test_who_has_no_questions_says_why(tmp_path: Path):
    run = Run(tmp_path, "works")
    try:
        answer = await run.verifier.questions(dataclasses.replace(JOB, model_path="", permutations=7))
    finally:
        await run.verifier.stop()
    assert isinstance(answer, Answer)
    assert answer.reason == "7"


async def test_a_job_that_takes_its_process_over_changes_nothing_for_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, "is taken over")
    assert [answer.reason for answer in await run.answers(1, 2, 3)] == ["1", "2", "3"]
    ended = run.verifier.ended
    assert (ended["answered"], ended["crashed"], ended["timeout"]) == (3, 0, 0)
    assert "the verifier process ended" not in caplog.messages, "a process that is replaced did not crash"


async def test_the_next_process_starts_while_one_works_and_there_are_never_more_than_two(tmp_path: Path):
    run = Run(tmp_path, "hangs", timeout_s=60)
    await run.verifier.warm_up()
    (working,) = run.verifier.process_ids
    hanging = asyncio.create_task(run.verifier.verify(job(1)))
    waiting = [asyncio.create_task(run.verifier.verify(job(number))) for number in (2, 3)]
    async with asyncio.timeout(60):
        while len(run.verifier.process_ids) < 2:
            await asyncio.sleep(0.01)
    _, fresh = run.verifier.process_ids
    assert (run.verifier.state, run.verifier.waiting, run.started) == ("busy", 3, 2)
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    async with asyncio.timeout(60):
        while len(run.verifier.process_ids) < 2 or run.verifier.process_ids[0] != fresh:
            await asyncio.sleep(0.01)
    assert not is_alive(working)
    assert run.started == 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await run.verifier.stop()
    assert not any(is_alive(int(path.name)) for path in run.starts.iterdir())


async def test_a_process_that_dies_while_it_waits_is_replaced_and_no_claim_is_blamed(tmp_path: Path):
    run = Run(tmp_path, "works")
    await run.verifier.warm_up()
    (process_id,) = run.verifier.process_ids
    os.kill(process_id, signal.SIGKILL)
    async with asyncio.timeout(60):
        while run.verifier.state == "ready":
            await asyncio.sleep(0.01)
    (answer,) = await run.answers(1)
    assert answer.reason == "1"
    assert run.verifier.ended["crashed"] == 0


async def test_jobs_that_come_at_once_wait_for_each_other(tmp_path: Path):
    run = Run(tmp_path, "works")
    jobs = [asyncio.create_task(run.verifier.verify(job(number))) for number in range(5)]
    await asyncio.sleep(0)
    assert run.verifier.waiting == 5
    assert [answer.reason for answer in await asyncio.gather(*jobs)] == list("01234")
    await run.verifier.stop()
    assert run.verifier.ended["answered"] == 5


async def test_the_process_sees_nothing_of_the_nodes_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    (answer,) = await Run(tmp_path, "works").answers(1)
    assert "SECRET_TOKEN" not in answer.detail
    assert "OMP_NUM_THREADS" in answer.detail


async def test_a_process_that_prints_without_end_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, "floods")
    (answer,) = await run.answers(1)
    assert answer.reason == "1"
    floods = run.started  # the process that waits for the next job prints as well
    assert caplog.messages.count("verifier output") <= floods * process_module.STDERR_LINES_MAX
    assert 1 <= caplog.messages.count("the verifier process prints too much; the rest is dropped") <= floods


async def test_a_job_that_takes_too_long_is_ended_and_the_next_one_gets_its_own_answer(tmp_path: Path):
    run = Run(tmp_path, "hangs on odd", timeout_s=1)
    late, good = await run.answers(1, 2)
    assert (late.outcome, late.reason) == (Outcome.UNVERIFIABLE, "timeout")
    assert good.reason == "2"
    assert (run.verifier.ended["timeout"], run.verifier.ended["answered"]) == (1, 1)


async def test_a_crash_is_tried_once_more(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = Run(tmp_path, "crashes once")
    (answer,) = await run.answers(1)
    assert answer.reason == "1"
    assert (run.verifier.ended["crashed"], run.verifier.ended["answered"]) == (1, 1)
    assert caplog.messages.count("the verifier process ended") == 1


@pytest.mark.parametrize("behaviour", ["crashes", "answers nonsense", "answers too much"])
async def test_a_process_that_fails_twice_is_an_answer(tmp_path: Path, behaviour: str):
    run = Run(tmp_path, behaviour)
    (answer,) = await run.answers(1)
    assert answer == unmeasured(Outcome.UNVERIFIABLE, "crashed", answer.detail)
    assert run.verifier.ended["crashed"] == 2


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
    assert run.verifier.ended["trouble"] == 1


async def test_a_failed_warm_up_is_an_alarm_until_it_succeeds(tmp_path: Path):
    run = Run(tmp_path, "dies at first start")
    warming = asyncio.create_task(run.verifier.warm_up())
    async with asyncio.timeout(60):
        while not run.verifier.alarm:
            await asyncio.sleep(0.01)
        await warming
    assert (run.verifier.state, run.started, run.verifier.alarm) == ("ready", 2, None)
    (answer,) = await run.answers(1)
    assert answer.reason == "1"


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
    monkeypatch.setattr(process_module, "END_TIMEOUT_S", 0.2)
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


async def test_a_pause_grows_before_a_process_that_follows_one_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor_module, "BACKOFF_MIN_S", 0.01)
    run = Run(tmp_path, "crashes")
    await run.answers(1, 2, 3)
    assert run.verifier._backoff_s == 0.01 * 2 ** (2 * 3 - 1)


async def test_what_the_process_prints_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    await Run(tmp_path, "works").answers(1)
    assert any(getattr(record, "fields", {}).get("line") == "starting" for record in caplog.records)


async def test_nothing_is_left_running(tmp_path: Path):
    run = Run(tmp_path, "hangs", timeout_s=1)
    await run.answers(1)
    assert run.started >= 1
    assert not any(is_alive(int(path.name)) for path in run.starts.iterdir())
