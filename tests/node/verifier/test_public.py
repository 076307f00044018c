"""Public models that are no controls are said by the latest claim on their architecture, and counted over all."""

import dataclasses

from fakes import good_measurement

from node.verifier.protocol import Answer, unmeasured
from node.verifier.public import ARCHITECTURES_MAX, PublicModels
from registry.verdict import Outcome

MEASURED = Answer(measurement=good_measurement(), outcome=None, reason="", detail="", device="cpu", software="")


def noted(*found: tuple[str, int]) -> PublicModels:
    public = PublicModels()
    for architecture, count in found:
        public.note(dataclasses.replace(MEASURED, architecture=architecture, unusable_public=count))
    return public


def test_the_latest_claim_on_an_architecture_says_what_does_not_fit():
    public = noted(("resnet18", 2), ("vgg11", 1), ("resnet18", 1))
    assert (public.unusable, public.unusable_total) == ({"vgg11": 1, "resnet18": 1}, 4)


def test_a_file_that_was_mended_is_not_said_any_more():
    public = noted(("resnet18", 2), ("resnet18", 0))
    assert (public.unusable, public.unusable_total) == ({}, 2)


def test_a_claim_that_came_to_no_controls_says_nothing():
    public = noted(("resnet18", 2))
    public.note(unmeasured(Outcome.UNVERIFIABLE, "malformed"))
    public.note(MEASURED)
    assert (public.unusable, public.unusable_total) == ({"resnet18": 2}, 2)


def test_no_process_can_name_any_number_of_architectures():
    public = noted(*((f"net{number}", 1) for number in range(ARCHITECTURES_MAX + 5)))
    assert list(public.unusable) == [f"net{number}" for number in range(5, ARCHITECTURES_MAX + 5)]
