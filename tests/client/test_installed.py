"""Promises: the package holds what it must; the client alone verifies, publishes and claims, and names what it lacks.

Everything runs in an environment that has the client's own requirements and nothing besides: no torch, no numpy.
"""

import json
import tarfile
import zipfile
from pathlib import Path

import installed
import pytest
from installed import ROOT, Environment

GOLDEN = ROOT / "tests" / "vectors" / "golden" / "v1"
PACKAGES = ("registry", "node", "client", "wm")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return installed.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def alone(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, installed without any extra."""
    return installed.client_alone(tmp_path_factory.mktemp("alone"), built[1])


def ours() -> set[str]:
    """Every file of the packages, as the checkout has them."""
    files = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    names = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    return names | {"wmreg.py"}


def test_the_wheel_holds_the_packages_and_nothing_besides(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read("wmreg-0.1.0.dist-info/METADATA").decode()
    told = {name for name in names if not name.startswith("wmreg-0.1.0.dist-info/")}
    assert told == ours()
    assert {f"{name}/py.typed" for name in PACKAGES} <= told
    assert {"node/explorer/templates/base.html", "node/explorer/static/style.css"} <= told
    assert "wmreg-0.1.0.dist-info/licenses/LICENSE" in names
    assert "Provides-Extra: wm\n" in metadata
    assert "Requires-Dist: torch" in metadata


def test_the_sdist_holds_what_the_wheel_is_made_of_and_no_tests(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if not sdist.getmember(name).isdir()}
    made = {"PKG-INFO", "setup.cfg"}
    told = {name for name in names - made if not name.startswith("wmreg.egg-info/")}
    files = {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"}
    assert told == ours() | files


def test_the_client_needs_nothing_heavy(built):
    names = {found.metadata["Name"].lower() for found in installed.closure(installed.requirements_in(built[1]))}

    assert {"aiohttp", "pynacl", "safetensors"} <= names
    assert not names & {"torch", "numpy", "scipy", "matplotlib", "pysyncobj", "jinja2", "pillow"}
    assert len(names) <= 25


def test_the_command_runs(alone):
    assert alone.wmreg("--version").stdout == "wmreg 0.1.0\n"
    shown = alone.wmreg("--help")
    assert shown.returncode == 0
    assert "publish" in shown.stdout


@pytest.mark.parametrize("name", ["certificate.json", "receipt.tlog-proof"])
def test_proofs_of_a_past_release_are_verified_offline_and_damaged_ones_are_not(alone, name, tmp_path):
    damaged = tmp_path / name
    content = (GOLDEN / name).read_bytes()
    damaged.write_bytes(content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :])

    done = alone.wmreg("verify", GOLDEN / name, "--policy", GOLDEN / "policy.txt", "--json")
    refused = alone.wmreg("verify", damaged, "--policy", GOLDEN / "policy.txt", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["remarks"] == []
    assert refused.returncode in {1, 3}
    assert set(json.loads(refused.stdout)["error"]) == {"code", "message"}


def owned_by(party, ledger) -> dict[str, str]:
    """The environment of an owner, whose memory knows no other test's ledger of the same name."""
    who = {"WMREG_POLICY": str(ledger.policy_path), "WMREG_SIGNING_KEY": str(party.key)}
    return who | {"WMREG_HOME": str(party.directory.with_name("home"))}


def test_the_life_of_a_publication_without_torch(alone, ledger, alice, good, tmp_path):
    where = owned_by(alice, ledger)
    other = tmp_path / "other.safetensors"
    other.write_bytes(alice.model.read_bytes() + b"\0")

    published = alone.wmreg("publish", alice.directory, "--json", **where)
    assert published.returncode == 0, published.stderr + published.stdout
    digest = json.loads(published.stdout)["message_hash"]
    for words in (["show", digest], ["search", digest], ["log"], ["audit"]):
        assert alone.wmreg(*words, **where).returncode == 0, words
    assert alone.wmreg("verify", alice.bundle.receipt, **where).returncode == 0
    ledger.voting = (good, 3)
    claimed = alone.wmreg("claim", alice.model, "--evidence", alice.directory, "--stragglers-s", "0", **where)
    assert claimed.returncode == 0, claimed.stderr
    assert alone.wmreg("verify", alice.bundle.certificate, **where).returncode == 0
    assert alone.wmreg("claim", other, "--evidence", alice.directory, **where).returncode == 1
    withdrawn = alone.wmreg("withdraw", digest, "--reason", "to see whether it works", **where)
    assert withdrawn.returncode == 0, withdrawn.stderr


TORCH = "this needs torch, which is not installed; run: pip install 'wmreg[wm]'"
NODE = "which is not installed; run: pip install 'wmreg[node]'"
LACKING = [
    (["train", "--out", "{tmp}/w"], "this needs torch, which is not installed; run: pip install 'wmreg[wm]'"),
    (["embed", "--out", "{tmp}/e"], "this needs torch, which is not installed; run: pip install 'wmreg[wm]'"),
    (
        ["measure", "{model}", "--evidence", "{bundle}"],
        "this needs torch, which is not installed; run: pip install 'wmreg[wm]'",
    ),
    (
        ["attack", "{bundle}", "--attack", "all", "--data", "digits"],
        "this needs torch, which is not installed; run: pip install 'wmreg[wm]'",
    ),
    (
        ["serve-model", "{model}", "--evidence", "{bundle}"],
        "this needs torch, which is not installed; run: pip install 'wmreg[wm]'",
    ),
    (["audit", "--recompute", "100%"], NODE),
    (["claim", "https://host.example/v2/models/m", "--endpoint", "--evidence", "{bundle}"], NODE),
    (["demo", "--report", "{tmp}/r"], NODE),
    (["cluster", "init", "{tmp}/c", "--origin", "example.org/x"], NODE),
    (["node", "run", "{bundle}"], NODE),
    (["node", "init", "{tmp}/n", "--name", "n"], NODE),
]


@pytest.mark.parametrize(("words", "needle"), LACKING, ids=[words[0] for words, _ in LACKING])
def test_a_verb_that_needs_more_says_what_to_install(alone, ledger, alice, tmp_path, words, needle):
    (alice.directory / "node.toml").touch()
    (alice.directory / "report.json").write_text('{"data": "digits"}')
    where = owned_by(alice, ledger)
    if words[0] == "claim":
        assert alone.wmreg("publish", alice.directory, **where).returncode == 0
    said = [word.format(tmp=tmp_path, model=alice.model, bundle=alice.directory) for word in words]

    done, as_json = alone.wmreg(*said, **where), alone.wmreg(*said, "--json", **where)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert needle in done.stderr
    assert as_json.returncode == 2
    if words[:2] != ["node", "run"]:  # it has no --json: its log is JSON
        assert json.loads(as_json.stdout)["error"]["code"] == "not_installed"


def test_a_distribution_that_overwrote_one_of_our_modules_is_named(built, tmp_path):
    environment = installed.client_alone(tmp_path / "venv", built[1])
    (environment.packages / "client" / "transport.py").write_text("Client = None\n")
    other = environment.packages / "some_client-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: some-client\nVersion: 1.0\n")
    (other / "RECORD").write_text("client/transport.py,,\n")

    done = environment.wmreg("log", "--policy", GOLDEN / "policy.txt")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the distribution some-client has installed a package client over wmreg's own" in done.stderr
