"""What the node gives to and gets from the consensus layer.

The values of RaftSettings are the LAN column of the measured table: prompt batched sending makes the latency
independent of the tick period, and an election timeout must be longer than the worst stall of an fsync. profiles.py has
the other column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

OnFailed = Callable[[str], None]
RaftState = Literal["leader", "follower", "candidate"]

NO_LEADER = "no_leader"  # not appended: ask again later or elsewhere
QUEUE_FULL = "queue_full"  # not appended: too much is waiting
LEADER_CHANGED = "leader_changed"  # outcome unknown: it may still be applied
TOO_LARGE = "too_large"  # never appended: the command is longer than command_bytes_max
STOPPED = "stopped"  # outcome unknown: this node stops

SLICE_ENTRIES_MAX = 4096  # entries handed out of the journal at once, hence entries in one message
ENTRY_OVERHEAD_BYTES_MAX = 32  # msgpack framing of one entry in a message: array, bin header, two 64-bit integers


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftPeer:
    """One member of the cluster, oneself included.

    Attributes:
        name: unique name of the node, "node-1"; the node with the greater name dials.
        host: IPv4 or IPv6 literal, or a DNS name, which is resolved outside the raft thread.
        port: TCP port of the Raft transport, in [1, 65535].
        certificate_pins: lower-case hex SHA-256 of the DER certificates that the node may show; two while it
            changes its certificate.
        certificate_pem: the certificates themselves, concatenated: the trust store.
    """

    name: str
    host: str
    port: int
    certificate_pins: tuple[str, ...]
    certificate_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftMembers:
    """Who takes part at one moment.

    Attributes:
        voters: the members; a majority of them decides.
        contacts: other nodes, of a later agreement of the members that this node has not applied yet. They may send
            entries and ask for votes, and nobody counts them. A node that joins is among its own contacts.
    """

    voters: tuple[RaftPeer, ...]
    contacts: tuple[RaftPeer, ...] = ()

    @property
    def peers(self) -> tuple[RaftPeer, ...]:
        """All of them."""
        return (*self.voters, *self.contacts)

    def find(self, name: str) -> RaftPeer | None:
        """The node of this name, or None."""
        return next((peer for peer in self.peers if peer.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """Times and limits of one node; the defaults are those of the profile "lan".

    Raises:
        ValueError: a value is out of range or contradicts another one.
    """

    election_timeout_min_s: float = 0.75
    election_timeout_max_s: float = 1.5
    heartbeat_period_s: float = 0.15
    tick_period_s: float = 0.075  # idle nodes do little else than these two; together well below a third of an election
    leader_fallback_s: float = 1.5  # a leader that hears no majority for so long steps down
    connection_timeout_s: float = 4.0
    connection_retry_s: float = 0.3
    handshake_timeout_s: float = 5.0
    unauthenticated_connections_max: int = 16
    command_bytes_max: int = 63 * 1024
    batch_bytes: int = 64 * 1024
    frame_bytes_max: int = 1024 * 1024
    send_buffer_bytes_max: int = 8 * 1024 * 1024
    queue_commands_max: int = 10_000
    queue_bytes_max: int = 64 * 1024 * 1024
    uncommitted_entries_max: int = SLICE_ENTRIES_MAX
    journal_cache_bytes_max: int = 64 * 1024 * 1024
    bind_host: str = ""  # empty: the host of this node's own RaftPeer

    def __post_init__(self) -> None:
        self._check_times()
        self._check_limits()

    def _check_times(self) -> None:
        _demand(self.tick_period_s > 0, "tick_period_s must be positive")
        _demand(self.heartbeat_period_s > 0, "heartbeat_period_s must be positive")
        _demand(
            self.election_timeout_min_s > 3 * self.heartbeat_period_s,
            "election_timeout_min_s must exceed three heartbeat periods",
        )
        _demand(
            self.election_timeout_max_s > self.election_timeout_min_s,
            "election_timeout_max_s must exceed election_timeout_min_s",
        )
        _demand(self.leader_fallback_s > self.heartbeat_period_s, "leader_fallback_s must exceed heartbeat_period_s")
        _demand(
            self.connection_timeout_s >= self.election_timeout_max_s,
            "connection_timeout_s must not be below election_timeout_max_s",
        )
        _demand(self.connection_retry_s > 0, "connection_retry_s must be positive")
        _demand(self.handshake_timeout_s > 0, "handshake_timeout_s must be positive")

    def _check_limits(self) -> None:
        _demand(self.command_bytes_max > 0, "command_bytes_max must be positive")
        # PySyncObj sends an entry that reaches the batch size as a pickle in pieces; ours must never get there.
        _demand(self.batch_bytes > self.command_bytes_max + 1, "batch_bytes must exceed command_bytes_max + 1")
        largest = self.batch_bytes + self.command_bytes_max + SLICE_ENTRIES_MAX * ENTRY_OVERHEAD_BYTES_MAX + 1024
        _demand(self.frame_bytes_max >= largest, f"frame_bytes_max must be at least {largest}")
        _demand(
            self.send_buffer_bytes_max >= 2 * self.frame_bytes_max,
            "send_buffer_bytes_max must be at least two frames",
        )
        _demand(self.queue_commands_max > 0, "queue_commands_max must be positive")
        _demand(self.queue_bytes_max >= self.command_bytes_max, "queue_bytes_max must not be below command_bytes_max")
        _demand(self.unauthenticated_connections_max > 0, "unauthenticated_connections_max must be positive")
        _demand(self.uncommitted_entries_max > 0, "uncommitted_entries_max must be positive")
        _demand(self.journal_cache_bytes_max >= 0, "journal_cache_bytes_max must not be negative")


class StateMachine(Protocol):
    """The node's store, called from the raft thread only.

    A batch is begin, apply (one or more), commit. An exception from any of them stops the process: a command that
    fails on one node must fail as a value on all of them.
    """

    @property
    def applied_index(self) -> int:
        """Raft index of the last applied command, durable; 0 at first."""
        ...

    def begin(self) -> None:
        """Open one transaction."""
        ...

    def apply(self, raft_index: int, command: bytes | None) -> None:
        """Apply one command, in the order of its index, or note that a no-op went by.

        Args:
            raft_index: 1-based; every index comes, from applied_index + 1 on.
            command: the proposed bytes; None for a no-op of the protocol.
        """
        ...

    def commit(self) -> None:
        """Make the batch durable, applied_index included."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStatus:
    """What one node knows of the cluster at one moment.

    Attributes:
        state: of this node.
        leader: name of the leader, None while there is none or it is unknown.
        term: Raft's current term.
        commit_index: index of the last committed entry.
        applied_index: index of the last entry that the state machine made durable.
        journal_entries: length of the journal, committed or not.
        connected: names of the peers with an authenticated connection, sorted.
        rejected_connections: connections closed because of what the other side did, since the start.
        last_rejection: why the last of them was closed; empty while there is none.
    """

    state: RaftState
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    journal_entries: int
    connected: tuple[str, ...]
    rejected_connections: int
    last_rejection: str


def _demand(holds: bool, message: str) -> None:  # noqa: FBT001 -- an assertion that survives python -O
    if not holds:
        raise ValueError(message)
