"""95 % intervals: of a proportion, of a mean, and of what is neither.

Without scipy, which is no dependency and takes half a second to import; the standard library's
`statistics` has no Student's t.

An interval is `(low, high)`. None stands where there is nothing to take one from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

Interval = tuple[float, float]

CONFIDENCE = 0.95
_NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # 1.96
_MANY = 1000  # degrees of freedom from which the expansion around the normal is exact to 1e-12


def wilson(successes: int, trials: int) -> Interval | None:
    """Wilson's score interval of a proportion, within [0, 1]; None without trials.

    Unlike the textbook's p ± 1.96·√(p(1−p)/n) it has a width when all or none succeed: from n right
    answers of n it reaches down to n / (n + 3.84). Wilson 1927, doi 10.1080/01621459.1927.10502953.

    Raises:
        ValueError: not 0 ≤ successes ≤ trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no proportion")
    if not trials:
        return None
    squared = _NORMAL * _NORMAL
    centre = (successes + squared / 2) / (trials + squared)
    spread = successes * (trials - successes) / trials + squared / 4
    half = _NORMAL / (trials + squared) * math.sqrt(spread)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, rounded once, so that it does not depend on the values' order.

    Raises:
        ValueError: there are none.
    """
    if not len(values):
        raise ValueError("no values, no mean")
    # The rounded mean of equal values can miss them by the last digit.
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def student(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean; None from fewer than two values.

    Values that are all equal give an interval of no width. "Student" 1908, doi 10.2307/2331554.
    """
    count = len(values)
    if count < 2:
        return None
    centre = mean(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (count - 1)
    return _around(centre, math.sqrt(variance / count), count)


def jackknife(value: float, without: Sequence[float]) -> Interval | None:
    """The interval of any statistic, from its values with each observation left out in turn.

    value ± t · √((n−1)/n · Σ(θᵢ − mean θ)²), t with n − 1 degrees of freedom; None from fewer than two
    observations. Tukey 1958, doi 10.1214/aoms/1177706647; that the variance tends to be too large, not
    too small: Efron & Stein 1981, doi 10.1214/aos/1176345462.
    """
    count = len(without)
    if count < 2:
        return None
    centre = mean(without)
    squares = math.fsum((other - centre) ** 2 for other in without)
    return _around(value, math.sqrt((count - 1) / count * squares), count)


def _around(centre: float, error: float, count: int) -> Interval:
    half = student_quantile(count - 1) * error
    return centre - half, centre + half


@lru_cache(maxsize=4096)
def student_quantile(freedom: int) -> float:
    """The t that Student's distribution stays within on either side with probability 0.95.

    To 1e-12 of its value. Abramowitz & Stegun 1964: 26.7.3 and 26.7.4 solved for t; from 1000 degrees
    of freedom on, 26.7.5.

    Raises:
        ValueError: freedom is below 1.
    """
    if freedom < 1:
        raise ValueError(f"at least one degree of freedom, got {freedom}")
    if freedom >= _MANY:
        z, v = _NORMAL, freedom
        return (
            z
            + (z**3 + z) / (4 * v)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
            + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
        )
    # Halve the angle's range, θ = atan(t / √ν), until nothing is left of it.
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return math.sqrt(freedom) * math.tan(high)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < √ν · tan θ): a finite sum of powers of cos θ for whole degrees of freedom ν."""
    terms, odd = divmod(freedom, 2)
    # Each term is the one before it times cos² θ and 2/3, 4/5, … (ν odd) or 1/2, 3/4, … (ν even).
    steps = np.arange(1, terms)
    ratios = math.cos(angle) ** 2 * (2 * steps - 1 + odd) / (2 * steps + odd)
    total = 1 + float(np.cumprod(ratios).sum())
    if not odd:
        return math.sin(angle) * total
    rest = math.sin(angle) * math.cos(angle) * total if terms else 0.0
    return 2 / math.pi * (angle + rest)
