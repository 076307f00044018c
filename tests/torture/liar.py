"""A node that lies: another program with its keys, in its place, while its own process is stopped."""

import contextlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from cluster import ORIGIN, NodeProcess

from node.config import load_config
from node.identity import Identity, load_identity
from node.raft.tls import PROTOCOL
from node.raft.wire import encode
from registry.checkpoint import Checkpoint
from registry.envelope import unseal
from registry.note import Note, cosign, sign

SOON_S = 10.0
_CHECKPOINTS = "/v1/checkpoints/"
_BUSY = b'{"error": {"code": "no_leader", "message": "ask another"}}'


class Liar:
    """What whoever has a node's keys can do.

    Args:
        node: whose keys; it must be stopped.
    """

    def __init__(self, node: NodeProcess) -> None:
        assert node.process is None
        self.config = load_config(node.directory / "node.toml")
        self.identity: Identity = load_identity(self.config.keys)

    def forged(self, size: int) -> str:
        """A checkpoint of a tree that nobody has, signed as an honest one is."""
        text = str(Checkpoint(origin=ORIGIN, size=size, root=b"\x66" * 32))
        log = sign(text, name=ORIGIN, private_key=self.identity.note)
        own = cosign(
            text, name=f"{ORIGIN}/{self.config.name}", private_key=self.identity.cosigner, timestamp_s=1_700_000_000
        )
        return str(Note(text, (log, own)))

    @contextlib.contextmanager
    def serving_forks(self) -> Iterator[None]:
        """Answer whoever asks for a checkpoint of any size at the node's own address."""
        forged = self.forged

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith(_CHECKPOINTS):
                    self.answer(200, forged(int(path.removeprefix(_CHECKPOINTS))).encode())
                else:
                    self.answer(503, _BUSY)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(503, _BUSY)

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        with http.server.ThreadingHTTPServer((self.config.api.host, self.config.api.port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    def send(self, victim: NodeProcess, messages: list[dict[str, object]]) -> None:
        """Say something on a peer's consensus port, as this node; read what it says until it has had enough."""
        bodies = [encode(message) for message in messages]
        keys = self.config.keys
        with contextlib.suppress(OSError), dial(victim, keys.tls_certificate, keys.tls_private_key) as connection:
            connection.sendall(b"".join(struct.pack(">I", len(body)) + body for body in bodies))
            connection.settimeout(1)
            while connection.recv(65536):
                pass


@contextlib.contextmanager
def dial(victim: NodeProcess, certificate: Path, private_key: Path) -> Iterator[ssl.SSLSocket]:
    """A connection to a node's consensus port under some certificate."""
    policy = unseal((victim.directory / "genesis").read_bytes(), origin=None).message.policy
    member = next(member for member in policy.members if member.name == victim.name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([PROTOCOL])
    context.load_cert_chain(certificate, private_key)
    address = (member.raft_host, member.raft_port)
    with socket.create_connection(address, SOON_S) as raw, context.wrap_socket(raw) as connection:
        yield connection


def is_let_in(victim: NodeProcess, certificate: Path, private_key: Path) -> bool:
    """Whether a node keeps a connection under this certificate open."""
    try:
        with dial(victim, certificate, private_key) as connection:
            connection.settimeout(2)
            return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
