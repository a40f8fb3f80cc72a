"""Bars: the tokens of one temperature, or a small plot a temperature with shared axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.render import number_format as numbers
from decodecli.render.plots.canvas import (
    HATCH,
    INK,
    KEPT,
    PITCH,
    QUIET,
    REMOVED,
    REMOVED_EDGE,
    SMALLEST,
    TARGET,
    Canvas,
    axes_inches,
    probability_axis,
)
from decodecli.render.plots.data import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UPRIGHT = 12  # more bars than this lie down
_ROW = 0.215  # inches a lying bar
_FRAME = 1.35  # inches of height beside the bars: heading, axis, legend
_STYLES: dict[str, dict[str, Any]] = {
    "kept": {"color": KEPT},
    "target": {"color": TARGET},
    "removed": {
        "facecolor": REMOVED,
        "edgecolor": REMOVED_EDGE,
        "hatch": HATCH,
        "linewidth": 0.6,
    },
    "removed target": {
        "facecolor": "#FBEFD5",
        "edgecolor": TARGET,
        "hatch": HATCH,
        "linewidth": 0.6,
    },
    "final": {"facecolor": "none", "edgecolor": INK, "linewidth": 0.7},
}
_NAMES = {
    "kept": "before the filters",
    "removed": "removed by a filter",
    "target": "target",
    "removed target": "target, removed",
    "final": "final: after the filters",
}


def bars(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """One temperature: upright bars where the labels fit side by side, else lying ones."""
    if len(shown.rows) <= _UPRIGHT:
        made = _upright(shown, size or (6.4, 4.2))
        if made is not None:
            return made
    return panel(shown, size or (6.4, _FRAME + 0.25 + _ROW * max(len(shown.rows), 4)))


def _upright(shown: Picture, size: tuple[float, float]) -> Figure | None:
    """None when a label is wider than its bar's place."""
    canvas = Canvas(shown, size)
    axes = canvas.figure.add_subplot()
    places = range(len(shown.rows))
    axes.set_xticks(places, canvas.labels)
    axes.set_xlim(-0.6, len(shown.rows) - 0.4)
    _explain(canvas, _draw(axes, shown, 0, horizontal=False))
    axes.set_ylabel("probability")
    axes.tick_params(axis="x", length=0, labelsize=9)
    limit = _limit(shown)
    probability_axis(axes, limit, horizontal=False)
    canvas.settle()
    _heads([axes], shown, canvas)
    values = [_value(shown, place, 0, brief=False) for place in places]
    pitch = axes_inches(axes)[0] / (len(shown.rows) + 0.2)
    room = 0.94 * pitch
    points = 7.5
    if max(canvas.text_width(label, 9) for label in canvas.labels) > room:
        return None
    if max(canvas.text_width(value, points) for value in values) > room:
        return None
    probability_axis(axes, limit, horizontal=False, room=0.2 / axes_inches(axes)[1])
    for place, value in zip(places, values, strict=True):
        top = max(shown.rows[place].probability[0], _final(shown, place, 0))
        axes.annotate(
            value,
            (place, top),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=points,
            color=INK,
        )
    canvas.settle()
    return canvas.figure


