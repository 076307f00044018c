"""The clock of torture tests moves what tells the time of day, while the process runs, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

CLOCK = Path(__file__).with_name("clock")
# The time of day by both of its clocks and the monotonic one, against what the system says, for each line on stdin.
PROGRAM = """
import sys, time
from time import time as imported
system = time.clock_gettime
for line in sys.stdin:
    right = system(time.CLOCK_REALTIME)
    print(*(round(one - right) for one in (time.time(), time.time_ns() / 1e9, imported())), end=" ")
    print(round(time.monotonic() - system(time.CLOCK_MONOTONIC)), flush=True)
"""


def started(**environment: str) -> subprocess.Popen[str]:
    """The program on this clock's path."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(CLOCK), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def asked(process: subprocess.Popen[str]) -> list[int]:
    """By how many seconds the process's clocks are off."""
    process.stdin.write("\n")
    process.stdin.flush()
    return [int(word) for word in process.stdout.readline().split()]


def test_the_clock_of_a_running_process_steps_when_the_file_is_replaced(tmp_path: Path):
    file, new = tmp_path / "clock", tmp_path / "clock.new"
    file.write_text("+0\n")
    with started(CLOCK_OFFSET_FILE=str(file)) as process:
        found = [asked(process)]
        for offset in ("+3600\n", "-3600\n", "+0\n"):
            new.write_text(offset)
            new.rename(file)
            found.append(asked(process))
        process.stdin.close()
    assert found == [[0] * 4, [3600] * 3 + [0], [-3600] * 3 + [0], [0] * 4]
    assert process.returncode == 0


def test_a_process_that_is_not_told_of_a_file_has_the_right_time():
    with started() as process:
        assert asked(process) == [0] * 4
        process.stdin.close()


def test_a_file_that_is_not_there_is_an_error_and_no_right_time(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, "PYTHONPATH": str(CLOCK), "CLOCK_OFFSET_FILE": str(tmp_path / "clock")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert "FileNotFoundError" in done.stderr
