"""Plots in the terminal: within the width, whatever the tokens, and in ASCII where that is all."""

from __future__ import annotations

import re

import pytest
from plot_inputs import ESSAY, by_hand, report
from rich.cells import cell_len

from decodecli.errors import UsageError
from decodecli.render.plots.distribution_view import KINDS
from decodecli.render.plots.in_terminal import draw_terminal
from decodecli.render.theme import Theme

DRAWN = tuple(kind for kind in KINDS if kind != "auto")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("colours", [False, True], ids=["plain", "coloured"])
@pytest.mark.parametrize("ascii_only", [False, True], ids=["utf8", "ascii"])
@pytest.mark.parametrize("kind", DRAWN)
def test_no_line_is_wider_than_the_terminal(kind: str, ascii_only: bool, colours: bool) -> None:
    theme = Theme.full() if colours else Theme()
    for rows in (1, 40):
        shown, scores = report(
            rows, (1.0,) if kind == "bars" else (0.4, 1.0, 1.6), top_p=0.9, target=7
        )
        for width in (*range(1, 12), 20, 21, 33, 40, 80, 132):
            for known in (scores, None):
                text = draw_terminal(shown, width, kind, ascii_only, theme, scores=known)
                plain = _ESCAPE.sub("", text)
                assert max(map(cell_len, plain.splitlines())) <= width
                assert text.endswith("\n")
                assert "\x1b" not in plain
                assert plain.isascii() or not ascii_only
                assert colours or plain == text


def test_bars_are_as_long_as_their_probability() -> None:
    lines = draw_terminal(by_hand(ESSAY), 80).splitlines()
    bars = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    assert bars["day"] == 40
    assert bars["night"] == round(40 * 0.310608 / 0.512106)
    assert any(line.split()[:2] == ["day", "51.2%"] for line in lines)


def test_a_panel_stands_side_by_side_where_there_is_room() -> None:
    shown = by_hand(ESSAY, (0.4, 1.0, 1.6))
    wide, narrow = (draw_terminal(shown, width).splitlines() for width in (80, 40))
    assert any(all(f"T={t}" in line for t in ("0.4", "1", "1.6")) for line in wide)
    assert sum("T=" in line for line in narrow) == 3
    assert sum(line.strip().startswith("day") for line in narrow) == 3


def test_a_removed_token_has_a_bar_of_another_kind() -> None:
    shown, _ = report(5, (0.4,), top_p=0.5)
    lines = draw_terminal(shown, 80).splitlines()
    removed = [row.removed_by[0] is not None for row in shown.rows]
    bars = [line for line in lines if "%" in line and "nats" not in line]
    assert ["░" in line for line in bars] == removed
    assert "removed by a filter" in lines[-1]


@pytest.mark.parametrize("kind", ["lines", "tokens", "cumulative"])
def test_each_line_is_told_by_a_sign_without_colours(kind: str) -> None:
    shown, scores = report(3, top_p=0.9)
    text = draw_terminal(shown, 80, kind, scores=scores)
    for sign in "●■▲":
        assert text.count(sign) >= 2  # in the legend, and in the picture


def test_curves_have_axes_and_names() -> None:
    shown, scores = report(3)
    text = draw_terminal(shown, 80, "entropy", scores=scores)
    assert "entropy (nats)" in text
    assert "temperature (log)" in text
    assert "T → ∞: 8.32 nats" in text
    assert any("\u2800" < character <= "\u28ff" for character in text)


def test_what_files_refuse_the_terminal_refuses() -> None:
    with pytest.raises(UsageError, match="one temperature"):
        draw_terminal(by_hand(ESSAY, (1.0, 2.0)), 80, "bars")


def test_tokens_that_would_steer_a_terminal_are_pictures() -> None:
    shown = by_hand({"\x1b]0;x\x07": 2.0, "\u202e": 1.0, "\r": 0.5})
    for kind in DRAWN:
        text = draw_terminal(shown, 80, kind)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
