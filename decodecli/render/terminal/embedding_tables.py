"""An `EmbedReport` in the terminal: the matrix, the vectors, a heat map of cosines, what is near."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from decodecli.records.embedding import EmbedReport, Neighbour, Plane, Separation, WordVector
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, encodable, one_line, pad
from decodecli.render.number_format import bar, count, decimal
from decodecli.render.terminal.step_table import Style

_WORD, _GROUP, _BAR = 24, 14, 30
_FULL, _SHORT = 6, 3  # cells of a cosine: −0.42, or hundredths: 42
_NOTHING = "·"


def embed_lines(report: EmbedReport, style: Style) -> list[str]:
    """The whole report."""
    lines = [*matrix_lines(report, style), "", *_vectors(report, style)]
    if len(report.words) > 1:
        lines += ["", *heat_map(report, style)]
    if report.plane is not None:
        lines += ["", *_wrapped(plane_sentence(report.plane).split(" "), " ", style.width)]
    if report.separation is not None:
        lines += ["", *_separation(report.separation, style)]
    if report.nearest:
        lines += ["", *_nearest(report, style)]
    return spelt(lines, style)


def spelt(lines: Sequence[str], style: Style) -> list[str]:
    """Lines in characters that the stream can carry."""
    return [encodable(line, style.encoding) for line in lines] if style.ascii_only else list(lines)


def label(word: WordVector, style: Style) -> str:
    """A vector's name as it is shown: a row with its piece."""
    if word.kind == "row":
        return f"{word.word} {style.token(word.tokens[0])}"
    name = one_line(word.word)
    return encodable(name, style.encoding) if style.ascii_only else name


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
    return [*_wrapped(parts, " · ", style.width), *_wrapped(norms, " · ", style.width)]


