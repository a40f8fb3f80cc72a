"""What `sweep` does: the plan, one loaded model, cells as they end, and the results in their places."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.cli.cell_selection import select_cells, show_texts
from decodecli.cli.color import console
from decodecli.cli.loading_line import load_model
from decodecli.cli.options import MOST_CELLS
from decodecli.cli.sweep.dry_run import show_plan
from decodecli.cli.sweep.plan import Plan, build_plan
from decodecli.errors import DecodecliError, LoadError
from decodecli.library_logging import quiet_libraries
from decodecli.records.json_lines import to_json_line
from decodecli.records.run import ModelInfo
from decodecli.records.sweep import CellRecord, SweepSummary
from decodecli.render.terminal.sweep_progress import SweepProgress
from decodecli.signals import postponed
from decodecli.sweeps.cell_lines import read_records
from decodecli.sweeps.cells import never_succeeds
from decodecli.sweeps.folder import MANIFEST, RUNS, write_whole
from decodecli.sweeps.manifest import Manifest, read_manifest, weights_fingerprint
from decodecli.sweeps.store import Store, check_folder, check_writable, open_store
from decodecli.sweeps.summary import summarise
from decodecli.sweeps.throughput import recall, remember

if TYPE_CHECKING:
    from decodecli.cli.commands.sweep import SweepRequest
    from decodecli.models.loading import LanguageModel
    from decodecli.sweeps.run import CellResult

_MODEL_WORDS = 4  # of a rate's key
_TELLING = 500  # tokens from which on a rate says something


def run_sweep(request: SweepRequest) -> None:
    """Everything that `sweep` does."""
    plan = build_plan(request)
    notices = streams.Notices(plan.output.quiet)
    manifest = Manifest(
        plan.grid, plan.options, _facts_before(plan), plan.how.exact, plan.how.traces
    )
    stored = None if plan.folder is None else check_folder(plan.folder, manifest, request.extend)
    notices.tell_all(plan.notices)
    if request.dry_run:
        key = _rate_key(plan, manifest)
        rate = (stored.rate if stored else None) or recall(key)
        similar = recall(key, words=_MODEL_WORDS)
        show_plan(plan, rate or similar, "" if rate else "with other options")
        return
    if plan.how.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise LoadError("--engine ray needs Ray", "pip install 'decodecli[ray]'")
    with quiet_libraries(plan.output.verbose):
        if plan.folder is None:
            _run(plan, _MemoryStore(manifest), _loaded(plan, notices), notices)
            return
        lm = None
        if stored is None:  # load first: a model that cannot be loaded leaves no folder
            check_writable(plan.folder)
            if plan.how.out is None:
                notices.tell(f"results go to {plan.folder}")
            lm = _loaded(plan, notices)
        with open_store(plan.folder, manifest, request.extend) as store:
            notices.tell_all(store.notices)
            cells = len(plan.grid)
            if store.done == cells:
                notices.tell(f"all {cells:,} cells are done; writing their results again")
                _write_results(plan, store.folder)
                return
            if store.done:
                notices.tell(f"{store.done:,} of {cells:,} cells are done; going on")
            if stored is not None:
                lm = _loaded(plan, notices)
            _run(plan, store, lm, notices)


def _facts_before(plan: Plan) -> dict[str, Any]:
    """What can be known of the model without loading it; nothing is downloaded."""
    from decodecli.models.checkpoint import find_checkpoint

    facts: dict[str, Any] = {"name": plan.load.model, "revision": plan.load.revision}
    with contextlib.suppress(DecodecliError, OSError):
        checkpoint = find_checkpoint(plan.load, download=False)
        facts |= {"revision": checkpoint.revision, "weights": weights_fingerprint(checkpoint)}
    return facts


def _rate_key(plan: Plan, manifest: Manifest) -> str:
    """What the speed depends on, on this machine: the model in `_MODEL_WORDS` words, then the rest."""
    load, how = plan.load, plan.how
    words = [manifest.model.get("weights", load.model), load.device, load.dtype, load.quantize]
    words += [how.batch_size, how.exact, how.traces, how.engine, how.address, how.actors]
    return " ".join(str(word).replace(" ", "_") for word in words)


def _loaded(plan: Plan, notices: streams.Notices) -> LanguageModel | None:
    """The model; None where a cluster loads it."""
    if plan.how.engine == "ray":
        return None
    lm = load_model(plan.load, plan.output)
    if plan.grid.chat is not None:  # else every cell would fail for want of a template
        from decodecli.decoding.prompt import encode

        encode(lm, "Hello", chat=plan.grid.chat)
    notices.tell_all(lm.notices)
    return lm


class _MemoryStore:
    """In place of a `Store` where no cell is kept."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.todo = list(range(len(manifest.grid)))
        self.done = 0
        self._waiting: list[CellRecord] = []

    def add(self, record: CellRecord, trace: Sequence[str] | None = None) -> None:
        self._waiting.append(record)

    def due(self) -> bool:
        return bool(self._waiting)

    def check_model(self, facts: dict[str, Any]) -> None:
        pass

    def sync(self) -> list[CellRecord]:
        records, self._waiting = self._waiting, []
        self.done += len(records)
        return records


