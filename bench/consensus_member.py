"""One member of a Raft cluster for bench.consensus, as a process: ``ours``, ``stock`` or ``stock-durable``.

The member that leads keeps a number of commands in flight for a while and prints what it measured as JSON. The two
kinds cannot share a process: importing ours takes unpickling out of PySyncObj.
"""

# PySyncObj has no types.
# mypy: disable-error-code="no-untyped-call, misc, untyped-decorator, method-assign"

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP_S = 1.0
_PADDING = b"\0" * 292  # with the number, 300 bytes


class Window:
    """Commands in flight: at most so many, and how long each one took."""

    def __init__(self, width: int) -> None:
        self._free = threading.Semaphore(width)
        self._sent: dict[int, float] = {}
        self.latencies_ms: list[float] = []
        self.is_counting = False

    def send(self, number: int, propose: Callable[[bytes], None]) -> None:
        """Propose a command as soon as there is room."""
        self._free.acquire()
        self._sent[number] = time.perf_counter()
        propose(number.to_bytes(8, "big") + _PADDING)

    def applied(self, command: bytes) -> None:
        """Take note that a command was applied here; of those that others sent, nothing."""
        sent = self._sent.pop(int.from_bytes(command[:8], "big"), None)
        if sent is not None:
            if self.is_counting:
                self.latencies_ms.append(1000 * (time.perf_counter() - sent))
            self._free.release()


def main() -> None:
    """Arguments: kind, number of the member, directory with peers.json, seconds, commands in flight."""
    kind, number, directory, seconds, width = sys.argv[1:]
    window = Window(int(width))
    if kind == "stock-durable":
        flush_each_entry()
    start = start_ours if kind == "ours" else start_stock
    propose, is_leader = start(int(number), Path(directory), window)
    while not is_leader():
        time.sleep(0.02)
    load(window, propose, float(seconds))


def load(window: Window, propose: Callable[[bytes], None], seconds: float) -> None:
    """Send for a while and print the rate and the latencies."""
    begun_s = time.perf_counter()
    number, counted_s = 0, begun_s + WARM_UP_S
    while (now_s := time.perf_counter()) < counted_s + seconds:
        window.is_counting = now_s >= counted_s
        window.send(number, propose)
        number += 1
    taken = sorted(window.latencies_ms)
    result = {"per_s": len(taken) / seconds, "p50_ms": taken[len(taken) // 2], "p99_ms": taken[len(taken) * 99 // 100]}
    print(json.dumps(result), flush=True)


def start_ours(number: int, directory: Path, window: Window) -> tuple[Callable[[bytes], None], Callable[[], bool]]:
    """A member of node.raft: TLS, msgpack, an fsync before any acknowledgement."""
    from node.raft import RaftMembers, RaftPeer, RaftService, RaftSettings  # noqa: PLC0415

    class Machine:
        """Applies by counting; what it costs is the consensus alone."""

        applied_index = 0

        def begin(self) -> None:
            """Nothing to open."""

        def apply(self, raft_index: int, command: bytes | None) -> None:
            """Count one command."""
            self.applied_index = raft_index
            if command is not None:
                window.applied(command)

        def commit(self) -> None:
            """Nothing to write: the journal is the truth."""

    raw = json.loads((directory / "peers.json").read_text())
    peers = [RaftPeer(**{**peer, "certificate_pins": tuple(peer["certificate_pins"])}) for peer in raw]
    name, members = peers[number].name, RaftMembers(voters=tuple(peers))
    service = RaftService(
        name=name,
        members=lambda: members,
        changes_members=lambda _command: False,
        certificate_path=directory / f"{name}.crt",
        private_key_path=directory / f"{name}.key",
        journal_path=directory / f"{name}.journal",
        machine=Machine(),
        settings=RaftSettings(),
        on_applied=lambda: None,
    )
    service.start()

    def failed(reason: str) -> None:
        raise RuntimeError(reason)

    return lambda command: service.propose(command, failed), lambda: service.status().state == "leader"


def start_stock(number: int, directory: Path, window: Window) -> tuple[Callable[[bytes], None], Callable[[], bool]]:
    """A member of PySyncObj as it is: plain TCP, pickle, its own journal file."""
    from pysyncobj.config import SyncObjConf  # noqa: PLC0415
    from pysyncobj.syncobj import SyncObj, replicated  # noqa: PLC0415

    class Member(SyncObj):
        @replicated
        def put(self, command: bytes) -> None:
            window.applied(command)

    addresses = [f"{peer['host']}:{peer['port']}" for peer in json.loads((directory / "peers.json").read_text())]
    own = addresses.pop(number)
    conf = SyncObjConf(
        journalFile=str(directory / f"stock-{number}.journal"),
        appendEntriesUseBatch=False,  # the faster setting with few in flight
        logCompactionMinEntries=10**9,
        logCompactionMinTime=10**9,
    )
    member = Member(own, addresses, conf)
    return member.put, lambda: member.getStatus()["leader"] == member.selfNode


def flush_each_entry() -> None:
    """Make PySyncObj's journal file as durable as ours, in this process."""
    from pysyncobj.journal import FileJournal  # noqa: PLC0415

    add = FileJournal.add

    def add_and_flush(journal: FileJournal, command: bytes, idx: int, term: int) -> None:
        add(journal, command, idx, term)
        journal.flush()

    FileJournal.add = add_and_flush


if __name__ == "__main__":
    main()
