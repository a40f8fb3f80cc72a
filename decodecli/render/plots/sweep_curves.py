"""A sweep's numbers over its first axis by matplotlib: a line for each value of the next one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from decodecli.records.sweep import Estimate, SweepSummary
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line
from decodecli.render.plots.canvas import (
    DASHES,
    INK,
    MARKS,
    QUIET,
    TOKENS,
    FigureLayout,
    sequential,
)
from decodecli.render.plots.data import log_ticks, tick_name
from decodecli.render.plots.line_labels import label_end, spread_labels
from decodecli.render.plots.sweep_common import common_facts, readable
from decodecli.render.plots.sweep_data import (
    Layout,
    Line,
    Metric,
    axis_name,
    facts,
    frozen,
    is_geometric,
    layout,
    lines,
    numeric,
    setting_name,
    shown_metrics,
    value_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 8  # lines with an interval and a name each; more are told by a scale of colours
MOST_LABELS = 12  # names that one panel has room for
MOST_LINES, MOST_PANELS = 60, 12
_BANDS = 13  # points of a line from which on intervals are bands
_CLOSE = 0.16  # of the axis; neighbours that are nearer may need a second row for their names
_TICKS = 10  # values from which on the axis has round numbers instead
_NAME, _SHORT_NAME = 28, 16  # cells of a panel's name; of a curve's
_GAP = 0.09  # inches from a number under the axis to the next, at the least
_ACROSS = 4  # panels side by side
WIDE = 20  # times the least perplexity, from which on its axis is logarithmic
# What stands on the first page where there are several.
_FIRST = ("mean_logprob", "mean_entropy", "distinct_2", "self_bleu_4", "identical", "accuracy")
_ASIDE, _MOST_ASIDE = (
    2.4,
    9.6,
)  # points from a line's points to the next line's, and of all together
_DODGE = 0.5  # of the space between two values that are no numbers, shared by the lines


Panel = tuple[str | None, dict[str, Any]]  # a group, and values of the axes that make panels


@dataclass(frozen=True)
class Shown:
    """A summary with its layout, lines and panels, and how each is to look.

    values: of the axis with a line for each.
    """

    summary: SweepSummary
    placed: Layout
    lines: tuple[Line, ...]
    panels: tuple[Panel, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, summary: SweepSummary) -> Shown:
        summary = readable(summary)
        placed = layout(summary)
        found = lines(summary, placed)
        panels = {(line.group, frozen(line.panel)): (line.group, line.panel) for line in found}
        values = {frozen({"": line.value}): line.value for line in found}
        ordered = list(values.values())
        if placed.line is not None and numeric(ordered):
            ordered.sort()
        return cls(summary, placed, tuple(found), tuple(panels.values()), tuple(ordered))

    @property
    def note(self) -> str:
        """What is the same in all cells, for a line of the heading."""
        return " · ".join(common_facts(self.summary))

    @property
    def texts(self) -> list[str]:
        """Every name that may be written."""
        found = [panel_name(*panel) for panel in self.panels]
        found += [value_name(value) for value in self.values]
        across = self.placed.across
        return found + [value_name(value) for value in self.summary.axes.get(across or "", ())]

    def of_panel(self, group: str | None, panel: dict[str, Any]) -> list[Line]:
        return [line for line in self.lines if line.group == group and line.panel == panel]

    @property
    def has_intervals(self) -> bool:
        """Whether intervals are told and drawn: nothing is known of a single seed's spread."""
        return len(self.summary.seeds) > 1

    @property
    def single_runs(self) -> bool:
        """Whether every point is one run, whose noise a line would make look like a course."""
        return all(setting.cells == 1 for setting in self.summary.settings)

    def estimates(self, metric: str, panel: Panel) -> list[Estimate]:
        """All that a panel has of a metric."""
        found = [line.points(metric, self.placed.across or "") for line in self.of_panel(*panel)]
        return [estimate for points in found for _, estimate in points]

    def has_curve(self, metric: str) -> bool:
        """Whether some line has two points or more, and values differ."""
        across = self.placed.across
        if across is None:
            return False
        found = [line.points(metric, across) for line in self.lines]
        values = {estimate.value for points in found for _, estimate in points}
        return len(values) > 1 and any(len(points) > 1 for points in found)


def panel_name(group: str | None, panel: dict[str, Any]) -> str:
    """`knowledge · bos on`."""
    parts = [one_line(group)] if group is not None else []
    return clip(" · ".join(parts + ([setting_name(panel)] if panel else [])), _NAME)


