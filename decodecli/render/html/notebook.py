"""Records and reports as HTML: what a notebook shows, and a page of their own.

Every record becomes one `Page`: lines above, a coloured text with its legend, lines below, tables. The
template escapes whatever it is given; tokens are spelt as in the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from decodecli.records.display import Displayed
from decodecli.records.distribution import ComparisonReport, DistributionReport, TextReport
from decodecli.records.embedding import EmbedReport
from decodecli.records.run import Candidate, Run, Step, exp_or_zero
from decodecli.records.sweep import SweepResult, SweepSummary
from decodecli.records.tokens import TokenReport, TokenReports, VocabularyReport
from decodecli.render import number_format as numbers
from decodecli.render.escaping import guess_byte_level, model_title, one_line
from decodecli.render.html.environment import asset, render
from decodecli.render.number_format import count, decimal, percent
from decodecli.render.short_text import lines, run_style
from decodecli.render.terminal.distribution_tables import report_header, whole_text_facts
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import Facts, header_lines, summary_lines
from decodecli.render.theme import BAR, GIVEN, LEGEND, LEVELS, css, hex_colour, level

_STEPS = 200  # tables of a run
_ROWS = 500  # of a table
_WIDE = Style(width=10_000)


@dataclass(frozen=True)
class Span:
    """A piece of the text; `level` is its place on the scale of surprise, None for what has none."""

    text: str
    level: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table. bar: the share of a bar behind it, or who removed the token; look: its class."""

    cells: tuple[str, ...]
    bar: float | None = None
    removed_by: str | None = None
    look: str = ""


@dataclass(frozen=True)
class Table:
    """words: the columns that stand left. folded: what a folded table is opened by, "" for open ones."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    words: tuple[int, ...] = ()
    caption: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Page:
    """One record, ready for the template."""

    header: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    facts: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    given: str = ""  # what text without a level is


def fragment(record: Displayed) -> str:
    """The HTML of a record, to stand inside a page."""
    return _rendered(page(record))


def standalone(content: Page, title: str, language: str = "") -> str:
    """A whole HTML file, in large type; it needs no network and runs no script."""
    from markupsafe import Markup

    return render("page.html", title=title, lang=language, body=Markup(_rendered(content)))


def _rendered(content: Page) -> str:
    colours = f".decodecli .bar i {{ background: {hex_colour(BAR)}; }}\n"
    colours += f".decodecli .given {{ color: {hex_colour(GIVEN)}; }}\n{css('.decodecli .p')}"
    style = asset("notebook.css", colours)
    return render("notebook.html", page=content, css=style, legend=LEGEND, levels=LEVELS)


@singledispatch
def page(record: Displayed) -> Page:
    """One kind of record as a page; others show their text."""
    return Page(header=tuple(lines(record, Style(width=120))))


def text_spans(
    tokens: Iterable[tuple[str, float | None, int | None]], prompt: str = ""
) -> Iterator[Span]:
    """A text by token, each (text, logprob, rank); what has no logprob, as the prompt, is plain."""
    if prompt:
        yield Span(prompt)
    for text, logprob, rank in tokens:
        if not text:
            continue
        if logprob is None:
            yield Span(text)
            continue
        probability = math.exp(logprob)
        title = f"{percent(probability)} at T=1, rank {count(rank or 0)}"
        yield Span(text, level(probability), title)


def run_page(run: Run, *, steps: int = _STEPS) -> Page:
    """A run: settings, the coloured text, how it went, and a folded table a step."""
    style = run_style(run.steps, _WIDE).of_run(run.header)
    model = replace(run.header.model, name=model_title(run.header.model.name))
    facts = Facts()
    for step in run.steps:
        facts.add(step)
    tables = [step_as_table(step, style, folded=True) for step in run.steps[:steps]]
    if steps and len(run) > steps:
        tables.append(Table((f"{count(len(run) - steps)} more steps: run[{steps}:]",), ()))
    return Page(
        header=tuple(header_lines(replace(run.header, model=model), style)),
        spans=tuple(
            text_spans(((s.text, s.logprob, s.rank) for s in run.steps), run.header.prompt)
        ),
        facts=tuple(summary_lines(run.header, run.summary, facts, style)),
        tables=tuple(tables),
        given="the prompt",
    )


page.register(Run, run_page)


@page.register
def _(record: Step) -> Page:
    style = run_style((record,), Style(tempered="T"))
    return Page(tables=(step_as_table(record, style),))


def step_as_table(step: Step, style: Style, *, folded: bool = False) -> Table:
    """A step's candidates, the chosen one marked, with bars of the final probability."""
    kept = f"kept {count(step.kept)}" + (
        f" of {count(style.vocab_size)}" if style.vocab_size else ""
    )
    entropy = f"H {numbers.entropy(step.entropy)} → {numbers.entropy(step.final_entropy)}"
    chosen = f"#{step.index + 1} {style.token(step.token)}"
    title = f"{chosen} · {percent(math.exp(step.logprob))} at T=1 · rank {count(step.rank)}"
    title += f" · {kept} · {entropy}"
    heads = ("#", "token", "id", "logit", "T=1", *([style.tempered] if style.tempered else []))

    def cells(row: Candidate) -> tuple[str, ...]:
        mark = "▸ " if row.token_id == step.token_id else ""
        tempered = [percent(exp_or_zero(row.tempered_logprob))] if style.tempered else []
        return (
            f"{mark}{count(row.rank)}",
            style.token(row.token),
            str(row.token_id),
            decimal(row.logit),
            percent(exp_or_zero(row.logprob)),
            *tempered,
            percent(row.cumulative),
            percent(exp_or_zero(row.final_logprob)),
        )

    rows = tuple(
        Row(
            cells(row),
            exp_or_zero(row.final_logprob),
            row.removed_by,
            "chosen" if row.token_id == step.token_id else "removed" if row.removed_by else "",
        )
        for row in step.candidates
    )
    heads = (*heads, "cum", "final", "")
    return Table(heads, rows, (1,), "" if folded else title, title if folded else "")


