"""Pictures of an `EmbedReport` by matplotlib: a heat map of cosines, and the plane as a scatter."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from decodecli.errors import UsageError
from decodecli.records.embedding import EmbedReport
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, model_title, one_line
from decodecli.render.plots.figure_file import check_suffix, save_figure, style
from decodecli.render.plots.figure_layout import (
    INK,
    MARKERS,
    MIN_FONT_SIZE,
    MIN_LABEL_PITCH,
    QUIET,
    FigureLayout,
    axes_inches,
    cell_numbers,
    distinct,
)
from decodecli.render.plots.labels import label_points, note
from decodecli.render.terminal.embedding_tables import label, plane_sentence, share
from decodecli.render.terminal.step_table import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("auto", "heatmap", "scatter", "both")
_LABEL, _LEGEND = 22, 24  # cells
_PITCH = 0.3  # inches a cell of the heat map, as long as the picture stays below _WIDEST
_WIDEST = 9.0
_MARGIN = 2.0  # inches for names, scale and heading
_DIAGONAL = "0.93"  # which says nothing
_SCATTER = (6.4, 5.4)
_SIZES = (8.5, 7.5, 6.5, 5.5, MIN_FONT_SIZE)  # points of names in the plane


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
    save_figure(path, lambda: figure(report, kind, size=size))


def check(path: str, kind: str, vectors: int) -> None:
    """What can be said before anything is computed; raises `UsageError` as `draw` does."""
    if path != "-":
        check_suffix(path)
    if kind not in KINDS:
        raise UsageError(f"--plot-kind {kind} is not known", "one of " + ", ".join(KINDS))
    if vectors < 2:
        raise UsageError("--plot needs two words or more: it compares them", "give another word")


def figure(
    report: EmbedReport, kind: str = "auto", *, size: tuple[float, float] | None = None
) -> Figure:
    """The matplotlib figure that `draw` writes; the arguments are the same."""
    draws = {"heatmap": [_heat_map], "scatter": [_scatter]}.get(kind, [_heat_map, _scatter])
    many = len(report.words)
    least = MIN_LABEL_PITCH * many + _MARGIN  # for the heat map's labels
    if size is None:
        side = max(min(max(_PITCH * many, 2.4), _WIDEST) + _MARGIN, least)
        scale = min(max(many / 20, 1.0), 4.0) ** 0.5  # room for names
        plane = (_SCATTER[0] * scale, _SCATTER[1] * scale)
        size = plane if kind == "scatter" else (side, side)
        if len(draws) > 1:
            size = (side + plane[0], max(side, plane[1]))
    elif kind != "scatter":
        size = max(size[0], least * len(draws)), max(size[1], least)
    with style():
        layout = _Layout(report, size)
        wide = layout.width / layout.height > 1.1
        shape = (1, len(draws)) if wide else (len(draws), 1)
        grid = layout.figure.subplots(*shape, squeeze=False)
        for draw_one, axes in zip(draws, grid.flat, strict=True):
            draw_one(layout, axes)
        return layout.figure


class _Layout(FigureLayout):
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
        by_name = dict(zip(report.groups, distinct(len(groups)), strict=True))
        self.colours = [INK if w.group is None else by_name[w.group] for w in report.words]


def _heat_map(layout: _Layout, axes: Axes) -> None:
    """Cosines as a square of colours, the range that pairs take; names in their groups' colours."""
    many, cosine = len(layout.labels), layout.report.cosine
    values = np.array([[np.nan if v is None else v for v in row] for row in cosine], dtype=float)
    np.fill_diagonal(values, np.nan)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    high = high if high > low else low + 0.01
    axes.set_facecolor(_DIAGONAL)
    image = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks(range(many), layout.labels, rotation=90)
    axes.set_yticks(range(many), layout.labels)
    axes.tick_params(length=0, labelsize=MIN_FONT_SIZE)
    axes.spines[:].set_visible(False)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for text, colour in zip(labels, layout.colours, strict=True):
            text.set_color(colour)
    groups = [word.group for word in layout.report.words]
    for k in range(1, many):
        if groups[k] != groups[k - 1]:
            axes.axhline(k - 0.5, color="white", linewidth=1.6)
            axes.axvline(k - 0.5, color="white", linewidth=1.6)
    bar = layout.colour_bar(image, axes, shrink=0.7, aspect=24, pad=0.02)
    bar.set_label("cosine similarity", fontsize=8)
    layout.settle()
    pitch = axes_inches(axes)[0] / many * 72  # points
    axes.tick_params(labelsize=min(max(pitch * 0.8, MIN_FONT_SIZE), 9.0))
    if layout.widest(layout.labels, 9) * 72 < 0.95 * pitch:
        axes.tick_params(axis="x", labelrotation=0)
    if pitch >= 15:
        cell_numbers(
            axes,
            image,
            lambda cosine: f"{round(100 * cosine):d}".replace("-", "−"),
            min(pitch * 0.36, 9.0),
        )
    layout.settle()


def _scatter(layout: _Layout, axes: Axes) -> None:
    """The plane with a colour and a sign for each group; both axes on one scale."""
    plane, words = layout.report.plane, layout.report.words
    assert plane is not None  # there are two vectors or more
    handles = []
    for number, group in enumerate([*layout.report.groups, None]):
        members = [k for k, word in enumerate(words) if word.group == group]
        if members:
            dots = axes.scatter(
                [plane.coordinates[k][0] for k in members],
                [plane.coordinates[k][1] for k in members],
                s=26,
                marker="o" if group is None else MARKERS[number % len(MARKERS)],
                color=layout.colours[members[0]],
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
            )
            handles.append(dots)
    axes.axhline(0, color="0.9", linewidth=0.7, zorder=0)
    axes.axvline(0, color="0.9", linewidth=0.7, zorder=0)
    first, second = (f"{share(ratio)} of the variance" for ratio in plane.ratio)
    axes.set_xlabel(f"PC1, {first}")
    axes.set_ylabel(f"PC2, {second}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.14)
    axes.tick_params(length=0)
    layout.legend(handles[: len(layout.groups)], layout.groups)
    layout.settle()
    sentence, width = plane_sentence(plane), axes_inches(axes)[0]
    letters = int(0.93 * len(sentence) * width / layout.text_width(sentence, 8))
    axes.set_title("\n".join(textwrap.wrap(sentence, letters)), loc="left", fontsize=8, color=QUIET)
    layout.settle()
    points = list(plane.coordinates)
    # The corner is for the line that says how many names are left out.
    lost = label_points(axes, points, layout.labels, layout.colours, _SIZES, corner=110)
    if lost:
        text = f"{numbers.count(lost)} names find no room"
        more = {"xycoords": "axes fraction", "ha": "right", "va": "bottom", "in_layout": False}
        note(axes, text, (1, 0), (-2, 2), 7, QUIET, **more)
