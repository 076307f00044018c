"""What the handlers of the HTTP API work with."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from node.api.limits import TokenBuckets
from node.blobs import BlobStore
from node.gather import Gatherer
from node.ledger import LedgerService
from node.membership import Standing
from node.raft.types import RaftStatus
from node.verifier.supervisor import Verifier
from node.voting import Voter

WAIT_S_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of a running node.

    Attributes:
        name: the node's.
        device: where its verifier computes.
        submit_timeout_s: how long a submission may wait for the ledger, and again for the quorum.
        submissions: how many entries an address may submit.
        blob_bytes_max: largest upload.
        raft_status: what the consensus layer says of itself.
        read_barrier: waits until what is stored here is not behind; None where nothing can be.
        standing: where this node stands among the members.
        alarms: what makes the node unhealthy, by the part that says so.
        stopping: set when the node shuts down; ends the long polls.
    """

    name: str
    device: str
    submit_timeout_s: float
    submissions: TokenBuckets
    blob_bytes_max: int
    ledger: LedgerService
    gatherer: Gatherer
    blobs: BlobStore
    voter: Voter
    verifier: Verifier
    raft_status: Callable[[], RaftStatus]
    standing: Callable[[], Standing] = lambda: Standing.MEMBER
    read_barrier: Callable[[float], Awaitable[bool]] | None = None
    alarms: dict[str, str] = field(default_factory=dict)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


SERVICES = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    """The node that serves this request."""
    return request.app[SERVICES]
