"""What an endpoint is shown, in which order, and what its answers say about it.

The pictures that count are hidden among decoys, some of them are shown twice, and many have a twin that differs in
nothing but the lowest bits. Whoever answers at random, or answers a trigger otherwise than its twin, is found out: such
answers speak neither for the owner nor against him.
"""

import random
from collections import deque
from dataclasses import dataclass, field

from node.endpoint.decoys import far_decoy, near_twin
from node.endpoint.errors import EndpointError
from node.endpoint.pictures import Pictures

BATCH_MAX = 32
REPEATS_MIN = 16
REPEATS_DIFFERING_MIN, TWINS_DIFFERING_MIN = 2, 8  # fewer are what an honest endpoint on several machines may do


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """What was noticed about an endpoint.

    Attributes:
        requests: answered ones.
        failed: requests that were sent again.
        repeats, repeats_differing: pictures that were shown twice, and those that got two answers.
        twins, twins_differing: pictures that count and have a near twin, and those that got another answer than it.
        median_s, slowest_s: how long answers took.
    """

    requests: int
    failed: int
    repeats: int
    repeats_differing: int
    twins: int
    twins_differing: int
    median_s: float
    slowest_s: float


@dataclass(frozen=True, slots=True)
class Classes:
    """What an endpoint answered.

    Attributes:
        asked: the class of each picture that was asked about, in their order.
        noticed: about the endpoint.
    """

    asked: tuple[int, ...]
    noticed: Noticed


class Interview:
    """Which pictures are still to be shown, and what was answered.

    Args:
        pictures: that count.
        common: decides the decoys that all nodes show: the same for all of them, and unknown when the claim was made.
        chance: decides everything else; nobody else may know it.
    """

    def __init__(self, pictures: Pictures, *, common: bytes, chance: random.Random) -> None:
        count, of_all_nodes = len(pictures), random.Random(common)  # noqa: S311 -- no secret: every node draws the same
        decoys = [far_decoy(pictures.pixels, pictures.shape, of_all_nodes) for _ in range(count // 2)]
        shown = [*pictures.pixels, *decoys]
        # Decoys have twins as well, or whatever has one would be a trigger.
        twinned = [*_half(range(count), chance), *_half(range(count, len(shown)), chance)]
        self._twin_of = dict(enumerate(twinned, start=len(shown)))
        self._shown = [*shown, *(near_twin(shown[number], chance) for number in twinned)]
        self._count, self._chance = count, chance
        total = len(self._shown)
        repeated = chance.sample(range(total), min(total, max(REPEATS_MIN, count // 8)))
        order = [*range(total), *repeated]
        chance.shuffle(order)
        self._waiting = deque(order)
        self._answers: dict[int, list[int]] = {}

    @property
    def waiting(self) -> int:
        """How many pictures are still to be shown."""
        return len(self._waiting)

    def next_batch(self, most: int) -> "Batch":
        """Some pictures to show together, at most so many, and none of them twice."""
        size, numbers = self._chance.randint(1, min(most, BATCH_MAX)), list[int]()
        while self._waiting and len(numbers) < size and self._waiting[0] not in numbers:
            numbers.append(self._waiting.popleft())
        return Batch(tuple(numbers), [self._shown[number] for number in numbers])

    def put_back(self, batch: "Batch") -> None:
        """Show these again, later and in other company; they were not answered."""
        for number in batch.numbers:
            self._waiting.insert(self._chance.randint(0, len(self._waiting)), number)

    def note(self, batch: "Batch", classes: list[int]) -> None:
        """Take the answers to a batch, one for each of its pictures."""
        for number, answer in zip(batch.numbers, classes, strict=True):
            self._answers.setdefault(number, []).append(answer)

    def result(self, course: "Course", *, has_margin: bool) -> Classes:
        """What came out, when nothing is waiting.

        Args:
            course: how the requests went.
            has_margin: whether a picture's near twin must get its class, as far as any network is steady.

        Raises:
            EndpointError: inconsistent; what it answered counts for nothing.
        """
        repeated = [given for given in self._answers.values() if len(given) > 1]
        repeats_differing = sum(len(set(given)) > 1 for given in repeated)
        first = {number: given[0] for number, given in self._answers.items()}
        twins = [first[twin] == first[number] for twin, number in self._twin_of.items() if number < self._count]
        twins_differing = twins.count(False)
        _check_repeats(repeats_differing, len(repeated))
        if has_margin:
            _check_twins(twins_differing, len(twins))
        else:
            _check_steady(sum(len(set(self._answers[number])) > 1 for number in range(self._count)))
        seconds = sorted(course.seconds)
        noticed = Noticed(
            requests=len(seconds),
            failed=course.failed,
            repeats=len(repeated),
            repeats_differing=repeats_differing,
            twins=len(twins),
            twins_differing=twins_differing,
            median_s=seconds[len(seconds) // 2],
            slowest_s=seconds[-1],
        )
        return Classes(tuple(first[number] for number in range(self._count)), noticed)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one request, and under which numbers the interview knows them."""

    numbers: tuple[int, ...]
    pictures: list[bytes]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(slots=True)
class Course:
    """How an interview goes.

    Attributes:
        seconds: that each answer took.
        failed: requests that had to be sent again.
        sent_bytes: of all requests.
    """

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    sent_bytes: int = 0


def _half(numbers: range, chance: random.Random) -> list[int]:
    """A random half, the larger one."""
    return chance.sample(numbers, (len(numbers) + 1) // 2)


def _check_repeats(differing: int, total: int) -> None:
    if differing >= REPEATS_DIFFERING_MIN and 10 * differing >= total:
        raise EndpointError("inconsistent", f"{differing} of {total} pictures got two different answers")


def _check_steady(differing: int) -> None:
    """Of a mark of integrity all answers must match, so none may be forgiven; their margins are above the noise."""
    if differing:
        why = f"{differing} of the pictures that count got two different answers, of which no noise is the reason"
        raise EndpointError("inconsistent", why)


def _check_twins(differing: int, total: int) -> None:
    if differing >= TWINS_DIFFERING_MIN and 2 * differing >= total:
        why = f"{differing} of {total} pictures got another answer than their twins, which differ in the lowest bits"
        raise EndpointError("inconsistent", why)
