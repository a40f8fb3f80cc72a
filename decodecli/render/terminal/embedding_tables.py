"""An `EmbedReport` in the terminal: the matrix, the vectors, a heat map of cosines, what is near."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from decodecli.records.embedding import EmbedReport, Plane, WordVector
from decodecli.render.escaping import clip, one_line, pad
from decodecli.render.number_format import NOTHING, bar, count, decimal, percent
from decodecli.render.plots.sweep_data import spelt
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.table import Column, fit, table_lines
from decodecli.render.terminal.wrap import wrap_parts

_WORD, _GROUP, _BAR = 24, 14, 30
_FULL, _SHORT = 6, 3  # cells of a cosine: −0.42, or hundredths: 42


def embed_lines(report: EmbedReport, style: Style) -> list[str]:
    """The whole report."""
    matrix, separation = report.matrix, report.separation
    (short_id, shortest), (long_id, longest) = matrix.shortest, matrix.longest
    mean, sd, least, most = (decimal(matrix.norms[k]) for k in ("mean", "sd", "min", "max"))
    lines = _wrapped(
        [
            one_line(report.model),
            one_line(matrix.name),
            f"{count(matrix.rows)} × {count(matrix.columns)}",
            matrix.dtype,
            f"{matrix.kind} embeddings{', tied: input and output are one' if matrix.tied else ''}",
        ],
        style,
    )
    lines += _wrapped(
        [
            f"norms of its rows: mean {mean}",
            f"sd {sd}",
            f"min {least} {style.token(shortest)} {short_id}",
            f"max {most} {style.token(longest)} {long_id}",
        ],
        style,
    )
    lines += ["", *_vectors(report, style)]
    if len(report.words) > 1:
        lines += ["", *heat_map(report, style)]
    if report.plane is not None:
        lines += ["", *textwrap.wrap(plane_sentence(report.plane), max(style.width, 1))]
    if separation is not None:
        parts = [
            f"Groups: mean silhouette {decimal(separation.mean)} by cosine",
            f"{decimal(separation.plane)} in the plane",
        ]
        best = sorted(separation.groups.items(), key=lambda pair: -pair[1])
        parts += [f"{one_line(name)} {decimal(value)}" for name, value in best]
        lines += ["", *_wrapped(parts, style)]
    if report.nearest:
        lines += ["", *_nearest(report, style)]
    return spelt(lines, style)


def _wrapped(parts: Sequence[str], style: Style) -> list[str]:
    return wrap_parts([clip(part, style.width) for part in parts], style.width)


def label(word: WordVector, style: Style) -> str:
    """A vector's name as it is shown: a row with its piece."""
    if word.kind == "row":
        return f"{word.word} {style.token(word.tokens[0])}"
    return style.encodable(one_line(word.word))


def share(ratio: float) -> str:
    """A share of the variance: `18.6%`."""
    return percent(ratio) if ratio else "0%"


def plane_sentence(plane: Plane) -> str:
    """How much of the vectors a picture of two dimensions can show."""
    first, second = map(share, plane.ratio)
    text = (
        f"Two dimensions keep {share(plane.kept)} ({first} + {second}) of the variance "
        f"in {count(plane.dimensions)}"
    )
    if plane.distances is None:
        return text + "."
    text += f"; distances in the plane correlate {decimal(plane.distances)} with the real ones"
    return text + (": near in the plane need not be near." if plane.kept < 0.6 else ".")


