"""`wmreg keygen`: an owner's signing key, mode 0600, never over an existing one."""

from pathlib import Path

import click

from client import options
from client.files import state_directory
from client.output import Report


@click.command("keygen", epilog="Example:  wmreg keygen --out alice.pem")
@click.option("--out", type=options.NEW_FILE, help="File to write.  [default: signing_key.pem in the state directory]")
@options.as_json
def command(out: Path | None) -> Report:
    """Make an owner's Ed25519 signing key.

    Whoever has this file can publish and claim in your name. Keep a copy where you keep your most valuable papers:
    without it, no claim on your publications is possible.
    """
    from client.keystore import create_signing_key

    path = out or state_directory() / "signing_key.pem"
    public_key = create_signing_key(path).public_key().public_bytes_raw().hex()
    return Report(
        document={"path": str(path), "public_key": public_key},
        text=f"signing key  {path}\npublic key   {public_key}",
    )
