"""How the nodes of a ledger are: who answers, whose trees agree, how many more may fail.

What a node says of its own process is its word. Whether the trees agree is read from signed checkpoints: every node is
asked for its own at the largest size that a quorum has reached, so that no single node's word decides which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from client import answers
from client.api import Api, OtherLogError, quorum_size
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import Note

_TROUBLE_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """One node; said is what it says of itself, None for one that does not answer.

    Attributes:
        problem: why it does not answer, or why the policy does not vouch for the checkpoint that it showed.
        agrees: whether its signed tree is the one that most of the nodes signed; None when it showed none.
    """

    url: str
    said: Mapping[str, object] | None
    problem: str | None
    agrees: bool | None = None

    @property
    def is_stranger(self) -> bool:
        """Whether it answers, but for another ledger than the policy's."""
        return self.said is not None and self.problem is not None

    @property
    def troubles(self) -> list[str]:
        """What is wrong with a node that answers, by what it showed and by its own word."""
        said = _map(_map(self.said).get("problems"))
        problems = [f"not trusted: {self.problem}"] if self.is_stranger else []
        problems += [f"{_word(part)}: {str(why)[:_TROUBLE_CHARACTERS_MAX]}" for part, why in list(said.items())[:16]]
        return problems + self._unusable_public()

    def _unusable_public(self) -> list[str]:
        """The public models that it keeps for controls and cannot use; claims are judged without them."""
        unusable = _map(_map(_map(self.said).get("verifier")).get("unusable_public"))
        return [
            f"public models: {_word(count)} of its files for {_word(architecture)} did not fit the latest claim, "
            "which was judged without; its log says why"
            for architecture, count in list(unusable.items())[:16]
        ]

    def document(self) -> dict[str, object]:
        """What the node says of itself, and what was found out beside it."""
        found = {"url": self.url, "reachable": self.said is not None, "agrees": self.agrees, "problem": self.problem}
        return dict(self.said or {}) | found

    def row(self) -> list[object]:
        """Cells of the table of nodes."""
        if self.said is None:
            return [self.url, None, "no", None, None, None, self.problem]
        raft, verifier, size = _map(self.said.get("raft")), _map(self.said.get("verifier")), _size(self.said)
        agrees = "NOT TRUSTED" if self.is_stranger else {True: "yes", False: "NO", None: None}[self.agrees]
        role = f"{_word(raft.get('state'))}, term {_word(raft.get('term'))}"
        work = (
            f"{_word(verifier.get('state'))} on {_word(verifier.get('device'))}, {_word(verifier.get('queue'))} queued"
        )
        return [self.url, _word(self.said.get("name")), "yes", size, agrees, role, work]


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
        """How many more may fail before the ledger stops; negative when it has stopped. Strangers are no help."""
        return self.answering - len(self.strangers) - max(1, self.quorum)

    @property
    def strangers(self) -> tuple[str, ...]:
        """URLs of nodes that answer for another ledger than the policy's."""
        return tuple(node.url for node in self.nodes if node.is_stranger)

    @property
    def is_untrusted(self) -> bool:
        """Whether every node that answers is a stranger."""
        return bool(self.strangers) and len(self.strangers) == self.answering

    @property
    def disagreeing(self) -> tuple[str, ...]:
        """URLs of nodes that signed another tree."""
        return tuple(node.url for node in self.nodes if node.agrees is False)

    def summary(self) -> str:
        """The state of the ledger in a line or two."""
        if self.disagreeing:
            trees = f"ALARM: different trees of size {self.compared_size} are signed; see {', '.join(self.disagreeing)}"
            return f"{self.origin}: {trees}"
        if self.is_untrusted:
            return (
                f"{self.origin}: NOT TRUSTED; {self.answering} of {len(self.nodes)} nodes answer, and the policy "
                "vouches for the checkpoint of none"
            )
        if self.spare < 0:
            trusted = self.answering - len(self.strangers)
            return f"{self.origin}: unavailable; {trusted} of {len(self.nodes)} nodes answer, {self.quorum} must"
        compared = sum(node.agrees is not None for node in self.nodes)
        trees = (
            f"{compared} trees of size {self.compared_size} agree" if compared > 1 else "their trees were not compared"
        )
        return (
            f"{self.origin}: {self.answering} of {len(self.nodes)} nodes answer, {self.quorum} are a quorum; "
            f"{self.tolerance()}; {trees}"
        )

    def tolerance(self) -> str:
        """How many more nodes may fail, in words."""
        silent = [node.url for node in self.nodes if node.said is None]
        if self.spare > 0:
            return "1 more may fail" if self.spare == 1 else f"{self.spare} more may fail"
        repair = f", so bring back {', '.join(silent)}" if silent else ""
        return f"no other may fail, or the ledger stops{repair}"

    def troubles(self) -> list[str]:
        """What is wrong with the nodes, a line each, by what they showed and by their own word."""
        return [f"{node.url}: {trouble}" for node in self.nodes for trouble in node.troubles]

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
    said, quorum = await api.nodes(), quorum_size(api.trust)
    compared_size = _common_size([_size(answer) for answer in said.values()], max(1, quorum))
    notes = await api.own_notes(compared_size) if compared_size else {}
    agreement = _agreement(notes, compared_size, api.trust.origin) if compared_size else {}
    nodes = tuple(_health_of(url, answer, agreement, notes.get(url)) for url, answer in said.items())
    return Health(origin=api.trust.origin, nodes=nodes, quorum=quorum, compared_size=compared_size)


def _common_size(sizes: Sequence[int | None], quorum: int) -> int | None:
    """The largest size that a quorum has reached, or all who answer, if they are fewer; None if nobody has any."""
    reached = sorted((size for size in sizes if size), reverse=True)
    return reached[min(quorum, len(reached)) - 1] if reached else None


def _size(said: object) -> int | None:
    """How many entries a node says it has; None when it says no number."""
    try:
        return answers.count(answers.mapping(said).get("size"))
    except TypeError:
        return None


def _health_of(
    url: str,
    answer: dict[str, object] | RegistryError,
    agreement: Mapping[str, bool],
    note: Note | RegistryError | None,
) -> NodeHealth:
    if isinstance(answer, RegistryError):
        return NodeHealth(url=url, said=None, problem=" ".join(str(answer).split()))
    problem = str(note) if isinstance(note, OtherLogError) else None
    return NodeHealth(url=url, said=answer, problem=problem, agrees=agreement.get(url))


def _agreement(notes: Mapping[str, Note | RegistryError], size: int, origin: str) -> dict[str, bool]:
    """Whether each node that showed its own checkpoint of this size signed the root that most of them signed."""
    roots = {url: root for url, note in notes.items() if (root := _root_in(note, size, origin)) is not None}
    signed = sorted(roots.values())
    most = max(signed, key=signed.count, default=b"")
    return {url: root == most for url, root in roots.items()}


def _root_in(note: Note | RegistryError, size: int, origin: str) -> bytes | None:
    """The root that a note states for this size of this log; None for any other note, which says nothing of it."""
    if isinstance(note, RegistryError):
        return None
    try:
        checkpoint = Checkpoint.parse(note.text)
    except RegistryError:
        return None
    return checkpoint.root if (checkpoint.size, checkpoint.origin) == (size, origin) else None


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return str(value)[:40]
