"""Promises: one node's failure is nobody's problem; refusals end at once; waiting has an end."""

import asyncio
import errno
import json
import socket
import time
from contextlib import nullcontext
from dataclasses import replace

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from client.errors import describe, exit_code_of
from client.transport import Request, Timing, UnreachableError, connect, describe_failure, error_of, read_json
from registry.errors import MalformedError, QuorumError, RefusedError

FAST = Timing(patience_s=0.5, attempt_timeout_s=2, connect_timeout_s=1)
PATIENT = replace(FAST, patience_s=2)


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


def ask_all_times(ledger, count, *, is_shared):
    """How long each of some calls of ask_all takes, in seconds."""

    async def run():
        async with connect([node.url for node in ledger.nodes], PATIENT) as transport:
            taken_s = []
            with transport.sharing_patience() if is_shared else nullcontext():
                for _ in range(count):
                    begun_s = time.monotonic()
                    await transport.ask_all(STATE, least=2)
                    taken_s.append(time.monotonic() - begun_s)
            return taken_s

    return asyncio.run(run())


@pytest.mark.long
def test_requests_that_share_a_patience_wait_for_silent_nodes_once(ledger):
    ledger.nodes[0].down = ledger.nodes[1].down = True

    first_s, *others_s = ask_all_times(ledger, 4, is_shared=True)

    assert first_s > PATIENT.patience_s / 2
    assert max(others_s) < PATIENT.patience_s / 2
    assert min(ask_all_times(ledger, 2, is_shared=False)) > PATIENT.patience_s / 2


def test_a_patience_that_nobody_tried_is_there_for_the_next(ledger):
    async def run():
        async with connect([node.url for node in ledger.nodes], Timing(patience_s=10)) as transport:
            with transport.sharing_patience():
                await transport.ask_all(STATE, least=2)
                for node in ledger.nodes:
                    node.lose_request = 3
                return await transport.ask_all(STATE, least=2)

    assert not any(isinstance(answer, QuorumError) for answer in asyncio.run(run()).values())


def test_a_refusal_ends_the_asking_at_once(ledger):
    begun_s = time.monotonic()

    with pytest.raises(RefusedError):
        ask(ledger, Request(path=f"/v1/receipts/{'00' * 32}"), timing=Timing(patience_s=60))

    assert time.monotonic() - begun_s < 5


def test_a_node_that_is_behind_does_not_hide_what_another_has(ledger, alice, publish):
    digest = publish(alice, "--json").document["message_hash"]
    ledger.nodes[0].behind = 1

    assert ask(ledger, Request(path=f"/v1/receipts/{digest}"), read=len) > 0


@pytest.mark.parametrize(
    "answer", [b"no JSON", b"[]", b"[" * 100_000, b'{"error"', b'{"size": NaN}', b'{"size": 1e400}', b"\xff"]
)
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
    assert isinstance(error_of(422, body), RefusedError)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"error": 5}'])
def test_a_404_of_something_that_is_no_node_denies_nothing(body):
    error = error_of(404, body)

    assert isinstance(error, UnreachableError)
    assert "lead to a node" in str(error)


def ask_all(ledger, least, patience_s):
    async def run():
        async with connect([node.url for node in ledger.nodes], Timing(patience_s=patience_s)) as transport:
            return await transport.ask_all(STATE, least=least)

    return list(asyncio.run(run()).values())


def test_nodes_that_do_not_answer_are_asked_again_while_too_few_did(ledger):
    for node in ledger.nodes:
        node.lose_request = 2  # aiohttp itself repeats a GET once

    assert sum(isinstance(answer, bytes) for answer in ask_all(ledger, 2, 30)) >= 2


def test_a_node_that_is_down_is_not_waited_for_when_enough_answer(ledger):
    ledger.nodes[1].down = True
    begun_s = time.monotonic()

    answers = ask_all(ledger, 2, 60)

    assert [isinstance(answer, bytes) for answer in answers] == [True, False, True]
    assert time.monotonic() - begun_s < 10


def test_asking_all_ends_with_the_patience(ledger):
    for node in ledger.nodes:
        node.down = True
    begun_s = time.monotonic()

    answers = ask_all(ledger, 2, 0.5)

    assert all(isinstance(answer, QuorumError) for answer in answers)
    assert 0.2 <= time.monotonic() - begun_s < 10


def test_the_patience_of_a_verb_that_asks_all_nodes_counts(ledger, wmreg):
    for node in ledger.nodes:
        node.lose_request = 4

    assert wmreg("audit", "--policy", ledger.policy_path, "--patience-s", 30).code == 0


def test_a_host_that_no_name_service_can_have_is_passed_over(ledger):
    async def run():
        async with connect([f"http://{'x' * 64}.example", ledger.nodes[1].url], FAST) as transport:
            return await transport.ask(STATE, read_json)

    assert asyncio.run(run())["name"] == "node-2"


HOSTILE_PAGES = [
    {"size": "9"},
    {"next": -1},
    {"entries": 5},
    {"entries": ["a"]},
    {"entries": [{"index": 0, "kind": "publish", "message_hash": "00" * 32, "recorded_s": 10**30}]},
    {"entries": [{"index": 0, "kind": 5, "message_hash": "00" * 32, "recorded_s": 1}]},
    {"entries": [{"index": 0, "kind": "publish", "message_hash": "\x1b[2J", "recorded_s": 1}]},
]


@pytest.mark.parametrize("changes", HOSTILE_PAGES)
def test_a_page_of_the_ledger_of_other_types_is_passed_over(ledger, wmreg, changes):
    page = {"entries": [], "size": 1, "next": None} | changes
    ledger.nodes[0].answers["/v1/entries"] = json.dumps(page).encode()

    shown = wmreg("log", "--policy", ledger.policy_path)

    assert shown.code == 0
    assert "1 entry in all" in shown.out


def test_a_kind_that_would_garble_the_terminal_is_shown_without_its_escapes(ledger, wmreg):
    line = {"index": 0, "kind": "\x1b[2J\n\x9b", "message_hash": "00" * 32, "recorded_s": 1}
    for node in ledger.nodes:
        node.answers["/v1/entries"] = json.dumps({"entries": [line], "size": 1, "next": None}).encode()

    assert "?[2J??" in wmreg("log", "--policy", ledger.policy_path).out


def test_a_nodes_error_message_cannot_garble_the_terminal(ledger, wmreg):
    error = json.dumps({"error": {"code": "\x1b", "message": "\x1b[2J\x9b\u202e"}}).encode()

    code, message = describe(error_of(422, error))

    assert (code, message) == ("?", "?[2J??")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the host's name is not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "Temporary failure in name resol"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "Connection refused"),
    ],
)
def test_why_nothing_could_be_connected_to_is_told_in_words(error, told):
    key = ConnectionKey(
        "nowhere.invalid", 80, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=0
    )

    text = describe_failure(aiohttp.ClientConnectorError(key, error))

    assert text.startswith(f"cannot connect: {told}")
    assert "Unknown error" not in text
