"""One file over HTTP, as a stream: few redirects, each looked at; a connection that breaks is taken up again.

A body is passed on as it is sent. Nothing is decompressed: a server that compresses although it was asked not to is
turned down, so that a small answer cannot become a large file. Where a broken connection ended is asked for again only
under the same strong entity tag, so the parts are of one file, and the bytes come in order for whoever hashes them.

Sources: RFC 9110, sections 13.1.5 (If-Range), 14 (range requests), 15.4 (redirection), 8.8.3 (entity tags).
"""

import errno
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from node.bodies import steady_chunks

REDIRECTS_MAX = 5
RESUMES_MAX = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class FetchError(Exception):
    """The file could not be had.

    Attributes:
        reason: unreachable, hash_mismatch, too_large, unsupported_pointer or timeout; a vote's reason.
        may_pass: whether a later attempt could end otherwise.
    """

    def __init__(self, reason: str, detail: str, *, may_pass: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.may_pass = reason, may_pass


@dataclass(slots=True)
class _Progress:
    """How far a download is.

    Attributes:
        read: bytes passed on so far.
        tag: strong entity tag of the file; None where the server gives none, and nothing can be taken up again.
        total: bytes of the whole file, where the server says it.
    """

    read: int = 0
    tag: str | None = None
    total: int | None = None


class Download:
    """A file to be streamed.

    Args:
        session: makes the connections; must neither decompress nor keep cookies.
        url: where the file is.
        bytes_max: its largest size.
        check_redirect: raises FetchError for a URL that must not be followed to; None follows to none.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        *,
        bytes_max: int,
        check_redirect: Callable[[str], URL] | None = None,
    ) -> None:
        self._session, self._url, self._bytes_max, self._check_redirect = session, url, bytes_max, check_redirect
        self._progress = _Progress()
        self.resumed = 0

    async def chunks(self, *, bytes_free: int) -> AsyncGenerator[bytes, None]:
        """Yield the file's content in order.

        Args:
            bytes_free: what there is room for; a file that announces more is not begun.

        Raises:
            FetchError: the answer is not the file.
            OSError: EDQUOT when there is no room; this node's own trouble.
            aiohttp.ClientError, TimeoutError: it broke, and could not be taken up again.
        """
        progress = self._progress
        while True:
            begun_at = progress.read
            try:
                async with self._opened() as answer:
                    self._check(answer, bytes_free)
                    async for chunk in steady_chunks(answer.content):
                        progress.read += len(chunk)
                        yield chunk
                    return
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
                if is_own_trouble(error) or not self._may_resume(since=begun_at):
                    raise
                self.resumed += 1

    def _may_resume(self, *, since: int) -> bool:
        """Whether it came any further than last time, of a file that can be recognised."""
        progress = self._progress
        return progress.tag is not None and progress.read > since and self.resumed < RESUMES_MAX

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer behind all redirects."""
        headers = {"Accept-Encoding": "identity"}
        if self._progress.read and self._progress.tag:
            headers |= {"Range": f"bytes={self._progress.read}-", "If-Range": self._progress.tag}
        url = self._url
        for _ in range(REDIRECTS_MAX + 1):
            async with self._session.get(url, allow_redirects=False, headers=headers) as answer:
                if answer.status not in _REDIRECTS or self._check_redirect is None:
                    yield answer
                    return
                url = self._target(url, answer.headers.get("Location", ""))
        raise FetchError("unreachable", f"more than {REDIRECTS_MAX} redirects", may_pass=True)

    def _target(self, url: URL, location: str) -> URL:
        """Where a redirect leads; raises FetchError where it must not be followed."""
        if self._check_redirect is None:
            raise ValueError("no redirect is followed")
        try:
            return self._check_redirect(str(url.join(URL(location))))
        except (ValueError, FetchError) as error:  # what a server answers today it need not answer tomorrow
            raise FetchError("unsupported_pointer", f"it redirects to {location[:200]!r}", may_pass=True) from error

    def _check(self, answer: aiohttp.ClientResponse, bytes_free: int) -> None:
        """Refuse what is not the file, or not its continuation."""
        progress = self._progress
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise FetchError("unreachable", f"it answers compressed ({encoding[:40]!r}) unasked", may_pass=True)
        if progress.read:
            self._check_continuation(answer)
            return
        if answer.status != 200:
            raise FetchError("unreachable", f"HTTP status {answer.status}", may_pass=True)
        tag = answer.headers.get("ETag")
        progress.tag = tag if tag and tag.startswith('"') else None
        progress.total = answer.content_length
        if (progress.total or 0) > self._bytes_max:
            raise FetchError("too_large", f"{progress.total} bytes; at most {self._bytes_max}")
        if (progress.total or 0) > bytes_free:
            raise OSError(errno.EDQUOT, "the cache of fetched files is full")

    def _check_continuation(self, answer: aiohttp.ClientResponse) -> None:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        is_rest = (
            answer.status == 206
            and answer.headers.get("ETag") == self._progress.tag
            and found is not None
            and int(found[1]) == self._progress.read
            and (self._progress.total is None or int(found[3]) == self._progress.total)
        )
        if not is_rest:
            raise FetchError("unreachable", "it broke off, and the rest is not to be had", may_pass=True)


def is_own_trouble(error: Exception) -> bool:
    """Whether a connection failed for want of something of this machine's: descriptors, memory."""
    return isinstance(error, OSError) and error.errno in _OWN_TROUBLE
