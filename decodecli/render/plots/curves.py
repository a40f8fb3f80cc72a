"""Curves: over the tokens, over temperature, over rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len

from decodecli.render import number_format as numbers
from decodecli.render.plots.bars import distribution_layout
from decodecli.render.plots.distribution_view import DistributionView
from decodecli.render.plots.figure_layout import (
    COLOURS,
    DASHES,
    INK,
    KEPT,
    MARKERS,
    MIN_FONT_SIZE,
    MIN_LABEL_PITCH,
    QUIET,
    TARGET,
    FigureLayout,
    axes_inches,
    probability_axis,
    sequential,
    temperature_axis,
)
from decodecli.render.plots.labels import label_points
from decodecli.render.plots.ticks import log_ticks, thinned, tick_name, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHED: dict[str, Any] = {"color": QUIET, "linewidth": 0.9, "linestyle": (0, (4, 3))}


def lines(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """One axes, the tokens along it, a line a temperature; hollow marks where a filter removed."""
    many = len(view.rows)
    longest = max(cell_len(label) for label in view.labels)
    # Names that stand on end take height.
    size = size or (max(6.8, 2.2 + 0.24 * many), 4.0 + 0.07 * longest)
    layout, tokens = distribution_layout(
        view, (max(size[0], 1.9 + MIN_LABEL_PITCH * many), size[1])
    )
    axes = layout.figure.add_subplot()
    handles = []
    for index, look in enumerate(_temperature_looks(view)):
        look |= {"markersize": 4 if many > 25 else 5}
        heights = [row.probability[index] for row in view.rows]
        removed = [k for k, row in enumerate(view.rows) if view.removed(row, index)]
        axes.plot(range(many), heights, **look)
        hollow = look | {"linestyle": "", "markerfacecolor": "white", "zorder": 3}
        axes.plot(removed, [heights[k] for k in removed], **hollow)
        handles.append(axes.plot([], [], **look)[0])
    names = list(view.legends)
    if any(view.removed(row, k) for row in view.rows for k in range(len(names))):
        look = {"color": QUIET, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        handles.append(axes.plot([], [], **look)[0])
        names.append("removed by a filter")
    layout.side_legend(axes, handles, names)
    axes.set_xticks(range(many), tokens)
    axes.set_xlim(-0.5, many - 0.5)
    axes.tick_params(axis="x", length=2)
    axes.set_ylabel("probability")
    for tick, row in zip(axes.get_xticklabels(), view.rows, strict=True):
        tick.set_color(INK if view.is_target(row) else "0.2")
    probability_axis(axes, view.limit, horizontal=False)
    layout.settle()
    pitch = axes_inches(axes)[0] / many
    points = 8.5
    if layout.widest(tokens, points) > 0.9 * pitch:
        points = min(max(0.78 * pitch * 72, MIN_FONT_SIZE), points)
        axes.tick_params(axis="x", labelrotation=90)
        height = 0.3 * layout.height
        axes.set_xticklabels([layout.fitted(token, points, height) for token in tokens])
    axes.tick_params(axis="x", labelsize=points)
    return _with_margin(layout, axes, view.limit)


def _temperature_looks(view: DistributionView) -> list[dict[str, Any]]:
    """Colour, line style and marker of each temperature, the coldest darkest."""
    order = sorted(set(view.report.temperatures))
    colours = sequential(len(order))
    ranks = [order.index(temperature) for temperature in view.report.temperatures]
    return [
        {
            "color": colours[rank],
            "linestyle": DASHES[rank % len(DASHES)],
            "marker": MARKERS[rank % len(MARKERS)],
        }
        for rank in ranks
    ]


def _with_margin(layout: FigureLayout, axes: Axes, limit: float) -> Figure:
    """The figure, with room for half a mark at the upper end of the axis of probability."""
    layout.settle()
    probability_axis(axes, limit, horizontal=False, margin=0.06 / axes_inches(axes)[1])
    layout.settle()
    return layout.figure


def tokens(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Probability over temperature, a line a token, the report's own temperatures marked."""
    many = len(view.rows)
    size = size or (7.4, 4.4 if many < 20 else 1.4 + 0.16 * many)
    size = (size[0], max(size[1], 0.9 + 1.35 * MIN_LABEL_PITCH * many))
    layout, names = distribution_layout(view, size)
    axes = layout.figure.add_subplot()
    temperatures, curves, _ = view.over_temperature()
    handles = []
    for k, (row, curve) in enumerate(zip(view.rows, curves, strict=True)):
        turn = k // len(COLOURS)
        line = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[turn % len(DASHES)]}
        marks: dict[str, Any] = {"marker": MARKERS[(k + turn) % len(MARKERS)], "markersize": 4.5}
        axes.plot(temperatures, curve, **line)
        marked = [row.probability[index] for _, index in view.points]
        axes.plot([t for t, _ in view.points], marked, **line | marks | {"linestyle": ""})
        handles.append(axes.plot([], [], **line, **marks)[0])
    layout.side_legend(axes, handles, names)
    axes.set_ylabel("probability")
    _temperature_axis(axes, view, temperatures)
    marked = [row.probability[index] for row in view.rows for _, index in view.points]
    limit = max([0.0, *marked, *curves.flat]) or 1.0
    probability_axis(axes, limit, horizontal=False)
    return _with_margin(layout, axes, limit)


