"""Runs `wmreg` commands as their own processes, shows what they print, and keeps a transcript.

The demo calls no function of the command behind its back: what it shows, a person can type.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

COMMAND_TIMEOUT_S = 1200


class DemoError(Exception):
    """A command did not do what the demo expects; the transcript says which."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the transcript and its style: heading, command, output or remark."""

    kind: str
    text: str


@dataclass(slots=True)
class Shell:
    """A working directory, an environment, and what was said so far."""

    directory: Path
    console: Console
    transcript: list[Line] = field(default_factory=list)
    seconds: list[tuple[str, float]] = field(default_factory=list)
    timeout_s: float = COMMAND_TIMEOUT_S

    def heading(self, text: str) -> None:
        """Begin an act."""
        self._say(Line("heading", text))

    def remark(self, text: str) -> None:
        """Say something that no command says."""
        self._say(Line("remark", text))

    def output(self, text: str) -> None:
        """Show a line that a command which stays has printed."""
        self._say(Line("output", text))

    def run(self, arguments: Sequence[str], *, expect: int = 0) -> str:
        """Run one command; its progress goes to our stderr, its results into the transcript.

        Returns:
            What it printed on stdout.

        Raises:
            DemoError: another exit code than the expected one, or no end.
        """
        self._say(Line("command", "wmreg " + " ".join(arguments)))
        begun = time.monotonic()
        with self._progress() as progress:
            progress.add_task(f"wmreg {arguments[0]}", total=None)
            done = self._start_and_wait(arguments)
        self.seconds.append((" ".join(arguments), round(time.monotonic() - begun, 1)))
        for text in (done.stdout + done.stderr).rstrip().splitlines():
            self._say(Line("output", text))
        if expect or done.returncode:
            self._say(Line("remark", f"exit code {done.returncode}"))
        if done.returncode != expect:
            raise DemoError(f"`wmreg {' '.join(arguments)}` ended with {done.returncode}, not {expect}")
        return done.stdout

    def run_json(self, arguments: Sequence[str]) -> dict[str, object]:
        """Run and show one command with --json; return its document.

        Raises:
            DemoError: it failed, or printed no JSON.
        """
        return _document(arguments, self.run([*arguments, "--json"]))

    def ask(self, arguments: Sequence[str], *, expect: Collection[int] = (0,)) -> dict[str, object]:
        """Run a command for its JSON document only; nothing of it is shown.

        Args:
            arguments: of the command, without --json.
            expect: exit codes that are as they should be.

        Raises:
            DemoError: another exit code, no end, or no JSON.
        """
        done = self._start_and_wait([*arguments, "--json"])
        answer = _document(arguments, done.stdout)
        if done.returncode not in expect:
            raise DemoError(f"`wmreg {' '.join(arguments)} --json` ended with {done.returncode}: {done.stdout}")
        return answer

    def start(self, arguments: Sequence[str], *, log: Path) -> "subprocess.Popen[bytes]":
        """Start a command that stays, such as a node, with its log in a file."""
        self._say(Line("command", "wmreg " + " ".join(arguments) + " &"))
        with log.open("wb") as output:
            return subprocess.Popen(
                command_line(arguments), cwd=self.directory, stdout=output, stderr=output, env=self._environment()
            )

    def read_json(self, path: str) -> dict[str, object]:
        """Read a JSON file that a command left in the working directory."""
        content: dict[str, object] = json.loads((self.directory / path).read_text())
        return content

    def text(self) -> str:
        """The transcript as plain text."""
        return "".join(f"{PREFIXES[line.kind]}{line.text}\n" for line in self.transcript).lstrip()

    def _start_and_wait(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                command_line(arguments),
                cwd=self.directory,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"`wmreg {' '.join(arguments)}` did not end within {self.timeout_s} s") from error

    def _progress(self) -> Progress:
        """A spinner with the time, on a terminal; nothing elsewhere."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def _environment(self) -> dict[str, str]:
        """The caller's, without his own keys, policies and settings of the command."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("WMREG_")}
        return others | {"WMREG_HOME": str(self.directory / "home"), "WMREG_POLICY": "ledger/policy.txt"}

    def _say(self, line: Line) -> None:
        self.transcript.append(line)
        self.console.print(Text(PREFIXES[line.kind] + line.text, style=STYLES[line.kind]), soft_wrap=True)


STYLES = {"heading": "bold cyan", "command": "bold", "output": "", "remark": "dim"}
PREFIXES = {"heading": "\n", "command": "$ ", "output": "", "remark": "  "}


def command_line(arguments: Sequence[str]) -> list[str]:
    """The installed command, run by this very interpreter."""
    return [sys.executable, "-m", "client.command", *arguments]


def _document(arguments: Sequence[str], output: str) -> dict[str, object]:
    try:
        document = json.loads(output)
    except ValueError as error:
        raise DemoError(f"`wmreg {' '.join(arguments)} --json` printed no JSON: {output[:1000]}") from error
    if not isinstance(document, dict):
        raise DemoError(f"`wmreg {' '.join(arguments)} --json` printed no JSON object: {output[:1000]}")
    return document


def stop(processes: Sequence["subprocess.Popen[bytes]"], *, timeout_s: float = 10) -> None:
    """End processes as an operator would, by SIGTERM; by SIGKILL if they do not listen."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
