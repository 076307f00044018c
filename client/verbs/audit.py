"""`wmreg audit`: everything that anybody can check of a ledger, checked."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report, table, utc

if TYPE_CHECKING:
    from client.auditing import Audit
    from registry.trust import TrustPolicy


@click.command("audit")
@click.option("--mirror", type=options.NEW_DIRECTORY, help="Keep the entries there.  [default: a temporary directory]")
@click.option("--offline", is_flag=True, help="Check an existing --mirror; no network.")
@options.policy
@options.patience
@options.as_json
def command(mirror: Path | None, policy_path: Path, patience_s: float, *, offline: bool) -> Report:
    """Download the whole ledger and check everything.

    Replays every entry through the rules, recomputes the tree, and compares it with the checkpoint of every node that
    answers and with the one that this machine saw before. An inconsistency is an alarm: exit code 5.
    """
    trust = options.load_policy(policy_path)
    if offline:
        if mirror is None:
            raise click.UsageError("--offline checks an existing mirror: give --mirror DIR")
        from client.auditing import audit_mirror
        from client.mirror import Mirror

        return _report(audit_mirror(Mirror(mirror), trust))
    with _directory(mirror) as directory:
        return _report(asyncio.run(_audit(directory, trust, patience_s)))


async def _audit(directory: Path, trust: "TrustPolicy", patience_s: float) -> "Audit":
    from client.auditing import audit_ledger
    from client.memory import Memory
    from client.mirror import Mirror

    async with options.ledger(trust, patience_s) as api:
        return await audit_ledger(api, Memory.default(), Mirror(directory))


@contextmanager
def _directory(mirror: Path | None) -> Iterator[Path]:
    if mirror is not None:
        yield mirror
        return
    with TemporaryDirectory(prefix="wmreg-audit-") as name:
        yield Path(name)


def _report(audit: "Audit") -> Report:
    attested_s = audit.trusted.not_after_s
    lines = [
        f"{audit.origin}: {audit.size} entries replayed, every one keeps the rules",
        f"root       {audit.root.hex()}",
        f"cosigned   by {', '.join(sorted(audit.trusted.times_s)) or 'nobody'}"
        + (f", {utc(attested_s)}" if attested_s is not None else ""),
        f"entries    {_counts(audit.kinds)}",
        f"claims     {_counts(audit.verdicts) or 'none'}",
    ]
    if audit.nodes:
        rows = [[node.url, node.size, node.problem or "agrees"] for node in audit.nodes]
        lines += ["", table(["node", "checkpoint", "finding"], rows)]
    return Report(
        document={
            "origin": audit.origin,
            "size": audit.size,
            "root": audit.root.hex(),
            "cosigned_by": sorted(audit.trusted.times_s),
            "attested_by_s": attested_s,
            "entries": dict(audit.kinds),
            "claims": dict(audit.verdicts),
            "bundles_fetched": audit.bundles_fetched,
            "nodes": [{"url": n.url, "size": n.size, "problem": n.problem} for n in audit.nodes],
        },
        text="\n".join(lines),
    )


def _counts(counter: "dict[str, int]") -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
