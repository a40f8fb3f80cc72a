"""The other tables of `inspect-logits`: a scored text, variants side by side, continuations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from decodecli.records.distribution import (
    ComparisonReport,
    Continuation,
    DistributionReport,
    Entry,
    Position,
    TextReport,
)
from decodecli.records.run import ModelInfo
from decodecli.render.escaping import clip, one_line, pad, safe_text
from decodecli.render.number_format import (
    count,
    decimal,
    entropy,
    percent,
    percent_cell,
    plain,
    scientific,
    size,
)
from decodecli.render.terminal.step_table import Style, legend_lines
from decodecli.render.terminal.wrap import RunningText, wrap_parts
from decodecli.render.theme import Theme, level

_TOKEN = 16
_COMPARED = 20  # the same where variants are compared


def report_header(report: DistributionReport, style: Style) -> list[str]:
    """The model and the prompt, for a distribution that has them."""
    if report.model is None:
        return []
    many = len(report.prompt_ids)
    tokens = f"{count(many)} token{'' if many == 1 else 's'} of prompt"
    prompt = clip(one_line(report.prompt or ""), style.width)
    return [*_model_lines(report, style, tokens), "", prompt or "(empty prompt)", ""]


def _model_lines(report: DistributionReport, style: Style, *more: str) -> list[str]:
    if report.model is None:
        return []
    quantize = [report.model.quantize] if report.model.quantize != "none" else []
    params = [f"{name} {plain(float(value))}" for name, value in report.params.items() if value]
    return wrap_parts([*_model_parts(report.model), *quantize, *more, *params], style.width)


def _model_parts(model: ModelInfo) -> list[str]:
    return [f"{one_line(model.name)} {size(model.parameters)}", model.dtype, model.device]


def continuation_lines(continuations: Sequence[Continuation], style: Style) -> list[str]:
    """A line a continuation, and a line a token where it takes several."""
    if not continuations:
        return []
    lines = ["", style.dim("  as what comes next")]
    width = min(max(cell_len(one_line(each.text)) for each in continuations), 24)
    for each in continuations:
        name = style.bold(pad(one_line(each.text), width))
        whole = f"{percent_cell(math.exp(each.logprob))}  logprob {decimal(each.logprob)}"
        if len(each.token_ids) == 1:
            whole += f" · rank {count(each.ranks[0])} · logit {decimal(each.logits[0])}"
            lines.append(f"  {name}  {whole} · {style.token(each.tokens[0])} {each.token_ids[0]}")
            continue
        lines.append(f"  {name}  {whole} · {len(each.tokens)} tokens")
        for token, rank, logprob in zip(each.tokens, each.ranks, each.logprobs, strict=True):
            cell = pad(style.token(token), _TOKEN)
            lines.append(f"    {cell} {percent_cell(math.exp(logprob))} rank {count(rank)}")
    return lines


def position_lines(report: TextReport, style: Style) -> list[str]:
    """The text coloured by surprisal, then a row a token, then the whole."""
    theme, running = style.theme, RunningText()
    for position in report.positions:
        running.add(safe_text(position.text), _colour(position, theme))
    number = max(len(str(len(report.positions))), 3)
    narrow = style.width < 66
    heads = f"{'#'.rjust(number)}  {pad('token', _TOKEN)}   T=1      rank  surprisal"
    lines = [" · ".join(_model_parts(report.model)), ""]
    lines += [*running.rows(max(style.width - 1, 1), theme.reset), "", *legend_lines(style)]
    lines.append(style.dim(heads if narrow else f"{heads}  entropy  would rather have"))
    for position in report.positions:
        token = pad(style.token(position.token), _TOKEN)
        start = f"{str(position.position).rjust(number)}  "
        if position.logprob is None:
            lines.append(start + style.dim(f"{token} nothing before it"))
            continue
        line = start + theme.paint(_colour(position, theme), token)
        line += f" {percent_cell(math.exp(position.logprob))} "
        line += f"{count(position.rank or 0).rjust(7)}  {decimal(-position.logprob).rjust(9)}"
        if not narrow:
            line += f"  {entropy(position.entropy or 0.0).rjust(7)}"
            if position.rank != 1:
                favourite = clip(style.token(position.favourite or ""), style.width - number - 58)
                line += f"  {favourite} {percent(position.favourite_probability)}"
        lines.append(line)
    return [*lines, "", *whole_text_facts(report, style.width)]


def _colour(position: Position, theme: Theme) -> str:
    """That of its surprisal; the prompt's for the first token, which nothing predicts."""
    logprob = position.logprob
    return theme.prompt if logprob is None else theme.text[level(math.exp(logprob))]


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
        lines = [*_model_lines(first, style), ""]
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
    return [*lines, style.dim(note)]


def _comparison_block(
    report: ComparisonReport, names: list[str], block: slice, width: int, style: Style
) -> list[str]:
    """As many variants as fit beside each other."""
    first, others, lines = report.reports[0], report.reports[block], list[str]()

    def fact(name: str, values: Sequence[str]) -> str:
        cells = [pad("  " + name, _COMPARED + 2), *(v.rjust(6).ljust(width) for v in values)]
        return style.dim("  ".join(cells).rstrip())

    for number, temperature in enumerate(first.temperatures):
        heads = ["  " + pad("token", _COMPARED), *(pad(name, width) for name in names[block])]
        lines += [f"T={temperature:g}"] if len(first.temperatures) > 1 else []
        lines.append(style.dim("  ".join(heads).rstrip()))
        for k, row in enumerate(first.rows):
            cells = ["  " + style.bold(pad(style.token(row.token), _COMPARED))]
            for other in others:
                same = _same(other, row.token_id, k)
                cell = f"{percent_cell(same.probability[number])} #{count(same.rank)}"
                cells.append(cell.ljust(width))
            lines.append("  ".join(cells).rstrip())
        lines += [fact("entropy", [entropy(o.spreads[number].entropy) for o in others]), ""]
    differences = report.differences[block]
    for name, values in (
        ("KL, nats", [_distance(each.kl) for each in differences]),
        ("total variation", [_distance(each.total_variation) for each in differences]),
        (f"changed rank, of {report.listed}", [count(each.ranks_changed) for each in differences]),
    ):
        lines.append(fact(name, values if block.start else ["–", *values[1:]]))
    return lines


def _same(report: DistributionReport, token_id: int, near: int) -> Entry:
    """The token's row, which is nearly always at the same index as in the first report."""
    rows = report.rows
    if near < len(rows) and rows[near].token_id == token_id:
        return rows[near]
    return next(row for row in rows if row.token_id == token_id)


def _distance(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else scientific(value) if value else "0"
