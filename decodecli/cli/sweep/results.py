"""What is made of a sweep's finished cells: the table, and the files beside `runs.jsonl`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from decodecli.cli import streams
from decodecli.cli.cell_selection import select_cells, show_texts
from decodecli.cli.options import MOST_CELLS
from decodecli.cli.sweep.plan import Plan
from decodecli.records.sweep import SweepSummary
from decodecli.sweeps.cell_lines import read_records
from decodecli.sweeps.folder import MANIFEST, RUNS, write_whole
from decodecli.sweeps.manifest import read_manifest
from decodecli.sweeps.summary import summarise


def write_numbers(plan: Plan, folder: Path) -> SweepSummary:
    """`summary.csv` and `summary.md`, of what is there.

    Raises:
        WriteError: they could not be written.
    """
    from decodecli.render.sweep_files import summary_csv, summary_markdown

    manifest, grid = read_manifest(folder), plan.grid
    name = str(manifest.model.get("name", plan.load.model)) if manifest else plan.load.model
    records = read_records(folder, grid)
    cells = len(grid)
    summary = summarise(name, grid.varying, grid.seeds, len(grid.prompts), cells, records)
    write_whole(folder / "summary.csv", summary_csv(summary).encode())
    write_whole(folder / "summary.md", summary_markdown(summary).encode())
    return summary


def write_results(plan: Plan, folder: Path) -> None:
    """Everything that is made of the cells, and the table on standard output unless that has lines.

    Raises:
        WriteError: a file could not be written.
    """
    from decodecli.render.html.sweep_report import report_html

    summary = write_numbers(plan, folder)
    if plan.output.format == "text":
        _print(plan, folder, summary)
    pictures: list[Path] = []
    if plan.draws:
        from decodecli.render.plots.sweep import draw_sweep

        pictures = draw_sweep(summary, folder / "plots")
    records = read_records(folder, plan.grid)
    finished = (record for record in records if record.error is None)
    toml = (folder / MANIFEST).read_text(encoding="utf-8")
    write_whole(folder / "report.html", report_html(summary, finished, pictures, toml).encode())
    if not plan.output.quiet:
        files = [
            RUNS,
            "summary.csv",
            "summary.md",
            *(["plots/"] if pictures else []),
            "report.html",
        ]
        streams.tell(
            f"Results in {folder}: {', '.join(files)}",
            f"all on one page: {folder / 'report.html'}; texts side by side: "
            f"decodecli compare {shlex.quote(str(folder))}",
        )


def _print(plan: Plan, folder: Path, summary: SweepSummary) -> None:
    from decodecli.cli.output import style_of, write_lines
    from decodecli.render.terminal.sweep_table import sweep_lines

    style = style_of(sys.stdout)
    write_lines(sweep_lines(summary, style), style)
    if plan.how.show:
        streams.write_stdout("\n")
        selection = select_cells(folder, (), {}, MOST_CELLS)
        show_texts(selection, "")
        if selection.count > len(selection.records) and not plan.output.quiet:
            streams.tell(
                f"Note: {len(selection.records):,} of {selection.count:,} cells are shown; for others, "
                f"decodecli compare {folder}"
            )
