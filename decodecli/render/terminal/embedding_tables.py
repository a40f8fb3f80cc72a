"""An `EmbedReport` in the terminal: the matrix, the vectors, a heat map of cosines, what is near."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from decodecli.records.embedding import EmbedReport, Neighbour, Plane, Separation, WordVector
from decodecli.render.escaping import clip, one_line, pad
from decodecli.render.number_format import NOTHING, bar, count, decimal, percent
from decodecli.render.plots.sweep_data import spelt
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.wrap import wrap_parts

_WORD, _GROUP, _BAR = 24, 14, 30
_FULL, _SHORT = 6, 3  # cells of a cosine: −0.42, or hundredths: 42


def embed_lines(report: EmbedReport, style: Style) -> list[str]:
    """The whole report."""
    lines = [*matrix_lines(report, style), "", *_vectors(report, style)]
    if len(report.words) > 1:
        lines += ["", *heat_map(report, style)]
    if report.plane is not None:
        lines += ["", *_wrapped(plane_sentence(report.plane).split(" "), " ", style)]
    if report.separation is not None:
        lines += ["", *_separation(report.separation, style)]
    if report.nearest:
        lines += ["", *_nearest(report, style)]
    return spelt(lines, style)


def label(word: WordVector, style: Style) -> str:
    """A vector's name as it is shown: a row with its piece."""
    if word.kind == "row":
        return f"{word.word} {style.token(word.tokens[0])}"
    return style.encodable(one_line(word.word))


def matrix_lines(report: EmbedReport, style: Style) -> list[str]:
    """Which matrix it is, and the norms of its rows."""
    matrix = report.matrix
    parts = [
        one_line(report.model),
        one_line(matrix.name),
        f"{count(matrix.rows)} × {count(matrix.columns)}",
        matrix.dtype,
        f"{matrix.kind} embeddings" + (", tied: input and output are one" if matrix.tied else ""),
    ]
    (short_id, shortest), (long_id, longest) = matrix.shortest, matrix.longest
    mean, sd, least, most = (decimal(matrix.norms[k]) for k in ("mean", "sd", "min", "max"))
    norms = [
        f"norms of its rows: mean {mean}",
        f"sd {sd}",
        f"min {least} {style.token(shortest)} {short_id}",
        f"max {most} {style.token(longest)} {long_id}",
    ]
    return [*_wrapped(parts, " · ", style), *_wrapped(norms, " · ", style)]


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
    """A row a vector: its name, group, tokens, norm and silhouette."""
    words, names = report.words, [label(word, style) for word in report.words]
    index, name = max(len(str(len(words))), 2), _name_width(names, style, 4)
    groups = [one_line(word.group or "") for word in words] if report.groups else []
    group = min(max(map(cell_len, ["group", *groups])), _GROUP)
    silhouettes = report.separation.words if report.separation else ()
    room = style.width - (2 + index + 2 + name + 2 + 7 + 2 + 6)
    room -= (2 + group if groups else 0) + (2 + 10 if silhouettes else 0)
    if groups and room < 0:
        groups, room = [], room + 2 + group
    if silhouettes and room < 0:
        silhouettes, room = (), room + 2 + 10
    columns = [["#".rjust(index), *(str(k + 1).rjust(index) for k in range(len(words)))]]
    columns.append([pad("word", name), *(style.bold(pad(text, name)) for text in names)])
    if groups:
        columns.append([pad(text, group) for text in ["group", *groups]])
    columns.append(["norm".rjust(7), *(decimal(word.norm).rjust(7) for word in words)])
    if silhouettes:
        columns.append(["silhouette", *(decimal(value).rjust(10) for value in silhouettes)])
    tokens = ["tokens"]
    for word in words:
        pieces = " ".join(style.token(token) for token in word.tokens)
        pieces = "  " + clip(pieces, room - 2) if room >= 8 else ""
        tokens.append(f"{len(word.tokens):>6}{pieces}")
    heads, *rows = zip(*columns, tokens, strict=True)
    lines = ["  " + "  ".join(cells).rstrip() for cells in rows]
    return [style.dim(clip("  " + "  ".join(heads), style.width)), *lines]


