"""Value expressions: what is written for a decoding option → the values that it takes in a sweep.

    a,b,c        these
    lo..hi       whole numbers, both ends
    lo:hi:step   hi too where the steps hit it; decimal, so that 0.1:0.5:0.1 holds 0.3 exactly
    log:lo:hi:n  n values, each the same multiple of the one before, both ends exact

and any of them joined by commas: `0,0.5:2:0.5`. `greedy` is temperature 0. `bos` takes on, off and auto.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from decodecli.settings import SamplingParams

# Every axis, the outermost first: the seed changes fastest.
AXES: tuple[str, ...] = (
    *(item.name for item in fields(SamplingParams) if item.name != "seed"),
    "bos",
    "seed",
)


def parse_axis(name: str, value: Any, *, repeats: bool = False) -> tuple[Any, ...]:
    """The values of an axis, each of them checked against the option's own range.

    Args:
        name: one of `AXES`.
        value: a value, an expression, or a list (or tuple) of both. `stop` takes a string or a list of
            strings for one value, a list of such lists for several. None is "auto" for `bos`.
        repeats: whether a value may stand twice, as in one of several paired axes.

    Parsed values parse to themselves.

    Raises:
        UsageError: it is no expression, a value is of the wrong kind, out of range or given twice, or
            there are too many; the message names the axis and the value.
    """
    raise NotImplementedError
