"""Numbers as they are shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from decodecli.render import number_format as numbers


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (1.0, "100.0%"),
        (0.831, "83.1%"),
        (0.01, "1.0%"),
        (0.00996, "1.0%"),
        (0.0099, "0.99%"),
        (0.0004, "0.04%"),
        (0.0001, "0.01%"),
        (0.00009, "9e-5"),
        (3.2e-6, "3e-6"),
        (1e-300, "1e-300"),
        (0.0, "·"),
        (None, "·"),
    ],
)
def test_a_probability_is_a_percentage_that_stays_readable(
    probability: float | None, shown: str
) -> None:
    assert numbers.percent(probability) == shown


@settings(deadline=None)
@given(st.floats(0, 1))
def test_probabilities_line_up_on_their_points(probability: float) -> None:
    cell = numbers.percent_cell(probability)
    assert cell_len(cell) == 7
    assert cell[3] in ".·" if "e-" not in cell else cell.endswith(cell.strip())
    assert len(numbers.percent_bare(probability)) <= 5


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 100), st.booleans())
def test_a_bar_is_as_long_as_its_share_and_never_vanishes(
    share: float, width: int, ascii_only: bool
) -> None:
    bar = numbers.bar(share, width, ascii_only)
    assert cell_len(bar) <= width
    assert abs(cell_len(bar) - share * width) <= 1
    assert bool(bar) == (share > 0 and width > 0)
    assert bar.isascii() or not ascii_only


def test_bars_end_in_eighths() -> None:
    assert numbers.bar(0.5, 1) == "▌"
    assert numbers.bar(1, 3) == "███"
    assert numbers.bar(0.724, 13) == "█████████▍"
    assert numbers.bar(0.5, 10, ascii_only=True) == "#####"


def test_counts_have_separators_and_sizes_three_digits() -> None:
    assert numbers.count(4086) == "4,086"
    assert [numbers.size(n) for n in (8_421_376, 1_100_000_000, 620_000, 124_439_808, 12)] == [
        "8.4M",
        "1.1B",
        "620K",
        "124M",
        "12",
    ]


def test_logits_have_two_decimals_and_a_real_minus() -> None:
    assert numbers.decimal(14.206) == "14.21"
    assert numbers.decimal(-3.5) == "−3.50"
    assert numbers.decimal(-0.001) == "0.00"


def test_what_is_left_of_a_sum_is_not_shown_below_rounding() -> None:
    assert numbers.rest_cell(-1e-12).strip() == "<1e-6"
    assert numbers.rest_cell(0.122).strip() == "12.2%"
