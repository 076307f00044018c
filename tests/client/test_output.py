"""Promises: tables line up, times are in UTC, and a report is one document."""

import json

from client.bodies import body_document, body_text
from client.output import Report, table, utc
from registry.messages import Publication


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
