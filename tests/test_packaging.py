"""The distribution, its extras and its import names."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

import wmreg
from client.extras import EXTRAS

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = re.compile(r"wmreg\[\w+\]")  # an extra that another one has in it
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "prometheus_client": "prometheus-client"}


def names_of(requirements: list[str]) -> list[str]:
    return [re.split("[>=]", line)[0] for line in requirements if not OURS.fullmatch(line)]


@pytest.mark.parametrize("name", [*wmreg.NAMES, "wmreg"])
def test_no_other_distribution_claims_our_import_names(name):
    assert set(packages_distributions().get(name, [])) <= {"wmreg"}


def test_every_dependency_is_explained_in_the_readme_with_the_extra_that_it_is_in():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## Dependencies") :]
    rows = {cells[1].strip(): cells[2].strip() for line in table.splitlines() if len(cells := line.split("|")) > 3}
    told = {name: extra for names, extra in rows.items() for name in names.split(", ")}
    extras = {name: extra for extra in EXTRAS for name in names_of(PROJECT["optional-dependencies"][extra])}
    wanted = dict.fromkeys(names_of(PROJECT["dependencies"]), "–") | extras
    assert {name: told.get(name) for name in wanted} == wanted


def test_the_constraints_pin_every_direct_dependency_and_name_no_host():
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower() for line in text.splitlines()}
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    assert {name.lower() for name in names_of(wanted)} <= pinned
    assert "://" not in text


def test_the_command_knows_what_each_extra_brings():
    for extra, imported in EXTRAS.items():
        distributions = {DISTRIBUTIONS.get(name, name) for name in imported}
        assert distributions == set(names_of(PROJECT["optional-dependencies"][extra]))


def test_a_node_measures_too_and_development_has_everything():
    assert "wmreg[wm]" in PROJECT["optional-dependencies"]["node"]
    assert "wmreg[node]" in PROJECT["optional-dependencies"]["dev"]


def test_the_command_starts_without_torch_aiohttp_or_rich():
    code = (
        "import sys, client.command; print([m for m in ('torch', 'aiohttp', 'rich', 'wm', 'node') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def start(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Start the command with a directory in front of all others."""
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", "import sys; from wmreg import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/", timeout=60)


def test_the_command_starts_with_its_own_packages(tmp_path):
    assert start("--version", path=tmp_path).stdout.startswith("wmreg")


@pytest.mark.parametrize("name", wmreg.NAMES)
def test_a_package_of_our_name_that_is_found_first_is_named_and_not_run(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger ran')")

    done = start("--version", path=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"the import name {name} is taken: {tmp_path}/{name}/__init__.py" in done.stderr
    assert "environment of its own" in done.stderr


def test_a_distribution_that_installed_files_over_ours_is_named(monkeypatch):
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"client": ["wmreg", "other-client"]})

    assert wmreg.shared() == "the distribution other-client has installed a package client over wmreg's own"

    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"client": ["wmreg"], "Client": ["x"]})

    assert wmreg.shared() is None
