"""What every plot of a distribution starts from: rows, labels and curves; no drawing."""

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
from decodecli.sampling import reference
from decodecli.sampling.reference import Floats

KINDS = ("auto", "bars", "panel", "lines", "tokens", "cumulative", "entropy")
_MAX_ROWS = 60
_MAX_CURVES = 8  # token curves when none is named
_LABEL = 24  # cells
_POINTS = 161  # of a curve over temperature
_RANKS = 400  # points of a curve over rank


@dataclass(frozen=True)
class DistributionView:
    """One plot to draw: what of the report, under which labels. `kind` is never "auto"; `scores` are
    `(vocabulary,)` or None."""

    report: DistributionReport
    kind: str
    rows: tuple[Entry, ...]
    byte_level: bool
    scores: Floats | None

    @property
    def labels(self) -> list[str]:
        return [clip(visible(row.token, self.byte_level), _LABEL) for row in self.rows]

    @property
    def legends(self) -> list[str]:
        return [f"T = {numbers.plain(t)}" for t in self.report.temperatures]

    @property
    def points(self) -> list[tuple[float, int]]:
        """The temperatures above 0, which a log axis can show, lowest first, with their indices."""
        return sorted((t, i) for i, t in enumerate(self.report.temperatures) if t > 0)

    @property
    def limit(self) -> float:
        """The highest probability before the filters, at any temperature."""
        return max((p for row in self.rows for p in row.probability), default=1.0) or 1.0

    def removed(self, row: Entry, index: int) -> bool:
        return bool(row.removed_by and row.removed_by[index])

    def is_target(self, row: Entry) -> bool:
        return self.report.target is not None and row.token == self.report.target

    def others(self, index: int) -> str:
        """What the tokens without a row have together: `3.1% on 4,086 more`; "" where there are none."""
        count = self.report.size - len(self.rows)
        rest = max(1 - sum(row.probability[index] for row in self.rows), 0.0)
        share = numbers.rest_cell(rest).strip()
        return f"{share} on {numbers.count(count)} more" if count > 0 else ""

    @cached_property
    def grid(self) -> Floats:
        """Temperatures for a curve: 0.1 to 10, further where the report goes further."""
        known = [t for t, _ in self.points]
        low, high = min([0.1, *(t / 2 for t in known)]), max([10.0, *(t * 2 for t in known)])
        return np.geomspace(low, high, _POINTS)

    def temperature_span(self, temperatures: Floats) -> tuple[float, float]:
        """The ends of the axis for curves over `temperatures`."""
        if self.scores is not None or not len(temperatures):
            return float(self.grid[0]), float(self.grid[-1])
        return float(temperatures[0]) / 1.3, float(temperatures[-1]) * 1.3

    def over_temperature(self) -> tuple[Floats, Floats, Floats]:
        """Temperatures `(n,)`, each row's probability there `(rows, n)`, and the entropy `(n,)`.

        A dense grid where the scores are known, else the report's own temperatures.
        """
        if self.scores is None:
            indices = [index for _, index in self.points]
            curves = [[row.probability[index] for index in indices] for row in self.rows]
            entropy = [self.report.spreads[index].entropy for index in indices]
            return np.array([t for t, _ in self.points]), np.array(curves), np.array(entropy)
        ids = [row.token_id for row in self.rows]
        logprobs = [reference.log_softmax(self.scores, float(t)) for t in self.grid]
        columns = [np.exp(row[ids]) for row in logprobs]
        entropy = [reference.entropy(row) for row in logprobs]
        return self.grid, np.array(columns).T, np.array(entropy)

    def over_rank(self, index: int) -> tuple[Floats, Floats]:
        """Ranks and the probability of all tokens up to each, at one temperature."""
        if self.scores is None:
            first, ranked = [], sorted(self.report.rows, key=lambda row: row.rank)
            for rank, row in enumerate(ranked, start=1):
                if row.rank > rank:  # a token that was asked for, from further down
                    break
                first.append(row.probability[index])
            mass = np.cumsum(first)
        else:
            logprobs = reference.log_softmax(self.scores, self.report.temperatures[index])
            mass = np.cumsum(np.sort(np.exp(logprobs))[::-1])
        return np.arange(1, mass.size + 1, dtype=np.float64), np.minimum(mass, 1.0)

    @property
    def top_p(self) -> float | None:
        """The nucleus, when that filter is on."""
        value = self.report.params.get("top_p")
        return float(value) if value is not None and 0 < value < 1 else None

    def cut(self, mass: Floats) -> int | None:
        """How many tokens reach top-p; None when it is off or the known ranks do not reach it."""
        if self.top_p is None or mass[-1] < self.top_p - 1e-12:
            return None
        return int(np.searchsorted(mass, self.top_p - 1e-12)) + 1

    def title(self, width: int) -> str:
        """The prompt's end in quotation marks, or what the numbers are."""
        if self.report.prompt is None:
            return clip(f"Probability of {numbers.count(self.report.size)} tokens", width)
        before, after = "Next token after “", "”"
        cells = max(width - len(before + after), 8)
        # The end decides what comes next.
        return f"{before}{clip(one_line(self.report.prompt)[::-1], cells)[::-1]}{after}"

    def subtitle(self, width: int) -> str:
        """The model, or where the numbers come from, and the filters with their values."""
        model, parts = self.report.model, [self.report.source]
        if model is not None:
            name = f"{model_title(model.name)} {numbers.size(model.parameters)}"
            parts = [name, f"{numbers.count(self.report.size)} tokens"]
        for stage in self.report.order:
            value = self.report.params.get(stage)
            if stage != "temperature" and isinstance(value, (int, float)):
                parts.append(f"{stage} {numbers.plain(value)}")
        return clip(" · ".join(parts), width)


