"""What every picture of a sweep starts from: lines and panels, the axis across, and how lines look."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line
from decodecli.render.plots.figure_layout import (
    COLOURS,
    DASHES,
    MARKERS,
    QUIET,
    FigureLayout,
    sequential,
)
from decodecli.render.plots.sweep_common import common_facts, readable
from decodecli.render.plots.sweep_data import (
    Layout,
    Line,
    Metric,
    axis_name,
    facts,
    frozen,
    is_geometric,
    layout,
    lines,
    numeric,
    setting_name,
    shown_metrics,
    value_name,
)
from decodecli.render.plots.ticks import log_ticks, tick_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 8  # lines with an interval and a name each; more are told by a scale of colours
MAX_LABELS = 12  # names that one panel has room for
MAX_LINES, MAX_PANELS = 60, 12
_CLOSE = 0.16  # of the axis; neighbours that are nearer may need a second row for their names
_MAX_TICKS = 10  # values from which on the axis has round numbers instead
_NAME = 28  # cells of a panel's or a line's name
_GAP = 0.09  # inches from a number under the axis to the next, at the least


class Panel(NamedTuple):
    """A task or prompt, and values of the axes that have neither the x axis nor lines."""

    group: str | None
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """`knowledge · bos on`."""
        parts = [one_line(self.group)] if self.group is not None else []
        return clip(" · ".join(parts + ([setting_name(self.values)] if self.values else [])), _NAME)


@dataclass(frozen=True)
class SweepView:
    """A summary with its lines and panels. `values` are those of the axis that has a line for each."""

    summary: SweepSummary
    placed: Layout
    lines: tuple[Line, ...]
    panels: tuple[Panel, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, summary: SweepSummary) -> SweepView:
        summary = readable(summary)
        placed = layout(summary)
        every = lines(summary, placed)
        panels = {(line.group, frozen(line.panel)): Panel(line.group, line.panel) for line in every}
        values = list({_key(line.value): line.value for line in every}.values())
        if placed.line is not None and numeric(values):
            values.sort()
        return cls(summary, placed, tuple(every), tuple(panels.values()), tuple(values))

    @property
    def metrics(self) -> list[Metric]:
        return shown_metrics(self.summary)

    @property
    def across_name(self) -> str:
        return one_line(self.placed.across or "")

    @property
    def line_name(self) -> str:
        return one_line(self.placed.line or "")

    @property
    def note(self) -> str:
        """What is the same in all cells, for a line of the heading."""
        return " · ".join(common_facts(self.summary))

    @property
    def texts(self) -> list[str]:
        """Every name that may be written."""
        values = (*self.values, *self.summary.axes.get(self.placed.across or "", ()))
        return [panel.name for panel in self.panels] + [value_name(value) for value in values]

    @property
    def has_intervals(self) -> bool:
        """Whether intervals are told and drawn: nothing is known of a single seed's spread."""
        return len(self.summary.seeds) > 1

    def of_panel(self, panel: Panel) -> list[Line]:
        """All its lines, or `MAX_LINES` at equal distances, the first and the last among them; in the
        order of `values`."""
        members = [line for line in self.lines if Panel(line.group, line.panel) == panel]
        members.sort(key=lambda line: self.number(line.value))
        if len(members) <= MAX_LINES:
            return members
        step = (len(members) - 1) / (MAX_LINES - 1)
        return [members[round(k * step)] for k in range(MAX_LINES)]

    def number(self, value: Any) -> int:
        """Which of `values` this is."""
        return [_key(other) for other in self.values].index(_key(value))

    def points(self, line: Line, metric: Metric) -> list[tuple[Any, Estimate]]:
        return line.points(metric.name, self.placed.across or "")

    def estimates(self, metric: Metric, panel: Panel) -> list[Estimate]:
        """All that a panel has of a metric."""
        return [e for line in self.of_panel(panel) for _, e in self.points(line, metric)]

    def subtitle(self, *more: str, panels: int = 0, most: int = MAX_PANELS) -> str:
        """The facts, and what of `panels` and lines could not all be drawn."""
        parts = [*facts(self.summary), *more]
        if panels > most:
            parts.append(f"the first {most} of {numbers.count(panels)} panels")
        if len(self.values) > MAX_LINES:
            parts.append(f"{MAX_LINES} of {numbers.count(len(self.values))} lines")
        return " · ".join(parts)


def _key(value: Any) -> Any:
    """A value as a key, True being no 1."""
    return frozen({"": value})