def _name_width(names: Sequence[str], style: Style, least: int = 1) -> int:
    return min(max(least, *map(cell_len, names)), _WORD, max(style.width // 3, 4))


def heat_map(report: EmbedReport, style: Style) -> list[str]:
    """Cosine similarity of each pair, colours over the range that pairs take; in blocks of columns
    where not all fit side by side."""
    names = [label(word, style) for word in report.words]
    index = len(str(len(names)))
    left = 2 + index + 2 + min(max(map(cell_len, names)), 16, max(style.width // 4, 4))
    cell = _FULL if left + _FULL * len(names) <= style.width else _SHORT
    named = cell == _FULL and all(cell_len(name) < _FULL for name in names)
    heads = names if named else [str(k + 1) for k in range(len(names))]
    fit = max((style.width - left) // cell, 1)
    low, high = _range(report)
    unit = "" if cell == _FULL else ", in hundredths: 42 is 0.42"
    lines = [style.dim(clip(f"  cosine similarity{unit}", style.width))]
    for start in range(0, len(names), fit):
        block = range(len(names))[start : start + fit]
        head = "".join(" " * (cell - cell_len(heads[k])) + heads[k] for k in block)
        lines.append(style.dim(" " * left + head))
        for i, name in enumerate(names):
            values = (None if i == k else report.cosine[i][k] for k in block)
            row = "".join(_cell(value, cell, low, high, style) for value in values)
            lines.append(pad(f"  {str(i + 1).rjust(index)} {name}", left) + row.rstrip())
    return [*lines, _scale(low, high, left, style)] if len(names) > 2 else lines


def _range(report: EmbedReport) -> tuple[float, float]:
    """The lowest and the highest cosine of two different vectors."""
    pairs = [value for i, row in enumerate(report.cosine) for value in row[:i] if value is not None]
    return min(pairs, default=0.0), max(pairs, default=1.0)


def _cell(value: float | None, width: int, low: float, high: float, style: Style) -> str:
    """A cosine, filled with one of the scale's colours; None is a vector and itself, or one without
    a length."""
    if value is None:
        return style.dim(NOTHING.rjust(width))
    share = (value - low) / (high - low) if high > low else 0.5
    text = decimal(value) if width == _FULL else _hundredths(value)
    return style.theme.paint(style.theme.heat[min(int(share * 6), 5)], text.rjust(width))


def _hundredths(value: float) -> str:
    """Two digits and a sign; what rounds to ±1 is cut to 99."""
    hundredths = min(abs(round(100 * value)), 99)
    return f"−{hundredths}" if value < 0 and hundredths else str(hundredths)


def _scale(low: float, high: float, left: int, style: Style) -> str:
    heat = style.theme.heat
    if not any(heat):
        return style.dim(clip(f"  pairs from {decimal(low)} to {decimal(high)}", style.width))
    swatches = "".join(style.theme.paint(code, "  ") for code in heat)
    return f"{' ' * left}{style.dim(decimal(low))} {swatches} {decimal(high)}"


def _separation(separation: Separation, style: Style) -> list[str]:
    parts = [
        f"Groups: mean silhouette {decimal(separation.mean)} by cosine",
        f"{decimal(separation.plane)} in the plane",
    ]
    best = sorted(separation.groups.items(), key=lambda pair: -pair[1])
    parts += [f"{one_line(name)} {decimal(value)}" for name, value in best]
    return _wrapped(parts, " · ", style)


def _nearest(report: EmbedReport, style: Style) -> list[str]:
    """A table for a few vectors, a line each for many."""
    names = [label(word, style) for word in report.words]
    if len(names) <= 4:
        lines = []
        for name, neighbours in zip(names, report.nearest, strict=True):
            title = style.dim(clip(f"  nearest to {name}", style.width))
            lines += ["", title, *_neighbours(neighbours, style)]
        return lines[1:]
    lines = [style.dim("  nearest tokens, by cosine")]
    width = min(max(map(cell_len, names)), _WORD, style.width // 3)
    for name, neighbours in zip(names, report.nearest, strict=True):
        entries = [f"{style.token(near.token)} {decimal(near.cosine)}" for near in neighbours]
        row = clip("  ".join(entries), style.width - width - 4)
        lines.append(f"  {style.bold(pad(name, width))}  {row}")
    return lines


def _neighbours(neighbours: Sequence[Neighbour], style: Style) -> list[str]:
    if not neighbours:
        return ["  none: the vector has no direction"]
    rank = max(len(str(len(neighbours))), 2)
    ids = max(len(str(near.token_id)) for near in neighbours)
    names = [style.token(near.token) for near in neighbours]
    width = _name_width(names, style)
    room = min(style.width - (2 + rank + 2 + width + 2 + ids + 2 + 5 + 2), _BAR)
    lines = []
    for near, name in zip(neighbours, names, strict=True):
        drawn = bar(max(near.cosine, 0.0), room, style.ascii_only) if room >= 4 else ""
        start = f"  {near.rank:>{rank}}  {style.bold(pad(name, width))}  {near.token_id:>{ids}}"
        end = f"{decimal(near.cosine):>5}  {style.theme.paint(style.theme.bar, drawn)}"
        lines.append(f"{start}  {end}".rstrip())
    return lines


def _wrapped(parts: Sequence[str], separator: str, style: Style) -> list[str]:
    return wrap_parts((clip(part, style.width) for part in parts), style.width, separator)


def scatter(report: EmbedReport, style: Style, rows: int = 20) -> list[str]:
    """The plane in the terminal: a sign for each group, names where there is room.

    Distances across and down are the same, a cell being twice as high as it is wide.
    """
    plane = report.plane
    if plane is None:
        return []
    width = max(style.width - 2, 8)
    spots = _spots(plane, width, rows)
    signs = "ox+*abcdefgh" if style.ascii_only else "●■▲◆○□△◇"
    groups = list(report.groups)
    grid = [[" "] * width for _ in range(rows)]
    taken = set(spots)
    for word, (x, y) in zip(report.words, spots, strict=True):
        grid[y][x] = signs[groups.index(word.group) % len(signs)] if word.group else signs[0]
    for word, (x, y) in zip(report.words, spots, strict=True):
        _name(grid, clip(label(word, style), _WORD), x, y, taken)
    high, low = min(y for _, y in spots), max(y for _, y in spots)
    lines = ["  " + "".join(row).rstrip() for row in grid[max(high - 1, 0) : low + 2]]
    axes = [f"PC{k} {share(ratio)}" for k, ratio in enumerate(plane.ratio, start=1)]
    legend = [f"{signs[k % len(signs)]} {one_line(name)}" for k, name in enumerate(groups)]
    head = style.dim(clip(f"  across {axes[0]}, up {axes[1]} of the variance", style.width))
    below = wrap_parts((clip(name, width) for name in legend), width, "  ")
    return spelt([head, *lines, *(f"  {line}" for line in below)], style)


def _spots(plane: Plane, width: int, rows: int) -> list[tuple[int, int]]:
    """The cell of each point, PC2 upwards."""
    xs, ys = zip(*plane.coordinates, strict=True)
    unit = max((max(xs) - min(xs)) / (width * 0.8), (max(ys) - min(ys)) / (2 * rows - 2), 1e-12)
    left = (width * 0.9 - (max(xs) - min(xs)) / unit) / 2
    top = (2 * rows - 2 - (max(ys) - min(ys)) / unit) / 2
    return [
        (
            min(max(math.floor(left + (x - min(xs)) / unit), 0), width - 1),
            min(max(round((top + (max(ys) - y) / unit) / 2), 0), rows - 1),
        )
        for x, y in plane.coordinates
    ]


def _name(grid: list[list[str]], text: str, x: int, y: int, taken: set[tuple[int, int]]) -> None:
    """Write a name to the right of its point, or left, above or below; leave it out otherwise."""
    size = cell_len(text)
    for column, row in (
        (x + 2, y), (x - 1 - size, y), (x - size // 2, y - 1), (x - size // 2, y + 1),
        (x + 1, y - 1), (x + 1, y + 1), (x - size, y - 1), (x - size, y + 1),
    ):  # fmt: skip
        cells = {(k, row) for k in range(column - 1, column + size + 1)}
        inside = 0 <= row < len(grid) and column >= 0 and column + size <= len(grid[0])
        if inside and not (cells & taken) - {(x, y)}:
            # A wide character takes two cells: the second one holds nothing.
            grid[row][column : column + size] = _in_cells(text)
            taken |= {(k, row) for k in range(column, column + size)}
            return


def _in_cells(text: str) -> list[str]:
    """A string for each cell; marks stand with their letter, a wide one's second cell is empty."""
    cells: list[str] = []
    for character in text:
        size = cell_len(character)
        if size == 0 and cells:
            cells[-1] += character
        else:
            cells += [character, *[""] * (size - 1)]
    return cells
