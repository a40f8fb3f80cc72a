"""The tables of `tokenize`: a text cut into tokens, variants side by side, vocabularies."""

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
    VocabularyRow,
)
from decodecli.render.escaping import NEWLINE, clip, one_line, pad, safe_text, visible
from decodecli.render.number_format import count
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.wrap import RunningText, wrap_parts
from decodecli.render.theme import UNDERLINE, Theme

_GAP = "  "
# Backgrounds, so that spaces are seen; with black text they are the same on dark and light screens.
_SHADES_256 = tuple(f"\x1b[38;5;16;48;5;{code}m" for code in (153, 223, 251))
_SHADES_16 = ("\x1b[30;46m", "\x1b[30;43m", "\x1b[30;47m")
_WIDEST = 32
_LONE_TONE = re.compile("(?<![\u2600-\u27bf\U0001f000-\U0001faff])[\U0001f3fb-\U0001f3ff]")


@dataclass(frozen=True)
class _Column:
    """A column: its cells, how narrow it may get, whether it stands right, as numbers do, which are
    never cut, and an escape sequence for each cell, if any."""

    name: str
    cells: list[str]
    least: int = 1
    right: bool = False
    codes: Sequence[str] = ()

    @property
    def natural(self) -> int:
        return min(max(cell_len(self.name), *map(cell_len, self.cells), 1), _WIDEST)

    @property
    def floor(self) -> int:
        return self.natural if self.right else min(self.least, self.natural)


def _table(columns: Sequence[_Column], style: Style, optional: Sequence[str] = ()) -> list[str]:
    """Columns as lines: the widest are narrowed first, then the `optional` ones left out in turn."""
    widths = _fit(columns, style.width)
    for name in optional:
        if sum(widths) + len(_GAP) * (len(columns) - 1) <= style.width:
            break
        columns = [column for column in columns if column.name != name]
        widths = _fit(columns, style.width)
    heads, painted = [], []
    for column, width in zip(columns, widths, strict=True):
        heads.append(pad(column.name, width, column.right))
        cells = [pad(cell, width, column.right) for cell in column.cells]
        codes = column.codes or [""] * len(cells)
        painted.append(list(map(style.theme.paint, codes, cells)))
    lines = [_GAP.join(cells).rstrip() for cells in zip(*painted, strict=True)]
    return [style.dim(_GAP.join(heads).rstrip()), *lines]


def _fit(columns: Sequence[_Column], width: int) -> list[int]:
    """Widths that add up to `width` if they can: bytes give way first, then whatever is widest."""
    widths = [column.natural for column in columns]
    for _ in range(sum(widths) + len(_GAP) * (len(columns) - 1) - width):
        narrowable = [k for k, column in enumerate(columns) if widths[k] > column.floor]
        if not narrowable:
            break
        widths[max(narrowable, key=lambda k: (columns[k].name == "bytes", widths[k]))] -= 1
    return widths


def token_lines(report: TokenReport, style: Style) -> list[str]:
    """The whole report: the text by token, a row a token, counts, the round trip."""
    parts = [one_line(report.model)]
    if report.source == "chat":
        parts.append("chat template applied")
    elif report.source == "ids":
        parts.append("decoded from ids")
    elif report.bos is not None:
        parts.append("with special tokens" if report.bos else "without special tokens")
    lines = [style.dim(clip(" · ".join(parts), style.width)), "", *text_lines(report, style), ""]
    columns = [_number_column("#", (row.position for row in report.rows))]
    columns += _token_columns(report.rows, style)
    if report.source != "ids":
        columns.append(_Column("characters", [_span(row, style) for row in report.rows], 5))
    lines += _table(columns, style, ("text", "characters", "kind"))
    return [*lines, "", *_counts(report, style), *_round_trip(report, style)]


def text_lines(report: TokenReport, style: Style) -> list[str]:
    """The text with every token told from its neighbours: by its background, by a line under every
    second one where there is no colour, by a bar between them off a terminal."""
    theme, running = style.theme, RunningText()
    shades, bar = _shades(theme), "|" if style.ascii_only else "│"
    number = 0
    for row in report.rows:
        text = _running(row.text, style) if row.data else piece_shown(row.token, style)
        if not text:
            continue  # inside a character, which its last token shows
        if shades:
            marked = row.inserted or row.kind in ("special", "added")
            running.add(text, theme.accent if marked else shades[number % len(shades)])
        else:
            running.add((bar if number else "") + text)
        number += 1
    return running.rows(max(style.width - 1, 1), theme.reset)


def _shades(theme: Theme) -> tuple[str, ...]:
    if not theme.reset:
        return ()
    if not theme.bar:
        return (UNDERLINE, "")
    return _SHADES_256 if theme.bar.startswith("\x1b[38;5;") else _SHADES_16


