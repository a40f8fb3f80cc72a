"""Heat maps of a sweep's numbers over two of its axes, and its settings in the plane of diversity and
quality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from decodecli.records.sweep import SettingSummary
from decodecli.render.plots.figure_layout import (
    INK,
    MIN_FONT_SIZE,
    QUIET,
    FigureLayout,
    axes_inches,
    cell_numbers,
    log_ticks,
    tick_name,
    ticks,
)
from decodecli.render.plots.labels import label_points
from decodecli.render.plots.sweep_data import METRIC, Line, Metric, Panel, numeric, value_name
from decodecli.render.plots.sweep_view import NAMED, WIDE, SweepView, XAxis, round_ticks, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIN_VALUES = 3  # of each axis
_MAP = (2.1, 1.9)  # inches of a heat map, more for many values
_CELL = 0.36  # inches of a cell that can hold its number
_UP_TO_ONE = ("distinct_1", "distinct_2", "distinct_3", "self_bleu_4")
_UNKNOWN = "0.9"  # grey

_MIN_COUNT = 3  # observations of an interval that is drawn
_MAX_PANELS = 4  # side by side
# What stands for diversity, the first that is known; the x axis' label.
_DIVERSITY = {
    "self_bleu_4": "1 − self-BLEU-4: how unlike one another",
    "distinct_2": "distinct-2: how little is said twice",
}
_QUALITY = ("mean_logprob", "accuracy")


def has_map(view: SweepView) -> bool:
    """Whether two axes of numbers have values enough to span a map."""
    axes = [
        view.summary.axes.get(axis or "", ()) for axis in (view.layout.across, view.layout.line)
    ]
    return all(numeric(values) and len(values) >= _MIN_VALUES for values in axes)


def map_metrics(view: SweepView, panel: Panel) -> list[Metric]:
    """The metrics of which a panel has different values."""
    return [m for m in view.metrics if len({e.value for e in view.estimates(m, panel)}) > 1]


def map_figure(view: SweepView, panel: Panel) -> Figure:
    """A heat map a metric over the first two axes, for one task and value of what is left.

    Values stand at equal distances. Colours start at nothing and shares end at everything, so that what
    hardly differs hardly looks different.
    """
    metrics, x_axis = map_metrics(view, panel), XAxis(view)
    names = [value_name(value) for value in x_axis.values], [value_name(v) for v in view.values]
    x_count, y_count = map(len, names)
    width = max(_MAP[0], min(0.4 * x_count, 4.0))
    height = max(_MAP[1], min(0.3 * y_count, 3.6))
    columns = min(len(metrics), 4 if width < 3 else 3)
    rows = math.ceil(len(metrics) / columns)
    layout = view.figure_layout(
        (max(columns * (width + 0.95) + 0.4, 4.6), rows * (height + 0.6) + 0.9),
        f"{view.across_name} and {view.line_name}" + (f" · {panel.name}" if panel.name else ""),
    )
    grid = layout.figure.subplots(rows, columns, squeeze=False)
    plots: list[Axes] = list(grid.flat[: len(metrics)])
    for spare in grid.flat[len(metrics) :]:
        spare.set_visible(False)
    for number, (metric, axes) in enumerate(zip(metrics, plots, strict=True)):
        values = np.full((y_count, x_count), np.nan)
        for line in view.lines:
            for x, estimate in line.points(metric.name) if line.panel == panel else ():
                values[view.number(line.value), x_axis.values.index(x)] = estimate.value
        image = _draw_map(layout, axes, metric, values)
        if number + columns >= len(metrics):
            axes.set_xlabel(layout.spell(view.across_name))
        if number % columns == 0:
            axes.set_ylabel(layout.spell(view.line_name))
        if width / x_count >= _CELL and height / y_count >= _CELL / 2:
            points = min(7.5, max(18 * width / x_count, MIN_FONT_SIZE))
            cell_numbers(axes, image, metric.brief, points)
    layout.settle()
    for axes in plots:  # so many values as have room
        width, height = axes_inches(axes)
        step = max(1, math.ceil((layout.widest(names[0], 8) + 0.06) / (width / x_count)))
        axes.set_xticks(range(0, x_count, step), names[0][::step])
        step = max(1, math.ceil(0.15 / (height / y_count)))
        axes.set_yticks(range(0, y_count, step), names[1][::step])
    return layout.figure  # names of values may be wider than the numbers that it was laid out with


def _draw_map(layout: FigureLayout, axes: Axes, metric: Metric, values: Any) -> Any:
    """The image of one metric, with a bar of its colours: from nothing to everything, or to the furthest
    value; a wide perplexity by its logarithm."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    norm = Normalize(0, 1 if metric.share or metric.name in _UP_TO_ONE else max(high, 0.1))
    if metric.name == "perplexity":
        norm = LogNorm(1, high) if high > WIDE * low else Normalize(1, max(high, 1.1))
    elif metric.name == "mean_logprob":
        norm = Normalize(min(low, -0.1), 0)
    axes.set_facecolor(_UNKNOWN)
    axes.set_title(metric.title.split(" (")[0], fontsize=9, loc="left", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    image = axes.imshow(
        np.ma.masked_invalid(values),
        norm=norm,
        cmap="viridis",
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    bar = layout.colour_bar(image, axes, 7, pad=0.03, aspect=16)
    low, high = image.get_clim()
    log = isinstance(norm, LogNorm)
    marks = (log_ticks(low, high, 4) or [low, high]) if log else ticks(low, high, 4)
    labels = [f"{100 * mark:.6g}%" if metric.share else tick_name(mark) for mark in marks]
    bar.set_ticks(marks, labels=[label.replace("-", "−") for label in labels])
    bar.ax.minorticks_off()
    return image


@dataclass(frozen=True)
class _Plane:
    """What stands for diversity and for quality in one plane; the points of a line in it."""

    diversity: str
    quality: Metric

    def points(self, line: Line) -> list[tuple[float, float, SettingSummary]]:
        """Diversity and quality of the settings that have both."""
        return [
            (self.unlike(s.numbers[self.diversity].value), s.numbers[self.quality.name].value, s)
            for s in line.settings
            if self.quality.name in s.numbers and self.diversity in s.numbers
        ]

    def unlike(self, value: float) -> float:
        return 1 - value if self.diversity == "self_bleu_4" else value


def _planes(view: SweepView) -> list[_Plane]:
    """One for each number that stands for quality."""
    known = {metric.name for metric in view.metrics}
    diversity = next((name for name in _DIVERSITY if name in known), None)
    qualities = [METRIC[name] for name in _QUALITY if name in known]
    return [_Plane(diversity, quality) for quality in qualities] if diversity else []


def has_plane(view: SweepView) -> bool:
    """Whether some line has two points or more."""
    return any(len(plane.points(line)) > 1 for plane in _planes(view) for line in view.lines)


def plane_figure(view: SweepView) -> Figure:
    """Quality over diversity: a point a setting with its value of the axis across beside it, joined in
    the order of that axis, a colour for each value of the next axis."""
    planes = _planes(view)
    panels = [
        panel
        for panel in view.panels
        if any(plane.points(line) for line in view.of_panel(panel) for plane in planes)
    ]
    drawn = panels[:_MAX_PANELS]
    width, height = (4.8, 3.6) if len(drawn) == 1 else (3.6, 2.9)
    legend = 1.3 if len(view.values) > 1 else 0.0
    faint = f"faint: 95 % intervals, from {_MIN_COUNT} observations on"
    layout = view.figure_layout(
        (0.4 + legend + width * len(drawn), 0.9 + height * len(planes)),
        "Quality and diversity",
        f"labelled by {view.across_name}",
        panels=len(panels),
        most=len(drawn),
        note=faint if view.has_intervals else "",
    )
    shape = len(planes), len(drawn)
    grid = layout.figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    for plane, row in zip(planes, grid, strict=True):
        for panel, axes in zip(drawn, row, strict=True):
            _draw_plane(axes, view, view.of_panel(panel), plane)
        for axes in visible(row)[:1]:
            axes.set_ylabel(plane.quality.title)
            axes.tick_params(labelleft=True)
    for panel, column in zip(drawn, map(visible, grid.T), strict=True):
        column[0].set_title(layout.spell(panel.name), fontsize=9, loc="left", color=INK)
        column[-1].set_xlabel(_DIVERSITY[planes[0].diversity])
        column[-1].tick_params(labelbottom=True)
    view.draw_legend(layout, visible(grid[:, -1])[0])
    layout.freeze()
    for plane, row in zip(planes, grid, strict=True):
        for panel, axes in zip(drawn, row, strict=True):
            _label_plane(layout, axes, view, view.of_panel(panel), plane)
    return layout.figure


def _draw_plane(axes: Axes, view: SweepView, lines: list[Line], plane: _Plane) -> None:
    """A panel's lines, with the 95 % intervals of both numbers, faint; of two observations one would span
    the picture."""
    axes.set_visible(any(map(plane.points, lines)))
    for line in lines:
        points = plane.points(line)
        look: dict[str, Any] = {"marker": "o", **view.look(line), "linewidth": 0.9}
        if view.has_scale:
            look |= {"marker": "o", "markersize": 2.5}
        faint: dict[str, Any] = {"color": look["color"], "linewidth": 0.8, "alpha": 0.35}
        for x, y, setting in points if view.has_intervals and not view.has_scale else ():
            up, across = setting.numbers[plane.quality.name], setting.numbers[plane.diversity]
            if up.low is not None and up.high is not None and up.count >= _MIN_COUNT:
                axes.vlines(x, up.low, up.high, **faint)
            if across.low is not None and across.high is not None and across.count >= _MIN_COUNT:
                axes.hlines(y, plane.unlike(across.low), plane.unlike(across.high), **faint)
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], **look)
    axes.margins(0.12)
    axes.grid(axis="both")
    axes.tick_params(length=0)
    round_ticks(axes.xaxis, share=False)
    round_ticks(axes.yaxis, plane.quality.share)


def _label_plane(
    layout: FigureLayout, axes: Axes, view: SweepView, lines: list[Line], plane: _Plane
) -> None:
    """The value of the axis across beside each point: of all lines, or where they are many of the first
    and the last."""
    named: dict[tuple[str, int, int], tuple[float, float]] = {}
    for line in (lines[0], lines[-1]) if view.has_scale else lines:
        for x, y, setting in plane.points(line):
            left, below = axes.transData.transform((x, y)) / layout.figure.dpi * 72 // 5
            name = layout.spell(value_name(setting.setting.get(line.across)))
            named.setdefault((name, left, below), (x, y))  # once where points fall together
    size = 8 if len(named) <= NAMED * 4 else 6.5
    names = [name for name, _, _ in named]
    label_points(axes, list(named.values()), names, [QUIET] * len(names), (size,), rings=1)