class XAxis:
    """The horizontal axis: where a value stands, and what is written under it.

    Values that grow by ratios stand on a log axis, 0 one step before the lowest; those that are no
    numbers stand at equal distances.
    """

    def __init__(self, summary: SweepSummary, placed: Layout) -> None:
        assert placed.across is not None
        self.axis = placed.across
        known = {
            frozen({"": s.setting.get(self.axis)}): s.setting.get(self.axis)
            for s in summary.settings
        }
        self.values: list[Any] = list(known.values())
        self.numeric = numeric(self.values)
        if self.numeric:
            self.values.sort()
        self.log = self.numeric and is_geometric(self.values)
        above = [float(v) for v in self.values if self.log and v > 0]
        steps = max(len(above) - 1, 1)
        self._zero = above[0] / max((above[-1] / above[0]) ** (1 / steps), 1.5) if above else 0.0
        self._along = placed.along

    @property
    def _places(self) -> list[float]:
        return [self.place(value) for value in self.values]

    def place(self, value: Any) -> float:
        if not self.numeric:
            return float(self.values.index(value))
        return self._zero if self.log and value == 0 else float(value)

    @property
    def label(self) -> str:
        name = one_line(self.axis)
        notes = ["log scale"] if self.log else []
        if self.axis == "temperature" and self.numeric and 0 in self.values:
            notes.append("0 is greedy")
        notes += [f"{axis_name(axis)} goes along" for axis in self._along]
        return f"{name} ({', '.join(notes)})" if notes else name

    def draw(self, axes: Axes) -> None:
        """Scale and limits; ticks come when the axes have their size."""
        places = self._places
        if self.log:
            axes.set_xscale("log")
            share = (places[-1] / places[0]) ** 0.06
            axes.set_xlim(places[0] / share, places[-1] * share)
        else:
            room = 0.6 if not self.numeric else 0.06 * (places[-1] - places[0])
            axes.set_xlim(places[0] - room, places[-1] + room)
        axes.minorticks_off()
        names = ["0\n0" if self._crowded(places) else "0"] * 2
        axes.set_xticks([places[0], places[-1]], names)  # room for what comes
        axes.grid(axis="y")
        axes.tick_params(length=0, axis="y")
        axes.tick_params(length=2.5, axis="x")

    def _crowded(self, places: Sequence[float]) -> bool:
        """Whether names of neighbours may not stand beside one another."""
        if not self.numeric or len(places) > _TICKS or len(places) < 3:
            return False
        at = [math.log(place) for place in places] if self.log else list(places)
        return min(b - a for a, b in itertools.pairwise(at)) < _CLOSE * (at[-1] - at[0])

    def ticks(self, sheet: FigureLayout, axes: Axes) -> None:
        """The values themselves where they are few, a second row below taking what the first has no room
        for; else round numbers; none over another."""
        box = axes.get_window_extent()
        inches = box.width / sheet.figure.dpi
        places, names = self._wanted(axes)
        names = [sheet.spell(name) for name in names]
        if not self.numeric:
            room = 0.9 * inches / max(len(names), 1)
            names = [sheet.fitted(name, 8, max(room, 0.3)) for name in names]
        ends = axes.transData.transform([(place, 0) for place in places])[:, 0] / sheet.figure.dpi
        rows: list[list[int]] = [[], []] if self._crowded(self._places) else [[]]
        for k in _important(len(places)):
            half = sheet.text_width(names[k], 8) / 2 + _GAP
            for row in rows:
                if all(
                    abs(ends[k] - ends[o]) > half + sheet.text_width(names[o], 8) / 2 for o in row
                ):
                    row.append(k)
                    break
        kept = sorted((k, "\n" * below) for below, row in enumerate(rows) for k in row)
        axes.set_xticks([places[k] for k, _ in kept], [start + names[k] for k, start in kept])

    def _wanted(self, axes: Axes) -> tuple[list[float], list[str]]:
        if not self.numeric or len(self.values) <= _TICKS:
            return [self.place(v) for v in self.values], [value_name(v) for v in self.values]
        if self.log:
            above = [float(v) for v in self.values if v > 0]
            round_ones = log_ticks(above[0], above[-1]) or [above[0], above[-1]]
            zero = [(self._zero, "0")] if len(above) < len(self.values) else []
            pairs = zero + [(place, tick_name(place)) for place in round_ones]
            return [place for place, _ in pairs], [name for _, name in pairs]
        from matplotlib.ticker import MaxNLocator

        low, high = float(self.values[0]), float(self.values[-1])
        found = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        inside = [float(f) for f in found if low - 1e-9 <= f <= high + 1e-9]
        return inside, [tick_name(round(place, 12)) for place in inside]