def _running(text: str, style: Style) -> str:
    lines = [style.encodable(line) for line in safe_text(text).split("\n")]
    return (("\\n" if style.ascii_only else NEWLINE) + "\n").join(lines)


def piece_shown(piece: str, style: Style) -> str:
    """A piece as the vocabulary spells it, `▁` and `Ġ` too; only what cannot be seen is a sign."""
    if piece.isascii() and piece.isprintable() and " " not in piece:
        return piece
    return _encodable("▁".join(visible(part) for part in piece.split("▁")), style)


def _on_one_line(text: str, style: Style) -> str:
    """Text whose spaces are seen. Spelling like a byte token's is text here, and no byte."""
    return _encodable("".join(map(visible, text)) if text[:1] == "<" else visible(text), style)


def _encodable(text: str, style: Style) -> str:
    """For the stream; a skin tone with nothing to colour is spelt, as terminals disagree about it."""
    return style.encodable(_LONE_TONE.sub(lambda match: f"<U+{ord(match[0]):04X}>", text))


def _number_column(name: str, numbers: Iterable[int]) -> _Column:
    return _Column(name, [str(number) for number in numbers], right=True)


def _token_columns(rows: Sequence[TokenRow | VocabularyRow], style: Style) -> list[_Column]:
    """The columns that every table of tokens has."""
    codes = [_code(row.kind, style.theme) for row in rows]
    return [
        _Column("token", [piece_shown(row.token, style) for row in rows], 8, codes=codes),
        _number_column("id", (row.token_id for row in rows)),
        _Column("text", [_on_one_line(row.text or "", style) for row in rows], 6),
        _Column("bytes", [row.data.hex(" ").upper() for row in rows], 8),
        _Column("kind", [row.kind for row in rows], 7),
    ]


def _code(kind: str, theme: Theme) -> str:
    return theme.accent if kind in ("special", "added", "unknown") else theme.bold


def _span(row: TokenRow, style: Style) -> str:
    """`4–7`: from the fourth character up to the seventh, counted from 0, the end not included."""
    return ("-" if style.ascii_only else "–").join(map(str, row.span or ()))


def _plural(number: int, name: str) -> str:
    return f"{count(number)} {name}{'' if number == 1 else 's'}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _counts(report: TokenReport, style: Style) -> list[str]:
    parts = [
        _plural(len(report.rows), "token"),
        _plural(report.characters, "character"),
        _plural(report.bytes, "byte"),
        _plural(report.words, "word"),
    ]
    if report.tokens_per_character is not None:
        parts.append(f"{_ratio(report.tokens_per_character)} tokens per character")
    if report.tokens_per_word is not None:
        parts.append(f"{_ratio(report.tokens_per_word)} per word")
    lines = wrap_parts(parts, style.width)
    kinds = report.counts()["kinds"]
    if len(kinds) > 1:
        lines.append("kinds: " + ", ".join(f"{count(n)} {kind}" for kind, n in kinds.items()))
    return lines if report.exact else [*lines, "bytes and spans are an estimate"]


def _round_trip(report: TokenReport, style: Style) -> list[str]:
    ids, difference = report.source == "ids", report.difference
    if difference is None:
        return [f"round trip: the same {'ids' if ids else 'text'}"]
    where, other = ("position", "other ids") if ids else ("character", "another text")
    lines = [style.accent(f"round trip: {other} from {where} {difference.at} on")]
    for name, text in (("given", difference.given), ("returned", difference.returned)):
        text = _on_one_line(text, style) if text else "(nothing)"
        lines.append(clip(f"  {name.ljust(8)}  {text}", style.width))
    return lines


# ---- several


def several_lines(reports: TokenReports, style: Style) -> list[str]:
    """Variants of one text side by side, or lines of a text in numbers."""
    reports = replace(reports, variants=_short(reports.variants))
    if reports.by == "line" or len(reports.reports) > len(reports.variants):
        return _by_line(reports, style)
    lines: list[str] = []
    for name, report in reports.named():
        lines += [style.dim(clip(one_line(name), style.width)), *text_lines(report, style), ""]
    return [*lines, *_side_by_side(reports, style), "", *_summary(reports, style)]


def _short(names: tuple[str, ...]) -> tuple[str, ...]:
    """Paths and hub names by their last part, where that tells them apart."""
    short = tuple(name.rstrip("/").rpartition("/")[2] or name for name in names)
    return short if len(set(short)) == len(names) else names


