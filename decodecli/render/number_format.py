"""Numbers as a person reads them: probabilities that line up on their points, bars, counts.

`*_cell` functions return a fixed width, for columns; the others the bare number.
"""

from __future__ import annotations

CELL = 7  # a probability column: three digits, the point, two decimals, the sign
NOTHING = "·"

_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


def percent(probability: float | None) -> str:
    """`83.1%`; two decimals below 1 %, and below 0.01 % the probability itself: `3e-6`. 0 is `·`."""
    return percent_cell(probability).strip()


def percent_cell(probability: float | None) -> str:
    """`percent` in 7 cells with the point in the fourth."""
    if not probability:
        return "   ·   "
    if probability >= 0.00995:  # what rounds to 1.0 %
        tenths = int(1000 * probability + 0.5)
        return _TENTHS[tenths] if tenths <= 1000 else f"{100 * probability:5.1f}% "
    if probability >= 0.000095:  # what rounds to 0.01 %
        return _HUNDREDTHS[int(10000 * probability + 0.5)]
    return scientific(probability).rjust(CELL)


# Spelt beforehand: a run shows some forty percentages a step.
_TENTHS = tuple(f"{tenths / 10:5.1f}% " for tenths in range(1001))
_HUNDREDTHS = tuple(f"{hundredths / 100:6.2f}%" for hundredths in range(101))


def percent_bare(probability: float) -> str:
    """The percentage in at most five cells without its sign, for crowded places: `3.1`, `0.04`."""
    if not probability:
        return NOTHING
    return "<0.01" if probability < 0.000095 else percent(probability)[:-1]


def rest_cell(probability: float) -> str:
    """A probability got as 1 minus a sum: below 1e-6 it would be rounding noise."""
    return "  <1e-6" if probability < 1e-6 else percent_cell(probability)


def scientific(value: float) -> str:
    """One digit and a power of ten: `3e-6`."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def decimal(value: float) -> str:
    """Two decimals, with a real minus sign; large magnitudes in four digits."""
    text = f"{value:.2f}" if -99999 < value < 99999 else f"{value:.4g}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def entropy(nats: float) -> str:
    """Two decimals; rounding below zero is zero."""
    return f"{max(0.0, nats):.2f}"


def count(number: int, noun: str = "") -> str:
    """`4,096`; with a noun `1 token`, `4,096 tokens`."""
    return f"{number:,}" + (f" {noun}{'' if number == 1 else 's'}" if noun else "")


def size(number: int) -> str:
    """A number of parameters in three digits or fewer: `8.4M`, `1.1B`, `620K`."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= 0.9995 * unit:
            share = number / unit
            return f"{share:.0f}{letter}" if share >= 99.5 else f"{share:.1f}{letter}"
    return str(number)


def plain(value: float) -> str:
    """The shortest spelling that reads back as the same number: `1`, `0.9`, `3e-06`."""
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A bar of `share` (0 to 1) of `width` cells, in eighths; something above 0 never vanishes."""
    if share <= 0 or width <= 0:
        return ""
    eighths = min(max(1, round(share * width * 8)), width * 8)
    if ascii_only:
        return "#" * ((eighths + 4) // 8) or "."
    full, part = divmod(eighths, 8)
    return "█" * full + _EIGHTHS[part]
