"""Plots of a next-token distribution by matplotlib (extra `plots`): bars and curves.

Colours are Okabe and Ito's for tokens and viridis for temperature, in shades that differ in grey
too. The same input gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len

from decodecli.records.distribution import DistributionReport
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip
from decodecli.render.plots.distribution_view import DistributionView, thinned
from decodecli.render.plots.figure_file import save_figure, style
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
    distinct,
    log_ticks,
    probability_axis,
    sequential,
    tick_name,
    ticks,
)
from decodecli.render.plots.labels import label_points, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = 24  # cells
_ROW = 0.215  # inches a bar
_HATCHED = {"hatch": "/////", "linewidth": 0.6}
_REMOVED = {"facecolor": "#E6EAED", "edgecolor": "#8A949C", **_HATCHED}
_REMOVED_TARGET = {"facecolor": "#FBEFD5", "edgecolor": TARGET, **_HATCHED}
_FRAME = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.7}
# Of each kind of bar (is it the target, is it removed) its name in the legend and its look; the frames
# of what the filters leave go over the bars.
_FINAL = (None, None)
_BARS: dict[tuple[bool | None, bool | None], tuple[str, dict[str, Any]]] = {
    (False, False): ("before the filters", {"color": KEPT}),
    (False, True): ("removed by a filter", _REMOVED),
    (True, False): ("target", {"color": TARGET}),
    (True, True): ("target, removed", _REMOVED_TARGET),
    _FINAL: ("final: after the filters", _FRAME),
}
_DASHED: dict[str, Any] = {"color": QUIET, "linewidth": 0.9, "linestyle": (0, (4, 3))}


def draw(report: DistributionReport, path: str, *args: Any, **options: Any) -> None:
    """Write one plot of `report` to `path`, in the format of its suffix.

    Args:
        args, options: as of `figure`.

    Raises:
        UsageError: unknown suffix, kind or token; matplotlib is missing.
        WriteError: the file cannot be written.
    """
    save_figure(path, lambda: figure(report, *args, **options))


def figure(
    report: DistributionReport,
    kind: str = "auto",
    tokens: Sequence[str] = (),
    *,
    scores: Any = None,
    size: tuple[float, float] | None = None,
    byte_level: bool | None = None,
) -> Figure:
    """One plot of `report` as a matplotlib figure.

    Args:
        kind: one of `KINDS`. "auto" is bars for one temperature and a panel for several; "bars"
            takes one temperature; "panel" has a small plot for each; "lines" a line for each over
            the tokens; "tokens" probability over temperature, a line a token; "cumulative" the
            probability of the first so many tokens; "entropy" over temperature.
        tokens: the rows to draw, by piece, as shown, or by id; none means the highest (60; 8 for
            "tokens").
        scores: `(size,)`, what is divided by the temperature, indexed by token id. With it, curves
            over temperature and rank are exact and dense; without, they join what the report has.
        size: inches; None fits the number of tokens. It grows where labels would overlap.
        byte_level: whether pieces are spelt in GPT-2's byte alphabet; None guesses.
    """
    makers = {"lines": _lines, "tokens": _tokens, "cumulative": _cumulative, "entropy": _entropy}
    with style():
        view = DistributionView(report, kind, tokens, scores, byte_level)
        return makers.get(view.kind, _bars)(view, size)


def _layout(view: DistributionView, size: tuple[float, float]) -> tuple[FigureLayout, list[str]]:
    """A figure headed by the report, and the labels of its rows, the target marked."""
    layout = FigureLayout(
        size, view.title(int(size[0] * 11)), view.subtitle(int(size[0] * 13)), view.labels
    )
    labels = [
        ("▸ " if view.is_target(row) else "") + clip(layout.spell(label), _LABEL)
        for row, label in zip(view.rows, view.labels, strict=True)
    ]
    return layout, labels


def _bars(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Lying bars, a plot a temperature; the tokens and the scale of probability are shared."""
    count, many = len(view.report.spreads), len(view.rows)
    columns = min(count, max(1, int(size[0] / 1.7)) if size else 4)
    lines = math.ceil(count / columns)
    columns = math.ceil(count / lines)
    if size is None:
        size = (max(6.4, 1.5 + 2.05 * columns), lines * (_ROW * max(many, 4) + 0.55) + 0.9)
    height = max(size[1], lines * (many * MIN_LABEL_PITCH + 0.5) + 1.2)
    layout, labels = _layout(view, (size[0], height))
    grid = layout.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    plots: list[Axes] = list(grid.flat[:count])
    for spare in grid.flat[count:]:
        spare.remove()
    plots[0].set_yticks(range(many), labels)
    plots[0].set_ylim(many - 0.4, -0.6)
    drawn: dict[Any, Any] = {}
    for index, axes in enumerate(plots):
        bars: dict[Any, dict[int, Any]] = {kind: {} for kind in _BARS}
        for position, row in enumerate(view.rows):
            kind = view.is_target(row), view.removed(row, index)
            bars[kind][position] = row.probability[index]
            if row.final and row.final[index]:
                bars[_FINAL][position] = row.final[index]
        for kind, lengths in bars.items():
            if lengths:
                look = _BARS[kind][1]
                drawn[kind] = axes.barh([*lengths], [*lengths.values()], height=0.76, **look)
        is_lowest = index + columns >= count
        axes.tick_params(axis="y", length=0, labelsize=MIN_FONT_SIZE)
        axes.tick_params(axis="x", labelbottom=is_lowest)
        axes.set_xlabel("probability" if is_lowest else "")
    if not view.report.filtered:
        drawn.pop((False, False), None)  # one kind of bar needs no legend
    kinds = [kind for kind in _BARS if kind in drawn]
    layout.legend([drawn[kind] for kind in kinds], [_BARS[kind][0] for kind in kinds])
    layout.settle()
    points = min(max(axes_inches(plots[0])[1] * 72 / many * 0.72, MIN_FONT_SIZE), 9.0)
    plots[0].tick_params(axis="y", labelsize=points)
    layout.settle()
    _label_bars(layout, plots, view, min(points, 7.5))
    _head_bars(layout, plots, view)
    layout.settle()
    return layout.figure


