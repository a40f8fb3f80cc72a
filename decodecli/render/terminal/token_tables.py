"""What `tokenize` shows: a text cut into tokens, their table, variants side by side, vocabularies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from rich.cells import cell_len

from decodecli.records.tokens import (
    TokenReport,
    TokenReports,
    TokenRow,
    VocabularyReport,
)
from decodecli.render.escaping import NEWLINE, clip, encodable, one_line, pad, safe_text, visible
from decodecli.render.number_format import count
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.wrap import RunningText
from decodecli.render.theme import UNDERLINE, Theme

_GAP = "  "
# Backgrounds, so that spaces are seen; with black text they are the same on dark and light screens.
_SHADES_256 = tuple(f"\x1b[38;5;16;48;5;{code}m" for code in (153, 223, 251))
_SHADES_16 = ("\x1b[30;46m", "\x1b[30;43m", "\x1b[30;47m")
_WIDEST = 32
_LONE_TONE = re.compile("(?<![\u2600-\u27bf\U0001f000-\U0001faff])[\U0001f3fb-\U0001f3ff]")


@dataclass(frozen=True)
class _Column:
    """A column: its cells, how narrow it may get, and whether it stands right, as numbers do, which
    are never cut."""

    name: str
    cells: list[str]
    least: int
    right: bool = False

    @property
    def natural(self) -> int:
        return min(max(cell_len(self.name), *map(cell_len, self.cells), 1), _WIDEST)

    @property
    def floor(self) -> int:
        return self.natural if self.right else min(self.least, self.natural)

    def shown(self, cell: str, width: int) -> str:
        cell = clip(cell, width)
        gap = " " * (width - cell_len(cell))
        return gap + cell if self.right else cell + gap


def token_lines(report: TokenReport, style: Style) -> list[str]:
    """The whole report: the text by token, a row a token, counts, the round trip."""
    lines = [_header(report, style), ""]
    lines += [*text_lines(report, style), ""]
    lines += _table(report, style)
    return [*lines, "", *_counts(report, style), *_round_trip(report, style)]


def _header(report: TokenReport, style: Style) -> str:
    parts = [one_line(report.model)]
    if report.source == "chat":
        parts.append("chat template applied")
    elif report.source == "ids":
        parts.append("decoded from ids")
    elif report.bos is not None:
        parts.append("with special tokens" if report.bos else "without special tokens")
    return style.theme.paint(style.theme.dim, clip(" · ".join(parts), style.width))


def text_lines(report: TokenReport, style: Style) -> list[str]:
    """The text with every token told from its neighbours: by its background, by a line under every
    second one where there is no colour, by a bar between them off a terminal."""
    theme, flow = style.theme, RunningText()
    shades, between = _shades(theme), "|" if style.ascii_only else "│"
    number = 0
    for row in report.rows:
        text = _running(row.text, style) if row.data else piece_shown(row.token, style)
        if not text:
            continue  # inside a character, which its last token shows
        if shades:
            marked = row.inserted or row.kind in ("special", "added")
            flow.add(text, theme.accent if marked else shades[number % len(shades)])
        else:
            flow.add((between if number else "") + text)
        number += 1
    return flow.rows(max(style.width - 1, 1), theme.reset)


def _shades(theme: Theme) -> tuple[str, ...]:
    if not theme.reset:
        return ()
    if not theme.bar:
        return (UNDERLINE, "")
    return _SHADES_256 if theme.bar.startswith("\x1b[38;5;") else _SHADES_16


def _running(text: str, style: Style) -> str:
    shown = safe_text(text)
    if style.ascii_only:
        shown = "\n".join(encodable(line, style.encoding) for line in shown.split("\n"))
        return shown.replace("\n", "\\n\n")
    return shown.replace("\n", NEWLINE + "\n")


def piece_shown(piece: str, style: Style) -> str:
    """A piece as the vocabulary spells it, `▁` and `Ġ` too; only what cannot be seen is a sign."""
    if piece.isascii() and piece.isprintable() and " " not in piece:
        return piece
    return _encoded("▁".join(visible(part) for part in piece.split("▁")), style)


def _text_shown(text: str, style: Style) -> str:
    """Text on one line. Spelling like a byte token's is text here, and no byte."""
    return _encoded("".join(map(visible, text)) if text[:1] == "<" else visible(text), style)


