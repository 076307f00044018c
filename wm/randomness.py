"""Every random number of the library comes from a seed that the caller gave.

Sampling uses explicit generators, one per purpose, so that drawing more numbers for one purpose never
shifts another. Initialising a torch module cannot take a generator, so `seeded` scopes torch's global one:
the only place that touches it.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def seed_of(*parts: int | str | bytes) -> int:
    """Hash parts into a seed, so that nearby seeds and different purposes are unrelated.

    Args:
        parts: integers, text and bytes; each is hashed with its type and its length.

    Returns:
        An integer in [0, 2^63).
    """
    return int.from_bytes(key_of(*parts)[:8], "big") >> 1


def key_of(*parts: int | str | bytes) -> bytes:
    """Hash parts into 32 bytes, as `seed_of` does."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else str(part).encode()
        digest.update(f"{type(part).__name__}:{len(encoded)}:".encode() + encoded)
    return digest.digest()


def generator(*parts: int | str | bytes) -> torch.Generator:
    """Make a CPU generator seeded by `seed_of(*parts)`."""
    made = torch.Generator()
    made.manual_seed(seed_of(*parts))
    return made


@contextlib.contextmanager
def seeded(*parts: int | str | bytes, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator, and that of a GPU, inside the block and restore them afterwards.

    Modules are initialised on the CPU whatever device they end on, so that one seed means one set of
    weights everywhere; what draws on its own device is dropout.
    """
    index = None
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
    with torch.random.fork_rng(devices=[] if index is None else [index]):
        torch.default_generator.manual_seed(seed_of(*parts))
        if index is not None:
            torch.cuda.default_generators[index].manual_seed(seed_of(*parts))
        yield


def global_generators(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global generators: of the CPU and, for a GPU, of that."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def set_global_generators(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Put torch's global generators back to states of `global_generators`; call it within `seeded`.

    Raises:
        RuntimeError: one is no state of a generator.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


class EndlessOrder:
    """Batches of indices for ever, pass by pass in a fresh order; it can be put back to where it was.

    Args:
        total: how many there are to order, at least 1.
        batch: indices in a batch.
        order: draws the orders.
        only_full: whether a shorter last batch of a pass is left out, unless all are fewer than one batch.
    """

    def __init__(self, total: int, batch: int, order: torch.Generator, *, only_full: bool = False) -> None:
        self._total, self._batch, self._order = total, batch, order
        self._least = min(batch, total) if only_full else 1
        self._shuffle()

    def __iter__(self) -> Iterator[Tensor]:
        """Return itself: there is one order."""
        return self

    def __next__(self) -> Tensor:
        """Return the next batch, int64, shape (batch,) or less."""
        if self._position == len(self._batches):
            self._shuffle()
        self._position += 1
        return self._batches[self._position - 1]

    def state(self) -> dict[str, Tensor]:
        """Return how the present pass began and how far it is."""
        return {"began": self._began, "position": torch.tensor(self._position)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state of an order of as many.

        Raises:
            RuntimeError: `began` is no state of a generator.
        """
        self._order.set_state(state["began"])
        self._shuffle()
        self._position = int(state["position"])

    def _shuffle(self) -> None:
        self._began = self._order.get_state()
        batches = torch.split(torch.randperm(self._total, generator=self._order), self._batch)
        self._batches = [indices for indices in batches if len(indices) >= self._least]
        self._position = 0
