"""Embeddings in the terminal: everything fits, nothing steers, colours follow the cosines."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from embed_inputs import report, words
from rich.cells import cell_len

from decodecli.render.terminal.embedding_tables import (
    embed_lines,
    heat_map,
    plane_sentence,
    scatter,
)
from decodecli.render.terminal.step_table import Style
from decodecli.render.theme import Theme

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
FULL = Theme.full()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("count", [1, 2, 5, 20, 45])
@pytest.mark.parametrize("groups", [0, 3])
def test_every_line_fits(width, count, groups):
    shown = report(words(count), groups if count > 3 else 0, nearest=3)
    for theme in (Theme(), FULL):
        style = Style(width=width, theme=theme)
        for line in [*embed_lines(shown, style), *scatter(shown, style)]:
            assert cell_len(_STYLES.sub("", line)) <= width, line


def test_without_colours_there_are_no_escapes():
    text = "\n".join(embed_lines(report(words(12), 3, nearest=2), Style()))
    assert "\x1b" not in text


def test_what_could_steer_the_terminal_is_shown_not_sent():
    shown = report(["a\x1b[31mb", "c\u202ed", "e\rf"], nearest=1)
    style = Style(width=100)
    text = "\n".join([*embed_lines(shown, style), *scatter(shown, style)])
    assert not set(text) & {"\x1b", "\u202e", "\r"}


def test_other_encodings_get_characters_that_they_have():
    style = Style(width=80, encoding="latin-1")
    shown = report(words(12), 3, nearest=2)
    for line in [*embed_lines(shown, style), *scatter(shown, style)]:
        line.encode("latin-1")


def test_the_tables_own_signs_are_written_in_ascii_and_not_as_code_points():
    style = Style(width=80, encoding="ascii")
    (first, *_) = embed_lines(report(["king", "queen"]), style)
    assert "<U+" not in first
    assert " - " in first
    assert " x " in first


def test_a_wide_terminal_has_decimals_and_a_narrow_one_hundredths():
    shown = report([f"w{k}" for k in range(20)])
    value = shown.cosine[0][1]
    wide = "\n".join(heat_map(shown, Style(width=200)))
    narrow = "\n".join(heat_map(shown, Style(width=80)))
    assert f"{abs(value):.2f}" in wide
    assert "hundredths" in narrow
    assert len(heat_map(shown, Style(width=80))) == 1 + 1 + 20 + 1
    assert len(heat_map(shown, Style(width=50))) == 1 + 2 * (1 + 20) + 1, "in two blocks"


def test_the_highest_and_lowest_cosines_have_the_ends_of_the_scale():
    shown = replace(report(["a", "b", "c"]), cosine=((1, 0.9, -0.2), (0.9, 1, 0.3), (-0.2, 0.3, 1)))
    rows = heat_map(shown, Style(width=80, theme=FULL))[2:5]
    assert f"{FULL.heat[5]}  0.90" in rows[0]
    assert f"{FULL.heat[0]} −0.20" in rows[0]
    assert "1.00" not in "".join(rows), "the diagonal says nothing"


def test_a_vector_without_direction_is_a_point_in_the_heat_map():
    shown = replace(report(["a", "b"]), cosine=((1.0, None), (None, None)))
    assert "None" not in "".join(heat_map(shown, Style()))


def test_the_sentence_says_what_the_plane_keeps():
    plane = report(words(9), 3).plane
    assert plane is not None
    little = replace(plane, ratio=(0.2, 0.1), distances=0.7)
    assert "30.0% (20.0% + 10.0%)" in plane_sentence(little)
    assert "need not be near" in plane_sentence(little)
    assert "need not" not in plane_sentence(replace(plane, ratio=(0.7, 0.2), distances=0.99))
    assert "correlate" not in plane_sentence(replace(plane, ratio=(1.0, 0.0), distances=None))


def test_the_scatter_names_its_groups_and_every_point_that_has_room():
    names = [f"word{k}" for k in range(6)]
    text = "\n".join(scatter(report(names, 2), Style(width=80)))
    assert "● group 0  ■ group 1" in text
    assert all(name in text for name in names)


def test_few_vectors_have_tables_of_neighbours_and_many_a_line():
    few = embed_lines(report(["a", "b"], nearest=3), Style())
    assert any(re.search(r" 1  ␣near0 +0 +0\.90", line) for line in few)
    many = embed_lines(report(words(6), nearest=3), Style())
    assert any("␣near0 0.90  ␣near1 0.70" in line for line in many)
