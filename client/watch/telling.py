"""From proven entries to events: the one place that knows what is told of each entry."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from client.api import Api
from client.watch.cursor import Cursor
from client.watch.events import UNREADABLE, Event, entry_event, unreadable_event, verdict_event
from client.watch.resolving import Counted, Resolver
from client.watch.watched import VERDICT, Interests, Touch, Watched, subject_of
from registry import merkle
from registry.checkpoint import Checkpoint
from registry.entry import Entry, Placed
from registry.envelope import message_hash, unseal
from registry.errors import ConsistencyError, RegistryError
from registry.messages import PolicyChange, Vote
from registry.terms import terms_of

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A way in the log, from the cursor before to this one.

    Attributes:
        events: what was found on it, none of which may be told after the cursor is kept.
        cursor: where to go on; kept once all events have been taken.
    """

    events: tuple[Event, ...]
    cursor: Cursor


class Teller:
    """Makes events of the entries behind a cursor, in order.

    Args:
        api: the ledger.
        watched: what to look for.
        cursor: what is known to begin with.
        warn: is told what the watcher should know of, and what is no event.
    """

    def __init__(self, api: Api, watched: Watched, cursor: Cursor, warn: Warn) -> None:
        self._watched, self._warn = watched, warn
        self._interests = Interests(watched, cursor.learned)
        self._resolver = Resolver(api)

    async def tell(self, entries: Sequence[bytes], cursor: Cursor, proof: Checkpoint) -> AsyncGenerator[Step, None]:
        """Yield a step for every entry with events, and one to the end.

        Args:
            entries: those behind the cursor, shown to be in the log.
            cursor: where they begin.
            proof: a checkpoint in which they were shown to be.

        Raises:
            QuorumError: the nodes that answer do not show what an entry is about.
            ConsistencyError: code entries, the log holds what the rules refuse.
        """
        frontier = cursor.frontier
        events: tuple[Event, ...] = ()
        for raw in entries:
            events = await self._events_of(raw, frontier.size, proof)
            frontier.append(merkle.leaf_hash(raw))
            if events:
                yield Step(events=events, cursor=self._cursor(frontier, proof))
        if not events:
            yield Step(events=(), cursor=self._cursor(frontier, proof))

    def _cursor(self, frontier: merkle.Frontier, proof: Checkpoint) -> Cursor:
        return Cursor(origin=proof.origin, index=frontier.size, edge=frontier.edge, learned=self._interests.learned)

    async def _events_of(self, raw: bytes, index: int, proof: Checkpoint) -> tuple[Event, ...]:
        try:
            entry = Entry.decode(raw)
            signed = unseal(entry.envelope, origin=proof.origin)
        except RegistryError as error:
            if error.code == "unknown_kind":  # of a later release
                return self._unreadable(raw, index, proof)
            message = f"entry {index}, which a quorum of the nodes attests, is none: {error}"
            raise ConsistencyError(message, code="entries") from error
        placed = Placed(index=index, recorded_s=entry.recorded_s, signed=signed)
        touches = await self._touches(raw, placed)
        kind = signed.message.KIND
        if not touches and not self._watched.tells_untouched(kind) and not self._is_vote_in_all(kind):
            self._mention(placed)
            return ()
        if isinstance(signed.message, Vote):
            counted = await self._resolver.count(placed, signed.message)
            return self._vote_events(placed, counted, touches, proof)
        is_told = self._watched.tells(kind) if touches else self._watched.tells_untouched(kind)
        return (entry_event(placed, touches, proof),) if is_told else ()

    def _is_vote_in_all(self, kind: str) -> bool:
        """Whether a vote is looked at for the verdict that it may decide."""
        return self._watched.is_everything and kind == Vote.KIND and self._watched.tells(VERDICT)

    async def _touches(self, raw: bytes, placed: Placed) -> tuple[Touch, ...]:
        signed, kind = placed.signed, placed.signed.message.KIND
        if self._watched.is_everything:
            return ()
        terms = terms_of(raw, signed)
        touches = self._interests.touches(terms, kind)
        self._resolver.note(signed.hash, kind, terms)
        self._interests.learn(signed, touches)
        about = subject_of(signed)
        if about is not None:
            role, digest = about
            subject = await self._resolver.subject(digest)
            behind = self._interests.touches(subject.terms, subject.kind)
            known = {touch.value for touch in touches}
            touches += tuple(t._replace(role=f"{role}.{t.role}") for t in behind if t.value not in known)
        return touches

    def _vote_events(
        self, placed: Placed, counted: Counted, touches: tuple[Touch, ...], proof: Checkpoint
    ) -> tuple[Event, ...]:
        events = []
        if self._watched.tells(Vote.KIND):
            events.append(entry_event(placed, touches, proof, member=counted.member))
        if counted.decided is not None and self._watched.tells(VERDICT):
            events.append(verdict_event(counted.state, counted.decided, placed, touches, proof))
        return tuple(events)

    def _unreadable(self, raw: bytes, index: int, proof: Checkpoint) -> tuple[Event, ...]:
        entry = Entry.decode(raw)
        event = unreadable_event(index, entry.recorded_s, message_hash(entry.envelope), proof)
        if self._watched.tells(UNREADABLE):
            return (event,)
        self._warn(f"entry {index}: {event.text}")
        return ()

    def _mention(self, placed: Placed) -> None:
        """A change of policy is no event for who has not asked for any, and yet he must follow it to read on."""
        if isinstance(placed.signed.message, PolicyChange):
            self._warn(f"entry {placed.index}: the members have changed the policy; run: wmreg policy update")