@page.register
def _(record: DistributionReport) -> Page:
    style = Style(width=10_000, byte_level=guess_byte_level(row.token for row in record.rows))
    tables = tuple(_distribution(record, index, style) for index in range(len(record.spreads)))
    header = [line for line in report_header(record, style) if line]
    return Page(header=tuple(header), facts=record.notes, tables=tables)


def _distribution(report: DistributionReport, index: int, style: Style) -> Table:
    spread = report.spreads[index]
    caption = f"T={spread.temperature:g} · entropy {numbers.entropy(spread.entropy)} nats"
    heads = ["#", "token", "id", report.score_name, "probability"]
    if report.filtered:
        heads.append("final")
        caption += f" · kept {count(spread.kept)} of {count(report.size)}"
    rows = []
    for row in report.rows[:_ROWS]:
        final = row.final[index] if row.final else row.probability[index]
        removed = row.removed_by[index] if row.removed_by else None
        score = "−inf" if row.score is None else decimal(row.score)
        cells = [count(row.rank), style.token(row.token), str(row.token_id), score]
        cells.append(percent(row.probability[index]))
        cells += [percent(final)] if report.filtered else []
        look = "chosen" if row.token == report.target else "removed" if removed else ""
        rows.append(Row(tuple(cells), final or 0.0, removed, look))
    return Table((*heads, ""), tuple(rows), (1,), caption)


@page.register
def _(record: TextReport) -> Page:
    style = Style(width=10_000, byte_level=guess_byte_level(p.token for p in record.positions))
    rows = [
        (
            str(p.position),
            style.token(p.token),
            "" if p.logprob is None else percent(math.exp(p.logprob)),
            "" if p.rank is None else count(p.rank),
            "" if p.logprob is None else decimal(-p.logprob),
            "" if p.entropy is None else numbers.entropy(p.entropy),
        )
        for p in record.positions
    ]
    heads = ("#", "token", "T=1", "rank", "surprisal", "entropy")
    return Page(
        header=(_model_line(record.model),),
        spans=tuple(text_spans((p.text, p.logprob, p.rank) for p in record.positions)),
        facts=tuple(whole_text_facts(record)),
        given="nothing before it" if record.scored < len(record.positions) else "",
        tables=(_plain(heads, rows, (1,), folded="token by token"),),
    )


def _model_line(model: Any) -> str:
    return f"{model_title(model.name)} {numbers.size(model.parameters)} · {model.dtype} · {model.device}"


