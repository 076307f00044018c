"""A node that is told to stop (SIGTERM) answers whom it has begun to serve, takes nothing new, and ends with code 0."""

import json
import signal
import socket
from pathlib import Path

import pytest
from cluster import Cluster, NodeProcess, eventually
from owner import claimed, publication, upload
from safetensors.numpy import save

from node.config import load_config
from node.init import ClusterOptions

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SOON_S = 20


class Request:
    """One request on a connection of its own, that is sent in pieces."""

    def __init__(self, node: NodeProcess, head: str) -> None:
        api = load_config(node.directory / "node.toml").api
        self._socket = socket.create_connection((api.host, api.port), SOON_S)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(f"{head}\r\nHost: node\r\n\r\n".encode())

    def send(self, body: bytes) -> None:
        self._socket.sendall(body)

    def status(self) -> int:
        """The status of the next answer; behind a 100 comes an empty line first."""
        line = self._file.readline() or b"nothing"
        if line == b"\r\n":
            line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        return int(line.split()[1])

    def rest(self) -> bytes:
        """Everything else, to the end of the connection."""
        rest = self._file.read()
        self._file.close()
        self._socket.close()
        return rest


def test_who_is_being_served_when_the_node_stops_gets_an_answer(tmp_path: Path):
    with Cluster.make(tmp_path / "ledger", options=ClusterOptions(unreachable_retry_s=600)) as cluster:
        node = cluster.nodes[0]
        evidence, published = save({}, {"format": "none"}), publication(0)
        assert upload(cluster, 0, evidence) == 201
        assert node.submit(published).status == 200
        digest = claimed(cluster, published, number=0, model=b"a model that nobody has", evidence=evidence, node=0)

        envelope = publication(1)
        headers = f"Content-Length: {len(envelope)}\r\nExpect: 100-continue"
        submitting = Request(node, f"POST /v1/entries HTTP/1.1\r\nContent-Type: application/octet-stream\r\n{headers}")
        assert submitting.status() == 100  # its handler waits for the body
        waiting = Request(node, f"GET /v1/claims/{digest.hex()}?wait_s=60 HTTP/1.1")
        streaming = Request(node, "GET /v1/events?start=0 HTTP/1.1")
        assert streaming.status() == 200

        node.process.send_signal(signal.SIGTERM)
        eventually(lambda: node.logged("stopping"), timeout_s=SOON_S, what="a node that stops")
        submitting.send(envelope)
        assert submitting.status() == 503
        assert json.loads(submitting.rest().partition(b"\r\n\r\n")[2])["error"]["code"] == "stopping"
        assert waiting.status() == 200
        assert b'"outcome": null' in waiting.rest()
        assert streaming.rest().endswith(b"\r\n0\r\n\r\n")  # the end of a whole answer
        assert node.process.wait(SOON_S) == 0
        node.process = None

        assert cluster.nodes[1].submit(envelope).status == 200  # the others go on, and it was no entry before
        node.start()
        cluster.wait_until_healthy()
        cluster.wait_until_equal(4)
