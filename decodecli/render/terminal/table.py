"""Columns as the lines of a table that fits the screen, and facts on as many lines as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from decodecli.render.escaping import pad
from decodecli.render.terminal.step_table import Style


@dataclass(frozen=True)
class Column:
    """A column of a table.

    least: how narrow it may get; what stands right, as numbers do, is not cut. most: how wide it may
    be. codes: an escape sequence for each cell, if any. gap: the blanks before it.
    """

    name: str
    cells: Sequence[str]
    least: int = 1
    most: int = 32
    right: bool = False
    codes: Sequence[str] = ()
    gap: int = 2


def fit(
    columns: Sequence[Column], width: int, optional: Sequence[str] = ()
) -> list[tuple[Column, int]]:
    """The columns that there is room for, each with its width. The widest are narrowed first (`bytes`
    before all others), then the `optional` ones are left out in turn."""
    widths = [min(max(map(cell_len, [c.name, *c.cells, " "])), c.most) for c in columns]
    floors = [
        size if c.right else min(c.least, size) for c, size in zip(columns, widths, strict=True)
    ]
    excess = sum(widths) + sum(column.gap for column in columns[1:]) - width
    while excess > 0 and (wide := [k for k, floor in enumerate(floors) if widths[k] > floor]):
        widths[max(wide, key=lambda k: (columns[k].name == "bytes", widths[k]))] -= 1
        excess -= 1
    if excess > 0 and optional:
        kept = [column for column in columns if column.name != optional[0]]
        return fit(kept, width, optional[1:])
    return list(zip(columns, widths, strict=True))


def table_lines(
    columns: Sequence[Column], style: Style, optional: Sequence[str] = (), indent: str = ""
) -> list[str]:
    """The headings and a line a row, of the columns that `fit`."""
    heads, painted = "", list[list[str]]()
    for column, width in fit(columns, style.width - len(indent), optional):
        gap = " " * column.gap if painted else ""
        heads += gap + pad(column.name, width, column.right)
        cells = [pad(cell, width, column.right) for cell in column.cells]
        codes = column.codes or [""] * len(cells)
        painted.append([gap + style.theme.paint(*pair) for pair in zip(codes, cells, strict=True)])
    rows = ("".join(cells) for cells in zip(*painted, strict=True))
    return [style.dim((indent + heads).rstrip()), *((indent + row).rstrip() for row in rows)]