def _run(
    plan: Plan, store: Store | _MemoryStore, lm: LanguageModel | None, notices: streams.Notices
) -> None:
    """Run the cells that are not done; what ends it early, if anything does, finds every finished cell
    kept, and says how to go on."""
    if lm is not None:
        facts = asdict(lm.info)
        if lm.checkpoint is not None:
            facts["weights"] = weights_fingerprint(lm.checkpoint)
        store.check_model(facts)
    running = _Running(plan, store, notices)
    try:
        running.run(lm)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted:
            _clear_line()
        if not isinstance(error, BrokenPipeError):
            kept = f"{store.done - len(running.failed):,} of {len(plan.grid):,} cells are"
            notices.tell(
                f"{kept} kept; to go on: {plan.again}"
                if isinstance(store, Store)
                else f"{kept} on standard output and nowhere else; a run with --out DIR can go on"
            )
        if isinstance(store, Store) and interrupted:
            with contextlib.suppress(DecodecliError, KeyboardInterrupt):
                _write_numbers(plan, store.folder)
        raise
    if not notices.quiet:
        streams.tell(running.pace)
    if running.drawn >= _TELLING:
        remember(_rate_key(plan, store.manifest), running.rate)
    if isinstance(store, Store):
        if running.drawn >= _TELLING or store.manifest.rate is None:
            store.note_rate(running.rate)
        _write_results(plan, store.folder)
    if running.failed:
        raise _failure(running.failed, plan.again if isinstance(store, Store) else None)


