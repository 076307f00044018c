"""Asks an endpoint: one request after the other, not too fast, again where it failed, and not for ever.

Where an endpoint may be, is decided in node.strangers; what it is shown, in node.endpoint.interview. Nothing that it
does is this node's trouble, and nothing that this node lacks (a free descriptor) is the endpoint's: that is an OSError.
"""

import asyncio
import io
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from node.bodies import read_limited
from node.config import FetchSettings
from node.download import is_own_trouble
from node.endpoint.errors import EndpointError, TooManyError
from node.endpoint.interview import BATCH_MAX, Batch, Classes, Course, Interview
from node.endpoint.pictures import Pictures
from node.endpoint.protocol import Model, Questions, read_classes, read_model
from node.logs import fields
from node.strangers import PrivateAddressError, Strangers
from registry.errors import MalformedError

METADATA_BYTES_MAX = 64 * 1024
REQUEST_BYTES_MAX = 4 * 2**20
SENT_BYTES_MAX = 2**30
RETRY_AFTER_S_MAX = 60.0
_TOO_MANY = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an endpoint is asked.

    Attributes:
        requests_per_s: at most so many.
        answer_s: longest time for one answer.
        tries: of one request after the other that fail, before the endpoint is given up.
        pause_s: after the first of them; each further one doubles it.
    """

    requests_per_s: float = 10.0
    answer_s: float = 60.0
    tries: int = 5
    pause_s: float = 1.0


USUAL = Pace()


class EndpointClient:
    """Asks the endpoints that claims are on; to be made where an event loop runs.

    Args:
        settings: where an endpoint may be, and how long it may take in all.
        tls: whose certificates are believed; the system's authorities by default.
        pace: how it is asked.
    """

    def __init__(self, settings: FetchSettings, *, tls: ssl.SSLContext | None = None, pace: Pace = USUAL) -> None:
        self._settings, self._pace = settings, pace
        self._strangers = Strangers(allow_private_addresses=settings.allow_private_addresses, tls=tls)
        self._one_at_a_time: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        """Close the connections."""
        await self._strangers.close()

    async def look(self, url: str) -> bytes:
        """Get an endpoint's metadata, before anything is made ready for asking it.

        Raises:
            EndpointError: it cannot be had; another time it may.
            FetchError: unsupported_pointer.
            OSError: this node's own trouble.
        """
        place = self._strangers.checked_endpoint(url)
        return await self._send("GET", place, None, bytes_max=METADATA_BYTES_MAX, count=1)

    async def ask(
        self,
        url: str,
        metadata: bytes,
        pictures: Pictures,
        *,
        common: bytes,
        has_margin: bool = True,
        on_begun: Callable[[], None] = lambda: None,
    ) -> Classes:
        """Ask an endpoint about pictures.

        Args:
            url: of its model.
            metadata: what `look` got.
            pictures: that count, one at least.
            common: decides the decoys that all nodes show.
            has_margin: whether a picture must get the class of one that differs in the lowest bits.
            on_begun: called when it is this claim's turn: a server is asked about one claim at a time.

        Returns:
            The class of each picture, and what was noticed.

        Raises:
            EndpointError: with the reason that a vote gives; it is not to be asked again.
            FetchError: unsupported_pointer.
            OSError: this node's own trouble.
        """
        place = self._strangers.checked_endpoint(url)
        model = read_model(metadata, pictures)
        interview = await asyncio.to_thread(Interview, pictures, common=common, chance=random.SystemRandom())
        lock = self._one_at_a_time.setdefault(place.authority, asyncio.Lock())
        async with lock:
            on_begun()
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    course = await self._hold(interview, place / "infer", model, Questions(model, pictures))
            except TimeoutError as error:
                why = f"{interview.waiting} pictures are unanswered after {self._settings.timeout_s} s"
                raise EndpointError("timeout", why) from error
        classes = interview.result(course, has_margin=has_margin)
        logger.info("an endpoint was asked", extra=fields(host=place.host or "", **asdict(classes.noticed)))
        return classes

    async def _hold(self, interview: Interview, place: URL, model: Model, questions: Questions) -> Course:
        """Show everything, a batch at a time."""
        course, failures, clock = Course(), 0, time.monotonic
        sendable = max(1, REQUEST_BYTES_MAX // questions.picture_bytes_max)
        most = min(model.batch_max or BATCH_MAX, sendable, model.answered_max)
        while interview.waiting:
            batch, begun_s = interview.next_batch(most), clock()
            try:
                classes = await self._show(batch, place, model, questions, course)
            except TooManyError as error:
                interview.put_back(batch)
                most = len(batch) // 2
                logger.info("an endpoint takes fewer pictures at once", extra=fields(why=error.detail, most=most))
            except EndpointError as error:
                interview.put_back(batch)
                course.failed, failures = course.failed + 1, failures + 1
                if not error.may_pass or failures >= self._pace.tries:
                    raise EndpointError(error.reason, error.detail) from error
                await asyncio.sleep(max(self._pause_s(failures), error.after_s))
            else:
                interview.note(batch, classes)
                course.seconds.append(clock() - begun_s)
                failures = 0
            await asyncio.sleep(begun_s + 1 / self._pace.requests_per_s - clock())
        return course

    def _pause_s(self, failures: int) -> float:
        """After so many failures in a row; not exactly, so that nodes that failed together do not come back so."""
        return self._pace.pause_s * (1 << failures - 1) * random.SystemRandom().uniform(0.5, 1.0)

    async def _show(self, batch: Batch, place: URL, model: Model, questions: Questions, course: Course) -> list[int]:
        body = await asyncio.to_thread(questions.request, batch.pictures)
        course.sent_bytes += len(body)
        if course.sent_bytes > SENT_BYTES_MAX:
            raise EndpointError("too_large", f"asking takes more than {SENT_BYTES_MAX} bytes")
        count = len(batch)
        answer = await self._send("POST", place, body, bytes_max=model.answer_bytes_max(count), count=count)
        return await asyncio.to_thread(read_classes, answer, model, count)

    async def _send(self, method: str, place: URL, body: bytes | None, *, bytes_max: int, count: int) -> bytes:
        """Send one request; its answer's body, if it is one.

        Raises:
            EndpointError, TooManyError: it is none.
            OSError: this node's own trouble.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else io.BytesIO(body)  # bytes would be sent in one piece
        try:
            async with (
                asyncio.timeout(self._pace.answer_s),
                self._strangers.session.request(
                    method, place, data=data, headers=headers, allow_redirects=False
                ) as answer,
            ):
                _check_status(answer, count)
                return await read_limited(answer.content, bytes_max)
        except PrivateAddressError as error:
            raise EndpointError("unsupported_pointer", str(error)) from error
        except TimeoutError as error:  # aiohttp's own are of this class too
            why = str(error) or f"no answer within {self._pace.answer_s:g} s"
            raise EndpointError("timeout", why, may_pass=True) from error
        except MalformedError as error:
            raise EndpointError(error.code, str(error)) from error
        except (aiohttp.ClientError, UnicodeError) as error:
            if is_own_trouble(error):
                raise
            raise EndpointError("unreachable", str(error), may_pass=True) from error


def _check_status(answer: aiohttp.ClientResponse, count: int) -> None:
    """Look at the status of an answer to a request about so many pictures."""
    status, what = answer.status, f"HTTP status {answer.status}"
    if status == HTTPStatus.OK:
        return
    if 300 <= status < 400:
        why = f"it redirects to {answer.headers.get('Location', '')[:200]!r}"
        raise EndpointError("unsupported_pointer", why)
    if status in _TOO_MANY and count > 1:
        raise TooManyError("refused", f"{what} to {count} pictures")
    if status >= 500 or status in _LATER:
        raise EndpointError("unreachable", what, may_pass=True, after_s=_retry_after_s(answer))
    raise EndpointError("refused", what)


def _retry_after_s(answer: aiohttp.ClientResponse) -> float:
    seconds = answer.headers.get("Retry-After", "")
    return min(float(seconds), RETRY_AFTER_S_MAX) if seconds.isascii() and seconds.isdigit() else 0.0