@page.register
def _(record: ComparisonReport) -> Page:
    first = record.reports[0]
    style = Style(width=10_000, byte_level=guess_byte_level(row.token for row in first.rows))
    heads = ["token", *(f"{n} T={t:g}" for n in record.variants for t in first.temperatures)]
    by_id = [{row.token_id: row for row in report.rows} for report in record.reports]
    rows = [
        (
            style.token(row.token),
            *(percent(p) for other in by_id for p in other[row.token_id].probability),
        )
        for row in first.rows
    ]
    gaps = [""] * (len(first.temperatures) - 1)
    rows.append(("KL, nats", *(c for d in record.differences for c in (f"{d.kl:.4f}", *gaps))))
    header = tuple(line for line in report_header(first, style) if line)
    return Page(header=header, facts=record.notes, tables=(_plain(heads, rows, (0,)),))


@page.register
def _(record: TokenReport) -> Page:
    style = Style(byte_level=record.byte_level)
    rows = [
        (
            str(row.position),
            str(row.token_id),
            style.token(row.token),
            one_line(row.text),
            row.data.hex(" ").upper(),
            row.kind,
            f"{row.span[0]}–{row.span[1]}" if row.span else "",
        )
        for row in record.rows
    ]
    heads = ("#", "id", "token", "text", "bytes", "kind", "characters")
    return Page(header=(one_line(record.model),), tables=(_plain(heads, rows, (2, 3, 4, 5)),))


@page.register
def _(record: TokenReports) -> Page:
    tables = [
        table
        for name, report in record.named()
        for table in (
            Table(t.heads, t.rows, t.words, one_line(str(name))) for t in page(report).tables
        )
    ]
    return Page(tables=tuple(tables))


@page.register
def _(record: VocabularyReport) -> Page:
    style = Style(byte_level=record.byte_level)
    rows = [
        (
            str(row.token_id),
            style.token(row.token),
            one_line(row.text or ""),
            row.data.hex(" ").upper(),
            row.kind,
            row.script,
        )
        for row in record.rows
    ]
    heads = ("id", "token", "text", "bytes", "kind", "script")
    header = f"{one_line(record.model)} · {count(record.size)} tokens"
    return Page(header=(header,), tables=(_plain(heads, rows, (1, 2, 3, 4, 5)),))


@page.register
def _(record: EmbedReport) -> Page:
    names = [one_line(word.word) for word in record.words]
    rows = [
        (name, *("" if value is None else decimal(value) for value in row))
        for name, row in zip(names, record.cosine, strict=True)
    ]
    style = Style(byte_level=record.byte_level)
    near = [
        (name, str(n.rank), style.token(n.token), str(n.token_id), decimal(n.cosine))
        for name, neighbours in zip(names, record.nearest, strict=bool(record.nearest))
        for n in neighbours
    ]
    tables = [_plain(("", *names), rows, (0,), caption="cosine similarity")]
    if near:
        heads = ("word", "#", "token", "id", "cosine")
        tables.append(_plain(heads, near, (0, 2), caption="nearest tokens"))
    header = f"{one_line(record.model)} · {one_line(record.matrix.name)}"
    return Page(header=(header,), facts=record.notes, tables=tuple(tables))


@page.register
def _(record: SweepSummary) -> Page:
    from decodecli.records.metrics import METRICS
    from decodecli.render.plots.sweep_data import facts

    metrics = [m for m in METRICS if any(m in setting.numbers for setting in record.settings)]
    rows = []
    for setting in record.settings:
        values = [setting.numbers.get(name) for name in metrics]
        cells = [str(value) for value in setting.setting.values()]
        cells += ["" if value is None else f"{value.value:.4g}" for value in values]
        rows.append(tuple(cells))
    heads = (*record.axes, *(name.replace("_", " ") for name in metrics))
    return Page(header=(" · ".join(facts(record)),), tables=(_plain(heads, rows),))


@page.register
def _(record: SweepResult) -> Page:
    return page(record.summary)


def _plain(
    heads: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    words: tuple[int, ...] = (),
    caption: str = "",
    folded: str = "",
) -> Table:
    """A table without bars, cut at `_ROWS` with a row that says so."""
    cut = [Row(cells) for cells in rows[:_ROWS]]
    if len(rows) > _ROWS:
        cut.append(Row((f"… {count(len(rows) - _ROWS)} more",)))
    return Table(tuple(heads), tuple(cut), words, caption, folded)
