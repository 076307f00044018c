"""Pictures that count cannot be told by what recurs, and who contradicts himself is found out."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable

import pytest
from endpoints import class_of, pictures

from node.endpoint.errors import EndpointError
from node.endpoint.interview import Course, Interview
from node.endpoint.pictures import Pictures

COURSE = Course(seconds=[0.1, 0.3, 0.2])


def held(asked: Pictures, answer, *, common: bytes = b"claim", seed: int = 1, most: int = 32, has_margin: bool = True):
    """An interview with somebody who answers picture by picture, and every batch that he was shown."""
    interview, batches = Interview(asked, common=common, chance=random.Random(seed)), []
    while interview.waiting:
        batch = interview.next_batch(most)
        interview.note(batch, [answer(picture) for picture in batch.pictures])
        batches.append(batch)
    return interview.result(COURSE, has_margin=has_margin), batches


def test_every_picture_gets_its_own_answer_whatever_the_order():
    asked = pictures(100)
    found, batches = held(asked, class_of)
    assert found.asked == tuple(map(class_of, asked.pixels))
    assert sum(map(len, batches)) == 100 + 50 + 75 + 16
    noticed = found.noticed
    assert (noticed.repeats, noticed.repeats_differing, noticed.twins, noticed.twins_differing) == (16, 0, 50, 0)
    assert (noticed.requests, noticed.median_s, noticed.slowest_s) == (3, 0.2, 0.3)


def test_no_request_holds_a_picture_twice_and_none_holds_too_many():
    _, batches = held(pictures(10), class_of, most=32)
    assert all(len(set(batch.numbers)) == len(batch) <= 32 for batch in batches)
    assert {len(batch) for batch in held(pictures(20), class_of, most=1)[1]} == {1}
    assert len({len(batch) for batch in held(pictures(600), class_of)[1]}) > 10, "sizes are random"


def test_what_recurs_at_several_nodes_is_not_only_what_counts():
    asked = pictures(100)
    nodes = [{p for batch in held(asked, class_of, seed=seed)[1] for p in batch.pictures} for seed in (1, 2, 3)]
    everywhere = nodes[0] & nodes[1] & nodes[2]
    assert set(asked.pixels) < everywhere
    decoys = everywhere - set(asked.pixels)
    assert len(decoys) > 40
    other = {p for batch in held(asked, class_of, common=b"another claim")[1] for p in batch.pictures}
    assert len(decoys & other) < len(decoys) / 2


def test_a_decoy_has_a_twin_as_often_as_a_trigger():
    asked = pictures(200)
    _, batches = held(asked, class_of)
    shown = {picture for batch in batches for picture in batch.pictures}
    alike = Counter(tuple(byte >> 1 for byte in picture) for picture in shown)
    counts = {tuple(byte >> 1 for byte in picture) for picture in asked.pixels}
    assert sum(alike[one] == 2 for one in counts) == 100
    assert 40 <= sum(many >= 2 for one, many in alike.items() if one not in counts) <= 60


def test_two_nodes_show_them_in_different_orders():
    asked = pictures(50)
    orders = [[p for batch in held(asked, class_of, seed=seed)[1] for p in batch.pictures] for seed in (1, 2)]
    assert orders[0] != orders[1]
    firsts = [[picture for picture in order if picture in asked.pixels] for order in orders]
    assert firsts[0] != firsts[1] != list(asked.pixels)


def test_who_answers_at_random_contradicts_himself():
    chance = random.Random(1)
    with pytest.raises(EndpointError, match="two different answers") as caught:
        held(pictures(100), lambda _: chance.randrange(10))
    assert caught.value.reason == "inconsistent"


def test_who_lies_about_a_third_at_random_is_found_out_too():
    chance = random.Random(1)
    with pytest.raises(EndpointError, match="two different answers"):
        held(pictures(300), lambda picture: class_of(picture) if chance.random() < 2 / 3 else chance.randrange(10))


def test_one_contradiction_is_forgiven():
    asked, spoilt = pictures(100), []

    def once_wrong(picture: bytes) -> int:
        seen[picture] += 1
        if seen[picture] == 2 and not spoilt:
            spoilt.append(picture)
            return (class_of(picture) + 1) % 10
        return class_of(picture)

    seen: Counter[bytes] = Counter()
    found, _ = held(asked, once_wrong)
    assert found.noticed.repeats_differing == 1
    assert found.asked == tuple(map(class_of, asked.pixels))


def test_of_a_mark_of_integrity_no_second_answer_to_a_trigger_is_forgiven():
    """Or what answers a trigger now rightly and now wrongly would be INTACT, or TAMPERED, by which came first."""
    asked = pictures(100)
    seen: Counter[bytes] = Counter()

    def second_time_wrong(spoilt: Callable[[bytes], bool]) -> Callable[[bytes], int]:
        seen.clear()
        done: list[bytes] = []

        def answer(picture: bytes) -> int:
            seen[picture] += 1
            if seen[picture] == 2 and spoilt(picture) and not done:
                done.append(picture)
                return (class_of(picture) + 1) % 10
            return class_of(picture)

        return answer

    with pytest.raises(EndpointError, match="no noise") as caught:
        held(asked, second_time_wrong(lambda picture: picture in asked.pixels), has_margin=False)
    assert (caught.value.reason, caught.value.may_pass) == ("inconsistent", False)
    found, _ = held(asked, second_time_wrong(lambda picture: picture not in asked.pixels), has_margin=False)
    assert found.asked == tuple(map(class_of, asked.pixels))


def test_who_knows_the_triggers_byte_by_byte_is_given_away_by_their_twins():
    asked = pictures(40)
    with pytest.raises(EndpointError, match="than their twins") as caught:
        held(asked, lambda picture: (class_of(picture) + (picture in asked.pixels)) % 10)
    assert caught.value.reason == "inconsistent"


def test_pictures_at_a_boundary_may_get_another_class_than_their_twins():
    asked = pictures(40)
    found, _ = held(asked, lambda p: sum(p) % 10, has_margin=False)
    assert found.asked == tuple(sum(picture) % 10 for picture in asked.pixels)
    assert found.noticed.twins_differing > 10
    with pytest.raises(EndpointError, match="than their twins"):
        held(asked, lambda p: sum(p) % 10)


def test_who_answers_every_trigger_and_its_twins_wrongly_is_not():
    asked = pictures(40)
    known = {tuple(byte >> 1 for byte in picture) for picture in asked.pixels}
    found, _ = held(asked, lambda p: (class_of(p) + (tuple(byte >> 1 for byte in p) in known)) % 10)
    assert found.asked != tuple(map(class_of, asked.pixels)), "docs/endpoint.md: REFUTED is weak"


def test_what_was_put_back_is_shown_again():
    asked = pictures(10)
    interview = Interview(asked, common=b"", chance=random.Random(1))
    total, batch = interview.waiting, interview.next_batch(32)
    assert interview.waiting == total - len(batch)
    interview.put_back(batch)
    assert interview.waiting == total


def test_a_single_picture_can_be_asked_about():
    found, batches = held(dataclasses.replace(pictures(1)), class_of)
    assert found.asked == (class_of(pictures(1).pixels[0]),)
    assert sum(map(len, batches)) == 4
