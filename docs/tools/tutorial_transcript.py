"""Plays docs/tutorial.md on this machine and puts what the commands print into it.

`PYTHONPATH=. .venv/bin/python docs/tools/tutorial_transcript.py`, in the checkout. Every command of the page is run by
one shell, in a fresh clone of the last commit and with a home of its own, from `python3 -m venv` to the audit. A
command that shows no output on the page goes on showing none. Takes minutes, and says on the page how many: run it on
a machine that does nothing else.
"""

import json
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.results import machine

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
TOOK = re.compile(r"(?<=<!-- took -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
HASH = re.compile(r"\b[0-9a-f]{64}\b")
READY_TIMEOUT_S = 120
WIDTH = 119
_END = "the end of this command"


class Player:
    """A shell in a fresh clone that remembers variables and jobs from one command to the next."""

    def __init__(self, directory: Path) -> None:
        clone, self.home = directory / "wmreg", directory / "home"
        subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(clone)], check=True)
        self.home.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WMREG", "VIRTUAL_ENV"))}
        cache = inherited.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=clone,
            env=inherited | {"HOME": str(self.home), "PIP_CACHE_DIR": cache, "PIP_QUIET": "1"},
        )

    def run(self, command: str) -> tuple[str, int]:
        """Run one command; what it printed, with ~ for the home, and its exit code."""
        asked, told = self._shell.stdin, self._shell.stdout
        assert asked is not None and told is not None  # noqa: PT018, S101 -- they are pipes
        asked.write(f"{command}\nended=$?; echo; echo {_END} $ended\n")
        asked.flush()
        lines: list[str] = []
        for line in told:
            if line.startswith(_END):
                printed = "".join(lines).removesuffix("\n").replace(str(self.home), "~")
                return printed, int(line.split()[-1])
            lines.append(line)
        raise RuntimeError(f"the shell ended in {command!r}: {''.join(lines)}")

    def until_ready(self) -> None:
        """Wait for the nodes that were just started."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.run("wmreg node status > /dev/null")[1]:
            if time.monotonic() > deadline:
                raise RuntimeError("the nodes are not ready")
            time.sleep(1)

    def first_claim(self) -> str:
        """The hash of the ledger's first claim."""
        entries = json.loads(self.run("wmreg log --json")[0])["entries"]
        return next(entry["message_hash"] for entry in entries if entry["kind"] == "claim")

    def close(self) -> None:
        """Stop the nodes and the shell."""
        self.run("kill $(jobs -p); wait")
        self._shell.communicate()


def played(player: Player, block: str) -> str:
    """A block of the page with what its commands print here."""
    shown = []
    for written, has_output in _commands(block):
        if written.startswith("wmreg node status"):
            player.until_ready()
        command = HASH.sub(player.first_claim(), written) if written.startswith("wmreg status ") else written
        printed, _ = player.run(command)
        shown.append(f"$ {command}\n{_wrapped(printed) if has_output else ''}")
    return "".join(shown)


def _wrapped(printed: str) -> str:
    """As a terminal shows it: the command itself wraps its paragraphs only there."""
    lines = (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line] for line in printed.splitlines())
    return "".join(f"{line}\n" for parts in lines for line in parts)


def _commands(block: str) -> Iterator[tuple[str, bool]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, bool(output.strip())


def main() -> None:
    """Play, and write the page."""
    text, begun_s = PAGE.read_text(), time.monotonic()
    with TemporaryDirectory(prefix="wmreg-tutorial-") as name:
        player = Player(Path(name))
        try:
            text = BLOCK.sub(lambda block: played(player, block.group()), text)
        finally:
            player.close()
    minutes = (time.monotonic() - begun_s) / 60
    took = f"The run shown here took {minutes:.0f} minutes, the installation included, on {machine()}."
    PAGE.write_text(TOOK.sub(took, text))


if __name__ == "__main__":
    main()
