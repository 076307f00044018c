"""Promises: one node's failure is nobody's problem; refusals end at once; waiting has an end."""

import asyncio
import time

import pytest

from client.errors import exit_code_of
from client.transport import Request, Timing, connect, error_of, read_json
from registry.errors import MalformedError, QuorumError, RefusedError

FAST = Timing(patience_s=0.5, attempt_timeout_s=2, connect_timeout_s=1)


def ask(ledger, request, read=read_json, timing=FAST):
    async def run():
        async with connect([node.url for node in ledger.nodes], timing) as transport:
            return await transport.ask(request, read)

    return asyncio.run(run())


STATE = Request(path="/v1/node")


def test_the_first_node_that_answers_is_enough(ledger):
    assert ask(ledger, STATE)["name"] == "node-1"


def test_a_node_that_dies_during_the_request_is_passed_over(ledger):
    ledger.nodes[0].lose_answer = 2  # aiohttp itself repeats a GET once

    assert ask(ledger, STATE)["name"] == "node-2"


def test_a_node_that_recovers_within_the_patience_is_asked_again(ledger):
    for node in ledger.nodes:
        node.lose_request = 2

    assert ask(ledger, STATE)["name"] == "node-1"


def test_without_any_node_the_patience_ends(ledger):
    for node in ledger.nodes:
        node.down = True
    begun_s = time.monotonic()

    with pytest.raises(QuorumError, match=ledger.nodes[2].url) as raised:
        ask(ledger, STATE)

    assert exit_code_of(raised.value) == 4
    assert time.monotonic() - begun_s < 5


def test_a_refusal_ends_the_asking_at_once(ledger):
    begun_s = time.monotonic()

    with pytest.raises(RefusedError):
        ask(ledger, Request(path=f"/v1/receipts/{'00' * 32}"), timing=Timing(patience_s=60))

    assert time.monotonic() - begun_s < 5


def test_a_node_that_is_behind_does_not_hide_what_another_has(ledger, alice, publish):
    digest = publish(alice, "--json").document["message_hash"]
    ledger.nodes[0].behind = 1

    assert ask(ledger, Request(path=f"/v1/receipts/{digest}"), read=len) > 0


@pytest.mark.parametrize("answer", [b"no JSON", b"[]", b"[" * 100_000, b'{"error"'])
def test_a_node_that_answers_nonsense_is_passed_over(ledger, answer):
    ledger.nodes[0].answers["/v1/node"] = answer

    assert ask(ledger, STATE)["name"] == "node-2"


def test_an_endless_answer_is_cut_off(ledger, monkeypatch):
    monkeypatch.setattr("client.transport.ANSWER_BYTES_MAX", 1000)
    ledger.nodes[0].answers["/v1/node"] = bytes(10_000)

    assert ask(ledger, STATE)["name"] == "node-2"


def test_the_node_that_answered_is_asked_first_the_next_time(ledger):
    ledger.nodes[0].down = True

    async def run():
        async with connect([node.url for node in ledger.nodes], FAST) as transport:
            for _ in range(3):
                await transport.ask(STATE, read_json)

    asyncio.run(run())

    assert len(ledger.nodes[0].requests) <= 2  # the first time, and aiohttp's own repetition
    assert len(ledger.nodes[1].requests) == 3


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, MalformedError, "malformed"),
        (404, RefusedError, "not_found"),
        (409, RefusedError, "open"),
        (413, MalformedError, "too_large"),
        (422, RefusedError, "time_skew"),
        (429, QuorumError, "busy"),
        (500, QuorumError, "internal"),
        (503, QuorumError, "no_leader"),
    ],
)
def test_a_status_and_a_code_become_the_rules_error(status, kind, code):
    body = b'{"error": {"code": "%s", "message": "why"}}' % code.encode()

    error = error_of(status, body)

    assert isinstance(error, kind)
    assert (error.code, str(error)) == (code, "why")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"error": 5}'])
def test_an_error_without_the_shape_is_still_an_error(body):
    assert isinstance(error_of(503, body), QuorumError)
    assert isinstance(error_of(404, body), RefusedError)
