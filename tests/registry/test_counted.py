"""Promised: evidence of integrity cannot accuse the very file that it names, and whatever else it accuses it can."""

import dataclasses
import json

import pytest
from fakes import good_measurement

from registry.counted import accuses_itself
from registry.evidence import EvidenceFile
from registry.verdict import Measurement, Statistic

FILE = bytes(range(32))


def measured(statistic: Statistic, matched: int) -> Measurement:
    branch = good_measurement(matched)
    return dataclasses.replace(
        branch, statistic=statistic, permutations=0, permutations_as_good=0, controls=(), chance_ppm=500_000
    )


def naming(sha256: bytes | None) -> EvidenceFile:
    info = json.dumps({"model_sha256": None if sha256 is None else sha256.hex()}).encode()
    return EvidenceFile(tensors=(), salt=bytes(32), info=info)


@pytest.mark.parametrize(
    ("statistic", "matched", "named", "accuses"),
    [
        (Statistic.INTEGRITY, 599, FILE, True),
        (Statistic.INTEGRITY, 600, FILE, False),
        (Statistic.INTEGRITY, 599, bytes(32), False),
        (Statistic.INTEGRITY, 599, None, False),
        (Statistic.CLASSES, 100, FILE, False),
    ],
)
def test_evidence_of_integrity_contradicts_itself_on_the_file_that_it_names(
    statistic: Statistic, matched: int, named: bytes | None, accuses: bool
) -> None:
    assert accuses_itself(measured(statistic, matched), naming(named), FILE) is accuses
