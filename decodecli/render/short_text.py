"""Records and reports as a short text, for `print`: the terminal's own tables, cut to a screenful."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch

from decodecli.records.beams import BeamRun
from decodecli.records.display import Displayed
from decodecli.records.distribution import ComparisonReport, DistributionReport, TextReport
from decodecli.records.embedding import EmbedReport
from decodecli.records.run import Run, Step
from decodecli.records.sweep import SweepResult, SweepSummary
from decodecli.records.tokens import TokenReport, TokenReports, VocabularyReport
from decodecli.render.escaping import guess_byte_level, safe_text
from decodecli.render.number_format import count
from decodecli.render.terminal.beam_tables import beam_header_lines, hypothesis_lines
from decodecli.render.terminal.distribution_tables import (
    comparison_lines,
    distribution_lines,
    position_lines,
    report_header,
)
from decodecli.render.terminal.embedding_tables import embed_lines
from decodecli.render.terminal.step_table import Style, line_layout, step_line, step_table
from decodecli.render.terminal.summary import Facts, header_lines, summary_lines
from decodecli.render.terminal.sweep_table import sweep_lines
from decodecli.render.terminal.token_tables import several_lines, token_lines, vocabulary_lines
from decodecli.render.terminal.wrap import RunningText

_LINES = 30
_STEPS = 10
_TEXT_ROWS = 4
_WIDEST = 120


def short_text(record: Displayed) -> str:
    """At most some thirty lines, as wide as the terminal, without colours."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    rows = lines(record, Style(width=width))
    if len(rows) > _LINES:
        rows = [*rows[: _LINES - 1], f"… {count(len(rows) - _LINES + 1)} more lines"]
    return "\n".join(rows).rstrip("\n")


@singledispatch
def lines(record: Displayed, style: Style) -> list[str]:
    """The lines of one kind of record, however many."""
    raise TypeError(f"no text for {type(record).__name__}")


def run_style(steps: Sequence[Step], style: Style) -> Style:
    """The style for tokens spelt as these steps' are."""
    pieces = (row.token for step in steps[:50] for row in step.candidates)
    return replace(style, byte_level=guess_byte_level(pieces))


@lines.register
def _(record: Run, style: Style) -> list[str]:
    style = run_style(record.steps, style).of_run(record.header)
    text = RunningText()
    text.add(safe_text(record.header.prompt[-1000:] + record.text[:1000]))
    rows = text.rows(style.width, "")
    rows = rows if len(rows) <= _TEXT_ROWS else [*rows[: _TEXT_ROWS - 1], "…"]
    result = [*header_lines(record.header, style), "", *rows, ""]
    result.append(line_layout(style).headings.rstrip("\n"))
    result += [step_line(step, style).rstrip("\n") for step in record.steps[:_STEPS]]
    if len(record) > _STEPS:
        result.append(f"  … {count(len(record) - _STEPS)} more steps")
    facts = summary_lines(record.header, record.summary, Facts(record.steps), style)
    return [*result, "", *facts]


@lines.register
def _(record: Step, style: Style) -> list[str]:
    style = replace(run_style((record,), style), tempered=_temperature(record))
    return step_table(record, style).rstrip("\n").split("\n")


def _temperature(step: Step) -> str:
    """The heading of the tempered column: logits fall T times as fast as tempered logprobs, where no
    penalty changes some of them."""
    first, *others = step.candidates
    rates = {
        f"{(first.logit - row.logit) / (first.tempered_logprob - row.tempered_logprob):.3g}"
        for row in others
        if row.tempered_logprob < first.tempered_logprob
    }
    (rate,) = rates if len(rates) == 1 else ("",)
    return "" if rate == "1" else f"T={rate}" if rate else "T"


@lines.register
def _(record: DistributionReport, style: Style) -> list[str]:
    style = replace(style, byte_level=guess_byte_level(row.token for row in record.rows))
    return [*report_header(record, style), *distribution_lines(record, style)]


@lines.register
def _(record: TextReport, style: Style) -> list[str]:
    style = replace(style, byte_level=guess_byte_level(p.token for p in record.positions))
    return position_lines(record, style)


@lines.register
def _(record: SweepSummary, style: Style) -> list[str]:
    return [
        line.replace("summary.md has", "to_pandas() has") for line in sweep_lines(record, style)
    ]


@lines.register
def _(record: SweepResult, style: Style) -> list[str]:
    return lines(record.summary, style)


@lines.register
def _(record: BeamRun, style: Style) -> list[str]:
    style = style.of_run(record.header)
    head = [*beam_header_lines(record.header, style), ""]
    return [*head, *hypothesis_lines(record.hypotheses, style)]


lines.register(ComparisonReport, comparison_lines)
lines.register(TokenReport, token_lines)
lines.register(TokenReports, several_lines)
lines.register(VocabularyReport, vocabulary_lines)
lines.register(EmbedReport, embed_lines)
