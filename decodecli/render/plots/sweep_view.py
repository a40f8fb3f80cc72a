"""What every picture of a sweep starts from: lines and panels, how lines look, and the axis across."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line
from decodecli.render.plots.figure_layout import (
    COLOURS,
    DASHES,
    MARKERS,
    QUIET,
    FigureLayout,
    distinct,
    log_ticks,
    sequential,
    tick_name,
    ticks,
)
from decodecli.render.plots.sweep_data import (
    Line,
    Metric,
    Panel,
    axis_name,
    common_facts,
    facts,
    frozen,
    hashable,
    is_geometric,
    layout,
    lines,
    numeric,
    readable,
    shown_metrics,
    value_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 8  # lines with an interval and a name each; more are told by a scale of colours
MAX_LINES, MAX_PANELS = 60, 12
WIDE = 20  # times the least perplexity, from which on its axis is logarithmic
_MAX_LABELS = 12  # names that one panel has room for
_CLOSE = 0.16  # of the axis; neighbours that are nearer may need a second row for their names
_MAX_TICKS = 10  # values from which on the axis has round numbers instead
_NAME = 28  # cells of a line's name
_GAP = 0.09  # inches from a number under the axis to the next, at the least


class SweepView:
    """A summary with its lines and panels, and how the line of each value is drawn.

    values: of the axis that has a line for each. labelled: whether each line's name stands at its end.
    has_scale: whether a scale of colours tells the values instead. has_intervals: whether they are told
    and drawn: nothing is known of a single seed's spread. joined: whether a line leads from point to
    point: of single runs, whose noise would look like a course, none does.
    """

    def __init__(self, summary: SweepSummary) -> None:
        self.summary = summary = readable(summary)
        self.layout = layout(summary)
        self.lines = lines(summary, self.layout)
        by_panel = {(line.panel.group, frozen(line.panel.values)): line for line in self.lines}
        self.panels = [line.panel for line in by_panel.values()]
        self.values = list({hashable(line.value): line.value for line in self.lines}.values())
        is_ordered = self.layout.line is not None and numeric(self.values)
        if is_ordered:
            self.values.sort()
        self._numbers = {hashable(value): k for k, value in enumerate(self.values)}
        self.metrics = shown_metrics(summary)
        self.across_name = one_line(self.layout.across or "")
        self.line_name = one_line(self.layout.line or "")
        many = len(self.values)
        self.has_intervals = len(summary.seeds) > 1
        self.has_scale = is_ordered and many > NAMED
        self.labelled = not self.has_scale and 1 < many <= _MAX_LABELS
        several_runs = any(setting.cells != 1 for setting in summary.settings)
        self.joined = several_runs and numeric(summary.axes.get(self.layout.across or "", ()))
        self.colours = sequential(many) if is_ordered and many > 1 else distinct(many)

    def of_panel(self, panel: Panel) -> list[Line]:
        """All its lines, or `MAX_LINES` at equal distances, the first and the last among them; in the
        order of `values`."""
        members = [line for line in self.lines if line.panel == panel]
        members.sort(key=lambda line: self.number(line.value))
        if len(members) <= MAX_LINES:
            return members
        step = (len(members) - 1) / (MAX_LINES - 1)
        return [members[round(k * step)] for k in range(MAX_LINES)]

    def number(self, value: Any) -> int:
        """Which of `values` this is."""
        return self._numbers[hashable(value)]

    def estimates(self, metric: Metric, panel: Panel) -> list[Estimate]:
        """All that a panel has of a metric."""
        return [e for line in self.of_panel(panel) for _, e in line.points(metric.name)]

    def figure_layout(
        self,
        size: tuple[float, float],
        title: str,
        *more: str,
        panels: int = 0,
        most: int = MAX_PANELS,
        note: str = "",
    ) -> FigureLayout:
        """A figure headed by the sweep's facts, how many of its `panels` and lines are drawn, and what is
        the same in all cells."""
        parts = [*facts(self.summary), *more]
        if panels > most:
            parts.append(f"the first {most} of {numbers.count(panels)} panels")
        if len(self.values) > MAX_LINES:
            parts.append(f"{MAX_LINES} of {numbers.count(len(self.values))} lines")
        values = (*self.values, *self.summary.axes.get(self.layout.across or "", ()))
        texts = [panel.name for panel in self.panels] + [value_name(value) for value in values]
        notes = " · ".join(filter(None, [*common_facts(self.summary), note]))
        return FigureLayout(size, title, " · ".join(parts), texts, notes)

    def look(self, line: Line) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        number, many = self.number(line.value), len(self.values)
        turn = number // len(COLOURS) if many > len(DASHES) else number
        dashes = ("-" if self.has_scale else DASHES[turn % len(DASHES)]) if self.joined else ""
        look: dict[str, Any] = {"color": self.colours[number], "linestyle": dashes}
        if self.has_scale:
            look["linewidth"] = 1.0
            return look if self.joined else look | {"marker": ".", "markersize": 4.0}
        return look | {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.5}

    def draw_legend(self, layout: FigureLayout, axes: Axes) -> None:
        """Names of the lines beside the axes, or a scale of their colours with the lines' values at equal
        distances."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        many, title = len(self.values), layout.spell(self.line_name)
        if many < 2:
            return
        if self.has_scale:
            scale = ScalarMappable(Normalize(-0.5, many - 0.5), ListedColormap(list(self.colours)))
            bar = layout.colour_bar(scale, visible(layout.figure.axes), pad=0.02, aspect=28)
            named = sorted({round(k * (many - 1) / 6) for k in range(7)})
            bar.set_ticks(named, labels=[value_name(self.values[k]) for k in named])
            bar.set_label(title, fontsize=8, color=QUIET)
            return
        one_each = {self.number(line.value): line for line in self.lines}
        lines = [one_each[number] for number in sorted(one_each)][:MAX_LINES]
        looks = [self.look(line) for line in lines]
        names = [layout.spell(clip(value_name(line.value), _NAME)) for line in lines]
        layout.side_legend(axes, looks, names, title)


