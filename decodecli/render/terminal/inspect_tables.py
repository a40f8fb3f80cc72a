"""What else `inspect-logits` shows: a text under the model, variants side by side, continuations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from decodecli.records.distribution import (
    ComparisonReport,
    Continuation,
    DistributionReport,
    TextReport,
)
from decodecli.render import number_format as numbers
from decodecli.render.escaping import clip, one_line, pad, safe_text
from decodecli.render.number_format import count, decimal, percent, percent_cell
from decodecli.render.terminal.step_table import Style, legend_lines
from decodecli.render.terminal.wrap import RunningText
from decodecli.render.theme import level

_TOKEN = 16
_COMPARED = 20  # the same where variants are compared


def report_header(report: DistributionReport, style: Style) -> list[str]:
    """The model and the prompt, for a distribution that has them."""
    if report.model is None:
        return []
    prompt = clip(one_line(report.prompt or ""), style.width)
    told = [_tokens(len(report.prompt_ids))]
    return [*_model_lines(report, style, told), "", prompt or "(empty prompt)", ""]


def _model_lines(report: DistributionReport, style: Style, more: Sequence[str] = ()) -> list[str]:
    model = report.model
    if model is None:
        return []
    parts = [f"{one_line(model.name)} {numbers.size(model.parameters)}", model.dtype, model.device]
    if model.quantize != "none":
        parts.append(model.quantize)
    parts += more
    parts += [
        f"{name} {numbers.plain(float(value))}" for name, value in report.params.items() if value
    ]
    return _joined(parts, style.width)


def _tokens(number: int) -> str:
    return f"{count(number)} token{'' if number == 1 else 's'} of prompt"


def continuation_lines(found: Sequence[Continuation], style: Style) -> list[str]:
    """A line a continuation, and a line a token where it takes several."""
    if not found:
        return []
    lines = ["", style.theme.paint(style.theme.dim, "  as what comes next")]
    width = min(max(cell_len(one_line(chain.text)) for chain in found), 24)
    for chain in found:
        name = pad(clip(one_line(chain.text), width), width)
        whole = f"{percent_cell(math.exp(chain.logprob))}  logprob {decimal(chain.logprob)}"
        if len(chain.token_ids) == 1:
            place = f"rank {count(chain.ranks[0])} · logit {decimal(chain.logits[0])}"
            token = f"{style.token(chain.tokens[0])} {chain.token_ids[0]}"
            lines.append(
                f"  {style.theme.paint(style.theme.bold, name)}  {whole} · {place} · {token}"
            )
            continue
        lines.append(
            f"  {style.theme.paint(style.theme.bold, name)}  {whole} · {len(chain.tokens)} tokens"
        )
        for token, rank, logprob in zip(chain.tokens, chain.ranks, chain.logprobs, strict=True):
            share = percent_cell(math.exp(logprob))
            cell = pad(clip(style.token(token), _TOKEN), _TOKEN)
            lines.append(f"    {cell} {share} rank {count(rank)}")
    return lines


def position_lines(report: TextReport, style: Style) -> list[str]:
    """The text coloured by surprisal, then a row a token, then the whole."""
    theme = style.theme
    model = report.model
    lines = [
        f"{one_line(model.name)} {numbers.size(model.parameters)} · {model.dtype} · {model.device}",
        "",
    ]
    flow = RunningText()
    for position in report.positions:
        known = position.logprob is not None
        code = theme.text[level(math.exp(position.logprob))] if known else theme.prompt  # type: ignore[arg-type]
        flow.add(safe_text(position.text), code)
    lines += [*flow.rows(max(style.width - 1, 1), theme.reset), "", *legend_lines(style)]
    place = max(len(str(len(report.positions))), 3)
    narrow = style.width < 66
    heads = f"{'#'.rjust(place)}  {pad('token', _TOKEN)} {'  T=1  '}    rank  surprisal"
    heads += "" if narrow else f"  entropy  {'would rather have'}"
    lines.append(theme.paint(theme.dim, heads))
    for position in report.positions:
        token = pad(clip(style.token(position.token), _TOKEN), _TOKEN)
        start = f"{str(position.position).rjust(place)}  "
        if position.logprob is None:
            lines.append(start + theme.paint(theme.dim, f"{token} nothing before it"))
            continue
        probability = math.exp(position.logprob)
        colour = theme.text[level(probability)]
        line = start + theme.paint(colour, token) + f" {percent_cell(probability)} "
        line += f"{count(position.rank or 0).rjust(7)}  {decimal(-position.logprob).rjust(9)}"
        if not narrow:
            line += f"  {numbers.entropy(position.entropy or 0.0).rjust(7)}"
            if position.rank != 1:
                favourite = clip(style.token(position.favourite or ""), style.width - place - 58)
                line += f"  {favourite} {percent(position.favourite_probability)}"
        lines.append(line)
    return [*lines, "", *whole_text_facts(report, style.width)]


def _joined(parts: Sequence[str], width: int) -> list[str]:
    """Parts with dots between, wrapped between parts."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + 3 + cell_len(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return lines


