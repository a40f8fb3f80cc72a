"""The grid of a sweep: every prompt at every setting with every seed, computed and not kept.

How a command gets one:

    file = read_grid(name) if name else GridFile("")
    effective = resolve(flags, grid=file.values, expressions=True)
    prompts = gather_prompts(arguments, prompts_file) or file.prompts       # or the built-in prompt
    values = effective.values | {"seed": seed}              # drawn, where effective has None
    grid = plan(values, prompts, zips or file.zip_groups, sources=effective.sources)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from decodecli.config import KEYS, from_source, temperature_of
from decodecli.errors import UsageError
from decodecli.records.sweep import CellRecord
from decodecli.settings import ChatParams, SamplingParams, chat_params, check_chat_and_bos
from decodecli.stages import ORDER
from decodecli.sweeps.axes import AXES, LATER_AXES, parse_axis, shortened, unknown_axis
from decodecli.sweeps.cells import Cell, Prompt

MOST_CELLS = 10_000_000
_MISSING = object()


@dataclass(frozen=True)
class Dimension:
    """One axis, or several that are zipped.

    names: the options. rows: their values, in the order of `names`.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> tuple[Any, ...]:
        """The values of one option, a value a row."""
        return tuple(row[self.names.index(name)] for row in self.rows)


@dataclass(frozen=True)
class Grid:
    """Cells by number: prompts outermost, then the dimensions, the seed innermost.

    `len(grid)`, `grid[index]` and iteration give `Cell`s, computed and not kept. Plain, picklable data.
    dimensions: every decoding option is in one of them, those that do not vary too; seed is the last.
    """

    prompts: tuple[Prompt, ...]
    dimensions: tuple[Dimension, ...]
    description: str = ""

    @cached_property
    def _dimension_of(self) -> dict[str, Dimension]:
        return {name: dimension for dimension in self.dimensions for name in dimension.names}

    @cached_property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Every decoding option with its different values, in order; "bos" and "seed" among them."""
        return {name: tuple(dict.fromkeys(self._dimension_of[name].column(name))) for name in AXES}

    @cached_property
    def varying(self) -> dict[str, tuple[Any, ...]]:
        """The axes with more than one value, seed aside."""
        return {name: v for name, v in self.axes.items() if len(v) > 1 and name != "seed"}

    @property
    def chat(self) -> ChatParams | None:
        """How the prompts go through the chat template; None where they do not."""
        return self.prompts[0].chat

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.axes["seed"]

    @property
    def zipped(self) -> tuple[tuple[str, ...], ...]:
        """The groups of axes that go together, by name."""
        return tuple(each.names for each in self.dimensions if len(each.names) > 1)

    @property
    def settings(self) -> int:
        """The number of settings: everything but prompt and seed."""
        return math.prod(len(dimension.rows) for dimension in self.dimensions[:-1])

    @property
    def prefills(self) -> int:
        """How many prompts the model reads, at most; with and without BOS count apart."""
        return len({prompt.text for prompt in self.prompts}) * len(self.axes["bos"])

    @property
    def max_tokens(self) -> int:
        """The tokens to draw where every cell comes to its max_new_tokens."""
        limits = self._dimension_of["max_new_tokens"].column("max_new_tokens")
        return len(self) // len(limits) * sum(limits)

    @property
    def repeated(self) -> int:
        """How many cells must equal another, being greedy with another seed."""
        temperatures = self._dimension_of["temperature"].column("temperature")
        greedy = len(self) // len(temperatures) * temperatures.count(0)
        return greedy - greedy // len(self.seeds)

    def __len__(self) -> int:
        return len(self.prompts) * self.settings * len(self.seeds)

    def __getitem__(self, index: int) -> Cell:
        """The cell of that number, from 0; negative ones count from the end. Raises IndexError."""
        index = range(len(self))[index]
        prompt, values = self._values_at(index)
        bos = values.pop("bos")
        return Cell(index, prompt, SamplingParams(**values), bos)

    def __iter__(self) -> Iterator[Cell]:
        return map(self.__getitem__, range(len(self)))

    def _values_at(self, index: int) -> tuple[Prompt, dict[str, Any]]:
        """The prompt and the decoding values of a cell."""
        values = dict[str, Any]()
        for dimension in reversed(self.dimensions):
            index, row = divmod(index, len(dimension.rows))
            values.update(zip(dimension.names, dimension.rows[row], strict=True))
        return self.prompts[index], values

    def differs(self, record: CellRecord) -> str | None:
        """What a record has otherwise than the cell of its number: "prompt" or an option; None if it is
        that cell's. A record has what `bos` came to where it was left to the tokenizer."""
        prompt, values = self._values_at(record.index)
        if (record.prompt_id, record.prompt, record.task) != (prompt.id, prompt.text, prompt.task):
            return "prompt"
        for name, expected in values.items():
            value = record.params.get(name, LATER_AXES.get(name, _MISSING))
            value = tuple(value) if isinstance(value, list) else value
            by_tokenizer = name == "bos" and expected is None and value is not _MISSING
            if value != expected and not by_tokenizer:
                return name
        return None

    def index_of(self, cell: Cell) -> int | None:
        """The number that a cell of another grid has in this one; None where it is not here."""
        rows = (tuple(map(cell.value, dimension.names)) for dimension in self.dimensions)
        index = 0
        for numbers, value in zip(self._indices, (cell.prompt, *rows), strict=True):
            if value not in numbers:
                return None
            index = index * len(numbers) + numbers[value]
        return index

    @cached_property
    def _indices(self) -> tuple[dict[Any, int], ...]:
        """The number of each prompt, then of each row of each dimension."""
        columns = (self.prompts, *(each.rows for each in self.dimensions))
        return tuple({value: number for number, value in enumerate(each)} for each in columns)

    def holds(self, other: Grid) -> bool:
        """Whether every cell of `other` is in this grid."""
        if not set(other.prompts) <= set(self.prompts) or not set(other.seeds) <= set(self.seeds):
            return False
        if not self.zipped and not other.zipped:
            return all(set(other.axes[name]) <= set(self.axes[name]) for name in AXES)
        cells = (other[setting * len(other.seeds)] for setting in range(other.settings))
        return all(self.index_of(cell) is not None for cell in cells)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of everything that decides the cells; not the model, not the description."""
        digest = hashlib.sha256(b"decodecli grid 1")
        for dimension in self.dimensions:
            later = [name for name in dimension.names if name in LATER_AXES]
            neutral = tuple(LATER_AXES[name] for name in later)
            if later == list(dimension.names) and dimension.rows == (neutral,):
                continue
            digest.update(json.dumps([dimension.names, dimension.rows]).encode())
        for prompt in self.prompts:
            digest.update(json.dumps(prompt.as_dict()).encode())
        if self.chat is not None:
            digest.update(json.dumps(self.chat.as_dict()).encode())
        return digest.hexdigest()

    def as_toml(
        self, options: Mapping[str, Any] | None = None, comments: Sequence[str] = ()
    ) -> str:
        """A grid file of the same cells, prompts included: `read_grid` and `plan` give this grid again.

        Every decoding option is there, those at their default too.

        Args:
            options: further options to write, such as the model's; those that are None are left out.
            comments: lines to put at the top.
        """
        chat = self.chat.as_dict() if self.chat else {}
        header = {**(options or {}), "description": self.description or None, **chat}
        zipped = {name for group in self.zipped for name in group}
        axes = {
            name: self._dimension_of[name].column(name) if name in zipped else values
            for name, values in self.axes.items()
        }
        times = Counter(prompt.text for prompt in self.prompts)
        prompts: list[Any] = []
        for position, prompt in enumerate(self.prompts):  # a string where that says it all
            is_plain = prompt == Prompt(prompt.text, f"p{position}", chat=prompt.chat)
            is_plain = is_plain and times[prompt.text] == 1
            prompts.append(prompt.text if is_plain else prompt.as_dict())
        return "".join(
            [
                *(f"# {comment}\n" for comment in comments),
                toml_lines(header),
                *("prompts = [\n", *(f"  {to_toml(entry)},\n" for entry in prompts), "]\n"),
                toml_lines({name: _axis_entry(name, values) for name, values in axes.items()}),
                toml_lines({"zip": [list(names) for names in self.zipped] or None}),
            ]
        )


def toml_lines(values: Mapping[str, Any]) -> str:
    """A line a value; those that are None are left out."""
    return "".join(f"{k} = {to_toml(v)}\n" for k, v in values.items() if v is not None)


def to_toml(value: Any) -> str:
    """A value in TOML, on one line."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, str):  # JSON's escapes are TOML's, which wants one more
        text = value.encode("utf-8", "replace").decode()  # a path may hold what is no character
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


