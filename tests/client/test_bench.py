"""Promises: `wmreg bench` runs each program of bench/ that keeps results, and says so where there is no checkout."""

import json
import re

import pytest

from client.verbs import bench

PROGRAM = """
import sys
from bench.results import Row, write
print("measuring", *sys.argv[1:])
write("ledger", [Row(metric="speed", value=3, unit="m/s")], keep="--no-write" not in sys.argv)
sys.exit(3 if "--fail" in sys.argv else 0)
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose one measurement is quickly made."""
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "bench" / "results" / "node.json").write_text("{}")
    (tmp_path / "bench" / "__init__.py").touch()
    (tmp_path / "bench" / "results.py").write_bytes((bench.CHECKOUT / "bench" / "results.py").read_bytes())
    (tmp_path / "bench" / "ledger.py").write_text(PROGRAM)
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    return tmp_path


def test_every_program_that_keeps_results_is_a_name():
    folder = bench.CHECKOUT / "bench"
    programs = {path.stem: path for path in folder.glob("*.py")}
    programs |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    keeping = {name for name, path in programs.items() if re.search(r"^ +write\(", path.read_text(), re.MULTILINE)}

    assert set(bench.NAMES) == keeping


def test_the_help_lists_the_names(wmreg):
    told = wmreg("bench", "--help").out

    assert [name for name in bench.NAMES if name not in told] == []


def test_a_measurement_is_made_with_its_own_arguments(wmreg, checkout):
    assert wmreg("bench", "ledger", "--entries", "2000").code == 0

    assert json.loads((checkout / "bench" / "results" / "ledger.json").read_text())["rows"][0]["value"] == 3


def test_with_json_only_what_was_written_is_printed(wmreg, checkout, monkeypatch, tmp_path):
    with (tmp_path / "table").open("w") as table:
        monkeypatch.setattr("sys.stderr", table)
        kept, tried = wmreg("bench", "ledger", "--json"), wmreg("bench", "ledger", "--no-write", "--json")

    assert kept.document["results"][0]["rows"][0]["metric"] == "speed"
    assert tried.document == {"name": "ledger", "results": []}
    assert "measuring --no-write" in (tmp_path / "table").read_text()


def test_a_measurement_that_fails_is_a_failure(wmreg, checkout):
    answer = wmreg("bench", "ledger", "--fail")

    assert answer.code == 1
    assert "ended with exit code 3" in answer.err


def test_without_a_checkout_it_says_where_the_measurements_are(wmreg, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)

    answer = wmreg("bench", "ledger")

    assert answer.code == 2
    assert "in a checkout" in answer.err
