"""Members of a real Raft cluster on loopback: their certificates, ports and settings, and services in this process.

Three processes, and the tests that kill them, are in tests/node/raft/test_cluster.py.
"""

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from raft_simulation import ListMachine

from node.ports import free_ports
from node.raft import RaftMembers, RaftPeer, RaftService, RaftSettings, make_certificate

NOW = dt.datetime.now(dt.UTC)
FAST = RaftSettings(
    election_timeout_min_s=0.4,
    election_timeout_max_s=0.8,
    leader_fallback_s=0.8,
    heartbeat_period_s=0.05,
    tick_period_s=0.02,
    connection_timeout_s=2.0,
    connection_retry_s=0.05,
)

# For tests that check a term or propose only once: a stall of a busy machine must not cost the leader its office.
STEADY = dataclasses.replace(
    FAST, election_timeout_min_s=2.0, election_timeout_max_s=3.0, leader_fallback_s=4.0, connection_timeout_s=4.0
)


def stand_soon(services: Sequence[RaftService]) -> None:
    """Once all are connected, let one stand for election at once instead of after its long time-out."""
    wait_for(lambda: all(len(service.status().connected) == len(services) - 1 for service in services))
    assert services[0]._node is not None
    services[0]._node.fields.election_deadline_s = 0.0


def wait_for(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    """Poll until it holds; fails at the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition was not met in time"
        time.sleep(0.005)


def make_peers(directory: Path, names: list[str]) -> list[RaftPeer]:
    """Make a certificate, a key file and an entry for each name."""
    peers = []
    for name, port in zip(names, free_ports("127.0.0.1", len(names)), strict=True):
        certificate = make_certificate(name, now=NOW)
        (directory / f"{name}.crt").write_text(certificate.certificate_pem)
        (directory / f"{name}.key").write_text(certificate.private_key_pem)
        peer = RaftPeer(
            name=name,
            host="127.0.0.1",
            port=port,
            certificate_pins=(certificate.pin,),
            certificate_pem=certificate.certificate_pem,
        )
        peers.append(peer)
    return peers


def make_service(
    directory: Path,
    name: str,
    peers: list[RaftPeer],
    *,
    machine: ListMachine,
    settings: RaftSettings = FAST,
    on_applied: Callable[[], None] = lambda: None,
) -> RaftService:
    """Make the service of one member, not started."""
    return RaftService(
        name=name,
        members=lambda: RaftMembers(voters=tuple(peers)),
        changes_members=lambda _command: False,
        certificate_path=directory / f"{name}.crt",
        private_key_path=directory / f"{name}.key",
        journal_path=directory / f"{name}.journal",
        machine=machine,
        settings=settings,
        on_applied=on_applied,
    )
