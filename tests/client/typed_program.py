"""A user's program that mypy checks with everything else: what the SDK exports has the types that it says."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import assert_type

import client
from client import (
    ClaimState,
    ClaimStatus,
    Client,
    Cursor,
    Event,
    Followed,
    Found,
    LogLine,
    LogPage,
    Outcome,
    PendingError,
    Recorded,
    RegistryError,
    Step,
    Story,
    SyncClient,
    TrustPolicy,
    VerifiedCertificate,
    verify,
)


async def owner(policy: str, key: Path) -> None:
    async with Client(policy, owner=key, patience_s=5) as ledger:
        assert_type(ledger, Client)
        assert_type(ledger.trust, TrustPolicy)
        published = await ledger.publish("mymodel")
        assert_type(published, Recorded)
        assert_type(published.receipt_path, Path | None)
        claimed = await ledger.claim(Path("suspect"), "mymodel", watermark=1)
        try:
            status = await ledger.wait_for_verdict(
                claimed, keep_in="mymodel", on_change=lambda state: print(state.votes)
            )
        except PendingError as pending:
            assert_type(pending.state, ClaimState)
            return
        assert_type(status, ClaimStatus)
        assert_type(status.certificate, VerifiedCertificate | None)
        assert_type(status.outcome, Outcome | None)
        assert_type(await ledger.search("ab" * 32), Found)
        assert_type(ledger.entries(), AsyncGenerator[LogLine, None])
        assert_type(ledger.watch(claimed, Path("mymodel"), owners=[bytes(32)]), AsyncGenerator[Step, None])


def reader(policy: TrustPolicy) -> None:
    with SyncClient(policy) as ledger:
        assert_type(ledger, SyncClient)
        assert_type(ledger.log(), LogPage)
        assert_type(ledger.follow(), Iterator[Followed])
        for step in ledger.watch("mymodel", cursor=Cursor.parse(""), warn=print):
            assert_type(step.events, tuple[Event, ...])
            assert_type(step.cursor, Cursor)
        assert_type(ledger.certificate(b"").story, Story)
    try:
        proven = verify(b"", policy).proven
    except RegistryError as error:
        assert_type(error.code, str)
        return
    if isinstance(proven, client.Story):
        assert_type(proven.outcome, Outcome)
