"""The explorer: the ledger as pages that people read in a browser, served by every node that wants to.

It knows nothing that the API does not tell: each page reads what the API's handlers read, pays the same rates
(`node.api.reads`) and is as little believed. What a node shows proves nothing; the pages say so, and lead to receipts
and certificates, which are checked offline.

All links are relative, since a proxy may serve a node's API under any path. Without JavaScript everything works but the
two zones into which files are dropped.
"""

from aiohttp import web

from node.explorer import pages, static
from node.explorer.answers import answer_as_pages
from node.explorer.rendering import PAGES, Pages

__all__ = ["add_to"]


def add_to(app: web.Application) -> None:
    """Let a node's application serve the explorer too; it must not have started."""
    app[PAGES] = Pages()
    app[static.FILES] = static.read_files()
    app.middlewares.insert(0, answer_as_pages)
    app.add_routes(
        [
            web.get("/", pages.front),
            web.get("/explorer", pages.front),
            web.get("/explorer/", pages.timeline),
            web.get("/explorer/entries/{hash}", pages.entry),
            web.get("/explorer/owners/{key}", pages.owner),
            web.get("/explorer/nodes", pages.nodes),
            web.get("/explorer/search", pages.search),
            web.get("/explorer/about", pages.about),
            web.get("/explorer/check", pages.check),
            web.get("/explorer/static/{name}", static.file),
        ]
    )
