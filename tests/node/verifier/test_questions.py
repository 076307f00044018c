"""The pictures that the verifier process wants to be asked about are read as strictly as the rest."""

import dataclasses

import pytest
from endpoints import pictures
from nodeset import JOB

from node.endpoint.pictures import Pictures, Shape
from node.verifier.protocol import Job, unmeasured
from node.verifier.questions import Questions, decode_reply
from registry.encoding import decode, encode
from registry.errors import MalformedError
from registry.verdict import Outcome

QUESTIONS = Questions(pictures=pictures(3), has_margin=True)


def test_questions_come_back_as_they_were_and_so_does_an_answer_instead():
    assert decode_reply(QUESTIONS.encode()) == QUESTIONS
    none = unmeasured(Outcome.UNVERIFIABLE, "white_box")
    assert decode_reply(none.encode()) == none


def test_questions_may_be_longer_than_any_answer():
    large = Shape(channels=3, height=224, width=224)
    pixels = tuple(bytes([number]) * large.picture_bytes for number in range(20))
    asked = Questions(pictures=Pictures(shape=large, mean=("0",) * 3, std=("1",) * 3, pixels=pixels), has_margin=False)
    assert decode_reply(asked.encode()) == asked


def parts(questions: Questions) -> tuple[bytes, bytes]:
    """The head and the pixels."""
    raw = questions.encode()
    end = 4 + int.from_bytes(raw[:4], "big")
    return raw[4:end], raw[end:]


def whole(head: bytes, pixels: bytes) -> bytes:
    return len(head).to_bytes(4, "big") + head + pixels


@pytest.mark.parametrize("pixels", [bytes(179), b"", bytes(60 * 4097)])
def test_pixels_that_are_no_pictures_are_malformed(pixels: bytes):
    head, _ = parts(QUESTIONS)
    with pytest.raises(MalformedError, match="pictures"):
        decode_reply(whole(head, pixels))


def test_nothing_long_is_parsed():
    head, pixels = parts(QUESTIONS)
    for raw in (whole(head + bytes(4096), pixels), b"\0", b"\0\0\0\0", b"\0\xff\xff\xff", b"", b"\xdc" + bytes(2**20)):
        with pytest.raises(MalformedError):
            decode_reply(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": bytes(180)},
        {"shape": [3, 4]},
        {"shape": [3, 0, 5]},
        {"shape": [17, 4, 5]},
        {"shape": [3, 4, 1025]},
        {"mean": ["0", "0"]},
        {"mean": ["0", "0", "nan"]},
        {"mean": ["0", "0", "1e3"]},
        {"std": ["1", "1", "0"]},
        {"std": ["1", "1", "0.0"]},
        {"std": ["1", "1", "-1"]},
        {"std": ["1"]},
        {"has_margin": 1},
        {"extra": 1},
    ],
)
def test_questions_that_are_none_are_malformed(change: dict[str, object]):
    head, pixels = parts(QUESTIONS)
    with pytest.raises(MalformedError):
        decode_reply(whole(encode(decode(head) | change), pixels))


def test_a_job_brings_answers_or_wants_pictures_or_has_a_file():
    on_file, first = JOB, dataclasses.replace(JOB, model_path="")
    second = dataclasses.replace(first, answers=(1, 0, 9))
    assert [job.wants_pictures for job in (on_file, first, second)] == [False, True, False]
    assert [Job.decode(job.encode()) for job in (on_file, first, second)] == [on_file, first, second]
    for answers in ([], [-1], [65_536], [True], ["1"], [0] * 4097, 7):
        with pytest.raises(MalformedError):
            Job.decode(encode(decode(second.encode()) | {"answers": answers}))
