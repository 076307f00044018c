"""HTTP to the nodes of a ledger, none of which must answer.

A request goes to one node after the other until one gives an answer that its reader accepts. A node that is down, slow,
overloaded, behind or lying is passed over. When a whole round brought neither an answer nor a refusal, it is repeated
after a pause, until the patience is over. Every message of the ledger may be sent again (submitting is idempotent), so
a lost answer is handled like a lost request.
"""

import asyncio
import json
import math
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from client.errors import InputError
from registry.errors import MalformedError, QuorumError, RefusedError, RegistryError

T = TypeVar("T")
ANSWER_BYTES_MAX = 32 * 2**20  # a bundle of 256 entries of 60 KiB is the largest that anyone asks for
ERROR_BYTES_MAX = 64 * 1024
CONNECTION_ERRORS = (
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
    UnicodeError,
)  # the last: no host can be called so
_PAUSE_FIRST_S, _PAUSE_LAST_S = 0.2, 3.0
_TOO_MANY, _NOT_FOUND, _TOO_LARGE = 429, 404, 413
_UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_LAGGING = frozenset({"not_found", "not_yet"})  # what a node says that is merely behind; any other refusal says more


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long to wait for nodes.

    Attributes:
        connect_timeout_s: for a connection to one node.
        attempt_timeout_s: for one answer, beyond what the request itself asks a node to wait.
        patience_s: for all attempts together; afterwards the ledger counts as unavailable.
    """

    connect_timeout_s: float = 5.0
    attempt_timeout_s: float = 30.0
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask a node.

    Attributes:
        path: begins with a slash; query included.
        body: sent as application/octet-stream.
        wait_s: how long the request itself lets the node wait.
    """

    path: str
    method: str = "GET"
    body: bytes | None = None
    wait_s: float = 0.0


class UnreachableError(QuorumError):
    """One node did not give a usable answer; it may later."""

    code = "unreachable"


class Transport:
    """Requests to the nodes of one ledger; make it with `connect`."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], timing: Timing) -> None:
        self.session = session
        self.urls = tuple(url.rstrip("/") for url in urls)
        self.timing = timing
        self._preferred = 0  # the node that answered last is asked first next time
        self._shared_s: float | None = None  # what is left of a patience that many requests share

    @contextmanager
    def sharing_patience(self) -> Iterator[None]:
        """Meanwhile, all calls of `ask_all` together wait for silent nodes no longer than one alone would."""
        self._shared_s = self.timing.patience_s
        try:
            yield
        finally:
            self._shared_s = None

    async def ask(self, request: Request, read: Callable[[bytes], T]) -> T:
        """Ask the nodes in turn until one gives an answer that `read` accepts.

        Args:
            request: the same for all nodes.
            read: makes the result of the body; its RegistryError moves on to the next node, as a refusal does.

        Raises:
            RegistryError: a node refused, or gave what `read` refuses, and no other one did better.
            QuorumError: no node was in a state to answer within the patience.
        """
        deadline_s, pause_s = time.monotonic() + self.timing.patience_s, _PAUSE_FIRST_S
        while True:
            problems: dict[str, RegistryError] = {}
            for url in self._in_turn():
                try:
                    result = read(await self.ask_node(url, request))
                except RegistryError as error:
                    problems[url] = error
                else:
                    self._preferred = self.urls.index(url)
                    return result
            settled = [error for error in problems.values() if not isinstance(error, UnreachableError)]
            if settled:
                raise min(settled, key=lambda error: error.code in _LAGGING)
            if time.monotonic() + pause_s > deadline_s:
                raise unavailable(problems)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_LAST_S)

    async def ask_all(self, request: Request, *, least: int = 1) -> dict[str, bytes | RegistryError]:
        """Ask all nodes at the same time; those that did not answer again, while fewer than `least` did.

        Args:
            request: the same for all nodes.
            least: answers, refusals included, that are enough; with fewer the patience is used up.

        Returns:
            The answer or the problem of each, in the policy's order.
        """
        patience_s, pause_s = self.timing.patience_s if self._shared_s is None else self._shared_s, _PAUSE_FIRST_S
        begun_s = time.monotonic()
        answers: dict[str, bytes | RegistryError] = {}
        silent = self.urls
        while True:
            asked = await asyncio.gather(*(self._ask_quietly(url, request) for url in silent))
            answers |= dict(zip(silent, asked, strict=True))
            silent = tuple(url for url in self.urls if isinstance(answers[url], UnreachableError))
            enough = len(self.urls) - len(silent) >= min(least, len(self.urls))
            if enough or time.monotonic() + pause_s > begun_s + patience_s:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_LAST_S)
        if self._shared_s is not None and pause_s > _PAUSE_FIRST_S:
            self._shared_s = max(0.0, patience_s - (time.monotonic() - begun_s)) if enough else 0.0
        return {url: answers[url] for url in self.urls}

    async def ask_node(self, url: str, request: Request) -> bytes:
        """Ask one node once.

        Raises:
            UnreachableError: it cannot be reached, or is in no state to answer.
            RefusedError, MalformedError: with the code that it gives; not_found for an unknown hash.
        """
        timeout = aiohttp.ClientTimeout(
            total=self.timing.attempt_timeout_s + request.wait_s, connect=self.timing.connect_timeout_s
        )
        try:
            async with self.session.request(
                request.method, url + request.path, data=request.body, timeout=timeout, allow_redirects=False
            ) as response:
                return await read_response(response)
        except CONNECTION_ERRORS as error:
            raise UnreachableError(describe_failure(error)) from error

    async def _ask_quietly(self, url: str, request: Request) -> bytes | RegistryError:
        try:
            return await self.ask_node(url, request)
        except RegistryError as error:
            return error

    def _in_turn(self) -> tuple[str, ...]:
        return self.urls[self._preferred :] + self.urls[: self._preferred]


@asynccontextmanager
async def connect(
    urls: Sequence[str], timing: Timing | None = None, *, ca_file: Path | None = None
) -> AsyncIterator[Transport]:
    """Open a session with the nodes at these URLs.

    Args:
        urls: http or https.
        timing: how long to wait for them.
        ca_file: PEM of the authorities that vouch for https nodes; None for the system's.

    Raises:
        InputError: the file holds no certificate.
        QuorumError: there is no URL.
    """
    if not urls:
        raise QuorumError("the policy file names no node's URL; add it at the end of the log and witness lines")
    connector = aiohttp.TCPConnector(ssl=tls_trust(ca_file))
    async with aiohttp.ClientSession(connector=connector, headers={"User-Agent": "wmreg"}) as session:
        yield Transport(session, urls, timing or Timing())


async def read_response(response: aiohttp.ClientResponse) -> bytes:
    """The body of a good answer.

    Raises:
        UnreachableError, RefusedError, MalformedError: what a bad one says.
    """
    if response.status not in {200, 201}:
        raise error_of(response.status, await _limited(response, ERROR_BYTES_MAX))
    return await _limited(response, ANSWER_BYTES_MAX)


def error_of(status: int, body: bytes) -> RegistryError:
    """The error that a node's answer stands for, by its HTTP status and stable code."""
    code, message = _read_error(body)
    if status >= 500 or status == _TOO_MANY:
        return UnreachableError(message or f"HTTP status {status}", code=code or "unreachable")
    if status == _NOT_FOUND and code is None:
        return UnreachableError("HTTP status 404, and no node's: does the policy's URL lead to a node of the ledger?")
    if status == _NOT_FOUND:
        return RefusedError(message or "not found", code=code if code == "not_yet" else "not_found")
    if status in {400, _TOO_LARGE}:
        return MalformedError(message or f"HTTP status {status}", code=code or "malformed")
    return RefusedError(message or f"HTTP status {status}", code=code or "refused")


