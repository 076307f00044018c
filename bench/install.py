"""From `pip install` to a verified certificate, and how soon the command answers: `make bench NAME=install`.

The client alone is installed: the wheel of this checkout without an extra, into a fresh venv, its requirements by pip
from wherever pip takes them, in the versions of constraints.txt. Pip's cache is warm, filled by an installation before
the first one that counts, so what is measured is neither an index nor a line. Making the venv and building the wheel
are not counted. Then a certificate of a past release (tests/vectors/golden) is verified against its policy, offline,
by the command that was just installed.

Beside the wall time of a start stands that of the processor: on a machine that others use as well, it is what does not
depend on them.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from venv import EnvBuilder

from bench.results import Goal, Row, summary, write

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "vectors" / "golden" / "v1"
INSTALLATIONS, STARTS = 3, 20
START_GOAL = Goal(says="< 300 ms", most=300)
VERIFY = "wmreg verify of a certificate"
WORDS = {
    "wmreg --help": ["--help"],
    "wmreg publish --help": ["publish", "--help"],
    VERIFY: [
        "verify",
        str(GOLDEN / "certificate.json"),
        "--policy",
        str(GOLDEN / "policy.txt"),
    ],
}
COMPLETIONS = {"completing a verb": "wmreg pub", "completing an option of publish": "wmreg publish --sign"}


def main() -> int:
    """Install a few times, start the command often; write bench/results/install.json."""
    rows: list[Row] = []
    with TemporaryDirectory(prefix="wmreg-install-") as name:
        directory = Path(name)
        wheel = _wheel(directory)
        _installed(directory / "first", wheel)
        times = [_installed(directory / f"venv-{number}", wheel) for number in range(INSTALLATIONS)]
        installed, verified, processor = zip(*times, strict=True)
        both = [installed_s + verified_s for installed_s, verified_s, _ in times]
        what = "from pip install to a verified certificate, client alone, pip's cache warm"
        rows += [
            summary(what, both, unit="s"),
            summary("of this, pip install", installed, unit="s"),
            summary("of this, wmreg verify, for the first time", verified, unit="s"),
            summary("of all of it, the processor's time", processor, unit="s"),
        ]
        last = directory / f"venv-{INSTALLATIONS - 1}"
        rows += _size(last)
        for what, words in WORDS.items():
            rows += _starts(what, last, words, {})
        for what, line in COMPLETIONS.items():
            asked = {"_WMREG_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
            rows += _starts(what, last, [], asked)
    write("install", rows)
    return 0


def _wheel(directory: Path) -> Path:
    """Build the wheel of this checkout, by way of the sdist: nothing is left in the checkout."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(directory.glob("*.whl"))


def _install(venv: Path, wheel: Path) -> float:
    """Install the client into a venv; return the seconds that pip took."""
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    begun = time.monotonic()
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return time.monotonic() - begun


def _installed(venv: Path, wheel: Path) -> tuple[float, float, float]:
    """Install and verify; return the seconds of each on the wall's clock, and of both on the processor's."""
    EnvBuilder(with_pip=True).create(venv)
    before = _processor_s()
    installed_s = _install(venv, wheel)
    verified_s, _ = _run(venv, WORDS[VERIFY], {})
    return installed_s, verified_s, _processor_s() - before


def _size(venv: Path) -> list[Row]:
    """How much was installed, without pip itself."""
    packages = next(venv.glob("lib/python*/site-packages"))
    ignored = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence")
    tops = [top for top in packages.iterdir() if not top.name.startswith(ignored)]
    files = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file()]
    distributions = sum(top.suffix == ".dist-info" for top in tops)
    return [
        Row(metric="distributions installed, wmreg among them", value=distributions, unit=""),
        Row(metric="their size on disk", value=round(sum(path.stat().st_size for path in files) / 2**20), unit="MiB"),
    ]


def _starts(what: str, venv: Path, words: Sequence[str], environment: Mapping[str, str]) -> list[Row]:
    """Start the command often."""
    goal = None if what == VERIFY else START_GOAL  # which computes as well
    wall_s, processor_s = zip(*(_run(venv, words, environment) for _ in range(STARTS)), strict=True)
    return [
        summary(f"{what}, wall", [1000 * each for each in wall_s], unit="ms", goal=goal),
        summary(f"{what}, processor", [1000 * each for each in processor_s], unit="ms"),
    ]


def _run(venv: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run the installed command once; return the seconds on the wall's clock and on the processor's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WMREG", "PYTHON"))}
    home = {"WMREG_HOME": str(venv / "home"), "HOME": str(venv)}
    before, begun = _processor_s(), time.monotonic()
    subprocess.run(
        [str(venv / "bin" / "wmreg"), *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=inherited | home | dict(environment),
        cwd=venv,
    )
    return time.monotonic() - begun, _processor_s() - before


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
