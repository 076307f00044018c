"""What the ledger process and the verifier process say to each other: jobs one way, answers the other.

Both are canonical msgpack behind a length of four bytes, read as strictly as a stranger's: the verifier parses hostile
files, so the ledger process takes nothing from it on trust but numbers in their ranges.

A claim on a prediction endpoint takes two jobs, since the verifier process has no network. The first has neither a
model nor answers, and is answered with the pictures to ask about (node.verifier.questions); the second brings what the
endpoint answered.
"""

from dataclasses import asdict, dataclass
from typing import cast

from node.endpoint.pictures import CLASSES_MAX, PICTURES_MAX
from registry import schema
from registry.encoding import Value, decode, encode
from registry.errors import MalformedError
from registry.evidence import NULLS_MAX
from registry.verdict import Measurement, Outcome

FRAME_BYTES_MAX = 64 * 1024
LENGTH_BYTES = 4
READY = b"ready"
UNUSABLE_PUBLIC_MAX = 2**16  # of one answer; more are counted as so many
EXIT_TROUBLE = 75  # sysexits.h EX_TEMPFAIL: the machine, not the job, is to blame


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One claim to verify.

    Attributes:
        model_path, evidence_path: the fetched files; no model where an endpoint is claimed.
        model_sha256, evidence_sha256: what they must hash to.
        model_bytes_max, evidence_bytes_max: their largest sizes; a base is a model.
        base_path: the fetched weights of the base that the evidence declares; empty where it declares none.
        null_paths: the fetched weights of the null models that it declares, in its order.
        scheme, head_commitment, info_commitment: what the owner published.
        watermark_key: revealed by the claim; its binding was checked by the rules.
        control_seed: where the controls' randomness comes from; nobody knew it when the claim was signed.
        permutations, controls: how many channel permutations and fresh control models to run.
        gamma_permille: share of triggers below which no control can change the outcome, so none is run.
        refute_permille, control_permille: the policy's other shares by which counts are judged.
        answers: the classes that an endpoint gave the pictures of the evidence, in their order; None for a model's
            file, and before the endpoint was asked.
    """

    model_path: str
    model_sha256: bytes
    model_bytes_max: int
    evidence_path: str
    evidence_sha256: bytes
    evidence_bytes_max: int
    base_path: str
    null_paths: tuple[str, ...]
    scheme: str
    head_commitment: bytes
    info_commitment: bytes
    watermark_key: bytes
    control_seed: bytes
    permutations: int
    controls: int
    gamma_permille: int
    refute_permille: int
    control_permille: int
    answers: tuple[int, ...] | None = None

    @property
    def wants_pictures(self) -> bool:
        """Whether the pictures are wanted that an endpoint is to be asked about."""
        return not self.model_path and self.answers is None

    def encode(self) -> bytes:
        """The job as a frame's content."""
        answers = None if self.answers is None else list(self.answers)
        lists = {"null_paths": list(self.null_paths), "answers": answers}
        return encode(cast("dict[str, Value]", asdict(self) | lists))

    @classmethod
    def decode(cls, raw: bytes) -> "Job":
        """Read a job; raises MalformedError."""
        read = schema.fields(decode(raw, bytes_max=FRAME_BYTES_MAX), _JOB, what="job")
        read["null_paths"] = tuple(cast("list[str]", read["null_paths"]))
        if read["answers"] is not None:
            read["answers"] = tuple(cast("list[int]", read["answers"]))
        return cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields, checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came out: numbers to judge, or an outcome that needs none.

    Attributes:
        measurement: the counts; None when nothing was measured.
        outcome: REFUTED or UNVERIFIABLE when nothing was measured, else None.
        reason: stable word for the vote; empty with a measurement.
        detail: for the node's log.
        device, software: what computed it.
        architecture: of the evidence, where files were looked for that the operator keeps as its public models.
        unusable_public: how many of these files were no control of it.
    """

    measurement: Measurement | None
    outcome: Outcome | None
    reason: str
    detail: str
    device: str
    software: str
    architecture: str = ""
    unusable_public: int = 0

    def __post_init__(self) -> None:
        """Refuse an answer that is both or neither."""
        if (self.measurement is None) == (self.outcome is None):
            raise MalformedError("answer: it needs a measurement or an outcome, not both")

    def encode(self) -> bytes:
        """The answer as a frame's content."""
        value: dict[str, Value] = {
            "measurement": self.measurement.to_value() if self.measurement else None,
            "outcome": str(self.outcome) if self.outcome else None,
            "reason": self.reason,
            "detail": self.detail,
            "device": self.device,
            "software": self.software,
            "architecture": self.architecture,
            "unusable_public": self.unusable_public,
        }
        return encode(value)

    @classmethod
    def decode(cls, raw: bytes) -> "Answer":
        """Read an answer; raises MalformedError."""
        read = schema.fields(decode(raw, bytes_max=FRAME_BYTES_MAX), _ANSWER, what="answer")
        return cls(**read)  # type: ignore[arg-type]  # schema.fields returns exactly these fields, checked


