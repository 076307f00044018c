"""Mutual TLS 1.3 between nodes that know each other's certificates.

Every certificate is its own trust anchor (partial chain), so there is no authority that could issue another one for a
node's name; the SHA-256 pin then says which node a certificate belongs to. Source: RFC 8446; OpenSSL,
X509_V_FLAG_PARTIAL_CHAIN.
"""

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path

from node.raft.certificate import certificate_pins
from node.raft.types import RaftPeer

PROTOCOL = "wmreg-raft/1"  # ALPN: another wire version is refused in the handshake


class TlsIdentity:
    """This node's certificate, and the pins of all others."""

    def __init__(self, *, name: str, peers: Sequence[RaftPeer], certificate_path: Path, private_key_path: Path) -> None:
        """Load the certificate and the pins.

        Args:
            name: of this node.
            peers: all members, oneself included.
            certificate_path: PEM of this node's certificate.
            private_key_path: PEM of its private key, without a passphrase.

        Raises:
            ValueError: a pin without its certificate, one pin for two nodes, or an own certificate that the others
                would refuse.
            OSError: a file cannot be read; ssl.SSLError if key and certificate do not belong together.
        """
        self._names = _names_by_pin(peers)
        own_pin = certificate_pins(certificate_path.read_text(encoding="ascii"))[0]
        if self._names.get(own_pin) != name:
            raise ValueError(f"{certificate_path} is not a certificate that the policy lists for {name}")
        trusted = [peer.certificate_pem for peer in peers if peer.name != name]
        self.server = _make_context(ssl.PROTOCOL_TLS_SERVER, trusted)
        self.client = _make_context(ssl.PROTOCOL_TLS_CLIENT, trusted)
        self.server.num_tickets = 0  # a resumed session would skip the certificate
        for context in (self.server, self.client):
            context.load_cert_chain(certificate_path, private_key_path)

    def peer_name(self, connection: ssl.SSLSocket) -> str | None:
        """Return which node is on the other end of a finished handshake; None if it is none of them."""
        certificate_der = connection.getpeercert(binary_form=True)
        if certificate_der is None or connection.selected_alpn_protocol() != PROTOCOL:
            return None
        return self._names.get(hashlib.sha256(certificate_der).hexdigest())


def _names_by_pin(peers: Sequence[RaftPeer]) -> dict[str, str]:
    names: dict[str, str] = {}
    for peer in peers:
        if set(peer.certificate_pins) != set(certificate_pins(peer.certificate_pem)):
            raise ValueError(f"the pins of {peer.name} are not those of its certificates")
        for pin in peer.certificate_pins:
            if names.setdefault(pin, peer.name) != peer.name:
                raise ValueError(f"{peer.name} and {names[pin]} have the same certificate")
    return names


def _make_context(protocol: int, trusted_pems: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the pin is the name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols([PROTOCOL])
    if trusted_pems:
        context.load_verify_locations(cadata="\n".join(trusted_pems))
    return context
