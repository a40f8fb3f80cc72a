"""Pictures of an `EmbedReport` by matplotlib: a heat map of cosines, and the plane as a scatter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError
from decodecli.records.embedding import EmbedReport, Plane
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, model_title, one_line
from decodecli.render.plots import distribution as plots
from decodecli.render.plots.canvas import (
    INK,
    MARKS,
    PITCH,
    QUIET,
    SMALLEST,
    TOKENS,
    FigureLayout,
    axes_inches,
)
from decodecli.render.terminal.embedding_tables import label, plane_sentence, share
from decodecli.render.terminal.step_table import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("auto", "heatmap", "scatter", "both")
_LABEL, _LEGEND = 22, 24  # cells
_PITCH = 0.3  # inches a cell of the heat map, as long as the picture stays below _WIDEST
_WIDEST = 9.0
_BESIDE = 2.0  # inches for names, scale and heading
_OWN = "0.93"  # the diagonal, which says nothing
_SCATTER = (6.4, 5.4)
_ASIDE = 3.5  # points from a point to its name


def draw(
    report: EmbedReport, path: str, kind: str = "auto", *, size: tuple[float, float] | None = None
) -> None:
    """Write one picture to `path`, in the format of its suffix.

    Args:
        kind: "heatmap", "scatter", or "both" side by side, which "auto" is.
        size: inches; None fits the number of vectors. It grows where labels would overlap.

    Raises:
        UsageError: unknown suffix or kind, fewer than two vectors, or matplotlib is missing.
        WriteError: the file cannot be written.
    """
    check(path, kind, len(report.words))
    plots.save_figure(path, lambda: figure(report, kind, size=size))


def check(path: str, kind: str, vectors: int) -> None:
    """What can be said before anything is computed; raises `UsageError` as `draw` does."""
    if path != "-":
        plots.check_suffix(path)
    if kind not in KINDS:
        raise UsageError(f"--plot-kind {kind} is not known", "one of " + ", ".join(KINDS))
    if vectors < 2:
        raise UsageError("--plot needs two words or more: it compares them", "give another word")


def figure(
    report: EmbedReport, kind: str = "auto", *, size: tuple[float, float] | None = None
) -> Figure:
    """The matplotlib figure that `draw` writes; the arguments are the same."""
    with plots.style():
        canvas = _Canvas(report, _enough(report, kind, size) if size else _fitting(report, kind))
        if kind == "heatmap":
            _heat_map(canvas, canvas.figure.add_subplot())
        elif kind == "scatter":
            _scatter(canvas, canvas.figure.add_subplot())
        else:
            wide = canvas.width / canvas.height > 1.1
            places = (1, 2) if wide else (2, 1)
            one, other = canvas.figure.subplots(*places)
            _heat_map(canvas, one)
            _scatter(canvas, other)
        return canvas.figure


def _fitting(report: EmbedReport, kind: str) -> tuple[float, float]:
    many = len(report.words)
    side = max(min(max(_PITCH * many, 2.4), _WIDEST), PITCH * many)
    heat = side + _BESIDE, side + _BESIDE
    if kind == "heatmap":
        return heat
    more = min(max(many / 20, 1.0), 4.0) ** 0.5  # room for names
    plain = _SCATTER[0] * more, _SCATTER[1] * more
    if kind == "scatter":
        return plain
    return heat[0] + plain[0], max(heat[1], plain[1])


def _enough(report: EmbedReport, kind: str, size: tuple[float, float]) -> tuple[float, float]:
    """The size wanted, or what the heat map's labels need."""
    if kind == "scatter":
        return size
    least = PITCH * len(report.words) + _BESIDE
    return max(size[0], least if kind == "heatmap" else 2 * least), max(size[1], least)


