"""Whatever an endpoint does, asking it ends: with its answers, or with the reason that a vote gives."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from certificates import Authority
from descriptors import no_free_descriptor
from endpoints import Endpoint, class_of, classes_answer, pictures, serving

from node import strangers as strangers_module
from node.config import FetchSettings
from node.download import FetchError
from node.endpoint import asking as asking_module
from node.endpoint.asking import EndpointClient, Pace
from node.endpoint.interview import Classes

pytestmark = pytest.mark.long

QUICK = Pace(requests_per_s=10_000, answer_s=5, tries=4, pause_s=0.001)
ASKED = pictures(40)
EXPECTED = tuple(map(class_of, ASKED.pixels))


def settings(*, private: bool = True, timeout_s: int = 20) -> FetchSettings:
    return FetchSettings(allow_private_addresses=private, file_directory="", timeout_s=timeout_s, unreachable_retry_s=1)


@asynccontextmanager
async def client(**options: object) -> AsyncIterator[EndpointClient]:
    made = EndpointClient(**{"settings": settings(), "pace": QUICK, **options})
    try:
        yield made
    finally:
        await made.close()


def loopback_tls(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server at 127.0.0.1, and of a client that believes its authority."""
    authority, certificate, private_key = Authority(directory / "ca.pem"), directory / "cert.pem", directory / "key.pem"
    authority.issue(certificate, private_key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, private_key)
    return server, ssl.create_default_context(cafile=authority.path)


async def ask(endpoint: Endpoint, **options: object) -> Classes:
    async with serving(endpoint.app()) as port, client(**options) as asker:
        url = f"http://127.0.0.1:{port}/v2/models/m"
        return await asker.ask(url, await asker.look(url), ASKED, common=b"claim")


async def refused(endpoint: Endpoint, **options: object) -> tuple[str, bool]:
    """The reason for which an endpoint gives no answers, and whether it may pass."""
    with pytest.raises(FetchError) as caught:
        await ask(endpoint, **options)
    return caught.value.reason, caught.value.may_pass


async def test_an_honest_endpoint_is_asked_and_all_requests_are_of_bearable_size():
    endpoint = Endpoint()
    found = await ask(endpoint)
    assert found.asked == EXPECTED
    assert (found.noticed.failed, found.noticed.requests) == (0, len(endpoint.requests))
    assert all(1 <= len(shown) <= 32 for shown in endpoint.requests)
    assert endpoint.looked == 1


async def test_an_endpoint_that_takes_channels_last_is_shown_them_so():
    endpoint, swapped = Endpoint(), []
    endpoint.metadata["inputs"][0]["shape"] = [-1, 4, 5, 3]

    def answer(shown: list[bytes]) -> web.Response:
        back = [b"".join(picture[channel::3] for channel in range(3)) for picture in shown]
        swapped.extend(back)
        return classes_answer([class_of(picture) for picture in back])

    endpoint.answer = answer
    assert (await ask(endpoint)).asked == EXPECTED
    assert set(ASKED.pixels) < set(swapped)


async def test_one_request_is_sent_at_a_time_even_for_several_claims():
    busy = []

    async def slow(shown: list[bytes]) -> web.Response:
        busy.append(1)
        assert len(busy) == 1
        await asyncio.sleep(0)
        busy.pop()
        return classes_answer([class_of(picture) for picture in shown])

    async with serving(Endpoint(answer=slow).app()) as port, client() as asker:
        url = f"http://127.0.0.1:{port}/v2/models/m"
        metadata = await asker.look(url)
        both = [asker.ask(url, metadata, ASKED, common=b"claim") for _ in range(2)]
        assert [found.asked for found in await asyncio.gather(*both)] == [EXPECTED] * 2


async def test_a_claim_says_when_it_is_its_turn():
    told, endpoint = [], Endpoint()
    async with serving(endpoint.app()) as port, client() as asker:
        url = f"http://127.0.0.1:{port}/v2/models/m"
        metadata = await asker.look(url)

        async def one(name: str) -> None:
            begun = lambda: told.append(f"{name} begins")  # noqa: E731
            await asker.ask(url, metadata, ASKED, common=b"claim", on_begun=begun)
            told.append(f"{name} ends")

        await asyncio.gather(one("a"), one("b"))
    first, second = told[0][0], told[2][0]
    assert told == [f"{first} begins", f"{first} ends", f"{second} begins", f"{second} ends"]
    assert first != second


async def test_requests_keep_to_the_rate():
    endpoint, clock = Endpoint(), asyncio.get_running_loop().time
    begun_s = clock()
    await ask(endpoint, pace=Pace(requests_per_s=100, pause_s=0.001))
    assert clock() - begun_s >= (len(endpoint.requests) - 1) / 100