def _temperature_axis(axes: Axes, view: DistributionView, temperatures: Any) -> None:
    low, high = view.temperature_span(temperatures)
    temperature_axis(axes, low, high, log_ticks(low, high))


def entropy(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Entropy over temperature between its limits, with the report's temperatures marked."""
    layout, _ = distribution_layout(view, size or (6.8, 4.4))
    axes = layout.figure.add_subplot()
    temperatures, _, nats = view.over_temperature()
    zero, infinity = (limit.entropy for limit in view.report.limits)
    top = max([infinity, *nats]) or 1.0
    axes.set_yticks(ticks(top), [tick_name(tick) for tick in ticks(top)])
    axes.set_ylim(min(-0.04 * top, zero - 0.04 * top), 1.1 * top)
    for value, name in ((zero, "T → 0"), (infinity, "T → ∞")):
        axes.axhline(value, **_DASHED)
        log = f"log {numbers.count(round(math.exp(value)))} = " if value > 0 else ""
        # The curve leaves the lower limit to the right and comes to the upper one from the left.
        right = value == zero and zero < infinity
        axes.annotate(
            f"{name}: {log}{numbers.entropy(value)} nats",
            (0.99 if right else 0.01, value),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
            color=QUIET,
        )
    axes.plot(temperatures, nats, color=KEPT)
    known = [t for t, _ in view.points]
    spreads = [view.report.spreads[index] for _, index in view.points]
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": KEPT, "clip_on": False}
    before = axes.plot(known, [spread.entropy for spread in spreads], **look)[0]
    if view.report.filtered:
        look |= {"linestyle": ":", "linewidth": 1, "marker": "s", "color": TARGET}
        finals = [spread.final_entropy for spread in spreads]
        after = axes.plot(known, finals, markeredgecolor=INK, **look)[0]
        layout.legend([before, after], ["before the filters", "final: after the filters"])
    axes.set_ylabel("entropy (nats)")
    _temperature_axis(axes, view, temperatures)
    layout.freeze()
    entropies = [spread.entropy for spread in spreads]
    names = [numbers.entropy(value) for value in entropies]
    label_points(axes, list(zip(known, entropies, strict=True)), names, [INK] * len(names), rings=1)
    return layout.figure


def cumulative(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Probability of the first so many tokens, a line a temperature, faint beyond the top-p cut."""
    layout, _ = distribution_layout(view, size or (7.2, 4.4))
    axes = layout.figure.add_subplot()
    handles, names, longest = [], [], 1
    for index, look in enumerate(_temperature_looks(view)):
        look |= {"markersize": 4}
        colour = look["color"]
        ranks, mass = view.over_rank(index)
        cut = view.cut(mass)
        drawn = thinned(ranks.size).astype(int)
        if cut is not None:
            drawn = np.union1d(drawn, [cut - 1])
        longest = max(longest, ranks.size)
        inside = drawn if cut is None else drawn[drawn < cut]
        few = {"marker": look["marker"] if ranks.size <= 40 else ""}
        axes.plot(ranks[inside], mass[inside], **look | few)
        handles.append(axes.plot([], [], **look)[0])
        name = view.legends[index]
        if cut is not None:
            beyond = drawn[drawn >= cut - 1]
            axes.plot(ranks[beyond], mass[beyond], linewidth=1, alpha=0.45, color=colour)
            axes.plot([cut, cut], [0, mass[cut - 1]], linewidth=0.8, color=colour, linestyle=":")
            mark = look | {"linestyle": "-", "markeredgecolor": INK, "zorder": 4}
            axes.plot(cut, mass[cut - 1], **mark)
            name += f": {numbers.count(cut)} token" + ("s" if cut > 1 else "")
        names.append(name)
    if view.top_p is not None:
        axes.axhline(view.top_p, zorder=1, **_DASHED)
        handles.append(axes.plot([], [], **_DASHED)[0])
        names.append(f"top_p {numbers.plain(view.top_p)}")
    layout.side_legend(axes, handles, names)
    axes.set_ylabel("cumulative probability")
    _rank_axis(axes, longest)
    probability_axis(axes, 1.0, horizontal=False, margin=0.02)
    layout.settle()
    return layout.figure


def _rank_axis(axes: Axes, longest: int) -> None:
    if longest > 60:
        values = [t for t in log_ticks(1, longest, most=6) if t >= 1]
        axes.set_xscale("log")
        axes.set_xlim(0.9, longest * 1.1)
        axes.set_xlabel("rank (log scale)")
    else:
        step = next(s for s in (1, 2, 5, 10) if longest / s <= 12)
        values = [float(k) for k in range(1, longest + 1) if k == 1 or k % step == 0]
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_xlabel("rank")
    axes.set_xticks(values, [numbers.count(round(value)) for value in values])
    axes.minorticks_off()
