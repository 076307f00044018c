"""Prediction endpoints for tests: real servers that speak the protocol, and misbehave as a test wants."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from node.endpoint.pictures import Pictures, Shape

SHAPE = Shape(channels=3, height=4, width=5)
CLASSES = 10
Answer = Callable[[list[bytes]], Awaitable[web.StreamResponse] | web.StreamResponse]


def pictures(count: int, *, seed: int = 0) -> Pictures:
    """Pictures that differ from each other far more than in their lowest bits."""
    import random

    chance = random.Random(seed)
    return Pictures(
        shape=SHAPE,
        mean=("0.5", "0.25", "0"),
        std=("0.5", "0.25", "1"),
        pixels=tuple(chance.randbytes(SHAPE.picture_bytes) for _ in range(count)),
    )


def class_of(picture: bytes) -> int:
    """What an honest endpoint answers: nothing in it depends on lowest bits."""
    return sum(byte >> 1 for byte in picture) % CLASSES


def classes_answer(classes: list[int]) -> web.Response:
    output = {"name": "class", "datatype": "INT64", "shape": [len(classes)], "data": classes}
    return web.json_response({"model_name": "m", "outputs": [output]})


@dataclass
class Endpoint:
    """A server of one model, and what it was asked.

    Attributes:
        answer: makes the answer to a request; honest by default.
        metadata: the model's.
        requests: the pictures of each request, in order.
    """

    answer: Answer = field(default=lambda shown: classes_answer([class_of(picture) for picture in shown]))
    metadata: Any = field(
        default_factory=lambda: {
            "name": "m",
            "platform": "test",
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 3, 4, 5]}],
            "outputs": [{"name": "class", "datatype": "INT64", "shape": [-1]}],
        }
    )
    requests: list[list[bytes]] = field(default_factory=list)
    looked: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**24)
        app.add_routes([web.get("/v2/models/m", self._look), web.post("/v2/models/m/infer", self._infer)])
        return app

    async def _look(self, _: web.Request) -> web.StreamResponse:
        self.looked += 1
        return self.metadata if isinstance(self.metadata, web.StreamResponse) else web.json_response(self.metadata)

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        (given,) = (await request.json())["inputs"]
        count, size = given["shape"][0], SHAPE.picture_bytes
        data = bytes(given["data"])
        assert len(data) == count * size
        shown = [data[first : first + size] for first in range(0, len(data), size)]
        self.requests.append(shown)
        answer = self.answer(shown)
        return answer if isinstance(answer, web.StreamResponse) else await answer


@asynccontextmanager
async def serving(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve an application on a free port of loopback."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening, ssl_context=tls).start()
    try:
        yield listening.getsockname()[1]
    finally:
        await runner.cleanup()
