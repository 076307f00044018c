"""Real clusters of node processes on loopback, for the tests of node and client.

`Cluster.make` makes a ledger with init_cluster, and start() runs every node as its own process through node.main. A
node can be killed, stopped and started again; everything is waited for with a deadline.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.init import ClusterOptions, init_cluster
from registry.trust import TrustPolicy
from registry.verdict import Outcome

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
ORIGIN = "cluster.test/wmreg"


def eventually(condition: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
    """Poll until the condition is truthy and return its value; fail the test after the time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def http(
    method: str, url: str, body: bytes | None = None, *, headers: dict[str, str] | None = None, timeout_s: float = 30
) -> Answer:
    """One HTTP request, whatever its status."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})  # noqa: S310 -- http only
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 -- likewise
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


@dataclass
class NodeProcess:
    """One node: its directory, its address, and its process while it runs.

    Attributes:
        wrapper: words that run the command after them in other surroundings, and become it.
    """

    name: str
    directory: Path
    url: str
    process: subprocess.Popen[bytes] | None = None
    wrapper: tuple[str, ...] = ()

    @property
    def log_path(self) -> Path:
        return self.directory / "stderr.log"

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", "node.main", str(self.directory / "node.toml")],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def get(self, path: str, *, timeout_s: float = 30) -> Answer:
        return http("GET", self.url + path, timeout_s=timeout_s)

    def submit(self, envelope: bytes) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        return http("POST", f"{self.url}/v1/entries", envelope, headers=headers, timeout_s=60)

    def put_blob(self, sha256: bytes, content: bytes, headers: dict[str, str]) -> Answer:
        return http("PUT", f"{self.url}/v1/blobs/{sha256.hex()}", content, headers=headers)

    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/v1/node").json
        return answer

    def is_healthy(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended; its log:\n{self.log()}")
        try:
            return self.get("/healthz", timeout_s=2).status == 200
        except (OSError, urllib.error.URLError):
            return False

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def logged(self, message: str) -> list[dict[str, Any]]:
        """The lines of the node's log with this message."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]


@dataclass
class Cluster:
    """A ledger of several nodes in one directory."""

    directory: Path
    nodes: list[NodeProcess] = field(default_factory=list)

    @classmethod
    def make(
        cls, directory: Path, *, nodes: int = 3, origin: str = ORIGIN, options: ClusterOptions | None = None
    ) -> "Cluster":
        """Make the ledger; nothing is started."""
        init_cluster(directory, nodes=nodes, origin=origin, options=options)
        cluster = cls(directory)
        urls = cluster.trust.urls
        names = sorted(path.name for path in directory.iterdir() if path.is_dir())
        cluster.nodes = [NodeProcess(name, directory / name, url) for name, url in zip(names, urls, strict=True)]
        return cluster

    def start(self) -> "Cluster":
        for node in self.nodes:
            node.start()
        self.wait_until_healthy()
        return self

    def stop(self) -> None:
        """End every process, gracefully; for the end of a test."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.send_signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop() if node.process is not None and node.process.poll() is None else None
            node.process = None

    def __enter__(self) -> "Cluster":
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def policy_path(self) -> Path:
        return self.directory / "policy.txt"

    @property
    def trust(self) -> TrustPolicy:
        return TrustPolicy.parse(self.policy_path.read_text(encoding="utf-8"))

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self.nodes if node.process is not None]

    def wait_until_healthy(self) -> None:
        for node in self.running:
            eventually(node.is_healthy, timeout_s=START_TIMEOUT_S, what=f"{node.name} healthy")

    def wait_until_equal(self, size: int, *, timeout_s: float = 30) -> None:
        """Until all running nodes have this size, and then one root."""
        eventually(
            lambda: all(node.state()["size"] >= size for node in self.running),
            timeout_s=timeout_s,
            what=f"every node at size {size}",
        )
        texts = {node.get(f"/v1/checkpoints/{size}?wait_s=20").body.split(b"\n\n")[0] for node in self.running}
        assert len(texts) == 1, texts

    def verdict(self, claim: bytes, *, node: NodeProcess | None = None, timeout_s: float = 120) -> tuple[Outcome, str]:
        """Wait until one node, the first running one unless told, has the verdict; the others may have it later."""
        asked = node or self.running[0]

        def read() -> tuple[Outcome, str] | None:
            answer = asked.get(f"/v1/claims/{claim.hex()}?wait_s=5")
            if answer.status == 404:  # it has not heard of the claim yet
                return None
            found = answer.json
            return (Outcome(found["outcome"]), found["reason"]) if found["outcome"] else None

        result: tuple[Outcome, str] = eventually(read, timeout_s=timeout_s, what=f"a verdict at {asked.name}")
        return result

    def certificate(self, claim: bytes, *, node: NodeProcess) -> bytes:
        """The certificate of a claim from one node, which may hear of the verdict later than another."""
        self.verdict(claim, node=node)
        answer = node.get(f"/v1/certificates/{claim.hex()}")
        assert answer.status == 200, answer.body
        return answer.body
