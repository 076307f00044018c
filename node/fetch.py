"""From a claim's pointer to a local file with the claimed hash (DESIGN 5: pointers).

https and blobs only, and files of one directory where the operator allows one; where https may lead is decided in
node.strangers. There is a limit on bytes, on time and on redirects, and nothing is kept that does not have the hash.
Peers are another matter: their addresses are the policy's.

A vote is for ever, so only what the claim's own pointer is to blame for becomes a reason. Whatever a peer does says
nothing of the claim, and this node's own trouble (a full disk, no free descriptor) is not a FetchError at all.
"""

import asyncio
import errno
import re
import ssl
from collections.abc import Sequence
from contextlib import AbstractContextManager, aclosing
from pathlib import Path

import aiohttp
from yarl import URL

from node.blobs import BlobStore
from node.cache import FileCache
from node.config import FetchSettings
from node.download import Download, FetchError, is_own_trouble
from node.local_files import chunks_of, open_inside
from node.strangers import PrivateAddressError, Strangers, closed_session
from registry.errors import MalformedError, RefusedError

_BLOB = re.compile(r"blob:sha256:([0-9a-f]{64})")


class Fetcher:
    """Fetches what claims point at into a cache.

    Args:
        blobs: the node's own uploads, looked at first.
        cache: where fetched files are kept while there is room.
        peer_urls: API addresses of the other nodes.
        settings: limits.
        tls: trust of https pointers; the system's by default.
        peer_tls: trust of the other nodes' APIs; the system's by default.
    """

    def __init__(
        self,
        blobs: BlobStore,
        cache: FileCache,
        *,
        peer_urls: Sequence[str],
        settings: FetchSettings,
        tls: ssl.SSLContext | None = None,
        peer_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._blobs, self._cache, self._peer_urls, self._settings = blobs, cache, peer_urls, settings
        self._strangers = Strangers(allow_private_addresses=settings.allow_private_addresses, tls=tls)
        self._peers = closed_session(aiohttp.TCPConnector(ssl=peer_tls or True))

    async def close(self) -> None:
        """Close the connections."""
        await self._strangers.close()
        await self._peers.close()

    def holding(self, hashes: Sequence[bytes]) -> AbstractContextManager[None]:
        """Keep these files, once fetched, as long as the block runs; later they are kept while there is room."""
        return self._cache.held(hashes)

    def discard(self, sha256: bytes) -> None:
        """Drop a file that turned out to be damaged on this node's disk; it can be fetched again."""
        self._cache.remove(sha256)
        self._blobs.remove(sha256)

    async def fetch(self, pointer: str, sha256: bytes, *, bytes_max: int) -> Path:
        """Get the file that a pointer names.

        Args:
            pointer: ``blob:sha256:<hex>``, ``https://…``, or ``file:///…`` where the settings allow it.
            sha256: what the file must hash to.
            bytes_max: its largest size.

        Raises:
            FetchError: with the reason that a vote gives.
            OSError: this node cannot keep the file now: its disk, its descriptors; EDQUOT when the cache is full.
        """
        blob = _BLOB.fullmatch(pointer)
        if blob and blob[1] != sha256.hex():
            raise FetchError("hash_mismatch", "the pointer names another blob than the claim's hash")
        is_file = pointer.startswith("file:") and bool(self._settings.file_directory)
        url = None if blob or is_file else self._strangers.checked_url(pointer)
        known = self._blobs.find(sha256) or self._cache.find(sha256)
        if known is not None:
            if known.stat().st_size > bytes_max:
                raise FetchError("too_large", f"more than {bytes_max} bytes")
            self._cache.touch(sha256)
            return known
        if is_file:
            return await self._copy(pointer, sha256, bytes_max)
        if url is None:
            return await self._from_peers(sha256, bytes_max)
        check = self._strangers.checked_url
        download = Download(self._strangers.session, url, bytes_max=bytes_max, check_redirect=check)
        return await self._keep(download, sha256, bytes_max)

    async def _copy(self, pointer: str, sha256: bytes, bytes_max: int) -> Path:
        """Copy a file of this machine: whoever owns it may write on while it is verified."""
        file = open_inside(Path(self._settings.file_directory), pointer)
        async with aclosing(chunks_of(file)) as chunks:
            try:
                return await self._cache.add(sha256, chunks, bytes_max=bytes_max)
            except (MalformedError, RefusedError) as error:
                raise _blame(error) from error

    async def _from_peers(self, sha256: bytes, bytes_max: int) -> Path:
        """Ask one peer after the other; one that sends or announces too much does not hide the next."""
        problem: Exception = FetchError("unreachable", "no other node has it", may_pass=True)
        for peer_url in self._peer_urls:
            url = URL(f"{peer_url}/v1/blobs/{sha256.hex()}")
            try:
                return await self._keep(Download(self._peers, url, bytes_max=bytes_max), sha256, bytes_max)
            except OSError as error:
                problem = error
            except FetchError as error:
                if isinstance(problem, FetchError):
                    problem = FetchError("unreachable", f"{url.host}: {error}", may_pass=True)
        raise problem

    @property
    def cache_bytes(self) -> int:
        """Bytes of the fetched files, kept and being written."""
        return self._cache.bytes_total

    async def _keep(self, download: Download, sha256: bytes, bytes_max: int) -> Path:
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                aclosing(download.chunks(bytes_free=self._cache.free_bytes)) as chunks,
            ):
                return await self._cache.add(sha256, chunks, bytes_max=bytes_max)
        except TimeoutError as error:  # aiohttp's own are of this class too
            why = str(error) or f"not fetched within {self._settings.timeout_s} s"
            raise FetchError("timeout", why, may_pass=True) from error
        except PrivateAddressError as error:
            raise FetchError("unsupported_pointer", str(error)) from error
        except (MalformedError, RefusedError) as error:
            raise _blame(error) from error
        except (aiohttp.ClientError, UnicodeError) as error:  # the latter from a name that cannot be looked up
            if is_own_trouble(error):
                raise
            raise FetchError("unreachable", str(error), may_pass=True) from error


def _blame(error: MalformedError | RefusedError) -> Exception:
    """Whose fault it is that the cache did not take a file: the file's, or this node's for want of room."""
    if error.code not in {"too_large", "hash_mismatch"}:
        return OSError(errno.EDQUOT, str(error))
    return FetchError(error.code, str(error), may_pass=error.code == "hash_mismatch")