def distribution_view(
    report: DistributionReport,
    kind: str = "auto",
    tokens: Sequence[str] = (),
    scores: Any = None,
    byte_level: bool | None = None,
) -> DistributionView:
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
    rows: list[Entry] = []
    for token in dict.fromkeys(tokens):  # by its piece, as it is shown, or by its id
        names = (token, visible(token))
        matches = [
            row
            for row in report.rows
            if row.token in names or visible(row.token, byte_level) in names
        ]
        matches += [row for row in report.rows if token == str(row.token_id)]
        if not matches:
            raise UsageError(
                f"{token!r} is not among the {len(report.rows)} listed tokens",
                "ask for it with --token",
            )
        rows.append(matches[0])
    if not tokens:
        rows = _highest(report, _MAX_CURVES if kind == "tokens" else _MAX_ROWS)
    return DistributionView(report, kind, tuple(rows), byte_level, _full_scores(report, scores))


def _highest(report: DistributionReport, most: int) -> list[Entry]:
    """The first rows by rank, and in any case the target and what was asked for beyond them; in the
    report's order."""
    ranked = sorted(report.rows, key=lambda row: row.rank)
    kept = ranked[:most]
    extra = [
        row
        for rank, row in enumerate(ranked, start=1)
        if (row.rank > rank or row.token == report.target) and row not in kept
    ][:most]
    drawn = kept[: max(most - len(extra), 1)] + extra
    return [row for row in report.rows if row in drawn]


def _full_scores(report: DistributionReport, scores: Any) -> Floats | None:
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
    recomputed = np.exp(reference.log_softmax(values, report.temperatures[0]))
    reported = np.array([row.probability[0] for row in report.rows])
    fits = np.allclose(recomputed[[row.token_id for row in report.rows]], reported, atol=1e-9)
    return values if fits else None


def thinned(size: int) -> Any:
    """Indices of about `_RANKS` of `size` ranks, evenly on a log axis, the first and last included."""
    if size <= _RANKS:
        return np.arange(size)
    return np.unique(np.geomspace(1, size, _RANKS).round()).astype(int) - 1
