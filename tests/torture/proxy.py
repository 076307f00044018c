"""A small network between the peers: every connection of two nodes goes through here, and obeys the test.

Each node listens on another loopback address than the one that the policy gives it; a proxy listens there and passes
bytes on, so TLS runs through it from end to end. Who dials is found by the owner of the client's port, since TLS does
not tell. A link of two nodes may be cut in either direction, as a network loses packets: bytes stay where they are, and
go on when the link is whole again, unless a node has given the connection up. Linux only.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from itertools import permutations
from pathlib import Path

CHUNK_BYTES = 65536
INNER_HOST = "127.0.0.2"
Link = tuple[str, str]  # from, to


class Network:
    """The links of all nodes.

    Args:
        ports: the Raft port of each node.
        pid_of: the process of a node, None while it has none.
    """

    def __init__(self, ports: dict[str, int], pid_of: Callable[[str], int | None]) -> None:
        self._ports, self._pid_of = ports, pid_of
        self._loop = asyncio.new_event_loop()
        self._open: dict[Link, asyncio.Event] = {}
        self._writers: dict[Link, set[asyncio.StreamWriter]] = {link: set() for link in permutations(ports, 2)}
        self._delay_s = 0.0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> "Network":
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, links: Iterable[Link]) -> None:
        """Let nothing through on these links, and everything on all others."""
        cut = set(links)
        self._call(self._set(cut))

    def heal(self) -> None:
        self.cut([])

    def delay(self, seconds: float) -> None:
        """Hold every piece of data for so long."""
        self._delay_s = seconds

    def reset(self) -> None:
        """Close every connection."""
        self._call(self._reset())

    def isolate(self, name: str) -> None:
        """Cut a node off from all others."""
        self.cut(link for link in self._writers if name in link)

    def split(self, *groups: Iterable[str]) -> None:
        """Let only nodes of one group hear each other; a node may be in several."""
        parts = [set(group) for group in groups]
        self.cut(link for link in self._writers if not any(set(link) <= part for part in parts))

    def _call(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> None:
        for link in self._writers:
            self._open[link] = asyncio.Event()
            self._open[link].set()
        self._servers = [
            await asyncio.start_server(self._handler(name), "127.0.0.1", port) for name, port in self._ports.items()
        ]

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set(self, cut: set[Link]) -> None:
        for link, gate in self._open.items():
            gate.clear() if link in cut else gate.set()

    async def _reset(self) -> None:
        for writers in self._writers.values():
            for writer in list(writers):
                writer.transport.abort()

    def _handler(self, callee: str) -> Callable[..., object]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connect(callee, reader, writer)
            writer.transport.abort()

        return handle

    async def _connect(self, callee: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = self._owner(writer.get_extra_info("peername")[1], self._ports[callee], callee)
        if caller is None:
            return
        inner_reader, inner_writer = await asyncio.open_connection(INNER_HOST, self._ports[callee])
        there, back = (caller, callee), (callee, caller)
        self._writers[there].add(inner_writer)
        self._writers[back].add(writer)
        pumps = [
            asyncio.create_task(self._pump(there, reader, inner_writer)),
            asyncio.create_task(self._pump(back, inner_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._writers[there].discard(inner_writer)
            self._writers[back].discard(writer)
            inner_writer.transport.abort()

    async def _pump(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._open[link].wait()
                writer.write(data)
                await writer.drain()

    def _owner(self, client_port: int, server_port: int, callee: str) -> str | None:
        """The node that dials: the one with the socket from this port to that one."""
        inode = _inode(client_port, server_port)
        others = [name for name in self._ports if name != callee]
        return next((name for name in others if inode and _has_socket(self._pid_of(name), inode)), None)


def _inode(local_port: int, remote_port: int) -> str | None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (fields[1].endswith(f":{local_port:04X}"), fields[2].endswith(f":{remote_port:04X}")) == (True, True):
            return fields[9]
    return None


def _has_socket(pid: int | None, inode: str) -> bool:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(path.readlink()) == f"socket:[{inode}]":
                    return True
    return False
