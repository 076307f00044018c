"""`wmreg keygen`: an owner's signing key, or a watermark key for a loop of his own; mode 0600, never over another."""

from pathlib import Path

import click

from client import options
from client.errors import InputError
from client.output import Report


@click.command("keygen", epilog="Example:  wmreg keygen --out alice.pem")
@click.option("--out", type=options.NEW_FILE, help="File to write.  [default: the one that --signing-key is]")
@click.option(
    "--watermark-key",
    "directory",
    type=options.NEW_DIRECTORY,
    help="Make a watermark key instead, in this directory, bound to --signing-key and to the ledger of --policy. It is "
    "for a mark that you embed with wm.Mark; wmreg embed makes its own.",
)
@click.option("--passphrase", "asks", is_flag=True, help="Ask for a passphrase, and encrypt the signing key with it.")
@options.signing_key
@options.ledger_name
@click.option(
    "--policy",
    "policy_path",
    type=options.NEW_FILE,
    envvar="WMREG_POLICY",
    show_envvar=True,
    help="With --watermark-key: trust policy file of the ledger.",
)
@options.as_json
def command(
    *, out: Path | None, directory: Path | None, asks: bool, signing_key_path: Path, policy_path: Path | None
) -> Report:
    """Make an owner's Ed25519 signing key.

    Whoever has this file can publish and claim in your name. Keep a copy where you keep your most valuable papers:
    without it, no claim on your publications is possible.

    With --passphrase, or a --passphrase-file, the file alone is worth nothing: every verb that signs needs the
    passphrase too. Take a long one, five words drawn by dice or more; it cannot be recovered.
    """
    if directory is not None:
        if out is not None:
            raise InputError("--out: not with --watermark-key, which goes into its directory")
        if policy_path is None:
            raise InputError("--watermark-key: give the ledger that it is for, as --policy or --ledger")
        return _watermark_key(directory, signing_key_path, policy_path)
    return _signing_key(out or signing_key_path, asks=asks)


def _signing_key(path: Path, *, asks: bool) -> Report:
    from client.keystore import check_absent, create_signing_key
    from client.passphrase import choose

    check_absent(path)
    file = options.given_passphrase_file()
    passphrase = choose(path, file) if asks or file is not None else None
    public_key = create_signing_key(path, passphrase=passphrase).public_key().public_bytes_raw().hex()
    return Report(
        document={"path": str(path), "public_key": public_key, "encrypted": passphrase is not None},
        text=f"signing key  {path}\npublic key   {public_key}",
    )


def _watermark_key(directory: Path, signing_key_path: Path, policy_path: Path) -> Report:
    from client.bundle import Bundle
    from client.keystore import create_watermark_key, save_watermark_key

    origin = options.load_policy(policy_path).origin
    key_file = create_watermark_key(options.load_key(signing_key_path), origin=origin)
    path = Bundle(directory).watermark_key
    directory.mkdir(parents=True, exist_ok=True)
    try:
        save_watermark_key(path, key_file)
    except FileExistsError as error:
        raise InputError(f"{path}: exists and is not overwritten; choose another directory", code="exists") from error
    return Report(
        document={"path": str(path), "origin": origin},
        text=f"watermark key  {path}\nfor the ledger {origin}",
    )