def _side_by_side(reports: TokenReports, style: Style) -> list[str]:
    """A column a variant, a line a token; lines begin anew where all of them end a token."""
    ends = sorted(set.intersection(*map(_ends, reports.reports)) - {0})
    blocks = [_blocks(report, ends) for report in reports.reports]
    width = min(max((style.width - 2 * (len(blocks) - 1)) // len(blocks), 8), 30)
    heads = _GAP.join(pad(one_line(name), width) for name in reports.variants)
    lines = [style.dim(heads.rstrip())]
    for block in zip(*blocks, strict=True):
        rows = ([_small_cell(row, width, style) for row in line] for line in zip_longest(*block))
        lines += [_GAP.join(cells).rstrip() for cells in rows]
    return lines


def _small_cell(row: TokenRow | None, width: int, style: Style) -> str:
    if row is None:
        return " " * width
    number = str(row.token_id)
    name = pad(piece_shown(row.token, style), max(width - len(number) - 2, 4))
    return style.theme.paint(_code(row.kind, style.theme), name) + f" {number} "


def _ends(report: TokenReport) -> set[int]:
    """Positions in the text where a token ends and none goes on."""
    ends: set[int] = set()
    reached = 0
    for row in report.rows:
        if row.span is not None:
            if row.span[0] >= reached:
                ends.add(reached)
            reached = max(reached, row.span[1])
    return ends | {reached}


def _blocks(report: TokenReport, ends: list[int]) -> list[list[TokenRow]]:
    """The rows before the text, those up to each of the ends, and those after it."""
    blocks: list[list[TokenRow]] = [[] for _ in range(len(ends) + 2)]
    current = 0
    for row in report.rows:
        if row.span is not None:
            current = max(current, 1)
            # An empty span at a boundary belongs to the token after it.
            while current <= len(ends) and row.span[0] >= ends[current - 1]:
                current += 1
        blocks[current].append(row)
    return blocks


def _summary(reports: TokenReports, style: Style) -> list[str]:
    """A row a variant."""

    def numbers(name: str, value: Callable[[TokenReport], str]) -> _Column:
        return _Column(name, [value(report) for report in reports.reports], right=True)

    names = [one_line(name) for name in reports.variants]
    columns = [
        _Column(reports.by, names, 8, codes=[style.theme.bold] * len(names)),
        numbers("tokens", lambda report: count(len(report.rows))),
        numbers("per char", lambda report: _ratio(report.tokens_per_character)),
        numbers("per word", lambda report: _ratio(report.tokens_per_word)),
        numbers("byte", lambda report: _of_kind(report, "byte")),
        numbers("unknown", lambda report: _of_kind(report, "unknown")),
        _Column("round trip", [_round_trip_cell(report) for report in reports.reports], 10),
    ]
    return _table(columns, style, ("per word", "byte", "unknown"))


def _of_kind(report: TokenReport, kind: str) -> str:
    return count(sum(row.kind == kind for row in report.rows))


def _round_trip_cell(report: TokenReport) -> str:
    return "same" if report.difference is None else f"differs at {report.difference.at}"


def _by_line(reports: TokenReports, style: Style) -> list[str]:
    """A row a line of the text: its tokens under each variant, and their sum."""
    names = [""] if reports.by == "line" else list(reports.variants)
    starts = range(0, len(reports.reports), len(names))
    groups = [reports.reports[start : start + len(names)] for start in starts]
    firsts = [group[0] for group in groups]
    columns = [
        _Column("line", [*(str(first.line) for first in firsts), "all"], right=True),
        _totalled("characters", [first.characters for first in firsts]),
        _totalled("words", [first.words for first in firsts]),
    ]
    for k, name in enumerate(names):
        columns.append(
            _totalled(one_line(name) or "tokens", [len(group[k].rows) for group in groups])
        )
    if reports.by == "line":
        characters = sum(first.characters for first in firsts)
        spelling = sum(first.spelling for first in firsts)
        ratios = [_ratio(first.tokens_per_character) for first in firsts]
        overall = _ratio(spelling / characters) if characters else ""
        columns.append(_Column("per char", [*ratios, overall], right=True))
        columns.append(_Column("round trip", [*map(_round_trip_cell, firsts), ""], 10))
    room = style.width - sum(column.natural + len(_GAP) for column in columns)
    if room >= 12:
        texts = (_on_one_line(first.text, style) for first in firsts)
        columns.append(_Column("text", [*(clip(t, min(room, _WIDEST)) for t in texts), ""], 4))
    return _table(columns, style, ("text", "words", "round trip"))


def _totalled(name: str, numbers: list[int]) -> _Column:
    return _Column(name, [count(number) for number in (*numbers, sum(numbers))], right=True)


# ---- a vocabulary


def vocabulary_lines(report: VocabularyReport, style: Style) -> list[str]:
    """A row a token, then how many of each script the whole vocabulary has."""
    token, token_id, *others = _token_columns(report.rows, style)
    script = _Column("script", [row.script for row in report.rows], 6)
    lines = _table([token_id, token, *others, script], style, ("text", "script"))
    listed = f"{count(len(report.rows))} of " if len(report.rows) < report.size else ""
    size = f"{one_line(report.model)} · {listed}{_plural(report.size, 'token')}"
    scripts = (f"{name} {count(number)}" for name, number in report.scripts.items())
    return [*lines, "", clip(size, style.width), *wrap_parts(scripts, style.width)]
