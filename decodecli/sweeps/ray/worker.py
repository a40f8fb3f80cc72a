"""What runs on the cluster: a process with a model in it that is handed cells and hands back results.

Ray itself is not imported here; `engine` makes an actor of `Worker`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace

import decodecli
from decodecli.errors import DecodecliError
from decodecli.models.checkpoint import find_checkpoint
from decodecli.models.machine import threads_for, usable_cores
from decodecli.records.run import ModelInfo
from decodecli.settings import LoadParams
from decodecli.sweeps.cells import Cell, CellResult
from decodecli.sweeps.grid import Grid
from decodecli.sweeps.ray.requirements import Requirements

_BILLION = 1_000_000_000
_LIBRARIES = 700_000_000  # bytes of a process that has PyTorch and transformers and no model

Run = Callable[[Iterable[Cell | None], Callable[[int], None]], Iterator[CellResult]]


@dataclass(frozen=True)
class Options:
    """How cells are run: the keyword arguments of `run_cells`."""

    batch_size: int = 16
    exact: bool = False
    traces: bool = False
    candidates: int = 10


@dataclass(frozen=True)
class Problem:
    """Why a machine cannot be used: a line, and a line on what to do."""

    message: str
    hint: str = ""


@dataclass(frozen=True)
class Model:
    """A loaded model: what it is, the versions it runs with, what its user should know, and `run`,
    which takes cells and a callback for drawn tokens."""

    info: ModelInfo | None
    versions: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    run: Run | None = None


@dataclass(frozen=True)
class Report:
    """What a worker has done since the last one. trouble: what stopped it, and then it is of no more
    use."""

    results: tuple[CellResult, ...]
    tokens: int
    trouble: str | None = None


def portable(load: LoadParams) -> LoadParams:
    """The same options for other processes: a folder by its absolute path, and as many threads as
    `OMP_NUM_THREADS` says here, since Ray sets it for a worker."""
    local = os.path.expanduser(load.model)
    model = os.path.abspath(local) if os.path.isdir(local) else load.model
    threads = os.environ.get("OMP_NUM_THREADS", "").strip()
    number = int(threads) if threads.isdecimal() else 0
    return replace(load, model=model, threads=load.threads or number or None)


def survey(load: LoadParams) -> Requirements | Problem:
    """Look at this machine, and fetch the model's files if they are still on the hub."""
    try:
        parameters = find_checkpoint(load).parameters
    except DecodecliError as error:
        return Problem(error.message, error.hint)
    threads = load.threads or threads_for(parameters)
    wide = load.dtype == "float32" or (load.dtype == "auto" and parameters < _BILLION)
    memory = _LIBRARIES + parameters * (4 if wide else 2)
    return Requirements(usable_cores(), threads, memory, decodecli.__version__)


def load_model(load: LoadParams, options: Options) -> Model:
    """The model, and `run_cells` on it."""
    from decodecli.decoding.decode import library_versions
    from decodecli.models.loading import load as load_lm
    from decodecli.sweeps.run import run_cells

    lm = load_lm(load)

    def run(cells: Iterable[Cell | None], on_tokens: Callable[[int], None]) -> Iterator[CellResult]:
        return run_cells(lm, cells, **asdict(options), on_tokens=on_tokens)

    return Model(lm.info, library_versions(), lm.notices, run)


class Worker:
    """One model, and a thread that works with it; the methods are called from outside, one at a time.

    The thread takes cells from an inbox as rows of its batch become free, so that cells handed over
    in good time are begun without a pause.
    """

    def __init__(
        self,
        load: LoadParams,
        grid: Grid,
        options: Options,
        make: Callable[[LoadParams, Options], Model] = load_model,
    ) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `__main__`: before torch
        self._load, self._grid, self._options, self._make = load, grid, options, make
        self._changed = threading.Condition()
        self._inbox: deque[int] = deque()
        self._under_way = 0  # cells that the model was given and has not given back
        self._results: list[CellResult] = []
        self._tokens = 0
        self._model: Model | Problem | None = None
        self._trouble: str | None = None
        # Threads of PyTorch are set for the thread that asks, so one thread loads and decodes.
        threading.Thread(target=self._live, daemon=True).start()

    def ready(self) -> Model | Problem:
        """Wait until the model is loaded, or cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: self._model is not None)
        assert self._model is not None
        return replace(self._model, run=None) if isinstance(self._model, Model) else self._model

    def exchange(self, cells: list[int], pause: float) -> Report:
        """Take further cells, and report when one has ended, or after `pause` seconds."""
        with self._changed:
            self._inbox.extend(cells)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._results or self._trouble is not None, pause)
            report = Report(tuple(self._results), self._tokens, self._trouble)
            self._results, self._tokens = [], 0
        return report

    def _live(self) -> None:
        model: Model | Problem
        try:
            model = self._make(self._load, self._options)
        except DecodecliError as error:
            model = Problem(error.message, error.hint)
        except Exception as error:
            model = Problem(f"the model cannot be loaded: {type(error).__name__}: {error}")
        with self._changed:
            self._model = model
            self._changed.notify_all()
        if isinstance(model, Problem) or model.run is None:
            return
        try:
            for result in model.run(self._cells(), self._count):
                with self._changed:
                    self._under_way -= 1
                    self._results.append(result)
                    self._changed.notify_all()
        except BaseException as error:  # a CUDA error leaves a process that is of no more use
            with self._changed:
                self._trouble = f"{type(error).__name__}: {error}".strip(": ")
                self._changed.notify_all()

    def _cells(self) -> Iterator[Cell | None]:
        """Cells from the inbox. While it is empty those under way go on; then it is waited for."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._inbox or self._under_way)
                index = self._inbox.popleft() if self._inbox else None
                self._under_way += index is not None
            yield None if index is None else self._grid[index]

    def _count(self, tokens: int) -> None:
        with self._changed:
            self._tokens += tokens
