"""A sweep's numbers over its first axis by matplotlib: a line for each value of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decodecli.records.sweep import Estimate
from decodecli.render.escaping import clip
from decodecli.render.plots.figure_layout import INK, FigureLayout
from decodecli.render.plots.labels import label_end, spread_labels
from decodecli.render.plots.sweep_data import Line, Metric, value_name
from decodecli.render.plots.sweep_view import (
    MAX_PANELS,
    LineStyle,
    Panel,
    SweepView,
    XAxis,
    visible,
)
from decodecli.render.plots.ticks import log_ticks, tick_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 20  # times the least perplexity, from which on its axis is logarithmic
_BANDS = 13  # points of a line from which on intervals are bands
_COLUMNS = 4  # panels side by side
_NAME = 16  # cells of a curve's name
# What stands on the first page where there are several.
_FIRST = ("mean_logprob", "mean_entropy", "distinct_2", "self_bleu_4", "identical", "accuracy")
_ASIDE, _MAX_ASIDE = 2.4, 9.6  # points from a line's marks to the next line's, and of all together
_DODGE = 0.5  # of the space between two values that are no numbers, shared by the lines

Place = tuple[Metric, Panel]


@dataclass(frozen=True)
class Page:
    """One picture of curves: a metric and panel for each axes, row by row; None stays empty."""

    name: str
    rows: tuple[tuple[Place | None, ...], ...]
    title: str = ""
    size: tuple[float, float] | None = None  # inches of each axes


def pages(view: SweepView) -> list[Page]:
    """Every metric that has a curve. One panel: all on one page. Several: a row a metric, a column a
    panel, the numbers that say most on the first page."""
    metrics = [metric for metric in view.metrics if _has_curve(view, metric)]
    if not metrics:
        return []
    if len(view.panels) == 1:
        columns = next(n for n in (1, 2, 3, 4) if n == 4 or n * n >= len(metrics))
        return [Page("metrics", _rows([(m, view.panels[0]) for m in metrics], columns))]
    result: list[Page] = []
    first = [metric for metric in metrics if metric.name in _FIRST]
    others = [metric for metric in metrics if metric.name not in _FIRST]
    for start in range(0, min(len(view.panels), MAX_PANELS), _COLUMNS):
        panels = view.panels[start : min(start + _COLUMNS, MAX_PANELS)]
        for part in (first, others):
            if part:
                name = "metrics" + (f"-{len(result) + 1}" if result else "")
                places = [(metric, panel) for metric in part for panel in panels]
                result.append(Page(name, _rows(places, len(panels))))
    return result


def _has_curve(view: SweepView, metric: Metric) -> bool:
    """Whether some line has two points or more, and values differ."""
    if view.placed.across is None:
        return False
    curves = [view.points(line, metric) for line in view.lines]
    values = {estimate.value for points in curves for _, estimate in points}
    return len(values) > 1 and any(len(points) > 1 for points in curves)


def _rows(places: Sequence[Place], columns: int) -> tuple[tuple[Place | None, ...], ...]:
    filled = [*places, *([None] * (-len(places) % columns))]
    return tuple(tuple(filled[k : k + columns]) for k in range(0, len(filled), columns))


def metric_page(view: SweepView, metric: Metric) -> Page:
    """One number, large: an axes for each panel."""
    panels = view.panels[:MAX_PANELS]
    columns = 1 if len(panels) == 1 else 2 if len(panels) < 5 else 3
    rows = _rows([(metric, panel) for panel in panels], columns)
    title = f"{metric.title[:1].upper()}{metric.title[1:]} over {view.across_name}"
    return Page(metric.name, rows, title, (6.6, 4.2) if len(panels) == 1 else (3.6, 2.9))


def page_figure(view: SweepView, page: Page) -> Figure:
    """A page of `pages`."""
    x_axis, styles = XAxis(view), LineStyle.of(view)
    several = len(view.panels) > 1
    layout = _page_layout(view, page, styles)
    shape = len(page.rows), len(page.rows[0])
    grid = layout.figure.subplots(
        *shape, sharex=True, sharey="row" if several else False, squeeze=False
    )
    headed: list[Panel] = []  # panels whose name stands above a column already
    for places, row in zip(page.rows, grid, strict=True):
        estimates: list[Estimate] = []
        for place, axes in zip(places, row, strict=True):
            if place is None:
                axes.set_visible(False)
                continue
            metric, panel = place
            known = view.estimates(metric, panel)
            axes.set_visible(bool(known))
            estimates = [*estimates, *known] if several else known
            _draw_curves(layout, metric, panel, axes, x_axis, styles)
            _draw_y_axis(axes, metric, estimates)  # of a row's last panel: of all
            title = "" if page.title else metric.title
            if several:
                title = panel.name if panel not in headed else ""
            headed += [panel] if known else []
            axes.set_title(layout.spell(title), fontsize=9, loc="left", color=INK)
        if several and places[0] is not None and visible(row):
            visible(row)[0].set_ylabel(places[0][0].title.replace(" (", "\n("))
            visible(row)[0].tick_params(labelleft=True)
    for column in map(visible, grid.T):  # names and numbers under the lowest axes only
        for axes in column:
            axes.tick_params(labelbottom=axes is column[-1])
        if column:
            column[-1].set_xlabel(layout.spell(x_axis.label))
    drawn = visible(grid.flat)
    if not styles.labelled:
        styles.draw_legend(layout, (visible(grid[:, -1]) or drawn)[0])
    layout.freeze()
    x_axis.draw_ticks(layout, drawn[0])
    for axes in drawn:
        spread_labels(axes)
    return layout.figure


def _page_layout(view: SweepView, page: Page, styles: LineStyle) -> FigureLayout:
    """A figure that is large enough for the page, with its heading."""
    rows, columns = len(page.rows), len(page.rows[0])
    width, height = page.size or ((5.0, 3.4) if rows * columns == 1 else (2.7, 2.0))
    legend = 0.0
    if styles.labelled:
        width += 0.08 * min(max(len(value_name(value)) for value in view.values), _NAME) + 0.1
    elif len(view.values) > 1:
        legend = 1.3
    places = [place for row in page.rows for place in row if place is not None]
    known = any(e.low is not None for place in places for e in view.estimates(*place))
    facts = ["95 % intervals"] if known and view.has_intervals and not styles.scale else []
    if len(view.values) > 1:
        facts.append(f"a {'curve' if styles.joined else 'colour'} for each {view.line_name}")
    return FigureLayout(
        (0.3 + legend + max(width * columns, 4.0), 0.9 + height * rows),
        page.title or f"The sweep's numbers over {view.across_name}",
        view.subtitle(*facts, panels=len(view.panels)),
        view.texts,
        view.note,
    )


def _draw_curves(
    layout: FigureLayout,
    metric: Metric,
    panel: Panel,
    axes: Axes,
    x_axis: XAxis,
    styles: LineStyle,
) -> None:
    """The panel's lines with their intervals, and the scale across."""
    view = styles.view
    x_axis.draw(axes)
    lines = [line for line in view.of_panel(panel) if view.points(line, metric)]
    for number, line in enumerate(lines):
        points = view.points(line, metric)
        dodge = 0.0
        if not x_axis.numeric and len(lines) > 1:
            dodge = _DODGE * (number / (len(lines) - 1) - 0.5)
        xs = [x_axis.position(value) + dodge for value, _ in points]
        estimates = [estimate for _, estimate in points]
        look = styles.of_line(line) | {"transform": _aside(axes, styles, line, x_axis)}
        axes.plot(xs, [estimate.value for estimate in estimates], **look)
        if styles.scale:
            continue
        if view.has_intervals:
            draw_intervals(axes, xs, estimates, look["color"], look["transform"])
        if styles.labelled:
            name = layout.spell(clip(value_name(line.value), _NAME))
            label_end(axes, xs[-1], estimates[-1].value, name, look["color"])


