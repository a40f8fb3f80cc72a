"""One decoding step as text: the full table, or one line.

Plain strings with escape sequences made beforehand: a table widget would cost ten times as much, and
it would take `[/INST]` for markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from rich.cells import cell_len

from decodecli.records.run import RunHeader, Step, Watched, WhatIf, exp_or_zero
from decodecli.render import number_format as numbers
from decodecli.render.escaping import DRAWING_SIGNS, clip, encodable, pad, visible
from decodecli.render.explanation import sentence
from decodecli.render.number_format import (
    bar,
    count,
    decimal,
    percent,
    percent_bare,
    percent_cell,
    rest_cell,
)
from decodecli.render.terminal.wrap import wrap_parts
from decodecli.render.theme import LEVELS, PLAIN, Theme, level
from decodecli.stages import ORDER, RESCORING

_FILTERS = {*ORDER, "greedy"} - RESCORING
_SHORT_NAMES = {
    "no_repeat_ngram_size": "ngram",
    "repetition_penalty": "penalty",
    "epsilon_cutoff": "epsilon",
    "eta_cutoff": "eta",
    "top_nsigma": "nsigma",
    "min_new_tokens": "min new",
    "bad_words": "bad word",
    "xtc_probability": "xtc",
    "typical_p": "typical",
}
_OPTIONAL = ("id", "logit", "cumulative", "at_one", "tempered")  # the first gives way first
_TOKEN, _TOKEN_WIDE, _TAIL, _BAR_MAX = 10, 24, 9, 80
_LOGIT = 8
_INDEX = 4  # cells of `step_line`'s first column


@dataclass(frozen=True)
class Style:
    """The look of a run's steps: what the terminal can do, and what kind of run it is."""

    width: int = 80
    theme: Theme = PLAIN
    encoding: str = "utf-8"
    vocab_size: int = 0
    tempered: str = ""  # the tempered column's heading, "" when it would repeat T=1
    greedy: bool = False
    byte_level: bool = False
    filtered: bool = True  # whether a stage removes tokens: `kept` says something

    @property
    def ascii_only(self) -> bool:
        return not self.encoding.lower().replace("_", "-").startswith("utf")

    def encodable(self, text: str) -> str:
        """Text in characters that the stream can carry."""
        return encodable(text, self.encoding) if self.ascii_only else text

    def printable(self, text: str) -> str:
        """Lines in characters that the stream can carry, the signs that they are drawn with too."""
        if not self.ascii_only:
            return text
        drawn = text.translate(DRAWING_SIGNS)
        return drawn.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def token(self, piece: str) -> str:
        """A piece made visible, in characters that the stream can carry."""
        return self.encodable(visible(piece, self.byte_level))

    def dim(self, text: str) -> str:
        """Text that steps back: headings and totals."""
        return self.theme.paint(self.theme.dim, text)

    def bold(self, text: str) -> str:
        """Text that stands out."""
        return self.theme.paint(self.theme.bold, text)

    def accent(self, text: str) -> str:
        """Text that stands out most: the chosen token."""
        return self.theme.paint(self.theme.accent, text)

    def of_run(self, header: RunHeader) -> Style:
        """The same terminal for another run."""
        temperature = header.params.get("temperature", 1)
        tempered = "penalty" if set(header.order) - _FILTERS - {"temperature"} else ""
        if "temperature" in header.order and temperature not in (0, 1):
            tempered = f"T={temperature:.3g}"
        return replace(
            self,
            vocab_size=header.model.vocab_size,
            tempered=tempered if len(tempered) <= numbers.CELL else "T",
            greedy=header.greedy,
            filtered=bool(_FILTERS.difference(("greedy",)).intersection(header.order)),
        )


@dataclass(frozen=True)
class Layout:
    """How wide the columns of a table are; 0 where one is left out. `tail` holds the bar or a stage's
    name, behind the numbers. `headings` is the line above them."""

    rank: int
    token: int
    id: int
    logit: int
    at_one: int
    tempered: int
    cumulative: int
    numbers_end: int
    tail: int
    headings: str


