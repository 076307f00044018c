"""What the verifier process gave up stays given up: tried in a process of its own, since it cannot be taken back."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SETUP = (
    "import os\nfrom node.verifier.sandbox import drop_privileges, limit_resources\n"
    "failed = drop_privileges(os.getppid())\n"
)


def run(code: str, *, memory: str = "None") -> subprocess.CompletedProcess[str]:
    program = f"{SETUP}limit_resources({memory})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_files_cannot_be_written_but_pipes_can(tmp_path: Path):
    path = tmp_path / "file"
    done = run(f"print('before', flush=True); f = open({str(path)!r}, 'wb'); f.write(b'x'); f.flush()")
    assert "File too large" in done.stderr
    assert done.stdout == "before\n"
    assert path.read_bytes() == b""


def test_files_can_be_read(tmp_path: Path):
    (tmp_path / "file").write_text("content")
    assert run(f"print(open({str(tmp_path / 'file')!r}).read())").stdout == "content\n"


def test_memory_beyond_the_limit_is_an_error_of_the_program_not_of_the_machine():
    done = run("x = bytearray(50_000_000); print('fits'); y = bytearray(300_000_000)", memory="200_000_000")
    assert done.stdout == "fits\n"
    assert "MemoryError" in done.stderr


def test_without_a_limit_the_same_memory_is_given():
    assert run("y = bytearray(300_000_000); print('fits')").stdout == "fits\n"


def test_there_are_no_core_dumps_and_no_new_privileges():
    done = run(
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)); print(open('/proc/self/status').read())"
    )
    assert done.stdout.startswith("(0, 0)")
    assert "NoNewPrivs:\t1" in done.stdout


def test_there_is_no_network_or_it_is_reported():
    done = run(
        "import socket\n"
        "print(failed)\n"
        "s = socket.socket(); s.settimeout(2)\n"
        "s.bind(('127.0.0.1', 0))\n"
        "try: s.connect(('127.0.0.1', 9))\n"
        "except OSError as error: print(error.errno)\n"
    )
    if "network" in done.stdout:
        pytest.skip("this machine gives an unprivileged process no network namespace")
    assert "101" in done.stdout or "99" in done.stderr, done  # ENETUNREACH: not even loopback is up


def test_a_process_whose_parent_is_gone_already_ends():
    program = "from node.verifier.sandbox import drop_privileges; drop_privileges(999_999_999); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
