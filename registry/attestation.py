"""When entries were recorded, by the clocks of the nodes that cosigned the log as it grew (DESIGN 2.1).

A node cosigns every size of its tree, with its own clock, when it has the entry; entries that it stored together have
the time at which it had them all. So a size that a majority cosigned by noon, and not before, says that the next entry
came after noon; a larger size that a majority cosigned by one o'clock says that it was there by one. What an entry says
of its own time must fit between the two.

A false alarm would accuse honest nodes, so the bounds are drawn with care:

* A witness whose cosignature is missing counts as having signed early for the one bound and late for the other: the
  median is then over all witnesses of the policy, and no choice of which notes are shown moves it the wrong way. Nodes
  that caught up late, and sign old sizes with a late time, move it only when they are the majority, and no entry is
  ordered without a majority that has those before it.
* Entries that waited together (the ledger had no quorum; it was restarted) are ordered in one moment long after their
  time, and each of them shows a size to the next. Sizes that were cosigned less than twice the policy's skew before an
  entry's own are therefore no bound to it: the median may pass from one clock to another, a skew apart, and a node that
  applies its journal after a restart signs one size after the other.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.trust import TrustedCheckpoint

_EARLIEST_S, LATEST_S = 0, 2**63 - 1
_TOGETHER_SKEWS = 2  # sizes that were signed within so many skews may be of entries that waited together


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """When the log had a size: most witnesses signed it at early_s or later, and most at late_s or before."""

    size: int
    early_s: int
    late_s: int

    @property
    def is_void(self) -> bool:
        """Whether too few have cosigned for any time to follow."""
        return (self.early_s, self.late_s) == (_EARLIEST_S, LATEST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """Entries between which no checkpoint tells: first to last, both included.

    Attributes:
        after_s: most nodes signed the log without them at or after this; 0 when nothing is known.
        by_s: most nodes had signed the log with them by this; `LATEST_S` when nothing is known.
        behind_s: the last of them was ordered at or after this.
    """

    first: int
    last: int
    after_s: int
    by_s: int
    behind_s: int

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are known."""
        return self.after_s > _EARLIEST_S and self.by_s < LATEST_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Misdated:
    """An entry whose time does not fit the cosigned checkpoints around it.

    Attributes:
        bound_s: recorded_s is more than the skew before this (is_early) or after it.
        bound_size: the size whose cosignatures say so.
        next_size: the smallest attested size that has the entry.
    """

    index: int
    recorded_s: int
    bound_s: int
    bound_size: int
    is_early: bool
    next_size: int

    @property
    def is_settled(self) -> bool:
        """False while a checkpoint just behind the entry could still clear it."""
        return not self.is_early or self.next_size == self.index + 1


def mark_of(trusted: TrustedCheckpoint, cosigners: int) -> Mark:
    """The times that a checkpoint attests.

    Args:
        trusted: a checkpoint that the policy vouches for.
        cosigners: how many the policy names, each once however many keys it has; at least as many as have cosigned.
    """
    times_s = sorted(trusted.times_s.values())
    if not times_s:
        return Mark(size=trusted.checkpoint.size, early_s=_EARLIEST_S, late_s=LATEST_S)
    absent = cosigners - len(times_s)
    padded = [_EARLIEST_S] * absent + times_s + [LATEST_S] * absent
    early, late = (cosigners - 1) // 2, absent + cosigners // 2
    return Mark(size=trusted.checkpoint.size, early_s=padded[early], late_s=padded[late])


