"""What the matplotlib plots share: the figure with its heading, fonts, colours, legends and axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from decodecli.render import number_format as numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure

INK, QUIET = "0.15", "0.4"
KEPT, TARGET = "#0072B2", "#E69F00"
# Okabe and Ito's with grey, less the yellow that white swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#999999")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MIN_FONT_SIZE = 5.0  # points
MIN_LABEL_PITCH = 0.1  # inches from one label to the next
_HEADING, _LINE, _EDGE = 0.5, 0.17, 0.1  # inches
_SIGNS = "…“”·→∞≥−▸×–"

BASE_FONT = "DejaVu Sans"  # comes with matplotlib
# Tried first, in this order; then every other upright font of normal weight, by name.
_PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei"),
    *("Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic"),
    *("Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic"),
    *("WenQuanYi Micro Hei", "Arial Unicode MS", "Noto Sans", "Noto Sans Thai", "Thonburi"),
    *("Leelawadee UI", "Noto Sans Devanagari", "Kohinoor Devanagari", "Nirmala UI"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Symbols", "Noto Sans Symbols 2"),
    *("Noto Emoji", "Symbola", "Segoe UI Symbol", "Segoe UI"),
)
# Boxes for every character; letters under the wrong codes; pictures that cannot be drawn as outlines.
_UNFIT = ("Last Resort", ".LastResort", "cm", "STIXNonUnicode", "STIXSize", "Symbol", "Wingdings")
_MAX_OPENED = 200  # font files
_MAX_SPELT = 3  # characters of a run without glyphs


@dataclass(frozen=True)
class Fonts:
    """Font families that together draw what they can of some texts, the first one first."""

    families: tuple[str, ...]
    missing: frozenset[str] = frozenset()

    def spell(self, text: str) -> str:
        """`text` with `<U+65E5 672C>` for characters that no font has, three of them at most."""
        parts = []
        for is_missing, run in groupby(text, self.missing.__contains__):
            characters = "".join(run)
            codes = " ".join(f"{ord(character):04X}" for character in characters[:_MAX_SPELT])
            more = " …" if len(characters) > _MAX_SPELT else ""
            parts.append(f"<U+{codes}{more}>" if is_missing else characters)
        return "".join(parts)


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The fewest families, in order of preference, with a glyph for each character of `texts`."""
    characters = set("".join(texts)) - {"\n"}
    missing = {character for character in characters if ord(character) not in _glyphs(BASE_FONT)}
    # Which form of Han characters suits: Japanese beside kana, Korean beside Hangul.
    kana = any("\u3040" <= character <= "\u30ff" for character in characters)
    hangul = any("\uac00" <= character <= "\ud7af" for character in characters)
    families = [BASE_FONT]
    candidates = _candidates("JP" if kana else "KR" if hangul else "SC") if missing else ()
    for name in candidates[:_MAX_OPENED]:
        covered = {character for character in missing if ord(character) in _glyphs(name)}
        families += [name] if covered else []
        missing -= covered
        if not missing:
            break
    return Fonts(tuple(families), frozenset(missing))


@lru_cache(maxsize=4)
def _candidates(language: str) -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    fit = {
        font.name
        for font in fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular")
        and not font.name.startswith(_UNFIT)
        and "Color" not in font.name
    }
    known = [name for name in _PREFERRED if name in fit]
    known.sort(key=lambda name: not name.endswith(f" {language}"))  # stable
    others = fit.difference(known, {BASE_FONT})
    return (*known, *sorted(others, key=lambda name: ("Sans" not in name, name)))


