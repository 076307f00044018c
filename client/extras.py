"""What a client alone lacks, and how to get it: torch and all that goes with it come with the extras of the package.

A verb imports what it needs when it runs. Where that is not installed the command says in one line which extra has it
(`client.command`); nothing needs to be asked beforehand, except by a verb that would find out only after minutes.
"""

from collections.abc import Iterable
from importlib.util import find_spec

from client.errors import InputError

# By import name; pyproject.toml has the names of the distributions (tests/test_packaging.py compares).
EXTRAS = {
    "wm": ("matplotlib", "numpy", "PIL", "sklearn", "scipy", "torch", "torchvision"),
    "node": ("jinja2", "prometheus_client", "pysyncobj"),
}


class NotInstalledError(InputError):
    """A package that the verb needs comes with an extra that was not installed."""

    code = "not_installed"


def explained(error: ImportError) -> NotInstalledError | None:
    """The error to tell for one of an import, if an extra has what is missing; else None."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    top_level = error.name.partition(".")[0]
    return next((missing(top_level, extra) for extra, names in EXTRAS.items() if top_level in names), None)


def is_installed(extra: str) -> bool:
    """Whether what an extra brings is there, by name; nothing is imported."""
    return not any(_absent(EXTRAS[extra]))


def require(extra: str) -> None:
    """Find out at once what would be missing after minutes of work; a node measures, so "node" requires "wm" as well.

    Raises:
        NotInstalledError: naming the first package that is.
    """
    names = EXTRAS[extra] if extra == "wm" else (*EXTRAS["wm"], *EXTRAS[extra])
    for name in _absent(names):
        raise missing(name, extra)


def missing(name: str, extra: str) -> NotInstalledError:
    """The error that names a package which is not installed, and the extra that has it."""
    return NotInstalledError(f"this needs {name}, which is not installed; run: pip install 'wmreg[{extra}]'")


def _absent(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if find_spec(name) is None)
