"""What crosses between the two processes is read strictly, in both directions."""

import dataclasses

import pytest
from fakes import good_measurement
from hypothesis import given
from hypothesis import strategies as st
from nodeset import JOB

from node.verifier.protocol import FRAME_BYTES_MAX, Answer, Job, frame, frame_bytes, plain, unmeasured
from registry.encoding import decode, encode
from registry.errors import MalformedError
from registry.verdict import Outcome

MEASURED = Answer(measurement=good_measurement(), outcome=None, reason="", detail="", device="cpu", software="torch")


def test_jobs_and_answers_come_back_as_they_were():
    assert Job.decode(JOB.encode()) == JOB
    assert Answer.decode(MEASURED.encode()) == MEASURED
    refuted = unmeasured(Outcome.REFUTED, "head_mismatch", "why\nnot")
    assert Answer.decode(refuted.encode()) == refuted


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Job)])
def test_a_job_without_a_field_or_with_another_type_is_malformed(field: str):
    value = decode(JOB.encode())
    for wrong in ({k: v for k, v in value.items() if k != field}, value | {field: [None]}, value | {"extra": 1}):
        with pytest.raises(MalformedError):
            Job.decode(encode(wrong))


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "VERIFIED", "measurement": None},
        {"outcome": "REFUTED"},
        {"measurement": None},
        {"measurement": None, "outcome": "MAYBE"},
        {"reason": "x" * 65},
        {"device": ""},
        {"software": 7},
        {"detail": "two\nlines"},
        {"architecture": "x" * 65},
        {"unusable_public": -1},
        {"unusable_public": 2**16 + 1},
    ],
)
def test_an_answer_that_contradicts_itself_is_malformed(change: dict[str, object]):
    value = decode(MEASURED.encode())
    with pytest.raises(MalformedError):
        Answer.decode(encode(value | change))


@given(st.text())
def test_any_text_of_an_exception_fits_an_answer(text: str):
    answer = unmeasured(Outcome.UNVERIFIABLE, "crashed", text)
    assert Answer.decode(answer.encode()) == answer
    assert len(plain(text)) <= 400


def test_frames_have_a_limit_on_both_sides():
    assert frame_bytes(frame(b"abc")[:4]) == 3
    with pytest.raises(ValueError, match="at most"):
        frame(bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(MalformedError):
        frame_bytes((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(MalformedError):
        frame_bytes(b"\0\0\0")
