"""The TLS identity of a node: a self-signed P-256 certificate, recognised by its SHA-256 and by nothing else.

There is no authority: the policy of the ledger lists the pins of every node, and a name or a date in a certificate
means nothing to a peer beyond what OpenSSL insists on. Source for pinning whole certificates: RFC 7858, appendix A,
and RFC 5280 for the fields.
"""

import datetime as dt
import hashlib
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_DAYS = 3650
CLOCK_SKEW_DAYS = 1  # a peer's clock may be behind
_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCertificate:
    """A new TLS identity.

    Attributes:
        certificate_pem: public, for this node's certificate file and for the policy.
        private_key_pem: PKCS #8 without a passphrase; its file must be readable by the node only.
        pin: lower-case hex SHA-256 of the DER certificate.
    """

    certificate_pem: str
    private_key_pem: str
    pin: str


def make_certificate(name: str, *, now: dt.datetime) -> NodeCertificate:
    """Make a private key and a certificate for it.

    Args:
        name: the node's name, put into the certificate for humans; 1 to 64 characters.
        now: aware; the certificate is valid from a day before for ten years.

    Raises:
        ValueError: the name does not fit a certificate, or the time is naive.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware time")
    private_key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_sign(private_key, name, now)
    private_key_pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NodeCertificate(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        private_key_pem=private_key_pem.decode(),
        pin=_pin(certificate.public_bytes(serialization.Encoding.DER)),
    )


def certificate_pins(certificate_pem: str) -> tuple[str, ...]:
    """Return the pin of each certificate in a PEM text, in order.

    Raises:
        ValueError: no certificate in it, or one that is damaged.
    """
    parts = [part + _END for part in certificate_pem.split(_END)[:-1]]
    if not parts:
        raise ValueError("no certificate in the PEM text")
    return tuple(_pin(ssl.PEM_cert_to_DER_cert(part.strip())) for part in parts)


def _pin(certificate_der: bytes) -> str:
    return hashlib.sha256(certificate_der).hexdigest()


def _self_sign(private_key: ec.EllipticCurvePrivateKey, name: str, now: dt.datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=CLOCK_SKEW_DAYS))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private_key, hashes.SHA256())
    )
