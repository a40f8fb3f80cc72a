"""Measure how a sweep's rate grows with Ray workers on this machine, and draw docs/ray-scaling.svg.

python docs/ray_scaling.py                 1 worker, 2, and so on up to one a core
python docs/ray_scaling.py --most 1 --repeat 1 --tokens 8 --out /tmp/try.svg    does it work?

Run by hand on a machine with nothing else to do; neither `make docs` nor a test runs it. It needs the
extra: pip install -e '.[dev,ray]'.

One grid of the built-in model, the same for every number of workers; the numbers take turns, every
other time in the opposite order. A round is a cluster of its own. Its clock starts when all workers have
loaded the model, which they wait for, and stops with the last cell, so the rate has in it what handing
out cells costs and what it costs that workers do not end at the same moment, but not the start of Ray.
The level line is the same grid by the engine without Ray, in this process on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from decodecli.models.machine import usable_cores
from decodecli.settings import LoadParams
from decodecli.sweeps.cells import Cell, CellResult, Prompt
from decodecli.sweeps.grid import Grid, plan
from decodecli.sweeps.ray.engine import run_on_ray
from decodecli.sweeps.ray.worker import Model, Options, load_model

LOAD = LoadParams(device="cpu", dtype="float32", threads=1)
PROMPTS = ["The capital of Japan is", "Once upon a time,", "Long, long ago,", "One day, a cat"]
PICTURE = Path(__file__).resolve().parent / "ray-scaling.svg"


def grid(tokens: int) -> Grid:
    """320 cells: four prompts, eight temperatures, ten seeds."""
    values = {"temperature": "0.25:2:0.25", "seed": "0..9", "max_new_tokens": tokens}
    return plan(values, [Prompt(text, f"p{number}") for number, text in enumerate(PROMPTS)])


def together(folder: str, workers: int) -> Callable[[LoadParams, Options], Model]:
    """Loads the model, then waits until all workers have: none begins before the clock does."""

    def make(load: LoadParams, options: Options) -> Model:
        model = load_model(load, options)
        Path(folder, str(os.getpid())).touch()
        while len(os.listdir(folder)) < workers:
            time.sleep(0.01)
        return model

    return make


class Clock:
    """Tokens a second from the moment that `start` is called."""

    began = 0.0

    def start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def rate(self, outcomes: Iterable[CellResult]) -> float:
        tokens = sum(outcome.record.new_tokens for outcome in outcomes)
        return tokens / (time.perf_counter() - self.began)


def on_workers(cells: Grid, workers: int) -> float:
    """Tokens a second of the whole grid on so many workers."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        make = together(folder, workers)
        todo = range(len(cells))
        return clock.rate(
            run_on_ray(LOAD, cells, todo, actors=workers, make=make, on_model=clock.start)
        )


def without_ray(cells: Grid) -> float:
    """Tokens a second of the whole grid in this process."""
    run = load_model(LOAD, Options()).run
    assert run is not None
    clock = Clock()

    def all_cells() -> Iterator[Cell]:
        clock.start()
        yield from cells

    return clock.rate(run(all_cells(), lambda count: None))


def measure(most: int, repeat: int, tokens: int) -> dict[int, list[float]]:
    """Rates by number of workers; 0 is without Ray."""
    cells, rates = grid(tokens), dict[int, list[float]]()
    sides = list(range(most + 1))
    for turn in range(repeat):
        for workers in sides if turn % 2 == 0 else sides[::-1]:
            rate = on_workers(cells, workers) if workers else without_ray(cells)
            rates.setdefault(workers, []).append(rate)
            print(f"{workers or 'no Ray'}: {rate:,.0f} tokens/s", file=sys.stderr)
    return rates


def draw(rates: dict[int, list[float]], out: Path, tokens: int) -> None:
    """Medians with their range, what one worker times their number would be, and no Ray at all."""
    from decodecli.render.plots.figure_layout import COLOURS, INK, QUIET, TARGET, FigureLayout

    machine = describe()
    packages = {name: version.split("+")[0] for name, version in machine["versions"].items()}
    what = f"{len(grid(tokens))} cells of at most {tokens} tokens of the built-in model"
    where = f"{machine['cpu']}, {machine['cores']} cores, torch {packages.get('torch')}"
    title = "How a sweep's rate grows with Ray workers on one machine"
    sheet = FigureLayout((6.4, 3.8), title, f"{what} · {where}")
    axes = sheet.figure.add_subplot()
    workers = sorted(number for number in rates if number)
    middle = {number: statistics.median(values) for number, values in rates.items()}
    axes.plot(
        workers, [middle[1] * number for number in workers], color=QUIET, linestyle=(0, (2, 2)),
        label="one worker's rate times their number",
    )  # fmt: skip
    axes.axhline(middle[0], color=TARGET, label="without Ray, one thread")
    axes.errorbar(
        workers, [middle[number] for number in workers],
        yerr=[
            [middle[number] - min(rates[number]) for number in workers],
            [max(rates[number]) - middle[number] for number in workers],
        ],
        color=COLOURS[0], marker="o", capsize=4, label=f"median and range of {len(rates[1])}",
    )  # fmt: skip
    for number in workers:
        axes.annotate(
            f"{middle[number]:,.0f}", (number, middle[number]), xytext=(8, -12),
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
    axes.set_xticks(workers)
    axes.set_xlim(0.5, max(workers) + 0.5)
    axes.set_ylim(0, 1.3 * max(middle[1] * max(workers), *middle.values()))
    axes.set_xlabel("workers, one thread each")
    axes.set_ylabel("tokens/s")
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    sheet.figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=usable_cores(), help="workers at the most")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of a cell, at the most")
    parser.add_argument("--out", type=Path, default=PICTURE)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    rates = measure(asked.most, asked.repeat, asked.tokens)
    draw(rates, asked.out, asked.tokens)
    print(json.dumps({"machine": describe(), "tokens_per_second": rates}, indent=2))


if __name__ == "__main__":
    main()
