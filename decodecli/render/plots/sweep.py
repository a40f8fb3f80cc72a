"""The pictures of a sweep in a folder: each number over the first axis, maps of two, the plane of
quality and diversity.

Lines are in viridis for values that are numbers, in Okabe and Ito's colours otherwise, each with its
own dashes and marks. The same summary gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from decodecli.errors import UsageError, WriteError
from decodecli.records.sweep import SweepSummary
from decodecli.render.plots.figure_file import check_matplotlib, save_figure
from decodecli.render.plots.sweep_curves import metric_page, page_figure, pages
from decodecli.render.plots.sweep_data import METRIC
from decodecli.render.plots.sweep_maps import has_map, map_figure, map_metrics
from decodecli.render.plots.sweep_plane import has_plane, plane_figure
from decodecli.render.plots.sweep_view import SweepView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_MAPS = 6


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
    view = SweepView.of(summary)
    for page in pages(view):
        yield page.name, partial(page_figure, view, page)
    if has_map(view):
        panels = [panel for panel in view.panels if map_metrics(view, panel)]
        for number, panel in enumerate(panels[:_MAX_MAPS]):
            yield _map_name(panel.name, number), partial(map_figure, view, panel)
    if has_plane(view):
        yield "quality-diversity", partial(plane_figure, view)


def draw_metric(summary: SweepSummary, path: Path | str, name: str) -> None:
    """One number of `METRICS` over the first axis, large: a panel for each task or prompt.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing; nothing varies; no cell has the number.
        WriteError: the file cannot be written.
    """
    view, metric = SweepView.of(summary), METRIC[name]
    if view.placed.across is None:
        raise UsageError(
            "nothing varies in these cells", "sweep an option over several values first"
        )
    if metric not in view.metrics:
        known = ", ".join(metric_option(known.name) for known in view.metrics)
        raise UsageError(f"these cells have no {metric.heading}", f"they have {known}")
    save_figure(path, lambda: page_figure(view, metric_page(view, metric)))


def metric_option(name: str) -> str:
    """A number of `METRICS` as an option names it: `self-bleu`."""
    return name.replace("_", "-").removesuffix("-4")


def _map_name(panel: str, number: int) -> str:
    """A file's name: `heatmap`, `heatmap-knowledge`, with a number where letters would not do."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", panel).strip("-.")
    digits = str(number + 1) if number and len(plain) < len(panel) else ""
    return "-".join(part for part in ("heatmap", digits, plain) if part)
