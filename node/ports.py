"""Ports that stay free while nobody listens on them."""

import errno
import random
import socket
from contextlib import ExitStack
from pathlib import Path

PORT_MIN, PORT_MAX = 10_000, 30_000
_TRIES_MAX = 1000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(host: str, count: int) -> list[int]:
    """Draw ports that nobody listens on, below those that the kernel gives to outgoing connections.

    Whoever is down for a while would else find its port taken by somebody's outgoing connection, even by one that its
    own peers tried to make to it.

    Raises:
        OSError: the host is not an address of this machine, or too few ports are free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for _ in range(_TRIES_MAX):
            if len(sockets) == count:
                break
            one = stack.enter_context(socket.socket(family))
            try:
                one.bind((host, random.randrange(PORT_MIN, _ephemeral_min())))  # noqa: S311 -- keeps nothing secret
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                sockets.append(one)
        if len(sockets) < count:
            raise OSError(errno.EADDRINUSE, "too few ports are free")
        return [int(one.getsockname()[1]) for one in sockets]


def _ephemeral_min() -> int:
    """Where the kernel's own ports begin; a range that leaves no room below is ignored."""
    try:
        lowest = int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return PORT_MAX
    return min(PORT_MAX, lowest) if lowest > PORT_MIN + 1000 else PORT_MAX
