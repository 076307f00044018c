"""Nodes are killed, stopped, cut off, lied to by disk and clock, under load: no acknowledged entry is ever lost.

After each fault: every acknowledged entry stands at its index on every node, once, in an order that agrees with real
time; `wmreg audit` finds nothing; every node's own files are sound, everything that it signed among them; and the
service came back within the bound that the test states. `make torture SEED=1 PERCENT=100`.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cluster import Cluster, NodeProcess, eventually
from stored import StoredNode
from torture.arena import OPTIONS, PROGRESS_S, Arena, judged_arena
from torture.load import check_files, converged, fresh_publication, leader_of, load, state_of
from torture.measured import SEED, Measured, count_of
from torture.proxy import Network

from node.config import load_config
from node.raft.compat import NO_OP
from node.upkeep.fsck import examine
from registry.note import TIMESTAMP_BYTES, Note

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1500)]
PATROLLED = "own checkpoints read"


def test_the_leader_is_killed_under_load(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "SIGKILL of the leader", pause_max_s=15) as a:
        for _ in range(count_of(50)):
            leader = leader_of(a.cluster)
            leader.kill()
            a.events += 1
            a.progress()
            leader.start()
            a.cluster.wait_until_healthy()


def test_all_nodes_are_killed_at_once(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "SIGKILL of all nodes at once", pause_max_s=40) as a:
        for _ in range(count_of(8)):
            for node in a.cluster.nodes:
                node.process.send_signal(signal.SIGKILL)
            for node in a.cluster.nodes:
                node.kill()
            a.events += 1
            for node in a.cluster.nodes:
                node.start()
            a.cluster.wait_until_healthy()
            a.progress()


def test_nodes_are_stopped_and_continued(tmp_path: Path, measured: Measured):
    draw = random.Random(SEED)
    with judged_arena(tmp_path, measured, "SIGSTOP of a node", pause_max_s=20) as a:
        for turn in range(count_of(12)):
            leader, others = a.leader_and_others()
            victim = leader if turn % 3 else draw.choice(others)
            os.kill(victim.process.pid, signal.SIGSTOP)
            a.events += 1
            try:
                a.progress()
            finally:
                os.kill(victim.process.pid, signal.SIGCONT)
            a.cluster.wait_until_healthy()
            a.progress()


Shape = Callable[[Network, str, list[str]], None]
SHAPES: dict[str, Shape] = {
    "the leader is alone": lambda net, leader, _: net.isolate(leader),
    "a follower is alone": lambda net, _, others: net.isolate(others[0]),
    "one link of the leader is cut": lambda net, leader, o: net.cut([(leader, o[0]), (o[0], leader)]),
    "one link between followers is cut": lambda net, _, o: net.cut([(o[0], o[1]), (o[1], o[0])]),
    "a follower does not hear the leader": lambda net, leader, o: net.cut([(leader, o[0])]),
    "the leader does not hear a follower": lambda net, leader, o: net.cut([(o[0], leader)]),
    "nobody hears the leader": lambda net, leader, others: net.cut([(leader, other) for other in others]),
    "the leader hears nobody": lambda net, leader, others: net.cut([(other, leader) for other in others]),
    "all connections are reset": lambda net, _leader, _others: net.reset(),
    "everything takes 60 ms": lambda net, _leader, _others: net.delay(0.06),
}
SHAPES_OF_FIVE: dict[str, Shape] = {
    "the leader is in the minority": lambda net, leader, o: net.split([leader, o[0]], o[1:]),
    "the leader is in the majority": lambda net, leader, o: net.split([leader, *o[:2]], o[2:]),
    "two majorities share one follower": lambda net, leader, o: net.split([leader, o[0], o[1]], [o[1], o[2], o[3]]),
    "two majorities share the leader": lambda net, leader, o: net.split([leader, o[0], o[1]], [leader, o[2], o[3]]),
    "a ring": lambda net, leader, o: net.split(*zip([leader, *o], [*o, leader], strict=True)),
}


def partition(a: Arena, shapes: dict[str, Shape], rounds: int) -> None:
    draw = random.Random(SEED)
    for _ in range(rounds):
        for what in draw.sample(list(shapes), len(shapes)):
            leader, others = a.leader_and_others()
            names = [node.name for node in others]
            draw.shuffle(names)
            print(what, leader.name, names, flush=True)
            shapes[what](a.network, leader.name, names)
            a.events += 1
            a.progress()
            a.network.delay(0)
            a.network.heal()
            a.cluster.wait_until_healthy()
            a.progress()


def test_partitions_of_three_nodes(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "partitions of three nodes", pause_max_s=20, through_proxy=True) as a:
        partition(a, SHAPES, count_of(2))


def test_partitions_of_five_nodes(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "partitions of five nodes", pause_max_s=30, nodes=5, through_proxy=True) as a:
        partition(a, SHAPES_OF_FIVE, count_of(1))


def test_without_any_majority_nothing_is_acknowledged_and_afterwards_all_goes_on(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "no node reaches another", pause_max_s=30, through_proxy=True) as a:
        for _ in range(count_of(3)):
            a.network.split()
            a.events += 1
            eventually(
                lambda: all(node.get("/healthz").status == 503 for node in a.cluster.nodes),
                timeout_s=30,
                what="no node has a leader",
            )
            before = a.load.acknowledged
            answers = {node.submit(b"").status for node in a.cluster.nodes}
            assert answers == {400}
            assert a.load.acknowledged == before
            a.network.heal()
            a.cluster.wait_until_healthy()
            a.progress()


def test_kills_and_partitions_together(tmp_path: Path, measured: Measured):
    draw = random.Random(SEED)
    with judged_arena(tmp_path, measured, "kills behind partitions", pause_max_s=40, through_proxy=True) as a:
        for _ in range(count_of(8)):
            leader, others = a.leader_and_others()
            shape = draw.choice(list(SHAPES.values()))
            shape(a.network, leader.name, [node.name for node in others])
            victim = draw.choice(a.cluster.nodes)
            victim.kill()
            a.events += 2
            victim.start()
            eventually(lambda v=victim: state_of(v), timeout_s=60, what=f"{victim.name} answers behind the partition")
            a.network.delay(0)
            a.network.heal()
            a.cluster.wait_until_healthy()
            a.progress()


STRACE = shutil.which("strace")
CALLS = [
    (file, call, error)
    for file, calls in {
        "raft.journal": ("pwrite64", "fdatasync"),
        "ledger.db-wal": ("pwrite64", "fdatasync,fsync"),
        "signer.db-wal": ("pwrite64", "fdatasync,fsync"),
        "ledger.db": ("pwrite64", "fdatasync,fsync"),
        "notes.db-wal": ("pwrite64",),
    }.items()
    for call in calls
    for error in (("EIO", "ENOSPC") if call == "pwrite64" else ("EIO",))
]


@pytest.mark.skipif(STRACE is None, reason="strace is not installed (apt-get install strace)")
def test_each_system_call_of_an_append_fails_once(tmp_path: Path, measured: Measured):
    draw = random.Random(SEED)
    with judged_arena(tmp_path, measured, "a failing system call of an append", pause_max_s=25) as a:
        for file, call, error in CALLS[: count_of(len(CALLS))]:
            leader, others = a.leader_and_others()
            victim = draw.choice([leader, others[0]])
            log = tmp_path / f"{file}.{call}.{error}.strace"
            victim.kill()
            when = 2 if file == "ledger.db" else draw.randint(5, 40)
            victim.wrapper = (
                *(STRACE, "-D", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-P"),
                str(victim.directory / "state" / file),
                *("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"),
            )
            victim.start()
            eventually(lambda v=victim, log=log: _failed(v, log), timeout_s=90, what=f"{error} of {call} on {file}")
            a.events += 1
            a.progress()
            code = victim.process.poll()
            assert code in {None, 70, 74}, (file, call, error, code, victim.log()[-2000:])
            print(file, call, error, "at", victim.name, "->", "goes on" if code is None else f"exit {code}", flush=True)
            victim.kill()
            victim.wrapper = ()
            victim.start()
            a.cluster.wait_until_healthy()


@pytest.mark.skipif(STRACE is None, reason="strace is not installed (apt-get install strace)")
def test_disks_are_slow(tmp_path: Path, measured: Measured):
    with judged_arena(tmp_path, measured, "a disk whose syncs take 0.3 s", pause_max_s=20) as a:
        for turn in range(count_of(4)):
            leader, others = a.leader_and_others()
            victims = [[leader], others[:1], others, a.cluster.nodes][turn % 4]
            for victim in victims:
                victim.kill()
                victim.wrapper = (
                    *(STRACE, "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"),
                    *("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=300000"),
                )
                victim.start()
            a.cluster.wait_until_healthy()
            a.events += 1
            a.progress()
            for victim in victims:
                victim.kill()
                victim.wrapper = ()
                victim.start()
            a.cluster.wait_until_healthy()
            a.progress()


def _failed(node: NodeProcess, log: Path) -> bool:
    return node.process.poll() is not None or (log.exists() and "INJECTED" in log.read_text(errors="replace"))


CLOCK = Path(__file__).with_name("clock")  # a sitecustomize.py, for the node's process alone


def test_clocks_step_by_an_hour(tmp_path: Path, measured: Measured):
    draw = random.Random(SEED)
    with judged_arena(tmp_path, measured, "a clock steps by an hour", pause_max_s=15) as a:
        for node in a.cluster.nodes:
            node.kill()
            step(node, 0)
            node.wrapper = ("env", f"PYTHONPATH={CLOCK}", f"CLOCK_OFFSET_FILE={node.directory / 'clock'}")
            node.start()
            a.cluster.wait_until_healthy()
        for turn, offset_s in zip(range(count_of(8)), itertools.cycle([3600, -3600]), strict=False):
            leader, others = a.leader_and_others()
            victim = leader if turn % 4 < 2 else draw.choice(others)
            step(victim, offset_s)
            eventually(lambda v=victim, o=offset_s: shows(v, o), timeout_s=30, what="a clock that has stepped")
            refused = victim.submit(fresh_publication())
            assert (refused.status, refused.json["error"]["code"]) == (422, "time_skew")
            a.events += 1
            a.progress(40)
            if offset_s > 0:  # a cosignature's time never goes back, so that a clock that does says nothing by it
                assert cosigned_s(victim) > time.time() + 3000
            step(victim, 0)
            eventually(lambda v=victim: shows(v, 0), timeout_s=30, what="a clock that is right again")
            a.progress()


def step(node: NodeProcess, offset_s: int) -> None:
    """Set a node's clock; the file is there whole at every moment."""
    new = node.directory / "clock.new"
    new.write_text(f"{offset_s:+d}\n")
    new.rename(node.directory / "clock")