def _axis_entry(name: str, values: tuple[Any, ...]) -> Any:
    """An axis as a grid file has it; consecutive seeds as an expression."""
    if name == "seed" and len(values) > 2:
        first, last = values[0], values[0] + len(values) - 1
        if values == tuple(range(first, last + 1)):
            return f"{first}..{last}"
    entries = ["auto" if value is None else value for value in values]
    return entries[0] if len(entries) == 1 else entries


def plan(
    values: Mapping[str, Any],
    prompts: Sequence[Prompt],
    zip_groups: Sequence[Sequence[str]] = (),
    *,
    sources: Mapping[str, str] | None = None,
    description: str = "",
) -> Grid:
    """The grid of these values.

    Args:
        values: options by name, each a value, a list or an expression (see `parse_axis`); those that
            are absent have their default, options that are no decoding options are passed over.
            `seeds` is another name of `seed`, which must be there: who calls draws one when none is
            given.
        zip_groups: names of axes that go together, row by row, instead of in a product. They have the
            same number of values; one with a single value goes with every row.
        sources: of the values, as `Effective.sources`: messages say where a bad value came from.

    Raises:
        UsageError: an unknown option, a bad value, no seed, no prompt, axes that cannot be paired, more
            than ten million cells.
    """
    decoding = _decoding_values(values)
    groups = checked_groups(zip_groups)
    zipped = {name for group in groups for name in group}
    axes: dict[str, tuple[Any, ...]] = {}
    for name in AXES:
        try:
            axes[name] = parse_axis(name, decoding[name], repeats=name in zipped)
        except UsageError as error:
            raise from_source(error, name, (sources or {}).get(name, "flag")) from None
    if not prompts:
        raise UsageError("there is no prompt to sweep over", "give one, or --prompts FILE")
    (name, times), *_ = Counter(prompt.id for prompt in prompts).most_common(1)
    if times > 1:
        raise UsageError(f"{times} prompts have the id {shortened(name)}", "ids must differ")
    for order in axes["order"]:  # raises, before any cell is run, where one leaves out what is on
        on = {
            name: max(axes[name], key=lambda value: value != getattr(SamplingParams, name))
            for name in ORDER
        }
        SamplingParams(**on, order=order)
    chat = chat_params(values)
    if axes["bos"] != (None,):
        check_chat_and_bos(chat, axes["bos"])
    if chat is not None:
        prompts = [replace(prompt, chat=chat) for prompt in prompts]
    grid = Grid(tuple(prompts), tuple(_dimensions(axes, groups)), description)
    cells = len(grid.prompts) * grid.settings * len(grid.seeds)  # beyond what len() can give
    if cells > MOST_CELLS:
        raise UsageError(
            f"the grid has {cells:,} cells; at most {MOST_CELLS:,} are possible",
            "take fewer values, or run it in parts",
        )
    return grid


