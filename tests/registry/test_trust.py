"""The policy file: C2SP's format, quorums of groups, and who vouches for a checkpoint."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from fakes import ORIGIN, LedgerMaker, policy, private_key, public_key
from hypothesis import given
from hypothesis import strategies as st

from registry.checkpoint import Checkpoint
from registry.errors import MalformedError, RefusedError, UntrustedError
from registry.messages import Genesis
from registry.note import KeyType, Note, VerifierKey, cosign, sign
from registry.trust import GROUPS_MAX, POLICY_BYTES_MAX, Group, TrustPolicy

MAKER = LedgerMaker()
TEXT = str(MAKER.trust)
LOGS = [line for line in TEXT.splitlines() if line.startswith("log ")]
WITNESSES = [line for line in TEXT.splitlines() if line.startswith("witness ")]


PQ_KEYS = {f"node-{n}": MLDSA44PrivateKey.from_seed_bytes(bytes([n]) * 32) for n in (1, 2, 3)}


def pq_verifier(node):
    public_key = PQ_KEYS[node].public_key().public_bytes_raw()
    return VerifierKey(name=f"{MAKER.origin}/{node}", type=KeyType.ML_DSA_COSIGNATURE, public_key=public_key)


BOTH_KINDS = [*WITNESSES, *(f"witness {node}-pq {pq_verifier(node)}" for node in PQ_KEYS)]
CHAIN = ["group g0 any node-1", *(f"group g{n} any g{n - 1}" for n in range(1, GROUPS_MAX))]


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


def hybrid_policy(word):
    """Each node has a witness of each kind; `word` of the two make the node."""
    groups = [f"group g-{node} {word} {node} {node}-pq" for node in PQ_KEYS]
    rules = [*LOGS, *BOTH_KINDS, *groups, "group nodes 2 g-node-1 g-node-2 g-node-3", "quorum nodes"]
    return TrustPolicy.parse("\n".join(rules) + "\n")


def hybrid_note(*, ed25519=(), pq=(), time_s=MAKER.now_s, pq_text=None):
    """The checkpoint with Ed25519 and ML-DSA cosignatures of these nodes."""
    note = MAKER.note(nodes=ed25519 or [1])
    kept = [line for line in note.signatures if ed25519 or line.name == MAKER.origin]
    text = pq_text or note.text
    for number in pq:
        name, key = f"{MAKER.origin}/node-{number}", PQ_KEYS[f"node-{number}"]
        kept.append(cosign(text, name=name, private_key=key, timestamp_s=time_s))
    return Note(note.text, tuple(kept))


@pytest.mark.parametrize(
    ("word", "ed25519", "pq", "trusted"),
    [
        ("any", [1, 2], [], True),
        ("any", [], [1, 2], True),
        ("any", [1], [2], True),
        ("any", [1], [1], False),
        ("all", [1, 2], [1, 2], True),
        ("all", [1, 2, 3], [1, 2], True),
        ("all", [1, 2], [2, 3], False),
        ("all", [1, 2, 3], [], False),
        ("all", [], [1, 2, 3], False),
    ],
)
def test_a_node_with_both_kinds_of_key_is_a_group_of_two_witnesses(word, ed25519, pq, trusted):
    trust, note = hybrid_policy(word), hybrid_note(ed25519=ed25519, pq=pq)
    assert str(TrustPolicy.parse(str(trust))) == str(trust)
    if trusted:
        assert trust.check(note).checkpoint == MAKER.checkpoint()
    else:
        with pytest.raises(UntrustedError, match="quorum 'nodes'"):
            trust.check(note)


def test_two_keys_do_not_give_a_node_two_voices_on_the_time():
    trust = hybrid_policy("any")
    honest = trust.check(hybrid_note(ed25519=[2], pq=[1], time_s=1))
    assert honest.times_s == {"node-2": MAKER.now_s, "node-1-pq": 1}
    twice = trust.check(hybrid_note(ed25519=[1, 2], pq=[1], time_s=1))
    assert set(twice.times_s) == {"node-1", "node-2"}
    assert twice.not_after_s == MAKER.now_s


def test_a_cosignature_that_states_no_time_is_no_witness():
    with pytest.raises(UntrustedError):
        hybrid_policy("any").check(hybrid_note(ed25519=[1], pq=[2], time_s=0))


def test_an_ml_dsa_cosignature_of_another_checkpoint_rejects_the_note():
    other = str(Checkpoint(origin=MAKER.origin, size=2, root=bytes(32)))
    forged = hybrid_note(ed25519=[1, 2], pq=[3], pq_text=other)
    assert MAKER.trust.check(forged)
    with pytest.raises(RefusedError) as refused:
        hybrid_policy("any").check(forged)
    assert refused.value.code == "bad_signature"


def test_a_policy_has_room_for_every_member_with_both_kinds_of_key():
    origin, url = "o" * 190, "https://" + "u" * 504
    lines, groups = [], []
    for number in range(31):
        name = f"{number}".rjust(64, "n")
        ed25519, ml_dsa = public_key(f"{number}"), number.to_bytes(1312, "big")
        log = VerifierKey(name=origin, type=KeyType.ED25519, public_key=public_key(f"log {number}"))
        keys = {
            name: VerifierKey(name=f"{origin}/{name}", type=KeyType.COSIGNATURE, public_key=ed25519),
            f"{name}-pq": VerifierKey(name=f"{origin}/{name}", type=KeyType.ML_DSA_COSIGNATURE, public_key=ml_dsa),
        }
        lines += [f"log {log} {url}", *(f"witness {word} {key} {url}" for word, key in keys.items())]
        groups.append(f"{name}-g")
        lines.append(f"group {name}-g all {' '.join(keys)}")
    text = "\n".join([*lines, f"group nodes 16 {' '.join(groups)}", "quorum nodes"])
    assert 140_000 < len(text) <= POLICY_BYTES_MAX
    assert len(TrustPolicy.parse(text).witnesses) == 62


def test_the_deepest_policy_is_checked():
    rules = [*LOGS, *WITNESSES, *CHAIN, f"quorum g{GROUPS_MAX - 1}"]
    assert TrustPolicy.parse("\n".join(rules)).check(MAKER.note(nodes=[1])).checkpoint.size == 1


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


WORDS = st.sampled_from(["nodes", "none", "any", "all", "2", "#a", "log", "quorum", "a/b", "a\u200b"])
NAMES = st.lists(WORDS | st.text(max_size=64), min_size=1, max_size=3, unique=True)
URLS = st.from_regex(r"https?://[ -~]{1,20}", fullmatch=True) | st.text(max_size=30)
GOOD_URLS = (
    st.just("http://127.0.0.1:1")
    | st.just("https://a")
    | st.from_regex(r"https?://[a-z]{1,9}:[1-9](/[!-~]{0,9})?", fullmatch=True)
)


@given(
    NAMES, st.lists(st.one_of(*[GOOD_URLS] * 3, URLS), min_size=3, max_size=3), st.just(ORIGIN) | st.text(max_size=20)
)
def test_the_trust_policy_of_every_policy_that_decodes_can_be_printed_and_read(names, urls, origin):
    value = policy(*range(1, len(names) + 1)).to_value()
    for member, name, url in zip(value["members"], sorted(names), urls, strict=False):
        member |= {"name": name, "api_url": url}
    try:
        genesis = Genesis.from_body({"time_s": 0, "origin": origin, "policy": value})
    except MalformedError:
        return
    trust = TrustPolicy.of(genesis.policy, origin)
    assert TrustPolicy.parse(str(trust)) == trust
    with pytest.raises(UntrustedError):
        trust.check(Note(str(Checkpoint(origin=origin, size=0, root=bytes(32))), ()))


CYCLES = {
    "a group in itself": {"g": Group(1, ("g",))},
    "two groups in each other": {"a": Group(1, ("b",)), "b": Group(1, ("a",))},
    "a group called like its member": {"node-1": Group(1, ("node-1",))},
    "a group before its member": {"a": Group(1, ("b",)), "b": Group(1, ("node-1",))},
}


@pytest.mark.parametrize("groups", CYCLES.values(), ids=CYCLES)
def test_groups_that_hold_each_other_are_refused(groups):
    with pytest.raises(MalformedError):
        replace(MAKER.trust, groups=groups, quorum=next(iter(groups)))
    with pytest.raises(MalformedError):
        policy_with(*(f"group {name} any {' '.join(group.members)}" for name, group in groups.items()), "quorum none")


def test_a_group_of_groups_is_no_cycle():
    groups = {"b": Group(1, ("node-1",)), "a": Group(2, ("b", "node-2"))}
    trust = replace(MAKER.trust, groups=groups, quorum="a")
    assert trust.check(MAKER.note(nodes=[1, 2]))
    assert TrustPolicy.parse(str(trust)) == trust


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
    "too many groups": [*LOGS, *WITNESSES, *CHAIN, f"group g{GROUPS_MAX} any g{GROUPS_MAX - 1}", "quorum node-1"],
    "two keys of one node in a group of several": [*LOGS, *BOTH_KINDS, "group g 2 node-1 node-1-pq node-2", "quorum g"],
    "two keys of one node in a group with a group": [
        *LOGS,
        *BOTH_KINDS,
        "group a any node-2 node-2-pq",
        "group g 2 node-1 node-1-pq a",
        "quorum g",
    ],
    "two keys of one node in two groups": [
        *LOGS,
        *BOTH_KINDS,
        "group a any node-1",
        "group b any node-1-pq",
        "group g all a b",
        "quorum g",
    ],
    "truncated ML-DSA key": [*LOGS, BOTH_KINDS[-1][:-4], "quorum none"],
    "too long": ["# " + "x" * POLICY_BYTES_MAX, *LOGS, "quorum none"],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_file_is_refused(name):
    with pytest.raises(MalformedError, match="policy file"):
        TrustPolicy.parse("\n".join(BAD[name]) + "\n")
