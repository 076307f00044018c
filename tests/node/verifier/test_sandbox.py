"""What the verifier process gave up stays given up: tried in a process of its own, since it cannot be taken back.

Each attack has a twin that shows it to succeed outside the sandbox, and runs once more with only one of the layers that
forbid it, so that none of them stands there unloaded.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SETUP = """
import os, sys
from pathlib import Path
from node.verifier import landlock, sandbox, seccomp
from node.verifier.sandbox import Report, confine, drop_privileges
report = Report()
layers = sys.argv[1]
def without(*_, **__): raise OSError("left out by the test")
if "landlock" not in layers: landlock.restrict = without
if "seccomp" not in layers: seccomp.install = without
if layers != "none":
    drop_privileges(os.getppid(), readable=[Path(sys.argv[2])], report=report)
    confine(MEMORY, with_devices="devices" in layers, report=report)
"""
BOTH = "landlock seccomp"


def run(
    code: str, *arguments: object, layers: str = BOTH, readable: Path = Path("/nonexistent"), memory: str = "None"
) -> subprocess.CompletedProcess[str]:
    """Run a program behind some layers of the sandbox; in it, args are the further arguments."""
    program = f"{SETUP.replace('MEMORY', memory)}\nargs = sys.argv[3:]\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program, layers, str(readable), *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def has(what: str) -> bool:
    """Whether the kernel of this machine has a layer."""
    return what not in run("print(report)").stdout.partition("not in force:")[2]


needs_landlock = pytest.mark.skipif(not has("Landlock"), reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not has("seccomp"), reason="this kernel has no seccomp filters")


def refusals(attempts: dict[str, str], *arguments: object, layers: str, **options: object) -> dict[str, str]:
    """How each program was refused, as the name of an errno; "done" where it was not. One process tries them all."""
    code = (
        "import errno, json\nfound = {}\nfor name, attempt in json.loads(args.pop()).items():\n"
        "    try: exec(attempt)\n    except OSError as error: found[name] = errno.errorcode[error.errno]\n"
        "    else: found[name] = 'done'\nprint(json.dumps(found))"
    )
    done = run(code, *arguments, json.dumps(attempts), layers=layers, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(attempt: str, *arguments: object, layers: str, **options: object) -> str:
    """How one program was refused."""
    return refusals({"": attempt}, *arguments, layers=layers, **options)[""]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A signing key, beside the directory of the files to verify."""
    path = tmp_path / "keys" / "signing.pem"
    path.parent.mkdir()
    path.write_text("secret")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "model").write_text("weights")
    return path


CALLS = {
    "a TCP socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "a UNIX socket": "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a child": "if os.fork() == 0: os._exit(0)",
    "a program": "os.spawnv(os.P_WAIT, '/bin/true', ['true'])",
    "a program instead": "os.posix_spawn('/bin/true', ['true'], {})",
    "signals to others": "os.kill(os.getppid(), 0)",
    "a limit of another": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
    "another's priority": "os.setpriority(os.PRIO_PROCESS, 0, 19)",
    "another's descriptors": "os.pidfd_open(os.getppid())",
}


@needs_seccomp
def test_sockets_programs_and_other_processes_are_out_of_reach():
    assert refusals(CALLS, layers="none") == dict.fromkeys(CALLS, "done")
    for layers in ("seccomp", f"{BOTH} devices"):
        assert refusals(CALLS, layers=layers) == dict.fromkeys(CALLS, "EPERM")


DOORS = ("io_uring_setup", "bpf", "userfaultfd", "ptrace", "process_vm_readv", "unshare", "perf_event_open", "mount")


@needs_seccomp
def test_the_doors_to_the_kernel_are_shut():
    attempts = {call: f"from node.verifier import kernel; kernel.system_call({call!r}, *[0] * 5)" for call in DOORS}
    assert refusals(attempts, layers="seccomp") == dict.fromkeys(DOORS, "EPERM")


