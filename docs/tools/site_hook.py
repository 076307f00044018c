"""Makes one site of docs/ and the pages of deploy/, which stay where their files are (mkdocs.yml names this hook).

Links are written as they work in a checkout. Here they are rewritten: `../deploy/x.md` of a page in docs/ to the place
that page has in the site, and what is no page (a source file, a figure's JSON, the README) to its name in code, since
the site must not point at anything that it does not hold. A link to a file that does not exist is an error.

The pages are written for CommonMark, as code hosts show them. Python-Markdown wants an empty line before a list or a
table, and four spaces where CommonMark takes two; both are put in on the way.

Source: https://www.mkdocs.org/user-guide/configuration/#hooks.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\[]*)\]\((?P<target>[^)\s]+)\)")
_ITEM = re.compile(r"\s*([*-]|\d+\.) ")
_FENCE = re.compile(r"^(```.*?^```[ ]*$)", flags=re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any, **_: Any) -> Files:  # noqa: ANN401 -- mkdocs' own
    """Add the pages of deploy/."""
    for path in sorted((ROOT / "deploy").glob("*.md")):
        files.append(File.generated(config, f"deploy/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 -- likewise
    """Rewrite a page outside of its code."""
    parts = _FENCE.split(markdown)
    return "\n".join(part if part.startswith("```") else _rewrite(part, page.file.src_uri) for part in parts)


def _rewrite(text: str, page: str) -> str:
    return _LINK.sub(lambda found: _link(found, page), _spaced(text))


def _spaced(text: str) -> str:
    """Lists and tables as Python-Markdown wants them."""
    lines: list[str] = []
    in_list = False
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        is_item, is_row = _ITEM.match(line) is not None, line.startswith("|")
        if before.strip() and ((is_item and not in_list) or (is_row and not before.startswith("|"))):
            lines.append("")
        in_list = is_item or (in_list and line.startswith(" "))
        indent = len(line) - len(line.lstrip(" "))
        lines.append(" " * indent + line if in_list else line)  # two spaces become four
    return "\n".join(lines)


def _link(found: re.Match[str], page: str) -> str:
    path, _, anchor = found["target"].partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return found[0]
    directory = posixpath.dirname(page)
    # Where the page lies in the checkout: those of the site are in docs/, but for those of deploy/.
    here = directory if page.startswith("deploy/") else posixpath.join("docs", directory)
    target = posixpath.normpath(posixpath.join(here, path))
    if not (ROOT / target).exists():
        raise PluginError(f"{page}: a link to {path}, which is not there")
    in_site = _place(target)
    if in_site is None:
        return f"{found['text']} (`{target}`)" if f"`{target}`" not in found["text"] else found["text"]
    relative = posixpath.relpath(in_site, directory or ".")
    return f"{found['image']}[{found['text']}]({relative}{'#' + anchor if anchor else ''})"


def _place(target: str) -> str | None:
    """Where the site has a file of the checkout; None for what it has not."""
    if target.startswith("docs/") and not target.startswith("docs/tools/"):
        return target.removeprefix("docs/")
    if re.fullmatch(r"deploy/[^/]+\.md", target):
        return target
    return None
