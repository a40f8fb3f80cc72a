"""The tables of `inspect-logits --stages all` and `--compare-order`: a column a stage, or an order."""

from __future__ import annotations

from decodecli.records.distribution import Columns, SideBySide
from decodecli.render.escaping import clip, one_line
from decodecli.render.number_format import count, entropy, percent_cell
from decodecli.render.terminal.distribution_tables import model_lines
from decodecli.render.terminal.step_table import Style, stage_name
from decodecli.render.terminal.table import Column, fit, table_lines
from decodecli.render.terminal.wrap import wrap_parts
from decodecli.stages import ORDERS

_WIDTH = 9


def side_by_side_lines(report: SideBySide, style: Style) -> list[str]:
    """Probabilities in columns, the stage that removed a token in place of it where it did; underneath
    how many are kept, the entropy, and the total variation from the first column."""
    tokens = f"{count(len(report.prompt_ids), 'token')} of prompt"
    prompt = clip(one_line(report.prompt), style.width) or "(empty prompt)"
    lines = [*model_lines(report.model, style, tokens), "", prompt, ""]
    lines += [*column_lines(report.across, style), ""]
    note = f"total variation is from {report.across.columns[0].name}, over the whole vocabulary"
    lines += map(style.dim, wrap_parts(note.split(), style.width, " "))
    for done in report.across.columns:
        if done.name in ORDERS:
            arrows = f"{done.name}: {' → '.join(done.order) or 'no stage is on'}"
            lines += map(style.dim, wrap_parts(arrows.split(" "), style.width, " ", "  "))
    return lines


def column_lines(across: Columns, style: Style) -> list[str]:
    """The table itself. Columns that do not fit come in further blocks."""
    lines: list[str] = []
    names = [*(style.token(row.token) for row in across.rows), "kept", "entropy, nats", "TV"]
    first = Column("token", names, least=8, most=20)
    columns = []
    for number, done in enumerate(across.columns):
        cells = [
            stage_name(row.removed_by[number] or "", _WIDTH)
            if row.removed_by[number]
            else percent_cell(row.after[number]).rstrip()
            for row in across.rows
        ]
        distance = f"{across.total_variation[0][number]:.4f}" if number else "–"
        cells += [count(done.kept), entropy(done.entropy), distance]
        name = done.name if len(done.name) <= 12 else stage_name(done.name, _WIDTH)
        columns.append(Column(name, cells, right=True, most=12))
    while columns:
        shown = len(columns)
        while (
            shown > 1
            and sum(w + 2 for _, w in fit([first, *columns[:shown]], 10_000)) > style.width
        ):
            shown -= 1
        lines += [*([""] if lines else []), *table_lines([first, *columns[:shown]], style)]
        columns = columns[shown:]
    return lines
