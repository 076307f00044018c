"""The SDK for programs with an event loop: `Client`. What it reads is in `client.sdk.reading`, what it does is here.

Every answer is checked before it is returned, by the policy and against what was seen of the ledger before. What no
check can show, such as a page of the log, is one node's word, and is called so.

Each method may be cancelled and called again. A message is saved before it is sent, so that calling again sends the
same one and not a second.
"""

import asyncio
import time
from os import fspath

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.acts import Act, Acts
from client.api import Recorded
from client.claiming import submit_claim
from client.errors import InputError
from client.publishing import Owner, publish
from client.sdk import PATIENCE_S
from client.sdk.inputs import (
    AnyBundle,
    AnyKey,
    AnyMessage,
    AnyPath,
    AnyPolicy,
    bundle_of,
    digest_of,
    key_of,
    owner_of,
    state_of,
)
from client.sdk.reading import Reader
from client.suspects import Suspect, suspect_of
from registry.messages import Challenge, Rotation, Withdrawal


class Client(Reader):
    """A session with the nodes of one ledger, as a reader and, with a signing key, as an owner.

    Use it as `async with Client(...) as ledger:`. Several tasks of one event loop may use it at a time; publishing or
    claiming the same thing twice at a time is refused to the second (`InputError`, code busy).

    Args:
        policy: whom you trust and where the ledger is: a `TrustPolicy`, the text of one, or the path of its file.
        owner: the owner's signing key or the path of its file; None for one who only reads.
        state_directory: where it is remembered what was seen of ledgers, and the owner's receipts are kept. None for
            the command's own: $WMREG_HOME or ~/.local/share/wmreg. Two programs may share one.
        patience_s: how long to keep trying while too few nodes answer, in [0, 86400].
        ca_file: PEM of the authorities that vouch for nodes with https URLs; None for the system's.

    Raises:
        InputError: the policy is none, or others may read the file of the key.
        InvalidError: the file of the key holds no Ed25519 key.
        OSError: a file cannot be read.

    Every method that asks the nodes raises `QuorumError` when too few answer, `ConsistencyError` when the ledger does
    not continue what was seen of it before, and `UntrustedError` when the policy does not vouch for an answer.
    """

    def __init__(
        self,
        policy: AnyPolicy,
        *,
        owner: AnyKey | None = None,
        state_directory: AnyPath | None = None,
        patience_s: float = PATIENCE_S,
        ca_file: AnyPath | None = None,
    ) -> None:
        super().__init__(policy, state_directory=state_directory, patience_s=patience_s, ca_file=ca_file)
        self._private_key = None if owner is None else key_of(owner)
        self._acts = Acts.within(state_of(state_directory), self._trust.origin)

    async def publish(self, bundle: AnyBundle) -> Recorded:
        """Publish the commitments of a bundle and wait for a quorum; the model may be released afterwards.

        Args:
            bundle: the directory that `wmreg embed` or `wm.Mark.save` made, or its path. The message is saved there
                before it is sent, and the receipt behind it; publishing again is the same publication.

        Raises:
            InvalidError, RefusedError: the bundle's files do not fit each other, the owner or the ledger.
            UnfinishedError: it is published, but a file could not be written.
        """
        return await publish(self.api, self._memory, bundle_of(bundle), self._owner())

    async def claim(
        self,
        model: AnyPath | Suspect,
        bundle: AnyBundle,
        *,
        sha256: str | None = None,
        watermark: int = 0,
        again: bool = False,
    ) -> Recorded:
        """Claim that a model carries the mark that was published from a bundle. It reveals the watermark key for good.

        Everything that can be checked beforehand is checked before the key is revealed. What the nodes need is uploaded
        to them. Claiming again is the same claim, until `again` says otherwise.

        Args:
            model: a file, an https URL (with its hash), `blob:sha256:…`, or a `Suspect`, such as an `endpoint_at`.
            bundle: the owner's directory, or its path.
            sha256: hash that the model's file must have, 64 hexadecimal digits; needed for a URL.
            watermark: which of the bundle's watermarks is revealed; 0 is the first.
            again: make a new claim although this model was claimed from this bundle before.

        Returns:
            The claim, which is in the log; what comes of it says `wait_for_verdict`.

        Raises:
            InputError: a URL without a hash, or a pointer that nodes do not follow.
            InvalidError, RefusedError: a file or the ledger says no; the code says why.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        owner, whole = self._owner(), bundle_of(bundle)
        bundle_of(whole.part(watermark))
        suspect = model if isinstance(model, Suspect) else await asyncio.to_thread(_suspect, model, sha256)
        return await submit_claim(self.api, self._memory, whole, owner, suspect, watermark=watermark, again=again)

    async def challenge(self, claim: AnyMessage, bundle: AnyBundle, *, reason: str) -> Recorded:
        """Object to somebody else's claim, as the owner of the publication in a bundle. An objection decides nothing.

        Args:
            claim: the hash of the claim.
            bundle: the owner's published directory, or its path.
            reason: for people; it stays in the ledger.

        Raises:
            InputError: the reason is empty, too long or more than a line.
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        publication = bundle_of(bundle).load_publication(origin=self._trust.origin).hash
        digest = digest_of(claim, what="claim")
        return await self._act(Challenge(time_s=_now_s(), claim=digest, publication=publication, reason=reason))

    async def withdraw(self, message: AnyMessage, *, reason: str) -> Recorded:
        """Take a publication or a claim of one's own back. Nothing is erased, and this cannot be undone.

        Args:
            message: what `publish` or `claim` returned, or its hash.
            reason: for people; it stays in the ledger.

        Raises:
            InputError: the reason is empty, too long or more than a line.
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        target = digest_of(message, what="message")
        return await self._act(Withdrawal(time_s=_now_s(), target=target, reason=reason))

    async def rotate(self, new_key: AnyKey) -> Recorded:
        """Move from the owner's signing key to another one. This cannot be undone; make a client with the new key then.

        Args:
            new_key: the new signing key, or the path of its file.

        Raises:
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        old, new = self._signing_key(), key_of(new_key)
        old_key, new_public = (key.public_key().public_bytes_raw() for key in (old, new))
        rotation = Rotation(time_s=_now_s(), old_key=old_key, new_key=new_public)
        return await self._acts.submit(self.api, self._memory, rotation, [old, new])

    async def _act(self, act: Act) -> Recorded:
        return await self._acts.submit(self.api, self._memory, act, [self._signing_key()])

    def _owner(self) -> Owner:
        return owner_of(self._signing_key(), self._acts, origin=self._trust.origin)

    def _signing_key(self) -> Ed25519PrivateKey:
        if self._private_key is None:
            raise InputError("owner: this takes the owner's signing key; give its file as Client(policy, owner=…)")
        return self._private_key


def _suspect(model: AnyPath, sha256: str | None) -> Suspect:
    return suspect_of(fspath(model), sha256=sha256)


def _now_s() -> int:
    return int(time.time())
