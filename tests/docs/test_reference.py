"""The reference pages are what the command and the API say of themselves today; `make docs` makes them again."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import client
from client.command import VERBS
from node.api.openapi import PATHS

DOCS = Path(__file__).parents[2] / "docs"


def tool(name: str) -> ModuleType:
    """A program of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def command_page() -> str:
    return tool("command_page").render()


def test_the_commands_page_is_up_to_date(command_page: str):
    assert (DOCS / "reference" / "command.md").read_text() == command_page, "run make docs"


def test_every_verb_and_the_verbs_below_it_are_told(command_page: str):
    assert [name for name in VERBS if f"\n## wmreg {name}\n" not in command_page] == []
    assert "\n### wmreg node backup\n" in command_page
    assert "\n#### wmreg node member sign\n" in command_page


def test_the_apis_page_and_description_are_up_to_date():
    made = tool("api_page")
    assert (DOCS / "reference" / "api.md").read_text() == made.render(), "run make docs"
    assert (DOCS / "reference" / "openapi.json").read_text() == made.describe(), "run make docs"


def test_the_sdks_page_is_up_to_date_and_tells_every_name():
    page = (DOCS / "reference" / "sdk.md").read_text()
    assert page == tool("sdk_page").render(), "run make docs"
    headings = {line.lstrip("# ") for line in page.splitlines() if line.startswith("#")}
    assert set(client.__all__) <= headings


def test_every_operation_is_told():
    page = (DOCS / "reference" / "api.md").read_text()
    operations = [(method.upper(), path) for path, methods in PATHS.items() for method in methods]
    assert [one for one in operations if f"### {one[0]} `{one[1]}`" not in page] == []
