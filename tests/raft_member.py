"""One member of the cluster of test_cluster.py, as a process: commands in, events out, one JSON object a line.

Its state machine is a file with one line for each command, flushed in commit(), so that a killed process leaves what it
had applied.
"""

import dataclasses
import json
import logging
import sys
import threading
from pathlib import Path

from raft_cluster import FAST, STEADY

from node.raft import RaftMembers, RaftPeer, RaftService, install_unpickling_guard


class FileMachine:
    """Applied commands in a file, "index command" on each line; no fsync, since a kill keeps the page cache."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(whole))
        self.applied_index = int(whole[-1].split()[0]) if whole else 0
        self._file = path.open("a")
        self._batch: list[str] = []

    def begin(self) -> None:
        assert not self._batch

    def apply(self, raft_index: int, command: bytes | None) -> None:
        assert raft_index == self.applied_index + len(self._batch) + 1
        self._batch.append(f"{raft_index} {'-' if command is None else command.decode()}\n")

    def commit(self) -> None:
        self._file.write("".join(self._batch))
        self._file.flush()
        self.applied_index += len(self._batch)
        self._batch = []


def main() -> None:
    """Run until standard input ends."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    install_unpickling_guard()
    name, directory = sys.argv[1], Path(sys.argv[2])
    raw = json.loads((directory / "peers.json").read_text())
    peers = [RaftPeer(**{**peer, "certificate_pins": tuple(peer["certificate_pins"])}) for peer in raw]
    machine = FileMachine(directory / f"{name}.applied")
    service = RaftService(
        name=name,
        members=lambda: RaftMembers(voters=tuple(peers)),
        changes_members=lambda _command: False,
        certificate_path=directory / f"{name}.crt",
        private_key_path=directory / f"{name}.key",
        journal_path=directory / f"{name}.journal",
        machine=machine,
        settings=STEADY if sys.argv[3] == "steady" else FAST,
        on_applied=lambda: None,
    )
    service.start()
    serve(service)
    service.stop()


def serve(service: RaftService) -> None:
    """Obey the test."""
    lock = threading.Lock()

    def say(event: dict) -> None:
        with lock:
            print(json.dumps(event), flush=True)

    say({"event": "up"})
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "propose":
            command = order["command"]
            service.propose(command.encode(), lambda reason, c=command: say({"event": reason, "command": c}))
        elif order["order"] == "cut":
            cut = set(order["peers"])
            service._node.transport.drop_rule = lambda _direction, peer, _message, cut=cut: peer in cut
        elif order["order"] == "status":
            say({"event": "status", **dataclasses.asdict(service.status())})


if __name__ == "__main__":
    main()
