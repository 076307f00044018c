"""The policy file: C2SP's format, quorums of groups, and who vouches for a checkpoint."""

from dataclasses import replace

import pytest
from fakes import LedgerMaker, private_key

from registry.errors import MalformedError, RefusedError, UntrustedError
from registry.note import Note, cosign, sign
from registry.trust import TrustPolicy

MAKER = LedgerMaker()
TEXT = str(MAKER.trust)
LOGS = [line for line in TEXT.splitlines() if line.startswith("log ")]
WITNESSES = [line for line in TEXT.splitlines() if line.startswith("witness ")]


def policy_with(*rules):
    return TrustPolicy.parse("\n".join([*LOGS, *WITNESSES, *rules]) + "\n")


def test_a_policy_prints_as_it_was_read():
    assert str(TrustPolicy.parse(TEXT)) == TEXT
    assert TrustPolicy.parse(TEXT).origin == MAKER.origin
    assert TrustPolicy.parse(TEXT).urls == tuple(member.api_url for member in MAKER.policy.members)


def test_comments_and_spaces_are_passed_over():
    assert str(TrustPolicy.parse("# whom we trust\n\n" + TEXT.replace("witness ", "  witness\t "))) == TEXT


@pytest.mark.parametrize(
    ("rules", "signers", "trusted"),
    [
        (["group g 2 node-1 node-2 node-3", "quorum g"], [1, 3], True),
        (["group g 2 node-1 node-2 node-3", "quorum g"], [1], False),
        (["group g all node-1 node-2", "quorum g"], [1, 3], False),
        (["group g all node-1 node-2", "quorum g"], [1, 2], True),
        (["group g any node-1 node-2", "quorum g"], [2], True),
        (["group g any node-1 node-2", "quorum g"], [3], False),
        (["group a any node-1 node-2", "group b all a node-3", "quorum b"], [2, 3], True),
        (["group a any node-1 node-2", "group b all a node-3", "quorum b"], [1, 2], False),
        (["quorum node-2"], [2], True),
        (["quorum node-2"], [1, 3], False),
        (["quorum none"], [1], True),
    ],
)
def test_a_quorum_is_what_the_groups_say(rules, signers, trusted):
    note = MAKER.note(nodes=signers)
    if trusted:
        assert policy_with(*rules).check(note).checkpoint.size == 1
    else:
        with pytest.raises(UntrustedError):
            policy_with(*rules).check(note)


def test_a_checkpoint_needs_a_signature_of_the_log():
    note = MAKER.note()
    cosignatures = tuple(line for line in note.signatures if line.name != MAKER.origin)
    with pytest.raises(UntrustedError, match="no signature of a known log key"):
        MAKER.trust.check(Note(note.text, cosignatures))


def test_one_node_that_cosigns_twice_is_not_two_nodes():
    note = MAKER.note(nodes=[1])
    with pytest.raises(RefusedError):
        MAKER.trust.check(Note(note.text, (*note.signatures, note.signatures[1])))


def signed_at(times_s, *, quorum="nodes"):
    """A checkpoint that the nodes cosigned at these times."""
    checkpoint = str(MAKER.checkpoint())
    lines = [sign(checkpoint, name=MAKER.origin, private_key=private_key("node-1/note"))]
    for number, time_s in times_s.items():
        name, key = f"{MAKER.origin}/node-{number}", private_key(f"node-{number}/cosigner")
        lines.append(cosign(checkpoint, name=name, private_key=key, timestamp_s=time_s))
    return replace(MAKER.trust, quorum=quorum).check(Note(checkpoint, tuple(lines)))


@pytest.mark.parametrize(
    ("times_s", "bounds"),
    [
        ({1: 1000, 2: 1010}, (1000, 1010)),
        ({1: 1000, 2: 1010, 3: 1020}, (1010, 1010)),
        ({1: 1000, 2: 1010, 3: 1}, (1000, 1000)),
        ({1: 1000, 2: 1010, 3: 10**9}, (1010, 1010)),
    ],
    ids=["two of three", "all", "a clock that is slow", "a node that caught up late"],
)
def test_a_time_counts_when_a_quorum_says_it(times_s, bounds):
    trusted = signed_at(times_s)
    assert (trusted.not_before_s, trusted.not_after_s) == bounds


def test_without_a_quorum_to_satisfy_all_witnesses_bound_the_time():
    assert (signed_at({1: 5, 2: 9}, quorum="none").not_before_s, signed_at({}, quorum="none").not_after_s) == (5, None)


BAD = {
    "no quorum": [*LOGS, *WITNESSES],
    "no log": [*WITNESSES, "quorum node-1"],
    "two quorums": [*LOGS, *WITNESSES, "quorum node-1", "quorum node-2"],
    "undefined member": [*LOGS, "group g 1 node-1", "quorum g"],
    "undefined quorum": [*LOGS, *WITNESSES, "quorum g"],
    "member twice": [*LOGS, *WITNESSES, "group g 2 node-1 node-1", "quorum g"],
    "member of two groups": [*LOGS, *WITNESSES, "group a any node-1", "group b any node-1", "quorum b"],
    "threshold too high": [*LOGS, *WITNESSES, "group g 2 node-1", "quorum g"],
    "threshold zero": [*LOGS, *WITNESSES, "group g 0 node-1", "quorum g"],
    "threshold a word": [*LOGS, *WITNESSES, "group g most node-1", "quorum g"],
    "group without members": [*LOGS, *WITNESSES, "group g any", "quorum g"],
    "name taken": [*LOGS, *WITNESSES, WITNESSES[0].replace("node-1 ", "node-2 ", 1), "quorum node-1"],
    "group named none": [*LOGS, *WITNESSES, "group none any node-1", "quorum none"],
    "key twice": [*LOGS, *WITNESSES, WITNESSES[0].replace("witness node-1 ", "witness again "), "quorum node-1"],
    "log key as witness": [*LOGS, LOGS[0].replace("log ", "witness w "), "quorum w"],
    "witness key as log": [WITNESSES[0].replace("witness node-1 ", "log "), "quorum none"],
    "unknown word": [*LOGS, *WITNESSES, "trust everybody", "quorum node-1"],
    "witness without key": [*LOGS, "witness w", "quorum none"],
    "nameless witness": [*LOGS, "witness", "quorum none"],
    "too many words": [*LOGS, "quorum none none"],
    "control character": [*LOGS, "quorum none\x01"],
    "logs of two origins": [
        *LOGS,
        *[line for line in str(LedgerMaker(origin="b").trust).splitlines() if "log " in line],
        "quorum none",
    ],
    "too long": ["# " + "x" * 70_000, *LOGS, "quorum none"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_file_is_refused(name):
    with pytest.raises(MalformedError, match="policy file"):
        TrustPolicy.parse("\n".join(BAD[name]) + "\n")