def read_json(body: bytes) -> dict[str, object]:
    """A JSON object.

    Raises:
        UnreachableError: it is none; a node that answers so is passed over like one that is down.
    """
    try:
        content = json.loads(body, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise UnreachableError("the answer is not JSON") from error
    if not isinstance(content, dict):
        raise UnreachableError("the answer is not a JSON object")
    return content


def describe_failure(error: BaseException) -> str:
    """Why a connection failed, in few words and one line, which hold nothing of the URL: that may be a secret."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, UnicodeError | aiohttp.InvalidURL):
        return "the URL names no host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", error.certificate_error)
        return f"its certificate is not trusted: {why} (--ca-file names other authorities)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {_why_unconnected(error.os_error)}"
    if isinstance(error, aiohttp.ClientResponseError):  # its own text ends with the URL
        return f"its answer is no HTTP: {' '.join(error.message.split())}"
    return " ".join(str(error).split()) or "the connection was lost"


def _why_unconnected(error: OSError) -> str:
    if isinstance(error, socket.gaierror):  # its numbers are not those of errno
        return "the host's name is not known" if error.errno in _UNKNOWN_HOST else error.strerror or str(error)
    return os.strerror(error.errno) if error.errno else str(error)


def tls_trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Who vouches for nodes with https URLs: a file's authorities, or the system's, which aiohttp writes as True.

    Raises:
        InputError: the file holds no certificates.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise InputError(f"{ca_file}: not a PEM file of certificate authorities: {error}") from error


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not a number of JSON")
    return number


def _read_error(body: bytes) -> tuple[str | None, str | None]:
    try:
        error = json.loads(body)["error"]
        return str(error["code"])[:64], str(error["message"])[:1000]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None


async def _limited(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise UnreachableError(f"an answer of more than {bytes_max} bytes")
    return bytes(body)


def unavailable(problems: Mapping[str, RegistryError]) -> QuorumError:
    """What to raise when no node is in a state to answer: why each is not, by its URL."""
    details = "; ".join(f"{url}: {' '.join(str(error).split())}" for url, error in problems.items())
    return QuorumError(f"the ledger is unavailable: {details}", code="unavailable")
