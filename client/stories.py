"""What a verified receipt, certificate or file of evidence says, in words, and what it does not.

Every sentence is backed by a signature or a hash that was checked against the reader's own policy.
"""

from client.output import counted, table, utc
from registry.certificate import Attested, Story, VoteStory
from registry.endpoint import endpoint_named
from registry.equivocation import FORMAT, EquivocationStory, Side, Signer
from registry.errors import shown
from registry.messages import Challenge, Claim, Genesis, PolicyChange, Publication, Rotation, Vote, Withdrawal
from registry.receipt import VerifiedReceipt
from registry.trust import TrustedCheckpoint
from registry.verdict import Outcome, Statistic

_NAMES_SHOWN = 3
_RESTS = "It rests on the trust policy that it was checked against."
_LIMITS = (
    "It does not prove that the owner trained the model, that nobody published the same elsewhere, or who the person "
    f"behind the public key is. {_RESTS}"
)
_LIMITS_OF_CALIBRATION = (
    "The chance behind the p-values was measured on models that the claimant declared (a node may have added public "
    "ones): with odd ones it comes out too small."
)
_LIMITS_OF_INTEGRITY = (
    "It says whether the model was changed since it was published, as far as its answers tell; it does not prove whose "
    "the model is. The claimant chose the triggers. {seen} " + _RESTS
)
_SEEN = {
    Outcome.INTACT: "INTACT speaks only of what these see: a change that moves none of their answers is not noticed.",
    Outcome.TAMPERED: "TAMPERED may mean a model that never was his: any other one answers otherwise as well.",
}
_LIMITS_OF_ENDPOINT = (
    "It tells what the endpoint answered then, not that it still serves that model, or serves it to everybody, nor who "
    "is behind the URL."
)

_FOUND = {
    Outcome.VERIFIED: "carries the {scheme} watermark of the owner {owner}",
    Outcome.INTACT: "answers every {scheme} trigger of the owner {owner} as the model did that he published",
    Outcome.TAMPERED: "does not answer the {scheme} triggers of the owner {owner} as the model did that he published",
}
_SHOWN = "shows the {scheme} watermark of the owner {owner}"  # of an endpoint, which carries nothing
_LATER = (
    "It shows the ledger at the size given above. Another owner's claim on this {suspect} with an older publication, a "
    "withdrawal or an objection may stand in it since: `wmreg status` asks the ledger."
)


def certificate_text(story: Story) -> str:
    """Tell a certificate: who, what, when, by whose word, with which numbers."""
    agreeing = [vote for vote in story.votes if vote.outcome is story.outcome]
    headers = ["node", "vote", "reason", "matched", "p-value", "device"]
    rows = [[v.member, v.outcome, v.reason, _counted(v), v.p_value, v.device] for v in story.votes]
    return "\n".join(
        [
            f"{story.outcome}: {_subject(story)}",
            f"{_found(story)}.",
            *_moved_lines(story),
            "",
            f"ledger     {story.origin}, {story.checkpoint_size} entries",
            f"published  entry {story.publication_index}, {_interval(story.published)}",
            f"claimed    entry {story.claim_index}, {_interval(story.claimed)}",
            f"verified   by {len(agreeing)} of {story.members} nodes, each on its own; {story.quorum} are a quorum",
            f"attested   by {', '.join(story.witnesses)}",
            "",
            table(headers, rows),
            *(f"objection  by {said.challenger.hex()}: {said.reason}" for said in story.challenges),
            "",
            limits_text(story),
        ]
    )


def limits_text(story: Story) -> str:
    """What a certificate does not say, each of these only where it is true of the scheme and of what was claimed."""
    seen = _SEEN.get(story.outcome)
    parts = [_LIMITS if seen is None else _LIMITS_OF_INTEGRITY.format(seen=seen)]
    if Statistic.CALIBRATED in story.statistics:
        parts.append(_LIMITS_OF_CALIBRATION)
    if story.endpoint is not None:
        parts.append(_LIMITS_OF_ENDPOINT)
    return " ".join([*parts, _LATER.format(suspect="model" if story.endpoint is None else "endpoint")])


def _found(story: Story) -> str:
    is_shown = story.endpoint is not None and story.outcome is Outcome.VERIFIED
    words = _SHOWN if is_shown else _FOUND[story.outcome]
    return words.format(scheme=story.scheme, owner=story.owner.hex())


