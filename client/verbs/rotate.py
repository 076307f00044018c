"""`wmreg rotate`: move to another signing key."""

from pathlib import Path

import click

from client import options
from client.output import Report


@click.command("rotate", epilog="Example:  wmreg keygen --out new.pem && wmreg rotate new.pem")
@click.argument("new_key_path", metavar="NEW_KEY", type=options.FILE)
@click.option(
    "--new-passphrase-file",
    type=options.FILE,
    help="File whose first line is the passphrase of NEW_KEY, if it has one.  [default: the one of --passphrase-file]",
)
@options.signing_key
@options.policy
@options.patience
@options.as_json
def command(
    *,
    new_key_path: Path,
    new_passphrase_file: Path | None,
    signing_key_path: Path,
    policy_path: Path,
    patience_s: float,
) -> Report:
    """Move from your signing key to the one in the file NEW_KEY, made by `wmreg keygen`. This cannot be undone.

    The new key claims what the old one published, and the old one says nothing more in this ledger. Both sign. Use the
    new key as --signing-key from then on; keep the old one, should the move have to be explained.
    """
    from client.verbs.acting import act_report

    with options.open_client(policy_path, patience_s, owner=signing_key_path) as ledger:
        return act_report(ledger.rotate(options.load_key(new_key_path, new_passphrase_file)))
