"""What clients saw of a ledger, held against the log: were the appends linearizable?

An append is a message: when a client first sent it, when it was told the index, and which. In the log, every message
that was acknowledged must stand at its index; no message twice; none that nobody sent; and the order of the log must
agree with real time: what was sent after something else had been acknowledged stands behind it. For appends that answer
with their index this is all that linearizability asks (Herlihy and Wing 1990): the log itself is the linearization, so
no search for one is needed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Append:
    """One append as its client saw it.

    Attributes:
        message: its hash.
        invoked_s: when it was first sent; monotonic seconds.
        answered_s: when it was acknowledged; None if it never was, which says nothing about the log.
        index: that was acknowledged.
    """

    message: bytes
    invoked_s: float
    answered_s: float | None = None
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is wrong with a log; empty and nought for a sound one.

    Attributes:
        acknowledged: appends that were.
        lost: acknowledged messages that do not stand at their index.
        duplicates: messages that stand there more than once.
        foreign: entries behind the genesis that nobody sent.
        disordered: messages that were acknowledged before a message was sent that stands in front of them.
        longest_pause_s: between two acknowledgements.
    """

    acknowledged: int
    lost: tuple[bytes, ...]
    duplicates: tuple[bytes, ...]
    foreign: tuple[bytes, ...]
    disordered: tuple[bytes, ...]
    longest_pause_s: float

    @property
    def is_sound(self) -> bool:
        return not (self.lost or self.duplicates or self.foreign or self.disordered)


def judge(appends: Sequence[Append], log: Sequence[bytes]) -> Verdict:
    """Hold what clients saw against the log, the hashes of its messages by index, the genesis first."""
    answered = [append for append in appends if append.answered_s is not None]
    sent = {append.message for append in appends}
    times = sorted(append.answered_s for append in answered)
    return Verdict(
        acknowledged=len(answered),
        lost=tuple(a.message for a in answered if not 0 <= a.index < len(log) or log[a.index] != a.message),
        duplicates=tuple(message for message, count in Counter(log).items() if count > 1),
        foreign=tuple(message for message in log[1:] if message not in sent),
        disordered=_disordered(appends, log),
        longest_pause_s=max((later - earlier for earlier, later in pairwise(times)), default=0.0),
    )


def _disordered(appends: Sequence[Append], log: Sequence[bytes]) -> tuple[bytes, ...]:
    """Go through the log: nothing may have been acknowledged before something in front of it was first sent."""
    by_message = {append.message: append for append in appends}
    found, latest_invoked_s = [], -math.inf
    for message in log:
        append = by_message.get(message)
        if append is None:
            continue
        if append.answered_s is not None and append.answered_s < latest_invoked_s:
            found.append(message)
        latest_invoked_s = max(latest_invoked_s, append.invoked_s)
    return tuple(found)
