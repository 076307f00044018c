"""How the explorer spells values: whole hashes for who copies them, times, and nothing that cannot be seen."""

from urllib.parse import urljoin

import pytest

from node.explorer.rendering import Pages, binary, lasting, root_of, said, short, utc, visible


@pytest.mark.parametrize(
    "path",
    ["/explorer/", "/explorer/about", "/explorer/entries/ab", "/explorer/a/b/c", "/", "/explorer", "/x/y", "/x/"],
)
@pytest.mark.parametrize("prefix", ["", "/behind/a/proxy"])
def test_the_way_home_is_relative_and_right_from_everywhere(path: str, prefix: str):
    assert urljoin(f"https://node.example{prefix}{path}", root_of(path)) == f"https://node.example{prefix}/explorer/"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain words, ünïcödé and 漢字", "plain words, ünïcödé and 漢字"),
        ("abc\u202edef", "abc\\u{202e}def"),
        ("zero\u200bwidth\u2066isolate\ufeff", "zero\\u{200b}width\\u{2066}isolate\\u{feff}"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("line\u2028end\x1b[31m", "line\\u{2028}end\\u{1b}[31m"),
    ],
)
def test_what_no_reader_sees_is_spelled_out(written: str, shown: str):
    assert visible(written) == shown


def test_words_of_strangers_are_escaped_and_isolated():
    assert said("<b>&'\"") == '<bdi class="said">&lt;b&gt;&amp;&#39;&#34;</bdi>'


def test_a_short_hash_holds_the_whole():
    digits = bytes(range(32)).hex()
    text = str(short(bytes(range(32))))
    assert f'title="{digits}"' in text
    assert text.replace("<span>", "").replace("</span>", "").partition(">")[2] == f"{digits}</code>"


@pytest.mark.parametrize(
    ("time_s", "shown"),
    [
        (0, '<time datetime="1970-01-01T00:00:00Z">1970-01-01 00:00:00 UTC</time>'),
        (1_800_000_000, '<time datetime="2027-01-15T08:00:00Z">2027-01-15 08:00:00 UTC</time>'),
        (253402300799, '<time datetime="9999-12-31T23:59:59Z">9999-12-31 23:59:59 UTC</time>'),
        (253402300800, "253402300800 s after 1970"),
        (2**63 - 1, "9223372036854775807 s after 1970"),
    ],
)
def test_times_are_utc_and_no_time_is_too_late_to_be_shown(time_s: int, shown: str):
    assert utc(time_s) == shown


def test_lengths_of_time_and_sizes_have_units():
    assert [lasting(s) for s in (0, 59.9, 3600, 86400 * 30 + 3700)] == ["0 s", "59 s", "1 h", "30 d 1 h"]
    assert [binary(n) for n in (1, 1024, 4 * 2**30, 3 * 2**19)] == ["1 bytes", "1 KiB", "4 GiB", "1.5 MiB"]


def test_a_template_that_misses_something_fails_instead_of_leaving_it_out():
    with pytest.raises(Exception, match="undefined"):
        Pages().render("about.html", {})
