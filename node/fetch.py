"""From a claim's pointer to a local file with the claimed hash (DESIGN 5: pointers).

A pointer is written by a stranger, and a node that fetches it is a machine inside somebody's network. So: two schemes
only, no redirects, no private, loopback or link-local address even if a name resolves to one, a limit on bytes and on
time, and nothing is kept that does not have the hash. Peers are another matter: their addresses are the policy's.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from node.blobs import BlobStore
from node.bodies import CHUNK_BYTES
from node.config import FetchSettings
from registry.errors import MalformedError, RefusedError

CONNECT_TIMEOUT_S = 10
STALL_TIMEOUT_S = 60
_BLOB = re.compile(r"blob:sha256:([0-9a-f]{64})")


class FetchError(Exception):
    """The file could not be had.

    Attributes:
        reason: unreachable, hash_mismatch, too_large, unsupported_pointer or timeout; a vote's reason.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Fetcher:
    """Fetches what claims point at into a cache.

    Args:
        blobs: the node's own uploads, looked at first.
        cache: where fetched files are kept until they are released.
        peer_urls: API addresses of the other nodes.
        settings: limits.
        tls: trust of https pointers; the system's by default.
    """

    def __init__(
        self,
        blobs: BlobStore,
        cache: BlobStore,
        *,
        peer_urls: Sequence[str],
        settings: FetchSettings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._blobs, self._cache, self._peer_urls, self._settings = blobs, cache, peer_urls, settings
        resolver = ThreadedResolver()
        public = resolver if settings.allow_private_addresses else PublicResolver(resolver)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S)
        connector = aiohttp.TCPConnector(resolver=public, ssl=tls or True)
        self._strangers = aiohttp.ClientSession(connector=connector, timeout=limit, trust_env=False)
        self._peers = aiohttp.ClientSession(timeout=limit)

    async def close(self) -> None:
        """Close the connections."""
        await self._strangers.close()
        await self._peers.close()

    async def fetch(self, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        """Get the file that a pointer names.

        Args:
            pointer: ``blob:sha256:<hex>`` or ``https://…``.
            sha256: what the file must hash to.
            bytes_max: its largest size.

        Raises:
            FetchError: with the reason that a vote gives.
        """
        urls = self._urls(pointer, sha256)
        known = self._blobs.find(sha256) or self._cache.find(sha256)
        if known is not None:
            if known.stat().st_size > bytes_max:
                raise FetchError("too_large", f"more than {bytes_max} bytes")
            return known
        problem = FetchError("unreachable", "no other node has it")
        for session, url in urls:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    return await self._download(session, url, sha256, bytes_max)
            except TimeoutError:
                problem = FetchError("timeout", f"not fetched within {self._settings.timeout_s} s")
            except FetchError as error:
                problem = error
                if session is self._peers and error.reason == "hash_mismatch":
                    problem = FetchError("unreachable", f"{url.host} served another file")  # says nothing of the claim
        raise problem

    def release(self, sha256: bytes) -> None:
        """Drop a fetched file; the node's own uploads stay."""
        self._cache.remove(sha256)

    def _urls(self, pointer: str, sha256: bytes) -> list[tuple[aiohttp.ClientSession, URL]]:
        blob = _BLOB.fullmatch(pointer)
        if blob:
            if blob[1] != sha256.hex():
                raise FetchError("hash_mismatch", "the pointer names another blob than the claim's hash")
            return [(self._peers, URL(f"{url}/v1/blobs/{blob[1]}")) for url in self._peer_urls]
        try:
            url = URL(pointer)
        except ValueError as error:
            raise FetchError("unsupported_pointer", str(error)) from error
        if url.scheme != "https" or not url.host or url.user is not None or url.password is not None:
            raise FetchError("unsupported_pointer", "a pointer is blob:sha256:<hex> or https://host/path")
        if not self._settings.allow_private_addresses:
            _check_literal(url.host)
        return [(self._strangers, url)]

    async def _download(self, session: aiohttp.ClientSession, url: URL, sha256: bytes, bytes_max: int) -> Path:
        try:
            async with session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status != 200:
                    raise FetchError("unreachable", f"HTTP status {answer.status}")
                if (answer.content_length or 0) > bytes_max:
                    raise FetchError("too_large", f"{answer.content_length} bytes; at most {bytes_max}")
                return await self._cache.add(sha256, _chunks(answer.content), bytes_max=bytes_max)
        except PrivateAddressError as error:
            raise FetchError("unsupported_pointer", str(error)) from error
        except (MalformedError, RefusedError) as error:
            reason = error.code if error.code in {"too_large", "hash_mismatch"} else "unreachable"
            raise FetchError(reason, str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise FetchError("unreachable", str(error)) from error


class PrivateAddressError(aiohttp.ClientError):
    """A stranger's pointer leads into a private network."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses; a name with any other address is refused as a whole.

    The connection is made to the addresses that were checked, so a name that answers differently the second time
    (DNS rebinding) gains nothing.
    """

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name; raises PrivateAddressError or OSError."""
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            if not is_public(result["host"]):
                raise PrivateAddressError(f"{host} leads to an address that is not public")
        return found

    async def close(self) -> None:
        """Close the resolver behind this one."""
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an IP literal is a globally routable unicast address, also when wrapped in an IPv6 one."""
    parsed: Any = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    teredo = getattr(parsed, "teredo", None)
    if teredo or (parsed.version == 6 and parsed in ipaddress.ip_network("64:ff9b::/96")):
        return False
    parsed = inner or parsed
    return bool(parsed.is_global and not parsed.is_multicast and not parsed.is_reserved)


def _check_literal(host: str) -> None:
    """Refuse an IP literal that is not public; names are checked when they are resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(host):
        raise FetchError("unsupported_pointer", f"{host} is not a public address")


async def _chunks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for chunk in content.iter_chunked(CHUNK_BYTES):
        yield chunk
