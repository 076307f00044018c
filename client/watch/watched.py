"""What somebody watches, and which entries touch it.

An entry touches a watched hash when it bears it (`registry.terms`), and an owner when his signing key has signed it. A
vote, an objection and a withdrawal also touch whatever the message touches that they are about. Three things are
learned on the way: the key that a watched owner moves to is watched as he is, the model that he claims is watched as
well, since other claims on it are against his, and so is the key that the publisher of a watched bundle moves to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from client.watch.cursor import LEARNED_MAX, Learned
from registry.envelope import SignedMessage
from registry.messages import KINDS, Challenge, Claim, Genesis, PolicyChange, Rotation, Vote, Withdrawal
from registry.terms import SIGNER, Term

VERDICT = "verdict"
EVENT_KINDS = (*KINDS, VERDICT)
_POLICY_KINDS = frozenset({Genesis.KIND, PolicyChange.KIND})


class Touch(NamedTuple):
    """How an entry touches what is watched.

    Attributes:
        role: as what it bears the value; of a message that it is about, with "claim." or "target." in front.
        value: 32 bytes.
        label: what the watcher calls it.
    """

    role: str
    value: bytes
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What to look for; without hashes, owners and publishers everything touches.

    Attributes:
        hashes: of messages, models, evidence files, commitments; and what each is called.
        owners: signing keys, whatever they sign.
        publishers: signing keys whose rotations matter and nothing else.
        kinds: kinds of events to tell; empty for all.
        with_policy: tell changes of the policy as well, which touch everybody.
    """

    hashes: Mapping[bytes, str] = field(default_factory=dict)
    owners: Mapping[bytes, str] = field(default_factory=dict)
    publishers: Mapping[bytes, str] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    with_policy: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether every entry touches."""
        return not (self.hashes or self.owners or self.publishers)

    def tells(self, kind: str) -> bool:
        """Whether events of a kind are told."""
        return not self.kinds or kind in self.kinds

    def tells_untouched(self, kind: str) -> bool:
        """Whether an event of a kind is told although it touches nothing in particular."""
        if self.is_everything:
            return self.tells(kind)
        return kind in _POLICY_KINDS and (kind in self.kinds or (self.with_policy and self.tells(kind)))


class Interests:
    """What is watched, with what was learned; grows as entries are shown to it.

    Args:
        watched: what was asked for.
        learned: by an earlier run; what follows from nothing that is asked for now is forgotten.
    """

    def __init__(self, watched: Watched, learned: Iterable[Learned] = ()) -> None:
        self.watched = watched
        self._labels = {**watched.publishers, **watched.owners, **watched.hashes}
        self._learned = {one.value: one for one in learned if one.because in self._labels}

    @property
    def learned(self) -> tuple[Learned, ...]:
        """What was learned, the oldest first."""
        return tuple(self._learned.values())

    def touches(self, terms: Iterable[Term], kind: str) -> tuple[Touch, ...]:
        """How an entry with these terms touches what is watched, without what it is about."""
        found = [touch for term in terms if (touch := self._touch(term, kind)) is not None]
        return tuple(sorted(found))

    def _touch(self, term: Term, kind: str) -> Touch | None:
        known, watched = self._learned.get(term.value), self.watched
        root = term.value if known is None else known.because
        if term.role == SIGNER:
            is_owner = root in watched.owners and (known is None or known.is_key)
            is_publisher = kind == Rotation.KIND and root in watched.publishers and (known is None or known.is_key)
            return Touch(term.role, term.value, self._label(root, known)) if is_owner or is_publisher else None
        is_hash = root in watched.hashes if known is None else not known.is_key
        return Touch(term.role, term.value, self._label(root, known)) if is_hash else None

    def _label(self, root: bytes, known: Learned | None) -> str:
        if known is None:
            return self._labels[root]
        return f"{'later key of' if known.is_key else 'claimed by'} {self._labels[root]}"

    def learn(self, signed: SignedMessage, touches: Iterable[Touch]) -> None:
        """Take in what follows from an entry that touches."""
        message = signed.message
        if isinstance(message, Rotation):
            root = self._root(message.old_key)
            if root in self.watched.owners or root in self.watched.publishers:
                self._add(Learned(message.new_key, root, is_key=True))
        elif isinstance(message, Claim):
            own = [touch for touch in touches if touch.role in {SIGNER, "publication"}]
            if own and message.model_sha256 not in self.watched.hashes:
                self._add(Learned(message.model_sha256, self._root(own[0].value), is_key=False))

    def _root(self, value: bytes) -> bytes:
        known = self._learned.get(value)
        return value if known is None else known.because

    def _add(self, one: Learned) -> None:
        self._learned.setdefault(one.value, one)
        if len(self._learned) > LEARNED_MAX:  # a forgotten key would be an owner lost from sight
            oldest = next(
                (value for value, known in self._learned.items() if not known.is_key), next(iter(self._learned))
            )
            del self._learned[oldest]


def subject_of(signed: SignedMessage) -> tuple[str, bytes] | None:
    """The message that a vote, an objection or a withdrawal is about, and as what; None for other kinds."""
    match signed.message:
        case Vote(claim=digest) | Challenge(claim=digest):
            return "claim", digest
        case Withdrawal(target=digest):
            return "target", digest
    return None