def _label_bars(
    layout: FigureLayout, plots: Sequence[Axes], view: DistributionView, points: float
) -> None:
    """Scale the axis of probability, with the numbers at the ends of the bars where they have room:
    `61.0%`, and of a single plot `61.0% → 72.4%` or `2.6% · top_p`."""
    ends: list[list[float]] = []  # of each plot's bars
    texts: list[list[str]] = []
    for index in range(len(plots)):
        ends.append([])
        texts.append([])
        for row in view.rows:
            text, final = numbers.percent(row.probability[index]), 0.0
            if row.final:
                final = row.final[index] or 0.0
                filter_name = row.removed_by[index]
                outcome = f" · {filter_name}" if filter_name else f" → {numbers.percent(final)}"
                text += outcome if len(plots) == 1 else ""
            ends[index].append(max(row.probability[index], final))
            texts[index].append(text)
    limit = max(map(max, ends), default=1.0) or 1.0
    width = axes_inches(plots[0])[0]
    widest = layout.widest(list({text for column in texts for text in column}), points) + 0.08
    fits = widest < 0.55 * width
    for index, axes in enumerate(plots):
        probability_axis(axes, limit, horizontal=True, margin=widest / width if fits else 0.02)
        for position, row in enumerate(view.rows if fits else ()):
            ink = QUIET if view.removed(row, index) else INK
            at = ends[index][position], position
            note(axes, texts[index][position], at, (4, 0), points, ink, va="center_baseline")