def _encoded(shown: str, style: Style) -> str:
    """For the stream; a skin tone with nothing to colour is spelt, as terminals disagree about it."""
    shown = _LONE_TONE.sub(lambda match: f"<U+{ord(match[0]):04X}>", shown)
    return encodable(shown, style.encoding) if style.ascii_only else shown


def _table(report: TokenReport, style: Style) -> list[str]:
    rows = report.rows
    columns = [
        _Column("#", [str(row.position) for row in rows], 1, right=True),
        _Column("token", [piece_shown(row.token, style) for row in rows], 8),
        _Column("id", [str(row.token_id) for row in rows], 1, right=True),
        _Column("text", [_text_shown(row.text, style) for row in rows], 6),
        _Column("bytes", [row.data.hex(" ").upper() for row in rows], 8),
        _Column("kind", [row.kind for row in rows], 7),
    ]
    if report.source != "ids":
        columns.append(_Column("characters", [_span(row, style) for row in rows], 5))
    return _lines(columns, ("text", "characters", "kind"), [_mark(row.kind) for row in rows], style)


def _mark(kind: str) -> str:
    return "accent" if kind in ("special", "added", "unknown") else "bold"


def _span(row: TokenRow, style: Style) -> str:
    """`4–7`: from the fourth character up to the seventh, counted from 0, the end not included."""
    if row.span is None:
        return ""
    return f"{row.span[0]}{'-' if style.ascii_only else '–'}{row.span[1]}"


def _lines(
    columns: list[_Column], optional: Sequence[str], marks: Sequence[str], style: Style
) -> list[str]:
    """Columns as lines: the widest are narrowed first, then the `optional` ones left out in turn."""
    widths = _fit(columns, style.width)
    for name in optional:
        if sum(widths) + len(_GAP) * (len(columns) - 1) <= style.width:
            break
        columns = [column for column in columns if column.name != name]
        widths = _fit(columns, style.width)
    theme = style.theme
    heads = [
        column.shown(column.name, width) for column, width in zip(columns, widths, strict=True)
    ]
    lines = [theme.paint(theme.dim, _GAP.join(heads).rstrip())]
    for place, mark in enumerate(marks):
        cells = []
        for column, width in zip(columns, widths, strict=True):
            cell = column.shown(column.cells[place], width)
            cells.append(
                theme.paint(getattr(theme, mark), cell)
                if column.name in ("token", "model", "bos")
                else cell
            )
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _fit(columns: list[_Column], width: int) -> list[int]:
    """Widths that add up to `width` if they can: bytes give way first, then whatever is widest."""
    widths = [column.natural for column in columns]
    while sum(widths) + len(_GAP) * (len(columns) - 1) > width:
        spare = [wide - column.floor for wide, column in zip(widths, columns, strict=True)]
        if max(spare) <= 0:
            break

        def gives(place: int, spare: list[int] = spare) -> tuple[bool, bool, int]:
            return spare[place] > 0, columns[place].name == "bytes", widths[place]

        widths[max(range(len(widths)), key=gives)] -= 1
    return widths


