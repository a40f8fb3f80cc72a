"""Cell records → a `SweepSummary`: each setting's numbers with their intervals.

docs/METRICS.md defines the numbers. Some are of a cell and averaged, some of a prompt's seeds together,
one of all that a setting drew.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from decodecli.analysis import text_metrics
from decodecli.analysis.confidence_intervals import Interval, jackknife, mean, student, wilson
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import CellRecord, Estimate, SettingSummary, SweepSummary
from decodecli.sweeps.axes import LATER_AXES

_OF_A_CELL = (
    *("mean_logprob", "mean_entropy", "distinct_1", "distinct_2", "distinct_3"),
    "new_tokens",
)
FEW = 8  # prompts, at most, that have a row each where they have no task
_BLOCKS = 100  # of cells, at most, to be left out in turn
# Where a number cannot be below or above, its interval is cut off.
_RANGES = {
    "mean_logprob": (-math.inf, 0.0),
    "mean_entropy": (0.0, math.inf),
    "zipf": (0.0, math.inf),
    "divergence_step": (0.0, math.inf),
    "new_tokens": (0.0, math.inf),
}

Key = tuple[Any, ...]
_Group = tuple[str | None, str | None]  # a task, and a prompt that has rows of its own
_Output = tuple[str, "array[int]"]


def summarise(
    name: str,
    axes: Mapping[str, tuple[Any, ...]],
    seeds: Sequence[int],
    prompts: int,
    cells: int,
    records: Iterable[CellRecord],
) -> SweepSummary:
    """A sweep in numbers, from its records in any order, which changes nothing.

    A prompt's texts are held until all its seeds are there, token ids and numbers to the end.

    Args:
        name: of the model.
        axes: the values of each axis that varies, seed and prompt aside, in grid order.
        seeds, prompts, cells: of the grid.
        records: each cell at most once; those that ended in an error are counted and left out.

    Raises:
        KeyError: a record lacks the value of an axis.
    """
    gathered: defaultdict[tuple[Key, _Group], _SettingCells] = defaultdict(_SettingCells)
    finished = failed = 0
    first: CellRecord | None = None
    texts: dict[str, str] = {}
    for record in records:
        first = first or record
        values = tuple(_plain((LATER_AXES | record.params)[axis]) for axis in axes)
        apart = record.task is None and prompts <= FEW
        if apart:
            texts.setdefault(record.prompt_id, record.prompt)
        group = record.task, record.prompt_id if apart else None
        gathered[values, group].add(record, len(seeds))
        failed += record.finish_reason == "error"
        finished += record.finish_reason != "error"

    settings = _settings(axes, gathered)
    return SweepSummary(
        name=name,
        axes=dict(axes),
        settings=settings,
        cells=cells,
        finished=finished,
        failed=failed,
        prompts=prompts,
        seeds=tuple(seeds),
        # `greedy` only says again what the temperature says
        constant={
            name: _plain(value)
            for name, value in (first.params if first else {}).items()
            if name not in (*axes, "seed", "greedy")
        },
        prompt=first.prompt if first and prompts == 1 else None,
        prompt_texts={s.prompt: texts[s.prompt] for s in settings if s.prompt is not None},
    )


def _settings(
    axes: Mapping[str, Key], gathered: Mapping[tuple[Key, _Group], _SettingCells]
) -> tuple[SettingSummary, ...]:
    """Those with a finished cell, in grid order; within one, tasks and prompts in their order."""
    finished = {key: cells for key, cells in gathered.items() if cells.tokens}
    first: dict[_Group, int] = {}
    for (_, group), cells in finished.items():
        first[group] = min(cells.first, first.get(group, cells.first))
    positions = [{value: n for n, value in enumerate(_plain(axes[axis]))} for axis in axes]

    def order(key: tuple[Key, _Group]) -> tuple[list[tuple[int, str]], int]:
        """By the positions of the values in their axes, those that are not listed there at the end."""
        pairs = zip(key[0], positions, strict=True)
        return [(n[v], "") if v in n else (len(n), repr(v)) for v, n in pairs], first[key[1]]

    return tuple(
        SettingSummary(
            setting=dict(zip(axes, values, strict=True)),
            task=group[0] if len(first) > 1 else None,
            cells=len(finished[values, group].tokens),
            numbers=finished[values, group].numbers(),
            prompt=group[1] if len(first) > 1 else None,
        )
        for values, group in sorted(finished, key=order)
    )


class _SettingCells:
    """What is kept of the cells of one setting and task, or prompt."""

    def __init__(self) -> None:
        self.of_cells: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.of_prompts: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.repeating = 0  # cells that end in a loop
        self.ended = 0  # cells that the model ended, or a stop string
        self.correct = self.judged = 0  # cells that are right, of those where that is known
        self.tokens: list[tuple[int, array[int]]] = []  # each cell's index and ids
        # A prompt's texts and ids until all its seeds are there, None for a cell that failed.
        self.waiting: defaultdict[str, list[_Output | None]] = defaultdict(list)

    @property
    def first(self) -> int:
        return min(index for index, _ in self.tokens)

    def add(self, record: CellRecord, seeds: int) -> None:
        output: _Output | None = None
        if record.finish_reason != "error":
            for name in _OF_A_CELL:
                if (value := getattr(record, name)) is not None:
                    self.of_cells[name].append(value)
            self.repeating += record.repeats
            self.ended += record.finish_reason == "stop"
            self.correct += record.correct is True
            self.judged += record.correct is not None
            output = record.text, array("i", record.token_ids)
            self.tokens.append((record.index, output[1]))
        outputs = self.waiting[record.prompt_id]
        outputs.append(output)
        if len(outputs) >= seeds:
            self._add_prompt(self.waiting.pop(record.prompt_id))

    def _add_prompt(self, outputs: Sequence[_Output | None]) -> None:
        done = [output for output in outputs if output is not None]
        ids = [ids for _, ids in done]
        numbers = {
            "self_bleu_4": text_metrics.self_bleu([text for text, _ in done]),
            "identical": text_metrics.identical_share(ids),
            "divergence_step": text_metrics.divergence_step(ids),
        }
        for name, value in numbers.items():
            if value is not None:
                self.of_prompts[name].append(value)

    def numbers(self) -> dict[str, Estimate]:
        """Every number that can be had, in the order of `METRICS`."""
        while self.waiting:
            self._add_prompt(self.waiting.popitem()[1])
        values = self.of_cells | self.of_prompts
        means = {
            name: _estimate(name, mean(each), student(each), len(each))
            for name, each in values.items()
        }
        estimates: dict[str, Estimate | None] = {
            **means,
            "repetition_rate": _share(self.repeating, len(self.tokens)),
            "ended": _share(self.ended, len(self.tokens)),
            "accuracy": _share(self.correct, self.judged) if self.judged else None,
            "perplexity": _perplexity(means["mean_logprob"]) if "mean_logprob" in means else None,
            "zipf": self._zipf(),
        }
        known = {name: estimate for name, estimate in estimates.items() if estimate is not None}
        return {name: known[name] for name in METRICS if name in known}

    def _zipf(self) -> Estimate | None:
        drawn = [ids for _, ids in sorted(self.tokens, key=lambda one: one[0])]
        value = text_metrics.zipf(drawn)
        if value is None:
            return None
        # Neighbours in the grid together, so that a prompt's cells stay in one block.
        size = math.ceil(len(drawn) / _BLOCKS)
        blocks = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        without = text_metrics.zipf_without_each([array("i", chain(*block)) for block in blocks])
        known = [other for other in without if other is not None]
        interval = jackknife(value, known) if len(known) == len(blocks) else None
        return _estimate("zipf", value, interval, len(drawn))


def _share(successes: int, trials: int) -> Estimate:
    return _estimate("", successes / trials, wilson(successes, trials), trials)


def _perplexity(logprob: Estimate) -> Estimate | None:
    """exp(−mean logprob), its interval's ends likewise; None beyond a float."""
    numbers: list[float | None] = []
    for exponent in (logprob.value, logprob.high, logprob.low):
        try:
            numbers.append(None if exponent is None else math.exp(-exponent))
        except OverflowError:
            numbers.append(None)
    value, low, high = numbers
    if value is None:
        return None
    if low is None or high is None:
        low = high = None
    return Estimate(value, low, high, logprob.count)


def _estimate(name: str, value: float, interval: Interval | None, count: int) -> Estimate:
    least, most = _RANGES.get(name, (0.0, 1.0))
    low, high = interval or (None, None)
    return Estimate(
        value=value,
        low=None if low is None else max(low, least),
        high=None if high is None else min(high, most),
        count=count,
    )


def _plain(value: Any) -> Any:
    """The value as it can be a key: JSON made lists of tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
