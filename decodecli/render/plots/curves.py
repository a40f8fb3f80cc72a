"""Curves: over the tokens, over temperature, over rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len

from decodecli.render import number_format as numbers
from decodecli.render.plots.canvas import (
    DASHES,
    INK,
    KEPT,
    MARKS,
    PITCH,
    QUIET,
    SMALLEST,
    TARGET,
    TOKENS,
    Canvas,
    axes_inches,
    by_temperature,
    probability_axis,
    temperature_axis,
)
from decodecli.render.plots.data import Picture, log_ticks, thinned, tick_name, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def lines(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """One axes, the tokens along it, a line a temperature; hollow marks where a filter removed."""
    many = len(shown.rows)
    longest = max(cell_len(label) for label in shown.labels)
    height = 4.0 + 0.07 * longest  # names that stand on end take height
    size = size or (max(6.8, 2.2 + 0.24 * many), height)
    canvas = Canvas(shown, (max(size[0], 1.9 + PITCH * many), size[1]))
    axes = canvas.figure.add_subplot()
    places = list(range(many))
    handles, crowded = [], many > 25
    for index, (colour, dashes, mark) in enumerate(by_temperature(shown)):
        heights = [row.probability[index] for row in shown.rows]
        look: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 4 if crowded else 5}
        axes.plot(places, heights, linestyle=dashes, **look)
        removed = [k for k in places if shown.removed(shown.rows[k], index)]
        axes.plot(
            removed,
            [heights[k] for k in removed],
            **look | {"linestyle": "", "markerfacecolor": "white", "zorder": 3},
        )
        handles.append(axes.plot([], [], linestyle=dashes, **look)[0])
    labels = list(shown.legends)
    if any(shown.removed(row, k) for row in shown.rows for k in range(len(labels))):
        look = {"color": QUIET, "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        handles.append(axes.plot([], [], **look)[0])
        labels.append("removed by a filter")
    canvas.side_legend(axes, handles, labels)
    axes.set_xticks(places, canvas.labels)
    axes.set_xlim(-0.5, many - 0.5)
    axes.tick_params(axis="x", length=2)
    axes.set_ylabel("probability")
    for tick, row in zip(axes.get_xticklabels(), shown.rows, strict=True):
        tick.set_color(INK if shown.is_target(row) else "0.2")
    limit = max(p for row in shown.rows for p in row.probability) or 1.0
    probability_axis(axes, limit, horizontal=False)
    canvas.settle()
    pitch = axes_inches(axes)[0] / many
    points = 8.5
    if max(canvas.text_width(label, points) for label in canvas.labels) > 0.9 * pitch:
        points = min(max(0.78 * pitch * 72, SMALLEST), points)
        axes.tick_params(axis="x", labelrotation=90)
        room = 0.3 * canvas.height
        axes.set_xticklabels([canvas.fitted(label, points, room) for label in canvas.labels])
    axes.tick_params(axis="x", labelsize=points)
    canvas.settle()
    probability_axis(axes, limit, horizontal=False, room=0.06 / axes_inches(axes)[1])
    canvas.settle()
    return canvas.figure


def tokens(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """Probability over temperature, a line a token, the report's own temperatures marked."""
    many = len(shown.rows)
    size = size or (7.4, 4.4 if many < 20 else 1.4 + 0.16 * many)
    canvas = Canvas(shown, (size[0], max(size[1], 0.9 + 1.35 * PITCH * many)))
    axes = canvas.figure.add_subplot()
    temperatures, curves, _ = shown.over_temperature()
    low, high = _span(shown, temperatures)
    handles, limit = [], 0.0
    for place, (row, curve) in enumerate(zip(shown.rows, curves, strict=True)):
        look = _token_look(place)
        dashes = look.pop("linestyle")
        axes.plot(temperatures, curve, color=look["color"], linestyle=dashes)
        marked = [row.probability[k] for _, k in shown.points]
        axes.plot([t for t, _ in shown.points], marked, linestyle="", **look)
        handles.append(axes.plot([], [], linestyle=dashes, **look)[0])
        limit = max([limit, *marked, *curve])
    canvas.side_legend(axes, handles, canvas.labels)
    axes.set_ylabel("probability")
    temperature_axis(axes, low, high, log_ticks(low, high))
    probability_axis(axes, limit or 1.0, horizontal=False)
    canvas.settle()
    probability_axis(axes, limit or 1.0, horizontal=False, room=0.06 / axes_inches(axes)[1])
    canvas.settle()
    return canvas.figure


