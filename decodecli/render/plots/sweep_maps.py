"""Two pictures of a sweep as a plane: heat maps over two axes, and quality against diversity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.records.sweep import SettingSummary
from decodecli.render.escaping import one_line
from decodecli.render.number_format import scientific
from decodecli.render.plots.canvas import INK, QUIET, SMALLEST, FigureLayout, axes_inches
from decodecli.render.plots.data import log_ticks, tick_name
from decodecli.render.plots.sweep_curves import (
    NAMED,
    WIDE,
    LineStyle,
    Panel,
    Shown,
    XAxis,
    drawn_lines,
    legend,
    panel_name,
    subtitle,
)
from decodecli.render.plots.sweep_data import (
    METRIC,
    Line,
    Metric,
    numeric,
    shown_metrics,
    value_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Box = tuple[float, float, float, float]  # left, lower, right, upper, in pixels
Spot = tuple[float, float, SettingSummary]  # diversity, quality, and whose they are
FEWEST = 3  # observations of an interval that is drawn in the plane
LEAST = 3  # values of each axis for a heat map
_MAP = (2.1, 1.9)  # inches of a heat map, more for many values
_CELL = 0.36  # inches of a cell that can hold its number
_MOST_PLANES = 4  # panels side by side
_UP_TO_ONE = ("distinct_1", "distinct_2", "distinct_3", "self_bleu_4")
_GREY = "0.9"  # where nothing is known


def has_map(shown: Shown) -> bool:
    """Whether two axes of numbers have values enough to span a map."""
    placed, axes = shown.placed, shown.summary.axes
    if placed.across is None or placed.line is None:
        return False
    pair = [axes[placed.across], axes[placed.line]]
    return all(numeric(values) and len(values) >= LEAST for values in pair)


def map_metrics(shown: Shown, panel: Panel) -> list[Metric]:
    """The metrics of which a panel has different values."""
    settings = [setting for line in shown.of_panel(*panel) for setting in line.settings]
    return [
        metric
        for metric in shown_metrics(shown.summary)
        if len({s.numbers[metric.name].value for s in settings if metric.name in s.numbers}) > 1
    ]


def map_figure(shown: Shown, panel: Panel) -> Figure:
    """A heat map a metric over the first two axes, for one task and value of what is left.

    Values stand at equal distances. Colours start at nothing and shares end at everything, so that what
    hardly differs hardly looks different.
    """
    found, metrics = shown.of_panel(*panel), map_metrics(shown, panel)
    across = XAxis(shown.summary, shown.placed)
    many = len(across.values), len(shown.values)
    each = max(_MAP[0], min(0.4 * many[0], 4.0)), max(_MAP[1], min(0.3 * many[1], 3.6))
    columns = min(len(metrics), 4 if each[0] < 3 else 3)
    told = each[0] / many[0] >= _CELL and each[1] / many[1] >= _CELL / 2  # by numbers in the cells
    rows = math.ceil(len(metrics) / columns)
    name = panel_name(*panel)
    sheet = FigureLayout(
        (max(columns * (each[0] + 0.95) + 0.4, 4.6), rows * (each[1] + 0.6) + 0.9),
        f"{one_line(across.axis)} and {one_line(shown.placed.line or '')}"
        + (name and f" · {name}"),
        subtitle(shown, ()),
        shown.texts,
        shown.note,
    )
    grid = sheet.figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(metrics):
            axes.set_visible(False)
            continue
        image = _map(axes, shown, across, found, metrics[place])
        axes.set_xlabel(
            sheet.spell(one_line(across.axis)) if place + columns >= len(metrics) else ""
        )
        axes.set_ylabel(
            sheet.spell(one_line(shown.placed.line or "")) if not place % columns else ""
        )
        if told:
            _map_numbers(axes, image, metrics[place], each[0] / many[0])
        _scale(sheet, axes, image, metrics[place])
    sheet.settle()
    for axes in grid.flat:
        _map_ticks(sheet, axes, shown, across)
    return sheet.figure  # names of values may be wider than the numbers that it was laid out with


def _map(
    axes: Axes, shown: Shown, across: XAxis, found: Sequence[Line], metric: Metric
) -> AxesImage:
    import numpy as np

    values = np.full((len(shown.values), len(across.values)), np.nan)
    for line in found:
        row = shown.values.index(line.value)
        for x, estimate in line.points(metric.name, across.axis):
            values[row, across.values.index(x)] = estimate.value
    axes.set_facecolor(_GREY)
    axes.set_title(metric.title.split(" (")[0], fontsize=9, loc="left", color=INK)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return axes.imshow(
        np.ma.masked_invalid(values),
        norm=_colours(metric, values[np.isfinite(values)]),
        cmap="viridis",
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )


def _colours(metric: Metric, values: Any) -> Normalize:
    """From nothing to everything, or to the furthest value; a wide perplexity by its logarithm."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(values.min()), float(values.max())
    if metric.name == "perplexity":
        return LogNorm(1, high) if high > WIDE * low else Normalize(1, max(high, 1.1))
    if metric.name == "mean_logprob":
        return Normalize(min(low, -0.1), 0)
    return Normalize(0, 1 if metric.share or metric.name in _UP_TO_ONE else max(high, 0.1))


