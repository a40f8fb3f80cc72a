"""Repetitions that alternate between the sides, their medians and spread.

Everything here works on plain numbers; what a number means (seconds, tokens/s) the caller knows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Samples:
    """What one side measured, a value for each repetition, in the order of measuring."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("no repetition was measured")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the values lies between these; a single value is its own quartiles."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return first, third

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: median, quartiles, range and every value."""
        return {
            "median": self.median,
            "quartiles": list(self.quartiles),
            "range": [min(self.values), max(self.values)],
            "values": list(self.values),
        }


def alternate(
    sides: Mapping[str, Callable[[], float]], repeat: int, warm_up: bool = True
) -> dict[str, Samples]:
    """Measure the sides in turn, `repeat` times, every other time in the opposite order (A B, B A, …).

    Args:
        sides: what each side is called, and what measures it once and returns the number.
        warm_up: measure each side once before, and forget the number.
    """
    if warm_up:
        for measure in sides.values():
            measure()
    values: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repeat):
        for name in list(sides)[:: -1 if repetition % 2 else 1]:
            values[name].append(sides[name]())
    return {name: Samples(tuple(measured)) for name, measured in values.items()}


@dataclass(frozen=True)
class Stopwatch:
    """Seconds that something takes, on a device that may still be working when the call returns.

    clock: seconds from anywhere.
    settle: waits until the device is idle.
    """

    clock: Callable[[], float] = time.perf_counter
    settle: Callable[[], None] = lambda: None

    def seconds(self, run: Callable[[], object]) -> float:
        """How long `run` takes until its device is idle again."""
        self.settle()
        start = self.clock()
        run()
        self.settle()
        return self.clock() - start

    def per_call(self, run: Callable[[], object], calls: int) -> float:
        """Seconds a call, over `calls` calls in a row."""

        def repeated() -> None:
            for _ in range(calls):
                run()

        return self.seconds(repeated) / calls


@dataclass(frozen=True)
class Speed:
    """Tokens/s of decoding alone: a long run less a short one, so that whatever comes before the
    first tokens (the prompt, a graph to capture) is left out.

    `short` and `long` are numbers of tokens.
    """

    watch: Stopwatch
    short: int
    long: int

    def tokens_per_second(self, run: Callable[[int], object]) -> float:
        """Measure once. `run(n)` generates exactly n tokens.

        A busy machine can make a short run take longer than a long one; after three of those the
        long run is taken whole, which is too low a figure rather than none.
        """
        for _ in range(3):
            short = self.watch.seconds(lambda: run(self.short))
            long = self.watch.seconds(lambda: run(self.long))
            if long > short:
                return (self.long - self.short) / (long - short)
        return self.long / max(long, 1e-9)