def _aside(axes: Axes, styles: LineStyle, line: Line, x_axis: XAxis) -> Any:
    """Where a line's points are drawn: a little beside one another, so that intervals are told apart."""
    from matplotlib.transforms import offset_copy

    many = len(styles.view.values)
    if styles.scale or not x_axis.numeric or len(x_axis.values) >= _BANDS:
        return axes.transData
    points = (styles.view.number(line.value) - (many - 1) / 2) * min(_ASIDE, _MAX_ASIDE / many)
    return offset_copy(axes.transData, axes.get_figure(root=True), x=points, units="points")


def draw_intervals(
    axes: Axes,
    xs: Sequence[float],
    estimates: Sequence[Estimate],
    colour: str,
    transform: Any = None,
) -> None:
    """95 % intervals, where they are known: bars, or a band for a line of many points."""
    pairs = zip(xs, estimates, strict=True)
    known = [(x, e.low, e.high) for x, e in pairs if e.low is not None and e.high is not None]
    if not known:
        return
    positions, low, high = zip(*known, strict=True)
    if len(known) >= _BANDS:
        axes.fill_between(positions, low, high, color=colour, alpha=0.15, linewidth=0)
        return
    where = {} if transform is None else {"transform": transform}
    axes.vlines(positions, low, high, color=colour, linewidth=1.0, alpha=0.75, **where)


def _draw_y_axis(axes: Axes, metric: Metric, estimates: Sequence[Estimate]) -> None:
    """The metric's axis: percentages from 0 for a share, a log axis for a wide perplexity."""
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    if not ends:
        return
    low, high = min(ends), max(ends)
    if metric.name == "perplexity" and min(e.value for e in estimates) * WIDE < high:
        low = min(end for end in ends if end > 0)
        axes.set_yscale("log")
        ticks = log_ticks(low, high, 5) or [low, high]
        axes.set_yticks(ticks, [tick_name(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
        return
    if metric.share:
        low, high = 0.0, max(high, 0.01)
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - (margin if low else 0.02 * (high - low)), high + margin)
    round_ticks(axes.yaxis, metric.share)


def round_ticks(axis: Any, share: bool) -> None:
    """A few round numbers with a real minus sign; of a share, percentages."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axis.set_major_formatter(
        lambda value, _: (f"{100 * value:.6g}%" if share else f"{value:.6g}").replace("-", "−")
    )