def panel(shown: Picture, size: tuple[float, float] | None) -> Figure:
    """Lying bars, a plot a temperature; the tokens and the scale of probability are shared."""
    count = len(shown.report.spreads)
    columns = min(count, max(1, int(size[0] / 1.7)) if size else 4)
    lines = math.ceil(count / columns)
    columns = math.ceil(count / lines)
    if size is None:
        height = lines * (_ROW * max(len(shown.rows), 4) + 0.55) + 0.9
        size = (max(6.4, 1.5 + 2.05 * columns), height)
    many = len(shown.rows)
    canvas = Canvas(shown, (size[0], max(size[1], lines * (many * PITCH + 0.5) + 1.2)))
    grid = canvas.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    plots: list[Axes] = list(grid.flat)
    for spare in plots[count:]:
        spare.remove()
    plots = plots[:count]
    plots[0].set_yticks(range(many), canvas.labels)
    plots[0].set_ylim(many - 0.4, -0.6)
    limit = _limit(shown)
    drawn: dict[str, Any] = {}
    for index, axes in enumerate(plots):
        drawn |= _draw(axes, shown, index, horizontal=True)
        axes.tick_params(axis="y", length=0, labelsize=SMALLEST)
        lowest = index + columns >= count
        axes.tick_params(axis="x", labelbottom=lowest)
        if lowest:
            axes.set_xlabel("probability")
    _explain(canvas, drawn)
    canvas.settle()
    points = min(max(axes_inches(plots[0])[1] * 72 / many * 0.72, SMALLEST), 9.0)
    plots[0].tick_params(axis="y", labelsize=points)
    canvas.settle()
    width = axes_inches(plots[0])[0]
    size_of_values = min(points, 7.5)
    values = [[_value(shown, row, k, count > 1) for row in range(many)] for k in range(count)]
    widest = max(canvas.text_width(v, size_of_values) for v in set().union(*values)) + 0.08
    with_values = widest < 0.55 * width
    _heads(plots, shown, canvas)
    for index, axes in enumerate(plots):
        room = widest / width if with_values else 0.02
        probability_axis(axes, limit, horizontal=True, room=room)
        for row in range(many) if with_values else ():
            end = max(shown.rows[row].probability[index], _final(shown, row, index))
            axes.annotate(
                values[index][row],
                (end, row),
                (4, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=size_of_values,
                color=QUIET if shown.removed(shown.rows[row], index) else INK,
            )
    canvas.settle()
    return canvas.figure


def _draw(axes: Axes, shown: Picture, index: int, horizontal: bool) -> dict[str, Any]:
    """The bars of one temperature, and frames for the final distribution; by name, for a legend."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(shown.rows):
        name = "target" if shown.is_target(row) else "" if shown.removed(row, index) else "kept"
        if shown.removed(row, index):
            name = f"removed {name}".strip()
        groups.setdefault(name, []).append(place)
    lengths = {
        name: [shown.rows[place].probability[index] for place in places]
        for name, places in groups.items()
    }
    if shown.report.filtered:
        finals = [(place, _final(shown, place, index)) for place in range(len(shown.rows))]
        groups["final"] = [place for place, value in finals if value > 0]
        lengths["final"] = [value for _, value in finals if value > 0]
    return {
        name: (
            axes.barh(places, lengths[name], height=0.76, **_STYLES[name])
            if horizontal
            else axes.bar(places, lengths[name], width=0.7, **_STYLES[name])
        )
        for name, places in groups.items()
        if places
    }


def _explain(canvas: Canvas, drawn: dict[str, Any]) -> None:
    """A legend, unless there is only one kind of bar."""
    if not canvas.shown.report.filtered:
        drawn = {name: bars for name, bars in drawn.items() if name != "kept"}
    names = [name for name in _NAMES if name in drawn]
    canvas.legend([drawn[name] for name in names], [_NAMES[name] for name in names])


def _final(shown: Picture, place: int, index: int) -> float:
    """The probability after the filters; 0 when removed, or when there are none."""
    row = shown.rows[place]
    return (row.final[index] or 0.0) if row.final else 0.0


def _limit(shown: Picture) -> float:
    """The longest bar or mark of all the temperatures."""
    every = [p for row in shown.rows for p in (*row.probability, *row.final) if p is not None]
    return max(every, default=1.0) or 1.0


def _value(shown: Picture, place: int, index: int, brief: bool) -> str:
    """What stands at the end of a bar: `61.0%`, `61.0% → 72.4%`, `2.6% · top_p`."""
    row = shown.rows[place]
    before = numbers.percent(row.probability[index])
    if brief or not row.final:
        return before
    if row.removed_by[index]:
        return f"{before} · {row.removed_by[index]}"
    return f"{before} → {numbers.percent(row.final[index])}"


def _heads(plots: Sequence[Axes], shown: Picture, canvas: Canvas) -> None:
    """Each temperature over its plot, with what there is room for: its entropy, the rest, the kept."""
    facts = [_facts(shown, index) for index in range(len(plots))]
    width = axes_inches(plots[0])[0]
    many = len(facts[0])
    while many > 1 and any(
        canvas.text_width(" · ".join(found[:many]), 7.5) > width for found in facts
    ):
        many -= 1
    for axes, found, name in zip(plots, facts, shown.legends, strict=True):
        axes.set_title(name, loc="left", fontsize=9.5, color=INK, pad=15)
        axes.annotate(
            " · ".join(found[:many]),
            (0, 1),
            (0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=7.5,
            color=QUIET,
        )


def _facts(shown: Picture, index: int) -> list[str]:
    spread = shown.report.spreads[index]
    facts = [f"entropy {numbers.entropy(spread.entropy)} nats"]
    more = shown.report.size - len(shown.rows)
    if more > 0:
        rest = numbers.rest_cell(shown.others(index)).strip()
        facts.append(f"{rest} on {numbers.count(more)} more")
    if shown.report.filtered:
        facts.append(f"kept {numbers.count(spread.kept)}")
    return facts
