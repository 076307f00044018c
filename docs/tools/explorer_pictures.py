"""Takes the pictures of docs/explorer.md: a claim's page by day and by night, and the ledger on a phone.

Of the ledger that the explorer's tests look at (tests/showcase.py), in Debian's Chromium; run it in the checkout after
a change of the pages: `PYTHONPATH=.:tests .venv/bin/python docs/tools/explorer_pictures.py`.
"""

import asyncio
import base64
import io
from pathlib import Path
from tempfile import TemporaryDirectory

from browser import Browser
from nodeset import NodeSet
from PIL import Image
from showcase import fill

IMAGES = Path(__file__).parents[1] / "images"
WIDE, NARROW, HEIGHT = 1120, 360, 1080  # CSS pixels


async def take() -> None:
    """Serve the ledger, look at it, write the pictures."""
    with TemporaryDirectory() as directory:
        async with NodeSet(Path(directory) / "ledger") as nodes:
            await nodes.serve(with_explorer=True)
            shown = await fill(nodes)
            node = nodes.nodes[0]
            await node.services.gatherer.quorum_note(node.ledger.store.size, timeout_s=20)
            claim = f"{node.url}/explorer/entries/{shown.verified.hex()}"
            async with Browser() as browser:
                for name, url, width, scheme in (
                    ("claim-light", claim, WIDE, "light"),
                    ("claim-dark", claim, WIDE, "dark"),
                    ("claim-phone", claim, NARROW, "light"),
                    ("ledger-phone", f"{node.url}/explorer/?kind=claim", NARROW, "light"),
                ):
                    await browser.look(width=width, height=HEIGHT, scheme=scheme)
                    await browser.open(url)
                    shot = await browser.send("Page.captureScreenshot")
                    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
                    picture.quantize(64).save(IMAGES / f"explorer-{name}.png", optimize=True)  # a third of the bytes


if __name__ == "__main__":
    asyncio.run(take())
