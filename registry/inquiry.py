"""Whose times an auditor asks about: which of a log's checkpoints tell whether its entries were recorded when they say.

A checkpoint for each entry would tell everything, and be three signatures for each. So an auditor begins with a few
sizes (every 256th, say) and goes on where something does not fit. Suspected is

* an entry that says an earlier time than one before it, or a later time than one behind it, by more than the skew.
  One of the two is wrong; it is not known which;
* an entry before and one behind each of the longest silences of a bundle: many backdated entries in a row are in order
  among themselves, and are followed by a silence that was none;
* the last entry that an attested size has: the size was signed when the entry was ordered, so their times agree;
* a vote of which no known checkpoint shows that it was there by its claim's deadline.

An entry is suspected until the checkpoints around it are known (`Chronology.size_to_ask`), which clears or convicts it.
What stays open are entries that were ordered in a silence, for those may have waited (`registry.attestation`), and
entries that nothing here draws attention to; `Chronology.brackets` says how far apart their bounds are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from registry.attestation import LATEST_S, Chronology, Misdated
from registry.audit import Replay
from registry.tiles import TILE_WIDTH

_SILENCES = 2  # looked at in each bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class LateVote:
    """A vote that was attested only after its claim's deadline, or never; recorded_s is what it says of itself."""

    index: int
    claim: bytes
    recorded_s: int
    deadline_s: int
    by_s: int | None


class Inquiry:
    """What an auditor suspects of a replayed ledger.

    Args:
        state: the replayed ledger.
    """

    def __init__(self, state: Replay) -> None:
        self._ledger, self._recorded_s, self._skew_s = state.ledger, state.recorded_s, state.skew_s
        self._silences = list(_around_silences(self._recorded_s, self._skew_s))

    def sizes_to_ask(self, chronology: Chronology, *, each: int) -> list[int]:
        """Sizes whose checkpoints tell most; empty when nothing is left to suspect.

        Args:
            chronology: what is known.
            each: how many of the entries that are out of order are asked about in each bundle, the worst first. Few at
                first: one liar puts all his neighbours out of order, until he is convicted.
        """
        misdated = self.misdated(chronology)
        sizes = list(_unsettled(misdated))
        suspected = [*self._out_of_order(chronology, misdated, each=each), *self._ends(chronology)]
        suspected += [*self._silences, *(vote.index for vote in self.late_votes(chronology))]
        sizes += [size for index in suspected if (size := self._size_to_ask(chronology, index)) is not None]
        return list(dict.fromkeys(sizes))

    def misdated(self, chronology: Chronology) -> list[Misdated]:
        """Entries whose times do not fit the checkpoints around them."""
        return chronology.misdated(self._recorded_s, skew_s=self._skew_s)

    def undecided(self, chronology: Chronology) -> list[int]:
        """Entries whose times contradict another's or a checkpoint, and on which a missing checkpoint would decide."""
        misdated = self.misdated(chronology)
        suspected = {*self._out_of_order(chronology, misdated, each=TILE_WIDTH), *self._ends(chronology)}
        suspected -= {one.index for one in misdated}
        return sorted(index for index in suspected if self._size_to_ask(chronology, index) is not None)

    def late_votes(self, chronology: Chronology) -> list[LateVote]:
        """Votes of which no checkpoint shows that they were there by the deadline."""
        found = []
        for claim in self._ledger.claims():
            state = self._ledger.claim_state(claim)
            for placed in state.votes.values() if state else ():
                by_s = chronology.latest_s(placed.index)
                if state and (by_s is None or by_s > state.deadline_s):
                    found.append(
                        LateVote(
                            index=placed.index,
                            claim=claim,
                            recorded_s=placed.recorded_s,
                            deadline_s=state.deadline_s,
                            by_s=by_s,
                        )
                    )
        return found

    def _size_to_ask(self, chronology: Chronology, index: int) -> int | None:
        return chronology.size_to_ask(index, self._recorded_s[index], skew_s=self._skew_s[index])

    def _ends(self, chronology: Chronology) -> Iterator[int]:
        return (size - 1 for size in chronology.sizes if size <= len(self._recorded_s))

    def _out_of_order(self, chronology: Chronology, misdated: Iterable[Misdated], *, each: int) -> list[int]:
        """Entries whose time lies before an earlier entry's or after a later one's, the worst of each bundle."""
        if not _has_disorder(self._recorded_s, self._skew_s):
            return []
        convicted = {one.index for one in misdated if one.is_settled}
        floor, ceiling = self._possible(chronology, convicted)
        before = [0, *accumulate(ceiling, max)][:-1]
        behind = [LATEST_S, *accumulate(reversed(floor), min)][-2::-1]
        bundles: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        for index, (time_s, skew_s) in enumerate(zip(self._recorded_s, self._skew_s, strict=True)):
            for by_s, is_early in ((before[index] - time_s, True), (time_s - behind[index], False)):
                if by_s > skew_s and index not in convicted:
                    bundles.setdefault((index // TILE_WIDTH, is_early), []).append((by_s, index))
        for suspected in bundles.values():
            suspected[:] = [one for one in suspected if self._size_to_ask(chronology, one[1]) is not None]
        return [index for suspected in bundles.values() for _, index in sorted(suspected, reverse=True)[:each]]

    def _possible(self, chronology: Chronology, convicted: set[int]) -> tuple[list[int], list[int]]:
        """The times that entries state, within what the checkpoints allow: as early and as late as they may be.

        So one entry of the year 3000 does not make all that follow it suspect, but those up to the next checkpoint.
        """
        floor, ceiling = list(self._recorded_s), list(self._recorded_s)
        for bracket in chronology.brackets(len(floor)):
            for index in range(bracket.first, bracket.last + 1):
                skew_s = self._skew_s[index]
                floor[index] = max(floor[index], bracket.after_s - skew_s)
                ceiling[index] = min(ceiling[index], bracket.by_s + skew_s)
        for index in convicted:
            floor[index], ceiling[index] = LATEST_S, 0
        return floor, ceiling


def _has_disorder(recorded_s: Sequence[int], skew_s: Sequence[int]) -> bool:
    """Whether any entry says an earlier time than one before it, by more than the skew."""
    least_s = min(skew_s, default=0)
    return any(
        latest_s - time_s > least_s for latest_s, time_s in zip(accumulate(recorded_s, max), recorded_s, strict=True)
    )


def _around_silences(recorded_s: Sequence[int], skew_s: Sequence[int]) -> Iterator[int]:
    """The entries on both sides of the longest silences of each bundle, by the entries' own times."""
    for first in range(0, len(recorded_s), TILE_WIDTH):
        times_s = recorded_s[first : first + TILE_WIDTH + 1]
        silences = [(later - earlier, first + place) for place, (earlier, later) in enumerate(pairwise(times_s))]
        for length_s, index in sorted(silences, reverse=True)[:_SILENCES]:
            if length_s > 2 * skew_s[index]:
                yield from (index, index + 1)


def _unsettled(misdated: Iterable[Misdated]) -> Iterator[int]:
    """Sizes that settle entries which seem backdated: of those between two known sizes the last and the middle one.

    When the last one waited, so did those before it.
    """
    groups: dict[int, list[int]] = {}
    for one in misdated:
        if not one.is_settled:
            groups.setdefault(one.next_size, []).append(one.index)
    for indexes in groups.values():
        yield indexes[-1] + 1
        yield indexes[len(indexes) // 2] + 1
