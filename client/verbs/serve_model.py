"""`wmreg serve-model`: a prediction endpoint, as nodes ask it."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import InputError
from client.output import Report

if TYPE_CHECKING:
    from client.serving.network import Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@click.command("serve-model", epilog="Example:  wmreg serve-model model.safetensors --evidence mymodel --port 8080")
@click.argument("weights", type=options.FILE)
@click.option("--evidence", "directory", type=options.DIRECTORY, help="Directory that embed made: says what it takes.")
@click.option("--arch", help="Network, by its name in the catalogue; without --evidence.")
@click.option("--classes", type=click.IntRange(2, 65_535), help="Classes that it tells apart; without --evidence.")
@click.option("--input", "size", help="Pictures that it takes, such as 3x32x32; without --evidence.")
@click.option("--mean", help="Of each channel in [0, 1], such as 0.5,0.5,0.5; without --evidence.  [default: 0,…]")
@click.option("--std", help="Likewise its standard deviation.  [default: 1,…]")
@click.option("--name", help="Name of the model in its URL.  [default: the file's]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--certificate", type=options.FILE, help="Certificate chain (PEM) for https; with --key.")
@click.option("--key", "private_key", type=options.FILE, help="Its private key (PEM).")
@click.option("--pictures-max", type=click.IntRange(1, 4096), default=64, show_default=True, help="Of one request.")
@click.option("--requests-max", type=click.IntRange(1, 1024), default=16, show_default=True, help="At the same time.")
@click.option(
    "--timeout-s", type=options.FiniteRange(0.1, 3600), default=30.0, show_default=True, help="For one request."
)
@options.device
@options.as_json
def command(  # noqa: PLR0913 (one parameter for each option)
    *,
    weights: Path,
    directory: Path | None,
    arch: str | None,
    classes: int | None,
    size: str | None,
    mean: str | None,
    std: str | None,
    name: str | None,
    host: str,
    port: int,
    certificate: Path | None,
    private_key: Path | None,
    pictures_max: int,
    requests_max: int,
    timeout_s: float,
    device: str,
) -> Report:
    """Serve the classifier in WEIGHTS (safetensors) until SIGTERM, by the Open Inference Protocol.

    The URL to claim, or to ask, is written to stderr once the server listens. It is a reference for demos and tests: no
    authentication, one network, and http unless there is a certificate.
    """
    from client.serving.network import load_network
    from client.serving.server import Limits, Server, serve, server_tls

    tls, named = server_tls(certificate, private_key), _name(name, weights)
    kind = _kind(directory, arch, classes=classes, size=size, mean=mean, std=std)
    network = load_network(weights, kind, device=device)
    limits = Limits(pictures_max=pictures_max, requests_max=requests_max, timeout_s=timeout_s)
    server = Server(network, named, limits)
    urls: list[str] = []

    def tell(url: str) -> None:
        urls.append(f"{url}/v2/models/{named}")
        click.echo(f"serving {urls[-1]}", err=True)

    asyncio.run(serve(server, host=host, port=port, tls=tls, on_listening=tell))
    counts = server.counts
    return Report(
        document={"url": urls[0], "requests": counts.requests, "pictures": counts.pictures},
        text=f"served {urls[0]}: {counts.requests} requests, {counts.pictures} pictures",
    )


def _name(name: str | None, weights: Path) -> str:
    named = weights.stem if name is None else name
    if not _NAME.fullmatch(named):
        raise InputError(f"--name {named}: letters, digits, dots, dashes and underscores are expected, at most 64")
    return named


def _kind(
    directory: Path | None,
    arch: str | None,
    *,
    classes: int | None,
    size: str | None,
    mean: str | None,
    std: str | None,
) -> "Kind":
    from client.bundle import open_bundle
    from client.serving.network import kind_in, kind_named

    given = {"--arch": arch, "--classes": classes, "--input": size, "--mean": mean, "--std": std}
    if directory is not None:
        if any(value is not None for value in given.values()):
            named = next(option for option, value in given.items() if value is not None)
            raise InputError(f"{named}: not with --evidence, which says it already")
        return kind_in(open_bundle(directory))
    if arch is None or classes is None or size is None:
        raise InputError("--evidence, or --arch, --classes and --input: what the network takes must be known")
    return kind_named(arch, classes=classes, size=size, mean=mean, std=std)