def _token_look(place: int) -> dict[str, Any]:
    return {
        "color": TOKENS[place % len(TOKENS)],
        "linestyle": DASHES[place // len(TOKENS) % len(DASHES)],
        "marker": MARKS[(place + place // len(MARKS)) % len(MARKS)],
        "markersize": 4.5,
    }


def entropy(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """Entropy over temperature between its limits, with the report's temperatures marked."""
    canvas = Canvas(shown, size or (6.8, 4.4))
    axes = canvas.figure.add_subplot()
    temperatures, _, nats = shown.over_temperature()
    low, high = _span(shown, temperatures)
    zero, infinity = (limit.entropy for limit in shown.report.limits)
    top = max([infinity, *nats]) or 1.0
    axes.set_yticks(ticks(top), [tick_name(tick) for tick in ticks(top)])
    axes.set_ylim(min(-0.04 * top, zero - 0.04 * top), 1.1 * top)
    for value, text in ((zero, "T → 0"), (infinity, "T → ∞")):
        axes.axhline(value, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        where = f"{text}: {numbers.entropy(value)} nats"
        if value > 0:
            where = f"{text}: log {numbers.count(round(math.exp(value)))} = {numbers.entropy(value)} nats"
        # The curve leaves the lower limit to the right and comes to the upper one from the left.
        right = value == zero and zero < infinity
        axes.annotate(
            where,
            (0.99 if right else 0.01, value),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
            color=QUIET,
        )
    axes.plot(temperatures, nats, color=KEPT)
    spreads = [(t, shown.report.spreads[k]) for t, k in shown.points]
    before = axes.plot(
        [t for t, _ in spreads],
        [s.entropy for _, s in spreads],
        linestyle="",
        marker="o",
        color=KEPT,
        clip_on=False,
    )[0]
    if shown.report.filtered:
        after = axes.plot(
            [t for t, _ in spreads],
            [s.final_entropy for _, s in spreads],
            linestyle=":",
            linewidth=1,
            marker="s",
            color=TARGET,
            markeredgecolor=INK,
            clip_on=False,
        )[0]
        canvas.legend([before, after], ["before the filters", "final: after the filters"])
    axes.set_ylabel("entropy (nats)")
    temperature_axis(axes, low, high, log_ticks(low, high))
    canvas.settle()
    _tell_values(axes, [(t, s.entropy) for t, s in spreads])
    canvas.settle()
    return canvas.figure


def _tell_values(axes: Axes, points: list[tuple[float, float]]) -> None:
    """The number beside each point, where it covers no earlier one and no edge."""
    taken = [text.get_window_extent() for text in axes.texts]
    frame = axes.get_window_extent()
    for x, y in points:
        text = axes.annotate(
            numbers.entropy(y),
            (x, y),
            (-6, 4),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=INK,
        )
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken) or box.x0 < frame.x0:
            text.remove()
        else:
            taken.append(box)


def cumulative(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """Probability of the first so many tokens, a line a temperature, faint beyond the top-p cut."""
    canvas = Canvas(shown, size or (7.2, 4.4))
    axes = canvas.figure.add_subplot()
    handles, labels, longest = [], [], 1
    for index, (colour, dashes, mark) in enumerate(by_temperature(shown)):
        ranks, mass = shown.over_rank(index)
        cut = shown.cut(mass)
        drawn = thinned(ranks.size).astype(int)
        if cut is not None:
            drawn = np.union1d(drawn, [cut - 1])
        longest = max(longest, ranks.size)
        few = mark if ranks.size <= 40 else ""
        inside = drawn if cut is None else drawn[drawn < cut]
        look: dict[str, Any] = {"color": colour, "markersize": 4}
        axes.plot(ranks[inside], mass[inside], linestyle=dashes, marker=few, **look)
        handles.append(axes.plot([], [], linestyle=dashes, marker=mark, **look)[0])
        label = shown.legends[index]
        if cut is not None:
            beyond = drawn[drawn >= cut - 1]
            axes.plot(ranks[beyond], mass[beyond], linewidth=1, alpha=0.45, color=colour)
            axes.plot([cut, cut], [0, mass[cut - 1]], linewidth=0.8, color=colour, linestyle=":")
            axes.plot(cut, mass[cut - 1], marker=mark, markeredgecolor=INK, zorder=4, **look)
            label += f": {numbers.count(cut)} token" + ("s" if cut > 1 else "")
        labels.append(label)
    if shown.top_p is not None:
        axes.axhline(shown.top_p, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        handles.append(axes.plot([], [], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))[0])
        labels.append(f"top_p {numbers.plain(shown.top_p)}")
    canvas.side_legend(axes, handles, labels)
    axes.set_ylabel("cumulative probability")
    _rank_axis(axes, longest)
    probability_axis(axes, 1.0, horizontal=False, room=0.02)
    canvas.settle()
    return canvas.figure


def _rank_axis(axes: Axes, longest: int) -> None:
    if longest > 60:
        places = [t for t in log_ticks(1, longest, most=6) if t >= 1]
        axes.set_xscale("log")
        axes.set_xlim(0.9, longest * 1.1)
        axes.set_xlabel("rank (log scale)")
    else:
        step = next(s for s in (1, 2, 5, 10) if longest / s <= 12)
        places = [float(k) for k in range(1, longest + 1) if k == 1 or k % step == 0]
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_xlabel("rank")
    axes.set_xticks(places, [numbers.count(round(place)) for place in places])
    axes.minorticks_off()


def _span(shown: Picture, temperatures: Any) -> tuple[float, float]:
    """The ends of the temperature axis."""
    if shown.scores is not None or not len(temperatures):
        return float(shown.grid[0]), float(shown.grid[-1])
    low, high = float(temperatures[0]), float(temperatures[-1])
    return low / 1.3, high * 1.3
