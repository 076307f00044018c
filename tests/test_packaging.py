"""The distribution and its four import names."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["registry", "node", "client", "wm"])
def test_no_other_distribution_claims_our_import_names(name):
    assert set(packages_distributions().get(name, [])) <= {"wmreg"}


def test_every_dependency_is_explained_in_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    names = [requirement.split(">")[0].split("=")[0] for requirement in project["dependencies"]]
    table = readme[readme.index("## Dependencies") :]
    assert [name for name in names if name not in table] == []


def test_the_constraints_pin_every_direct_dependency_and_name_no_host():
    text = (ROOT / "constraints.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower() for line in text.splitlines()}
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {requirement.split(">")[0].split("=")[0].lower() for requirement in wanted}
    assert names <= pinned
    assert "://" not in text


def test_the_command_starts_without_torch_aiohttp_or_rich():
    code = (
        "import sys, client.command; print([m for m in ('torch', 'aiohttp', 'rich', 'wm', 'node') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