@lru_cache(maxsize=256)
def layout(style: Style, rank: int) -> Layout:
    """The columns that fit beside a rank of so many cells, the least important left out first."""
    widths = {"id": max(4, len(str(max(style.vocab_size - 1, 0)))) + 2, "logit": _LOGIT}
    widths |= dict.fromkeys(("cumulative", "at_one", "tempered"), 1 + numbers.CELL)
    fitting = [name for name in _OPTIONAL if style.tempered or name != "tempered"]
    fixed = rank + 2 + 1 + numbers.CELL  # the rank, a gap, the final column
    room = style.width - fixed - 1 - _TAIL - sum(widths[name] for name in fitting)
    while fitting and room < _TOKEN:
        room += widths[fitting.pop(0)]
    extra = max(room - _TOKEN, 0)
    token = max(4, min(_TOKEN_WIDE, _TOKEN + extra * 3 // 5, style.width - fixed))
    widths = {name: widths[name] if name in fitting else 0 for name in _OPTIONAL}
    numbers_end = fixed + token + sum(widths.values())
    tail = min(max(style.width - numbers_end - 1, 0), _BAR_MAX)
    line = f"{'#'.rjust(rank)}  {'token'.ljust(token)}"
    line += "".join(name.rjust(widths[name]) for name in ("id", "logit") if widths[name])
    names = {"at_one": "T=1", "tempered": style.tempered, "cumulative": "cum"}
    line += "".join(_heading(heading) for name, heading in names.items() if widths[name])
    headings = style.dim((line + _heading("final")).rstrip())
    return Layout(rank, token, numbers_end=numbers_end, tail=tail, headings=headings, **widths)


def step_table(step: Step, style: Style) -> str:
    """A step's full table: title, headings, a row a candidate, the rest of the vocabulary."""
    if step.watch:
        named = {row.token_id: row for row in (*step.watch, *step.candidates)}.values()
        step = replace(step, candidates=tuple(sorted(named, key=lambda r: (r.rank, r.token_id))))
    rows = step.candidates
    top_rank = max([row.rank for row in rows], default=1)
    columns = layout(style, max(5, 3 + len(str(top_rank))))
    lines = [_title(step, columns, style), columns.headings]
    before = 0
    for number, (row, line) in enumerate(zip(rows, _rows(step, columns, style), strict=True), 1):
        if row.rank > max(number, before + 1):
            lines.append(style.dim("…".rjust(columns.rank)))
        lines.append(line)
        before = row.rank
    if rest := _rest(step, columns, style):
        lines.append(style.dim(rest))
    if step.explain is not None:
        lines += explained(step, style, "  ")
    for other in step.what_if:
        sign = _sign(step, other)
        line = f"  {sign} {clip(other.settings, style.width // 2)}: {_what_if(step, other, style)}"
        lines.append(line if sign == "≠" else style.dim(line))
    lines.append("")
    return "\n".join(lines)


def explained(step: Step, style: Style, indent: str) -> list[str]:
    """Why the token was taken, in lines."""
    words = sentence(step, style.token).split(" ")
    return [f"{indent}{line}" for line in wrap_parts(words, style.width - len(indent) - 1, " ")]


def _sign(step: Step, other: WhatIf) -> str:
    return "?" if other.token_id is None else "=" if other.token_id == step.token_id else "≠"


def _what_if(step: Step, other: WhatIf, style: Style) -> str:
    """`␣Kyoto 61.2%, kept 3, the first divergence`, as far as it is known."""
    parts = []
    if other.token is None:
        parts.append(
            f"cannot be known from {len(step.candidates)} of {count(style.vocab_size)} tokens"
        )
    elif other.final_logprob is None:
        parts.append(style.token(other.token))
    else:
        parts.append(f"{style.token(other.token)} {percent(exp_or_zero(other.final_logprob))}")
    parts += [] if other.kept is None else [f"kept {count(other.kept)}"]
    parts += ["the first divergence"] if other.first_divergence else []
    return ", ".join(parts)


def _heading(name: str) -> str:
    return " " + name.rjust(numbers.CELL - 1).ljust(numbers.CELL)


def _title(step: Step, columns: Layout, style: Style) -> str:
    """` #1  ␣Tokyo     rank 1 · kept 41 of 4,096 · H 1.02 → 1.90`, cut to what fits."""
    entropy = f"H {numbers.entropy(step.entropy)} → {numbers.entropy(step.final_entropy)}"
    rank, kept = f"rank {count(step.rank)} · ", f"kept {count(step.kept)}"
    of = f" of {count(style.vocab_size)}" if style.vocab_size else ""
    index = f"#{step.index + 1}".rjust(3)
    room = style.width - len(index) - 3 - 6
    facts = f"{rank}{kept}{of} · {entropy}"
    for shorter in (f"{rank}{kept} · {entropy}", f"{rank}{entropy}", entropy, ""):
        if len(facts) <= room:
            break
        facts = shorter
    token = clip(style.token(step.token), max(style.width - len(index) - 5 - len(facts), 4))
    left = len(index) + 3 + cell_len(token)
    end = min(max(columns.numbers_end - 1, left + 2 + len(facts)), style.width)
    gap = " " * (end - left - len(facts))
    return f" {style.bold(index)}  {style.accent(token)}{gap}{style.dim(facts)}".rstrip()


def _rows(step: Step, columns: Layout, style: Style) -> Iterator[str]:
    """A line a candidate. What is the same for all of them is looked up once: these lines are most
    of what a run draws."""
    theme, paint, ascii_only = style.theme, style.theme.paint, style.ascii_only
    rank_width, token_width, id_width, tail = columns.rank, columns.token, columns.id, columns.tail
    logit, at_one, tempered = columns.logit, columns.at_one, columns.tempered
    cell, watched = percent_cell, {row.token_id for row in step.watch}
    for row in step.candidates:
        chosen = row.token_id == step.token_id
        mark = "▸ " if chosen else "○ " if row.token_id in watched else ""
        final = exp_or_zero(row.final_logprob)
        line = (
            f"{mark + str(row.rank).rjust(2):>{rank_width}}  "
            f"{_token_cell(row.token, style.byte_level, token_width, style.encoding)}"
            f"{str(row.token_id).rjust(id_width) if id_width else ''}"
            f"{decimal(row.logit).rjust(_LOGIT) if logit else ''}"
            f"{' ' + cell(exp_or_zero(row.logprob)) if at_one else ''}"
            f"{' ' + cell(exp_or_zero(row.tempered_logprob)) if tempered else ''}"
            f"{' ' + cell(row.cumulative) if columns.cumulative else ''}"
            f" {cell(final)}"
        )
        if row.removed_by is not None:
            yield paint(theme.dim, f"{line} {stage_name(row.removed_by, tail)}".rstrip())
        elif drawn := bar(final, tail, ascii_only):
            line = paint(theme.accent, line) if chosen else line
            yield f"{line} {paint(theme.bar, drawn)}"
        else:
            yield paint(theme.accent if chosen else "", line.rstrip())


@lru_cache(maxsize=4096)  # more than a vocabulary shows again, and bounded whatever its size
def _token_cell(piece: str, byte_level: bool, width: int, encoding: str) -> str:
    return pad(Style(encoding=encoding, byte_level=byte_level).token(piece), width)


def stage_name(name: str, width: int) -> str:
    """A stage's name, shorter where there is no room; shorthand such as `eta` is the docs' own."""
    return name if len(name) <= width else clip(_SHORT_NAMES.get(name, name), width)


def _rest(step: Step, columns: Layout, style: Style) -> str:
    """The row for the tokens that are not listed: how many, their mass, how many were cut."""
    listed = step.candidates
    more = style.vocab_size - len(listed)
    if more <= 0:
        return ""
    kept = step.kept - len([row for row in listed if row.removed_by is None])
    number = count(more)
    if len(number) + 5 <= columns.token:
        number += " more"
    line = f"{'+'.rjust(columns.rank)}  {pad(number, columns.token)}"
    line += " " * (columns.id + columns.logit)
    if columns.at_one:
        line += " " + rest_cell(1 - sum([exp_or_zero(row.logprob) for row in listed]))
    if columns.tempered:
        line += " " + rest_cell(1 - sum([exp_or_zero(row.tempered_logprob) for row in listed]))
    line += " " * columns.cumulative
    final = 1 - sum([exp_or_zero(row.final_logprob) for row in listed])
    line += " " + (rest_cell(final) if kept > 0 else percent_cell(0))
    cut = f" {count(more - kept)} cut"
    if more > kept and len(cut) <= columns.tail + 1:
        line += cut
    return line.rstrip()


@dataclass(frozen=True)
class LineLayout:
    """The cells of `step_line`'s parts; `others` is 0 where the runners-up do not fit. `final` says
    whether the final probability has a column beside that at temperature 1."""

    token: int
    others: int
    kept: bool
    final: bool
    headings: str


@lru_cache(maxsize=64)
def line_layout(style: Style) -> LineLayout:
    """Lay out a line: how many tokens were kept gives way before the third runner-up does."""
    changed = not style.greedy and (style.filtered or bool(style.tempered))
    kept = 7 + len(count(style.vocab_size))
    free = style.width - _INDEX - 1 - 1 - numbers.CELL - 9  # the entropy's
    final = changed and free >= 17
    free -= 1 + numbers.CELL if final else 0
    shows_kept = style.filtered and free - kept >= 36
    free -= kept if shows_kept else 0
    token = min(max(free // 4, 8), 20)
    others = min(free - token - 3, 72)
    others = others if others >= 16 else 0
    text = f"{'step':>{_INDEX}} {'token'.ljust(token)}{_heading('T=1')}"
    text += _heading("final") if final else ""
    if others:
        text += f" │ {('others, final %' if final else 'others, T=1 %').ljust(others)}"
    if shows_kept:
        text += " │ final H, kept" if changed else " │ entropy, kept"
    else:
        text += " │ final" if changed else " │ nats"
    headings = style.dim(clip(text, style.width)) + "\n"
    return LineLayout(token, others, shows_kept, final, headings)


def step_line(step: Step, style: Style) -> str:
    """A step in one line: the chosen token, its probability at temperature 1 in the colour of the
    running text, its final probability, three runners-up, entropy, kept. The headings above such lines
    are `line_layout(style).headings`.

    Under greedy the final distribution says nothing, so all of it is at temperature 1.
    """
    columns = line_layout(style)
    probability = exp_or_zero(step.logprob)
    colour = style.theme.text[level(probability)]
    token = _token_cell(step.token, style.byte_level, columns.token, style.encoding)
    line = f"{style.bold(f'#{step.index + 1}'.rjust(_INDEX))} {style.accent(token)} "
    line += style.theme.paint(colour, percent_cell(probability))
    if columns.final:
        line += " " + percent_cell(exp_or_zero(step.final_logprob))
    if columns.others:
        line += f" │ {_runners_up(step, columns.others, style)}"
    tail = f" │ H {numbers.entropy(step.entropy if style.greedy else step.final_entropy)}"
    line += style.dim(f"{tail}  kept {count(step.kept)}" if columns.kept else tail) + "\n"
    if step.explain is not None:
        line += "".join(f"{words}\n" for words in explained(step, style, " " * (_INDEX + 1)))
    return line + "".join(_observed(step, columns, style)) if step.watch or step.what_if else line


def _observed(step: Step, columns: LineLayout, style: Style) -> Iterator[str]:
    """Lines below a step's line, in its columns: the watched tokens, and the draws of other settings
    where they are another token."""
    rows: list[tuple[str, Watched | WhatIf, str]] = []
    for row in step.watch:
        removed = f", removed by {row.removed_by}" if row.removed_by else ""
        rows.append(("○", row, f"rank {count(row.rank)}{removed}"))
    for other in step.what_if:
        if other.token_id != step.token_id:
            note = ", the first divergence" if other.first_divergence else ""
            note = ": not recorded" if other.token_id is None else note
            rows.append((_sign(step, other), other, f"{other.settings}{note}"))
    for sign, row_or_other, words in rows:
        token = _token_cell(
            row_or_other.token or "", style.byte_level, columns.token, style.encoding
        )
        line = f"{sign:>{_INDEX}} {token} {percent_cell(exp_or_zero(row_or_other.logprob))}"
        if columns.final:
            line += " " + percent_cell(exp_or_zero(row_or_other.final_logprob))
        yield clip(f"{line} │ {words}", style.width) + "\n"


def _runners_up(step: Step, width: int, style: Style) -> str:
    """`␣a 3.1  ␣the 2.7  ␣one 1.9`: three columns, or where those are too narrow what fits."""
    greedy = style.greedy
    pairs = [
        (exp_or_zero(row.logprob if greedy else row.final_logprob), row.token)
        for row in step.candidates
        if row.token_id != step.token_id and (greedy or row.removed_by is None)
    ]
    pairs.sort(key=lambda pair: -pair[0])
    each = (width - 4) // 3 if width >= 28 else 0  # 0: no columns, as many as there is room for
    line = ""
    for probability, piece in pairs[:3]:
        number = percent_bare(probability)
        token = clip(style.token(piece), (each or 12) - len(number) - 1)
        entry = f"{token} {number}"
        entry = ("  " if line else "") + (pad(entry, each) if each else entry)
        if cell_len(line) + cell_len(entry) > width:
            break
        line += entry
    return pad(line, width)


def legend_lines(style: Style) -> list[str]:
    """The key to the colours of a text, as a line; none where there are no colours."""
    levels = [name.replace("≥", ">=") if style.ascii_only else name for name in LEVELS]
    line = style.theme.legend(levels=levels)
    return [line] if line else []