@needs_seccomp
def test_calls_that_cannot_be_looked_into_or_are_new_are_unknown():
    call = "from node.verifier import kernel; kernel.checked(kernel._libc.syscall({number}, 0, 0, 0))"
    clone3, openat2, unborn, umask = "435", "437", "999", "95" if os.uname().machine == "x86_64" else "166"
    attempts = {number: call.format(number=number) for number in (clone3, openat2, unborn, umask)}
    found = refusals(attempts, layers="seccomp")
    assert found == {clone3: "ENOSYS", openat2: "ENOSYS", unborn: "ENOSYS", umask: "done"}


@needs_seccomp
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x32 is of x86-64")
def test_the_same_calls_under_their_other_numbers_end_the_process():
    done = run("from node.verifier import kernel\nkernel._libc.syscall(0x40000000 + 41, 2, 1, 0)", layers="seccomp")
    assert done.returncode == -31  # SIGSYS


def test_threads_memory_and_reading_go_on(secret: Path):
    code = (
        "import mmap, threading\n"
        "found = []\n"
        "threads = [threading.Thread(target=lambda: found.append(open(args[0]).read())) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "mmap.mmap(-1, 1 << 20)\n"
        "print(len(found), set(found))"
    )
    model = secret.parents[1] / "cache" / "model"
    assert run(code, model, readable=model.parent).stdout == "8 {'weights'}\n"


@needs_seccomp
def test_threads_that_were_there_before_are_confined_as_well():
    code = (
        "import socket, threading\n"
        "go, found = threading.Event(), []\n"
        "def wait_and_try():\n"
        "    go.wait()\n"
        "    try: found.append(socket.socket())\n"
        "    except OSError as error: found.append(error.errno)\n"
        "thread = threading.Thread(target=wait_and_try); thread.start()\n"
        "confine(None, with_devices=False, report=report)\n"
        "go.set(); thread.join(); print(found)"
    )
    assert run(code).stdout == f"[{errno.EPERM}]\n"
    assert "socket.socket" in run(code, layers="landlock").stdout


