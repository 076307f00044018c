"""Links lead somewhere, command lines are ones that the command takes, and the site builds and asks nobody else."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from client.command import wmreg

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
CONSOLE = re.compile(r"^```console\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by, as both the site and code hosts spell it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_its_anchor_to_a_heading(page: Path):
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def command_lines(page: Path) -> list[str]:
    """The lines of console blocks that run wmreg: those behind a prompt, where the block has one, or else all."""
    joined = [re.sub(r"\\\n\s*", "", block) for block in CONSOLE.findall(page.read_text())]
    lines = []
    for block in joined:
        typed = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        lines += typed or block.splitlines()
    return [line for line in lines if line.startswith("wmreg ")]


def assert_taken(line: str) -> None:
    """Follow a command line through the command's own verbs and options.

    Raises:
        AssertionError: a verb or an option that there is not.
    """
    words = shlex.split(re.split(r"[|;&>]", line)[0], comments=True)[1:]
    command: click.Command = wmreg
    context = click.Context(command, info_name="wmreg")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    known = {name for parameter in command.get_params(context) for name in [*parameter.opts, *parameter.secondary_opts]}
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    assert [option for option in options if option not in known] == [], line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_one_that_the_command_takes(page: Path):
    for line in command_lines(page):
        assert_taken(line)


def test_a_made_up_option_would_be_found():
    assert_taken("wmreg node backup /var/lib/wmreg/node-1 /backup --with-keys")
    with pytest.raises(AssertionError):
        assert_taken("wmreg node backup /var/lib/wmreg/node-1 /backup --with-uploads")
    with pytest.raises(AssertionError):
        assert_taken("wmreg node bakcup a b")


@pytest.mark.slow
def test_the_site_builds_strictly_and_no_page_asks_another_host(tmp_path: Path):
    if find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 15
    for page in pages:
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(https?:[^\"\s>]+)", page.read_text())
        fetched += re.findall(
            r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(https?:[^\"\s>]+)", page.read_text()
        )
        assert fetched == [], page
    shutil.rmtree(tmp_path / "site")
