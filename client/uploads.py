"""Files that a claim points to are stored with the nodes, named by their hash.

The owner signs the upload (registry.signing.blob_upload). Every node that answers gets the file; the nodes of a quorum
must have it, because each of them fetches and verifies on its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.api import Api, quorum_size
from client.files import CHUNK_BYTES, sha256_file
from client.transport import CONNECTION_ERRORS, Transport, UnreachableError, describe_failure, read_response
from registry import signing
from registry.errors import QuorumError, RegistryError

_OK = 200
GRACE_S = 10.0
RETRY_PAUSE_S = 0.5
BYTES_PER_S_MIN = 256 * 1024  # a node that takes a file more slowly counts as down


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of the owner and its name in the nodes' store."""

    path: Path
    sha256: bytes
    bytes_total: int

    @property
    def pointer(self) -> str:
        """What a claim says of it."""
        return f"blob:sha256:{self.sha256.hex()}"


def blob_of(path: Path) -> Blob:
    """Hash a file; raises OSError when it cannot be read."""
    sha256, bytes_total = sha256_file(path)
    return Blob(path=path, sha256=sha256, bytes_total=bytes_total)


async def upload(api: Api, blob: Blob, private_key: Ed25519PrivateKey) -> tuple[str, ...]:
    """Store a file with all nodes that take it before a quorum has it and some time of grace is over.

    Nodes that come too late fetch the file from the others. While there is no quorum, nodes that did not answer are
    tried again until the patience is over.

    Returns:
        URLs of the nodes that have it now.

    Raises:
        RegistryError: a node refuses the file and too few others take it.
        QuorumError: fewer nodes than a quorum have it.
    """
    signed = signing.blob_upload(api.trust.origin, blob.sha256, blob.bytes_total)
    headers = {
        "Wmreg-Signer": private_key.public_key().public_bytes_raw().hex(),
        "Wmreg-Signature": signing.sign(private_key, signed).hex(),
        "Content-Length": str(blob.bytes_total),
    }
    job = _Job(api.transport, blob, headers)
    tasks = {url: asyncio.create_task(job.store(url)) for url in api.transport.urls}
    try:
        await _collect(tasks.values(), max(1, quorum_size(api.trust)), job.enough)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    late = UnreachableError("it took longer than the others")
    outcomes = {url: late if task.cancelled() else task.result() for url, task in tasks.items()}
    stored = tuple(url for url, problem in outcomes.items() if problem is None)
    if len(stored) < max(1, quorum_size(api.trust)):
        raise _too_few(blob, {url: problem for url, problem in outcomes.items() if problem}, stored)
    return stored


async def _collect(tasks: Collection["asyncio.Task[RegistryError | None]"], least: int, enough: asyncio.Event) -> None:
    """Wait until `least` nodes have the file, then as long again, and at least GRACE_S, for the others."""
    begun_s, pending = time.monotonic(), set(tasks)
    while pending and sum(task.done() and task.result() is None for task in tasks) < least:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    enough.set()
    if pending:
        await asyncio.wait(pending, timeout=max(GRACE_S, time.monotonic() - begun_s))


class _Job:
    """One file on its way to all nodes."""

    def __init__(self, transport: Transport, blob: Blob, headers: dict[str, str]) -> None:
        self.transport, self.blob, self.headers = transport, blob, headers
        self.enough = asyncio.Event()  # a quorum has it: a node that does not answer is not tried again

    async def store(self, url: str) -> RegistryError | None:
        """Store it with one node; return its refusal, or why it could not be reached within the patience."""
        deadline_s = time.monotonic() + self.transport.timing.patience_s
        while True:
            try:
                await self._put(url)
            except UnreachableError as error:
                if self.enough.is_set() or time.monotonic() + RETRY_PAUSE_S > deadline_s:
                    return error
            except RegistryError as error:
                return error
            else:
                return None
            with suppress(TimeoutError):
                await asyncio.wait_for(self.enough.wait(), RETRY_PAUSE_S)

    async def _put(self, url: str) -> None:
        timing, session = self.transport.timing, self.transport.session
        timeout = aiohttp.ClientTimeout(
            total=timing.attempt_timeout_s + self.blob.bytes_total / BYTES_PER_S_MIN, connect=timing.connect_timeout_s
        )
        target = f"{url}/v1/blobs/{self.blob.sha256.hex()}"
        try:
            async with session.head(target, timeout=timeout, allow_redirects=False) as response:
                if response.status == _OK:  # stored at an earlier try
                    return
            async with session.put(
                target, data=_chunks(self.blob.path), headers=self.headers, timeout=timeout, allow_redirects=False
            ) as response:
                await read_response(response)
        except CONNECTION_ERRORS as error:
            raise UnreachableError(describe_failure(error)) from error


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _too_few(blob: Blob, problems: dict[str, RegistryError], stored: tuple[str, ...]) -> RegistryError:
    refused = [error for error in problems.values() if not isinstance(error, UnreachableError)]
    if refused:
        return refused[0]
    details = "; ".join(f"{url}: {error}" for url, error in problems.items())
    message = f"{blob.path}: stored by {len(stored)} nodes, fewer than a quorum: {details}"
    return QuorumError(message, code="unavailable")
