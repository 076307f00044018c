"""A headless Chromium, spoken to over its DevTools protocol: what the tests of the explorer's pages and scripts need.

Debian's `chromium` is enough. `CHROMIUM` names another one; without any the tests that need it are skipped and say so.

Source: https://chromedevtools.github.io/devtools-protocol/.
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest

START_TIMEOUT_S, WAIT_S = 60.0, 30.0
FRAME_BYTES_MAX = 64 * 2**20
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip


def chromium() -> str:
    """The program; skips the test where there is none."""
    found = os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install Debian's `chromium`, or name one in CHROMIUM; the browser tests did NOT run")
    return found


class Browser:
    """One Chromium process with one tab; use as an async context manager.

    Attributes:
        messages: what pages wrote to the console, and errors that nobody caught.
        requests: URLs that pages asked for.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._happened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def __aenter__(self) -> "Browser":
        program = chromium()
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        flags = [*_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._session = aiohttp.ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            (tab,) = [tab for tab in await answer.json() if tab["type"] == "page"]
        self._socket = await self._session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=FRAME_BYTES_MAX)
        self._reading = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.send(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await self._socket.close()
        await self._session.close()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)
        self._profile.cleanup()

    async def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the protocol; its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(WAIT_S):
            said = await answer
        assert "error" not in said, (method, said["error"])
        return said["result"]

    async def look(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Set the size of the window, CSS pixels, and whether the reader prefers "light" or "dark"."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._happened["Page.loadEventFired"].clear()
        await self.send("Page.navigate", url=url)
        async with asyncio.timeout(WAIT_S):
            await self._happened["Page.loadEventFired"].wait()

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, a promise's when it is kept; fails if it throws."""
        done = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = WAIT_S) -> Any:
        """The value of an expression as soon as it is truthy."""
        async with asyncio.timeout(timeout_s):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.02)
        return value

    async def choose(self, selector: str, *files: Path) -> None:
        """Choose files in an <input type=file>."""
        found = await self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        await self.send("DOM.setFileInputFiles", files=[str(f) for f in files], objectId=found["result"]["objectId"])

    async def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _port(self) -> int:
        """The port that Chromium chose, when it has written it."""
        written = Path(self._profile.name) / "DevToolsActivePort"
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                assert self._process.poll() is None, "Chromium ended"
                lines = written.read_text().splitlines() if written.exists() else []
                if lines:
                    return int(lines[0])
                await asyncio.sleep(0.02)

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            self._happened[said["method"]].set()
            self._note(said["method"], said["params"])

    def _note(self, event: str, said: dict[str, Any]) -> None:
        match event:
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(said["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(one.get("value")) for one in said["args"]))
            case "Log.entryAdded":
                self.messages.append(said["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
