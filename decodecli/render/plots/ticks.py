"""Round numbers for axes and how they are spelt, for the plots in files and in the terminal."""

from __future__ import annotations

import math

import numpy as np

from decodecli.render import number_format as numbers
from decodecli.sampling.reference import Floats

_RANKS = 400  # points of a curve over rank


def ticks(limit: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to at most `limit`, no more than `most` steps."""
    if not limit > 0:
        return [0.0]
    rough = limit / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9)), rough)
    return [k * step for k in range(int(limit / step * (1 + 1e-9)) + 1)]


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round numbers of a log axis: 1, 2 and 5 of each power of ten, or powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        values = [m * 10.0**k for k in range(first, last + 1) for m in digits]
        values = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(values) <= most:
            return values
    return values[:: -(-len(values) // most)]


def tick_name(value: float) -> str:
    """`0.1`, `10`, `1e-10`."""
    if value and not 1e-4 < abs(value) < 1e5:
        return numbers.scientific(value)
    return f"{value:.6g}"


def percent_name(value: float, step: float) -> str:
    """A tick of a probability axis with `step` between ticks: `20%`, `0.5%`, `3e-6`."""
    if not value:
        return "0%"
    if step < 1e-5:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    percent = 100 * step
    decimals = next((k for k in range(4) if math.isclose(round(percent, k), percent)), 4)
    return f"{100 * value:.{decimals}f}%"


def percent_ticks(limit: float, most: int = 4) -> list[tuple[float, str]]:
    """`ticks` of a probability axis with their names."""
    values = ticks(limit, most)
    step = values[1] if len(values) > 1 else limit
    return [(value, percent_name(value, step)) for value in values]


def thinned(size: int) -> Floats:
    """Indices of about `_RANKS` of `size` ranks, evenly on a log axis, the first and last included."""
    if size <= _RANKS:
        return np.arange(size, dtype=np.float64)
    return np.unique(np.geomspace(1, size, _RANKS).round()) - 1
