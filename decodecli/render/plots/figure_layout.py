"""What the matplotlib plots share: the figure with its heading, colours, legends and measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from decodecli.render.plots.fonts import fonts_for
from decodecli.render.plots.ticks import percent_name, tick_name, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

INK, QUIET = "0.15", "0.4"
KEPT, TARGET, REMOVED, REMOVED_EDGE = "#0072B2", "#E69F00", "#E6EAED", "#8A949C"
# Okabe and Ito's, less the yellow that white swallows; then again in the next line style.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MIN_FONT_SIZE = 5.0  # points
MIN_LABEL_PITCH = 0.1  # inches from one label to the next
_HEADING, _LINE, _EDGE = 0.5, 0.17, 0.1  # inches
_SIGNS = "…“”·→∞≥−▸×–"


class FigureLayout:
    """A figure with its heading drawn, in fonts that can spell the heading and `texts`.

    title, subtitle: the heading's two lines. texts: whatever else is to be written on it.
    note: a third line, for which the figure grows.
    """

    def __init__(
        self,
        size: tuple[float, float],
        title: str,
        subtitle: str,
        texts: Sequence[str] = (),
        note: str = "",
    ) -> None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        more = _LINE if note else 0.0
        self.width, self.height = size = size[0], size[1] + more
        self._widths: dict[tuple[str, float], float] = {}
        fonts = fonts_for((*texts, title, subtitle, note, _SIGNS))
        self.spell = fonts.spell
        matplotlib.rcParams["font.family"] = list(fonts.families)
        self.figure: Figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(self.figure)
        engine: Any = self.figure.get_layout_engine()
        engine.set(rect=(0, 0, 1, 1 - min((_HEADING + more) / self.height, 0.4)))
        lines = [(title, 0.09, 10.5, INK), (subtitle, 0.31, 8, QUIET)]
        lines += [(note, 0.31 + _LINE, 8, QUIET)] if note else []
        for text, below, points, colour in lines:
            self.figure.text(
                _EDGE / self.width,
                1 - below / self.height,
                self.fitted(self.spell(text), points, self.width - 2 * _EDGE),
                fontsize=points,
                color=colour,
                va="top",
                in_layout=False,
            )

    def text_width(self, text: str, points: float) -> float:
        """Inches that a text takes."""
        if (text, points) not in self._widths:
            probe = self.figure.text(0, 0, text, fontsize=points)
            box = probe.get_window_extent()
            probe.remove()
            self._widths[text, points] = float(box.width / self.figure.dpi)
        return self._widths[text, points]

    def widest(self, texts: Sequence[str], points: float) -> float:
        """Inches that the widest of some texts takes."""
        return max(self.text_width(text, points) for text in texts)

    def fitted(self, text: str, points: float, inches: float) -> str:
        """`text` cut to a width."""
        short, cells = text, len(text)
        while cells > 4 and self.text_width(short, points) > inches:
            cells -= max(1, cells // 20)
            short = text[:cells] + "…"
        return short

    def settle(self) -> None:
        """Lay out, so that boxes can be measured."""
        self.figure.draw_without_rendering()

    def freeze(self) -> None:
        """Lay out for good: what is added now fits in, and saving does not lay out again."""
        self.settle()
        self.figure.set_layout_engine("none")

    def legend(self, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """Under the axes, in as many columns as fit."""
        if not handles:
            return
        columns = int(self.width / (self.widest(labels, 8) + 0.5))
        self.figure.legend(
            handles,
            labels,
            loc="outside lower left",
            ncols=max(min(len(handles), columns), 1),
            handlelength=1.6,
            columnspacing=1.4,
        )

    def side_legend(
        self, axes: Axes, handles: Sequence[Any], labels: Sequence[str], title: str | None = None
    ) -> None:
        """To the right of the axes, from the top down; small type rather than a second column."""
        inches = 0.8 * (self.height - 0.6)
        columns = math.ceil(len(handles) * MIN_FONT_SIZE * 1.25 / 72 / inches)
        rows = math.ceil(len(handles) / columns)
        points = min(8.0, max(inches / rows * 72 / 1.4, MIN_FONT_SIZE))
        axes.legend(
            handles,
            # A label that starts with an underscore would be left out.
            [" " + label if label.startswith("_") else label for label in labels],
            loc="upper left",
            bbox_to_anchor=(1.02, 1),
            borderaxespad=0,
            ncols=columns,
            fontsize=points,
            title=title,
            title_fontsize=8,
            alignment="left" if title else "center",
            handlelength=3.2,
            labelspacing=0.3 if points > 6 else 0.12,
        )

    def colour_bar(self, mappable: Any, axes: Any, points: float = 8, **options: Any) -> Colorbar:
        """A scale of colours beside `axes`, without frame and tick marks."""
        bar = self.figure.colorbar(mappable, ax=axes, **options)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=points)
        return bar


def axes_inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the plotting area."""
    box, figure = axes.get_window_extent(), axes.get_figure(root=True)
    dpi = figure.dpi if figure is not None else 100.0
    return box.width / dpi, box.height / dpi


def probability_axis(axes: Axes, limit: float, horizontal: bool, margin: float = 0.0) -> None:
    """An axis from 0 to `limit` with percentages at round numbers; `margin`, a share of the axis, is
    left free above."""
    axis = axes.xaxis if horizontal else axes.yaxis
    width, height = axes_inches(axes)
    length = width if horizontal else height
    limit = 1.0 if 0.75 < limit < 1 else limit
    most = max(1, min(5, int(length * (1 - margin) / (0.5 if horizontal else 0.3))))
    values = ticks(limit, most)
    step = values[1] if len(values) > 1 else limit
    axis.set_ticks(values, [percent_name(value, step) for value in values])
    end = limit / (1 - min(margin, 0.7)) if limit > 0 else 1.0
    (axes.set_xlim if horizontal else axes.set_ylim)(0, end)
    axes.grid(axis="x" if horizontal else "y")
    axis.set_tick_params(length=0)


def temperature_axis(axes: Axes, low: float, high: float, values: Sequence[float]) -> None:
    """A log axis of temperature with plain numbers at `values`."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(values, [tick_name(value) for value in values])
    axes.minorticks_off()
    axes.set_xlabel("temperature (log scale)")
    axes.grid(axis="y")


def sequential(count: int) -> list[str]:
    """`count` colours from dark to light along viridis, without its pale end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis"]
    return [to_hex(scale(0.08 + 0.72 * k / max(count - 1, 1))) for k in range(count)]


def cell_numbers(axes: Axes, image: Any, name: Any, points: float, dark_from: float = 0.6) -> None:
    """Each known value of `image` in its cell, spelt by `name`: dark on the light end of the scale."""
    import numpy as np

    values = np.ma.masked_invalid(image.get_array())
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        value = float(values[row, column])
        axes.text(
            column,
            row,
            name(value),
            fontsize=points,
            color="white" if image.norm(value) < dark_from else "black",
            ha="center",
            va="center",
        )