class Chronology:
    """The marks of a log, in the order of their sizes.

    Args:
        marks: of different sizes, in any order.
    """

    def __init__(self, marks: Iterable[Mark]) -> None:
        ordered = sorted(marks, key=lambda mark: mark.size)
        self._sizes = array("Q", (mark.size for mark in ordered))
        self._early_s = _least_behind([mark.early_s for mark in ordered])
        self._late_s = _least_behind([mark.late_s for mark in ordered])

    @property
    def sizes(self) -> Sequence[int]:
        """Of all marks, in order."""
        return self._sizes

    def latest_s(self, index: int) -> int | None:
        """By when the log had an entry, whatever the entry says; None when no mark has it."""
        behind = bisect_right(self._sizes, index)
        late_s = self._late_s[behind] if behind < len(self._sizes) else LATEST_S
        return late_s if late_s < LATEST_S else None

    def brackets(self, size: int) -> Iterator[Bracket]:
        """Between which marks the first `size` entries were ordered, in their order."""
        first, after_s = 0, _EARLIEST_S
        for mark, early_s, late_s in zip(self._sizes, self._early_s, self._late_s, strict=True):
            if first < min(mark, size):
                behind_s = early_s if mark <= size else after_s
                yield Bracket(first=first, last=min(mark, size) - 1, after_s=after_s, by_s=late_s, behind_s=behind_s)
            first, after_s = mark, early_s
        if first < size:
            yield Bracket(first=first, last=size - 1, after_s=after_s, by_s=LATEST_S, behind_s=after_s)

    def size_to_ask(self, index: int, time_s: int, *, skew_s: int) -> int | None:
        """Which size's checkpoint tells most of an entry that is suspected; None when none tells more.

        First the one just behind the entry: when most nodes signed it, the entry had just been ordered. When that was
        long after the entry's own time, the entry waited, or it is backdated. Then others were ordered in between, as a
        rule, and of these a checkpoint convicts it, which is found by halving.

        Args:
            index: of the entry.
            time_s: what it says.
            skew_s: how far honest clocks may be apart, seconds.
        """
        behind = bisect_right(self._sizes, index)
        if behind == len(self._sizes) or self._sizes[behind] != index + 1:
            return index + 1
        early_s = self._early_s[behind] - _TOGETHER_SKEWS * skew_s
        if early_s <= time_s + skew_s:
            return None
        passed = bisect_right(self._early_s, time_s + skew_s, 0, behind)  # the first mark that is too late for it
        reached = bisect_right(self._early_s, early_s, 0, behind)  # the first that may have waited with it
        low, high = self._sizes[passed - 1] if passed else 0, self._sizes[reached]
        return (low + high) // 2 if passed == reached and high - low > 1 else None

    def misdated(self, recorded_s: Sequence[int], *, skew_s: Sequence[int]) -> list[Misdated]:
        """Find the entries whose times do not fit, by more than the skew.

        Args:
            recorded_s: of each entry, from index 0 on.
            skew_s: how far honest clocks may be apart, seconds, by the policy in force at each entry.
        """
        found, behind = [], 0
        for index, (time_s, allowed_s) in enumerate(zip(recorded_s, skew_s, strict=True)):
            while behind < len(self._sizes) and self._sizes[behind] <= index:
                behind += 1
            if behind == len(self._sizes):
                break
            one = self._judge(index, time_s, behind, allowed_s)
            if one is not None:
                found.append(one)
        return found

    def _judge(self, index: int, time_s: int, behind: int, skew_s: int) -> Misdated | None:
        """Judge one entry; `behind` is the place of the first mark that has it."""
        early_s = self._early_s[behind] - _TOGETHER_SKEWS * skew_s
        late_s, next_size = self._late_s[behind], self._sizes[behind]
        if time_s > late_s + skew_s:
            return _misdated(index, time_s, bound=(late_s, next_size), is_early=False, next_size=next_size)
        if early_s <= time_s + skew_s:
            return None
        before = bisect_right(self._early_s, early_s, 0, behind) - 1
        if before < 0 or self._early_s[before] <= time_s + skew_s:
            return None
        bound = self._early_s[before], self._sizes[before]
        return _misdated(index, time_s, bound=bound, is_early=True, next_size=next_size)


def _misdated(index: int, time_s: int, *, bound: tuple[int, int], is_early: bool, next_size: int) -> Misdated:
    bound_s, bound_size = bound
    return Misdated(
        index=index,
        recorded_s=time_s,
        bound_s=bound_s,
        bound_size=bound_size,
        is_early=is_early,
        next_size=next_size,
    )


def _least_behind(times_s: list[int]) -> "array[int]":
    """For each time the least of it and those behind it: a time that a larger tree has passed, the smaller one has."""
    least = array("q", times_s)
    for place in range(len(least) - 2, -1, -1):
        least[place] = min(least[place], least[place + 1])
    return least