def _clear_line() -> None:
    """Take away the ^C that a terminal shows, and what else stands in that line."""
    from decodecli.render.terminal.view import can_move_cursor

    if can_move_cursor(console(sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("\r\x1b[J")
            sys.stderr.flush()


def _failure(failed: Sequence[CellRecord], again: str | None) -> DecodecliError:
    """The error for cells that failed: which, and whether trying `again` can help."""
    first, count = failed[0], len(failed)
    hint = f"to try again: {again}" if again else "the others are whole"
    if all(never_succeeds(record) for record in failed):
        hint = "the others are whole; it would fail again: leave that prompt out, or shorten it"
    return DecodecliError(
        f"{count:,} cell{'' if count == 1 else 's'} failed; cell {first.index}: {first.error}", hint
    )


class _Running:
    """Cells on their way from an engine to the disk, to the screen, and to standard output.

    failed: the cells that ended in an error. drawn: tokens; those of a copied cell are not counted.
    """

    def __init__(self, plan: Plan, store: Store | _MemoryStore, notices: streams.Notices) -> None:
        self._plan, self._store, self._notices = plan, store, notices
        stream = io.StringIO() if plan.output.quiet else sys.stderr
        self._progress = SweepProgress(console(stream), len(plan.grid), store.done)
        self.drawn, self._start = 0, time.monotonic()
        self.failed: list[CellRecord] = []
        self.pace, self.rate = "", 0.0

    def run(self, lm: LanguageModel | None) -> None:
        """Run everything that is not done, on a cluster where there is no model here."""
        plan, how, todo = self._plan, self._plan.how, self._store.todo
        options: dict[str, Any] = {
            **{name: getattr(how, name) for name in ("batch_size", "exact", "traces")},
            "candidates": plan.output.candidates,
            "on_tokens": self._on_tokens,
        }
        with contextlib.closing(self._progress):
            results: Iterator[CellResult]
            if lm is None:
                from decodecli.sweeps.ray.engine import run_on_ray

                options |= {"address": how.address, "actors": how.actors}
                options |= {"notice": self._tell, "on_model": self._on_model}
                results = run_on_ray(plan.load, plan.grid, todo, **options)
            else:
                from decodecli.sweeps.run import run_cells

                results = run_cells(lm, (plan.grid[index] for index in todo), **options)
            try:
                for result in results:
                    with postponed():
                        self._store.add(result.record, result.trace)
                    self._settle()
            finally:
                self._settle(at_once=True)
                close = getattr(results, "close", None)  # what it holds, and whom it employs
                if close is not None:
                    close()
            self.rate = self.drawn / max(time.monotonic() - self._start, 1e-9)
            self.pace = self._progress.pace()

    def _on_model(self, info: ModelInfo) -> None:
        """A cluster has loaded the model: as on this machine, time is counted from here."""
        self._store.check_model(asdict(info))
        self._start = time.monotonic()
        self._progress.begin()

    def _tell(self, line: str) -> None:
        self._progress.close()
        self._notices.tell(line)

    def _on_tokens(self, more: int) -> None:
        self.drawn += more
        self._progress.tokens(more)
        self._settle()  # between two cells that take long, those that ended are not left waiting

    def _settle(self, at_once: bool = False) -> None:
        """Sync what is due, and only then say that it is finished."""
        if not at_once and not self._store.due():
            return
        with postponed():
            for record in self._store.sync():
                if record.error is not None:
                    self.failed.append(record)
                self._progress.cell(record)
                if self._plan.output.format == "jsonl":
                    if streams.is_terminal(sys.stdout):  # lines would run into the progress
                        self._progress.close()
                    streams.write_stdout(to_json_line(record.as_dict()) + "\n")


def _write_numbers(plan: Plan, folder: Path) -> SweepSummary:
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


def _write_results(plan: Plan, folder: Path) -> None:
    """Everything that is made of the cells, and the table on standard output unless that has lines.

    Raises:
        WriteError: a file could not be written.
    """
    from decodecli.render.html.sweep_report import report_html

    summary = _write_numbers(plan, folder)
    if plan.output.format == "text":
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
                    f"Note: {len(selection.records):,} of {selection.count:,} cells are shown; "
                    f"for others, decodecli compare {folder}"
                )
    pictures: list[Path] = []
    if plan.draws:
        from decodecli.render.plots.sweep import draw_sweep

        pictures = draw_sweep(summary, folder / "plots")
    records = read_records(folder, plan.grid)
    finished = (record for record in records if record.error is None)
    toml = (folder / MANIFEST).read_text(encoding="utf-8")
    write_whole(folder / "report.html", report_html(summary, finished, pictures, toml).encode())
    if not plan.output.quiet:
        plots = "plots/, " if pictures else ""
        streams.tell(
            f"Results in {folder}: {RUNS}, summary.csv, summary.md, {plots}report.html",
            f"all on one page: {folder / 'report.html'}; texts side by side: "
            f"decodecli compare {shlex.quote(str(folder))}",
        )
