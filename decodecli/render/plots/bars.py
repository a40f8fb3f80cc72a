"""Bars: a small plot for each temperature, with shared axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip
from decodecli.render.plots.distribution_view import DistributionView, subtitle, title
from decodecli.render.plots.figure_layout import (
    INK,
    KEPT,
    MIN_FONT_SIZE,
    MIN_LABEL_PITCH,
    QUIET,
    REMOVED,
    REMOVED_EDGE,
    TARGET,
    FigureLayout,
    axes_inches,
    probability_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = 24  # cells
_ROW = 0.215  # inches a bar
_HATCHED = {"hatch": "/////", "linewidth": 0.6}
# Of each kind of bar its name in the legend and its look.
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "kept": ("before the filters", {"color": KEPT}),
    "removed": (
        "removed by a filter",
        {"facecolor": REMOVED, "edgecolor": REMOVED_EDGE, **_HATCHED},
    ),
    "target": ("target", {"color": TARGET}),
    "removed target": (
        "target, removed",
        {"facecolor": "#FBEFD5", "edgecolor": TARGET, **_HATCHED},
    ),
    "final": (
        "final: after the filters",
        {"facecolor": "none", "edgecolor": INK, "linewidth": 0.7},
    ),
}


def distribution_layout(
    view: DistributionView, size: tuple[float, float]
) -> tuple[FigureLayout, list[str]]:
    """A figure headed by the report, and the labels of its rows, the target marked."""
    report = view.report
    heading = title(report, int(size[0] * 11)), subtitle(report, int(size[0] * 13))
    layout = FigureLayout(size, *heading, view.labels)
    labels = [
        ("▸ " if view.is_target(row) else "") + clip(layout.spell(label), _LABEL)
        for row, label in zip(view.rows, view.labels, strict=True)
    ]
    return layout, labels


def panel(view: DistributionView, size: tuple[float, float] | None) -> Figure:
    """Lying bars, a plot a temperature; the tokens and the scale of probability are shared."""
    count, many = len(view.report.spreads), len(view.rows)
    columns = min(count, max(1, int(size[0] / 1.7)) if size else 4)
    lines = math.ceil(count / columns)
    columns = math.ceil(count / lines)
    if size is None:
        size = (max(6.4, 1.5 + 2.05 * columns), lines * (_ROW * max(many, 4) + 0.55) + 0.9)
    height = max(size[1], lines * (many * MIN_LABEL_PITCH + 0.5) + 1.2)
    layout, labels = distribution_layout(view, (size[0], height))
    grid = layout.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    plots: list[Axes] = list(grid.flat)
    for spare in plots[count:]:
        spare.remove()
    plots = plots[:count]
    plots[0].set_yticks(range(many), labels)
    plots[0].set_ylim(many - 0.4, -0.6)
    drawn: dict[str, Any] = {}
    for index, axes in enumerate(plots):
        drawn |= _draw(axes, view, index)
        axes.tick_params(axis="y", length=0, labelsize=MIN_FONT_SIZE)
        lowest = index + columns >= count
        axes.tick_params(axis="x", labelbottom=lowest)
        axes.set_xlabel("probability" if lowest else "")
    if not view.report.filtered:
        drawn.pop("kept", None)  # one kind of bar needs no legend
    kinds = [kind for kind in _KINDS if kind in drawn]
    layout.legend([drawn[kind] for kind in kinds], [_KINDS[kind][0] for kind in kinds])
    layout.settle()
    points = min(max(axes_inches(plots[0])[1] * 72 / many * 0.72, MIN_FONT_SIZE), 9.0)
    plots[0].tick_params(axis="y", labelsize=points)
    layout.settle()
    _label_bars(layout, plots, view, min(points, 7.5))
    _head(layout, plots, view)
    layout.settle()
    return layout.figure


def _draw(axes: Axes, view: DistributionView, index: int) -> dict[str, Any]:
    """The bars of one temperature, and frames for the final distribution; by kind."""
    bars: dict[str, list[tuple[int, float]]] = {}
    for position, row in enumerate(view.rows):
        kind = "target" if view.is_target(row) else "kept"
        if view.removed(row, index):
            kind = "removed" if kind == "kept" else "removed target"
        bars.setdefault(kind, []).append((position, row.probability[index]))
        if final := _final(view, position, index):
            bars.setdefault("final", []).append((position, final))
    # Frames go over the bars.
    drawn = {}
    for kind in sorted(bars, key=lambda kind: kind == "final"):
        positions, lengths = zip(*bars[kind], strict=True)
        drawn[kind] = axes.barh(positions, lengths, height=0.76, **_KINDS[kind][1])
    return drawn


def _final(view: DistributionView, position: int, index: int) -> float:
    """The probability after the filters; 0 when removed, or when there are none."""
    row = view.rows[position]
    return (row.final[index] or 0.0) if row.final else 0.0


def _label_bars(
    layout: FigureLayout, plots: Sequence[Axes], view: DistributionView, points: float
) -> None:
    """Scale the axis of probability, with the numbers at the ends of the bars where they have room."""
    count, many = len(plots), len(view.rows)
    ends = [
        [max(row.probability[k], _final(view, position, k)) for k in range(count)]
        for position, row in enumerate(view.rows)
    ]
    limit = max((end for row in ends for end in row), default=1.0) or 1.0
    texts = [[_value(view, row, k, count > 1) for row in range(many)] for k in range(count)]
    width = axes_inches(plots[0])[0]
    widest = layout.widest(list({text for column in texts for text in column}), points) + 0.08
    fits = widest < 0.55 * width
    for index, axes in enumerate(plots):
        margin = widest / width if fits else 0.02
        probability_axis(axes, limit, horizontal=True, margin=margin)
        for row in range(many) if fits else ():
            axes.annotate(
                texts[index][row],
                (ends[row][index], row),
                (4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=points,
                color=QUIET if view.removed(view.rows[row], index) else INK,
            )


def _value(view: DistributionView, position: int, index: int, brief: bool) -> str:
    """What stands at the end of a bar: `61.0%`, `61.0% → 72.4%`, `2.6% · top_p`."""
    row = view.rows[position]
    before = numbers.percent(row.probability[index])
    if brief or not row.final:
        return before
    if row.removed_by[index]:
        return f"{before} · {row.removed_by[index]}"
    return f"{before} → {numbers.percent(row.final[index])}"


def _head(layout: FigureLayout, plots: Sequence[Axes], view: DistributionView) -> None:
    """Each temperature over its plot, with what there is room for: its entropy, the rest, the kept."""
    facts = [_facts(view, index) for index in range(len(plots))]
    width = axes_inches(plots[0])[0]
    most = len(facts[0])
    while most > 1 and layout.widest([" · ".join(row[:most]) for row in facts], 7.5) > width:
        most -= 1
    for axes, row, name in zip(plots, facts, view.legends, strict=True):
        axes.set_title(name, loc="left", fontsize=9.5, color=INK, pad=15)
        axes.annotate(
            " · ".join(row[:most]),
            (0, 1),
            (0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=7.5,
            color=QUIET,
        )


def _facts(view: DistributionView, index: int) -> list[str]:
    spread = view.report.spreads[index]
    facts = [f"entropy {numbers.entropy(spread.entropy)} nats"]
    more = view.report.size - len(view.rows)
    if more > 0:
        rest = numbers.rest_cell(view.others(index)).strip()
        facts.append(f"{rest} on {numbers.count(more)} more")
    if view.report.filtered:
        facts.append(f"kept {numbers.count(spread.kept)}")
    return facts
