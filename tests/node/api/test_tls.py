"""The API over TLS: a certificate that can be changed while the node runs, and peers who check each other's."""

import asyncio
import dataclasses
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from certificates import Authority
from cryptography import x509
from nodeset import NodeParts, NodeSet

from node import main
from node.api.tls import make_certificate, peer_trust
from node.config import ApiSettings
from node.errors import ConfigError

pytestmark = pytest.mark.long


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca.pem")


def settings(nodes: NodeSet, authority: Authority, **changed: object) -> ApiSettings:
    """Settings of the first node with a certificate of its own."""
    files = nodes.directory / "api.crt", nodes.directory / "api.pem"
    authority.issue(*files)
    named = {"tls_certificate": files[0], "tls_private_key": files[1], "tls_authorities": authority.path, **changed}
    return dataclasses.replace(nodes.nodes[0].config.api, **named)


@asynccontextmanager
async def listening(nodes: NodeSet, api: ApiSettings) -> AsyncIterator[NodeParts]:
    node = nodes.nodes[0]
    async with AsyncExitStack() as stack:
        await main._listen(dataclasses.replace(node.config, api=api), node.services, stack)
        yield node


async def serial_of(node: NodeParts, trust: ssl.SSLContext) -> int:
    """Serial number of the certificate that a new connection sees."""
    _, writer = await asyncio.open_connection(node.config.api.host, node.config.api.port, ssl=trust)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_the_api_is_served_to_those_who_trust_its_authority_and_to_no_others(
    tmp_path: Path, authority: Authority
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority)
        async with listening(nodes, api) as node:
            url = f"https://127.0.0.1:{api.port}/health"
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=peer_trust(api))) as session:
                async with session.get(url) as answer:
                    assert answer.status == 200
                async with session.get(f"https://127.0.0.1:{api.port}/v1/entries") as answer:
                    assert (await answer.json())["size"] == 1
            strangers = peer_trust(dataclasses.replace(api, tls_authorities=None))
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=strangers)) as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url)
            assert node.services.refused == {}


async def test_the_oldest_tls_that_is_spoken_is_1_2(tmp_path: Path, authority: Authority):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority)
        assert make_certificate(api).context.minimum_version == ssl.TLSVersion.TLSv1_2
        async with listening(nodes, api) as node:
            old = peer_trust(api)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            assert await serial_of(node, old)


async def test_sighup_takes_a_new_certificate_and_keeps_the_old_one_when_the_new_one_is_of_no_use(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority)
        trust = peer_trust(api)
        first = x509.load_pem_x509_certificate(api.tls_certificate.read_bytes()).serial_number
        async with listening(nodes, api) as node:
            assert await serial_of(node, trust) == first
            second = authority.issue(api.tls_certificate, api.tls_private_key)
            assert await serial_of(node, trust) == first
            signal.raise_signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                while await serial_of(node, trust) != second:
                    pass
            authority.issue(api.tls_certificate, nodes.directory / "another.pem")
            signal.raise_signal(signal.SIGHUP)
            async with asyncio.timeout(30):
                while "the old one stays" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert await serial_of(node, trust) == second


async def test_a_connection_that_does_not_shake_hands_is_ended_and_does_not_count_for_ever(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(main, "HANDSHAKE_TIMEOUT_S", 0.3)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority, connections_max=2)
        async with listening(nodes, api) as node:
            silent = [await asyncio.open_connection(api.host, api.port) for _ in range(2)]
            async with asyncio.timeout(30):
                assert [await reader.read() for reader, _ in silent] == [b"", b""]
                while not await is_served(node, peer_trust(api)):
                    pass
            for _, writer in silent:
                writer.close()


async def is_served(node: NodeParts, trust: ssl.SSLContext) -> bool:
    connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
    url = f"https://127.0.0.1:{node.config.api.port}/health"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return answer.status == 200


async def test_too_many_connections_are_told_so_over_tls_as_well(tmp_path: Path, authority: Authority):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority, connections_max=1)
        async with listening(nodes, api) as node:
            trust = peer_trust(api)
            _, writer = await asyncio.open_connection(api.host, api.port, ssl=trust)
            reader, turned_away = await asyncio.open_connection(api.host, api.port, ssl=trust)
            async with asyncio.timeout(30):
                assert b"too_many_connections" in await reader.read()
            assert node.services.refused == {"too_many_connections": 1}
            for one in (writer, turned_away):
                one.close()


@pytest.mark.parametrize("wrong", ["no key", "another key", "nonsense", "missing", "readable by all", "authorities"])
async def test_a_certificate_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, authority: Authority, wrong: str):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        api = settings(nodes, authority)
        if wrong == "no key":
            api = dataclasses.replace(api, tls_private_key=None)
        elif wrong == "another key":
            authority.issue(nodes.directory / "other.crt", api.tls_private_key)
        elif wrong == "nonsense":
            api.tls_certificate.write_text("nonsense")
        elif wrong == "missing":
            api.tls_private_key.unlink()
        elif wrong == "readable by all":
            api.tls_private_key.chmod(0o644)
        else:
            authority.path.write_text("nonsense")
        with pytest.raises(ConfigError, match=r"tls_|api\.pem|others may read"):
            peer_trust(api) if wrong == "authorities" else make_certificate(api)


def test_without_a_certificate_there_is_no_tls(tmp_path: Path):
    from node.config import load_config
    from node.init import init_cluster

    init_cluster(tmp_path / "ledger", nodes=1, origin="tls.test")
    assert make_certificate(load_config(tmp_path / "ledger/node-1/node.toml").api) is None