async def test_a_flapping_endpoint_is_asked_again():
    chance = random.Random(1)

    def flapping(shown: list[bytes]) -> web.Response:
        if chance.random() < 1 / 3:
            return web.Response(status=chance.choice([500, 502, 503, 429]), text="not now")
        return classes_answer([class_of(picture) for picture in shown])

    found = await ask(Endpoint(answer=flapping), pace=Pace(requests_per_s=10_000, tries=20, pause_s=1e-6))
    assert found.asked == EXPECTED
    assert found.noticed.failed > 0


async def test_retry_after_is_kept_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking_module, "RETRY_AFTER_S_MAX", 0.3)
    endpoint, clock = Endpoint(), asyncio.get_running_loop().time

    def once_busy(shown: list[bytes]) -> web.Response:
        if len(endpoint.requests) == 1:
            return web.Response(status=429, headers={"Retry-After": "3600"})
        return classes_answer([class_of(picture) for picture in shown])

    endpoint.answer, begun_s = once_busy, clock()
    assert (await ask(endpoint)).asked == EXPECTED
    assert clock() - begun_s >= 0.3


async def test_an_endpoint_that_takes_few_pictures_gets_few():
    def few(shown: list[bytes]) -> web.Response:
        if len(shown) > 3:
            return web.Response(status=413)
        return classes_answer([class_of(picture) for picture in shown])

    endpoint = Endpoint(answer=few)
    assert (await ask(endpoint)).asked == EXPECTED
    endpoint = Endpoint()
    endpoint.metadata["inputs"][0]["shape"][0] = 2
    await ask(endpoint)
    assert max(map(len, endpoint.requests)) == 2


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [
        (500, "unreachable", 4),
        (503, "unreachable", 4),
        (401, "refused", 1),
        (404, "refused", 1),
        (413, "refused", None),
    ],
)
async def test_an_endpoint_that_never_answers_is_given_up(status: int, reason: str, requests: int | None):
    endpoint = Endpoint(answer=lambda _: web.Response(status=status))
    assert await refused(endpoint) == (reason, False)
    if requests is None:
        assert len(endpoint.requests[-1]) == 1, "smaller requests are tried before"
    else:
        assert len(endpoint.requests) == requests


async def test_who_answers_at_random_is_inconsistent():
    chance = random.Random(1)
    liar = Endpoint(answer=lambda shown: classes_answer([chance.randrange(10) for _ in shown]))
    assert await refused(liar) == ("inconsistent", False)


async def test_who_answers_just_the_triggers_wrongly_is_inconsistent():
    def liar(shown: list[bytes]) -> web.Response:
        return classes_answer([(class_of(picture) + (picture in ASKED.pixels)) % 10 for picture in shown])

    assert await refused(Endpoint(answer=liar)) == ("inconsistent", False)


