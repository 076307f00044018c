"""The API's own certificate, and whose certificates of the other nodes' APIs are believed.

Owners and auditors reach the API under its host's name, so its certificate is one of the public authorities or of the
members' own, and has nothing to do with the identity that peers pin on the consensus port. It lives for weeks: it is
read again on SIGHUP, for the connections that come then, and a new one that is of no use leaves the old one in place.
"""

import ssl

from node.config import ApiSettings
from node.errors import ConfigError
from node.identity import check_private

HANDSHAKE_TIMEOUT_S = 5.0


class ServedCertificate:
    """The certificate that the API shows.

    Args:
        settings: name the files.

    Raises:
        ConfigError: they cannot be used.

    Attributes:
        context: to listen with; it always shows the certificate that was read last.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self.context = self._latest = self._load()
        self.context.sni_callback = self._show_latest

    def reload(self) -> None:
        """Read the files again.

        Raises:
            ConfigError: they cannot be used; the certificate stays as it is.
        """
        self._latest = self._load()

    def _show_latest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._latest

    def _load(self) -> ssl.SSLContext:
        certificate, private_key = self._settings.tls_certificate, self._settings.tls_private_key
        if certificate is None or private_key is None:
            raise ConfigError("[api] tls_certificate and tls_private_key: both or neither")
        check_private(private_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, private_key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(f"[api] tls_certificate {certificate}, tls_private_key {private_key}: {error}") from error
        return context


def make_certificate(settings: ApiSettings) -> ServedCertificate | None:
    """The certificate that the settings name; None for an API without TLS, behind a proxy or on loopback.

    Raises:
        ConfigError: it cannot be used.
    """
    if settings.tls_certificate is None and settings.tls_private_key is None:
        return None
    return ServedCertificate(settings)


def peer_trust(settings: ApiSettings) -> ssl.SSLContext:
    """How to check the certificates of the other nodes' APIs: by the system's authorities, or by a file's.

    Raises:
        ConfigError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=settings.tls_authorities)
    except (OSError, ValueError) as error:
        raise ConfigError(f"[api] tls_authorities {settings.tls_authorities}: {error}") from error


def _no_password() -> bytes:
    raise ValueError("the private key needs a password; a node starts without anybody to type one")
