"""`wmreg search`: the entries that bear a hash, or that an owner signed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report, table, utc

if TYPE_CHECKING:
    from client.searching import Found


@click.command("search", epilog="Example:  wmreg search suspect.safetensors")
@click.argument("what")
@click.option("--owner", "is_owner", is_flag=True, help="WHAT is an owner's public key: show what he signed.")
@click.option("--start", type=options.INDEX, default=0, show_default=True, help="Index of the first entry.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Entries to show.")
@options.policy
@options.patience
@options.as_json
def command(*, what: str, is_owner: bool, start: int, limit: int, policy_path: Path, patience_s: float) -> Report:
    """Find entries of the ledger by any hash that they bear.

    WHAT is 64 hexadecimal digits (the hash of a message, model or evidence file, a commitment, a watermark key), a
    file, such as a model, whose SHA-256 is searched for, or the URL of a prediction endpoint. Every entry is checked
    against the policy; that there are no others is the word of the nodes, all of which are asked.
    """
    value = _value(what, is_owner=is_owner)
    with options.open_client(policy_path, patience_s) as ledger:
        found = ledger.search(value, is_owner=is_owner, start=start, limit=limit)
    return Report(document=_document(found), text=_text(found))


def _value(what: str, *, is_owner: bool) -> str | Path:
    """A word that names a file means the file; for a program a text never does."""
    path = Path(what)
    return path if not is_owner and path.is_file() else what


def _document(found: "Found") -> dict[str, object]:
    from client.bodies import body_document

    entries = [
        {
            "index": hit.verified.index,
            "recorded_s": hit.verified.recorded_s,
            "kind": hit.verified.signed.message.KIND,
            "message_hash": hit.verified.signed.hash.hex(),
            "signers": [signer.hex() for signer in hit.verified.signed.signers],
            "bears": list(hit.bears),
            "body": body_document(hit.verified.signed.message),
        }
        for hit in found.hits
    ]
    return {
        "owner" if found.query.is_owner else "hash": found.query.value.hex(),
        "entries": entries,
        "next": found.following,
        "answered": list(found.answered),
        "silent": dict(found.silent),
        "wrong": list(found.wrong),
    }


def _text(found: "Found") -> str:
    from client.bodies import field_of

    rows = []
    for hit in found.hits:
        signed, recorded = hit.verified.signed, utc(hit.verified.recorded_s)
        bears = ", ".join(field_of(role, signed.message) for role in hit.bears)
        rows.append([hit.verified.index, recorded, signed.message.KIND, bears, signed.hash.hex()])
    shown = table(["index", "recorded", "kind", "bears it as", "message"], rows) if rows else "nothing found"
    lines = [
        shown,
        "",
        f"Every entry was checked; that there are no others is the word of {', '.join(found.answered)}.",
    ]
    lines += [f"did not answer: {url}: {why}" for url, why in found.silent.items()]
    lines += [f"WRONG: {url} listed an entry that could not be confirmed" for url in found.wrong]
    return "\n".join([*lines, *([f"more: --start {found.following}"] if found.following is not None else [])])