class XAxis:
    """The horizontal axis: where a value stands, and what is written under it.

    Values that grow by ratios stand on a log axis, 0 one step before the lowest; those that are no
    numbers stand at equal distances.
    """

    def __init__(self, view: SweepView) -> None:
        assert view.layout.across is not None
        axis = view.layout.across
        values = [setting.setting.get(axis) for setting in view.summary.settings]
        self.values: list[Any] = list({hashable(value): value for value in values}.values())
        self.numeric = numeric(self.values)
        if self.numeric:
            self.values.sort()
        self.log = self.numeric and is_geometric(self.values)
        self._zero = 0.0
        if self.log:
            positive = [value for value in self.values if value > 0]
            ratio = (positive[-1] / positive[0]) ** (1 / max(len(positive) - 1, 1))
            self._zero = positive[0] / max(ratio, 1.5)
        notes = ["log scale"] if self.log else []
        if axis == "temperature" and self.numeric and 0 in self.values:
            notes.append("0 is greedy")
        notes += [f"{axis_name(other)} goes along" for other in view.layout.along]
        self.label = one_line(axis) + (f" ({', '.join(notes)})" if notes else "")
        # Of names: two where those of neighbours may not stand beside one another.
        self._rows = 1
        if self.numeric and 3 <= len(self.values) <= _MAX_TICKS:
            at = [self.position(value) for value in self.values]
            at = [math.log(position) for position in at] if self.log else at
            least = min(b - a for a, b in itertools.pairwise(at))
            self._rows = 2 if least < _CLOSE * (at[-1] - at[0]) else 1

    def position(self, value: Any) -> float:
        if not self.numeric:
            return float(self.values.index(value))
        return self._zero if self.log and value == 0 else float(value)

    def draw(self, axes: Axes) -> None:
        """Scale and limits; ticks come when the axes have their size."""
        low, high = self.position(self.values[0]), self.position(self.values[-1])
        if self.log:
            axes.set_xscale("log")
            share = (high / low) ** 0.06
            axes.set_xlim(low / share, high * share)
        else:
            margin = 0.06 * (high - low) if self.numeric else 0.6
            axes.set_xlim(low - margin, high + margin)
        axes.minorticks_off()
        axes.set_xticks([low, high], ["\n".join("0" * self._rows)] * 2)  # room for what comes
        axes.grid(axis="y")
        axes.tick_params(length=0, axis="y")
        axes.tick_params(length=2.5, axis="x")

    def draw_ticks(self, layout: FigureLayout, axes: Axes) -> None:
        """The values themselves where they are few, a second row below taking what the first has no room
        for; else round numbers; none over another."""
        if not self.numeric or len(self.values) <= _MAX_TICKS:
            positions = [self.position(value) for value in self.values]
            names = [value_name(value) for value in self.values]
        else:
            known = [float(value) for value in self.values if value or not self.log]
            low, high = known[0], known[-1]
            positions = (log_ticks(low, high) or [low, high]) if self.log else ticks(low, high, 6)
            names = [tick_name(value) for value in positions]
            if self.log and 0 in self.values:
                positions, names = [self._zero, *positions], ["0", *names]
        names, dpi = [layout.spell(name) for name in names], layout.figure.dpi
        if not self.numeric:
            width = max(0.9 * axes.get_window_extent().width / dpi / len(names), 0.3)
            names = [layout.fitted(name, 8, width) for name in names]
        centres = axes.transData.transform([(position, 0) for position in positions])[:, 0] / dpi
        halves = [layout.text_width(name, 8) / 2 for name in names]
        rows: list[list[int]] = [[] for _ in range(self._rows)]
        for k in dict.fromkeys([0, len(names) - 1, *range(len(names))]):  # the ends first
            for row in rows:
                if all(abs(centres[k] - centres[o]) > halves[k] + halves[o] + _GAP for o in row):
                    row.append(k)
                    break
        kept = sorted((k, "\n" * below + names[k]) for below, row in enumerate(rows) for k in row)
        axes.set_xticks([positions[k] for k, _ in kept], [name for _, name in kept])


def round_ticks(axis: Any, share: bool) -> None:
    """A few round numbers with a real minus sign; of a share, percentages."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axis.set_major_formatter(
        lambda value, _: (f"{100 * value:.6g}%" if share else f"{value:.6g}").replace("-", "−")
    )


def visible(axes: Any) -> list[Axes]:
    """Those that have something to show."""
    return [one for one in axes if one.get_visible()]