class XAxis:
    """The horizontal axis: where a value stands, and what is written under it.

    Values that grow by ratios stand on a log axis, 0 one step before the lowest; those that are no
    numbers stand at equal distances.
    """

    def __init__(self, view: SweepView) -> None:
        assert view.placed.across is not None
        self.axis = view.placed.across
        values = [setting.setting.get(self.axis) for setting in view.summary.settings]
        self.values: list[Any] = list({_key(value): value for value in values}.values())
        self.numeric = numeric(self.values)
        if self.numeric:
            self.values.sort()
        self.log = self.numeric and is_geometric(self.values)
        self._positive = [float(v) for v in self.values if self.log and v > 0]
        self._zero = 0.0
        if self._positive:
            low, high = self._positive[0], self._positive[-1]
            self._zero = low / max((high / low) ** (1 / max(len(self._positive) - 1, 1)), 1.5)
        notes = ["log scale"] if self.log else []
        if self.axis == "temperature" and self.numeric and 0 in self.values:
            notes.append("0 is greedy")
        notes += [f"{axis_name(axis)} goes along" for axis in view.placed.along]
        self.label = one_line(self.axis) + (f" ({', '.join(notes)})" if notes else "")

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

    @property
    def _rows(self) -> int:
        """Of names: two where those of neighbours may not stand beside one another."""
        if not self.numeric or not 3 <= len(self.values) <= _MAX_TICKS:
            return 1
        at = [self.position(value) for value in self.values]
        at = [math.log(position) for position in at] if self.log else at
        least = min(b - a for a, b in itertools.pairwise(at))
        return 2 if least < _CLOSE * (at[-1] - at[0]) else 1

    def draw_ticks(self, layout: FigureLayout, axes: Axes) -> None:
        """The values themselves where they are few, a second row below taking what the first has no room
        for; else round numbers; none over another."""
        positions, names = zip(*self._ticks(), strict=True)
        names = tuple(layout.spell(name) for name in names)
        dpi = layout.figure.dpi
        if not self.numeric:
            width = max(0.9 * axes.get_window_extent().width / dpi / len(names), 0.3)
            names = tuple(layout.fitted(name, 8, width) for name in names)
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

    def _ticks(self) -> list[tuple[float, str]]:
        """Positions and names, as far as there is room."""
        if not self.numeric or len(self.values) <= _MAX_TICKS:
            return [(self.position(value), value_name(value)) for value in self.values]
        if self.log:
            low, high = self._positive[0], self._positive[-1]
            ticks = [(value, tick_name(value)) for value in log_ticks(low, high) or [low, high]]
            return ([(self._zero, "0")] if 0 in self.values else []) + ticks
        from matplotlib.ticker import MaxNLocator

        low, high = float(self.values[0]), float(self.values[-1])
        round_values = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        inside = [float(value) for value in round_values if low - 1e-9 <= value <= high + 1e-9]
        return [(value, tick_name(round(value, 12))) for value in inside]


@dataclass(frozen=True)
class LineStyle:
    """How the line of each value is drawn.

    scale: whether a scale of colours tells the values. joined: whether a line leads from point to point:
    of single runs, whose noise would look like a course, none does.
    """

    view: SweepView
    colours: tuple[str, ...]
    scale: bool
    joined: bool

    @classmethod
    def of(cls, view: SweepView) -> LineStyle:
        many = len(view.values)
        ordered = view.placed.line is not None and numeric(view.values)
        by_order = (ordered and many > 1) or many > len(COLOURS)
        colours = sequential(many) if by_order else COLOURS[:many]
        several_runs = any(setting.cells != 1 for setting in view.summary.settings)
        joined = several_runs and numeric(view.summary.axes.get(view.placed.across or "", ()))
        return cls(view, tuple(colours), ordered and many > NAMED, joined)

    def of_line(self, line: Line) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        number, many = self.view.number(line.value), len(self.view.values)
        turn = number // len(COLOURS) if many > len(DASHES) else number
        dashes = ("-" if self.scale else DASHES[turn % len(DASHES)]) if self.joined else ""
        look: dict[str, Any] = {"color": self.colours[number], "linestyle": dashes}
        if self.scale:
            look["linewidth"] = 1.0
            return look if self.joined else look | {"marker": ".", "markersize": 4.0}
        return look | {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.5}

    @property
    def labelled(self) -> bool:
        """Whether each line's name stands at its end."""
        return not self.scale and 1 < len(self.view.values) <= MAX_LABELS

    def draw_legend(self, layout: FigureLayout, axes: Axes) -> None:
        """Names of the lines beside the axes, or the scale of their colours."""
        view, many = self.view, len(self.view.values)
        title = layout.spell(view.line_name)
        if many < 2:
            return
        if self.scale:
            self._draw_scale(layout, title)
            return
        one_each = {view.number(line.value): line for line in view.lines}
        lines = [one_each[number] for number in sorted(one_each)][:MAX_LINES]
        handles = [axes.plot([], [], **self.of_line(line))[0] for line in lines]
        names = [layout.spell(clip(value_name(line.value), _NAME)) for line in lines]
        layout.side_legend(axes, handles, names, title)

    def _draw_scale(self, layout: FigureLayout, title: str) -> None:
        """A bar of the lines' colours; their values at equal distances, as the colours are."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        values = self.view.values
        many = len(values)
        scale = ScalarMappable(Normalize(-0.5, many - 0.5), ListedColormap(list(self.colours)))
        beside = [axes for axes in layout.figure.axes if axes.get_visible()]
        bar = layout.colour_bar(scale, beside, pad=0.02, aspect=28)
        ticks = sorted({round(k * (many - 1) / 6) for k in range(7)})
        bar.set_ticks(ticks, labels=[value_name(values[k]) for k in ticks])
        bar.set_label(title, fontsize=8, color=QUIET)


def visible(axes: Any) -> list[Axes]:
    """Those that have something to show."""
    return [one for one in axes if one.get_visible()]