def unmeasured(outcome: Outcome, reason: str, detail: str = "") -> Answer:
    """An answer without numbers; what computed it is filled in by whoever knows."""
    return Answer(measurement=None, outcome=outcome, reason=reason, detail=plain(detail), device="none", software="")


def plain(text: str, length_max: int = 400) -> str:
    """A text that the encoding takes: control characters replaced, cut to a length."""
    return "".join(c if c.isprintable() else " " for c in text)[:length_max]


def frame(content: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Content behind its length.

    Raises:
        ValueError: it is longer than a frame may be.
    """
    if len(content) > bytes_max:
        raise ValueError(f"a frame of {len(content)} bytes; at most {bytes_max} are allowed")
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def frame_bytes(header: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> int:
    """Length of the content behind a header; raises MalformedError."""
    length = int.from_bytes(header, "big")
    if len(header) != LENGTH_BYTES or length > bytes_max:
        raise MalformedError(f"a frame of {length} bytes")
    return length


def _outcome(value: Value) -> Outcome:
    word = schema.text(16)(value)
    if word not in {Outcome.REFUTED, Outcome.UNVERIFIABLE}:
        raise MalformedError(f"outcome {word!r} needs a measurement")
    return Outcome(word)


_HASH = schema.octets(32)
_JOB: dict[str, schema.Checker[object]] = {
    "model_path": schema.text(4096, 0),
    "model_sha256": _HASH,
    "model_bytes_max": schema.uint(),
    "evidence_path": schema.text(4096),
    "evidence_sha256": _HASH,
    "evidence_bytes_max": schema.uint(),
    "base_path": schema.text(4096, 0),
    "null_paths": schema.listed(schema.text(1024), NULLS_MAX),
    "scheme": schema.text(64),
    "head_commitment": _HASH,
    "info_commitment": _HASH,
    "watermark_key": _HASH,
    "control_seed": _HASH,
    "permutations": schema.uint(10**6),
    "controls": schema.uint(64),
    "gamma_permille": schema.uint(1000),
    "refute_permille": schema.uint(1000),
    "control_permille": schema.uint(1000),
    "answers": schema.optional(schema.listed(schema.uint(CLASSES_MAX - 1), PICTURES_MAX, 1)),
}
_ANSWER: dict[str, schema.Checker[object]] = {
    "measurement": schema.optional(Measurement.from_value),
    "outcome": schema.optional(_outcome),
    "reason": schema.text(64, 0),
    "detail": schema.text(400, 0),
    "device": schema.text(128, 1),
    "software": schema.text(512, 0),
    "architecture": schema.text(64, 0),
    "unusable_public": schema.uint(UNUSABLE_PUBLIC_MAX),
}