@needs_landlock
def test_the_files_to_verify_can_be_read_and_a_key_beside_them_cannot(secret: Path):
    cache = secret.parents[1] / "cache"
    link = cache / "link"
    link.symlink_to(secret)
    closed = {
        "the key": "open(args[0]).read()",
        "a link to the key": "open(args[1]).read()",
        "the names of the keys": "os.listdir(os.path.dirname(args[0]))",
        "the system's settings": "open('/etc/passwd').read()",
        "the node's environment": "open(f'/proc/{os.getppid()}/environ')",
        "the node's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    }
    for layers, expected in (("none", "done"), ("seccomp", "done"), ("landlock", "EACCES"), (BOTH, "EACCES")):
        found = refusals(closed, secret, link, layers=layers, readable=cache)
        assert {found[name] for name in list(closed)[:4]} == {expected}
        if expected == "EACCES":
            assert set(found.values()) == {"EACCES"}
    assert refusal("open(args[0]).read()", cache / "model", layers=BOTH, readable=cache) == "done"


CHANGES = {
    "overwrite": "open(args[0], 'r+b').close()",
    "truncate at opening": "os.open(args[0], os.O_RDONLY | os.O_TRUNC)",
    "truncate": "os.truncate(args[0], 0)",
    "remove": "os.unlink(args[0])",
    "rename": "os.rename(args[0], args[0] + '.away')",
    "make a file": "open(args[0] + '.new', 'xb').close()",
    "make a directory": "os.mkdir(args[0] + '.new')",
    "make a link": "os.symlink('x', args[0] + '.new')",
    "make a device": "os.mkfifo(args[0] + '.new')",
}


@pytest.mark.parametrize("layers", ["landlock", "seccomp"])
def test_no_file_is_changed_not_even_among_those_that_may_be_read(secret: Path, layers: str):
    if not has({"landlock": "Landlock"}.get(layers, layers)):
        pytest.skip(f"this kernel has no {layers}")
    cache = secret.parents[1] / "cache"
    before = sorted(path for path in cache.parent.rglob("*"))
    for path, content in ((secret, "secret"), (cache / "model", "weights")):
        found = refusals(CHANGES, path, layers=layers, readable=cache)
        assert set(found) == set(CHANGES)
        assert set(found.values()) <= {"EACCES", "EPERM"}, found
        assert path.read_text() == content
    assert sorted(path for path in cache.parent.rglob("*")) == before


@pytest.mark.parametrize("what", CHANGES)
def test_outside_the_sandbox_each_of_these_changes_is_made(secret: Path, what: str):
    before = (sorted(secret.parent.iterdir()), secret.read_text())
    exec(CHANGES[what], {"os": os, "args": [str(secret)]})  # noqa: S102 -- what the programs above run
    after = (sorted(secret.parent.iterdir()), secret.read_text() if secret.exists() else None)
    assert (before != after) == (what != "overwrite"), "opening for writing changes nothing by itself"


@needs_seccomp
def test_a_gpu_needs_its_devices_written_and_still_no_file_can_be_made(secret: Path):
    cache = secret.parents[1] / "cache"
    assert refusal("os.open('/dev/null', os.O_RDWR)", layers=f"{BOTH} devices") == "done"
    assert refusal("os.open('/dev/null', os.O_RDWR)", layers=BOTH) == "EPERM"
    assert refusal(CHANGES["make a file"], secret, layers="seccomp devices", readable=cache) == "EPERM"
    assert refusal(CHANGES["overwrite"], secret, layers=f"{BOTH} devices", readable=cache) == "EACCES"


def test_what_is_open_already_cannot_be_written_either_but_pipes_can(tmp_path: Path):
    path = tmp_path / "file"
    code = (
        "import resource\n"
        "f = open(args[0], 'wb')\n"
        "confine(None, with_devices=False, report=report)\n"
        "print('before', flush=True); f.write(b'x'); f.flush()"
    )
    done = run(code, path, layers="none")
    assert "File too large" in done.stderr
    assert done.stdout == "before\n"
    assert path.read_bytes() == b""


def test_memory_beyond_the_limit_is_an_error_of_the_program_not_of_the_machine():
    done = run("x = bytearray(50_000_000); print('fits'); y = bytearray(300_000_000)", memory="200_000_000")
    assert done.stdout == "fits\n"
    assert "MemoryError" in done.stderr


def test_without_a_limit_the_same_memory_is_given():
    assert run("y = bytearray(300_000_000); print('fits')").stdout == "fits\n"


def test_there_are_no_core_dumps_no_new_privileges_and_no_capabilities():
    done = run(
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)); print(open('/proc/self/status').read())"
    )
    assert done.stdout.startswith("(0, 0)")
    assert "NoNewPrivs:\t1" in done.stdout
    assert "CapEff:\t0000000000000000" in done.stdout
    assert "CapPrm:\t0000000000000000" in done.stdout


@needs_landlock
@needs_seccomp
def test_one_line_says_what_is_in_force_and_what_is_not():
    whole = run("print(report)").stdout.strip()
    assert "\n" not in whole
    assert whole.startswith("sandbox: in force: end with the parent, ")
    partly = run("print(report)", layers="seccomp").stdout
    assert "not in force: no files but its own (Landlock) (left out by the test)" in partly


def test_there_is_no_network_or_it_is_reported():
    done = run(
        "import socket\n"
        "print(report)\n"
        "s = socket.socket(); s.settimeout(2)\n"
        "s.bind(('127.0.0.1', 0))\n"
        "try: s.connect(('127.0.0.1', 9))\n"
        "except OSError as error: print(error.errno)\n",
        layers="only the namespace",
    )
    if "no network" in done.stdout.partition("not in force:")[2]:
        pytest.skip("this machine gives an unprivileged process no network namespace")
    assert "101" in done.stdout or "99" in done.stderr, done  # ENETUNREACH: not even loopback is up


def test_a_process_whose_parent_is_gone_already_ends():
    program = (
        "from node.verifier.sandbox import Report, drop_privileges\n"
        "drop_privileges(999_999_999, readable=[], report=Report()); print('goes on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
