"""What a verified receipt or certificate says, in words, and what it does not.

Every sentence is backed by a signature or a hash that was checked against the reader's own policy.
"""

from client.output import table, utc
from registry.certificate import Attested, Story
from registry.messages import Challenge, Claim, Genesis, PolicyChange, Publication, Rotation, Vote, Withdrawal
from registry.receipt import VerifiedReceipt

_LIMITS = (
    "It does not prove that the owner trained the model, that nobody published the same elsewhere, or who the person "
    "behind the public key is. It rests on the trust policy that it was checked against."
)


def certificate_text(story: Story) -> str:
    """Tell a certificate: who, what, when, by whose word, with which numbers."""
    agreeing = [vote for vote in story.votes if vote.outcome == "VERIFIED"]
    headers = ["node", "vote", "reason", "matched", "p-value", "device"]
    rows = [[v.member, v.outcome, v.reason, f"{v.matched}/{v.total}", v.p_value, v.device] for v in story.votes]
    return "\n".join(
        [
            f"VERIFIED: the model with SHA-256 {story.model_sha256.hex()}",
            f"carries the {story.scheme} watermark of the owner {story.owner.hex()}.",
            "",
            f"ledger     {story.origin}, {story.checkpoint_size} entries",
            f"published  entry {story.publication_index}, {_interval(story.published)}",
            f"claimed    entry {story.claim_index}, {_interval(story.claimed)}",
            f"verified   by {len(agreeing)} of {story.members} nodes, each on its own; {story.quorum} are a quorum",
            f"attested   by {', '.join(story.witnesses)}",
            "",
            table(headers, rows),
            "",
            _LIMITS,
        ]
    )


def certificate_document(story: Story) -> dict[str, object]:
    """The same for programs."""
    return {
        "kind": "certificate",
        "origin": story.origin,
        "owner": story.owner.hex(),
        "scheme": story.scheme,
        "model_sha256": story.model_sha256.hex(),
        "publication": story.publication_hash.hex(),
        "publication_index": story.publication_index,
        "published": _interval_document(story.published),
        "claim": story.claim_hash.hex(),
        "claim_index": story.claim_index,
        "claimed": _interval_document(story.claimed),
        "quorum": story.quorum,
        "members": story.members,
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
                "device": vote.device,
            }
            for vote in story.votes
        ],
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


def _interval(attested: Attested) -> str:
    if attested.not_before_s is None:
        return f"not after {utc(attested.not_after_s)}"
    return f"between {utc(attested.not_before_s)} and {utc(attested.not_after_s)}"


def _interval_document(attested: Attested) -> dict[str, object]:
    return {"not_before_s": attested.not_before_s, "not_after_s": attested.not_after_s}
