"""The one scale of surprise: readable on white and on black, told apart without hues."""

from __future__ import annotations

import io
import itertools
import re

import pytest
from rich.console import Console

from decodecli.render.theme import (
    ACCENT,
    BAR,
    HEAT,
    LEVELS,
    LINES,
    SCALE,
    Theme,
    css,
    hex_colour,
    level,
)

FILLED = [step for step in SCALE if step.fill is not None]

# Viénot, Brettel and Mollon (1999), linear RGB: what protan and deutan eyes take a colour for.
BLIND = {
    "deuteranopia": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
    "protanopia": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
}


def rgb(number: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hex_colour(number)[1:])
    return red, green, blue


def linear(colour: tuple[int, int, int]) -> list[float]:
    shares = [value / 255 for value in colour]
    return [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]


def luminance(colour: tuple[int, int, int], matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1))) -> float:
    """WCAG's relative luminance, of the colour as seen through `matrix`."""
    seen = [sum(w * c for w, c in zip(row, linear(colour), strict=True)) for row in matrix]
    return sum(w * min(max(c, 0), 1) for w, c in zip((0.2126, 0.7152, 0.0722), seen, strict=True))


def contrast(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


def lightness(luminance: float) -> float:
    """CIE L*, 0 to 100."""
    return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance


@pytest.mark.parametrize("number", [ACCENT, BAR, *LINES])
def test_coloured_letters_have_contrast_on_white_and_on_black(number: int) -> None:
    own = luminance(rgb(number))
    assert contrast(own, 1.0) >= 4.5
    assert contrast(own, 0.0) >= 4.5


@pytest.mark.parametrize("pair", [(s.fill, s.ink) for s in FILLED] + list(HEAT))
def test_filled_cells_bring_ink_of_enough_contrast(pair: tuple[int, int]) -> None:
    assert contrast(*(luminance(rgb(number)) for number in pair)) >= 4.5


def test_steps_without_a_fill_take_the_ink_of_the_page() -> None:
    assert all(step.ink is None for step in SCALE if step.fill is None)


@pytest.mark.parametrize("kind", ["", *BLIND])
@pytest.mark.parametrize("fills", [[s.fill for s in FILLED], [pair[0] for pair in HEAT][::-1]])
def test_the_fills_are_in_order_of_lightness_to_colour_blind_eyes(kind, fills) -> None:
    matrix = BLIND.get(kind, ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    seen = [lightness(luminance(rgb(fill), matrix)) for fill in fills]
    gaps = [other - one for one, other in itertools.pairwise(seen)]
    assert min(gaps) >= 8, "each step is lighter than the one before, and to be seen so"
    if len(fills) == len(FILLED):
        assert min(gaps) >= 25


def test_surprising_tokens_stand_out_and_likely_ones_are_plain() -> None:
    assert [step.fill is not None for step in SCALE] == [True, True, False, False]
    assert [bool(code) for code in Theme.full().text] == [True, True, True, False]
    for fill in (step.fill for step in FILLED):
        for page in (0.0, 1.0):
            own = luminance(rgb(fill))
            assert contrast(own, page) >= 1.8
    assert contrast(luminance(rgb(SCALE[0].fill)), 0.0) >= 3, "seen on black"
    assert contrast(luminance(rgb(SCALE[0].fill)), 1.0) >= 3, "and on white"


def test_without_colours_the_steps_differ_all_the_same() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"NO_COLOR": "1"})
    text = Theme.of(console).text
    assert len(set(text)) == len(LEVELS)
    assert not re.search(r"\[[34]\d", "".join(text))


@pytest.mark.parametrize(
    ("probability", "name"),
    [(0.0, "<1%"), (0.01, "<5%"), (0.19, "<20%"), (0.2, "≥20%"), (1, "≥20%")],
)
def test_a_probability_falls_in_the_level_that_its_name_says(probability, name) -> None:
    assert LEVELS[level(probability)] == name


def test_html_has_the_very_colours_of_the_terminal() -> None:
    rules = css()
    for number, step in enumerate(SCALE):
        if step.fill is not None:
            assert f".p{number}{{background:{hex_colour(step.fill)};" in rules
    assert hex_colour(160) == "#d70000"


def test_no_fill_is_carried_over_a_line_end() -> None:
    assert Theme.full().paint("\x1b[7m", "a\nb") == "\x1b[7ma\x1b[0m\n\x1b[7mb\x1b[0m"


def test_the_legend_says_which_probability() -> None:
    plain = re.sub(r"\x1b\[[\d;]*m", "", Theme.full().legend())
    assert plain == "probability at T=1 <1% <5% <20% ≥20%"
    assert Theme().legend() == ""
