"""Promises: what nodes ask is answered; a client that asks too much is told so, and keeps nobody else from asking."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import torch
from endpoints import pictures, serving
from torch import nn

from client.errors import InputError
from client.serving.network import Network
from client.serving.server import Limits, Server, serve, server_tls
from node.config import FetchSettings
from node.endpoint.asking import EndpointClient, Pace
from wm.triggers import InputSpec, Normalisation

SPEC = InputSpec(3, 4, 5, Normalisation(("0", "0", "0"), ("1", "1", "1")))
LIMITS = Limits(pictures_max=8, requests_max=2, timeout_s=5)
ONE = {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 3, 4, 5], "data": [7] * 60}]}


class Sums(nn.Module):
    """Classes by the mean level of the channels; waits or fails where a test wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.eye(3))
        self.gate = threading.Event()
        self.gate.set()

    def forward(self, images):
        self.gate.wait(10)
        return images.mean((2, 3)) @ self.weights


@asynccontextmanager
async def served(model: Sums, limits: Limits = LIMITS) -> AsyncIterator[tuple[aiohttp.ClientSession, Server]]:
    server = Server(Network(model, SPEC, 3), "m", limits)
    async with serving(server.app()) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session, server


def told(answer: aiohttp.ClientResponse, text: str) -> tuple[int, str]:
    return answer.status, json.loads(text)["error"]


def test_a_node_gets_the_classes_that_the_network_gives():
    async def run() -> None:
        model, asked = Sums(), pictures(50)
        shown = torch.tensor([list(picture) for picture in asked.pixels]).reshape(50, 3, 4, 5)
        async with served(model) as (session, server):
            settings = FetchSettings(
                allow_private_addresses=True, file_directory="", timeout_s=20, unreachable_retry_s=1
            )
            client = EndpointClient(settings, pace=Pace(requests_per_s=10_000, pause_s=0.001))
            url = f"{str(session._base_url).rstrip('/')}/v2/models/m"
            found = await client.ask(url, await client.look(url), asked, common=b"claim")
            await client.close()
        assert list(found.asked) == model(shown / 255).argmax(1).tolist()
        assert len(set(found.asked)) == 3
        assert (server.counts.requests, server.counts.pictures) == (found.noticed.requests, 50 + 25 + 38 + 16)

    asyncio.run(run())


def test_what_the_protocol_has_besides_is_answered():
    async def run() -> None:
        async with served(Sums()) as (session, _):
            for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/m"):
                async with session.get(path) as answer:
                    assert (answer.status, answer.content_type) == (200, "application/json")
            for method, path, status in (
                ("GET", "/v2/models/other", 404),
                ("POST", "/v2/models/m", 405),
                ("GET", "/", 404),
            ):
                async with session.request(method, path) as answer:
                    assert told(answer, await answer.text())[0] == status

    asyncio.run(run())


def test_a_request_that_is_none_or_too_large_is_told_so():
    async def run() -> None:
        async with served(Sums()) as (session, server):
            async with session.post("/v2/models/m/infer", data=b"no") as answer:
                status, message = told(answer, await answer.text())
                assert (status, message[:20]) == (400, "the body is not JSON")
            async with session.post("/v2/models/m/infer", data=b" " * 20_000) as answer:
                assert told(answer, await answer.text())[0] == 413
            assert server.counts.requests == 0

    asyncio.run(run())


def test_a_network_that_answers_nonsense_is_an_error_of_the_server():
    async def run() -> None:
        model = Sums()
        model.weights.data.fill_(float("nan"))
        async with served(model) as (session, _), session.post("/v2/models/m/infer", json=ONE) as answer:
            status, message = told(answer, await answer.text())
            assert status == 500
            assert "not finite" in message

    asyncio.run(run())


def test_more_requests_than_allowed_at_a_time_are_told_to_come_back():
    async def run() -> None:
        model = Sums()
        model.gate.clear()
        async with served(model) as (session, server):
            first = [asyncio.create_task(session.post("/v2/models/m/infer", json=ONE)) for _ in range(2)]
            while server._busy < 2:
                await asyncio.sleep(0)
            async with session.post("/v2/models/m/infer", json=ONE) as answer:
                assert told(answer, await answer.text())[0] == 429
                assert answer.headers["Retry-After"] == "1"
            model.gate.set()
            assert [(await one).status for one in first] == [200, 200]

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_given_up():
    async def run() -> None:
        model = Sums()
        model.gate.clear()
        async with served(model, Limits(pictures_max=8, requests_max=1, timeout_s=0.1)) as (session, server):
            async with session.post("/v2/models/m/infer", json=ONE) as answer:
                assert told(answer, await answer.text())[0] == 408
            assert server._busy == 0
            model.gate.set()
            async with session.post("/v2/models/m/infer", json=ONE) as answer:
                assert answer.status == 200

    asyncio.run(run())


def test_where_it_cannot_listen_is_told():
    async def run() -> None:
        async with served(Sums()) as (session, server):
            port = session._base_url.port
            with pytest.raises(InputError, match="cannot listen there"):
                await serve(server, host="127.0.0.1", port=port, tls=None, on_listening=pytest.fail)

    asyncio.run(run())


def test_a_certificate_and_a_key_go_together(tmp_path):
    assert server_tls(None, None) is None
    (tmp_path / "pem").write_text("no")
    with pytest.raises(InputError, match="both or neither"):
        server_tls(tmp_path / "pem", None)
    with pytest.raises(InputError, match="cannot be used"):
        server_tls(tmp_path / "pem", tmp_path / "pem")