def _subject(story: Story) -> str:
    if story.endpoint is not None:
        return f"the endpoint {story.endpoint}, as it answered when the nodes asked,"
    return f"the model with SHA-256 {story.model_sha256.hex()}"


def _counted(vote: VoteStory) -> str | None:
    if not vote.total:
        return None
    return counted(vote.matched, vote.total, aligned=vote.aligned, matched_unaligned=vote.matched_unaligned)


def _moved_lines(story: Story) -> list[str]:
    if story.published_by == story.owner:
        return []
    return [f"The owner published with the signing key {story.published_by.hex()} and has moved to this one since."]


def certificate_document(story: Story) -> dict[str, object]:
    """The same for programs."""
    return {
        "kind": "certificate",
        "outcome": str(story.outcome),
        "origin": story.origin,
        "owner": story.owner.hex(),
        "published_by": story.published_by.hex(),
        "scheme": story.scheme,
        **_suspect_document(story),
        "statistics": [str(statistic) for statistic in story.statistics],
        "publication": story.publication_hash.hex(),
        "publication_index": story.publication_index,
        "published": _interval_document(story.published),
        "claim": story.claim_hash.hex(),
        "claim_index": story.claim_index,
        "claimed": _interval_document(story.claimed),
        "policy_index": story.policy_index,
        "quorum": story.quorum,
        "members": story.members,
        "challenges": [
            {"challenger": said.challenger.hex(), "publication": said.publication.hex(), "reason": said.reason}
            for said in story.challenges
        ],
        "checkpoint_size": story.checkpoint_size,
        "witnesses": list(story.witnesses),
        "votes": [
            {
                "member": vote.member,
                "outcome": str(vote.outcome),
                "reason": vote.reason,
                "matched": vote.matched,
                "total": vote.total,
                "p_value": vote.p_value,
                "aligned": vote.aligned,
                "matched_unaligned": vote.matched_unaligned,
                "device": vote.device,
            }
            for vote in story.votes
        ],
    }


def _suspect_document(story: Story) -> dict[str, object]:
    digits = story.model_sha256.hex()
    is_file = story.endpoint is None
    return {
        "model_sha256": digits if is_file else None,
        "endpoint": story.endpoint,
        "endpoint_sha256": None if is_file else digits,
    }


def receipt_text(verified: VerifiedReceipt) -> str:
    """Tell a receipt: which message, by whom, at which place, since when."""
    signed, trusted = verified.signed, verified.trusted
    lines = [
        f"RECORDED: {message_line(verified)}",
        "",
        f"ledger    {trusted.checkpoint.origin}",
        f"entry     {verified.index} of {trusted.checkpoint.size}",
        f"message   {signed.hash.hex()}",
        f"signer    {', '.join(signer.hex() for signer in signed.signers)}",
        f"recorded  {utc(verified.recorded_s)} by the clock of the node that took it",
    ]
    if trusted.not_after_s is not None:
        lines.append(f"attested  by {utc(trusted.not_after_s)}, by the clocks of {', '.join(sorted(trusted.times_s))}")
    return "\n".join([*lines, "", f"It does not prove what the message says. {_LIMITS}"])


def unchecked(trusted: TrustedCheckpoint) -> list[str]:
    """What to tell of signatures that nobody on the reader's side can check."""
    if not trusted.unchecked:
        return []
    first, more = trusted.unchecked[:_NAMES_SHOWN], len(trusted.unchecked) - _NAMES_SHOWN
    names = ", ".join(map(shown, first)) + (f" and {more} more" if more > 0 else "")
    return [f"not checked: the checkpoint's signatures under {names}, by keys that the policy does not name"]


def older_publication_text(verified: VerifiedReceipt) -> str:
    """Tell whose publication came first, from its receipt."""
    attested_s = verified.trusted.not_after_s
    attested = f", attested by {utc(attested_s)}" if attested_s is not None else ""
    return (
        f"The older publication's receipt was checked: entry {verified.index}, signed by "
        f"{verified.signed.signer.hex()}, recorded {utc(verified.recorded_s)}{attested}."
    )


def receipt_document(verified: VerifiedReceipt) -> dict[str, object]:
    """The same for programs."""
    trusted = verified.trusted
    return {
        "kind": "receipt",
        "origin": trusted.checkpoint.origin,
        "index": verified.index,
        "message_hash": verified.signed.hash.hex(),
        "message_kind": verified.signed.message.KIND,
        "signers": [signer.hex() for signer in verified.signed.signers],
        "recorded_s": verified.recorded_s,
        "attested_by_s": trusted.not_after_s,
        "witnesses": sorted(trusted.times_s),
        "checkpoint_size": trusted.checkpoint.size,
    }


