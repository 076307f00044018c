"""What a verb answers: one JSON document, and the same for people.

Results go to stdout, everything else to stderr. A verb returns its report after its last check, so nothing that
looks like success is printed before. Much of what is printed was written by strangers: no character of it commands the
terminal (escape sequences, C1, overriding the direction of the text), and none of it begins a line of its own.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

TIME_S_MAX = 253_402_300_799  # the last second of the year 9999


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
        if as_json:
            return json_text(self.document, indent=1)
        return "\n".join(printable(line) for line in self.text.split("\n"))


def printable(text: str) -> str:
    """A text with a question mark for every character that a terminal would obey instead of showing it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def json_text(document: object, *, indent: int | None = None) -> str:
    """JSON for people and programs: readable characters as they are, all others escaped; lone surrogates as well."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))]
    numeric = [bool(rows) and all(isinstance(row[c], int | float | None) for row in rows) for c in range(len(headers))]
    lines = [_line(headers, widths, numeric), _line(["-" * width for width in widths], widths, numeric)]
    return "\n".join([*lines, *(_line(row, widths, numeric) for row in cells)])


def counted(matched: int, total: int, *, aligned: bool, matched_unaligned: int | None) -> str:
    """A vote's count for people: 590/600, and whether channels were aligned for it."""
    if not aligned:
        return f"{matched}/{total}"
    before = "" if matched_unaligned is None else f" from {matched_unaligned}"
    return f"{matched}/{total} (aligned{before})"


def utc(time_s: int) -> str:
    """A time for people: 2022-02-28 12:00:00 UTC; one that no calendar has, as a liar may state, in seconds."""
    if not 0 <= time_s <= TIME_S_MAX:
        return f"{time_s} s after 1970"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))


def _cell(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)]
    return "  ".join(aligned).rstrip()
