"""CSV that comes back as it was from a reader, and is text to a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest

from decodecli.csv_text import csv_text, without_apostrophe


def read_back(rows):
    return list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True))


@pytest.mark.parametrize(
    "field",
    ["a\rb", "a\nb", "a\r\nb", 'say "hi"', "a,b", " spaced ", "東京", "a\tb", "", "\n", '"'],
)
def test_any_text_comes_back_as_it_was(field):
    assert read_back([["name", "n"], [field, 3]]) == [["name", "n"], [field, "3"]]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_field_starts_a_formula(sign):
    for field in (f"{sign}cmd|' /C calc'!A0", f"{sign}1+1", sign):
        assert read_back([[field, "x"]]) == [["'" + field, "x"]]


@pytest.mark.parametrize("number", [-1.83, 2.5e-08, -3, float("-inf"), float("inf")])
def test_numbers_stay_numbers(number):
    for spelt in (number, repr(number)):
        assert float(read_back([[spelt, ""]])[0][0]) == number


def test_none_is_an_empty_field_and_a_row_a_line():
    assert csv_text([["a", "b"], [None, True]]) == "a,b\n,True\n"


@pytest.mark.parametrize("token", ["=", "+1x", "-", "@a", "'", "'s", "a"])
def test_what_kept_a_field_from_being_a_formula_can_be_taken_away(token):
    assert without_apostrophe(read_back([[token, ""]])[0][0]) == token
