"""Records and reports as HTML: what a notebook shows, and a page of their own.

Every record becomes one `Page`: lines above, a coloured text with its legend, lines below, tables. The
template escapes whatever it is given; tokens are spelt as in the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from decodecli.records.display import Displayed
from decodecli.records.distribution import ComparisonReport, DistributionReport, TextReport
from decodecli.records.embedding import EmbedReport
from decodecli.records.run import Run, Step, exp_or_zero
from decodecli.records.sweep import SweepResult, SweepSummary
from decodecli.records.tokens import TokenReport, TokenReports, VocabularyReport
from decodecli.render import number_format as numbers
from decodecli.render.escaping import guess_byte_level, model_title, one_line
from decodecli.render.html import asset, render
from decodecli.render.number_format import count, decimal, percent
from decodecli.render.short_text import lines, run_style
from decodecli.render.terminal.distribution_tables import report_header, whole_text_facts
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import Facts, header_lines, summary_lines
from decodecli.render.theme import BAR, LEGEND, LEVELS, UNSCORED, css, hex_colour, level

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
    unscored: str = ""  # what text without a level is


def fragment(record: Displayed) -> str:
    """The HTML of a record, to stand inside a page."""
    return rendered(page(record))


def standalone(content: Page, title: str, language: str = "") -> str:
    """A whole HTML file, in large type; it needs no network and runs no script."""
    from markupsafe import Markup

    return render("page.html", title=title, lang=language, body=Markup(rendered(content)))


def rendered(content: Page) -> str:
    """The HTML of a page, to stand inside another."""
    colours = f".decodecli .bar i {{ background: {hex_colour(BAR)}; }}\n"
    colours += f".decodecli .unscored {{ color: {hex_colour(UNSCORED)}; }}\n{css('.decodecli .p')}"
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
    tokens = ((step.text, step.logprob, step.rank) for step in run.steps)
    tables = [step_as_table(step, style, folded=True) for step in run.steps[:steps]]
    if steps and len(run) > steps:
        tables.append(Table((f"{count(len(run) - steps)} more steps: run[{steps}:]",), ()))
    return Page(
        header=tuple(header_lines(replace(run.header, model=model), style)),
        spans=tuple(text_spans(tokens, run.header.prompt)),
        facts=tuple(summary_lines(run.header, run.summary, Facts(run.steps), style)),
        tables=tuple(tables),
        unscored="the prompt",
    )


page.register(Run, run_page)


@page.register
def _(record: Step) -> Page:
    style = run_style((record,), Style(tempered="T"))
    return Page(tables=(step_as_table(record, style),))


def step_as_table(step: Step, style: Style, *, folded: bool = False) -> Table:
    """A step's candidates, the chosen one marked, with bars of the final probability."""
    of = f" of {count(style.vocab_size)}" if style.vocab_size else ""
    title = (
        f"#{step.index + 1} {style.token(step.token)} · {percent(math.exp(step.logprob))} at T=1 · "
        f"rank {count(step.rank)} · kept {count(step.kept)}{of} · "
        f"H {numbers.entropy(step.entropy)} → {numbers.entropy(step.final_entropy)}"
    )
    rows = []
    for row in step.candidates:
        is_chosen = row.token_id == step.token_id
        final = exp_or_zero(row.final_logprob)
        tempered = [percent(exp_or_zero(row.tempered_logprob))] if style.tempered else []
        cells = (
            ("▸ " if is_chosen else "") + count(row.rank),
            style.token(row.token),
            str(row.token_id),
            decimal(row.logit),
            percent(exp_or_zero(row.logprob)),
            *tempered,
            percent(row.cumulative),
            percent(final),
        )
        look = "chosen" if is_chosen else "removed" if row.removed_by else ""
        rows.append(Row(cells, final, row.removed_by, look))
    tempered = [style.tempered] if style.tempered else []
    heads = ("#", "token", "id", "logit", "T=1", *tempered, "cum", "final", "")
    return Table(heads, tuple(rows), (1,), "" if folded else title, title if folded else "")


@page.register
def _(record: DistributionReport) -> Page:
    style = replace(_WIDE, byte_level=guess_byte_level(row.token for row in record.rows))
    filtered = ["final"] if record.filtered else []
    heads = ("#", "token", "id", record.score_name, "probability", *filtered, "")
    tables = []
    for index, spread in enumerate(record.spreads):
        caption = f"T={spread.temperature:g} · entropy {numbers.entropy(spread.entropy)} nats"
        if filtered:
            caption += f" · kept {count(spread.kept)} of {count(record.size)}"
        rows = []
        for row in record.rows[:_ROWS]:
            final = row.final[index] if row.final else row.probability[index]
            removed = row.removed_by[index] if row.removed_by else None
            score = "−inf" if row.score is None else decimal(row.score)
            cells = [count(row.rank), style.token(row.token), str(row.token_id), score]
            cells.append(percent(row.probability[index]))
            cells += [percent(final)] if filtered else []
            look = "chosen" if row.token == record.target else "removed" if removed else ""
            rows.append(Row(tuple(cells), final or 0.0, removed, look))
        tables.append(Table(heads, tuple(rows), (1,), caption))
    header = tuple(line for line in report_header(record, style) if line)
    return Page(header=header, facts=record.notes, tables=tuple(tables))


