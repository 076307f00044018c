"""The server itself: routes, limits, errors as JSON, and a graceful end.

A body, the pictures of a request, the requests at a time and the time for each have limits. What comes over is told so
by a status that clients understand: 413, 429 with Retry-After, 408 or 503.
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from client.errors import InputError
from client.serving.network import Network
from client.serving.protocol import BadRequestError, Served

PIXEL_BYTES_MAX = 6  # of a pixel in JSON: three digits, a comma, a space, a bracket now and then
ENVELOPE_BYTES_MAX = 16 * 1024
SHUTDOWN_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may ask for.

    Attributes:
        pictures_max: of one request.
        requests_max: being read or answered at the same time.
        timeout_s: for one request.
    """

    pictures_max: int
    requests_max: int
    timeout_s: float


@dataclass(slots=True)
class Counts:
    """What was served."""

    requests: int = 0
    pictures: int = 0


class Server:
    """Serves one network under one name.

    Args:
        network: what answers.
        name: of the model.
        limits: what clients may ask for.

    Attributes:
        counts: what was served.
    """

    def __init__(self, network: Network, name: str, limits: Limits) -> None:
        size = (network.input.channels, network.input.height, network.input.width)
        self._served = Served(name=name, size=size, classes=network.classes, pictures_max=limits.pictures_max)
        self._network, self._limits, self._busy = network, limits, 0
        self._body_bytes_max = ENVELOPE_BYTES_MAX + limits.pictures_max * network.picture_bytes * PIXEL_BYTES_MAX
        self._computing = ThreadPoolExecutor(max_workers=1)  # torch uses all cores for one request
        self.counts = Counts()

    def app(self) -> web.Application:
        """The application; it ends the computing thread when it is cleaned up."""
        app = web.Application(middlewares=[_errors_as_json], client_max_size=self._body_bytes_max)
        model = f"/v2/models/{self._served.name}"
        app.add_routes(
            [
                web.get("/v2", self._describe_server),
                web.get("/v2/health/live", self._live),
                web.get("/v2/health/ready", self._live),
                web.get(model, self._describe),
                web.get(f"{model}/ready", self._ready),
                web.post(f"{model}/infer", self._infer),
            ]
        )
        app.on_cleanup.append(self._end)
        return app

    async def _describe_server(self, _: web.Request) -> web.Response:
        return web.json_response({"name": "wmreg", "version": "1", "extensions": []})

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response({"name": self._served.name, "ready": True})

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(self._served.metadata())

    async def _infer(self, request: web.Request) -> web.Response:
        if self._busy >= self._limits.requests_max:
            return _error(HTTPStatus.TOO_MANY_REQUESTS, "too many requests at a time; come back", retry_after_s=1)
        self._busy += 1
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                raw = await request.read()
                answer = await asyncio.get_running_loop().run_in_executor(self._computing, self._answer, raw)
        except TimeoutError:
            why = f"not read and answered within {self._limits.timeout_s:g} s; send fewer pictures at once"
            return _error(HTTPStatus.REQUEST_TIMEOUT, why)
        finally:
            self._busy -= 1
        return web.json_response(answer)

    def _answer(self, raw: bytes) -> dict[str, object]:
        """Everything that takes time, in the computing thread."""
        asked = self._served.read(raw)
        scores = self._network.scores(asked.pixels)
        self.counts.requests += 1
        self.counts.pictures += asked.count
        return self._served.answer(asked, scores)

    async def _end(self, _: web.Application) -> None:
        self._computing.shutdown(wait=False, cancel_futures=True)


async def serve(
    server: Server, *, host: str, port: int, tls: ssl.SSLContext | None, on_listening: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered then are answered.

    Args:
        server: what is served.
        host: at which address.
        port: 0 takes a free one.
        tls: the certificate to show; None for http.
        on_listening: is told the URL, once it can be asked.

    Raises:
        InputError: it cannot listen there.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(server.app(), shutdown_timeout=SHUTDOWN_TIMEOUT_S, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        on_listening(f"{'https' if tls else 'http'}://{_spelt(host)}:{runner.addresses[0][1]}")
        await stop.wait()
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot listen there: {error.strerror or error}") from error
    finally:
        await runner.cleanup()


def server_tls(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext | None:
    """TLS with a certificate chain and its key, PEM; None without both.

    Raises:
        InputError: one without the other, or they cannot be used.
    """
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise InputError("--certificate and --key: both or neither")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InputError(f"--certificate {certificate} --key {private_key}: they cannot be used: {error}") from error
    return context


def _no_password() -> bytes:
    raise ValueError("the key needs a password; there is nobody to type one")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The protocol's errors: a status, and a JSON object with the message."""
    try:
        return await handler(request)
    except BadRequestError as error:
        return _error(HTTPStatus.BAD_REQUEST, str(error))
    except web.HTTPException as error:
        return _error(HTTPStatus(error.status), error.reason)
    except ValueError as error:  # the network's answer is not finite
        logger.warning("a request could not be answered: %s", error)
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


def _error(status: HTTPStatus, message: str, *, retry_after_s: int | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response({"error": message}, status=status, headers=headers)


def _spelt(host: str) -> str:
    return f"[{host}]" if ":" in host else host
