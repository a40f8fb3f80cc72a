"""The README's picture of a sweep: right answers fall and texts grow distinct with temperature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError
from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render.escaping import one_line
from decodecli.render.plots.figure_file import save_figure
from decodecli.render.plots.figure_layout import COLOURS, MARKERS, FigureLayout
from decodecli.render.plots.labels import label_end, spread_labels
from decodecli.render.plots.sweep import draw_intervals
from decodecli.render.plots.sweep_data import facts
from decodecli.render.plots.sweep_view import SweepView, XAxis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "accuracy": "right answers",
    "distinct_1": "distinct-1",
    "self_bleu_4": "1 − self-BLEU-4",
}


def draw_readme(summary: SweepSummary, path: Path | str) -> None:
    """Of tasks with right answers their share; of the others distinct-1, how many of a text's tokens are
    new, and 1 − self-BLEU-4, how unlike the texts of different seeds are.

    Raises:
        UsageError: an unknown suffix, or matplotlib is missing; nothing varies.
        WriteError: the file cannot be written.
    """
    save_figure(path, lambda: readme_figure(summary))


def readme_figure(summary: SweepSummary) -> Figure:
    """The figure that `draw_readme` writes."""
    view = SweepView(summary)
    if view.layout.across is None:
        raise UsageError("nothing varies in this sweep", "give --temperature several values")
    x_axis, lines = XAxis(view), _lines(view)
    layout = FigureLayout(
        (7.6, 3.9),
        f"Right answers and variety over {view.across_name}",
        " · ".join([*facts(summary), "95 % intervals"]),
        list(lines),
    )
    axes = layout.figure.add_subplot()
    for (name, points), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
        xs, estimates = [x_axis.position(x) for x, _ in points], [e for _, e in points]
        values = [estimate.value for estimate in estimates]
        axes.plot(xs, values, color=colour, marker=marker, markersize=5)
        draw_intervals(axes, xs, estimates, colour)
        label_end(axes, xs[-1], values[-1], layout.spell(name), colour)
    x_axis.draw(axes)
    axes.set_xlabel(layout.spell(x_axis.label))
    axes.set_ylim(0, 1.04)
    axes.set_yticks([k / 5 for k in range(6)], [f"{20 * k}%" for k in range(6)])
    layout.freeze()
    x_axis.draw_ticks(layout, axes)
    spread_labels(axes)
    return layout.figure


def _lines(view: SweepView) -> dict[str, list[tuple[Any, Estimate]]]:
    """Names and points of the lines, by task."""
    lines = {}
    for line in view.lines:
        task = f"{one_line(line.panel.group)}: " if line.panel.group else ""
        metrics = ["accuracy"] if line.points("accuracy") else ["distinct_1", "self_bleu_4"]
        for metric in metrics:
            points = line.points(metric)
            if metric == "self_bleu_4":
                points = [(x, _from_one(estimate)) for x, estimate in points]
            if points:
                lines[task + _NAMES[metric]] = points
    return lines


def _from_one(estimate: Estimate) -> Estimate:
    """1 − an estimate."""
    low, high = (None if end is None else 1 - end for end in (estimate.high, estimate.low))
    return Estimate(1 - estimate.value, low, high, estimate.count)