def share(ratio: float) -> str:
    """A share of the variance: `18.6%`."""
    return numbers.percent(ratio) if ratio else "0%"


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
    theme, words = style.theme, report.words
    names = [label(word, style) for word in words]
    place = max(len(str(len(words))), 2)
    name = min(max(4, *(cell_len(text) for text in names)), _WORD, max(style.width // 3, 4))
    group = min(max((cell_len(one_line(g)) for g in ("group", *report.groups)), default=5), _GROUP)
    group = group if report.groups else 0
    separate = report.separation
    fixed = 2 + place + 2 + name + (2 + group if group else 0) + 2 + 7 + 2 + 6
    fixed += 2 + 10 if separate else 0
    if group and fixed > style.width:
        fixed, group = fixed - 2 - group, 0
    if separate and fixed > style.width:
        fixed, separate = fixed - 2 - 10, None
    tokens = style.width - fixed - 2
    heads = ["  " + "#".rjust(place), pad("word", name)]
    heads += [pad("group", group)] if group else []
    heads += ["norm".rjust(7), *(["silhouette"] if separate else []), "tokens"]
    lines = [theme.paint(theme.dim, clip("  ".join(heads), style.width))]
    for index, (word, text) in enumerate(zip(words, names, strict=True)):
        cells = ["  " + str(index + 1).rjust(place), theme.paint(theme.bold, pad(text, name))]
        cells += [pad(one_line(word.group or ""), group)] if group else []
        cells.append(decimal(word.norm).rjust(7))
        cells += [decimal(separate.words[index]).rjust(10)] if separate else []
        pieces = " ".join(style.token(token) for token in word.tokens)
        cells.append(str(len(word.tokens)).rjust(6))
        cells += [clip(pieces, tokens)] if tokens >= 6 else []
        lines.append("  ".join(cells).rstrip())
    return lines


def heat_map(report: EmbedReport, style: Style) -> list[str]:
    """Cosine similarity of each pair, colours over the range that pairs take; in blocks of columns
    where not all fit side by side."""
    theme, words = style.theme, report.words
    names = [label(word, style) for word in words]
    place = len(str(len(words)))
    left = 2 + place + 2 + min(max(cell_len(name) for name in names), 16, max(style.width // 4, 4))
    named = all(cell_len(name) < _FULL for name in names)
    cell = _FULL if left + _FULL * len(words) <= style.width else _SHORT
    fit = max((style.width - left) // cell, 1)
    low, high = _range(report)
    unit = "" if cell == _FULL else ", in hundredths: 42 is 0.42"
    lines = [theme.paint(theme.dim, clip(f"  cosine similarity{unit}", style.width))]
    for start in range(0, len(words), fit):
        block = range(start, min(start + fit, len(words)))
        heads = [
            (clip(names[k], cell - 1) if named and cell == _FULL else str(k + 1)) for k in block
        ]
        head = "".join(" " * (cell - cell_len(text)) + text for text in heads)
        lines.append(theme.paint(theme.dim, " " * left + head))
        for index, name in enumerate(names):
            row = "".join(
                _cell(report.cosine[index][k], index == k, cell, (low, high), style) for k in block
            )
            lines.append(pad(f"  {str(index + 1).rjust(place)} {name}", left) + row.rstrip())
    return [*lines, _scale(low, high, left, style)] if len(words) > 2 else lines


def _range(report: EmbedReport) -> tuple[float, float]:
    """The lowest and the highest cosine of two different vectors."""
    found = [value for i, row in enumerate(report.cosine) for value in row[:i] if value is not None]
    return min(found, default=0.0), max(found, default=1.0)


def _cell(
    value: float | None, own: bool, width: int, ends: tuple[float, float], style: Style
) -> str:
    if own or value is None:
        return style.theme.paint(style.theme.dim, _NOTHING.rjust(width))
    text = decimal(value) if width == _FULL else _hundredths(value)
    return _filled(text.rjust(width), _level(value, ends), style)


def _hundredths(value: float) -> str:
    """Two digits and a sign; what rounds to ±1 is cut to 99."""
    found = min(abs(round(100 * value)), 99)
    return f"−{found}" if value < 0 and found else str(found)


def _level(value: float, ends: tuple[float, float]) -> int:
    low, high = ends
    share = (value - low) / (high - low) if high > low else 0.5
    return min(int(share * 6), 5)


def _filled(text: str, level: int, style: Style) -> str:
    """A cell filled with one of the scale's colours, where there are colours."""
    theme = style.theme
    return theme.paint(theme.heat[level], text)


def _scale(low: float, high: float, left: int, style: Style) -> str:
    theme = style.theme
    ends = [decimal(low), decimal(high)]
    if not any(theme.heat):
        text = f"  pairs from {ends[0]} to {ends[1]}"
        return theme.paint(theme.dim, clip(text, style.width))
    swatches = "".join(_filled("  ", level, style) for level in range(6))
    return " " * left + theme.paint(theme.dim, ends[0]) + f" {swatches} " + ends[1]


def _separation(found: Separation, style: Style) -> list[str]:
    parts = [
        f"Groups: mean silhouette {decimal(found.mean)} by cosine",
        f"{decimal(found.plane)} in the plane",
    ]
    best = sorted(found.groups.items(), key=lambda pair: -pair[1])
    parts += [f"{one_line(name)} {decimal(value)}" for name, value in best]
    return _wrapped(parts, " · ", style.width)


def _nearest(report: EmbedReport, style: Style) -> list[str]:
    """A table for a few vectors, a line each for many."""
    lines: list[str] = []
    if len(report.words) > 4:
        lines.append(style.theme.paint(style.theme.dim, "  nearest tokens, by cosine"))
        names = [label(word, style) for word in report.words]
        width = min(max(cell_len(name) for name in names), _WORD, style.width // 3)
        for name, found in zip(names, report.nearest, strict=True):
            entries = [f"{style.token(near.token)} {decimal(near.cosine)}" for near in found]
            start = "  " + style.theme.paint(style.theme.bold, pad(name, width)) + "  "
            lines.append(start + clip("  ".join(entries), style.width - width - 4))
        return lines
    for word, found in zip(report.words, report.nearest, strict=True):
        title = clip(f"  nearest to {label(word, style)}", style.width)
        lines += [*([""] if lines else []), style.theme.paint(style.theme.dim, title)]
        lines += _neighbours(found, style)
    return lines


def _neighbours(found: Sequence[Neighbour], style: Style) -> list[str]:
    if not found:
        return ["  none: the vector has no direction"]
    place = max(len(str(len(found))), 2)
    ids = max(len(str(near.token_id)) for near in found)
    names = [style.token(near.token) for near in found]
    width = min(max(cell_len(name) for name in names), _WORD, max(style.width // 3, 4))
    room = min(style.width - (2 + place + 2 + width + 2 + ids + 2 + 5 + 2), _BAR)
    lines = []
    for near, name in zip(found, names, strict=True):
        drawn = bar(max(near.cosine, 0.0), room, style.ascii_only) if room >= 4 else ""
        cells = [
            "  " + str(near.rank).rjust(place),
            style.theme.paint(style.theme.bold, pad(name, width)),
            str(near.token_id).rjust(ids),
            decimal(near.cosine).rjust(5),
            style.theme.paint(style.theme.bar, drawn),
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _wrapped(parts: Sequence[str], between: str, width: int) -> list[str]:
    """Parts joined on as many lines as they need; a part that is too long is cut."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + cell_len(between) + cell_len(part) <= width:
            lines[-1] += between + part
        else:
            lines.append(clip(part, width))
    return lines


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
    head = f"  across {axes[0]}, up {axes[1]} of the variance"
    head = style.theme.paint(style.theme.dim, clip(head, style.width))
    return spelt([head, *lines, *(f"  {line}" for line in _wrapped(legend, "  ", width))], style)


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
    cells: list[str] = []
    for character in text:
        size = cell_len(character)
        if size == 0 and cells:
            cells[-1] += character
        else:
            cells += [character, *[""] * (size - 1)]
    return cells
