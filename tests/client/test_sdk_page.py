"""Promised: what docs/sdk.md, README.md and the package itself show of the SDK runs as it stands and is true."""

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from marked import make_marked

import client
from client import Bundle, Outcome, create_signing_key, verify
from client.keystore import create_watermark_key, save_watermark_key

ROOT = Path(__file__).parents[2]
PAGE, README = ROOT / "docs" / "sdk.md", ROOT / "README.md"
ORIGIN = "test.example/ledger"


def blocks(page: Path) -> list[str]:
    """The Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def in_docstring() -> str:
    """The example in the package's docstring."""
    found = re.search(r"::\n\n(    from client import.*?)\n\n`Client`", client.__doc__, flags=re.DOTALL)
    return inspect.cleandoc(found[1])


def run(code: list[str]) -> dict[str, object]:
    """Run blocks one after another; the names that they leave."""
    names: dict[str, object] = {"__name__": "sdk_page"}
    for block in code:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 -- our own page
    return names


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the working directory that the page asks for."""

    def make(policy: Path, key: Path, bundle: Path, suspect: Path) -> None:
        directory = tmp_path / "work"
        (directory / "ledger").mkdir(parents=True)
        shutil.copy(policy, directory / "ledger" / "policy.txt")
        shutil.copy(key, directory / "signing_key.pem")
        shutil.copytree(bundle, directory / "mymodel")
        shutil.copy(suspect, directory / "suspect.safetensors")
        monkeypatch.chdir(directory)

    return make


def assert_done(names: dict[str, object], printed: str) -> None:
    """What the page promises of its examples."""
    assert names["published"].index == 1
    assert names["status"].prevails
    assert "entry 1, receipt mymodel/receipt.tlog-proof" in printed
    assert "for the court: mymodel/certificate.json" in printed
    assert names["kinds"][:1] in (["genesis"], ["entry"])
    assert "(2, ('model_sha256',)" in printed or "2 ('model_sha256',) claim" in printed
    assert "not_found" in printed
    assert sorted(event["event"] for event in names["taken"].values())[:2] == ["claim", "publish"]
    assert printed.count("publishes a model with a mtlsign mark [") == 1
    assert verify("mymodel/certificate.json", "ledger/policy.txt").proven.outcome is Outcome.VERIFIED


def test_the_page_runs(ledger, alice, stolen, good, place, capsys):
    ledger.voting = (good, 3)
    place(ledger.policy_path, alice.key, alice.directory, stolen)

    assert_done(run(blocks(PAGE)), capsys.readouterr().out)


def test_the_page_stops_where_the_claim_is_lost(ledger, alice, stolen, poor, place):
    ledger.voting = (poor, 3)
    place(ledger.policy_path, alice.key, alice.directory, stolen)

    with pytest.raises(AssertionError):
        run(blocks(PAGE))


@pytest.mark.parametrize("code", [blocks(README), [in_docstring()]], ids=["README", "package"])
def test_the_short_examples_run(  # noqa: PLR0917 -- pytest's fixtures
    ledger, alice, stolen, good, place, capsys, code
):
    ledger.voting = (good, 3)
    place(ledger.policy_path, alice.key, alice.directory, stolen)

    assert run(code)["status"].prevails
    assert "True VERIFIED" in capsys.readouterr().out


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)  # on a machine that has more to do
def test_the_page_runs_with_three_real_nodes(tmp_path, place, capsys):
    bundle, key = Bundle(tmp_path / "own"), tmp_path / "key.pem"
    bundle.directory.mkdir()
    key_file = create_watermark_key(create_signing_key(key), origin=ORIGIN)
    save_watermark_key(bundle.watermark_key, key_file)
    make_marked(bundle.directory, key_file.binding.watermark_key)
    with Cluster.make(tmp_path / "cluster", origin=ORIGIN) as cluster:
        place(cluster.policy_path, key, bundle.directory, bundle.model)
        names = run(blocks(PAGE))

    assert_done(names, capsys.readouterr().out)
    assert names["kinds"][:3] == ["genesis", "publish", "claim"]
    assert [vote.matched >= 540 for vote in names["status"].state.votes] == [True] * 3
