"""What a verb answers: one JSON document, and the same for people.

Results go to stdout, everything else to stderr. A verb returns its report after its last check, so nothing that
looks like success is printed before.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verb found.

    Attributes:
        document: JSON-able; printed for --json.
        text: the same for people, without a final newline.
        exit_code: 0, or why the answer is no.
    """

    document: dict[str, object]
    text: str
    exit_code: int = 0

    def render(self, *, as_json: bool) -> str:
        """The report as it is printed."""
        return json.dumps(self.document, indent=1, ensure_ascii=False) if as_json else self.text


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    numeric = [bool(rows) and all(isinstance(row[c], int | float | None) for row in rows) for c in range(len(headers))]
    lines = [_line(headers, widths, numeric), _line(["-" * width for width in widths], widths, numeric)]
    return "\n".join([*lines, *(_line(row, widths, numeric) for row in cells)])


def utc(time_s: int) -> str:
    """A time for people: 2022-02-28 12:00:00 UTC; one that no calendar has, as a liar may state, in seconds."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))
    except (ValueError, OverflowError, OSError):
        return f"{time_s} s after 1970"


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
    return "  ".join(aligned).rstrip()