class _Canvas(FigureLayout):
    """A figure with the matrix as its heading, and names as its fonts can spell them."""

    def __init__(self, report: EmbedReport, size: tuple[float, float]) -> None:
        matrix, style = report.matrix, Style(byte_level=report.byte_level)
        names = [clip(label(word, style), _LABEL) for word in report.words]
        groups = [clip(one_line(name), _LEGEND) for name in report.groups]
        title = f"{len(names)} vectors of {model_title(report.model)}'s {matrix.kind} embeddings"
        subtitle = (
            f"{one_line(matrix.name)} · {numbers.count(matrix.rows)} × "
            f"{numbers.count(matrix.columns)} · {matrix.dtype}"
        )
        super().__init__(size, title, subtitle, (*names, *groups))
        self.report = report
        self.labels = [self.spell(name) for name in names]
        self.groups = [self.spell(name) for name in groups]

    def colour(self, place: int) -> str:
        """Of the group of a vector."""
        group = self.report.words[place].group
        return INK if group is None else TOKENS[self.report.groups.index(group) % len(TOKENS)]

    def broken(self, text: str, points: float, inches: float) -> str:
        """`text` on as many lines as its width needs."""
        lines: list[str] = []
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.text_width(longer, points) <= inches:
                lines[-1] = longer
            else:
                lines.append(word)
        return "\n".join(lines)


