"""Promises: tables line up, times are in UTC, and a report is one document."""

import json

import pytest
from fakes import good_measurement

from client.bodies import body_document, body_text
from client.errors import describe
from client.output import Report, counted, printable, table, utc
from registry.errors import RefusedError
from registry.messages import Claim, Publication, Vote
from registry.verdict import Outcome
from registry.watermark_key import KeyBinding

# An escape sequence, its one-character C1 form, a direction override, a line separator, a lone surrogate, a new line.
HOSTILE = ["\x1b[2J", "\x9b2J", "\u202eevil", "\u2028", "\ud800", "\r\nwmreg: fine"]


def test_columns_are_as_wide_as_their_widest_cell():
    lines = table(["name", "count"], [["a", 5], ["long name", None], ["b", 1000]]).splitlines()

    assert lines == [
        "name       count",
        "---------  -----",
        "a              5",
        "long name      -",
        "b           1000",
    ]


def test_a_table_without_rows_has_its_headers():
    assert table(["name", "count"], []).splitlines()[0] == "name  count"


@pytest.mark.parametrize(
    ("aligned", "before", "told"),
    [(False, None, "590/600"), (True, 301, "590/600 (aligned from 301)"), (True, None, "590/600 (aligned)")],
)
def test_a_count_says_whether_channels_were_aligned_for_it(aligned, before, told):
    assert counted(590, 600, aligned=aligned, matched_unaligned=before) == told


def test_times_are_in_utc():
    assert utc(0) == "1970-01-01 00:00:00 UTC"


def test_a_report_is_one_json_document():
    report = Report(document={"owner": "Åsa"}, text="owner Åsa")

    assert json.loads(report.render(as_json=True)) == {"owner": "Åsa"}
    assert report.render(as_json=False) == "owner Åsa"


def test_a_body_is_shown_as_hexadecimal():
    digest = bytes(range(32))
    publication = Publication(
        time_s=0, scheme="mtlsign", key_commitment=digest, head_commitment=digest, info_commitment=digest
    )

    document = body_document(publication)

    assert document["key_commitment"] == digest.hex()
    assert "model_commitment  -" in body_text(document)
    assert "1970-01-01" in body_text(document)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_strangers_wrote_commands_the_terminal_or_begins_a_line(hostile):
    shown = table(["node"], [[hostile]])
    report = Report(document={hostile: [hostile]}, text=f"a\n{hostile.replace(chr(10), '')}")
    refused = describe(RefusedError(f"why {hostile}", code=hostile))

    assert len(shown.split("\n")) == 3
    for text in (shown, report.render(as_json=False), report.render(as_json=True), *refused):
        assert all(character.isprintable() or character == "\n" for character in text)
    assert json.loads(report.render(as_json=True)) == {hostile: [hostile]}


def test_what_people_write_is_left_as_it_is():
    assert printable("Åsa Öberg, 王芳, naïve – “ok”") == "Åsa Öberg, 王芳, naïve – “ok”"


def test_a_body_shows_no_control_characters_of_a_pointer():
    claim = Claim(
        time_s=0,
        publication=bytes(32),
        model_pointer="https://example.org/\x9b2J\u202e",
        model_sha256=bytes(32),
        evidence_pointer="blob:sha256:",
        evidence_sha256=bytes(32),
        binding=KeyBinding(nonce=bytes(16), signature=bytes(64)),
    )

    assert "model_pointer  https://example.org/?2J?" in body_text(body_document(claim))


@pytest.mark.parametrize("time_s", [-1, 10**12, 10**30])
def test_a_time_that_no_calendar_has_stays_a_number(time_s):
    assert str(time_s) in utc(time_s)


def test_a_votes_controls_are_told_by_their_names():
    measurement = good_measurement()
    vote = Vote(
        time_s=1,
        claim=b"c" * 32,
        policy=b"p" * 32,
        outcome=Outcome.VERIFIED,
        reason="matched",
        measurement=measurement,
        device="cpu",
        software="wmreg",
    )

    first = body_document(vote)["measurement"]["controls"][0]

    assert first == dict(zip(("kind", "matched", "suspect_only", "control_only"), measurement.controls[0], strict=True))
