"""Where followers of a ledger stand, in one file that a crash leaves as it was before or as it is after.

A cursor is not a number: it holds the edge of the tree over all entries before it (`registry.merkle.Frontier`). The
entries that come are appended to that, and must lead to the root of a checkpoint; so a cursor goes on only in the log
that it came from, and over no entry that was left out. Each follower (stdout, and every hook) has its own.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from client import answers
from client.errors import InputError, InvalidError
from client.files import read_text, state_directory, write_atomic
from registry import merkle

FORMAT = "wmreg-cursor/1"
TEXT_FORMAT = "wmreg-cursor-text/1"
LEARNED_MAX = 256
FOLLOWERS_MAX = 32
_FILE_BYTES_MAX = 4 * 2**20
_PRIVATE_MODE = 0o600
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Learned(NamedTuple):
    """What is watched because of something that is: a later signing key, or a model that an owner claimed.

    Attributes:
        value: 32 bytes.
        because: the value that was asked for, which this follows from.
        is_key: whether it is a signing key.
    """

    value: bytes
    because: bytes
    is_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in the log.

    Attributes:
        origin: of the ledger.
        index: of the next entry to look at.
        edge: of the tree over the entries before it; see `registry.merkle.Frontier.edge`.
        learned: the last LEARNED_MAX values that are watched because of entries before it.
    """

    origin: str
    index: int
    edge: tuple[bytes, ...]
    learned: tuple[Learned, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an edge that no tree of this size has; raises ValueError."""
        merkle.Frontier.of(self.index, self.edge)

    @property
    def frontier(self) -> merkle.Frontier:
        """The tree over the entries before it, to be appended to."""
        return merkle.Frontier.of(self.index, self.edge)

    def __str__(self) -> str:
        """The cursor as one line of text, to be kept beside what was made of the events; `parse` reads it."""
        content = {"format": TEXT_FORMAT, "origin": self.origin, **self.document()}
        return json.dumps(content | {"sha256": _checksum(content)}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read the text of a cursor.

        Raises:
            InvalidError: code malformed, it is damaged, or none.
        """
        try:
            content = json.loads(text)
            _check_whole(content, TEXT_FORMAT)
            return cls.read(content, answers.text(content["origin"]))
        except _DAMAGE as error:
            message = f"cursor: damaged ({error}); begin afresh, with the index of where you last stood as start"
            raise InvalidError(message, code="malformed") from error

    def document(self) -> dict[str, object]:
        """The cursor as JSON-able values, without the origin."""
        return {
            "index": self.index,
            "edge": [digest.hex() for digest in self.edge],
            "learned": [[one.value.hex(), one.because.hex(), one.is_key] for one in self.learned],
        }

    @classmethod
    def read(cls, document: Mapping[str, object], origin: str) -> "Cursor":
        """Read a document; raises KeyError, TypeError or ValueError."""
        edge, learned = cast("list[object]", document["edge"]), cast("list[list[object]]", document["learned"])
        if len(learned) > LEARNED_MAX:
            raise ValueError("too many learned values")
        return cls(
            origin=origin,
            index=answers.count(document["index"]),
            edge=tuple(_digest(one) for one in edge),
            learned=tuple(Learned(_digest(v), _digest(b), answers.truth(is_key)) for v, b, is_key in learned),
        )


@dataclass(slots=True)
class CursorFile:
    """The cursors of all followers; make it with `open_cursors`."""

    path: Path
    origin: str
    cursors: dict[str, Cursor] = field(default_factory=dict)

    @classmethod
    def default_path(cls, origin: str) -> Path:
        """The file for a ledger, in the state directory; an origin may hold any character."""
        return state_directory() / "watch" / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.json"

    @property
    def furthest(self) -> Cursor | None:
        """Where a follower begins that is new beside others; None when there are none."""
        return max(self.cursors.values(), key=lambda cursor: cursor.index, default=None)

    def begin(self, followers: Iterable[str], cursor: Cursor) -> None:
        """Let those begin here that stand nowhere yet, all of them in one writing; raises as `store`."""
        new = [follower for follower in followers if follower not in self.cursors]
        self.cursors |= dict.fromkeys(new, cursor)
        if new:
            self._write()

    def store(self, follower: str, cursor: Cursor) -> None:
        """Move a follower's cursor, on disk when this returns.

        Raises:
            InputError: too many followers have been here.
            OSError: the file cannot be written.
        """
        if self.cursors.get(follower) != cursor:
            self.cursors[follower] = cursor
            self._write()

    def _write(self) -> None:
        if len(self.cursors) > FOLLOWERS_MAX:
            raise InputError(f"{self.path}: more than {FOLLOWERS_MAX} hooks have stood here; choose another --cursor")
        write_atomic(self.path, self._encode(), mode=_PRIVATE_MODE)

    def _encode(self) -> bytes:
        content = {
            "format": FORMAT,
            "origin": self.origin,
            "followers": {name: cursor.document() for name, cursor in sorted(self.cursors.items())},
        }
        return (json.dumps(content | {"sha256": _checksum(content)}, indent=1) + "\n").encode()


@contextmanager
def open_cursors(path: Path, origin: str) -> Iterator[CursorFile]:
    """Read the file if there is one, and keep others from using it meanwhile.

    Raises:
        InputError: code busy, another process has it; or it is another ledger's.
        InvalidError: it is damaged.
        OSError: it cannot be read, or its directory not be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(path):
        yield CursorFile(path, origin, _load(path, origin) if path.exists() else {})


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Beside the file: a lock on the file itself would be on the one that the next write replaces.
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, _PRIVATE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{path}: another wmreg watch moves this cursor; end it, or choose another --cursor"
            raise InputError(message, code="busy") from error
        yield
    finally:
        os.close(descriptor)


def _load(path: Path, origin: str) -> dict[str, Cursor]:
    try:
        text = read_text(path, _FILE_BYTES_MAX)
    except InputError as error:
        raise InputError(f"{error}, so no cursor; choose another --cursor", code=error.code) from error
    try:
        content = json.loads(text)
        _check_whole(content, FORMAT)
        found = answers.text(content["origin"])
        if found != origin:
            raise InputError(f"{path}: a cursor in {found}, not in {origin}; choose another --cursor")
        followers = answers.mapping(content["followers"])
        return {name: Cursor.read(answers.mapping(one), origin) for name, one in followers.items()}
    except _DAMAGE as error:
        message = (
            f"{path}: no cursor, or a damaged one ({error}); choose another --cursor, or remove it to begin afresh, "
            "with --from where you last stood"
        )
        raise InvalidError(message, code="malformed") from error


def _check_whole(content: dict[str, object], expected: str) -> None:
    checksum = content.pop("sha256")
    if content["format"] != expected or checksum != _checksum(content):
        raise ValueError("its checksum or format is not the right one")


def _checksum(content: Mapping[str, object]) -> str:
    """Tells a damaged file from a log that does not continue it: only the latter is an alarm."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _digest(value: object) -> bytes:
    return bytes.fromhex(answers.digest(value))
