"""The pictures of a sweep in a folder: each number over the first axis, maps of two, the plane of
quality and diversity.

Lines are in viridis for values that are numbers, in Okabe and Ito's colours otherwise, each with its
own dashes and marks. The same summary gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError, WriteError
from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render.escaping import clip
from decodecli.render.plots.figure_file import check_matplotlib, save_figure
from decodecli.render.plots.figure_layout import INK, FigureLayout, log_ticks, tick_name
from decodecli.render.plots.labels import label_end, spread_labels
from decodecli.render.plots.sweep_data import METRIC, Metric, Panel, value_name
from decodecli.render.plots.sweep_maps import (
    has_map,
    has_plane,
    map_figure,
    map_metrics,
    plane_figure,
)
from decodecli.render.plots.sweep_view import (
    MAX_PANELS,
    WIDE,
    SweepView,
    XAxis,
    round_ticks,
    visible,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_MAPS = 6
_BANDS = 13  # points of a line from which on intervals are bands
_COLUMNS = 4  # panels side by side
_NAME = 16  # cells of a curve's name
# What stands on the first page where there are several.
_FIRST = ("mean_logprob", "mean_entropy", "distinct_2", "self_bleu_4", "identical", "accuracy")
_ASIDE, _MAX_ASIDE = 2.4, 9.6  # points from a line's marks to the next line's, and of all together
_DODGE = 0.5  # of the space between two values that are no numbers, shared by the lines


def draw_sweep(summary: SweepSummary, folder: Path | str, format: str = "png") -> list[Path]:
    """Write every picture that the summary gives, `NAME.FORMAT`; returns their paths in order.

    A number that has one value only, or an axis that does, is not drawn. `folder` is made.

    Raises:
        UsageError: matplotlib is missing.
        WriteError: a file cannot be written.
    """
    check_matplotlib("the plots need", "--no-plots")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot make {folder}: {error.strerror}", "choose another folder"
        ) from error
    paths = []
    for name, make in pictures(summary):
        paths.append(folder / f"{name}.{format}")
        save_figure(paths[-1], make)
    return paths


def pictures(summary: SweepSummary) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Names and makers of the pictures, to be called within `figure_file.style()`."""
    view = SweepView(summary)
    for page in pages(view):
        yield page.name, partial(page_figure, view, page)
    if has_map(view):
        panels = [panel for panel in view.panels if map_metrics(view, panel)]
        for number, panel in enumerate(panels[:_MAX_MAPS]):
            # `heatmap`, `heatmap-knowledge`, with a number where letters would not do.
            plain = re.sub(r"[^A-Za-z0-9.]+", "-", panel.name).strip("-.")
            digits = str(number + 1) if number and len(plain) < len(panel.name) else ""
            name = "-".join(part for part in ("heatmap", digits, plain) if part)
            yield name, partial(map_figure, view, panel)
    if has_plane(view):
        yield "quality-diversity", partial(plane_figure, view)


def draw_metric(summary: SweepSummary, path: Path | str, name: str) -> None:
    """One number of `METRICS` over the first axis, large: a panel for each task or prompt.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing; nothing varies; no cell has the number.
        WriteError: the file cannot be written.
    """
    view, metric = SweepView(summary), METRIC[name]
    if view.layout.across is None:
        raise UsageError(
            "nothing varies in these cells", "sweep an option over several values first"
        )
    if metric not in view.metrics:
        options = (known.name.replace("_", "-").removesuffix("-4") for known in view.metrics)
        raise UsageError(f"these cells have no {metric.heading}", f"they have {', '.join(options)}")
    panels = view.panels[:MAX_PANELS]
    columns = 1 if len(panels) == 1 else 2 if len(panels) < 5 else 3
    places = [(metric, panel) for panel in panels]
    title = f"{metric.title[:1].upper()}{metric.title[1:]} over {view.across_name}"
    size = (6.6, 4.2) if len(panels) == 1 else (3.6, 2.9)
    save_figure(path, lambda: page_figure(view, Page(metric.name, places, columns, title, size)))


@dataclass(frozen=True)
class Page:
    """One picture of curves: a metric and panel for each axes, row by row."""

    name: str
    places: list[tuple[Metric, Panel]]
    columns: int
    title: str = ""
    size: tuple[float, float] | None = None  # inches of each axes


def pages(view: SweepView) -> list[Page]:
    """Every metric that has a curve: a line with two points or more, and values that differ.

    One panel: all on one page. Several: a row a metric, a column a panel, the numbers that say most on
    the first page.
    """
    metrics = []
    for metric in view.metrics if view.layout.across is not None else ():
        curves = [line.points(metric.name) for line in view.lines]
        values = {estimate.value for points in curves for _, estimate in points}
        if len(values) > 1 and any(len(points) > 1 for points in curves):
            metrics.append(metric)
    if not metrics:
        return []
    if len(view.panels) == 1:
        columns = next(n for n in (1, 2, 3, 4) if n == 4 or n * n >= len(metrics))
        return [Page("metrics", [(metric, view.panels[0]) for metric in metrics], columns)]
    result: list[Page] = []
    first = [metric for metric in metrics if metric.name in _FIRST]
    others = [metric for metric in metrics if metric.name not in _FIRST]
    for start in range(0, min(len(view.panels), MAX_PANELS), _COLUMNS):
        panels = view.panels[start : min(start + _COLUMNS, MAX_PANELS)]
        for part in filter(None, (first, others)):
            name = "metrics" + (f"-{len(result) + 1}" if result else "")
            places = [(metric, panel) for metric in part for panel in panels]
            result.append(Page(name, places, len(panels)))
    return result


