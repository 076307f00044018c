"""A line of the log is one JSON object: a constant message and its fields."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from node import logs
from node.logs import fields


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_fields(stream: io.StringIO):
    logging.getLogger("node.x").info("voted", extra=fields(claim="ab", name="node-1", matched=3))
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "node.x",
        "message": "voted",
        "claim": "ab",
        "name": "node-1",
        "matched": 3,
    }


def test_plain_extras_are_fields_too(stream: io.StringIO):
    logging.getLogger("node.x").warning("peer", extra={"peer": "node-2"})
    assert lines(stream)[0]["peer"] == "node-2"


def test_a_newline_in_a_strangers_text_does_not_start_a_line(stream: io.StringIO):
    logging.getLogger("node.x").info("seen", extra=fields(text='a\n{"level": "forged"}'))
    assert len(lines(stream)) == 1


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO):
    try:
        int("broken")
    except ValueError:
        logging.getLogger("node.x").exception("failed")
    assert "ValueError: invalid literal" in lines(stream)[0]["traceback"]


def test_details_below_info_and_each_http_request_are_not_logged(stream: io.StringIO):
    logging.getLogger("node.x").debug("detail")
    logging.getLogger("aiohttp.access").info("GET /")
    assert lines(stream) == []


@pytest.mark.parametrize(
    ("error", "count"), [(BadHttpMessage("no HTTP"), 0), (ConnectionResetError(), 0), (ValueError(), 1)]
)
def test_a_stranger_who_sends_no_http_or_leaves_writes_nothing_into_the_log(
    stream: io.StringIO, error: Exception, count: int
):
    logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)
    assert len(lines(stream)) == count