# A column's field, and how its values are spelt; a value of None is blank.
_Columns = Mapping[str, tuple[str, Callable[[Any], str]]]


def _table(columns: _Columns, records: Sequence[Any], folded: str = "") -> Table:
    """A row a record."""
    rows = [
        tuple(
            "" if (value := getattr(record, field)) is None else spell(value)
            for field, spell in columns.values()
        )
        for record in records
    ]
    words = ("token", "text", "bytes", "kind", "script")
    left = tuple(k for k, name in enumerate(columns) if name in words)
    return _cut(tuple(columns), rows, left, folded=folded)


@page.register
def _(record: TextReport) -> Page:
    style = Style(byte_level=guess_byte_level(p.token for p in record.positions))
    columns: _Columns = {
        "#": ("position", str),
        "token": ("token", style.token),
        "T=1": ("logprob", lambda logprob: percent(math.exp(logprob))),
        "rank": ("rank", count),
        "surprisal": ("surprisal", decimal),
        "entropy": ("entropy", numbers.entropy),
    }
    model = record.model
    size = numbers.size(model.parameters)
    return Page(
        header=(f"{model_title(model.name)} {size} · {model.dtype} · {model.device}",),
        spans=tuple(text_spans((p.text, p.logprob, p.rank) for p in record.positions)),
        facts=tuple(whole_text_facts(record)),
        unscored="nothing before it" if record.scored < len(record.positions) else "",
        tables=(_table(columns, record.positions, folded="token by token"),),
    )


@page.register
def _(record: ComparisonReport) -> Page:
    first = record.reports[0]
    style = replace(_WIDE, byte_level=guess_byte_level(row.token for row in first.rows))
    heads = ["token", *(f"{n} T={t:g}" for n in record.variants for t in first.temperatures)]
    rows_by_id = [{row.token_id: row for row in report.rows} for report in record.reports]
    rows = []
    for row in first.rows:
        same = (rows[row.token_id] for rows in rows_by_id)
        rows.append((style.token(row.token), *(percent(p) for r in same for p in r.probability)))
    gaps = [""] * (len(first.temperatures) - 1)
    rows.append(("KL, nats", *(c for d in record.differences for c in (f"{d.kl:.4f}", *gaps))))
    header = tuple(line for line in report_header(first, style) if line)
    return Page(header=header, facts=record.notes, tables=(_cut(heads, rows, (0,)),))


def _token_columns(style: Style) -> _Columns:
    return {
        "id": ("token_id", str),
        "token": ("token", style.token),
        "text": ("text", one_line),
        "bytes": ("data", lambda data: data.hex(" ").upper()),
        "kind": ("kind", str),
    }


@page.register
def _(record: TokenReport) -> Page:
    columns: _Columns = {
        "#": ("position", str),
        **_token_columns(Style(byte_level=record.byte_level)),
        "characters": ("span", "{0[0]}–{0[1]}".format),
    }
    return Page(header=(one_line(record.model),), tables=(_table(columns, record.rows),))


@page.register
def _(record: TokenReports) -> Page:
    pages = [(one_line(str(name)), page(report)) for name, report in record.named()]
    return Page(tables=tuple(replace(t, caption=name) for name, p in pages for t in p.tables))


@page.register
def _(record: VocabularyReport) -> Page:
    columns = _token_columns(Style(byte_level=record.byte_level))
    columns = {**columns, "script": ("script", str)}
    header = f"{one_line(record.model)} · {count(record.size)} tokens"
    return Page(header=(header,), tables=(_table(columns, record.rows),))


@page.register
def _(record: EmbedReport) -> Page:
    names = [one_line(word.word) for word in record.words]
    style = Style(byte_level=record.byte_level)
    rows = [
        (name, *("" if value is None else decimal(value) for value in row))
        for name, row in zip(names, record.cosine, strict=True)
    ]
    near = [
        (name, str(n.rank), style.token(n.token), str(n.token_id), decimal(n.cosine))
        for name, neighbours in zip(names, record.nearest, strict=bool(record.nearest))
        for n in neighbours
    ]
    tables = [_cut(("", *names), rows, (0,), "cosine similarity")]
    if near:
        tables.append(_cut(("word", "#", "token", "id", "cosine"), near, (0, 2), "nearest tokens"))
    header = f"{one_line(record.model)} · {one_line(record.matrix.name)}"
    return Page(header=(header,), facts=record.notes, tables=tuple(tables))


@page.register(SweepSummary)
@page.register(SweepResult)
def _(record: SweepSummary | SweepResult) -> Page:
    from decodecli.records.metrics import METRICS
    from decodecli.render.plots.sweep_data import facts

    summary = record.summary if isinstance(record, SweepResult) else record
    metrics = [m for m in METRICS if any(m in setting.numbers for setting in summary.settings)]
    rows = []
    for setting in summary.settings:
        values = (setting.numbers.get(name) for name in metrics)
        cells = ["" if value is None else f"{value.value:.4g}" for value in values]
        rows.append((*map(str, setting.setting.values()), *cells))
    heads = (*summary.axes, *(name.replace("_", " ") for name in metrics))
    return Page(header=(" · ".join(facts(summary)),), tables=(_cut(heads, rows),))


def _cut(
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
