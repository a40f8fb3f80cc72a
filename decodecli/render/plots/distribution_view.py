"""What every plot of a distribution starts from: rows, labels and curves; no drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class DistributionView:
    """One plot to draw: which rows of a report, under which labels.

    kind: never "auto". points: the temperatures above 0, which a log axis can show, lowest first, with
    their indices. limit: the highest probability before the filters, at any temperature. top_p: the
    nucleus, None when that filter is off.

    Args:
        scores: `(vocabulary,)`, what is divided by the temperature; None reads them back from the rows
            when they are all there.

    Raises:
        UsageError: no such kind, a token without a row, one plot of bars for several temperatures.
    """

    def __init__(
        self,
        report: DistributionReport,
        kind: str = "auto",
        tokens: Sequence[str] = (),
        scores: Any = None,
        byte_level: bool | None = None,
    ) -> None:
        if kind not in KINDS:
            raise UsageError(f"--plot-kind {kind} is not known", "one of " + ", ".join(KINDS))
        several = len(report.spreads) > 1
        if kind == "bars" and several:
            raise UsageError(
                f"bars show one temperature, and there are {len(report.spreads)}",
                "--plot-kind panel shows them side by side",
            )
        if byte_level is None:
            byte_level = guess_byte_level(row.token for row in report.rows)
        self.report = report
        self.kind = ("panel" if several else "bars") if kind == "auto" else kind
        rows = [_row_named(report, token, byte_level) for token in dict.fromkeys(tokens)]
        self.rows = rows or _highest(report, _MAX_CURVES if kind == "tokens" else _MAX_ROWS)
        self.scores = _full_scores(report, scores)
        self.labels = [clip(visible(row.token, byte_level), _LABEL) for row in self.rows]
        self.legends = [f"T = {numbers.plain(t)}" for t in report.temperatures]
        self.points = sorted((t, i) for i, t in enumerate(report.temperatures) if t > 0)
        self.limit = max((p for row in self.rows for p in row.probability), default=1.0) or 1.0
        top_p = report.params.get("top_p")
        self.top_p = float(top_p) if top_p is not None and 0 < top_p < 1 else None

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

    def temperature_span(self, temperatures: Floats) -> tuple[float, float]:
        """The ends of the axis for curves over `temperatures`."""
        if not len(temperatures):
            return 0.1, 10.0
        margin = 1.3 if self.scores is None else 1.0
        return float(temperatures[0]) / margin, float(temperatures[-1]) * margin

    def over_temperature(self) -> tuple[Floats, Floats, Floats]:
        """Temperatures `(n,)`, each row's probability there `(rows, n)`, and the entropy `(n,)`.

        Where the scores are known a dense grid from 0.1 to 10, and further where the report goes further;
        else the report's own temperatures.
        """
        known = [t for t, _ in self.points]
        if self.scores is None:
            indices = [index for _, index in self.points]
            curves = [[row.probability[index] for index in indices] for row in self.rows]
            entropy = [self.report.spreads[index].entropy for index in indices]
            return np.array(known), np.array(curves), np.array(entropy)
        low, high = min([0.1, *(t / 2 for t in known)]), max([10.0, *(t * 2 for t in known)])
        grid, ids = np.geomspace(low, high, _POINTS), [row.token_id for row in self.rows]
        logprobs = [reference.log_softmax(self.scores, float(t)) for t in grid]
        columns = [np.exp(row[ids]) for row in logprobs]
        entropy = [reference.entropy(row) for row in logprobs]
        return grid, np.array(columns).T, np.array(entropy)

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


def _row_named(report: DistributionReport, token: str, byte_level: bool) -> Entry:
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
