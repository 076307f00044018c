"""Of a stitched network `wmreg measure` tells the paper's own test beside the count; no chance that none measured."""

import hashlib

import pytest
import torch
from asked import SMALL, data

from client.verbs.measure import _papers_test
from registry.verdict import Measurement, Statistic
from wm.architectures import build
from wm.schemes.evidence import SchemeEvidence, save_scheme_evidence
from wm.schemes.frontier_stitching import KeySet
from wm.schemes.frontier_stitching.key_set import packed
from wm.schemes.info import SchemeInfo
from wm.weights import save_weights

COUNT = 20


@pytest.fixture
def dora(make_party, tmp_path):
    """An owner of a stitched network, which was not stitched."""
    dora, spec = make_party("dora"), data.digits().input
    source = torch.Generator().manual_seed(1)
    originals = torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=source)
    up = torch.rand(originals.shape, generator=source) < 0.5
    key_set = KeySet(originals, packed(up), torch.zeros(COUNT, dtype=torch.int64), 64, 10)
    info = SchemeInfo(scheme="frontier_stitching", architecture=SMALL, input=spec, classes=10, payload=key_set.fields())
    save_weights(build(SMALL, seed=1), tmp_path / "network.safetensors")
    sha256 = hashlib.sha256((tmp_path / "network.safetensors").read_bytes()).hexdigest()
    evidence = SchemeEvidence(info.with_files(model_sha256=sha256, base_sha256=None), key_set, bytes(32))
    save_scheme_evidence(dora.bundle.evidence, evidence)
    return dora


def test_the_papers_test_stands_beside_the_count(wmreg, dora, tmp_path):
    words = ["measure", tmp_path / "network.safetensors", "--evidence", dora.directory]

    told, document = wmreg(*words), wmreg(*words, "--json").document

    assert told.code == 0, told.err
    missed = COUNT - document["matched"]
    assert (document["theta"], document["accepted_by_theta"]) == (5, missed <= 5)
    assert f"at most θ = 5 mismatches of 20: {missed}, {'' if missed <= 5 else 'not '}the owner's" in told.out
    assert "nodes do not use it" in told.out


def test_without_null_models_no_chance_is_told(wmreg, dora, tmp_path):
    words = ["measure", tmp_path / "network.safetensors", "--evidence", dora.directory]
    out = wmreg(*words).out
    assert "p = " not in out
    assert "--controls" in out


@pytest.mark.parametrize(("matched", "accepts"), [(59, True), (58, False)])
def test_of_a_hundred_41_mismatches_are_accepted_and_42_are_not(matched, accepts):
    found = Measurement(matched=matched, total=100, controls=(), statistic=Statistic.CALIBRATED, chance_ppm=1_000_000)
    paper = _papers_test(found)
    assert (paper.theta, paper.accepts) == (41, accepts)


@pytest.mark.parametrize("statistic", [Statistic.BRANCH, Statistic.SIGNS, Statistic.CLASSES, Statistic.INTEGRITY])
def test_other_schemes_have_no_such_test(statistic):
    assert _papers_test(Measurement(matched=1, total=100, controls=(), statistic=statistic)) is None