def shows(node: NodeProcess, offset_s: int) -> bool:
    """Whether a node that applies entries logs them at a time so far from the right one."""
    logged = datetime.fromisoformat(node.logged("entries applied")[-1]["time"]).timestamp()
    return abs(logged - time.time() - offset_s) < 600


def cosigned_s(node: NodeProcess) -> int:
    """The time of a node's own cosignature on the largest tree that it has signed."""
    size = node.state()["signed_size"]
    note = Note.parse(node.get(f"/v1/checkpoints/{size}").body.decode())
    return int.from_bytes(note.signatures[-1].payload[:TIMESTAMP_BYTES], "big")


def test_damaged_files_are_refused_or_repaired_and_never_believed(tmp_path: Path, measured: Measured):
    draw = random.Random(SEED)
    cluster = Cluster.make(tmp_path / "ledger", options=OPTIONS)
    outcomes = Counter(dict.fromkeys(["refused at start", "told by the running node", "repaired", "believed"], 0))
    with cluster, load(cluster, seed=SEED) as running:
        running.wait_for_more(150, timeout_s=PROGRESS_S)
        running.stop()
        converged(cluster, running)
        leader = leader_of(cluster)
        node = next(other for other in cluster.nodes if other is not leader)  # nobody's log grows while it is away
        assert node.stop() == 0
        shutil.copytree(node.directory / "state", tmp_path / "whole")
        whole = history_of(node.directory)
        for number in range(count_of(45)):
            name = ("raft.journal", "ledger.db", "signer.db")[number % 3]
            what = damage(node.directory / "state" / name, draw)
            outcome = start_damaged(node, whole)
            print(name, what, "->", outcome, flush=True)
            outcomes[outcome] += 1
            shutil.rmtree(node.directory / "state")
            shutil.copytree(tmp_path / "whole", node.directory / "state")
        node.start()
        assert converged(cluster, running).is_sound
    check_files(cluster)
    measured.add_outcomes("a truncated or bit-flipped file", dict(outcomes), forbidden="believed")
    assert outcomes["believed"] == 0


