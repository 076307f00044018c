"""Whom the reader of a receipt or certificate trusts: a C2SP tlog-policy file.

::

    log <vkey> [url]                      a key that may sign the log's checkpoints
    witness <name> <vkey> [url]           a cosigner, Ed25519 (type 0x04) or ML-DSA-44 (type 0x06)
    group <name> all|any|<k> <member>…    k of these witnesses or groups
    quorum <name>|none                    which of them must have cosigned

In a ledger's own policy file every node is there twice: as a log key under the ledger's origin, and as a witness. The
URL of both is the node's API.

A node that cosigns with both kinds of key is two witnesses, whose vkeys bear its one cosigner name, and a group of the
two: ``any`` while the nodes change over, ``all`` where neither kind is trusted alone. That group stands in the quorum
for the node, and the node has one clock, however many of its keys have signed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry.checkpoint import Checkpoint, parse_decimal
from registry.errors import MalformedError, UntrustedError, shown
from registry.note import KeyType, Note, VerifiedSignature, VerifierKey, verify_signatures
from registry.policy import GROUP_OF_NODES, NO_QUORUM, Policy

# 31 members with a log key, two witnesses and a group, under the longest names and URLs, need 142 KiB.
POLICY_BYTES_MAX = 160 * 1024
KEYS_MAX = 256
GROUPS_MAX = 128


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A log key or a witness; name is the policy file's word for a witness, the origin for a log key."""

    name: str
    key: VerifierKey
    url: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """At least `threshold` of the members, which are names of witnesses and of groups."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustedCheckpoint:
    """A checkpoint that the policy vouches for.

    Attributes:
        times_s: when each cosigner of the policy cosigned it, POSIX seconds by its own clock. A cosigner is called by
            its witness's name; by that of its first witness, in the policy's order, which signed, where it has two.
        not_before_s: the latest time at or after which a whole quorum signed: until then it knew no larger tree.
            Fewer would not do, for a node that catches up signs old sizes late. None without witnesses.
        not_after_s: the earliest time by which a whole quorum had signed. None without witnesses.
        unchecked: names on the signatures of keys that the policy does not have, which prove nothing to this reader.
    """

    checkpoint: Checkpoint
    times_s: Mapping[str, int]
    not_before_s: int | None
    not_after_s: int | None
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """What a policy file says; groups stand behind their members, so none can hold itself."""

    logs: tuple[TrustedKey, ...]
    witnesses: tuple[TrustedKey, ...]
    groups: Mapping[str, Group]
    quorum: str

    def __post_init__(self) -> None:
        """Refuse what no policy file says: it could not be checked, or would be read as something else."""
        if len({log.name for log in self.logs}) != 1:
            raise MalformedError("the log keys have different names, or there are none; one ledger has one origin")
        keys = [trusted.key.public_key for trusted in (*self.logs, *self.witnesses)]
        if len(set(keys)) != len(keys) or len(keys) > KEYS_MAX:
            raise MalformedError("one key stands in two lines, or there are too many keys")
        if len({(t.key.name, t.key.key_id) for t in (*self.logs, *self.witnesses)}) != len(keys):
            raise MalformedError("two keys of one name have the same key ID: nobody could tell whose a signature is")
        _check_groups(self)
        _check_one_voice_each(self)

    @property
    def origin(self) -> str:
        """Name of the log; a policy file of one ledger has one."""
        return self.logs[0].name

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the log can be asked, without repetitions, in the file's order."""
        known = [key.url for key in (*self.logs, *self.witnesses) if key.url]
        return tuple(dict.fromkeys(known))

    @classmethod
    def of(cls, policy: Policy, origin: str) -> "TrustPolicy":
        """The trust policy that follows from a ledger's own policy: its nodes, its quorum."""
        logs = tuple(TrustedKey(origin, m.log_key(origin), m.api_url) for m in policy.members)
        witnesses = tuple(TrustedKey(m.name, m.cosigner(origin), m.api_url) for m in policy.members)
        group = Group(policy.quorum, tuple(member.name for member in policy.members))
        return cls(logs=logs, witnesses=witnesses, groups={GROUP_OF_NODES: group}, quorum=GROUP_OF_NODES)

    @classmethod
    def parse(cls, text: str) -> "TrustPolicy":
        """Read a policy file.

        Raises:
            MalformedError: naming the line, or the name or key that makes no sense with the other lines.
        """
        if len(text.encode(errors="surrogatepass")) > POLICY_BYTES_MAX:
            raise MalformedError(f"policy file: more than {POLICY_BYTES_MAX} bytes", code="too_large")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                reader.read(line)
            except MalformedError as error:
                raise MalformedError(f"policy file: line {number}: {error}") from error
        try:
            return reader.finish()
        except MalformedError as error:
            raise MalformedError(f"policy file: {error}") from error

    def check(self, note: Note) -> TrustedCheckpoint:
        """Check a signed checkpoint: the log's signature, every known cosignature, and the quorum.

        The signatures come first: a text that its own signatures do not fit is damaged, not another log's.

        Raises:
            UntrustedError: another log, no signature of the log, or too few cosignatures for the quorum.
            RefusedError: a signature of a known key does not hold, or a key signed twice.
            MalformedError: the text is not a checkpoint.
        """
        checkpoint = Checkpoint.parse(note.text)
        verified = verify_signatures(note, [trusted.key for trusted in (*self.logs, *self.witnesses)])
        if checkpoint.origin != self.origin:
            raise UntrustedError(f"a checkpoint of {shown(checkpoint.origin)}; the policy trusts {self.origin}")
        signed = {signature.key: signature.timestamp_s for signature in verified}
        if not any(log.key in signed for log in self.logs):
            raise UntrustedError(f"the checkpoint has no signature of a known log key of {self.origin}")
        cosigned = [(w, time_s) for w in self.witnesses if (time_s := signed.get(w.key)) is not None]
        names = {witness.name for witness, _ in cosigned}
        if self.quorum != NO_QUORUM and not self._is_satisfied(self.quorum, names):
            who = ", ".join(sorted(names)) or "nobody"
            raise UntrustedError(f"the checkpoint is cosigned by {who}: the quorum {shown(self.quorum)} is not reached")
        early = sorted(((witness.name, time_s) for witness, time_s in cosigned), key=lambda signed: signed[1])
        return TrustedCheckpoint(
            checkpoint,
            _one_clock_each(cosigned),
            not_before_s=self._reached(early[::-1]),
            not_after_s=self._reached(early),
            unchecked=_unchecked(note, verified),
        )

    def _reached(self, signed: Sequence[tuple[str, int]]) -> int | None:
        """Time of the signature that completes a quorum, taken in this order; of the last one where none is asked."""
        names: set[str] = set()
        for name, time_s in signed:
            names.add(name)
            if self.quorum != NO_QUORUM and self._is_satisfied(self.quorum, names):
                return time_s
        return signed[-1][1] if signed else None

    def _is_satisfied(self, name: str, signed: Iterable[str]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in set(signed)
        return sum(self._is_satisfied(member, signed) for member in group.members) >= group.threshold

    def __str__(self) -> str:
        lines = [_line("log", str(log.key), log.url) for log in self.logs]
        lines += [_line("witness", w.name, str(w.key), w.url) for w in self.witnesses]
        lines += [_line("group", name, str(g.threshold), *g.members) for name, g in self.groups.items()]
        return "".join(f"{line}\n" for line in [*lines, f"quorum {self.quorum}"])


class _Reader:
    """Collects the lines of a policy file."""

    def __init__(self) -> None:
        self.logs: list[TrustedKey] = []
        self.witnesses: list[TrustedKey] = []
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None

    def read(self, line: str) -> None:
        """Take one line."""
        if any((ord(c) < 0x20 and c != "\t") or ord(c) == 0x7F for c in line):
            raise MalformedError("a control character")
        words = [word for word in line.replace("\t", " ").split(" ") if word]
        if not words or words[0].startswith("#"):
            return
        readers = {"log": self._log, "witness": self._witness, "group": self._group, "quorum": self._quorum}
        if words[0] not in readers:
            raise MalformedError(f"unknown word {shown(words[0])}")
        readers[words[0]](words[1:])

    def finish(self) -> TrustPolicy:
        """Put the lines together; raises MalformedError for what no single line shows."""
        if self.quorum is None or not self.logs:
            raise MalformedError("it needs a log line and a quorum line")
        return TrustPolicy(
            logs=tuple(self.logs), witnesses=tuple(self.witnesses), groups=self.groups, quorum=self.quorum
        )

    def _log(self, words: list[str]) -> None:
        vkey, url = _one_or_two(words)
        key = VerifierKey.parse(vkey)
        if key.type is not KeyType.ED25519:
            raise MalformedError("a log key is a plain Ed25519 key (type 0x01)")
        self.logs.append(TrustedKey(key.name, key, url))

    def _witness(self, words: list[str]) -> None:
        if not words:
            raise MalformedError("a witness has a name and a key")
        vkey, url = _one_or_two(words[1:])
        key = VerifierKey.parse(vkey)
        if key.type is KeyType.ED25519:
            raise MalformedError("a witness key is a cosignature key (type 0x04 or 0x06)")
        self.witnesses.append(TrustedKey(words[0], key, url))

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise MalformedError("a group has a name, a threshold and members")
        name, threshold, members = words[0], words[1], words[2:]
        if name in self.groups:
            raise MalformedError(f"the name {shown(name)} is taken")
        for member in members:
            self._check_defined(member)
        least = {"any": 1, "all": len(members)}.get(threshold) or parse_decimal(threshold)
        self.groups[name] = Group(least, tuple(members))

    def _quorum(self, words: list[str]) -> None:
        if self.quorum is not None or len(words) != 1:
            raise MalformedError("exactly one quorum, a name or none")
        if words[0] != NO_QUORUM:
            self._check_defined(words[0])
        self.quorum = words[0]

    def _check_defined(self, name: str) -> None:
        if name not in self.groups and not any(w.name == name for w in self.witnesses):
            raise MalformedError(f"{shown(name)} is not defined above")


def _check_groups(trust: TrustPolicy) -> None:
    """Refuse names that mean two things, and members that are no witness and no group that stands before."""
    known, members = {NO_QUORUM}, set[str]()
    for name in (*(witness.name for witness in trust.witnesses), *trust.groups):
        group = trust.groups.get(name)
        if name in known:
            raise MalformedError(f"the name {shown(name)} is taken")
        for member in group.members if group else ():
            if member == NO_QUORUM or member not in known or member in members:
                raise MalformedError(
                    f"{shown(member)} in the group {shown(name)} is not defined above, or is a member twice"
                )
            members.add(member)
        if group and not 1 <= group.threshold <= len(group.members):
            raise MalformedError(
                f"the group {shown(name)} has a threshold of {group.threshold} of {len(group.members)}"
            )
        known.add(name)
    if trust.quorum not in known or len(trust.groups) > GROUPS_MAX:
        raise MalformedError(
            f"the quorum {shown(trust.quorum)} is not defined, or there are more than {GROUPS_MAX} groups"
        )


def _check_one_voice_each(trust: TrustPolicy) -> None:
    """Refuse a group in which one node would count twice, by two keys."""
    group_of: dict[str, str] = {}
    for name, group in trust.groups.items():
        cosigners = [w.key.name for w in trust.witnesses if w.name in group.members]
        is_one_node = len(set(cosigners)) == 1 and len(cosigners) == len(group.members)
        for cosigner in set(cosigners):
            if group_of.setdefault(cosigner, name) != name or (cosigners.count(cosigner) > 1 and not is_one_node):
                raise MalformedError(f"the keys of {cosigner} need a group of their own: one voice each")


def _unchecked(note: Note, verified: Iterable[VerifiedSignature]) -> tuple[str, ...]:
    known = {(signature.key.name, signature.key.key_id) for signature in verified}
    return tuple(line.name for line in note.signatures if (line.name, line.key_id) not in known)


def _one_clock_each(cosigned: Iterable[tuple[TrustedKey, int]]) -> dict[str, int]:
    """When each cosigner signed, by its witness's name.

    A second key must not give a node a second voice in the median, so witnesses whose keys bear one name count once.
    """
    clocks: dict[str, tuple[str, int]] = {}
    for witness, time_s in cosigned:
        clocks.setdefault(witness.key.name, (witness.name, time_s))
    return dict(clocks.values())


def _one_or_two(words: list[str]) -> tuple[str, str | None]:
    if len(words) not in {1, 2}:
        raise MalformedError("expected a key and perhaps a URL")
    return words[0], words[1] if len(words) == 2 else None


def _line(*words: str | None) -> str:
    return " ".join(word for word in words if word)
