"""`wmreg policy`: keep the trust policy file up to date with the ledger."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.files import write_atomic, write_new
from client.output import Report

if TYPE_CHECKING:
    from client.policy_changes import Followed


@click.group("policy", epilog="Example:  wmreg policy update")
def command() -> None:
    """Keep the trust policy file up to date."""


@command.command("update", short_help="Follow the changes of the members.", epilog="Example:  wmreg policy update")
@click.option("--out", type=options.NEW_FILE, help="Write the new policy there.  [default: in place of --policy]")
@options.policy
@options.patience
@options.as_json
def update(out: Path | None, policy_path: Path, patience_s: float) -> Report:
    """Follow the changes of the members since the policy file was written, and write the file of today.

    Every change must be recorded by the word of a quorum of the nodes that the file trusted before it, and signed by a
    quorum of the members before it. Exit code 3: one is not; the file is left as it is.

    Receipts and certificates from before a change may need the file of their time to be checked; it is kept beside the
    new one.
    """
    trust = options.load_policy(policy_path)

    async def run() -> "Followed":
        from client.policy_changes import follow_changes

        async with options.ledger(trust, patience_s) as api:
            return await follow_changes(api)

    followed = asyncio.run(run())
    _keep_keys(followed)
    text = str(followed.trust).encode()
    if out is not None:
        write_new(out, text)
        return _report(followed, out, earlier=policy_path)
    if not followed.steps:
        return _report(followed, policy_path, earlier=None)
    earlier = policy_path.with_name(f"{policy_path.name}.before-{followed.steps[0].index}")
    write_atomic(earlier, policy_path.read_bytes())
    write_atomic(policy_path, text)
    return _report(followed, policy_path, earlier=earlier)


def _keep_keys(followed: "Followed") -> None:
    """What was remembered of the ledger in the time of an earlier policy is to be known again."""
    from client.memory import Memory
    from registry.trust import TrustPolicy

    for step in followed.steps:
        Memory.default().keep_keys(TrustPolicy.of(step.before.policy, step.before.origin))


def _report(followed: "Followed", path: Path, *, earlier: Path | None) -> Report:
    from client.policy_changes import describe_change

    changes = [(step.index, describe_change(step.before.policy, step.after.policy)) for step in followed.steps]
    lines = [f"entry {index}: {line}" for index, described in changes for line in described]
    if earlier is not None and followed.steps:
        lines.append(f"{earlier}: the file of before, for receipts and certificates of its time")
    members = [member.name for member in followed.in_force.policy.members]
    return Report(
        document={
            "origin": followed.in_force.origin,
            "policy": str(path),
            "earlier_policy": None if earlier is None or not followed.steps else str(earlier),
            "members": members,
            "quorum": followed.in_force.policy.quorum,
            "changes": [{"index": index, "changes": described} for index, described in changes],
        },
        text="\n".join([*lines, f"{path}: {followed.in_force.policy.quorum} of {', '.join(members)}"]),
    )
