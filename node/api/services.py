"""What the handlers of the HTTP API work with."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from node.api.limits import Streams, TokenBuckets, WorkBudget
from node.blobs import BlobStore
from node.fetch import Fetcher
from node.gather import Gatherer
from node.index import Index
from node.ledger import LedgerService
from node.membership import Standing
from node.raft.types import RaftStatus
from node.space import DiskSpace
from node.verifier.supervisor import Verifier
from node.voting import Voter
from node.watch import Watch

if TYPE_CHECKING:
    from node.api.reads import ReadRate  # whose middleware reads what is here

WAIT_S_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of a running node.

    Attributes:
        name: the node's.
        device: where its verifier computes.
        submit_timeout_s: how long a submission may wait for the ledger, and again for the quorum.
        submissions: how many entries an address may submit.
        key_submissions: how many entries a signing key may submit.
        reads: how much an address may read.
        work: how much verification work may be asked for.
        blob_bytes_max: largest upload.
        space: the room on the node's disk.
        raft_status: what the consensus layer says of itself.
        read_barrier: waits until what is stored here is not behind; None where nothing can be.
        standing: where this node stands among the members.
        watch: whether the node keeps up.
        alarms: what makes the node unhealthy, by the part that says so.
        streams: of events, that are open.
        refused: how many requests were answered by an error, by its code.
        stopping: set when the node shuts down; ends the long polls.
    """

    name: str
    device: str
    submit_timeout_s: float
    submissions: TokenBuckets
    key_submissions: TokenBuckets
    reads: "ReadRate"
    work: WorkBudget
    blob_bytes_max: int
    ledger: LedgerService
    gatherer: Gatherer
    index: Index
    blobs: BlobStore
    voter: Voter
    fetcher: Fetcher
    verifier: Verifier
    space: DiskSpace
    raft_status: Callable[[], RaftStatus]
    watch: Watch
    standing: Callable[[], Standing] = lambda: Standing.MEMBER
    read_barrier: Callable[[float], Awaitable[bool]] | None = None
    alarms: dict[str, str] = field(default_factory=dict)
    streams: Streams = field(default_factory=Streams)
    refused: Counter[str] = field(default_factory=Counter)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


SERVICES = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    """The node that serves this request."""
    return request.app[SERVICES]
