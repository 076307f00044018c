"""Promised: seeds decide everything, and nothing outside a block notices."""

import torch

from wm.randomness import generator, key_of, seed_of, seeded


def test_parts_of_another_type_or_order_give_another_seed() -> None:
    assert len({seed_of(1), seed_of("1"), seed_of(b"1"), seed_of(1, 2), seed_of(2, 1), seed_of(12)}) == 6


def test_equal_parts_give_equal_seeds_and_keys() -> None:
    assert seed_of("a", 1) == seed_of("a", 1)
    assert key_of("a", 1) == key_of("a", 1)
    assert len(key_of("a")) == 32


def test_generators_of_different_purposes_are_unrelated() -> None:
    first, again, other = (torch.rand(4, generator=generator(*parts)) for parts in ((1, "a"), (1, "a"), (1, "b")))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_as_it_was_after_the_block() -> None:
    before = torch.get_rng_state()
    with seeded(3):
        inside = torch.rand(2)
    with seeded(3):
        again = torch.rand(2)
    assert torch.equal(inside, again)
    assert torch.equal(torch.get_rng_state(), before)
