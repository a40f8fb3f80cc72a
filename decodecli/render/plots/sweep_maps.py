"""Heat maps of a sweep's numbers over two of its axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from decodecli.render.plots.figure_layout import (
    INK,
    MIN_FONT_SIZE,
    FigureLayout,
    axes_inches,
    cell_numbers,
)
from decodecli.render.plots.sweep_curves import WIDE
from decodecli.render.plots.sweep_data import Metric, numeric, value_name
from decodecli.render.plots.sweep_view import Panel, SweepView, XAxis
from decodecli.render.plots.ticks import log_ticks, tick_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_MIN_VALUES = 3  # of each axis
_MAP = (2.1, 1.9)  # inches of a heat map, more for many values
_CELL = 0.36  # inches of a cell that can hold its number
_UP_TO_ONE = ("distinct_1", "distinct_2", "distinct_3", "self_bleu_4")
_UNKNOWN = "0.9"  # grey


def has_map(view: SweepView) -> bool:
    """Whether two axes of numbers have values enough to span a map."""
    axes = [
        view.summary.axes.get(axis or "", ()) for axis in (view.placed.across, view.placed.line)
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
    x_count, y_count = len(x_axis.values), len(view.values)
    width = max(_MAP[0], min(0.4 * x_count, 4.0))
    height = max(_MAP[1], min(0.3 * y_count, 3.6))
    columns = min(len(metrics), 4 if width < 3 else 3)
    rows = math.ceil(len(metrics) / columns)
    layout = FigureLayout(
        (max(columns * (width + 0.95) + 0.4, 4.6), rows * (height + 0.6) + 0.9),
        f"{view.across_name} and {view.line_name}" + (f" · {panel.name}" if panel.name else ""),
        view.subtitle(),
        view.texts,
        view.note,
    )
    grid = layout.figure.subplots(rows, columns, squeeze=False)
    plots: list[Axes] = list(grid.flat)
    for spare in plots[len(metrics) :]:
        spare.set_visible(False)
    for number, (metric, axes) in enumerate(zip(metrics, plots, strict=False)):
        image = _map(axes, view, panel, x_axis, metric)
        if number + columns >= len(metrics):
            axes.set_xlabel(layout.spell(view.across_name))
        if number % columns == 0:
            axes.set_ylabel(layout.spell(view.line_name))
        if width / x_count >= _CELL and height / y_count >= _CELL / 2:
            points = min(7.5, max(18 * width / x_count, MIN_FONT_SIZE))
            cell_numbers(axes, image, metric.brief, points)
        _colour_bar(layout, axes, image, metric)
    layout.settle()
    for axes in plots:
        _draw_ticks(layout, axes, view, x_axis)
    return layout.figure  # names of values may be wider than the numbers that it was laid out with


def _map(axes: Axes, view: SweepView, panel: Panel, x_axis: XAxis, metric: Metric) -> AxesImage:
    values = np.full((len(view.values), len(x_axis.values)), np.nan)
    for line in view.lines:
        if Panel(line.group, line.panel) == panel:
            for x, estimate in view.points(line, metric):
                values[view.number(line.value), x_axis.values.index(x)] = estimate.value
    axes.set_facecolor(_UNKNOWN)
    axes.set_title(metric.title.split(" (")[0], fontsize=9, loc="left", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    known = values[np.isfinite(values)]
    return axes.imshow(
        np.ma.masked_invalid(values),
        norm=_colours(metric, float(known.min()), float(known.max())),
        cmap="viridis",
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )


def _colours(metric: Metric, low: float, high: float) -> Normalize:
    """From nothing to everything, or to the furthest value; a wide perplexity by its logarithm."""
    from matplotlib.colors import LogNorm, Normalize

    if metric.name == "perplexity":
        return LogNorm(1, high) if high > WIDE * low else Normalize(1, max(high, 1.1))
    if metric.name == "mean_logprob":
        return Normalize(min(low, -0.1), 0)
    return Normalize(0, 1 if metric.share or metric.name in _UP_TO_ONE else max(high, 0.1))


def _colour_bar(layout: FigureLayout, axes: Axes, image: AxesImage, metric: Metric) -> None:
    """A bar of the colours with their numbers."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    bar = layout.colour_bar(image, axes, 7, pad=0.03, aspect=16)
    low, high = image.get_clim()
    if isinstance(image.norm, LogNorm):
        ticks = log_ticks(low, high, 4) or [low, high]
    else:
        round_values = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [tick for tick in round_values if low <= tick <= high]
    names = [f"{100 * v:.6g}%" if metric.share else tick_name(v) for v in ticks]
    bar.set_ticks(ticks, labels=[name.replace("-", "−") for name in names])
    bar.ax.minorticks_off()


def _draw_ticks(layout: FigureLayout, axes: Axes, view: SweepView, x_axis: XAxis) -> None:
    """Values at both axes, so many as have room."""
    width, height = axes_inches(axes)
    names = [value_name(value) for value in x_axis.values]
    step = max(1, math.ceil((layout.widest(names, 8) + 0.06) / (width / len(names))))
    axes.set_xticks(range(0, len(names), step), names[::step])
    names = [value_name(value) for value in view.values]
    step = max(1, math.ceil(0.15 / (height / len(names))))
    axes.set_yticks(range(0, len(names), step), names[::step])