@lru_cache(maxsize=256)
def _glyphs(family: str) -> Any:
    """The characters of the very font file that matplotlib picks for a family."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        path = findfont(FontProperties(family=family), fallback_to_default=False)
        return get_font(path).get_charmap().keys()
    except (ValueError, OSError, RuntimeError):
        return frozenset[int]()


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
        self.width, self.height = size[0], size[1] + more
        self._widths: dict[tuple[str, float], float] = {}
        fonts = fonts_for((*texts, title, subtitle, note, _SIGNS))
        self.spell = fonts.spell
        matplotlib.rcParams["font.family"] = list(fonts.families)
        self.figure: Figure = Figure(figsize=(self.width, self.height), layout="constrained")
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
        self, axes: Axes, looks: Sequence[Any], labels: Sequence[str], title: str | None = None
    ) -> None:
        """To the right of the axes, from the top down; small type rather than a second column.

        looks: of each line, as arguments of `Axes.plot`.
        """
        from matplotlib.lines import Line2D

        inches = 0.8 * (self.height - 0.6)
        columns = math.ceil(len(looks) * MIN_FONT_SIZE * 1.25 / 72 / inches)
        rows = math.ceil(len(looks) / columns)
        points = min(8.0, max(inches / rows * 72 / 1.4, MIN_FONT_SIZE))
        axes.legend(
            [Line2D([], [], **look) for look in looks],
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


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, no more than `most` steps."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next((k for k in (1, 2, 2.5, 5) if k * power >= rough * (1 - 1e-9)), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round numbers of a log axis: 1, 2 and 5 of each power of ten, or powers alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        values = [m * 10.0**k for k in range(first, last + 1) for m in digits]
        values = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(values) <= most:
            return values
    return values[:: -(-len(values) // most)]


def tick_name(value: float) -> str:
    """`0.1`, `10`, `1e-10`."""
    is_plain = value == 0 or 1e-4 < abs(value) < 1e5
    return f"{value:.6g}" if is_plain else numbers.scientific(value)


def percent_ticks(limit: float, most: int = 4) -> list[tuple[float, str]]:
    """Round probabilities from 0 to `limit` with their names: `20%`, `0.5%`, `3e-6`."""
    values = ticks(0.0, limit, most)
    step = values[1] if len(values) > 1 else limit
    decimals = next((k for k in range(4) if math.isclose(round(100 * step, k), 100 * step)), 4)
    names = [f"{100 * value:.{decimals}f}%" for value in values]
    if step < 1e-5:
        names = [f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e") for value in values]
    return list(zip(values, ["0%", *names[1:]], strict=True))


def axes_inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the plotting area."""
    box, dpi = axes.get_window_extent(), axes.figure.dpi
    return box.width / dpi, box.height / dpi


def probability_axis(axes: Axes, limit: float, horizontal: bool, margin: float = 0.0) -> None:
    """An axis from 0 to `limit` with percentages at round numbers; `margin`, a share of the axis, is
    left free above."""
    width, height = axes_inches(axes)
    axis, length, pitch = (axes.xaxis, width, 0.5) if horizontal else (axes.yaxis, height, 0.3)
    limit = 1.0 if 0.75 < limit < 1 else limit
    ticks = percent_ticks(limit, max(1, min(5, int(length * (1 - margin) / pitch))))
    axis.set_ticks(*zip(*ticks, strict=True))
    end = limit / (1 - min(margin, 0.7)) if limit > 0 else 1.0
    (axes.set_xlim if horizontal else axes.set_ylim)(0, end)
    axes.grid(axis="x" if horizontal else "y")
    axis.set_tick_params(length=0)


def distinct(count: int) -> Sequence[str]:
    """`count` colours, each another one."""
    return COLOURS[:count] if count <= len(COLOURS) else sequential(count)


def sequential(count: int) -> list[str]:
    """`count` colours from dark to light along viridis, without its pale end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis"]
    return [to_hex(scale(0.08 + 0.72 * k / max(count - 1, 1))) for k in range(count)]


def cell_numbers(axes: Axes, image: Any, name: Any, points: float) -> None:
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
            color="white" if image.norm(value) < 0.6 else "black",
            ha="center",
            va="center",
        )
