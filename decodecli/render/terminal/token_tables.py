"""The tables of `tokenize`: a text cut into tokens, variants side by side, vocabularies."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest

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
from decodecli.render.terminal.table import Column, table_lines
from decodecli.render.terminal.wrap import RunningText, wrap_parts
from decodecli.render.theme import UNDERLINE, Theme

# Backgrounds, so that spaces are seen; with black text they are the same on dark and light screens.
_SHADES_256 = tuple(f"\x1b[38;5;16;48;5;{code}m" for code in (153, 223, 251))
_SHADES_16 = ("\x1b[30;46m", "\x1b[30;43m", "\x1b[30;47m")
_LONE_TONE = re.compile("(?<![\u2600-\u27bf\U0001f000-\U0001faff])[\U0001f3fb-\U0001f3ff]")
_HEADINGS: dict[object, str] = {
    "chat": "chat template applied",
    "ids": "decoded from ids",
    True: "with special tokens",
    False: "without special tokens",
}


def token_lines(report: TokenReport, style: Style) -> list[str]:
    """The whole report: the text by token, a row a token, counts, the round trip."""
    origin = _HEADINGS.get(report.source) or _HEADINGS.get(report.bos)
    title = " · ".join([one_line(report.model), *([origin] if origin else [])])
    lines = [style.dim(clip(title, style.width)), "", *text_lines(report, style), ""]
    columns = [Column("#", [str(row.position) for row in report.rows], right=True)]
    columns += _token_columns(report.rows, style)
    if report.source != "ids":
        # `4–7`: from the fourth character up to the seventh, counted from 0, the end not included.
        dash = "-" if style.ascii_only else "–"
        spans = [dash.join(map(str, row.span or ())) for row in report.rows]
        columns.append(Column("characters", spans, 5))
    lines += [*table_lines(columns, style, ("text", "characters", "kind")), ""]
    counts = report.counts()
    names = ("tokens", "characters", "bytes", "words")
    parts = [count(counts[name], name.removesuffix("s")) for name in names]
    if report.tokens_per_character is not None:
        parts.append(f"{_ratio(report.tokens_per_character)} tokens per character")
    if report.tokens_per_word is not None:
        parts.append(f"{_ratio(report.tokens_per_word)} per word")
    lines += wrap_parts(parts, style.width)
    if len(counts["kinds"]) > 1:
        kinds = (f"{count(number)} {kind}" for kind, number in counts["kinds"].items())
        lines.append(f"kinds: {', '.join(kinds)}")
    if not report.exact:
        lines.append("bytes and spans are an estimate")
    return lines + _round_trip(report, style)


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


def text_lines(report: TokenReport, style: Style) -> list[str]:
    """The text with every token told from its neighbours: by its background, by a line under every
    second one where there is no colour, by a bar between them off a terminal."""
    theme, running = style.theme, RunningText()
    bar, newline = ("|", "\\n\n") if style.ascii_only else ("│", NEWLINE + "\n")
    shades = _SHADES_256 if theme.bar.startswith("\x1b[38;5;") else _SHADES_16
    if not theme.bar:
        shades = (UNDERLINE, "") if theme.reset else ()
    number = 0
    for row in report.rows:
        text = piece_text(row.token, style)
        if row.data:
            text = newline.join(map(style.encodable, safe_text(row.text).split("\n")))
        if not text:
            continue  # inside a character, which its last token shows
        if shades:
            marked = row.inserted or row.kind in ("special", "added")
            running.add(text, theme.accent if marked else shades[number % len(shades)])
        else:
            running.add((bar if number else "") + text)
        number += 1
    return running.rows(max(style.width - 1, 1), theme.reset)


def piece_text(piece: str, style: Style) -> str:
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


def _token_columns(rows: Sequence[TokenRow | VocabularyRow], style: Style) -> list[Column]:
    """The columns that every table of tokens has."""
    codes = [_code(row.kind, style.theme) for row in rows]
    return [
        Column("token", [piece_text(row.token, style) for row in rows], 8, codes=codes),
        Column("id", [str(row.token_id) for row in rows], right=True),
        Column("text", [_on_one_line(row.text or "", style) for row in rows], 6),
        Column("bytes", [row.data.hex(" ").upper() for row in rows], 8),
        Column("kind", [row.kind for row in rows], 7),
    ]


def _code(kind: str, theme: Theme) -> str:
    return theme.accent if kind in ("special", "added", "unknown") else theme.bold


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def several_lines(reports: TokenReports, style: Style) -> list[str]:
    """Variants of one text side by side, or lines of a text in numbers. Paths and hub names stand by
    their last part, where that tells them apart."""
    short = tuple(name.rstrip("/").rpartition("/")[2] or name for name in reports.variants)
    if len(set(short)) == len(short):
        reports = replace(reports, variants=short)
    if reports.by == "line" or len(reports.reports) > len(reports.variants):
        return _by_line(reports, style)
    lines: list[str] = []
    for name, report in reports.named():
        lines += [style.dim(clip(one_line(name), style.width)), *text_lines(report, style), ""]
    lines += [*_side_by_side(reports, style), ""]

    def numbers(name: str, value: Callable[[TokenReport], str]) -> Column:
        return Column(name, list(map(value, reports.reports)), right=True)

    names = [one_line(name) for name in reports.variants]
    columns = [
        Column(reports.by, names, 8, codes=[style.theme.bold] * len(names)),
        numbers("tokens", lambda report: count(len(report.rows))),
        numbers("per char", lambda report: _ratio(report.tokens_per_character)),
        numbers("per word", lambda report: _ratio(report.tokens_per_word)),
        numbers("byte", lambda report: count(report.counts()["kinds"].get("byte", 0))),
        numbers("unknown", lambda report: count(report.counts()["kinds"].get("unknown", 0))),
        Column("round trip", list(map(_round_trip_cell, reports.reports)), 10),
    ]
    return lines + table_lines(columns, style, ("per word", "byte", "unknown"))


def _side_by_side(reports: TokenReports, style: Style) -> list[str]:
    """A column a variant, a line a token; lines begin anew where all of them end a token."""
    ends = sorted(set.intersection(*map(_ends, reports.reports)) - {0})
    many = len(reports.reports)
    width = min(max((style.width - 2 * (many - 1)) // many, 8), 30)

    def cell(row: TokenRow | None) -> str:
        if row is None:
            return " " * width
        number = str(row.token_id)
        name = pad(piece_text(row.token, style), max(width - len(number) - 2, 4))
        return style.theme.paint(_code(row.kind, style.theme), name) + f" {number} "

    # Of each variant the rows before the text, those up to each of the ends, and those after it.
    variants = []
    for report in reports.reports:
        blocks: list[list[TokenRow]] = [[] for _ in range(len(ends) + 2)]
        current = 0
        for row in report.rows:
            if row.span is not None:  # an empty one at a boundary belongs to the token after it
                current = max(current, 1 + bisect_right(ends, row.span[0]))
            blocks[current].append(row)
        variants.append(blocks)
    heads = "  ".join(pad(one_line(name), width) for name in reports.variants)
    lines = [style.dim(heads.rstrip())]
    for block in zip(*variants, strict=True):
        lines += ["  ".join(map(cell, rows)).rstrip() for rows in zip_longest(*block)]
    return lines


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


def _round_trip_cell(report: TokenReport) -> str:
    return "same" if report.difference is None else f"differs at {report.difference.at}"


def _by_line(reports: TokenReports, style: Style) -> list[str]:
    """A row a line of the text: its tokens under each variant, and their sum."""
    names = [""] if reports.by == "line" else list(reports.variants)
    starts = range(0, len(reports.reports), len(names))
    groups = [reports.reports[start : start + len(names)] for start in starts]
    firsts = [group[0] for group in groups]

    def with_total(name: str, numbers: list[int]) -> Column:
        return Column(name, [count(number) for number in (*numbers, sum(numbers))], right=True)

    columns = [
        Column("line", [*(str(first.line) for first in firsts), "all"], right=True),
        with_total("characters", [first.characters for first in firsts]),
        with_total("words", [first.words for first in firsts]),
    ]
    for k, name in enumerate(names):
        tokens = [len(group[k].rows) for group in groups]
        columns.append(with_total(one_line(name) or "tokens", tokens))
    if reports.by == "line":
        characters = sum(first.characters for first in firsts)
        overall = sum(first.spelling for first in firsts) / characters if characters else None
        ratios = [_ratio(ratio) for ratio in (*(f.tokens_per_character for f in firsts), overall)]
        columns.append(Column("per char", ratios, right=True))
        columns.append(Column("round trip", [*map(_round_trip_cell, firsts), ""], 10))
    texts = [_on_one_line(first.text, style) for first in firsts]
    columns.append(Column("text", [*texts, ""], 12))
    return table_lines(columns, style, ("text", "words", "round trip"))


def vocabulary_lines(report: VocabularyReport, style: Style) -> list[str]:
    """A row a token, then how many of each script the whole vocabulary has."""
    token, token_id, *others = _token_columns(report.rows, style)
    script = Column("script", [row.script for row in report.rows], 6)
    lines = table_lines([token_id, token, *others, script], style, ("text", "script"))
    listed = f"{count(len(report.rows))} of " if len(report.rows) < report.size else ""
    size = f"{one_line(report.model)} · {listed}{count(report.size, 'token')}"
    scripts = (f"{name} {count(number)}" for name, number in report.scripts.items())
    return [*lines, "", clip(size, style.width), *wrap_parts(scripts, style.width)]
