"""The tables of `softmax` and `inspect-logits`: a distribution over temperatures, continuations, a scored
text, variants side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from decodecli.records.distribution import (
    ComparisonReport,
    Continuation,
    DistributionReport,
    Spread,
    TextReport,
    WordReport,
)
from decodecli.records.run import ModelInfo
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line, pad, safe_text
from decodecli.render.number_format import (
    CELL,
    bar,
    count,
    decimal,
    entropy,
    percent,
    percent_cell,
    plain,
    rest_cell,
)
from decodecli.render.terminal.step_table import Style, legend_lines, stage_name
from decodecli.render.terminal.table import Column, table_lines
from decodecli.render.terminal.wrap import RunningText, wrap_parts
from decodecli.render.theme import level

_GAP = "  "
_BAR_MAX, _TOKEN_MAX = 24, 28
_REMOVED = 9  # a stage's short name, or the final probability
_TOKEN, _COMPARED = 16, 20  # a token beside its scores, and where variants are compared


@dataclass(frozen=True)
class _Layout:
    """Which columns a distribution has room for, and how wide."""

    rank: int
    token: int
    id: int
    final: bool
    score: int = 8
    limits: bool = True
    bar: int = 0

    @property
    def left(self) -> int:
        """The cells in front of the temperatures."""
        optional = sum(2 + width for width in (self.id, self.score) if width)
        return 2 + self.rank + 2 + self.token + optional

    @property
    def column(self) -> int:
        return CELL + (1 + self.bar if self.bar else 0) + (1 + _REMOVED if self.final else 0)

    def spare(self, columns: int, width: int) -> int:
        """The cells that so many temperatures leave free."""
        limits = 2 * (2 + CELL) if self.limits else 0
        return width - self.left - limits - columns * (2 + self.column)


def distribution_lines(report: DistributionReport, style: Style) -> list[str]:
    """A row a token, a column a temperature, totals underneath; as many blocks as the temperatures need
    at this width."""
    rows, many = report.rows, len(report.spreads)
    token = min(max([5, *(cell_len(style.token(row.token)) for row in rows)]), _TOKEN_MAX)
    rank = max(len(str(max((row.rank for row in rows), default=1))), 2)
    ids = max((len(str(row.token_id)) for row in rows), default=1) if report.model else 0
    layouts = [_Layout(rank, token, ids, report.filtered)]
    for change in ({"limits": False}, {"id": 0}, {"token": min(token, 12)}, {"score": 0}):
        layouts.append(replace(layouts[-1], **change))
    several = layouts[1] if layouts[1].spare(1, style.width) >= 0 else layouts[-1]
    layout = next((one for one in layouts if one.spare(many, style.width) >= 0), several)
    # The names of the totals need their room more than bars do, and than further columns.
    names = max(len("    tokens for 50 %") - layout.left, 0)
    fit = 1
    while fit < many and layout.spare(fit + 1, style.width) >= names:
        fit += 1
    layout = replace(layout, token=layout.token + min(names, layout.spare(fit, style.width)))
    room = layout.spare(fit, style.width) // fit - 1
    layout = replace(layout, bar=min(room, _BAR_MAX) if room >= 3 else 0)
    lines: list[str] = []
    for start in range(0, many, fit):
        indexes = range(many)[start : start + fit]
        lines += ["", *_probabilities(report, indexes, layout, style)]
        lines += _totals(report, indexes, layout, style)
    if not layout.limits:
        zero, infinity = (entropy(limit.entropy) for limit in report.limits)
        ends = [f"    T→0: entropy {zero}", f"T→∞: {infinity}", "their columns need more room"]
        lines += map(style.dim, wrap_parts(ends, style.width, indent="    "))
    return lines[1:]


def _probabilities(
    report: DistributionReport, indexes: range, layout: _Layout, style: Style
) -> list[str]:
    """The headings and a row a token; the columns are the temperatures with these indexes."""

    def left(mark: str, rank: str, token: str, token_id: str, score: str) -> list[str]:
        cells = [mark + rank.rjust(layout.rank), token]
        cells += [token_id.rjust(layout.id)] if layout.id else []
        return cells + ([score.rjust(layout.score)] if layout.score else [])

    def column(cell: str, drawn: str = "", final: str = "", code: str = "") -> str:
        """The probability, its bar and what the filters make of it."""
        if layout.bar:
            blank = " " * (layout.bar - len(drawn))
            cell += f" {style.theme.paint(style.theme.bar, drawn)}{blank}"
        if layout.final:
            cell += " " + style.theme.paint(code, final.ljust(_REMOVED))
        return cell

    score = "given p" if report.score_name == "probability" else report.score_name
    cells = left("  ", "#", pad("token", layout.token), "id", score)
    for index in indexes:
        name = f"T={report.spreads[index].temperature:g}"
        cells.append(column(name.rjust(CELL - 1) + " ", final="final"))
    cells += ["T→0".rjust(CELL - 1) + " ", "T→∞".rjust(CELL - 1)] if layout.limits else []
    lines = [style.dim(_GAP.join(cells).rstrip())]
    for row in report.rows:
        target = row.token == report.target
        token = pad(style.token(row.token), layout.token)
        token = style.accent(token) if target else style.bold(token)
        score = "−inf" if row.score is None else decimal(row.score)
        cells = left("▸ " if target else "  ", str(row.rank), token, str(row.token_id), score)
        for index in indexes:
            probability, final, code = row.probability[index], "", ""
            if layout.final and (removed_by := row.removed_by[index]) is not None:
                final, code = stage_name(removed_by, _REMOVED), style.theme.dim
            elif layout.final:
                final = percent(row.final[index])
            drawn = bar(probability, layout.bar, style.ascii_only)
            cells.append(column(percent_cell(probability), drawn, final, code))
        cells += [percent_cell(row.at_zero), percent_cell(row.at_infinity)] if layout.limits else []
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _totals(report: DistributionReport, indexes: range, layout: _Layout, style: Style) -> list[str]:
    """The mass of the tokens that are not listed, and each distribution in a few numbers."""
    totals: dict[str, list[str]] = {}
    if (more := report.size - len(report.rows)) > 0:
        masses = [1 - sum(row.probability[index] for row in report.rows) for index in indexes]
        cells = [rest_cell(mass) for mass in masses]
        for name in ("at_zero", "at_infinity"):
            mass = 1 - sum(getattr(row, name) for row in report.rows)
            cells.append(rest_cell(mass) if mass > 1e-9 else percent_cell(0))
        totals[f"+ {count(more)} more"] = cells
    spreads = [report.spreads[index] for index in indexes]
    # A long value takes the cell, the bar and the final column of its temperature.
    widths = [layout.column] * len(spreads) + [CELL] * 2
    spreads += report.limits if layout.limits else ()
    totals |= {
        "entropy, nats": [entropy(s.entropy) for s in spreads],
        "perplexity": [
            f"{s.perplexity:.2f}" if s.perplexity < 100 else count(round(s.perplexity))
            for s in spreads
        ],
        "top-1 margin": [percent(s.margin) for s in spreads],
    }
    for k, share in enumerate((50, 90, 99)):
        totals[f"tokens for {share} %"] = [count(s.covering[k]) for s in spreads]
    if report.target is not None:
        totals["cross-entropy"] = [_loss(spread) for spread in spreads]
    if report.filtered:
        totals["kept"] = [count(s.kept) for s in spreads]
        totals["final entropy"] = [entropy(s.final_entropy) for s in spreads]
    lines = []
    for name, values in totals.items():
        cells = [pad("    " + name, layout.left)]
        pairs = zip(values[: len(spreads)], widths, strict=False)
        cells += [value.rjust(CELL - 1).ljust(width) for value, width in pairs]
        lines.append(style.dim(_GAP.join(cells).rstrip()))
    return lines


def _loss(spread: Spread) -> str:
    loss = spread.cross_entropy
    return "∞" if loss is None or loss == math.inf else decimal(loss)


def report_header(report: DistributionReport, style: Style) -> list[str]:
    """The model and the prompt, for a distribution that has them."""
    if report.model is None:
        return []
    tokens = f"{count(len(report.prompt_ids), 'token')} of prompt"
    prompt = clip(one_line(report.prompt or ""), style.width)
    model = model_lines(report.model, style, tokens, **report.params)
    return [*model, "", prompt or "(empty prompt)", ""]


def model_lines(model: ModelInfo | None, style: Style, *more: str, **params: Any) -> list[str]:
    """The model, `more` about the prompt, and the parameters that are not 0, over several lines."""
    if model is None:
        return []
    parts = [f"{one_line(model.name)} {numbers.size(model.parameters)}", model.dtype, model.device]
    parts += [model.quantize] if model.quantize != "none" else []
    for name, value in params.items():
        if value:
            words = one_line(value) if isinstance(value, str) else plain(float(value))
            more = (*more, f"{name} {words}")
    parts += more
    return wrap_parts(parts, style.width)


def continuation_lines(continuations: Sequence[Continuation], style: Style) -> list[str]:
    """A line a continuation, and a line a token where it takes several."""
    if not continuations:
        return []
    lines = ["", style.dim("  as what comes next")]
    width = min(max(cell_len(one_line(each.text)) for each in continuations), 24)
    for each in continuations:
        name = style.bold(pad(one_line(each.text), width))
        sum_of_all = f"{percent_cell(math.exp(each.logprob))}  logprob {decimal(each.logprob)}"
        if len(each.token_ids) == 1:
            sum_of_all += f" · rank {count(each.ranks[0])} · logit {decimal(each.logits[0])}"
            token = f"{style.token(each.tokens[0])} {each.token_ids[0]}"
            lines.append(f"  {name}  {sum_of_all} · {token}")
            continue
        lines.append(f"  {name}  {sum_of_all} · {len(each.tokens)} tokens")
        for token, rank, logprob in zip(each.tokens, each.ranks, each.logprobs, strict=True):
            cell = pad(style.token(token), _TOKEN)
            lines.append(f"    {cell} {percent_cell(math.exp(logprob))} rank {count(rank)}")
    return lines


def position_lines(report: TextReport, style: Style) -> list[str]:
    """The text coloured by surprisal, then a row a token, then the whole."""
    theme, running = style.theme, RunningText()
    codes = [  # the prompt's for the first token, which nothing predicts
        theme.prompt if p.logprob is None else theme.text[level(math.exp(p.logprob))]
        for p in report.positions
    ]
    for position, code in zip(report.positions, codes, strict=True):
        running.add(safe_text(position.text), code)
    number = max(len(str(len(report.positions))), 3)
    narrow = style.width < 66
    heads = f"{'#'.rjust(number)}  {pad('token', _TOKEN)}   T=1      rank  surprisal"
    lines = [*model_lines(report.model, style), ""]
    lines += [*running.rows(max(style.width - 1, 1), theme.reset), "", *legend_lines(style)]
    lines.append(style.dim(heads if narrow else f"{heads}  entropy  would rather have"))
    for position, code in zip(report.positions, codes, strict=True):
        token = pad(style.token(position.token), _TOKEN)
        start = f"{str(position.position).rjust(number)}  "
        if position.logprob is None:
            lines.append(start + style.dim(f"{token} nothing before it"))
            continue
        line = f"{start}{theme.paint(code, token)} {percent_cell(math.exp(position.logprob))} "
        line += f"{count(position.rank or 0).rjust(7)}  {decimal(-position.logprob).rjust(9)}"
        if not narrow:
            line += f"  {entropy(position.entropy or 0.0).rjust(7)}"
            if position.rank != 1:
                favourite = clip(style.token(position.favourite or ""), style.width - number - 58)
                line += f"  {favourite} {percent(position.favourite_probability)}"
        lines.append(line)
    return [*lines, "", *whole_text_facts(report, style.width)]


def word_lines(report: WordReport, style: Style) -> list[str]:
    """A row a word: its tokens, and its surprisal plain and corrected."""
    rows = report.words
    numbers = [
        [decimal(value) if value is not None else "·" for value in values]
        for values in ([w.surprisal for w in rows], [w.corrected_surprisal for w in rows])
    ]
    columns = [
        Column("#", [str(word.index + 1) for word in rows], right=True),
        Column("word", [style.encodable(safe_text(word.word)) for word in rows], least=8),
        Column("surprisal", numbers[0], right=True),
        Column("corrected", numbers[1], right=True),
        Column(
            "tokens", [" ".join(map(style.token, word.tokens)) for word in rows], least=8, most=48
        ),
    ]
    note = "nats; corrected for where words begin and end (arXiv 2406.14561)"
    lines = [*model_lines(report.model, style), "", *table_lines(columns, style, ("tokens",)), ""]
    return [*lines, *map(style.dim, wrap_parts(note.split(), style.width, " "))]


def whole_text_facts(report: TextReport, width: int = 10_000) -> list[str]:
    """Mean logprob, perplexity and bits per character of the whole text."""
    if report.mean_logprob is None:
        return ["one token alone has no probability: nothing stands before it"]
    parts = [
        f"{count(report.scored)} tokens scored",
        f"mean logprob {decimal(report.mean_logprob)}",
    ]
    if report.perplexity is not None:
        parts.append(f"perplexity {report.perplexity:.2f}")
    if report.bits_per_character is not None:
        parts.append(f"{report.bits_per_character:.3f} bits per character")
    lines = wrap_parts(parts, width)
    if report.windows > 1:
        windows = f"{count(report.windows)} windows of {count(report.window)} tokens"
        lines.append(f"{windows}, {count(report.stride)} apart")
    return lines


def comparison_lines(report: ComparisonReport, style: Style) -> list[str]:
    """A column a variant and temperature, ranks beside; distances from the first underneath."""
    first = report.reports[0]
    lines = report_header(first, style)
    names = [one_line(name) for name in report.variants]
    if report.by == "prompt":  # columns have letters, which are told above
        names = [chr(ord("A") + k) if k < 26 else f"#{k + 1}" for k in range(len(names))]
        lines = [*model_lines(first.model, style, **first.params), ""]
        for name, other in zip(names, report.reports, strict=True):
            room = max(style.width - cell_len(name) - 2, 8)
            prompt = one_line(other.prompt or "(empty prompt)")
            lines.append(f"{name}  {clip(prompt[::-1], room)[::-1]}")  # its end decides
        lines.append("")
    room = style.width - _COMPARED - 4
    width = min(max(15, *(cell_len(name) + 2 for name in names)), max(room, 15))
    fit = max((room + 2) // (width + 2), 1)
    for start in range(0, len(names), fit):
        lines += [""] if start else []
        lines += _comparison_block(report, names, slice(start, start + fit), width, style)
    note = f"KL and total variation at temperature 1, over the whole vocabulary, from {names[0]}"
    if first.order:
        note += f"; they and the ranks are before {' and '.join(first.order)}"
    return [*lines, *map(style.dim, wrap_parts(note.split(), style.width, " "))]


def _comparison_block(
    report: ComparisonReport, names: list[str], block: slice, width: int, style: Style
) -> list[str]:
    """As many variants as fit beside each other."""
    first, others, lines = report.reports[0], report.reports[block], list[str]()
    rows_by_id = [{row.token_id: row for row in other.rows} for other in others]

    def fact(name: str, values: Sequence[str]) -> str:
        cells = [pad("  " + name, _COMPARED + 2), *(v.rjust(6).ljust(width) for v in values)]
        return style.dim(_GAP.join(cells).rstrip())

    def distance(value: float) -> str:
        return f"{value:.4f}" if value >= 0.001 else numbers.scientific(value) if value else "0"

    for number, temperature in enumerate(first.temperatures):
        heads = ["  " + pad("token", _COMPARED), *(pad(name, width) for name in names[block])]
        lines += [f"T={temperature:g}"] if len(first.temperatures) > 1 else []
        lines.append(style.dim(_GAP.join(heads).rstrip()))
        for row in first.rows:
            mark = "▸ " if row.token == first.target else "  "
            cells = [mark + style.bold(pad(style.token(row.token), _COMPARED))]
            for same in (rows[row.token_id] for rows in rows_by_id):
                cell = f"{percent_cell(same.probability[number])} #{count(same.rank)}"
                cells.append(cell.ljust(width))
            lines.append(_GAP.join(cells).rstrip())
        spreads = [other.spreads[number] for other in others]
        lines.append(fact("entropy", [entropy(spread.entropy) for spread in spreads]))
        if first.target is not None:
            lines.append(fact("cross-entropy", [_loss(spread) for spread in spreads]))
        lines.append("")
    differences = report.differences[block]
    for name, values in (
        ("KL, nats", [distance(each.kl) for each in differences]),
        ("total variation", [distance(each.total_variation) for each in differences]),
        (f"changed rank, of {report.listed}", [count(each.ranks_changed) for each in differences]),
    ):
        lines.append(fact(name, values if block.start else ["–", *values[1:]]))
    return lines
