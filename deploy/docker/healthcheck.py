"""Whether the node of this container is healthy: asks its own /health, as its own node.toml says where.

For HEALTHCHECK and for probes that run a command. Exit code 0: it is; 1: it is not, or does not answer, and stdout
says why; 2: its settings cannot be read. A certificate is not verified, since the node is asked at its own address and
not under the name that the certificate is for; nothing is sent to it, and nothing but its health is believed.
"""

import http.client
import json
import ssl
import sys
from pathlib import Path

from node.config import ApiSettings, load_config
from node.errors import ConfigError

TIMEOUT_S = 5.0
BODY_BYTES_MAX = 65536
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- nobody listens there: it is replaced


def main(arguments: list[str]) -> int:
    """Ask the node whose directory is the only argument."""
    if len(arguments) != 1:
        print("usage: wmreg-healthcheck DIRECTORY", file=sys.stderr)
        return 2
    try:
        api = load_config(Path(arguments[0]) / "node.toml").api
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        status, body = _ask(api)
    except (OSError, http.client.HTTPException) as error:
        print(f"{api.host} port {api.port} does not answer: {error!r}")
        return 1
    print(_reason(body))
    return 0 if status == 200 else 1


def _ask(api: ApiSettings) -> tuple[int, bytes]:
    host = _EVERYWHERE.get(api.host, api.host)
    connection: http.client.HTTPConnection
    if api.tls_certificate is None:
        connection = http.client.HTTPConnection(host, api.port, timeout=TIMEOUT_S)
    else:
        unverified = ssl._create_unverified_context()  # noqa: SLF001, S323 -- see above
        connection = http.client.HTTPSConnection(host, api.port, timeout=TIMEOUT_S, context=unverified)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_BYTES_MAX)
    finally:
        connection.close()


def _reason(body: bytes) -> str:
    """What the node says is wrong, a line for each part; the answer as it is where that cannot be read."""
    try:
        document = json.loads(body)
        problems = document.get("problems", {})
        return "\n".join(f"{part}: {why}" for part, why in problems.items()) or str(document.get("status", "healthy"))
    except (ValueError, AttributeError):
        return body[:200].decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
