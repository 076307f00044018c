"""`wmreg audit`: everything that anybody can check of a ledger, checked."""

import asyncio
import json
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from client import options
from client.errors import InputError
from client.files import check_new, write_new
from client.output import Report, table, utc
from client.progress import status_line

if TYPE_CHECKING:
    from client.audit.auditing import Audit
    from client.audit.mirror import Mirror
    from client.audit.recomputing import Recomputation
    from client.audit.sampling import Sample
    from client.evidence import EvidenceStore
    from registry.trust import TrustPolicy


def _recompute(function: Callable[..., Any]) -> Callable[..., Any]:
    """--recompute and --seed; the command takes them as one parameter, sample."""

    @click.option(
        "--recompute",
        "share",
        type=options.Percent(),
        metavar="SHARE",
        help="Compute the votes on this share of the claims again, such as 1%; one claim at least.",
    )
    @click.option(
        "--seed",
        type=click.IntRange(0, options.SEED_MAX),
        help="Draw the same claims again for --recompute.  [default: at random; the report says it]",
    )
    @wraps(function)
    def wrapped(*, share: Fraction | None, seed: int | None, **others: Any) -> Any:  # noqa: ANN401 -- click's own
        if share is None:
            if seed is not None:
                raise click.UsageError("--seed draws claims for --recompute: give a share such as --recompute 1%")
            return function(sample=None, **others)
        from client.audit.sampling import Sample

        drawn_by = secrets.randbelow(options.SEED_MAX) if seed is None else seed
        return function(sample=Sample(share=share, seed=drawn_by), **others)

    return wrapped


@click.command("audit", epilog="Example:  wmreg audit --mirror mirror --report audit.json")
@click.option("--mirror", type=options.NEW_DIRECTORY, help="Keep the entries there.  [default: a temporary directory]")
@click.option("--offline", is_flag=True, help="Check an existing --mirror; no network.")
@click.option("--report", type=options.NEW_FILE, help="Write the JSON report to a new file.")
@click.option(
    "--evidence",
    type=options.NEW_DIRECTORY,
    help="Write files that convict nodes there.  [default: beside what was remembered]",
)
@_recompute
@options.policy
@options.patience
@options.as_json
def command(  # noqa: PLR0913 (an option each)
    mirror: Path | None,
    report: Path | None,
    evidence: Path | None,
    policy_path: Path,
    patience_s: float,
    *,
    offline: bool,
    sample: "Sample | None",
) -> Report:
    """Download the whole ledger and check everything.

    Replays every entry through the rules, recomputes the tree, compares it with every checkpoint that the nodes show
    and with the one that this machine saw before, and compares the entries' times with the nodes' cosignatures.
    Everything that is wrong is listed with what to do about it. Any finding is an alarm: exit code 5.

    A vote is a node's word for what it counted. --recompute runs the same verification here on some claims, drawn at
    random, and names the votes that say something else.
    """
    from client.audit.mirror import Mirror
    from client.evidence import EvidenceStore
    from client.memory import Memory

    trust = options.load_policy(policy_path)
    if report is not None:
        check_new(report)
    store = EvidenceStore(evidence) if evidence else Memory.default().evidence
    if offline:
        if mirror is None:
            raise click.UsageError("--offline checks an existing mirror: give --mirror DIR")
        if sample is not None:
            raise click.UsageError("--recompute fetches files from the nodes: leave out --offline")
        from client.audit.auditing import audit_mirror

        if not Mirror(mirror).checkpoint.exists():
            raise InputError(
                f"{mirror}: no mirror of a ledger; make one with wmreg audit --mirror {mirror}", code="file"
            )
        return _finish(audit_mirror(Mirror(mirror), trust, store, memory=Memory.default()), report)
    with _directory(mirror) as directory:
        with _recomputation(sample, trust) as recomputation:
            audited = asyncio.run(_audit(Mirror(directory), trust, patience_s, store, recomputation))
        return _finish(audited, report)


async def _audit(
    mirror: "Mirror",
    trust: "TrustPolicy",
    patience_s: float,
    store: "EvidenceStore",
    recomputation: "Recomputation | None",
) -> "Audit":
    from client.audit.auditing import audit_ledger
    from client.memory import Memory

    with status_line("asking the nodes") as show:
        async with options.ledger(trust, patience_s) as api:
            with api.transport.sharing_patience():
                return await audit_ledger(api, Memory.default(), mirror, store, show, recomputation)


