"""The package as others get it: an sdist and a wheel made of this checkout, and an environment with the client alone.

No network: the build uses the setuptools that is here, and the environment is a venv to which the distributions that
the client's requirements lead to are linked one by one, so that whatever else is installed here is not there.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from venv import EnvBuilder

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def build(directory: Path) -> tuple[Path, Path]:
    """Make the sdist, and the wheel from it; return both."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would be ignored" not in done.stdout + done.stderr, "setuptools may leave out the explorer's files some day"
    (sdist,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return sdist, wheel


@dataclass(frozen=True)
class Environment:
    """A venv and what is run in it, with a state directory of its own."""

    directory: Path

    @property
    def packages(self) -> Path:
        """Where distributions are installed."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.directory / "lib" / version / "site-packages"

    def wmreg(self, *words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the installed command, far from the checkout."""
        state = {"WMREG_HOME": str(self.directory / "home"), "WMREG_PATIENCE_S": "5", "HOME": str(self.directory)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WMREG"))}
        return subprocess.run(
            [str(self.directory / "bin" / "wmreg"), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env=inherited | state | environment,
            timeout=120,
        )


def client_alone(directory: Path, wheel: Path) -> Environment:
    """Install a wheel by pip into a venv that holds its requirements and nothing besides."""
    EnvBuilder(symlinks=True).create(directory)
    environment = Environment(directory)
    for found in closure(requirements_in(wheel)):
        link(found, environment.packages)
    python = str(directory / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--quiet"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def requirements_in(wheel: Path) -> list[str]:
    """What a wheel itself says that it requires."""
    (metadata,) = Distribution.discover(path=[str(wheel)])
    return metadata.requires or []


def closure(requirements: list[str]) -> list[Distribution]:
    """The distributions of this environment that requirements lead to, without any extra."""
    found: dict[str, Distribution] = {}
    wanted = list(requirements)
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[requirement.name] = distribution(requirement.name)
        wanted += found[requirement.name].requires or []
    return list(found.values())


def link(found: Distribution, packages: Path) -> None:
    """Make a distribution's files appear in another environment."""
    tops = {path.parts[0] for path in found.files or [] if path.parts[0] not in {"..", "__pycache__"}}
    for top in tops:
        if not (packages / top).exists():
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
