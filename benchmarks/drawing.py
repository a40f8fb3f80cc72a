"""A report for people: tables for a terminal, and a Markdown page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.machine import in_words
from benchmarks.plan import SECTIONS
from benchmarks.report import Report, Row
from decodecli.analysis.timing import Samples

_HOLDS = {True: "yes", False: "no", None: ""}


def as_text(report: Report, width: int, colour: bool, encoding: str = "utf-8") -> str:
    """The report as tables, a section each, for a terminal of this width."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=colour, color_system="standard" if colour else None,
        highlight=False, legacy_windows=False,
    )  # fmt: skip
    for line in in_words(report.machine):
        console.print(Text(line))
    for section, rows in by_section(report):
        console.print()
        console.print(Text.assemble((section, "bold"), f"  {SECTIONS[section]}"))
        measured = [row for row in rows if not row.skipped]
        for place, (line, group) in enumerate(_groups(measured)):
            console.print(Padding(Text(line), (0, 0, 0, 2)))
            console.print(_table(group, heading=place == 0))
        for row in rows:
            if row.skipped:
                console.print(Padding(Text(not_measured(row), "dim"), (0, 0, 0, 2)))
    console.print()
    console.print(Text(verdict(report), "bold"))
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
    return text.encode(encoding, "replace").decode(encoding)


def _groups(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows that have model, side and unit of ours in common, under a line that says these."""
    for (subject, what, unit), found in groupby(
        rows, lambda row: (row.subject, row.what, row.unit)
    ):
        line = f"{subject}: {what}" if subject else what
        yield f"{line} · {unit}" if unit else line, list(found)


def _table(rows: list[Row], heading: bool) -> Table:
    """The figures of one group; the columns stand alike in every group."""
    table = Table(box=None, pad_edge=False, show_header=heading, header_style="dim")
    table.add_column("    ratio", justify="right", width=9)
    for name, width in (("spread", 11), ("target", 7), ("", 3), ("ours", 8), ("theirs", 8)):
        left = name == ""
        table.add_column(name, justify="left" if left else "right", width=width, no_wrap=True)
    table.add_column("against")
    for row in rows:
        cells = [
            f"{row.ratio.median:.3g}" if row.ratio else "",
            spread(row.figure),
            str(row.target) if row.target else "",
            _HOLDS[row.holds],
            figure(row.ours, ""),
            figure(row.theirs, ""),
            row.peer,
        ]
        styled = [Text(cell) for cell in cells]
        styled[0].stylize("bold")
        styled[3].stylize({True: "green", False: "bold red", None: ""}[row.holds])
        table.add_row(*styled)
    return table


def not_measured(row: Row) -> str:
    """A row that was not measured, and why: "gpt2 · nf4: … against …: not installed: …"."""
    subject = f"{row.subject}: " if row.subject else ""
    peer = f" against {row.peer}" if row.peer else ""
    return f"{subject}{row.what}{peer}: {row.skipped}"


def row_cells(row: Row) -> list[str]:
    """A measured row in the words of the page's columns."""
    return [
        row.subject,
        row.what,
        figure(row.ours, row.unit),
        row.peer,
        figure(row.theirs, row.unit),
        f"{row.ratio.median:.3g}" if row.ratio else "",
        spread(row.figure),
        str(row.target) if row.target else "",
        _HOLDS[row.holds],
    ]


def figure(samples: Samples | None, unit: str) -> str:
    """A median with its unit, three digits: "12.3 tokens/s"."""
    if samples is None:
        return ""
    value = samples.median
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def spread(samples: Samples | None) -> str:
    """The middle half of the repetitions: "1.08–1.14"; nothing for a single one."""
    if samples is None or len(samples.values) < 2:
        return ""
    low, high = samples.quartiles
    return f"{low:.3g}–{high:.3g}"


def by_section(report: Report) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each section that has any, in the sections' order."""
    for section in SECTIONS:
        rows = [row for row in report.rows if row.section == section]
        if rows:
            yield section, rows


def verdict(report: Report) -> str:
    """How many targets hold: "11 of 12 targets hold"."""
    known = [row.holds for row in report.rows if row.holds is not None]
    skipped = sum(1 for row in report.rows if row.skipped)
    text = f"{sum(known)} of {len(known)} targets hold" if known else "no targets were measured"
    return text + (f"; {skipped} not measured" if skipped else "")


def as_markdown(report: Report) -> str:
    """The report as a page: the command, the machine, a table a section, what was not measured."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; this repeats it:",
        "",
        "```console",
        "$ " + " ".join(report.command),
        "```",
        "",
        "Every ratio is ours by the peer's, measured in one run in which the sides take turns",
        f"(repetitions: {report.settings['repeat']}, at most 3 where one takes a minute). It is the",
        "median over the repetitions, the spread beside it their middle half. Of tokens/s more is",
        "better, of seconds and bytes less. [BENCH.md](BENCH.md) says how each figure comes about.",
        "",
        *(f"- {line}" for line in in_words(report.machine)),
        "",
        verdict(report) + ".",
    ]
    for section, rows in by_section(report):
        lines += [
            "",
            f"## {section}",
            "",
            SECTIONS[section][:1].upper() + SECTIONS[section][1:] + ".",
        ]
        measured = [row for row in rows if not row.skipped]
        if measured:
            lines += ["", "| model | ours | | peer | | ratio | spread | target | holds |"]
            lines += ["|---|---|--:|---|--:|--:|--:|--:|---|"]
            lines += ["| " + " | ".join(map(_escaped, row_cells(row))) + " |" for row in measured]
        notes = dict.fromkeys(
            f"- {row.subject}: {row.note}." if row.subject else f"- {row.note}."
            for row in measured
            if row.note
        )
        if notes:
            lines += ["", *notes]
        skipped = [f"- Not measured: {not_measured(row)}." for row in rows if row.skipped]
        if skipped:
            lines += ["", *skipped]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