def _scale(sheet: FigureLayout, axes: Axes, image: AxesImage, metric: Metric) -> None:
    """A bar of the colours with their numbers."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    bar = sheet.figure.colorbar(image, ax=axes, pad=0.03, aspect=16)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7)
    low, high = image.get_clim()
    if isinstance(image.norm, LogNorm):
        places = log_ticks(low, high, 4) or [low, high]
    else:
        found = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        places = [place for place in found if low <= place <= high]
    names = [f"{100 * v:.6g}%" if metric.share else tick_name(v) for v in places]
    bar.set_ticks(places, labels=[name.replace("-", "−") for name in names])
    bar.ax.minorticks_off()


def _map_ticks(sheet: FigureLayout, axes: Axes, shown: Shown, across: XAxis) -> None:
    """Values at both axes, so many as have room."""
    wide, high = axes_inches(axes)
    names = [value_name(value) for value in across.values]
    room = max(sheet.text_width(name, 8) for name in names) + 0.06
    step = max(1, math.ceil(room / (wide / len(names))))
    axes.set_xticks(range(0, len(names), step), names[::step])
    step = max(1, math.ceil(0.15 / (high / len(shown.values))))
    axes.set_yticks(
        range(0, len(shown.values), step), [value_name(v) for v in shown.values[::step]]
    )


def _map_numbers(axes: Axes, image: AxesImage, metric: Metric, inches: float) -> None:
    """The value in each cell, `inches` wide: dark on the light half of the scale."""
    import numpy as np

    values: Any = np.ma.asarray(image.get_array())
    place: Any = image.norm
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        value = float(values[row, column])
        text = f"{100 * value:.0f}%" if metric.share else metric.text(value)
        if metric.decimals == 3:
            text = f"{value:.2f}"
        elif abs(value) >= 1000:
            text = f"{value:,.0f}" if abs(value) < 10_000 else scientific(value)
        axes.text(
            column,
            row,
            text,
            fontsize=min(7.5, max(18 * inches, SMALLEST)),
            color="white" if place(value) < 0.6 else "black",
            ha="center",
            va="center",
        )


def diversity(shown: Shown) -> tuple[str, str] | None:
    """What stands for diversity: 1 − self-BLEU where it is known, else distinct-2; and its name."""
    had = {metric.name for metric in shown_metrics(shown.summary)}
    if "self_bleu_4" in had:
        return "self_bleu_4", "1 − self-BLEU-4: how unlike one another"
    if "distinct_2" in had:
        return "distinct_2", "distinct-2: how little is said twice"
    return None


def has_plane(shown: Shown) -> bool:
    found = diversity(shown)
    return found is not None and any(
        len(_spots(line, metric, found[0])) > 1
        for line in shown.lines
        for metric in _qualities(shown)
    )


def _qualities(shown: Shown) -> list[Metric]:
    had = [metric.name for metric in shown_metrics(shown.summary)]
    return [METRIC[name] for name in ("mean_logprob", "accuracy") if name in had]


def plane_figure(shown: Shown) -> Figure:
    """Quality over diversity: a point a setting with its value of the axis across beside it, joined in
    the order of that axis, a colour for each value of the next axis."""
    against = diversity(shown)
    assert against is not None
    metrics, looks = _qualities(shown), LineStyle.of(shown)
    panels = [
        panel
        for panel in shown.panels
        if any(_spots(line, m, against[0]) for line in shown.of_panel(*panel) for m in metrics)
    ]
    kept = panels[:_MOST_PLANES]
    wide, high = (4.8, 3.6) if len(kept) == 1 else (3.6, 2.9)
    names = 1.3 if len(shown.values) > 1 else 0.0
    faint = f"faint: 95 % intervals, from {FEWEST} observations on" if shown.has_intervals else ""
    sheet = FigureLayout(
        (0.4 + names + wide * len(kept), 0.9 + high * len(metrics)),
        "Quality and diversity",
        subtitle(
            shown, panels, f"labelled by {one_line(shown.placed.across or '')}", most=len(kept)
        ),
        shown.texts,
        " · ".join(note for note in (shown.note, faint) if note),
    )
    grid = sheet.figure.subplots(len(metrics), len(kept), sharex=True, sharey="row", squeeze=False)
    for metric, row in zip(metrics, grid, strict=True):
        for panel, axes in zip(kept, row, strict=True):
            _plane(shown, panel, metric, against[0], axes, looks)
        seen = [axes for axes in row if axes.get_visible()]
        if seen:
            seen[0].set_ylabel(metric.title)
            seen[0].tick_params(labelleft=True)
    for panel, column in zip(kept, grid.T, strict=True):
        seen = [axes for axes in column if axes.get_visible()]
        seen[0].set_title(sheet.spell(panel_name(*panel)), fontsize=9, loc="left", color=INK)
        seen[-1].set_xlabel(against[1])
        seen[-1].tick_params(labelbottom=True)
    legend(sheet, next(axes for axes in grid[:, -1] if axes.get_visible()), shown, looks)
    sheet.freeze()
    for metric, row in zip(metrics, grid, strict=True):
        for panel, axes in zip(kept, row, strict=True):
            _names(sheet, axes, _named(shown, panel, metric, against[0], looks), shown)
    return sheet.figure


def _named(
    shown: Shown, panel: Panel, metric: Metric, against: str, looks: LineStyle
) -> list[Spot]:
    """The points that get a name: all, or where there are many lines the first one's and the last's."""
    found = drawn_lines(shown.of_panel(*panel))
    if looks.scale:
        found = [found[0], found[-1]] if len(found) > 1 else found
    return [spot for line in found for spot in _spots(line, metric, against)]


def _spots(line: Line, metric: Metric, against: str) -> list[Spot]:
    """Diversity and quality of the settings that have both."""
    found = []
    for setting in line.settings:
        if metric.name in setting.numbers and against in setting.numbers:
            x = setting.numbers[against].value
            x = 1 - x if against == "self_bleu_4" else x
            found.append((x, setting.numbers[metric.name].value, setting))
    return found


def _plane(
    shown: Shown, panel: Panel, metric: Metric, against: str, axes: Axes, looks: LineStyle
) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = drawn_lines(shown.of_panel(*panel))
    if not any(_spots(line, metric, against) for line in drawn):
        axes.set_visible(False)
    for line in drawn:
        spots = _spots(line, metric, against)
        look = looks.of_line(line) | {"linewidth": 0.9, "marker": "o", "markersize": 4.5}
        if not looks.scale:
            look["marker"] = looks.of_line(line)["marker"]
            if shown.has_intervals:
                _crosses(axes, spots, metric, against, look["color"])
        else:
            look["markersize"] = 2.5
        axes.plot([x for x, _, _ in spots], [y for _, y, _ in spots], **look)
    axes.margins(0.12)
    axes.grid(axis="both")
    axes.tick_params(length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}".replace("-", "−"))
    share = metric.share
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{100 * value:.6g}%" if share else f"{value:.6g}".replace("-", "−")
    )


def _crosses(
    axes: Axes,
    spots: Sequence[Spot],
    metric: Metric,
    against: str,
    colour: str,
) -> None:
    """The 95 % intervals of both numbers, faint; of two observations one would span the picture."""
    for x, y, setting in spots:
        ups, across = setting.numbers[metric.name], setting.numbers[against]
        if ups.low is not None and ups.high is not None and ups.count >= FEWEST:
            axes.vlines(x, ups.low, ups.high, color=colour, linewidth=0.8, alpha=0.35)
        if across.low is not None and across.high is not None and across.count >= FEWEST:
            ends = [across.low, across.high]
            ends = [1 - end for end in ends] if against == "self_bleu_4" else ends
            axes.hlines(y, min(ends), max(ends), color=colour, linewidth=0.8, alpha=0.35)


def _names(
    sheet: FigureLayout,
    axes: Axes,
    spots: Sequence[Spot],
    shown: Shown,
) -> None:
    """The value of the axis across beside each point, where it covers no point and no other name, and
    no line if that can be."""
    if not spots:
        return
    told: list[tuple[str, float, float]] = []
    pixels = sheet.figure.dpi / 72
    places = axes.transData.transform([(x, y) for x, y, _ in spots])
    segments = [
        pair
        for line in axes.lines
        for pair in itertools.pairwise(axes.transData.transform(line.get_xydata()))
    ]
    taken = [(x - 3 * pixels, y - 3 * pixels, x + 3 * pixels, y + 3 * pixels) for x, y in places]
    frame = axes.get_window_extent()
    points = 8 if len(spots) <= NAMED * 4 else 6.5
    for (x, y, setting), (left, below) in zip(spots, places, strict=True):
        name = sheet.spell(value_name(setting.setting.get(shown.placed.across or "")))
        if any(name == n and math.dist((left, below), at) < 5 * pixels for n, *at in told):
            continue  # the same name at the same place
        told.append((name, left, below))
        wide, high = sheet.text_width(name, points) * 72 + 1, points * 1.15
        free: list[tuple[int, Box, tuple[float, float]]] = []
        for dx, dy in _around(wide, high):
            box = (
                left + dx * pixels,
                below + dy * pixels,
                left + (dx + wide) * pixels,
                below + (dy + high) * pixels,
            )
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] <= frame.y1
            if inside and box[3] <= frame.y1 and not any(_overlap(box, other) for other in taken):
                free.append((sum(_crossed(box, *segment) for segment in segments), box, (dx, dy)))
        if not free:
            continue
        _, box, place = min(free, key=lambda found: found[0])
        taken.append(box)
        axes.annotate(
            name,
            (x, y),
            place,
            textcoords="offset points",
            fontsize=points,
            color=QUIET,
            in_layout=False,
            zorder=4,
        )


def _around(wide: float, high: float) -> list[tuple[float, float]]:
    """Lower left corners of a name around its point, in points, the best first."""
    gap = 5.0
    return [
        (gap, gap / 2),
        (gap, -high - gap / 2),
        (-wide - gap, gap / 2),
        (-wide - gap, -high - gap / 2),
        (-wide / 2, gap),
        (-wide / 2, -high - gap),
        (gap, -high / 2),
        (-wide - gap, -high / 2),
    ]


def _crossed(box: Box, one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the line from `one` to `other` runs through the box (Liang and Barsky 1984)."""
    start, end = 0.0, 1.0
    for axis in (0, 1):
        way = other[axis] - one[axis]
        ends = [box[axis] - one[axis], box[axis + 2] - one[axis]]
        if abs(way) < 1e-9:
            if ends[0] > 0 or ends[1] < 0:
                return False
            continue
        near, far = sorted(found / way for found in ends)
        start, end = max(start, near), min(end, far)
    return start <= end


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