def _decoding_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every axis, defaults filled in."""
    for name in values:
        if name not in KEYS and name not in (*AXES, "seeds"):
            raise unknown_axis(name)
    defaults = SamplingParams()
    decoding = {name: values.get(name, getattr(defaults, name, None)) for name in AXES}
    temperature = temperature_of([("flag", values)])
    if temperature is not None:
        decoding["temperature"] = temperature[0]
    if values.get("seeds") is not None:
        if values.get("seed") is not None:
            raise UsageError(
                "--seed and --seeds are one axis, and both were given", "leave one out"
            )
        decoding["seed"] = values["seeds"]
    if decoding["seed"] is None:
        raise UsageError("--seeds is missing", "give one or several, as in --seeds 0..4")
    return decoding


def checked_groups(groups: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups of axes to zip, each in the axes' order.

    Raises:
        UsageError: an unknown name, seed, an axis twice, or a group of less than two.
    """
    known: set[str] = set()
    for group in groups:
        if len(group) < 2:
            raise UsageError(
                f"--zip pairs two axes or more, got {', '.join(group) or 'none'}",
                "as in --zip temperature,top-p",
            )
        for name in group:
            if name not in AXES:
                raise unknown_axis(name)
            if name == "seed":
                raise UsageError(
                    "--zip cannot pair seeds: every setting is run with every seed",
                    "leave seed out of --zip",
                )
            if name in known:
                raise UsageError(f"--zip names {name} twice", "an axis can be paired once")
            known.add(name)
    return tuple(tuple(sorted(group, key=AXES.index)) for group in groups)


def zip_group(text: str) -> tuple[str, ...]:
    """The axes named by `--zip temperature,top-p`. Raises UsageError for an unknown name."""
    names = [word.strip().lstrip("-").replace("-", "_") for word in text.split(",")]
    names = ["seed" if name == "seeds" else name for name in names]
    checked_groups([names])
    return tuple(names)


def _dimensions(
    axes: Mapping[str, tuple[Any, ...]], groups: Sequence[tuple[str, ...]]
) -> Iterator[Dimension]:
    """A dimension an axis, or a group of zipped ones in the place of its first."""
    # An axis of one value goes with every row of the others: it is a dimension of its own.
    group_of = {
        name: tuple(other for other in group if len(axes[other]) > 1)
        for group in groups
        for name in group
        if len(axes[name]) > 1
    }
    for names in dict.fromkeys(group_of.get(name, (name,)) for name in AXES):
        if len({len(axes[name]) for name in names}) > 1:
            lengths = ", ".join(f"{name} has {len(axes[name]):,}" for name in names)
            raise UsageError(
                f"--zip {','.join(names)}: the axes have different numbers of values: {lengths}",
                "give each the same number, or one value that goes with all",
            )
        rows = tuple(zip(*(axes[name] for name in names), strict=True))
        (row, times), *_ = Counter(rows).most_common(1)
        if times > 1:
            pairs = zip(names, row, strict=True)
            setting = ", ".join(f"{name} {shortened(value)}" for name, value in pairs)
            raise UsageError(
                f"--zip gives the same setting {times} times: {setting}",
                "give each once; several runs of a setting come from --seeds",
            )
        yield Dimension(names, rows)
