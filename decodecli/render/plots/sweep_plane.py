"""A sweep's settings in the plane of diversity and quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodecli.records.sweep import SettingSummary
from decodecli.render.plots.figure_layout import INK, QUIET, FigureLayout
from decodecli.render.plots.labels import label_points
from decodecli.render.plots.sweep_curves import round_ticks
from decodecli.render.plots.sweep_data import METRIC, Line, Metric, value_name
from decodecli.render.plots.sweep_view import NAMED, LineStyle, Panel, SweepView, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIN_COUNT = 3  # observations of an interval that is drawn
_MAX_PANELS = 4  # side by side
# What stands for diversity, the first that is known; the x axis' label.
_DIVERSITY = {
    "self_bleu_4": "1 − self-BLEU-4: how unlike one another",
    "distinct_2": "distinct-2: how little is said twice",
}
_QUALITY = ("mean_logprob", "accuracy")

Point = tuple[float, float, SettingSummary]  # diversity, quality, and whose they are


def _diversity(view: SweepView) -> str | None:
    known = {metric.name for metric in view.metrics}
    return next((name for name in _DIVERSITY if name in known), None)


def _qualities(view: SweepView) -> list[Metric]:
    return [METRIC[name] for name in _QUALITY if METRIC[name] in view.metrics]


def has_plane(view: SweepView) -> bool:
    """Whether some line has two points or more."""
    diversity = _diversity(view)
    return diversity is not None and any(
        len(_points(line, quality, diversity)) > 1
        for line in view.lines
        for quality in _qualities(view)
    )


def _points(line: Line, quality: Metric, diversity: str) -> list[Point]:
    """Of the settings that have both numbers."""
    return [
        (_unlike(s.numbers[diversity].value, diversity), s.numbers[quality.name].value, s)
        for s in line.settings
        if quality.name in s.numbers and diversity in s.numbers
    ]


def _unlike(value: float, diversity: str) -> float:
    return 1 - value if diversity == "self_bleu_4" else value


def plane_figure(view: SweepView) -> Figure:
    """Quality over diversity: a point a setting with its value of the axis across beside it, joined in
    the order of that axis, a colour for each value of the next axis."""
    diversity = _diversity(view)
    assert diversity is not None
    metrics, styles = _qualities(view), LineStyle.of(view)
    panels = [
        panel
        for panel in view.panels
        if any(_points(line, m, diversity) for line in view.of_panel(panel) for m in metrics)
    ]
    drawn = panels[:_MAX_PANELS]
    width, height = (4.8, 3.6) if len(drawn) == 1 else (3.6, 2.9)
    legend = 1.3 if len(view.values) > 1 else 0.0
    faint = (
        f"faint: 95 % intervals, from {_MIN_COUNT} observations on" if view.has_intervals else ""
    )
    layout = FigureLayout(
        (0.4 + legend + width * len(drawn), 0.9 + height * len(metrics)),
        "Quality and diversity",
        view.subtitle(f"labelled by {view.across_name}", panels=len(panels), most=len(drawn)),
        view.texts,
        " · ".join(note for note in (view.note, faint) if note),
    )
    shape = len(metrics), len(drawn)
    grid = layout.figure.subplots(*shape, sharex=True, sharey="row", squeeze=False)
    for metric, row in zip(metrics, grid, strict=True):
        for panel, axes in zip(drawn, row, strict=True):
            _draw(axes, styles, panel, metric, diversity)
        for axes in visible(row)[:1]:
            axes.set_ylabel(metric.title)
            axes.tick_params(labelleft=True)
    for panel, column in zip(drawn, map(visible, grid.T), strict=True):
        column[0].set_title(layout.spell(panel.name), fontsize=9, loc="left", color=INK)
        column[-1].set_xlabel(_DIVERSITY[diversity])
        column[-1].tick_params(labelbottom=True)
    styles.draw_legend(layout, visible(grid[:, -1])[0])
    layout.freeze()
    for metric, row in zip(metrics, grid, strict=True):
        for panel, axes in zip(drawn, row, strict=True):
            _label(layout, axes, styles, panel, metric, diversity)
    return layout.figure


def _draw(axes: Axes, styles: LineStyle, panel: Panel, metric: Metric, diversity: str) -> None:
    """A panel's lines, the first axes of each row and the last of each column with their numbers."""
    lines = styles.view.of_panel(panel)
    axes.set_visible(any(_points(line, metric, diversity) for line in lines))
    for line in lines:
        points = _points(line, metric, diversity)
        look: dict[str, Any] = {"marker": "o", **styles.of_line(line), "linewidth": 0.9}
        if styles.scale:
            look |= {"marker": "o", "markersize": 2.5}
        elif styles.view.has_intervals:
            _draw_intervals(axes, points, metric, diversity, look["color"])
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], **look)
    axes.margins(0.12)
    axes.grid(axis="both")
    axes.tick_params(length=0)
    round_ticks(axes.xaxis, share=False)
    round_ticks(axes.yaxis, metric.share)


def _draw_intervals(
    axes: Axes, points: list[Point], metric: Metric, diversity: str, colour: str
) -> None:
    """The 95 % intervals of both numbers, faint; of two observations one would span the picture."""
    faint: dict[str, Any] = {"color": colour, "linewidth": 0.8, "alpha": 0.35}
    for x, y, setting in points:
        up, across = setting.numbers[metric.name], setting.numbers[diversity]
        if up.low is not None and up.high is not None and up.count >= _MIN_COUNT:
            axes.vlines(x, up.low, up.high, **faint)
        if across.low is not None and across.high is not None and across.count >= _MIN_COUNT:
            axes.hlines(y, _unlike(across.low, diversity), _unlike(across.high, diversity), **faint)


def _label(
    layout: FigureLayout,
    axes: Axes,
    styles: LineStyle,
    panel: Panel,
    metric: Metric,
    diversity: str,
) -> None:
    """The value of the axis across beside each point: of all lines, or where they are many of the first
    and the last."""
    lines = styles.view.of_panel(panel)
    lines = [lines[0], lines[-1]] if styles.scale and len(lines) > 1 else lines
    across = styles.view.placed.across or ""
    named: dict[tuple[str, int, int], tuple[float, float]] = {}
    for line in lines:
        for x, y, setting in _points(line, metric, diversity):
            left, below = axes.transData.transform((x, y)) / layout.figure.dpi * 72 // 5
            name = layout.spell(value_name(setting.setting.get(across)))
            named.setdefault((name, left, below), (x, y))  # once where points fall together
    size = 8 if len(named) <= NAMED * 4 else 6.5
    names = [name for name, _, _ in named]
    label_points(axes, list(named.values()), names, [QUIET] * len(names), (size,), rings=1)
