"""A page of the ledger, by one node's word."""

from collections.abc import Mapping
from dataclasses import dataclass

from client import answers
from client.transport import UnreachableError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One entry, without its body."""

    index: int
    recorded_s: int
    kind: str
    message_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some entries.

    Attributes:
        size: entries in the whole ledger.
        following: where the next page begins; None after the last one.
        document: all that the node said.
    """

    lines: tuple[LogLine, ...]
    size: int
    following: int | None
    document: dict[str, object]

    @classmethod
    def read(cls, document: dict[str, object]) -> "LogPage":
        """Read a node's answer.

        Raises:
            UnreachableError: it is not a page of the ledger; such a node is passed over.
        """
        try:
            return cls(
                lines=answers.items(document["entries"], read_line),
                size=answers.count(document["size"]),
                following=answers.optional(document["next"], answers.count),
                document=document,
            )
        except (KeyError, TypeError) as error:
            raise UnreachableError(f"the answer is not a page of the ledger: {error!r}", code="malformed") from error


def read_line(entry: Mapping[str, object]) -> LogLine:
    """Read an entry; raises KeyError or TypeError."""
    return LogLine(
        index=answers.count(entry["index"]),
        recorded_s=answers.time_s(entry["recorded_s"]),
        kind=answers.text(entry["kind"]),
        message_hash=answers.digest(entry["message_hash"]),
    )
