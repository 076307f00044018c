"""Every random number of the library comes from a seed that the caller gave.

Sampling uses explicit generators, one per purpose, so that drawing more numbers for one purpose never
shifts another. Initialising a torch module cannot take a generator, so `seeded` scopes torch's global one:
the only place that touches it.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


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
