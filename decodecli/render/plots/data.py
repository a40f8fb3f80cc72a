"""What every plot of a distribution starts from: rows, labels, curves and ticks; no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from decodecli.errors import UsageError
from decodecli.records.distribution import DistributionReport, Entry
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, guess_byte_level, model_title, one_line, visible
from decodecli.sampling import reference as d

KINDS = ("auto", "bars", "panel", "lines", "tokens", "cumulative", "entropy")
MOST = 60  # more rows than this are not drawn
_MOST_CURVES = 8  # token curves when none is named
_LABEL = 24  # cells
_POINTS = 161  # of a curve over temperature
_RANKS = 400  # points of a curve over rank


@dataclass(frozen=True)
class Picture:
    """One plot to draw: what of the report, under which labels. `kind` is never "auto"."""

    report: DistributionReport
    kind: str
    rows: tuple[Entry, ...]
    byte_level: bool
    scores: d.Floats | None

    @property
    def labels(self) -> list[str]:
        return [clip(visible(row.token, self.byte_level), _LABEL) for row in self.rows]

    @property
    def legends(self) -> list[str]:
        return [f"T = {numbers.plain(t)}" for t in self.report.temperatures]

    @property
    def points(self) -> list[tuple[float, int]]:
        """The temperatures above 0, which a log axis can show, lowest first, with their places."""
        return sorted((t, i) for i, t in enumerate(self.report.temperatures) if t > 0)

    def removed(self, row: Entry, index: int) -> bool:
        return bool(row.removed_by and row.removed_by[index])

    def is_target(self, row: Entry) -> bool:
        return self.report.target is not None and row.token == self.report.target

    def others(self, index: int) -> float:
        """Probability of all tokens without a row."""
        return max(1 - sum(row.probability[index] for row in self.rows), 0.0)

    @cached_property
    def grid(self) -> d.Floats:
        """Temperatures for a curve: 0.1 to 10, further where the report goes further."""
        given = [t for t, _ in self.points]
        low, high = min([0.1, *(t / 2 for t in given)]), max([10.0, *(t * 2 for t in given)])
        return np.geomspace(low, high, _POINTS)

    def over_temperature(self) -> tuple[d.Floats, d.Floats, d.Floats]:
        """Temperatures `(n,)`, each row's probability there `(rows, n)`, and the entropy `(n,)`.

        A dense grid where the scores are known, else the report's own temperatures.
        """
        if self.scores is None:
            places = [place for _, place in self.points]
            found = [[row.probability[place] for place in places] for row in self.rows]
            entropy = [self.report.spreads[place].entropy for place in places]
            return np.array([t for t, _ in self.points]), np.array(found), np.array(entropy)
        ids = [row.token_id for row in self.rows]
        columns, entropies = [], []
        for temperature in self.grid:
            logprobs = d.log_softmax(self.scores, float(temperature))
            columns.append(np.exp(logprobs[ids]))
            entropies.append(d.entropy(logprobs))
        return self.grid, np.array(columns).T, np.array(entropies)

    def over_rank(self, index: int) -> tuple[d.Floats, d.Floats]:
        """Ranks and the probability of all tokens up to each, at one temperature."""
        if self.scores is None:
            first = []
            for place, row in enumerate(_ranked(self.report), start=1):
                if row.rank > place:  # a token that was asked for, from further down
                    break
                first.append(row.probability[index])
            mass = np.cumsum(first)
        else:
            logprobs = d.log_softmax(self.scores, self.report.temperatures[index])
            mass = np.cumsum(np.sort(np.exp(logprobs))[::-1])
        return np.arange(1, mass.size + 1, dtype=np.float64), np.minimum(mass, 1.0)

    @property
    def top_p(self) -> float | None:
        """The nucleus, when that filter is on."""
        value = self.report.params.get("top_p")
        return float(value) if value is not None and 0 < value < 1 else None

    def cut(self, mass: d.Floats) -> int | None:
        """How many tokens reach top-p; None when it is off or the known ranks do not reach it."""
        if self.top_p is None or mass[-1] < self.top_p - 1e-12:
            return None
        return int(np.searchsorted(mass, self.top_p - 1e-12)) + 1


def picture(
    report: DistributionReport,
    kind: str = "auto",
    tokens: Sequence[str] = (),
    scores: Any = None,
    byte_level: bool | None = None,
) -> Picture:
    """Settle what to draw.

    Raises:
        UsageError: no such kind, a token without a row, one plot of bars for several temperatures.
    """
    if kind not in KINDS:
        raise UsageError(f"--plot-kind {kind} is not known", "one of " + ", ".join(KINDS))
    several = len(report.spreads) > 1
    if kind == "auto":
        kind = "panel" if several else "bars"
    if kind == "bars" and several:
        raise UsageError(
            f"bars show one temperature, and there are {len(report.spreads)}",
            "--plot-kind panel shows them side by side",
        )
    if byte_level is None:
        byte_level = guess_byte_level(row.token for row in report.rows)
    if tokens:
        rows = tuple(_find(report, token, byte_level) for token in dict.fromkeys(tokens))
    else:
        rows = _highest(report, _MOST_CURVES if kind == "tokens" else MOST)
    return Picture(report, kind, rows, byte_level, _full_scores(report, scores))


def _find(report: DistributionReport, token: str, byte_level: bool) -> Entry:
    """The row of a token named by its piece, as it is shown, or by its id."""
    names = (token, visible(token))
    for row in report.rows:
        if row.token in names or visible(row.token, byte_level) in names:
            return row
    for row in report.rows:
        if token == str(row.token_id):
            return row
    raise UsageError(
        f"{token!r} is not among the {len(report.rows)} listed tokens", "ask for it with --token"
    )


def _highest(report: DistributionReport, most: int) -> tuple[Entry, ...]:
    """The first rows by rank, and in any case the target and what was asked for beyond them; in the
    report's order."""
    ranked = _ranked(report)
    asked = [
        row
        for place, row in enumerate(ranked, start=1)
        if row.rank > place or row.token == report.target
    ]
    kept = ranked[:most]
    extra = [row for row in asked if row not in kept][:most]
    drawn = kept[: max(most - len(extra), 1)] + extra
    return tuple(row for row in report.rows if row in drawn)