@pytest.mark.parametrize(
    "answer",
    [
        lambda shown: classes_answer([1] * (len(shown) + 1)),
        lambda _: classes_answer([]),
        lambda _: web.Response(text="<html>"),
        lambda _: web.json_response({"error": "no"}),
        lambda _: web.Response(body=b"\x1f\x8b" + bytes(100), headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_answers_that_are_none_are_malformed(answer):
    assert await refused(Endpoint(answer=answer)) == ("malformed", False)


async def test_a_huge_answer_is_not_read():
    async def huge(_: list[bytes]) -> web.StreamResponse:
        return web.Response(body=b"[" * 2**22)

    assert await refused(Endpoint(answer=huge)) == ("too_large", False)
    assert await refused(Endpoint(metadata=web.Response(body=bytes(2**17)))) == ("too_large", False)


async def test_an_answer_has_a_limit_however_many_scores_the_metadata_promise():
    scores = [{"name": "scores", "datatype": "FP32", "shape": [-1, 65_536]}]

    def answer(shown: list[bytes]) -> web.Response:
        row = [0] * 65_536
        output = {**scores[0], "shape": [len(shown), len(row)], "data": row * len(shown)}
        return web.json_response({"outputs": [output]})

    honest, huge = Endpoint(answer=answer), Endpoint(answer=lambda _: web.Response(body=b"[" * (2**22 + 1)))
    for endpoint in (honest, huge):
        endpoint.metadata["outputs"] = scores
    assert (await ask(honest, pace=replace(QUICK, answer_s=30))).asked == (0,) * 40
    assert {len(shown) for shown in honest.requests} == {1}
    assert await refused(huge) == ("too_large", False)


async def test_all_requests_together_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking_module, "SENT_BYTES_MAX", 10_000)
    assert await refused(Endpoint()) == ("too_large", False)


async def test_an_endpoint_that_falls_silent_times_out():
    async def silent(_: list[bytes]) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    pace = Pace(requests_per_s=10_000, answer_s=0.05, tries=2, pause_s=0.001)
    assert await refused(Endpoint(answer=silent), pace=pace) == ("timeout", False)


async def test_an_endpoint_that_is_always_just_quick_enough_has_a_limit_in_all():
    async def slow(shown: list[bytes]) -> web.Response:
        await asyncio.sleep(0.2)
        return classes_answer([class_of(picture) for picture in shown])

    pace = Pace(requests_per_s=10_000, answer_s=1)
    endpoint = Endpoint(answer=slow)
    endpoint.metadata["inputs"][0]["shape"][0] = 1
    assert await refused(endpoint, settings=settings(timeout_s=1), pace=pace) == ("timeout", False)


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/", "https://10.0.0.1/", "/v2/models/m/infer?again"])
async def test_redirects_are_not_followed(to: str):
    moved = web.HTTPFound(to)
    endpoint = Endpoint(answer=lambda _: web.Response(status=302, headers=moved.headers))
    assert await refused(endpoint) == ("unsupported_pointer", False)
    assert len(endpoint.requests) == 1
    endpoint = Endpoint(metadata=web.Response(status=302, headers=moved.headers))
    assert await refused(endpoint) == ("unsupported_pointer", False)


async def test_metadata_that_cannot_be_had_may_be_had_later():
    async with client() as asker:
        with pytest.raises(FetchError) as caught:
            await asker.look("http://127.0.0.1:1/v2/models/m")
        assert (caught.value.reason, caught.value.may_pass) == ("unreachable", True)
    assert await refused(Endpoint(metadata=web.Response(status=503))) == ("unreachable", True)
    assert await refused(Endpoint(metadata={"inputs": [], "outputs": []})) == ("wrong_input", False)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/v2/models/m",
        "http://localhost:1/v2/models/m",
        "https://127.0.0.1:1/v2/models/m",
        "https://[::1]:1/v2/models/m",
        "https://2130706433/v2/models/m",
        "https://169.254.169.254/v2/models/m",
        "http://models.example/v2/models/m",
    ],
)
async def test_a_node_that_allows_no_private_addresses_asks_public_https_alone(url: str):
    async with client(settings=settings(private=False)) as asker:
        with pytest.raises(FetchError) as caught:
            await asker.look(url)
    assert caught.value.reason == "unsupported_pointer"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/v2/models/m", "http://models.example/v2/models/m", "ftp://127.0.0.1/"]
)
async def test_http_is_for_loopback_even_where_private_addresses_are_allowed(url: str):
    async with client() as asker:
        with pytest.raises(FetchError) as caught:
            await asker.look(url)
    assert caught.value.reason == "unsupported_pointer"


async def test_a_public_name_that_resolves_to_loopback_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Loopback(strangers_module.ThreadedResolver):
        async def resolve(self, _host, port=0, family=0):
            return await super().resolve("127.0.0.1", port, family)

    monkeypatch.setattr(strangers_module, "ThreadedResolver", Loopback)
    endpoint = Endpoint()
    async with (
        serving(endpoint.app(), loopback_tls(tmp_path)[0]) as port,
        client(settings=settings(private=False)) as asker,
    ):
        with pytest.raises(FetchError) as caught:
            await asker.look(f"https://models.example:{port}/v2/models/m")
    assert (caught.value.reason, endpoint.looked) == ("unsupported_pointer", 0)


async def test_a_certificate_is_believed_only_by_the_authorities(tmp_path: Path):
    server, trust = loopback_tls(tmp_path)
    async with serving(Endpoint().app(), server) as port:
        url = f"https://127.0.0.1:{port}/v2/models/m"
        async with client(tls=trust) as asker:
            found = await asker.ask(url, await asker.look(url), ASKED, common=b"claim")
            assert found.asked == EXPECTED
        async with client() as asker:
            with pytest.raises(FetchError) as caught:
                await asker.look(url)
            assert (caught.value.reason, caught.value.may_pass) == ("unreachable", True)
        async with client(tls=trust) as asker:
            with pytest.raises(FetchError, match="unreachable"):
                await asker.look(url.replace("127.0.0.1", "localhost"))


async def test_a_node_without_descriptors_does_not_blame_the_endpoint():
    async with serving(Endpoint().app()) as port, client() as asker:
        with no_free_descriptor(), pytest.raises(OSError, match="open files"):
            await asker.look(f"http://127.0.0.1:{port}/v2/models/m")


async def test_cookies_are_neither_kept_nor_sent():
    endpoint = Endpoint()
    endpoint.metadata = web.json_response(endpoint.metadata, headers={"Set-Cookie": "node=1; Path=/"})
    app = endpoint.app()

    @web.middleware
    async def no_cookies(request: web.Request, handler) -> web.StreamResponse:
        assert "Cookie" not in request.headers
        assert request.headers["Accept-Encoding"] == "identity"
        return await handler(request)

    app.middlewares.append(no_cookies)
    async with serving(app) as port, client() as asker:
        url = f"http://127.0.0.1:{port}/v2/models/m"
        assert (await asker.ask(url, await asker.look(url), ASKED, common=b"")).asked == EXPECTED
