"""Files that a claim points to are stored with the nodes, named by their hash.

The owner signs the upload (registry.signing.blob_upload). Every node that answers gets the file; the nodes of a quorum
must have it, because each of them fetches and verifies on its own.
"""

import asyncio
from collections.abc import AsyncIterator
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
    """Store a file with all nodes that answer.

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
    urls = api.transport.urls
    answers = await asyncio.gather(*(_put_quietly(api.transport, url, blob, headers) for url in urls))
    problems = {url: error for url, error in zip(urls, answers, strict=True) if error is not None}
    stored = tuple(url for url in urls if url not in problems)
    if len(stored) < max(1, quorum_size(api.trust)):
        raise _too_few(blob, problems, stored)
    return stored


async def _put_quietly(transport: Transport, url: str, blob: Blob, headers: dict[str, str]) -> RegistryError | None:
    try:
        await _put(transport, url, blob, headers)
    except RegistryError as error:
        return error
    return None


async def _put(transport: Transport, url: str, blob: Blob, headers: dict[str, str]) -> None:
    timing = transport.timing
    timeout = aiohttp.ClientTimeout(
        total=timing.attempt_timeout_s + blob.bytes_total / BYTES_PER_S_MIN, connect=timing.connect_timeout_s
    )
    target = f"{url}/v1/blobs/{blob.sha256.hex()}"
    try:
        async with transport.session.head(target, timeout=timeout) as response:
            if response.status == _OK:  # stored at an earlier try
                return
        async with transport.session.put(target, data=_chunks(blob.path), headers=headers, timeout=timeout) as response:
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