def message_line(verified: VerifiedReceipt) -> str:  # noqa: PLR0911 -- one for each kind
    """A message in one line."""
    match verified.signed.message:
        case Genesis(origin=origin, policy=policy):
            return f"the genesis of {origin} with {len(policy.members)} nodes, quorum {policy.quorum}"
        case Publication(scheme=scheme):
            return f"a publication of a {scheme} watermark"
        case Claim(model_pointer=pointer, publication=publication) if (endpoint := endpoint_named(pointer)) is not None:
            return f"a claim on the endpoint {endpoint} by the publication {publication.hex()}"
        case Claim(model_sha256=model, publication=publication):
            return f"a claim on the model {model.hex()} by the publication {publication.hex()}"
        case PolicyChange(policy=policy):
            return f"a change of policy: {len(policy.members)} nodes, quorum {policy.quorum}"
        case Withdrawal(target=target):
            return f"the withdrawal of {target.hex()}"
        case Rotation(old_key=old, new_key=new):
            return f"the move of an owner from the signing key {old.hex()} to {new.hex()}"
        case Challenge(claim=claim, publication=publication):
            return f"a challenge of the claim {claim.hex()} by the owner of the publication {publication.hex()}"
        case Vote(outcome=outcome, reason=reason, claim=claim):
            return f"a vote {outcome} ({reason}) on the claim {claim.hex()}"


def is_equivocation(content: bytes) -> bool:
    """Whether a file says that it is evidence of two pasts; damaged ones that still say so count."""
    return content.lstrip()[:1] == b"{" and f'"format": "{FORMAT}"'.encode() in content


def equivocation_text(story: EquivocationStory) -> str:
    """Tell evidence of two pasts: which two, who signed both, or who signed which."""
    if story.continued_root is None:
        conflict = f"Two different trees of size {story.larger.size} were signed: entries were exchanged."
    else:
        conflict = (
            f"The tree of size {story.larger.size} does not continue the tree of size {story.smaller.size}: "
            f"it continues the root {story.continued_root.hex()}. What was recorded was changed."
        )
    return "\n".join(
        [
            f"TWO PASTS of the log {story.origin} were signed.",
            conflict,
            "",
            *_side_lines("one side", story.smaller),
            *_side_lines("the other", story.larger),
            "",
            *_convicted_lines(story),
        ]
    )


def equivocation_document(story: EquivocationStory) -> dict[str, object]:
    """The same for programs."""
    return {
        "kind": "equivocation",
        "origin": story.origin,
        "smaller": _side_document(story.smaller),
        "larger": _side_document(story.larger),
        "continued_root": story.continued_root.hex() if story.continued_root else None,
        "convicted": [_signer_document(signer) for signer in story.convicted],
    }


def _convicted_lines(story: EquivocationStory) -> list[str]:
    if not story.convicted:
        return [
            "No key signed both: the log forked between the nodes above, and one side of them keeps another log.",
            "Ask the operators of both sides; the entries of both show who is right.",
        ]
    named = [f"  {_signer_text(signer)}" for signer in story.convicted]
    return ["These keys signed both. No honest node does; do not rely on them:", *named]


def _side_lines(title: str, side: Side) -> list[str]:
    lines = [f"{title:<10} size {side.size}, root {side.root.hex()}, signed by"]
    return lines + [f"  {_signer_text(signer)}" for signer in side.signers]


def _signer_text(signer: Signer) -> str:
    when = f", {utc(signer.time_s)}" if signer.time_s is not None else ""
    return f"{signer.name} (key {signer.key.key_id.hex()}{f', {signer.url}' if signer.url else ''}){when}"


def _side_document(side: Side) -> dict[str, object]:
    signers = [_signer_document(signer) for signer in side.signers]
    return {"size": side.size, "root": side.root.hex(), "signed_by": signers}


def _signer_document(signer: Signer) -> dict[str, object]:
    return {"name": signer.name, "key": str(signer.key), "url": signer.url, "time_s": signer.time_s}


def _interval(attested: Attested) -> str:
    if attested.not_before_s is None:
        return f"not after {utc(attested.not_after_s)}"
    return f"between {utc(attested.not_before_s)} and {utc(attested.not_after_s)}"


def _interval_document(attested: Attested) -> dict[str, object]:
    return {"not_before_s": attested.not_before_s, "not_after_s": attested.not_after_s}
