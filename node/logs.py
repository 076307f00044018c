"""Logging of a node: one JSON object a line on stderr (STYLE: errors, settings, logging).

A message is constant; what varies goes into fields: ``logger.info("voted", extra=fields(claim=…))``. Then a line can be
found by its message and counted by its fields. Keys, triggers and models' paths are never logged.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from aiohttp.http_exceptions import HttpProcessingError

Field = str | int | float | bool | None
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "fields"}


def fields(**values: Field) -> dict[str, dict[str, Field]]:
    """The `extra` argument of a logging call: what varies in this line, whatever a LogRecord calls its own."""
    return {"fields": values}


class JsonFormatter(logging.Formatter):
    """Spells a record as one line of JSON: time, level, logger, message, the fields, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def configure(stream: TextIO | None = None) -> None:
    """Send every logger's lines of level INFO and above to a stream, stderr by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)  # adding it again changes nothing


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a fault is this program's; clients that send no HTTP, or leave, must not fill the log with tracebacks."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError)
