"""What a sweep leaves behind: a record a cell, and numbers with intervals a setting.

Plain values only. A cell is one run: one prompt, one setting, one seed. A setting is every decoding
value except the seed. The numbers are defined in docs/METRICS.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from decodecli.records.display import Displayed, continuation_repr, field_values


@dataclass(frozen=True, slots=True, repr=False)
class CellRecord:
    """One finished cell: a line of `runs.jsonl`.

    index: the cell's index in the grid.
    prompt_id, task, prompt: of the prompt; `task` is None where none was given.
    params: every effective decoding value, `seed` and `bos` among them.
    finish_reason: "stop", "length", or "error", and then `error` says what.
    mean_logprob, perplexity: of the tokens drawn, at temperature 1; None without tokens.
    mean_entropy: of the distributions they were drawn from, at temperature 1, nats.
    distinct_1 … distinct_3: different n-grams of token ids over all; None where there are none.
    repeats: whether the text ends in a loop (Holtzman et al. 2019).
    correct: whether the text holds what was expected; None when nothing was.
    segments: what each token added to the text; joined, they are `text`.
    logprobs: of each token, at temperature 1.
    """

    index: int
    prompt_id: str
    task: str | None
    prompt: str
    params: dict[str, Any]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    new_tokens: int
    mean_logprob: float | None
    perplexity: float | None
    mean_entropy: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    repeats: bool
    correct: bool | None
    segments: tuple[str, ...]
    logprobs: tuple[float, ...]
    error: str | None = None

    def __repr__(self) -> str:
        temperature, seed = self.params.get("temperature"), self.params.get("seed")
        texts = continuation_repr(self.prompt, self.text)
        return f"CellRecord({self.index}, {texts}, T {temperature}, seed {seed})"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"type": "cell", "index": …}`."""
        return {"type": "cell", **field_values(self)}


def varying_options(settings: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The options of which decoding settings have several values, with these in order: the axes, seeds
    aside. `greedy` says again what temperature 0 says."""
    values: dict[str, dict[Any, Any]] = {}
    for setting in settings:
        for name, value in setting.items():
            value = tuple(value) if isinstance(value, list) else value
            values.setdefault(name, {})[isinstance(value, bool), value] = value
    return {
        name: tuple(several.values())
        for name, several in values.items()
        if len(several) > 1 and name not in ("seed", "greedy")
    }


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, from `count` observations; no interval where none can be had."""

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """One setting over its prompts and seeds.

    setting: the values of the axes that vary, seed and prompt aside, by name.
    task: the prompts' task where rows are of several tasks or prompts, else None.
    prompt: the id of the only prompt where few were asked without a task, and each has a row; else None.
    cells: how many finished cells this is made of.
    numbers: by the names in `METRICS`; a number that cannot be had is absent.
    """

    setting: dict[str, Any]
    task: str | None
    cells: int
    numbers: dict[str, Estimate]
    prompt: str | None = None

    @property
    def group(self) -> str | None:
        """The prompt or the task whose cells these are, None for those of all prompts."""
        return self.task if self.prompt is None else self.prompt


@dataclass(frozen=True, slots=True, repr=False)
class SweepSummary(Displayed):
    """A sweep in numbers.

    name: of the model. axes: the values of each axis that varies, seed and prompt aside, in grid order.
    cells, finished, failed: how many were asked for, are done, and ended in an error.
    constant: the decoding values that are the same in every cell, by name, those at a default too.
    prompt: the text of the only prompt, None where there are several or it is not known.
    prompt_texts: of the prompts that have rows of their own, by their ids.
    """

    name: str
    axes: dict[str, tuple[Any, ...]]
    settings: tuple[SettingSummary, ...]
    cells: int
    finished: int
    failed: int
    prompts: int
    seeds: tuple[int, ...]
    constant: dict[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    prompt_texts: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def flat(self) -> list[dict[str, Any]]:
        """One record a setting: its values, then each number with the ends of its interval."""
        rows = []
        for setting in self.settings:
            row = {**setting.setting, "task": setting.task, "prompt": setting.prompt}
            row["cells"] = setting.cells
            for name, estimate in setting.numbers.items():
                row[name] = estimate.value
                row |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            rows.append(row)
        return rows


@dataclass(frozen=True, repr=False)
class SweepResult(Displayed):
    """A sweep in memory: its cells, and the numbers made of them."""

    summary: SweepSummary
    cells: tuple[CellRecord, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[CellRecord]:
        return iter(self.cells)

    def __getitem__(self, index: int) -> CellRecord:
        return self.cells[index]

    def flat(self) -> list[dict[str, Any]]:
        """One record a cell, its decoding values as columns of their own."""
        rows = []
        for cell in self.cells:
            row = cell.as_dict()
            for name in ("type", "segments", "logprobs"):
                del row[name]
            rows.append({**row.pop("params"), **row})
        return rows
