"""Promises: an endpoint is claimed under its one name, after every check; a certificate tells what was asked."""

import asyncio
import contextlib
import json
import threading

import pytest
from asked import COUNT, margin_evidence
from endpoints import Endpoint, serving

from client.errors import InputError
from client.suspects import endpoint_at
from registry.certificate import verify_certificate
from registry.endpoint import endpoint_sha256
from registry.verdict import ControlCounts, ControlKind, Measurement, Statistic

pytestmark = pytest.mark.long

METADATA = {
    "name": "m",
    "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}],
    "outputs": [{"name": "class", "datatype": "INT64", "shape": [-1]}],
}
FRESH = ControlCounts(kind=ControlKind.FRESH, matched=10, suspect_only=90, control_only=0)
ALL = Measurement(matched=COUNT, total=COUNT, controls=(FRESH,) * 8, statistic=Statistic.CLASSES, chance_ppm=100_000)


@contextlib.contextmanager
def served(endpoint):
    """Serve an endpoint from a thread; its URL."""
    loop, stop, ports = asyncio.new_event_loop(), asyncio.Event(), []
    ready = threading.Event()

    async def run():
        async with serving(endpoint.app()) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{ports[0]}/v2/models/m"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def carol(make_party):
    """An owner of a black-box mark."""
    carol = make_party("carol")
    margin_evidence(carol.bundle.evidence, carol.model.read_bytes())
    return carol


def revealed(ledger) -> bool:
    return bool(ledger.replay.ledger.claims())


def test_an_endpoint_is_claimed_and_the_certificate_tells_its_url(ledger, carol, publish, claim):
    endpoint = Endpoint(metadata=METADATA)
    publish(carol)
    ledger.voting = (ALL, 3)

    with served(endpoint) as url:
        won = claim(carol, f"{url}/infer", "--endpoint", "--json")

    assert won.code == 0, won.out
    story = verify_certificate(carol.bundle.certificate.read_bytes(), ledger.trust)
    assert (story.endpoint, story.model_sha256) == (url, endpoint_sha256(url))
    assert endpoint.requests == [], "no picture is shown from here"
    assert [list(node.blobs.values()) for node in ledger.nodes] == [[carol.bundle.evidence.read_bytes()]] * 3


def test_the_story_names_the_endpoint_and_not_a_file(ledger, carol, publish, claim, wmreg, tmp_path):
    publish(carol)
    ledger.voting = (ALL, 3)

    with served(Endpoint(metadata=METADATA)) as url:
        told = claim(carol, url, "--endpoint").out

    assert f"VERIFIED: the endpoint {url}, as it answered when the nodes asked," in told
    document = wmreg("verify", carol.bundle.certificate, "--policy", ledger.policy_path, "--json").document
    assert (document["endpoint"], document["model_sha256"]) == (url, None)
    status = wmreg("status", document["claim"], "--policy", ledger.policy_path)
    assert (f"\nendpoint  {url}\n" in status.out, endpoint_sha256(url).hex() in status.out) == (True, False)
    found = wmreg("search", f"{url}/infer", "--policy", ledger.policy_path)
    assert ("endpoint_sha256" in found.out, document["claim"] in found.out) == (True, True)
    watched = wmreg("watch", f"{url}/infer", "--policy", ledger.policy_path, "--from", 0, "--once", "--kind", "claim")
    assert f"claims the endpoint {url}" in watched.out
    another = wmreg(
        "watch", f"{url}s", "--policy", ledger.policy_path, "--from", 0, "--once", "--cursor", tmp_path / "other"
    )
    assert (another.code, another.out) == (0, "")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        (METADATA | {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}]}, "wrong_input"),
        ({"error": "no"}, "malformed"),
    ],
)
def test_an_endpoint_that_does_not_take_the_pictures_reveals_no_key(ledger, carol, publish, claim, metadata, code):
    publish(carol)

    with served(Endpoint(metadata=metadata)) as url:
        refused = claim(carol, url, "--endpoint", "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, code)
    assert not revealed(ledger)


def test_an_endpoint_that_is_down_reveals_no_key(ledger, carol, publish, claim):
    publish(carol)

    refused = claim(carol, "http://127.0.0.1:1/v2/models/m", "--endpoint", "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "unreachable")
    assert not revealed(ledger)


def test_a_mark_that_reads_the_inside_is_not_claimed_at_an_endpoint(ledger, alice, publish, claim):
    publish(alice)

    with served(Endpoint(metadata=METADATA)) as url:
        refused = claim(alice, url, "--endpoint", "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "mismatch")
    assert not revealed(ledger)


def test_a_hash_goes_with_no_endpoint(carol, claim):
    refused = claim(carol, "https://models.example/v2/models/m", "--endpoint", "--sha256", "00" * 32, "--json")
    assert refused.code == 2
    assert "--sha256" in json.dumps(refused.document)


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example/v2/models/m",
        "https://models.example/v2/models/m/",
        "https://models.example/v2/models/m/infer",
        "https://Models.EXAMPLE:443/v2/models/m/infer/",
        "HTTPS://models.example/v2/models/m",
    ],
)
def test_every_spelling_of_an_url_is_one_endpoint(url):
    assert endpoint_at(url).pointer == "endpoint+https://models.example/v2/models/m"


def test_a_model_may_be_named_like_what_is_asked_of_it():
    for url in ("https://models.example/v2/models/infer", "https://models.example/v2/models/infer/infer"):
        assert endpoint_at(url).pointer == "endpoint+https://models.example/v2/models/infer"


@pytest.mark.parametrize(
    "url",
    [
        "suspect.safetensors",
        "https://models.example/v1/predict",
        "https://user@models.example/v2/models/m",
        "https://models.example/v2/models/m?key=1",
        "https://models.example:port/v2/models/m",
        "https://[::1/v2/models/m",
        "http://models.example/v2/models/m",
        "blob:sha256:00",
    ],
)
def test_what_no_node_would_ask_is_a_mistake(url):
    with pytest.raises(InputError, match=r"docs/endpoint\.md"):
        endpoint_at(url)
