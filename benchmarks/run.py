"""Run a plan: every section on every model, one row after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import plan as plans
from benchmarks import shapes
from benchmarks.decoding import Drawn, decode_rows, trace_rows
from benchmarks.plan import Plan
from benchmarks.report import Report, Row
from benchmarks.subjects import Subject, fitting, is_quantized, loaded
from decodecli.errors import DecodecliError, UsageError

Progress = Callable[[str], None]
_SLOW = 3  # repetitions at most of what takes a minute each


class Bench:
    """One run of the benchmark: `for row in bench.rows(): …`, then `bench.report`.

    Making one resolves the device and checks that the models asked for fit, so that what cannot be
    done is refused at once.

    Args:
        plan: what to measure.
        drawn: what decodes and draws at a terminal, as `decodecli generate` does.
        progress: called with a few words as measuring goes on.

    Raises:
        UsageError: the device asked for is not there.
        LoadError: a model fits in no precision asked for.
    """

    def __init__(self, plan: Plan, drawn: Drawn, progress: Progress = lambda _: None) -> None:
        from benchmarks.machine import describe
        from decodecli.models.resolve import choose_device

        self.plan, self.drawn, self.progress = plan, drawn, progress
        self.device = choose_device(plan.device)
        if self.device == "mps":
            raise UsageError("bench runs on cpu and cuda only", "use --device cpu")
        self.sections = plan.sections()
        self.precisions: dict[str, dict[str, str]] = {}
        if any(section in plans.MODEL for section in self.sections):
            wanted = plan.precisions(self.device)
            names = plan.models(self.device)
            self.precisions = {name: fitting(name, wanted, self.device) for name in names}
        settings = {
            "repeat": plan.repetitions,
            "device": self.device,
            "tokens": plan.tokens,
            "threads": plan.threads,
            "quick": plan.quick,
            "models": list(self.precisions),
            "precisions": list(plan.precisions(self.device)),
            "sections": list(self.sections),
        }
        self.report = Report(plan.command, describe(self.device), settings)

    def rows(self) -> Iterator[Row]:
        """Measure; each row is in the report once it is given out."""
        with (
            tempfile.TemporaryDirectory(prefix="decodecli-bench-") as folder,
            _threads(self.plan.threads),
            _own_cache(Path(folder) / "cache"),
        ):
            for row in self._all(Path(folder)):
                self.report.rows.append(row)
                yield row

    def _all(self, folder: Path) -> Iterator[Row]:
        for name, precisions in self.precisions.items():
            yield from self._model(name, precisions, folder)
        steps: dict[str, Callable[[], Iterator[Row]]] = {
            "sweep": lambda: self._sweep(folder),
            "sampler": self._sampler,
            "start": lambda: self._start(folder),
            "neighbours": lambda: self._neighbours(folder),
            "memory": lambda: self._memory(folder),
        }
        for section, rows in steps.items():
            if section in self.sections:
                self.progress(section)
                yield from _whatever_comes(section, "", rows)

    def _model(self, name: str, precisions: dict[str, str], folder: Path) -> Iterator[Row]:
        """Every section on one model, a precision at a time."""
        import shutil

        source, own = name, None
        if name in shapes.SHAPES and self.plan.model is None:
            self.progress(f"writing random weights of {name}")
            own = shapes.write_model(folder / name, shapes.SHAPES[name].config)
            source = str(own)
        try:
            for precision, reason in precisions.items():
                label = f"{name} · {precision}"
                if reason:
                    yield Row("decode", label, "all of its sections", skipped=reason)
                    continue
                yield from self._loaded(name, source, precision, folder)
                if "load" in self.sections and is_quantized(precision):
                    self.progress(f"load · {label}")
                    yield from _whatever_comes(
                        "load", label, partial(self._load, source, label, precision, folder)
                    )
        finally:
            if own is not None:
                shutil.rmtree(own, ignore_errors=True)

    def _loaded(self, name: str, source: str, precision: str, folder: Path) -> Iterator[Row]:
        """The sections that need the model in this process."""
        from benchmarks.bandwidth import bandwidth_rows

        plan, repeat = self.plan, self.plan.repetitions
        own = ("decode", "trace", "bandwidth", "sweep", "llama")
        wanted = [section for section in own if section in self.sections]
        if not is_quantized(precision) and any(map(is_quantized, self.precisions[name])):
            wanted = [section for section in wanted if section != "llama"]  # once it is enough
        if not wanted:
            return
        self.progress(f"loading {name} · {precision}")
        given = (self.device, plan.threads, plan.tokens, plan.quick, plan.revision)
        with loaded(name, source, precision, *given) as subject:
            parts: dict[str, Callable[[], Iterator[Row]]] = {
                "decode": lambda: decode_rows(subject, repeat),
                "trace": lambda: trace_rows(subject, repeat, self.drawn),
                "bandwidth": lambda: bandwidth_rows(subject, repeat, plan.quick),
                "sweep": lambda: self._cells(subject),
                "llama": lambda: self._llama(subject, folder),
            }
            for section in wanted:
                self.progress(f"{section} · {subject.label}")
                yield from _whatever_comes(section, subject.label, parts[section])

    def _cells(self, subject: Subject) -> Iterator[Row]:
        from benchmarks.sweeps import cell_rows

        yield from cell_rows(subject, min(self.plan.repetitions, _SLOW), self.plan.quick)

    def _sweep(self, folder: Path) -> Iterator[Row]:
        from benchmarks.sweeps import process_rows

        repeat = min(self.plan.repetitions, _SLOW)
        yield from process_rows(folder / "sweep", self.device, repeat, self.plan.quick)

    def _llama(self, subject: Subject, folder: Path) -> Iterator[Row]:
        from benchmarks.llama import llama_rows

        yield from llama_rows(subject, self.plan.repetitions, folder)

    def _load(self, source: str, label: str, precision: str, folder: Path) -> Iterator[Row]:
        from benchmarks.loads import load_rows

        repeat = min(self.plan.repetitions, _SLOW)
        yield from load_rows(source, label, precision, folder / "load", self.device, repeat)

    def _sampler(self) -> Iterator[Row]:
        from benchmarks.sampler import sampler_rows

        yield from sampler_rows(self.device, self.plan.repetitions, self.plan.quick)

    def _start(self, folder: Path) -> Iterator[Row]:
        from benchmarks.programs import start_rows

        yield from start_rows(folder / "start", self.device, self.plan.repetitions)

    def _neighbours(self, folder: Path) -> Iterator[Row]:
        from benchmarks.programs import neighbour_rows

        repeat = min(self.plan.repetitions, _SLOW)
        yield from neighbour_rows(folder / "neighbours", self.device, repeat, self.plan.quick)

    def _memory(self, folder: Path) -> Iterator[Row]:
        from benchmarks.programs import memory_rows

        yield from memory_rows(folder / "memory", self.device, self.plan.quick)


def _whatever_comes(section: str, label: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a section; a failure on the way becomes a row, and the other sections go on."""
    try:
        yield from rows()
    except DecodecliError as error:
        yield Row(section, label, "this section", skipped=f"it failed: {error.message}")
    except Exception as error:  # a library's own; an interrupt still ends the run
        from decodecli.models.model_files import first_line

        yield Row(section, label, "this section", skipped=f"it failed: {first_line(error)}")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """The number of threads for every side, put back after."""
    if count is None:
        yield
        return
    import torch

    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # for the processes that are started
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Keep random weights out of the user's cache."""
    before = os.environ.get("DECODECLI_CACHE")
    os.environ["DECODECLI_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DECODECLI_CACHE"]
        else:
            os.environ["DECODECLI_CACHE"] = before