def whole_text_facts(report: TextReport, width: int = 10_000) -> list[str]:
    """How probable the text is as a whole."""
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
    lines = _joined(parts, width)
    if report.windows > 1:
        lines.append(
            f"{count(report.windows)} windows of {count(report.window)} tokens, "
            f"{count(report.stride)} apart"
        )
    return lines


def comparison_lines(report: ComparisonReport, style: Style) -> list[str]:
    """A column a variant and temperature, ranks beside; distances from the first underneath."""
    theme, first = style.theme, report.reports[0]
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
    return [*lines, theme.paint(theme.dim, note)]


def _comparison_block(
    report: ComparisonReport, names: list[str], block: slice, width: int, style: Style
) -> list[str]:
    """As many variants as fit beside each other."""
    theme, first, lines = style.theme, report.reports[0], list[str]()
    for number, temperature in enumerate(first.temperatures):
        heads = ["  " + pad("token", _COMPARED)]
        heads += [pad(clip(name, width), width) for name in names[block]]
        title = f"T={temperature:g}" if len(first.temperatures) > 1 else ""
        lines += ([title] if title else []) + [theme.paint(theme.dim, "  ".join(heads).rstrip())]
        for row_number, row in enumerate(first.rows):
            token = pad(clip(style.token(row.token), _COMPARED), _COMPARED)
            cells = ["  " + theme.paint(theme.bold, token)]
            for other in report.reports[block]:
                found = other.rows[_same(other, row.token_id, row_number)]
                cell = f"{percent_cell(found.probability[number])} #{count(found.rank)}"
                cells.append(cell + " " * max(width - cell_len(cell), 0))
            lines.append("  ".join(cells).rstrip())
        spreads = [other.spreads[number] for other in report.reports[block]]
        lines += [_fact("entropy", [numbers.entropy(s.entropy) for s in spreads], width, style), ""]
    apart, listed = report.differences[block], report.listed
    for name, values in (
        ("KL, nats", [_distance(difference.kl) for difference in apart]),
        ("total variation", [_distance(difference.total_variation) for difference in apart]),
        (f"changed rank, of {listed}", [count(difference.ranks_changed) for difference in apart]),
    ):
        known = values if block.start else ["–", *values[1:]]
        lines.append(_fact(name, known, width, style))
    return lines


def _same(report: DistributionReport, token_id: int, near: int) -> int:
    rows = report.rows
    if near < len(rows) and rows[near].token_id == token_id:
        return near
    return next(place for place, row in enumerate(rows) if row.token_id == token_id)


def _fact(name: str, values: list[str], width: int, style: Style) -> str:
    start = pad(clip("  " + name, _COMPARED + 2), _COMPARED + 2)
    cells = [value.rjust(6).ljust(width) for value in values]
    return style.theme.paint(style.theme.dim, "  ".join([start, *cells]).rstrip())


def _distance(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else numbers.scientific(value) if value else "0"
