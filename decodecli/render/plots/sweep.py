"""The pictures of a sweep in a folder: each number over the first axis, maps of two, the plane of
quality and diversity; and the README's.

Lines are in viridis for values that are numbers, in Okabe and Ito's colours otherwise, each with its
own dashes and marks. The same summary gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError, WriteError
from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render.escaping import one_line
from decodecli.render.plots import distribution as plots
from decodecli.render.plots.canvas import MARKS, TOKENS, FigureLayout
from decodecli.render.plots.sweep_curves import (
    Shown,
    XAxis,
    intervals,
    metric_page,
    page_figure,
    pages,
    panel_name,
)
from decodecli.render.plots.sweep_data import METRIC, facts, layout, shown_metrics
from decodecli.render.plots.sweep_maps import (
    has_map,
    has_plane,
    map_figure,
    map_metrics,
    plane_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_MOST_MAPS = 6


def draw_sweep(summary: SweepSummary, folder: Path | str, format: str = "png") -> list[Path]:
    """Write every picture that the summary gives, `NAME.FORMAT`; returns their paths in order.

    A number that has one value only, or an axis that does, is not drawn. `folder` is made.

    Raises:
        UsageError: matplotlib is missing.
        WriteError: a file cannot be written.
    """
    check_matplotlib()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot make {folder}: {error.strerror}", "choose another folder"
        ) from error
    found = []
    for name, make in pictures(summary):
        path = folder / f"{name}.{format}"
        plots.save_figure(str(path), make)
        found.append(path)
    return found


def check_matplotlib() -> None:
    """Raises `UsageError` where pictures cannot be drawn."""
    try:
        plots.import_matplotlib()
    except ImportError:
        raise UsageError(
            "the plots need matplotlib, which is not installed",
            "pip install 'decodecli[plots]', or --no-plots",
        ) from None


def pictures(summary: SweepSummary) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Names and makers of the pictures, to be called within `plots.style()`."""
    shown = Shown.of(summary)
    for page in pages(shown):
        yield page.name, partial(page_figure, shown, page)
    if has_map(shown):
        panels = [panel for panel in shown.panels if map_metrics(shown, panel)]
        for place, panel in enumerate(panels[:_MOST_MAPS]):
            yield _map_name(panel_name(*panel), place), partial(map_figure, shown, panel)
    if has_plane(shown):
        yield "quality-diversity", partial(plane_figure, shown)


def draw_metric(summary: SweepSummary, path: Path | str, name: str) -> None:
    """One number of `METRICS` over the first axis, large: a panel for each task or prompt.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing; nothing varies; no cell has the number.
        WriteError: the file cannot be written.
    """
    check_matplotlib()
    shown = Shown.of(summary)
    if shown.placed.across is None:
        raise UsageError(
            "nothing varies in these cells", "sweep an option over several values first"
        )
    metric = METRIC[name]
    if metric not in shown_metrics(summary):
        had = ", ".join(metric_option(metric.name) for metric in shown_metrics(summary))
        raise UsageError(f"these cells have no {metric.heading}", f"they have {had}")
    plots.save_figure(str(path), lambda: page_figure(shown, metric_page(shown, metric)))


def metric_option(name: str) -> str:
    """A number of `METRICS` as an option names it: `self-bleu`."""
    return name.replace("_", "-").removesuffix("-4")


def _map_name(panel: str, place: int) -> str:
    """A file's name: `heatmap`, `heatmap-knowledge`, with a number where letters would not do."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", panel).strip("-.")
    number = str(place + 1) if place and len(plain) < len(panel) else ""
    return "-".join(part for part in ("heatmap", number, plain) if part)


def draw_readme(summary: SweepSummary, path: Path | str) -> None:
    """What temperature does, in one picture: right answers fall, texts grow distinct.

    Of tasks with right answers their share; of the others distinct-1, how many of a text's tokens are
    new, and 1 − self-BLEU-4, how unlike the texts of different seeds are.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing; nothing varies.
        WriteError: the file cannot be written.
    """
    check_matplotlib()
    plots.save_figure(str(path), lambda: readme_figure(summary))


def readme_figure(summary: SweepSummary) -> Figure:
    """The figure that `draw_readme` writes."""
    placed = layout(summary)
    if placed.across is None:
        raise UsageError("nothing varies in this sweep", "give --temperature several values")
    across, found = XAxis(summary, placed), _readme_lines(summary, placed.across)
    sheet = FigureLayout(
        (7.6, 3.9),
        f"Right answers and variety over {one_line(across.axis)}",
        " · ".join([*facts(summary), "95 % intervals"]),
        [name for name, _ in found],
    )
    axes = sheet.figure.add_subplot()
    ends = []
    for place, (name, points) in enumerate(found):
        xs, ys = [across.place(x) for x, _ in points], [e.value for _, e in points]
        colour, mark = TOKENS[place % len(TOKENS)], MARKS[place % len(MARKS)]
        axes.plot(xs, ys, color=colour, marker=mark, markersize=5)
        intervals(axes, xs, [e for _, e in points], colour)
        ends.append((xs[-1], ys[-1], sheet.spell(name), colour))
    across.draw(axes)
    axes.set_xlabel(sheet.spell(across.label))
    axes.set_ylim(0, 1.04)
    axes.set_yticks([k / 5 for k in range(6)], [f"{20 * k}%" for k in range(6)])
    _tell_ends(axes, ends)
    sheet.freeze()
    across.ticks(sheet, axes)
    return sheet.figure


def _readme_lines(
    summary: SweepSummary, across: str
) -> list[tuple[str, list[tuple[Any, Estimate]]]]:
    """Names and points of the lines, by task."""
    found = []
    for line in Shown.of(summary).lines:
        task = f"{one_line(line.group)}: " if line.group else ""
        if points := line.points("accuracy", across):
            found.append((f"{task}right answers", points))
            continue
        if points := line.points("distinct_1", across):
            found.append((f"{task}distinct-1", points))
        if points := line.points("self_bleu_4", across):
            found.append((f"{task}1 − self-BLEU-4", [(x, _from_one(e)) for x, e in points]))
    return found


def _from_one(found: Estimate) -> Estimate:
    """1 − an estimate."""
    low, high = (None if end is None else 1 - end for end in (found.high, found.low))
    return Estimate(1 - found.value, low, high, found.count)


def _tell_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Each line's name where it ends, to the right of the axes, no two over one another."""
    below = -1.0
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        y = below = max(y, below + 0.07)
        axes.annotate(
            name,
            (x, y),
            (10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )
