"""A regular expression of one's own ends in time, whatever it is."""

from __future__ import annotations

import time
import warnings

import pytest

from decodecli import regex_limit
from decodecli.errors import DecodecliError
from decodecli.regex_limit import compile_pattern, matches

FOREVER = "(a|a)+$"


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch):
    monkeypatch.setattr(regex_limit, "SECONDS", 0.2)
    monkeypatch.setattr(regex_limit, "_too_slow", set())


@pytest.mark.parametrize(
    ("written", "text", "found"),
    [
        ("Tokyo|Kyoto", "in Tokyo.", True),
        ("^Tokyo", "in Tokyo.", False),
        ("(?i)tokyo", "TOKYO", True),
        (r"\b\d{4}\b", "in 1999", True),
        ("[[a-c]x", "[x", True),
        ("東京", "東京。", True),
        ("(a+)+$", "a" * 200 + "b", False),
    ],
)
def test_it_finds_what_python_finds(written, text, found):
    pattern = compile_pattern(written)
    assert matches(pattern, text) is found
    if written != "(a+)+$":  # for which Python's own takes for ever
        assert (pattern.search(text) is not None) is found


def test_backtracking_without_end_ends_with_an_error_and_is_not_tried_again():
    pattern = compile_pattern(FOREVER)
    start = time.monotonic()
    for _ in range(50):
        with pytest.raises(DecodecliError, match=r"\(a\|a\)\+\$ takes longer"):
            matches(pattern, "a" * 200 + "b")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "written", ["(", "a{99999999999999999999}", "[z-a]", "(" * 2000 + ")" * 2000]
)
def test_what_is_none_is_refused(written):
    with pytest.raises(ValueError, match=r"\w"):
        compile_pattern(written)


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_pattern("[[:alpha:]]")