def damage(path: Path, draw: random.Random) -> str:
    """Cut a file off somewhere, flip a bit or empty a page of it; say which."""
    raw = bytearray(path.read_bytes())
    at, kind = draw.randrange(len(raw)), draw.choice(["cut off at", "bit flipped at", "page zeroed at"])
    if kind == "cut off at":
        del raw[at:]
    elif kind == "bit flipped at":
        raw[at] ^= 1 << draw.randrange(8)
    else:
        raw[at : at + 512] = bytes(len(raw[at : at + 512]))
    path.write_bytes(raw)
    return f"{kind} {at}"


def history_of(directory: Path) -> tuple[object, ...]:
    """What a node stored, signed and journalled; not its term, nor how far Raft has come since without an entry."""
    entries, root, _, notes, journal, _ = StoredNode(directory).contents()
    return entries, root, notes, [command for command, _, _ in journal if command != NO_OP]


def start_damaged(node: NodeProcess, whole: tuple[object, ...]) -> str:
    """Start a node among the others, and let it read what it signed; what became of the damage."""
    before = len(node.logged(PATROLLED))
    node.start()
    eventually(
        lambda: node.process.poll() is not None or len(node.logged(PATROLLED)) > before,
        timeout_s=60,
        what="a node that refuses to start, or has read what it signed",
    )
    if node.process.poll() is not None:
        code, node.process = node.process.wait(), None
        assert code == 5, node.log()[-2000:]
        return "refused at start"
    is_told = bool(node.logged(PATROLLED)[-1]["problems"])
    if is_told:
        eventually(lambda: "signed_checkpoints" in node.get("/health").json["problems"], timeout_s=30, what="an alarm")
    assert node.stop() == 0
    problems = examine(load_config(node.directory / "node.toml")).problems
    if is_told and problems:
        return "told by the running node"
    return "repaired" if not problems and history_of(node.directory) == whole else "believed"


def test_the_tool_that_is_missing_is_named():
    """A run without strace is not a whole one; it says so instead of passing in silence."""
    if STRACE is None:
        pytest.skip("not installed, so not tested: strace (Debian's package of this name)")
    assert subprocess.run([STRACE, "-V"], capture_output=True, check=False).returncode == 0