def _heat_map(canvas: _Canvas, axes: Axes) -> None:
    """Cosines as a square of colours, the range that pairs take; names in their groups' colours."""
    import numpy as np

    many = len(canvas.labels)
    values = np.array(
        [[np.nan if v is None else v for v in row] for row in canvas.report.cosine], dtype=float
    )
    np.fill_diagonal(values, np.nan)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    axes.set_facecolor(_OWN)
    high = high if high > low else low + 0.01
    shown = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks(range(many), canvas.labels, rotation=90)
    axes.set_yticks(range(many), canvas.labels)
    axes.tick_params(length=0, labelsize=SMALLEST)
    axes.spines[:].set_visible(False)
    for place, (across, down) in enumerate(
        zip(axes.get_xticklabels(), axes.get_yticklabels(), strict=True)
    ):
        across.set_color(canvas.colour(place))
        down.set_color(canvas.colour(place))
    groups = [word.group for word in canvas.report.words]
    for place in range(1, many):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color="white", linewidth=1.6)
            axes.axvline(place - 0.5, color="white", linewidth=1.6)
    bar = canvas.figure.colorbar(shown, ax=axes, shrink=0.7, aspect=24, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.set_label("cosine similarity", fontsize=8)
    canvas.settle()
    pitch = axes_inches(axes)[0] / many * 72  # points
    axes.tick_params(labelsize=min(max(pitch * 0.8, SMALLEST), 9.0))
    if max(canvas.text_width(text, 9) for text in canvas.labels) * 72 < 0.95 * pitch:
        axes.tick_params(axis="x", labelrotation=0)
    if pitch >= 15:
        _values(axes, values, (low, high), min(pitch * 0.42, 9.0))
    canvas.settle()


def _values(axes: Axes, values: Any, ends: tuple[float, float], points: float) -> None:
    """Hundredths in the cells: dark on the light half of the scale, light on the dark one."""
    import numpy as np

    low, high = ends
    for row, column in np.argwhere(np.isfinite(values)):
        value = float(values[row, column])
        axes.text(
            column,
            row,
            f"{round(100 * value):d}".replace("-", "−"),
            fontsize=points,
            color="white" if value < low + 0.6 * (high - low) else "black",
            ha="center",
            va="center",
        )


def _scatter(canvas: _Canvas, axes: Axes) -> None:
    """The plane with a colour and a sign for each group; both axes on one scale."""
    plane = canvas.report.plane
    assert plane is not None  # there are two vectors or more
    handles = []
    for group in [*canvas.report.groups, None]:
        places = [k for k, word in enumerate(canvas.report.words) if word.group == group]
        if places:
            handles.append(_points(canvas, axes, plane, places, group))
    axes.axhline(0, color="0.9", linewidth=0.7, zorder=0)
    axes.axvline(0, color="0.9", linewidth=0.7, zorder=0)
    first, second = (f"{share(ratio)} of the variance" for ratio in plane.ratio)
    axes.set_xlabel(f"PC1, {first}")
    axes.set_ylabel(f"PC2, {second}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.14)
    axes.tick_params(length=0)
    canvas.legend(handles[: len(canvas.groups)], canvas.groups)
    canvas.settle()
    sentence = canvas.broken(plane_sentence(plane), 8, axes_inches(axes)[0])
    axes.set_title(sentence, loc="left", fontsize=8, color=QUIET)
    canvas.settle()
    _names(canvas, axes, plane)


def _points(
    canvas: _Canvas, axes: Axes, plane: Plane, places: Sequence[int], group: str | None
) -> Any:
    sign = "o" if group is None else MARKS[canvas.report.groups.index(group) % len(MARKS)]
    return axes.scatter(
        [plane.coordinates[place][0] for place in places],
        [plane.coordinates[place][1] for place in places],
        s=26,
        marker=sign,
        color=canvas.colour(places[0]),
        edgecolors="white",
        linewidths=0.5,
        zorder=3,
    )


def _names(canvas: _Canvas, axes: Axes, plane: Plane) -> None:
    """Each name beside its point, moved until it covers neither a point nor another name; in smaller
    type where that fails, and in the end left out."""
    for points in (8.5, 7.5, 6.5, 5.5, SMALLEST):
        placed = _place(canvas, axes, plane, points)
        if None not in placed:
            break
    for place, spot in enumerate(placed):
        if spot is not None:
            _write(canvas, axes, plane, place, spot, points)
    if lost := placed.count(None):
        axes.annotate(
            f"{numbers.count(lost)} names find no room",
            (1, 0),
            (-2, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=7,
            color=QUIET,
            ha="right",
            va="bottom",
            in_layout=False,
        )


def _write(
    canvas: _Canvas, axes: Axes, plane: Plane, place: int, spot: _Spot, points: float
) -> None:
    """A name at its spot, with a line to its point where it does not stand beside it."""
    colour = canvas.colour(place)
    line = {
        "arrowstyle": "-",
        "color": colour,
        "linewidth": 0.5,
        "alpha": 0.6,
        "shrinkA": 0,
        "shrinkB": 2.5,
    }
    axes.annotate(
        canvas.labels[place],
        plane.coordinates[place],
        spot[:2],
        textcoords="offset points",
        fontsize=points,
        color=colour,
        ha="left",
        va="bottom",
        in_layout=False,
        zorder=4,
        arrowprops=line if spot[2] else None,
    )


# A name's lower left corner in points from its point, and whether that is not beside it.
_Spot = tuple[float, float, bool]


def _place(canvas: _Canvas, axes: Axes, plane: Plane, points: float) -> list[_Spot | None]:
    """Where each name goes; None for one that finds no room."""
    import numpy as np

    pixels = canvas.figure.dpi / 72
    spots = np.asarray(axes.transData.transform(plane.coordinates))
    frame = axes.get_window_extent()
    taken = np.hstack([spots - 3.2 * pixels, spots + 3.2 * pixels])  # left, below, right, above
    # The last line says which names are left out.
    taken = np.vstack(
        [taken, [frame.x1 - 110 * pixels, frame.y0, frame.x1, frame.y0 + 11 * pixels]]
    )
    found: list[_Spot | None] = []
    for name, (x, y) in zip(canvas.labels, spots, strict=True):
        width, height = _extent(canvas, name, points)
        for dx, dy, far in _offsets(width / pixels, height / pixels):
            left, below = x + dx * pixels, y + dy * pixels
            right, above = left + width, below + height
            inside = frame.x0 <= left and right <= frame.x1
            if not (inside and frame.y0 <= below and above <= frame.y1):
                continue
            apart = (taken[:, 0] >= right) | (taken[:, 2] <= left)
            apart |= (taken[:, 1] >= above) | (taken[:, 3] <= below)
            if apart.all():
                taken = np.vstack([taken, [left, below, right, above]])
                found.append((dx, dy, far))
                break
        else:
            found.append(None)
    return found


def _extent(canvas: _Canvas, text: str, points: float) -> tuple[float, float]:
    """Width and height of a text in pixels, with a little air."""
    probe = canvas.figure.text(0, 0, text, fontsize=points, va="bottom")
    box = probe.get_window_extent()
    probe.remove()
    return box.width + 2, box.height + 1


def _offsets(width: float, height: float) -> list[_Spot]:
    """Places for a name of this size around its point, the nearest first, in points."""
    found = []
    for ring in range(8):
        gap = _ASIDE + 7 * ring
        for angle in range(0, 360, 45 if ring == 0 else 15):
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The box touches the ring's edge with the side that faces the point.
            found.append(
                (
                    across * (gap + width / 2) - width / 2,
                    up * (gap + height / 2) - height / 2,
                    ring > 0,
                )
            )
    return found