def _vectors(report: EmbedReport, style: Style) -> list[str]:
    """A row a vector: its name, group, norm, silhouette and tokens."""
    words, names = report.words, [label(word, style) for word in report.words]
    most = min(_WORD, max(style.width // 3, 4))
    columns = [
        Column("#", [str(k).rjust(2) for k in range(1, 1 + len(words))], right=True),
        Column("word", names, most, most, codes=[style.theme.bold] * len(names)),
    ]
    if report.groups:
        groups = [one_line(word.group or "") for word in words]
        columns.append(Column("group", groups, _GROUP, _GROUP))
    columns.append(Column("norm", [decimal(word.norm).rjust(7) for word in words], right=True))
    if report.separation:
        silhouettes = [decimal(value) for value in report.separation.words]
        columns.append(Column("silhouette", silhouettes, right=True))
    columns.append(Column("tokens", [str(len(word.tokens)) for word in words], right=True))
    columns = [column for column, _ in fit(columns, style.width - 2, ("group", "silhouette"))]
    pieces = [" ".join(map(style.token, word.tokens)) for word in words]
    columns.append(Column("", pieces, 6, style.width))
    return table_lines(columns, style, ("",), "  ")


def _name_width(names: Sequence[str], style: Style) -> int:
    return min(max(map(cell_len, names)), _WORD, max(style.width // 3, 4))


def heat_map(report: EmbedReport, style: Style) -> list[str]:
    """Cosine similarity of each pair, colours over the range that pairs take; in blocks of columns
    where not all fit side by side."""
    names, heat = [label(word, style) for word in report.words], style.theme.heat
    index = len(str(len(names)))
    left = 2 + index + 2 + min(max(map(cell_len, names)), 16, max(style.width // 4, 4))
    size = _FULL if left + _FULL * len(names) <= style.width else _SHORT
    named = size == _FULL and all(cell_len(name) < _FULL for name in names)
    heads = names if named else [str(k + 1) for k in range(len(names))]
    fit = max((style.width - left) // size, 1)
    pairs = [value for i, row in enumerate(report.cosine) for value in row[:i] if value is not None]
    low, high = min(pairs, default=0.0), max(pairs, default=1.0)

    def cell(value: float | None) -> str:
        if value is None:  # a vector and itself, or one without a length
            return style.dim(NOTHING.rjust(size))
        text = decimal(value)
        if size == _SHORT:  # what rounds to ±1 is cut to 99
            hundredths = min(abs(round(100 * value)), 99)
            text = f"{'−' if value < 0 and hundredths else ''}{hundredths}"
        share = (value - low) / (high - low) if high > low else 0.5
        return style.theme.paint(heat[min(int(share * 6), 5)], text.rjust(size))

    unit = "" if size == _FULL else ", in hundredths: 42 is 0.42"
    lines = [style.dim(clip(f"  cosine similarity{unit}", style.width))]
    for start in range(0, len(names), fit):
        block = range(len(names))[start : start + fit]
        head = "".join(" " * (size - cell_len(heads[k])) + heads[k] for k in block)
        lines.append(style.dim(" " * left + head))
        for i, name in enumerate(names):
            row = "".join(cell(None if i == k else report.cosine[i][k]) for k in block)
            lines.append(pad(f"  {str(i + 1).rjust(index)} {name}", left) + row.rstrip())
    if len(names) > 2 and any(heat):
        swatches = "".join(style.theme.paint(code, "  ") for code in heat)
        lines.append(f"{' ' * left}{style.dim(decimal(low))} {swatches} {decimal(high)}")
    elif len(names) > 2:
        span = f"  pairs from {decimal(low)} to {decimal(high)}"
        lines.append(style.dim(clip(span, style.width)))
    return lines


def _nearest(report: EmbedReport, style: Style) -> list[str]:
    """A table for a few vectors, a line each for many."""
    names = [label(word, style) for word in report.words]
    lines = []
    if len(names) > 4:
        lines.append(style.dim("  nearest tokens, by cosine"))
        width = _name_width(names, style)
        for name, neighbours in zip(names, report.nearest, strict=True):
            entries = [f"{style.token(near.token)} {decimal(near.cosine)}" for near in neighbours]
            row = clip("  ".join(entries), style.width - width - 4)
            lines.append(f"  {style.bold(pad(name, width))}  {row}")
        return lines
    for name, neighbours in zip(names, report.nearest, strict=True):
        lines += ["", style.dim(clip(f"  nearest to {name}", style.width))]
        if not neighbours:
            lines.append("  none: the vector has no direction")
            continue
        rank = max(len(str(len(neighbours))), 2)
        ids = max(len(str(near.token_id)) for near in neighbours)
        tokens = [style.token(near.token) for near in neighbours]
        width = _name_width(tokens, style)
        room = min(style.width - (2 + rank + 2 + width + 2 + ids + 2 + 5 + 2), _BAR)
        for near, token in zip(neighbours, tokens, strict=True):
            drawn = bar(max(near.cosine, 0.0), room, style.ascii_only) if room >= 4 else ""
            start = (
                f"  {near.rank:>{rank}}  {style.bold(pad(token, width))}  {near.token_id:>{ids}}"
            )
            end = f"{decimal(near.cosine):>5}  {style.theme.paint(style.theme.bar, drawn)}"
            lines.append(f"{start}  {end}".rstrip())
    return lines[1:]


def scatter(report: EmbedReport, style: Style, rows: int = 20) -> list[str]:
    """The plane in the terminal: a sign for each group, names where there is room.

    Distances across and down are the same, a cell being twice as high as it is wide.
    """
    plane = report.plane
    if plane is None:
        return []
    width = max(style.width - 2, 8)
    xs, ys = zip(*plane.coordinates, strict=True)
    spread_x, spread_y = max(xs) - min(xs), max(ys) - min(ys)
    unit = max(spread_x / (width * 0.8), spread_y / (2 * rows - 2), 1e-12)
    left = (width * 0.9 - spread_x / unit) / 2
    top = (2 * rows - 2 - spread_y / unit) / 2
    spots = [  # the cell of each point, PC2 upwards
        (
            min(max(math.floor(left + (x - min(xs)) / unit), 0), width - 1),
            min(max(round((top + (max(ys) - y) / unit) / 2), 0), rows - 1),
        )
        for x, y in plane.coordinates
    ]
    signs = "ox+*abcdefgh" if style.ascii_only else "●■▲◆○□△◇"
    groups = list(report.groups)
    grid = [[" "] * width for _ in range(rows)]
    taken = set(spots)
    for word, (x, y) in zip(report.words, spots, strict=True):
        grid[y][x] = signs[groups.index(word.group) % len(signs)] if word.group else signs[0]
    for word, (x, y) in zip(report.words, spots, strict=True):
        _write_name(grid, clip(label(word, style), _WORD), x, y, taken)
    high, low = min(y for _, y in spots), max(y for _, y in spots)
    axes = [f"PC{k} {share(ratio)}" for k, ratio in enumerate(plane.ratio, start=1)]
    head = style.dim(clip(f"  across {axes[0]}, up {axes[1]} of the variance", style.width))
    lines = ["".join(row).rstrip() for row in grid[max(high - 1, 0) : low + 2]]
    legend = [f"{signs[k % len(signs)]} {one_line(name)}" for k, name in enumerate(groups)]
    lines += wrap_parts([clip(name, width) for name in legend], width, "  ")
    return spelt([head, *(f"  {line}" for line in lines)], style)


def _write_name(
    grid: list[list[str]], text: str, x: int, y: int, taken: set[tuple[int, int]]
) -> None:
    """Write a name to the right of its point, or left, above or below; leave it out otherwise."""
    size = cell_len(text)
    cells: list[str] = []  # marks stand with their letter, a wide one's second cell is empty
    for character in text:
        if not cell_len(character) and cells:
            cells[-1] += character
        else:
            cells += [character, *[""] * (cell_len(character) - 1)]
    for column, row in (
        (x + 2, y), (x - 1 - size, y), (x - size // 2, y - 1), (x - size // 2, y + 1),
        (x + 1, y - 1), (x + 1, y + 1), (x - size, y - 1), (x - size, y + 1),
    ):  # fmt: skip
        needed = {(k, row) for k in range(column - 1, column + size + 1)}
        inside = 0 <= row < len(grid) and column >= 0 and column + size <= len(grid[0])
        if inside and not (needed & taken) - {(x, y)}:
            grid[row][column : column + size] = cells
            taken |= {(k, row) for k in range(column, column + size)}
            return
