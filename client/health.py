"""How the nodes of a ledger are: who answers, whose trees agree, how many more may fail.

What a node says of its own process is its word. Whether the trees agree is read from signed checkpoints: every node is
asked for its own at the largest size that all who answer have reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from client.api import Api, quorum_size
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """One node; said is what it says of itself, None for one that does not answer.

    Attributes:
        agrees: whether its signed tree is the one that most of the nodes signed; None when it showed none.
    """

    url: str
    said: Mapping[str, object] | None
    problem: str | None
    agrees: bool | None = None

    def document(self) -> dict[str, object]:
        """What the node says of itself, and what was found out beside it."""
        found = {"url": self.url, "reachable": self.said is not None, "agrees": self.agrees, "problem": self.problem}
        return dict(self.said or {}) | found

    def row(self) -> list[object]:
        """Cells of the table of nodes."""
        if self.said is None:
            return [self.url, None, "no", None, None, None, self.problem]
        raft, verifier = _map(self.said.get("raft")), _map(self.said.get("verifier"))
        agrees = {True: "yes", False: "NO", None: None}[self.agrees]
        role = f"{_word(raft.get('state'))}, term {_word(raft.get('term'))}"
        work = (
            f"{_word(verifier.get('state'))} on {_word(verifier.get('device'))}, {_word(verifier.get('queue'))} queued"
        )
        return [self.url, _word(self.said.get("name")), "yes", self.said.get("size"), agrees, role, work]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All nodes of a ledger.

    Attributes:
        quorum: nodes that must answer.
        compared_size: size at which the signed trees were compared; None when nothing could be.
    """

    HEADERS: ClassVar = ["API", "node", "answers", "entries", "tree agrees", "consensus", "verifier"]

    origin: str
    nodes: tuple[NodeHealth, ...]
    quorum: int
    compared_size: int | None

    @property
    def answering(self) -> int:
        """Nodes that answer."""
        return sum(node.said is not None for node in self.nodes)

    @property
    def spare(self) -> int:
        """How many more may fail before the ledger stops; negative when it has stopped."""
        return self.answering - max(1, self.quorum)

    @property
    def disagreeing(self) -> tuple[str, ...]:
        """URLs of nodes that signed another tree."""
        return tuple(node.url for node in self.nodes if node.agrees is False)

    def summary(self) -> str:
        """The state of the ledger in a line or two."""
        if self.disagreeing:
            trees = f"ALARM: different trees of size {self.compared_size} are signed; see {', '.join(self.disagreeing)}"
            return f"{self.origin}: {trees}"
        if self.spare < 0:
            return f"{self.origin}: unavailable; {self.answering} of {len(self.nodes)} nodes answer, {self.quorum} must"
        return (
            f"{self.origin}: {self.answering} of {len(self.nodes)} nodes answer, {self.quorum} are a quorum; "
            f"tolerates {self.spare} more failures"
        )

    def document(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "origin": self.origin,
            "quorum": self.quorum,
            "answering": self.answering,
            "tolerates": max(0, self.spare),
            "compared_size": self.compared_size,
            "nodes": [node.document() for node in self.nodes],
        }


async def survey(api: Api) -> Health:
    """Ask every node once."""
    said = await api.nodes()
    sizes = [
        size for answer in said.values() if isinstance(answer, dict) and isinstance(size := answer.get("size"), int)
    ]
    compared_size = min(sizes, default=0) or None
    agreement = await _agreement(api, compared_size) if compared_size else {}
    nodes = tuple(_health_of(url, answer, agreement) for url, answer in said.items())
    return Health(origin=api.trust.origin, nodes=nodes, quorum=quorum_size(api.trust), compared_size=compared_size)


def _health_of(url: str, answer: dict[str, object] | RegistryError, agreement: Mapping[str, bool]) -> NodeHealth:
    if isinstance(answer, RegistryError):
        return NodeHealth(url=url, said=None, problem=" ".join(str(answer).split()))
    return NodeHealth(url=url, said=answer, problem=None, agrees=agreement.get(url))


async def _agreement(api: Api, size: int) -> dict[str, bool]:
    """Whether each node that showed its own checkpoint signed the root that most of them signed."""
    answers = await api.own_notes(size)
    roots = {url: Checkpoint.parse(answer.text).root for url, answer in answers.items() if isinstance(answer, Note)}
    signed = sorted(roots.values())
    most = max(signed, key=signed.count, default=b"")
    return {url: root == most for url, root in roots.items()}


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return "".join(c for c in str(value) if c.isprintable())[:40]