def _important(count: int) -> list[int]:
    """The ends first, then from left to right."""
    return list(dict.fromkeys([0, count - 1, *range(count)])) if count else []


@dataclass(frozen=True)
class LineStyle:
    """How the line of each value is drawn; `scale` where a scale of colours tells the values."""

    colours: tuple[str, ...]
    values: tuple[Any, ...]
    scale: bool
    joined: bool  # whether a line leads from point to point
    places: dict[Any, int]

    @classmethod
    def of(cls, shown: Shown) -> LineStyle:
        values, many = shown.values, len(shown.values)
        ordered = shown.placed.line is not None and numeric(values)
        by_order = (ordered and many > 1) or many > len(TOKENS)
        colours = sequential(many) if by_order else list(TOKENS[:many])
        joined = not shown.single_runs and numeric(
            shown.summary.axes.get(shown.placed.across or "", ())
        )
        places = {frozen({"": value}): place for place, value in enumerate(values)}
        return cls(tuple(colours), values, ordered and many > NAMED, joined, places)

    def place(self, value: Any) -> int:
        return self.places[frozen({"": value})]

    def of_line(self, line: Line) -> dict[str, Any]:
        place = self.place(line.value)
        look: dict[str, Any] = {"color": self.colours[place]}
        dashes = DASHES[(place // len(TOKENS) if self.many_names else place) % len(DASHES)]
        dashes = ("-" if self.scale else dashes) if self.joined else ""
        if self.scale:
            marks = {} if self.joined else {"marker": ".", "markersize": 4.0}
            return look | {"linewidth": 1.0, "linestyle": dashes} | marks
        return look | {"linestyle": dashes, "marker": MARKS[place % len(MARKS)], "markersize": 4.5}

    @property
    def labelled(self) -> bool:
        """Whether each line's name stands at its end."""
        return not self.scale and 1 < len(self.values) <= MOST_LABELS

    @property
    def many_names(self) -> bool:
        return len(self.values) > len(DASHES)


@dataclass(frozen=True)
class Page:
    """One picture of curves: a place for each metric and panel, row by row; None stays empty."""

    name: str
    rows: tuple[tuple[tuple[Metric, Panel] | None, ...], ...]
    title: str = ""
    size: tuple[float, float] | None = None  # inches of each place


def pages(shown: Shown) -> list[Page]:
    """Every metric that has a curve. One panel: all on one page. Several: a row a metric, a column a
    panel, the numbers that say most on the first page."""
    metrics = [m for m in shown_metrics(shown.summary) if shown.has_curve(m.name)]
    if not metrics:
        return []
    if len(shown.panels) == 1:
        wide = next(n for n in (1, 2, 3, 4) if n == 4 or n * n >= len(metrics))
        places: list[tuple[Metric, Panel] | None] = [(m, shown.panels[0]) for m in metrics]
        places += [None] * (-len(places) % wide)
        rows = [tuple(places[k : k + wide]) for k in range(0, len(places), wide)]
        return [Page("metrics", tuple(rows))]
    found: list[Page] = []
    first = [metric for metric in metrics if metric.name in _FIRST]
    others = [metric for metric in metrics if metric.name not in _FIRST]
    for start in range(0, min(len(shown.panels), MOST_PANELS), _ACROSS):
        panels = shown.panels[start : min(start + _ACROSS, MOST_PANELS)]
        for part in (first, others):
            if part:
                name = "metrics" + (f"-{len(found) + 1}" if found else "")
                by_metric = [tuple((metric, panel) for panel in panels) for metric in part]
                found.append(Page(name, tuple(by_metric)))
    return found


def metric_page(shown: Shown, metric: Metric) -> Page:
    """One number, large: a place for each panel."""
    panels = shown.panels[:MOST_PANELS]
    wide = min(len(panels), 1 if len(panels) == 1 else 2 if len(panels) < 5 else 3)
    places: list[tuple[Metric, Panel] | None] = [(metric, panel) for panel in panels]
    places += [None] * (-len(places) % wide)
    rows = tuple(tuple(places[k : k + wide]) for k in range(0, len(places), wide))
    title = (
        f"{metric.title[:1].upper()}{metric.title[1:]} over {one_line(shown.placed.across or '')}"
    )
    return Page(metric.name, rows, title, (6.6, 4.2) if len(panels) == 1 else (3.6, 2.9))


def page_figure(shown: Shown, page: Page) -> Figure:
    """A page of `pages`."""
    across, looks = XAxis(shown.summary, shown.placed), LineStyle.of(shown)
    rows, columns = len(page.rows), len(page.rows[0])
    several = len(shown.panels) > 1
    each = page.size or ((5.0, 3.4) if rows * columns == 1 else (2.7, 2.0))
    names, beside = 0.0, 1.3 if len(shown.values) > 1 and not looks.labelled else 0.0
    if looks.labelled:
        names = 0.08 * min(max(len(value_name(value)) for value in shown.values), _SHORT_NAME) + 0.1
    known = any(
        estimate.low is not None
        for row in page.rows
        for place in row
        if place is not None
        for estimate in shown.estimates(place[0].name, place[1])
    )
    told = ["95 % intervals"] if known and shown.has_intervals and not looks.scale else []
    if len(shown.values) > 1:
        told.append(
            f"a {'curve' if looks.joined else 'colour'} for each {one_line(shown.placed.line or '')}"
        )
    sheet = FigureLayout(
        (0.3 + beside + max((each[0] + names) * columns, 4.0), 0.9 + each[1] * rows),
        page.title or f"The sweep's numbers over {one_line(across.axis)}",
        subtitle(shown, shown.panels, *told),
        shown.texts,
        shown.note,
    )
    grid = sheet.figure.subplots(
        rows, columns, sharex=True, sharey="row" if several else False, squeeze=False
    )
    headed: list[Panel] = []  # panels whose name stands above a column already
    for places, row in zip(page.rows, grid, strict=True):
        estimates: list[Estimate] = []
        for place, axes in zip(places, row, strict=True):
            if place is None:
                axes.set_visible(False)
                continue
            metric, panel = place
            found = shown.estimates(metric.name, panel)
            if not found:
                axes.set_visible(False)
            estimates = [*estimates, *found] if several else found
            _curves(sheet, shown, metric, panel, axes, across, looks)
            vertical(axes, metric, estimates)  # of a row's last panel: of all
            title = panel_name(*panel) if panel not in headed else ""
            headed += [panel] if found else []
            title = title if several else "" if page.title else metric.title
            axes.set_title(sheet.spell(title), fontsize=9, loc="left", color=INK)
        seen = [axes for axes in row if axes.get_visible()]
        if several and places[0] is not None and seen:
            seen[0].set_ylabel(places[0][0].title.replace(" (", "\n("))
            seen[0].tick_params(labelleft=True)
    _label_across(sheet, grid, across)
    drawn = [axes for axes in grid.flat if axes.get_visible()]
    if not looks.labelled:
        right = [axes for axes in grid[:, -1] if axes.get_visible()]
        legend(sheet, (right or drawn)[0], shown, looks)
    sheet.freeze()
    across.ticks(sheet, drawn[0])
    for axes in drawn:
        spread_labels(axes)
    return sheet.figure


def _label_across(sheet: FigureLayout, grid: Any, across: XAxis) -> None:
    """Names and numbers of the axis across under the lowest axes of each column only."""
    for column in grid.T:
        seen = [axes for axes in column if axes.get_visible()]
        for axes in seen:
            axes.tick_params(labelbottom=axes is seen[-1])
        if seen:
            seen[-1].set_xlabel(sheet.spell(across.label))


def subtitle(shown: Shown, panels: Sequence[Panel], *more: str, most: int = MOST_PANELS) -> str:
    """The facts, and what could not all be drawn."""
    parts = [*facts(shown.summary), *more]
    if len(panels) > most:
        parts.append(f"the first {most} of {numbers.count(len(panels))} panels")
    if len(shown.values) > MOST_LINES:
        parts.append(f"{MOST_LINES} of {numbers.count(len(shown.values))} lines")
    return " · ".join(parts)


def drawn_lines(found: Sequence[Line]) -> list[Line]:
    """All of them, or so many at equal distances, the first and the last among them."""
    if len(found) <= MOST_LINES:
        return list(found)
    return [found[round(k * (len(found) - 1) / (MOST_LINES - 1))] for k in range(MOST_LINES)]


def _curves(
    sheet: FigureLayout,
    shown: Shown,
    metric: Metric,
    panel: Panel,
    axes: Axes,
    across: XAxis,
    looks: LineStyle,
) -> None:
    """The panel's lines with their intervals, and the scale across."""
    across.draw(axes)
    found = [line for line in shown.of_panel(*panel) if line.points(metric.name, across.axis)]
    found.sort(key=lambda line: looks.place(line.value))
    found = drawn_lines(found)
    for place, line in enumerate(found):
        points = line.points(metric.name, across.axis)
        aside = 0.0
        if not across.numeric and len(found) > 1:
            aside = _DODGE * (place / (len(found) - 1) - 0.5)
        xs = [across.place(value) + aside for value, _ in points]
        ys = [estimate.value for _, estimate in points]
        look = looks.of_line(line) | {"transform": _aside(axes, looks, line, across)}
        axes.plot(xs, ys, **look)
        if looks.scale:
            continue
        if shown.has_intervals:
            estimates = [estimate for _, estimate in points]
            intervals(axes, xs, estimates, look["color"], look["transform"])
        if looks.labelled:
            name = sheet.spell(clip(value_name(line.value), _SHORT_NAME))
            label_end(axes, xs[-1], ys[-1], name, look["color"])


def _aside(axes: Axes, looks: LineStyle, line: Line, across: XAxis) -> Any:
    """Where a line's points are drawn: a little beside one another, so that intervals are told apart."""
    from matplotlib.transforms import offset_copy

    many = len(looks.values)
    if looks.scale or not across.numeric or len(across.values) >= _BANDS:
        return axes.transData
    step = min(_ASIDE, _MOST_ASIDE / many)
    points = (looks.place(line.value) - (many - 1) / 2) * step
    return offset_copy(axes.transData, axes.get_figure(root=True), x=points, units="points")


def intervals(
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
    places, low, high = zip(*known, strict=True)
    if len(known) >= _BANDS:
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        return
    where = {} if transform is None else {"transform": transform}
    axes.vlines(places, low, high, color=colour, linewidth=1.0, alpha=0.75, **where)


def vertical(axes: Axes, metric: Metric, estimates: Sequence[Estimate]) -> None:
    """The metric's axis: percentages from 0 for a share, a log axis for a wide perplexity."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if not estimates:
        return
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]
    low, high = min(ends), max(ends)
    if metric.name == "perplexity" and min(e.value for e in estimates) * WIDE < high:
        low = min(end for end in ends if end > 0)
        axes.set_yscale("log")
        places = log_ticks(low, high, 5) or [low, high]
        axes.set_yticks(places, [tick_name(place) for place in places])
        axes.minorticks_off()
        axes.set_ylim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
        return
    if metric.share:
        low, high = 0.0, max(high, 0.01)
    room = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - (room if low else 0.02 * (high - low)), high + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))

    def name(value: float, _: int) -> str:
        text = f"{100 * value:.6g}%" if metric.share else f"{value:.6g}"
        return text.replace("-", "−")

    axes.yaxis.set_major_formatter(FuncFormatter(name))


def legend(sheet: FigureLayout, axes: Axes, shown: Shown, looks: LineStyle) -> None:
    """Names of the lines beside the axes, or the scale of their colours."""
    if len(shown.values) < 2:
        return
    title = one_line(shown.placed.line or "")
    if looks.scale:
        _colour_bar(sheet, shown, title)
        return
    one = {frozen({"": line.value}): line for line in shown.lines}
    ordered = sorted(one.values(), key=lambda line: looks.place(line.value))[:MOST_LINES]
    handles = [axes.plot([], [], **looks.of_line(line))[0] for line in ordered]
    names = [sheet.spell(clip(value_name(line.value), _NAME)) for line in ordered]
    sheet.side_legend(axes, handles, names)
    found = axes.get_legend()
    if found is not None:
        from matplotlib.font_manager import FontProperties

        found.set_title(sheet.spell(title), prop=FontProperties(size=8))
        found.set_alignment("left")


def _colour_bar(sheet: FigureLayout, shown: Shown, title: str) -> None:
    """A bar of the lines' colours; their values at equal distances, as the colours are."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    many = len(shown.values)
    colours = ListedColormap(sequential(many))
    scale = ScalarMappable(Normalize(-0.5, many - 0.5), colours)
    shown_axes = [axes for axes in sheet.figure.axes if axes.get_visible()]
    bar = sheet.figure.colorbar(scale, ax=shown_axes, pad=0.02, aspect=28)
    places = sorted({round(k * (many - 1) / 6) for k in range(7)})
    bar.set_ticks(places, labels=[value_name(shown.values[place]) for place in places])
    bar.ax.tick_params(length=0, labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label(sheet.spell(title), fontsize=8, color=QUIET)