def joined(parts: Iterable[str], width: int) -> list[str]:
    """Parts with dots between, wrapped between parts."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + 3 + cell_len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def _many(number: int, name: str) -> str:
    return f"{count(number)} {name}{'' if number == 1 else 's'}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _counts(report: TokenReport, style: Style) -> list[str]:
    parts = [
        _many(len(report.rows), "token"),
        _many(report.characters, "character"),
        _many(report.bytes, "byte"),
        _many(report.words, "word"),
    ]
    kinds = report.counts()["kinds"]
    if report.tokens_per_character is not None:
        parts.append(f"{_ratio(report.tokens_per_character)} tokens per character")
    if report.tokens_per_word is not None:
        parts.append(f"{_ratio(report.tokens_per_word)} per word")
    lines = joined(parts, style.width)
    if len(kinds) > 1:
        lines.append("kinds: " + ", ".join(f"{count(n)} {kind}" for kind, n in kinds.items()))
    if not report.exact:
        lines.append("bytes and spans are an estimate")
    return lines


def _round_trip(report: TokenReport, style: Style) -> list[str]:
    what = "ids" if report.source == "ids" else "text"
    found = report.difference
    if found is None:
        return [f"round trip: the same {what}"]
    where, other = ("position", "other ids") if what == "ids" else ("character", "another text")
    theme = style.theme
    lines = [theme.paint(theme.accent, f"round trip: {other} from {where} {found.at} on")]
    for name, text in (("given", found.given), ("returned", found.returned)):
        shown = _text_shown(text, style) if text else "(nothing)"
        lines.append(clip(f"  {name.ljust(8)}  {shown}", style.width))
    return lines


# ---- several


def several_lines(found: TokenReports, style: Style) -> list[str]:
    """Variants of one text side by side, or lines of a text in numbers."""
    found = replace(found, variants=_short(found.variants))
    if found.by == "line" or len(found.reports) > len(found.variants):
        return _by_line(found, style)
    lines: list[str] = []
    for name, report in found.named():
        lines += [style.theme.paint(style.theme.dim, clip(one_line(name), style.width))]
        lines += [*text_lines(report, style), ""]
    lines += [*_side_by_side(found, style), ""]
    return [*lines, *_summary(found, style)]


def _short(names: tuple[str, ...]) -> tuple[str, ...]:
    """Paths and hub names by their last part, where that tells them apart."""
    short = tuple(name.rstrip("/").rpartition("/")[2] or name for name in names)
    return short if len(set(short)) == len(names) else names


def _side_by_side(found: TokenReports, style: Style) -> list[str]:
    """A column a variant, a line a token; lines begin anew where all of them end a token."""
    blocks = [_blocks(report, _common_ends(found.reports)) for report in found.reports]
    each = max((style.width - 2 * (len(blocks) - 1)) // len(blocks), 8)
    each = min(each, 30)
    heads = [pad(one_line(name), each) for name in found.variants]
    theme = style.theme
    lines = [theme.paint(theme.dim, _GAP.join(heads).rstrip())]
    for rows in zip(*blocks, strict=True):
        for line in zip_longest(*rows):
            cells = [_small_cell(row, each, style) for row in line]
            lines.append(_GAP.join(cells).rstrip())
    return lines


def _small_cell(row: TokenRow | None, width: int, style: Style) -> str:
    if row is None:
        return " " * width
    number = str(row.token_id)
    name = pad(piece_shown(row.token, style), max(width - len(number) - 2, 4))
    return style.theme.paint(getattr(style.theme, _mark(row.kind)), name) + f" {number} "


def _ends(report: TokenReport) -> set[int]:
    """Places in the text where a token ends and none goes on."""
    found: set[int] = set()
    reached = 0
    for row in report.rows:
        if row.span is not None:
            if row.span[0] >= reached:
                found.add(reached)
            reached = max(reached, row.span[1])
    return found | {reached}


def _common_ends(reports: Sequence[TokenReport]) -> list[int]:
    common = set.intersection(*map(_ends, reports)) - {0}
    return sorted(common)


def _blocks(report: TokenReport, ends: list[int]) -> list[list[TokenRow]]:
    """The rows before the text, those up to each of the ends, and those after it."""
    blocks: list[list[TokenRow]] = [[] for _ in range(len(ends) + 2)]
    place = 0
    for row in report.rows:
        if row.span is None:
            blocks[place].append(row)
            continue
        place = max(place, 1)
        # An empty span at a boundary belongs to the token after it.
        while place <= len(ends) and row.span[0] >= ends[place - 1]:
            place += 1
        blocks[min(place, len(ends) + 1)].append(row)
    return blocks


def _summary(found: TokenReports, style: Style) -> list[str]:
    reports = found.reports

    def cells(value: Callable[[TokenReport], str]) -> list[str]:
        return [value(report) for report in reports]

    columns = [
        _Column(found.by, [one_line(name) for name in found.variants], 8),
        _Column("tokens", cells(lambda r: count(len(r.rows))), 6, right=True),
        _Column("per char", cells(lambda r: _ratio(r.tokens_per_character)), 8, right=True),
        _Column("per word", cells(lambda r: _ratio(r.tokens_per_word)), 8, right=True),
        _Column("byte", cells(_byte_tokens), 4, right=True),
        _Column("unknown", cells(_unknown_tokens), 7, right=True),
        _Column("round trip", cells(_round_trip_cell), 10),
    ]
    return _lines(columns, ("per word", "byte", "unknown"), ["bold"] * len(reports), style)


def _byte_tokens(report: TokenReport) -> str:
    return count(sum(row.kind == "byte" for row in report.rows))


def _unknown_tokens(report: TokenReport) -> str:
    return count(sum(row.kind == "unknown" for row in report.rows))


def _round_trip_cell(report: TokenReport) -> str:
    return "same" if report.difference is None else f"differs at {report.difference.at}"


def _by_line(found: TokenReports, style: Style) -> list[str]:
    """A row a line of the text: its tokens under each variant, and their sum."""
    names = [""] if found.by == "line" else list(found.variants)
    groups = [
        found.reports[start : start + len(names)]
        for start in range(0, len(found.reports), len(names))
    ]
    columns = [
        _Column("line", [str(group[0].line) for group in groups] + ["all"], 4, right=True),
        _Column("characters", _totalled(group[0].characters for group in groups), 5, right=True),
        _Column("words", _totalled(group[0].words for group in groups), 5, right=True),
    ]
    for place, name in enumerate(names):
        tokens = [len(group[place].rows) for group in groups]
        columns.append(_Column(one_line(name) or "tokens", _totalled(tokens), 6, right=True))
    if found.by == "line":
        ratios = [_ratio(group[0].tokens_per_character) for group in groups]
        columns.append(_Column("per char", [*ratios, _overall(groups)], 8, right=True))
        trips = [_round_trip_cell(group[0]) for group in groups]
        columns.append(_Column("round trip", [*trips, ""], 10))
    used = sum(column.natural + len(_GAP) for column in columns)
    texts = [_text_shown(group[0].text, style) for group in groups]
    room = style.width - used
    if room >= 12:
        columns.append(
            _Column("text", [*(clip(text, min(room, _WIDEST)) for text in texts), ""], 4)
        )
    return _lines(columns, ("text", "words", "round trip"), ["bold"] * len(columns[0].cells), style)


def _totalled(values: Iterable[int]) -> list[str]:
    numbers = list(values)
    return [count(number) for number in [*numbers, sum(numbers)]]


def _overall(groups: Sequence[Sequence[TokenReport]]) -> str:
    characters = sum(group[0].characters for group in groups)
    return _ratio(sum(group[0].spelling for group in groups) / characters) if characters else ""


# ---- a vocabulary


def vocabulary_lines(report: VocabularyReport, style: Style) -> list[str]:
    """A row a token, then how many of each script the whole vocabulary has."""
    rows = report.rows
    columns = [
        _Column("id", [str(row.token_id) for row in rows], 1, right=True),
        _Column("token", [piece_shown(row.token, style) for row in rows], 8),
        _Column("text", [_text_shown(row.text or "", style) for row in rows], 6),
        _Column("bytes", [row.data.hex(" ").upper() for row in rows], 8),
        _Column("kind", [row.kind for row in rows], 7),
        _Column("script", [row.script for row in rows], 6),
    ]
    lines = _lines(columns, ("text", "script"), [_mark(row.kind) for row in rows], style)
    shown = f"{count(len(rows))} of " if len(rows) < report.size else ""
    lines += [
        "",
        clip(f"{one_line(report.model)} · {shown}{_many(report.size, 'token')}", style.width),
    ]
    return lines + joined((f"{name} {count(n)}" for name, n in report.scripts.items()), style.width)
