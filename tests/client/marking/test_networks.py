"""Promised: networks of every kind are marked by the command, where the owner says or where the catalogue does."""

import json

import pytest

from client.bundle import Bundle
from client.keystore import create_signing_key, create_watermark_key
from client.marking.embedding import embed
from client.marking.measuring import Trial, measure
from client.marking.task import Task
from client.verbs.embed import _changes
from registry.policy import Thresholds
from registry.verdict import Outcome, judge
from wm import EmbedSettings

pytestmark = pytest.mark.long

TASK = Task(data="digits", fraction=0.06, arch="shufflenet_v2_x0_5", weights=None, seed=1, epochs=0, device="cpu")
QUICK = EmbedSettings(pooling=2, hidden=32, shadows=0, steps=2, head_steps=20, feature_noise=0)


@pytest.fixture
def embedding(tmp_path):
    """Embed quickly, with changes of the recipe."""
    key_file = create_watermark_key(create_signing_key(tmp_path / "key.pem"), origin="test.example/ledger")

    def make(**changes):
        made = embed(TASK, [key_file], settings=QUICK, changes=changes, show=lambda *_progress: None)
        return made.embeddings[0]

    return make


def test_the_options_change_the_recipe_and_nothing_else():
    assert _changes("layer1,layer2.0", 4.0) == {"taps": ("layer1", "layer2.0"), "lambda1": 0.25}
    assert _changes(None, None) == {}


def test_a_mark_is_read_where_the_owner_says_and_else_at_the_usual_taps(embedding):
    assert embedding(taps=("conv1", "stage3")).info.modules == ("conv1", "stage3")
    assert embedding().info.modules == ("maxpool", "stage2", "stage3")


def test_a_smaller_theta_keeps_the_weights_nearer_to_where_they_were(embedding):
    moved = [embedding(**_changes(None, theta)).report["weight_change"] for theta in (1e-5, 1e5)]
    assert moved[0] < moved[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), [("mobilenet_v3_small", ()), ("squeezenet1_1", ("--lr", 3e-4))])
def test_a_network_without_the_papers_taps_is_marked_by_the_command_and_verified(
    wmreg, ledger, alice, tmp_path, name, words
):
    made = wmreg(
        "embed", "--arch", name, *words, "--out", tmp_path / "out", "--signing-key", alice.key,
        "--policy", ledger.policy_path, "--device", "cpu", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err

    bundle = Bundle(tmp_path / "out")
    found = measure(bundle.model, bundle, Trial(controls=True, device="cpu"), lambda *_progress: None)

    report = json.loads(bundle.report.read_text())
    assert min(report["test_accuracy"].values()) > 0.5
    assert found.matched == report["matched"]["marked"]
    assert judge(found, Thresholds()) == (Outcome.VERIFIED, "matched")