@contextmanager
def _recomputation(sample: "Sample | None", trust: "TrustPolicy") -> Iterator["Recomputation | None"]:
    if sample is None:
        yield None
        return
    from client.audit.recomputing import Recomputation
    from client.transport import tls_trust

    tls = tls_trust(options.given_ca_file())
    with TemporaryDirectory(prefix="wmreg-recompute-") as name:
        yield Recomputation(
            sample=sample,
            directory=Path(name),
            urls=[url.rstrip("/") for url in trust.urls],
            tls=tls if isinstance(tls, ssl.SSLContext) else None,
        )


@contextmanager
def _directory(mirror: Path | None) -> Iterator[Path]:
    if mirror is not None:
        yield mirror
        return
    with TemporaryDirectory(prefix="wmreg-audit-") as name:
        yield Path(name)


def _finish(audit: "Audit", path: Path | None) -> Report:
    from client.audit.findings import exit_code

    document = _document(audit)
    if path is not None:
        write_new(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return Report(document=document, text="\n".join(_lines(audit)), exit_code=exit_code(audit.findings))


def _lines(audit: "Audit") -> list[str]:
    attested_s = audit.trusted.not_after_s
    lines = [
        f"{audit.origin}: {_outcome(audit)}",
        f"root       {audit.root.hex()}",
        f"cosigned   by {', '.join(sorted(audit.trusted.times_s)) or 'nobody'}"
        + (f", {utc(attested_s)}" if attested_s is not None else ""),
        f"entries    {_counts(audit.kinds)}",
        f"claims     {_counts(audit.verdicts) or 'none'}",
        f"times      compared with {audit.attested} cosigned checkpoints",
    ]
    if audit.seed is not None:
        lines.append(f"computed   {audit.recomputed} claims again (--seed {audit.seed})")
    if audit.nodes:
        rows = [[node.url, node.size, node.problem or "agrees"] for node in audit.nodes]
        lines += ["", table(["node", "checkpoint", "finding"], rows)]
    if audit.remarks:
        lines += ["", *(f"note: {remark}" for remark in audit.remarks)]
    for number, finding in enumerate(audit.findings, start=1):
        first, *more = finding.lines()
        lines += ["", f"FINDING {number}: {first}", *more]
    return lines


def _outcome(audit: "Audit") -> str:
    if not audit.findings:
        entries = "entry" if audit.size == 1 else "entries"
        return f"{audit.size} {entries} replayed, every one keeps the rules"
    count = len(audit.findings)
    return f"ALARM, {count} finding{'s' * (count > 1)}; {_kept(audit)}"


def _kept(audit: "Audit") -> str:
    """Which entries the rules were applied to, and with what result."""
    if audit.replayed == audit.size:
        return f"all {audit.size} entries keep the rules"
    kept = f"of {audit.size} entries, the first {audit.replayed} keep the rules"
    if audit.refused is None:
        return f"{kept}, and the others could not be read"
    behind = audit.size - audit.refused - 1
    unchecked = f", and the {behind} behind it were not checked by them" if behind else ""
    return f"{kept}, entry {audit.refused} breaks them{unchecked}"


def _document(audit: "Audit") -> dict[str, object]:
    return {
        "origin": audit.origin,
        "size": audit.size,
        "root": audit.root.hex(),
        "replayed": audit.replayed,
        "refused": audit.refused,
        "cosigned_by": sorted(audit.trusted.times_s),
        "attested_by_s": audit.trusted.not_after_s,
        "entries": dict(audit.kinds),
        "claims": dict(audit.verdicts),
        "bundles_fetched": audit.bundles_fetched,
        "sizes_attested": audit.attested,
        "sizes_not_attested": audit.unattested,
        "claims_recomputed": audit.recomputed,
        "seed": audit.seed,
        "nodes": [{"url": n.url, "size": n.size, "problem": n.problem} for n in audit.nodes],
        "findings": [finding.document() for finding in audit.findings],
        "remarks": audit.remarks,
    }


def _counts(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
