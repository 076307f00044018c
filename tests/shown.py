"""The Python that a page of the documentation shows, by its sections, and running it."""

import re
from collections.abc import Sequence
from pathlib import Path

_HEADING = re.compile(r"^##+ (.*)$", flags=re.MULTILINE)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, *, only: str | None = None, without: Sequence[str] = ()) -> list[str]:
    """The page's Python, of the one section alone or without some; a section ends at the next heading.

    Raises:
        ValueError: the page has no such section.
    """
    _, *parts = _HEADING.split("\n## \n" + page.read_text())
    sections = list(zip(parts[::2], parts[1::2], strict=True))
    for name in (*without, *([] if only is None else [only])):
        if name not in dict(sections):
            raise ValueError(f"{page.name} has no section {name!r}")
    chosen = [text for name, text in sections if name not in without and only in {None, name}]
    return [block for text in chosen for block in _BLOCK.findall(text)]


def run(code: Sequence[str], page: Path, names: dict[str, object]) -> None:
    """Run blocks one after the other, in one namespace, as a reader would."""
    names.setdefault("__name__", "the_page")
    for block in code:
        exec(compile(block, str(page), "exec"), names)  # noqa: S102 -- our own page