def _ranked(report: DistributionReport) -> list[Entry]:
    return sorted(report.rows, key=lambda row: row.rank)


def _full_scores(report: DistributionReport, scores: Any) -> d.Floats | None:
    """The scores of every token: given, or read back from the rows when they are all there."""
    if scores is not None:
        return np.asarray(scores, dtype=np.float64)
    if len(report.rows) != report.size:
        return None
    values = np.empty(report.size)
    for row in report.rows:
        value = -np.inf if row.score is None else row.score
        if report.score_name == "probability":
            value = math.log(value) if value > 0 else -np.inf
        values[row.token_id] = -value if report.score_name == "energy" else value
    # Penalties change what is divided by the temperature, and leave the scores in the rows.
    again = np.exp(d.log_softmax(values, report.temperatures[0]))
    told = np.array([row.probability[0] for row in report.rows])
    fits = np.allclose(again[[row.token_id for row in report.rows]], told, atol=1e-9)
    return values if fits else None


def title(report: DistributionReport, width: int) -> str:
    """The prompt's end in quotation marks, or what the numbers are."""
    if report.prompt is None:
        return clip(f"Probability of {numbers.count(report.size)} tokens", width)
    prompt = one_line(report.prompt)
    around = "Next token after “", "”"
    room = max(width - sum(map(len, around)), 8)
    return clip(prompt[::-1], room)[::-1].join(around)  # the end decides what comes next


def subtitle(report: DistributionReport, width: int) -> str:
    """The model, or where the numbers come from, and the filters with their values."""
    parts = [report.source]
    if report.model is not None:
        parts = [f"{model_title(report.model.name)} {numbers.size(report.model.parameters)}"]
        parts.append(f"{numbers.count(report.size)} tokens")
    for stage in report.order:
        value = report.params.get(stage)
        if stage != "temperature" and isinstance(value, (int, float)):
            parts.append(f"{stage} {numbers.plain(value)}")
    return clip(" · ".join(parts), width)


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
        found = [m * 10.0**k for k in range(first, last + 1) for m in digits]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


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
    shown = 100 * step
    decimals = next((k for k in range(4) if math.isclose(round(shown, k), shown)), 4)
    return f"{100 * value:.{decimals}f}%"


def thinned(size: int) -> d.Floats:
    """Places of about `_RANKS` of `size` ranks, evenly on a log axis, the first and last included."""
    if size <= _RANKS:
        return np.arange(size, dtype=np.float64)
    return np.unique(np.geomspace(1, size, _RANKS).round()) - 1
