"""What `sweep` does: the plan, one loaded model, cells as they end, and the results in their places."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.cli.color import console
from decodecli.cli.loading_line import load_model
from decodecli.cli.sweep.dry_run import show_plan
from decodecli.cli.sweep.plan import Plan, SweepArgs, build_plan
from decodecli.cli.sweep.results import write_numbers, write_results
from decodecli.errors import DecodecliError, LoadError
from decodecli.library_logging import quiet_libraries
from decodecli.records.run import ModelInfo, to_json_line
from decodecli.records.sweep import CellRecord
from decodecli.render.terminal.sweep_progress import SweepProgress
from decodecli.signals import postponed
from decodecli.sweeps.cell_result import never_succeeds
from decodecli.sweeps.manifest import Manifest, StoredManifest, weights_fingerprint
from decodecli.sweeps.store import Store, check_folder, check_writable, open_store
from decodecli.sweeps.throughput import recall, remember

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel
    from decodecli.sweeps.run import CellResult

_MODEL_WORDS = 4  # of a rate's key
_TELLING = 500  # tokens from which on a rate says something


def run_sweep(args: SweepArgs) -> None:
    """Everything that `sweep` does."""
    plan = build_plan(args)
    notices = streams.Notices(plan.output.quiet)
    manifest = Manifest(
        plan.grid, plan.options, _facts_before(plan), plan.how.exact, plan.how.traces
    )
    stored = None if plan.folder is None else check_folder(plan.folder, manifest, args.extend)
    notices.tell_all(plan.notices)
    if args.dry_run:
        show_plan(plan, *_rate(plan, manifest, stored))
        return
    if plan.how.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise LoadError("--engine ray needs Ray", "pip install 'decodecli[ray]'")
    with quiet_libraries(plan.output.verbose):
        if plan.folder is None:
            _run(plan, _MemoryStore(manifest), _loaded(plan, notices), notices)
        elif stored is not None:
            _go_on(plan, manifest, notices, args.extend)
        else:
            _begin(plan, manifest, notices)


def _begin(plan: Plan, manifest: Manifest, notices: streams.Notices) -> None:
    """Load first: a model that cannot be loaded leaves no folder."""
    assert plan.folder is not None
    check_writable(plan.folder)
    if plan.how.out is None:
        notices.tell(f"results go to {plan.folder}")
    lm = _loaded(plan, notices)
    with open_store(plan.folder, manifest) as store:
        notices.tell_all(store.notices)
        _run(plan, store, lm, notices)


def _go_on(plan: Plan, manifest: Manifest, notices: streams.Notices, extend: bool) -> None:
    """Look first: where all cells are done no model is needed."""
    assert plan.folder is not None
    with open_store(plan.folder, manifest, extend) as store:
        notices.tell_all(store.notices)
        cells = len(plan.grid)
        if store.done == cells:
            notices.tell(f"all {cells:,} cells are done; their results are made again")
            write_results(plan, store.folder)
            return
        if store.done:
            notices.tell(f"{store.done:,} of {cells:,} cells are done; going on")
        _run(plan, store, _loaded(plan, notices), notices)


def _facts_before(plan: Plan) -> dict[str, Any]:
    """What can be known of the model without loading it; nothing is downloaded."""
    from decodecli.models.checkpoint import find_checkpoint

    facts: dict[str, Any] = {"name": plan.load.model, "revision": plan.load.revision}
    with contextlib.suppress(DecodecliError, OSError):
        checkpoint = find_checkpoint(plan.load, download=False)
        facts |= {"revision": checkpoint.revision, "weights": weights_fingerprint(checkpoint)}
    return facts


def _rate(
    plan: Plan, manifest: Manifest, stored: StoredManifest | None
) -> tuple[float | None, str]:
    """Tokens a second of a sweep like this one, and what was different where it was not the same."""
    same = (stored.rate if stored else None) or recall(_rate_key(plan, manifest))
    if same is not None:
        return same, ""
    return recall(_rate_key(plan, manifest), words=_MODEL_WORDS), "with other options"


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
    """Cells that are notices and not kept."""

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


_Kept = Store | _MemoryStore


def _run(plan: Plan, kept: _Kept, lm: LanguageModel | None, notices: streams.Notices) -> None:
    """Run the cells that are not done; what ends it early, if anything does, finds every finished cell
    kept, and says how to go on."""
    if lm is not None:
        kept.check_model(_facts(lm))
    running = _Running(plan, kept, notices)
    try:
        running.run(lm)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            _clear_line()
        if not isinstance(error, BrokenPipeError):
            _tell_end(plan, kept, len(running.failed), notices)
        if isinstance(kept, Store) and isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(DecodecliError, KeyboardInterrupt):
                write_numbers(plan, kept.folder)
        raise
    if not notices.quiet:
        streams.tell(running.pace)
    if running.drawn >= _TELLING:
        remember(_rate_key(plan, kept.manifest), running.rate)
    if isinstance(kept, Store):
        if running.drawn >= _TELLING or kept.manifest.rate is None:
            kept.note_rate(running.rate)
        write_results(plan, kept.folder)
    if running.failed:
        raise _failure(plan, running.failed, kept=isinstance(kept, Store))


def _clear_line() -> None:
    """Take away the ^C that a terminal shows, and what else stands in that line."""
    from decodecli.render.terminal.view import can_move_cursor

    if can_move_cursor(console(sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("\r\x1b[J")
            sys.stderr.flush()


def _tell_end(plan: Plan, kept: _Kept, failed: int, notices: streams.Notices) -> None:
    """What there is of a sweep that ends early, and how to go on."""
    of = f"{kept.done - failed:,} of {len(plan.grid):,} cells are"
    if isinstance(kept, Store):
        notices.tell(f"{of} kept; to go on: {plan.again}")
    else:
        notices.tell(f"{of} on standard output and nowhere else; a run with --out DIR can go on")


def _failure(plan: Plan, failed: Sequence[CellRecord], kept: bool) -> DecodecliError:
    """The error for cells that failed: which, and whether trying again can help."""
    first, count = failed[0], len(failed)
    if all(never_succeeds(record) for record in failed):
        hint = "the others are whole; it would fail again: leave that prompt out, or shorten it"
    else:
        hint = f"to try again: {plan.again}" if kept else "the others are whole"
    return DecodecliError(
        f"{count:,} cell{'' if count == 1 else 's'} failed; cell {first.index}: {first.error}", hint
    )


def _facts(lm: LanguageModel) -> dict[str, Any]:
    facts = asdict(lm.info)
    if lm.checkpoint is not None:
        facts["weights"] = weights_fingerprint(lm.checkpoint)
    return facts


class _Running:
    """Cells on their way from an engine to the disk, to the screen, and to standard output.

    failed: the cells that ended in an error. drawn: tokens; those of a copied cell are not counted.
    """

    def __init__(self, plan: Plan, kept: _Kept, notices: streams.Notices) -> None:
        self._plan, self._kept, self._notices = plan, kept, notices
        self._lines = plan.output.format == "jsonl"
        self._over = streams.is_terminal(sys.stdout)  # lines would run into the progress
        stream = io.StringIO() if plan.output.quiet else sys.stderr
        self._progress = SweepProgress(console(stream), len(plan.grid), kept.done)
        self.drawn, self._start = 0, time.monotonic()
        self.failed: list[CellRecord] = []
        self.pace, self.rate = "", 0.0

    def run(self, lm: LanguageModel | None) -> None:
        """Run everything that is not done."""
        with contextlib.closing(self._progress):
            results = self._results(lm)
            try:
                for result in results:
                    with postponed():
                        self._kept.add(result.record, result.trace)
                    self._settle()
            finally:
                self._settle(at_once=True)
                close = getattr(results, "close", None)  # what it holds, and whom it employs
                if close is not None:
                    close()
            self.rate = self.drawn / max(time.monotonic() - self._start, 1e-9)
            self.pace = self._progress.pace()

    def _results(self, lm: LanguageModel | None) -> Iterator[CellResult]:
        plan, how, todo = self._plan, self._plan.how, self._kept.todo
        options: dict[str, Any] = {
            "batch_size": how.batch_size,
            "exact": how.exact,
            "traces": how.traces,
            "candidates": plan.output.candidates,
            "on_tokens": self._on_tokens,
        }
        if lm is None:
            from decodecli.sweeps.ray.engine import run_on_ray

            options |= {"address": how.address, "actors": how.actors}
            options |= {"notice": self._tell, "on_model": self._on_model}
            return run_on_ray(plan.load, plan.grid, todo, **options)
        from decodecli.sweeps.run import run_cells

        return run_cells(lm, (plan.grid[index] for index in todo), **options)

    def _on_model(self, info: ModelInfo) -> None:
        """A cluster has loaded the model: as on this machine, time is counted from here."""
        self._kept.check_model(asdict(info))
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
        if not at_once and not self._kept.due():
            return
        with postponed():
            for record in self._kept.sync():
                if record.error is not None:
                    self.failed.append(record)
                self._progress.cell(record)
                if self._lines:
                    if self._over:
                        self._progress.close()
                    streams.write_stdout(to_json_line(record.as_dict()) + "\n")