def _head_bars(layout: FigureLayout, plots: Sequence[Axes], view: DistributionView) -> None:
    """Each temperature over its plot, with what there is room for: its entropy, the rest, the kept."""
    facts = []
    for index, spread in enumerate(view.report.spreads):
        kept = f"kept {numbers.count(spread.kept)}" if view.report.filtered else ""
        entropy = f"entropy {numbers.entropy(spread.entropy)} nats"
        facts.append([fact for fact in (entropy, view.others(index), kept) if fact])
    width = axes_inches(plots[0])[0]
    most = len(facts[0])
    while most > 1 and layout.widest([" · ".join(row[:most]) for row in facts], 7.5) > width:
        most -= 1
    for axes, row, name in zip(plots, facts, view.legends, strict=True):
        axes.set_title(name, loc="left", fontsize=9.5, color=INK, pad=15)
        text = " · ".join(row[:most])
        note(axes, text, (0, 1), (0, 5), 7.5, QUIET, xycoords="axes fraction")


def _lines(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """One axes, the tokens along it, a line a temperature; hollow marks where a filter removed."""
    many = len(view.rows)
    longest = max(cell_len(label) for label in view.labels)
    # Names that stand on end take height.
    size = size or (max(6.8, 2.2 + 0.24 * many), 4.0 + 0.07 * longest)
    layout, tokens = _layout(view, (max(size[0], 1.9 + MIN_LABEL_PITCH * many), size[1]))
    axes = layout.figure.add_subplot()
    looks, names = _temperature_looks(view, 4 if many > 25 else 5), view.legends
    hollow: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white"}
    for index, look in enumerate(looks):
        heights = [row.probability[index] for row in view.rows]
        removed = [k for k, row in enumerate(view.rows) if view.removed(row, index)]
        axes.plot(range(many), heights, **look)
        axes.plot(removed, [heights[k] for k in removed], **look | hollow, zorder=3)
    if any(view.removed(row, k) for row in view.rows for k in range(len(looks))):
        looks, names = (
            [*looks, {"color": QUIET, "marker": "o", **hollow}],
            [*names, "removed by a filter"],
        )
    layout.side_legend(axes, looks, names)
    axes.set_xticks(range(many), tokens)
    axes.set_xlim(-0.5, many - 0.5)
    axes.set_ylabel("probability")
    axes.tick_params(axis="x", length=2)
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
    return _finished(layout, axes, view.limit)


def _temperature_looks(view: DistributionView, markersize: float) -> list[dict[str, Any]]:
    """Colour, line style and marker of each temperature, the coldest darkest."""
    order = sorted(set(view.report.temperatures))
    colours = sequential(len(order))
    return [
        {
            "color": colours[rank],
            "linestyle": DASHES[rank % len(DASHES)],
            "marker": MARKERS[rank % len(MARKERS)],
            "markersize": markersize,
        }
        for rank in map(order.index, view.report.temperatures)
    ]


def _finished(layout: FigureLayout, axes: Axes, limit: float) -> Figure:
    """The figure of probabilities, with room for half a mark at the upper end of their axis."""
    layout.settle()
    probability_axis(axes, limit, horizontal=False, margin=0.06 / axes_inches(axes)[1])
    layout.settle()
    return layout.figure


def _tokens(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Probability over temperature, a line a token, the report's own temperatures marked."""
    many = len(view.rows)
    size = size or (7.4, 4.4 if many < 20 else 1.4 + 0.16 * many)
    layout, names = _layout(view, (size[0], max(size[1], 0.9 + 1.35 * MIN_LABEL_PITCH * many)))
    axes = layout.figure.add_subplot()
    temperatures, curves, _ = view.over_temperature()
    looks, limit = [], max([0.0, *curves.flat])
    for k, (row, curve, colour) in enumerate(zip(view.rows, curves, distinct(many), strict=True)):
        dashes = DASHES[k % len(DASHES)] if many > len(COLOURS) else "-"
        line: dict[str, Any] = {"color": colour, "linestyle": dashes}
        marks: dict[str, Any] = {"marker": MARKERS[k % len(MARKERS)], "markersize": 4.5}
        axes.plot(temperatures, curve, **line)
        marked = [row.probability[index] for _, index in view.points]
        axes.plot([t for t, _ in view.points], marked, **line | marks | {"linestyle": ""})
        looks.append(line | marks)
        limit = max([limit, *marked])
    layout.side_legend(axes, looks, names)
    axes.set_ylabel("probability")
    _temperature_axis(axes, view, temperatures)
    probability_axis(axes, limit or 1.0, horizontal=False)
    return _finished(layout, axes, limit or 1.0)


def _temperature_axis(axes: Axes, view: DistributionView, temperatures: Any) -> None:
    """A log axis of temperature with plain numbers."""
    low, high = view.temperature_span(temperatures)
    values = log_ticks(low, high)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(values, [tick_name(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel("temperature (log scale)")
    axes.grid(axis="y")


def _entropy(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Entropy over temperature between its limits, with the report's temperatures marked."""
    layout, _ = _layout(view, size or (6.8, 4.4))
    axes = layout.figure.add_subplot()
    temperatures, _, nats = view.over_temperature()
    zero, infinity = (limit.entropy for limit in view.report.limits)
    top = max([infinity, *nats]) or 1.0
    axes.set_yticks(ticks(0.0, top), [tick_name(tick) for tick in ticks(0.0, top)])
    axes.set_ylim(min(-0.04 * top, zero - 0.04 * top), 1.1 * top)
    for value, name in ((zero, "T → 0"), (infinity, "T → ∞")):
        axes.axhline(value, **_DASHED)
        log = f"log {numbers.count(round(math.exp(value)))} = " if value > 0 else ""
        # The curve leaves the lower limit to the right and comes to the upper one from the left.
        right = value == zero and zero < infinity
        text, at = f"{name}: {log}{numbers.entropy(value)} nats", (0.99 if right else 0.01, value)
        more = {"xycoords": ("axes fraction", "data"), "ha": "right" if right else "left"}
        note(axes, text, at, (0, 3), 8, QUIET, **more)
    axes.plot(temperatures, nats, color=KEPT)
    known = [t for t, _ in view.points]
    spreads = [view.report.spreads[index] for _, index in view.points]
    entropies = [spread.entropy for spread in spreads]
    look: dict[str, Any] = {"linestyle": "", "marker": "o", "color": KEPT, "clip_on": False}
    before = axes.plot(known, entropies, **look)[0]
    if view.report.filtered:
        look |= {"linestyle": ":", "linewidth": 1, "marker": "s", "color": TARGET}
        finals = [spread.final_entropy for spread in spreads]
        after = axes.plot(known, finals, markeredgecolor=INK, **look)[0]
        layout.legend([before, after], ["before the filters", "final: after the filters"])
    axes.set_ylabel("entropy (nats)")
    _temperature_axis(axes, view, temperatures)
    layout.freeze()
    names = [numbers.entropy(value) for value in entropies]
    label_points(axes, list(zip(known, entropies, strict=True)), names, [INK] * len(names), rings=1)
    return layout.figure


def _cumulative(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Probability of the first so many tokens, a line a temperature, faint beyond the top-p cut."""
    layout, _ = _layout(view, size or (7.2, 4.4))
    axes = layout.figure.add_subplot()
    looks, names, longest = _temperature_looks(view, 4), [], 1
    for index, look in enumerate(looks):
        colour, name = look["color"], view.legends[index]
        ranks, mass = view.over_rank(index)
        longest = max(longest, ranks.size)
        cut = view.cut(mass)
        drawn = thinned(ranks.size)
        if cut is not None:
            drawn = np.union1d(drawn, [cut - 1])
        inside = drawn if cut is None else drawn[drawn < cut]
        few = {"marker": look["marker"] if ranks.size <= 40 else ""}
        axes.plot(ranks[inside], mass[inside], **look | few)
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
        looks.append(_DASHED)
        names.append(f"top_p {numbers.plain(view.top_p)}")
    layout.side_legend(axes, looks, names)
    axes.set_ylabel("cumulative probability")
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
    probability_axis(axes, 1.0, horizontal=False, margin=0.02)
    layout.settle()
    return layout.figure