def page_figure(view: SweepView, page: Page) -> Figure:
    """A page of `pages`."""
    x_axis, several = XAxis(view), len(view.panels) > 1
    rows = -(-len(page.places) // page.columns)
    layout = _page_layout(view, page, rows)
    sharey: Any = "row" if several else False
    grid = layout.figure.subplots(rows, page.columns, sharex=True, sharey=sharey, squeeze=False)
    for spare in grid.flat[len(page.places) :]:
        spare.set_visible(False)
    headed: list[Panel] = []  # panels whose name stands above a column already
    estimates: list[Estimate] = []
    for number, ((metric, panel), axes) in enumerate(zip(page.places, grid.flat, strict=False)):
        known = view.estimates(metric, panel)
        axes.set_visible(bool(known))
        _draw_curves(layout, metric, panel, axes, x_axis, view)
        shares_axis = several and number % page.columns > 0
        estimates = [*estimates, *known] if shares_axis else known
        _draw_y_axis(axes, metric, estimates)  # of a row's last panel: of all
        title = "" if page.title else metric.title
        if several:
            title = panel.name if panel not in headed else ""
        headed += [panel] if known else []
        axes.set_title(layout.spell(title), fontsize=9, loc="left", color=INK)
    for row, (metric, _) in zip(grid, page.places[:: page.columns], strict=True):
        for axes in visible(row)[:1] if several else ():
            axes.set_ylabel(metric.title.replace(" (", "\n("))
            axes.tick_params(labelleft=True)
    for column in filter(None, map(visible, grid.T)):  # numbers under the lowest axes only
        for axes in column:
            axes.tick_params(labelbottom=axes is column[-1])
        column[-1].set_xlabel(layout.spell(x_axis.label))
    drawn = visible(grid.flat)
    if not view.labelled:
        view.draw_legend(layout, (visible(grid[:, -1]) or drawn)[0])
    layout.freeze()
    x_axis.draw_ticks(layout, drawn[0])
    for axes in drawn:
        spread_labels(axes)
    return layout.figure


def _page_layout(view: SweepView, page: Page, rows: int) -> FigureLayout:
    """A figure that is large enough for the page, with its heading."""
    width, height = page.size or ((5.0, 3.4) if rows * page.columns == 1 else (2.7, 2.0))
    legend = 0.0
    if view.labelled:
        width += 0.08 * min(max(len(value_name(value)) for value in view.values), _NAME) + 0.1
    elif len(view.values) > 1:
        legend = 1.3
    known = any(e.low is not None for place in page.places for e in view.estimates(*place))
    facts = ["95 % intervals"] if known and view.has_intervals and not view.has_scale else []
    if len(view.values) > 1:
        facts.append(f"a {'curve' if view.joined else 'colour'} for each {view.line_name}")
    return view.figure_layout(
        (0.3 + legend + max(width * page.columns, 4.0), 0.9 + height * rows),
        page.title or f"The sweep's numbers over {view.across_name}",
        *facts,
        panels=len(view.panels),
    )


def _draw_curves(
    layout: FigureLayout, metric: Metric, panel: Panel, axes: Axes, x_axis: XAxis, view: SweepView
) -> None:
    """The panel's lines with their intervals, a little beside one another so that these are told apart,
    and the scale across."""
    from matplotlib.transforms import offset_copy

    x_axis.draw(axes)
    many = len(view.values)
    lines = [line for line in view.of_panel(panel) if line.points(metric.name)]
    for number, line in enumerate(lines):
        values, estimates = zip(*line.points(metric.name), strict=True)
        dodge, aside = 0.0, 0.0
        if not x_axis.numeric and len(lines) > 1:
            dodge = _DODGE * (number / (len(lines) - 1) - 0.5)
        if x_axis.numeric and len(x_axis.values) < _BANDS and not view.has_scale:
            aside = (view.number(line.value) - (many - 1) / 2) * min(_ASIDE, _MAX_ASIDE / many)
        where = offset_copy(axes.transData, layout.figure, x=aside, units="points")
        xs = [x_axis.position(value) + dodge for value in values]
        look = view.look(line)
        axes.plot(xs, [estimate.value for estimate in estimates], **look, transform=where)
        if view.has_intervals and not view.has_scale:
            draw_intervals(axes, xs, estimates, look["color"], where)
        if view.labelled:
            name = layout.spell(clip(value_name(line.value), _NAME))
            label_end(axes, xs[-1], estimates[-1].value, name, look["color"])


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
