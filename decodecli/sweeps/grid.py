"""The grid of a sweep: every prompt at every setting with every seed, computed when asked for.

How a command gets one:

    file = read_grid(name) if name else GridFile("")
    effective = resolve(flags, grid=file.values, expressions=True)
    prompts = gather_prompts(typed, prompts_file) or file.prompts       # or the built-in prompt
    values = effective.values | {"seed": seed}              # drawn, where effective has None
    grid = plan(values, prompts, zips or file.zip_groups, sources=effective.sources)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from decodecli.config import (
    KEYS,
    chat_params,
    check_chat_and_bos,
    configs_folder,
    from_source,
    nearest,
    read_toml,
    temperature_of,
)
from decodecli.errors import UsageError
from decodecli.records.sweep import CellRecord
from decodecli.settings import ChatParams, SamplingParams
from decodecli.sweeps.axes import AXES, parse_axis, shortened, unknown_axis
from decodecli.sweeps.cells import Cell, Prompt
from decodecli.sweeps.prompts import PromptEntry, prompt_from, read_prompts, with_ids
from decodecli.sweeps.toml import to_toml

MOST_CELLS = 10_000_000
# Keys of a grid file beside the options'; `sweep` is the table that a finished sweep adds of itself.
_OWN_KEYS = ("prompts", "seeds", "zip", "description", "sweep")
_MISSING = object()
_ZIP_HINT = 'write zip = [["temperature", "top_p"]]'
_PROMPTS_HINT = 'write prompts = ["The capital of Japan is"] or prompts = "file.jsonl"'


@dataclass(frozen=True)
class Dimension:
    """One axis, or several that are paired: a row for each place on it.

    names: the options. rows: their values, in the order of `names`.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)


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
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Every decoding option with its different values, in order; "bos" and "seed" among them."""
        columns = {
            name: tuple(dict.fromkeys(row[place] for row in dimension.rows))
            for dimension in self.dimensions
            for place, name in enumerate(dimension.names)
        }
        return {name: columns[name] for name in AXES}

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
        """The groups of axes that are paired, by name."""
        return tuple(each.names for each in self.dimensions if len(each.names) > 1)

    @property
    def settings(self) -> int:
        """How many settings there are: everything but prompt and seed."""
        return math.prod(len(dimension) for dimension in self.dimensions[:-1])

    def __len__(self) -> int:
        return len(self.prompts) * self.settings * len(self.dimensions[-1])

    def __getitem__(self, index: int) -> Cell:
        """The cell of that number, from 0; negative ones count from the end. Raises IndexError."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"cell {index} of {len(self)}")
        prompt, values = self._at(place)
        bos = values.pop("bos")
        return Cell(place, prompt, SamplingParams(**values), bos)

    def _at(self, index: int) -> tuple[Prompt, dict[str, Any]]:
        """The prompt and the decoding values of a cell."""
        values, rest = dict[str, Any](), index
        for dimension in reversed(self.dimensions):
            rest, row = divmod(rest, len(dimension))
            values.update(zip(dimension.names, dimension.rows[row], strict=True))
        return self.prompts[rest], values

    def differs(self, record: CellRecord) -> str | None:
        """What a record has otherwise than the cell of its number: "prompt" or an option; None if it is
        that cell's. A record has what `bos` came to where it was left to the tokenizer."""
        prompt, values = self._at(record.index)
        if (record.prompt_id, record.prompt, record.task) != (prompt.id, prompt.text, prompt.task):
            return "prompt"
        for name, value in values.items():
            found = record.params.get(name, _MISSING)
            found = tuple(found) if isinstance(found, list) else found
            if found != value and not (name == "bos" and value is None and found is not _MISSING):
                return name
        return None

    def __iter__(self) -> Iterator[Cell]:
        return map(self.__getitem__, range(len(self)))

    def index_of(self, cell: Cell) -> int | None:
        """The number that a cell of another grid has in this one; None where it is not here."""
        found = self._places_of_prompts.get(cell.prompt)
        for dimension, places in zip(self.dimensions, self._places_of_rows, strict=True):
            row = tuple(cell.value(name) for name in dimension.names)
            if found is None or row not in places:
                return None
            found = found * len(dimension) + places[row]
        return found

    def holds(self, other: Grid) -> bool:
        """Whether every cell of `other` is in this grid."""
        if not set(other.prompts) <= set(self.prompts) or not set(other.seeds) <= set(self.seeds):
            return False
        if not self.zipped and not other.zipped:
            return all(set(other.axes[name]) <= set(self.axes[name]) for name in AXES)
        cells = (other[place * len(other.seeds)] for place in range(other.settings))
        return all(self.index_of(cell) is not None for cell in cells)

    @cached_property
    def _places_of_prompts(self) -> dict[Prompt, int]:
        return {prompt: place for place, prompt in enumerate(self.prompts)}

    @cached_property
    def _places_of_rows(self) -> tuple[dict[tuple[Any, ...], int], ...]:
        return tuple({row: k for k, row in enumerate(each.rows)} for each in self.dimensions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of everything that decides the cells; not the model, not the description."""
        digest = hashlib.sha256(b"decodecli grid 1")
        for dimension in self.dimensions:
            digest.update(json.dumps([dimension.names, dimension.rows]).encode())
        for prompt in self.prompts:
            digest.update(json.dumps(_plain(prompt)).encode())
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
        lines = [f"# {comment}" for comment in comments]
        lines += [f"{k} = {to_toml(v)}" for k, v in (options or {}).items() if v is not None]
        if self.description:
            lines.append(f"description = {to_toml(self.description)}")
        lines += [
            f"{k} = {to_toml(v)}" for k, v in (self.chat.as_dict() if self.chat else {}).items()
        ]
        lines += ["prompts = [", *_prompt_lines(self.prompts), "]"]
        groups = {
            name: each for each in self.dimensions if len(each.names) > 1 for name in each.names
        }
        for name, values in self.axes.items():
            if name in groups:
                place = groups[name].names.index(name)
                values = tuple(row[place] for row in groups[name].rows)
            lines.append(f"{name} = {_axis(name, values)}")
        if groups:
            lines.append(f"zip = {to_toml([list(names) for names in self.zipped])}")
        return "\n".join(lines) + "\n"


def _plain(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a grid file and a JSONL file have it."""
    found: dict[str, Any] = {"prompt": prompt.text, "id": prompt.id}
    if isinstance(prompt.expect, re.Pattern):
        found["expect"] = {"regex": prompt.expect.pattern}
    elif prompt.expect is not None:
        found["expect"] = list(prompt.expect)
    if prompt.task is not None:
        found["task"] = prompt.task
    return found


def _prompt_lines(prompts: Sequence[Prompt]) -> Iterator[str]:
    """A line a prompt: a string where that says it all."""
    times = Counter(prompt.text for prompt in prompts)
    for place, prompt in enumerate(prompts):
        plain = (
            prompt == Prompt(prompt.text, f"p{place}", chat=prompt.chat) and times[prompt.text] == 1
        )
        yield f"  {to_toml(prompt.text if plain else _plain(prompt))},"


def _axis(name: str, values: tuple[Any, ...]) -> str:
    if name == "seed" and len(values) > 2:
        run = range(values[0], values[0] + len(values))
        if values == tuple(run):
            return f'"{run[0]}..{run[-1]}"'
    found = ["auto" if value is None else value for value in values]
    return to_toml(found[0] if len(found) == 1 else found)


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
    given = _decoding_values(values)
    groups = _checked_groups(zip_groups)
    paired = {name for group in groups for name in group}
    axes: dict[str, tuple[Any, ...]] = {}
    for name in AXES:
        try:
            axes[name] = parse_axis(name, given[name], repeats=name in paired)
        except UsageError as error:
            raise from_source(error, name, (sources or {}).get(name, "flag")) from None
    _check_ids(prompts)
    chat = chat_params(values)
    if axes["bos"] != (None,):
        check_chat_and_bos(chat, axes["bos"])
    if chat is not None:
        prompts = [replace(prompt, chat=chat) for prompt in prompts]
    grid = Grid(tuple(prompts), _dimensions(axes, groups), description)
    cells = math.prod([len(grid.prompts), *map(len, grid.dimensions)])
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
    neutral = SamplingParams()
    found = {name: getattr(neutral, name, None) for name in AXES}
    found |= {name: value for name, value in values.items() if name in found}
    temperature = temperature_of([("flag", values)])
    if temperature is not None:
        found["temperature"] = temperature[0]
    if values.get("seeds") is not None:
        if values.get("seed") is not None:
            raise UsageError(
                "--seed and --seeds are one axis, and both were given", "leave one out"
            )
        found["seed"] = values["seeds"]
    if found["seed"] is None:
        raise UsageError("--seeds is missing", "give one or several, as in --seeds 0..4")
    return found


def _check_ids(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise UsageError("there is no prompt to sweep over", "give one, or --prompts FILE")
    (name, times), *_ = Counter(prompt.id for prompt in prompts).most_common(1)
    if times > 1:
        raise UsageError(f"{times} prompts have the id {shortened(name)}", "ids must differ")


def _checked_groups(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Zip groups in the axes' order."""
    seen: set[str] = set()
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
            if name in seen:
                raise UsageError(f"--zip names {name} twice", "an axis can be paired once")
            seen.add(name)
    return [tuple(sorted(group, key=AXES.index)) for group in groups]


def _dimensions(
    axes: Mapping[str, tuple[Any, ...]], groups: Sequence[tuple[str, ...]]
) -> tuple[Dimension, ...]:
    """A dimension an axis, or a group of paired ones at the place of its first."""
    group_of = {name: group for group in groups for name in group if len(axes[name]) > 1}
    found: dict[tuple[str, ...], Dimension] = {}
    for name in AXES:
        names = tuple(n for n in group_of.get(name, (name,)) if n in group_of) or (name,)
        if names not in found:
            found[names] = _paired(names, [axes[n] for n in names])
    return tuple(found.values())


def _paired(names: tuple[str, ...], columns: Sequence[tuple[Any, ...]]) -> Dimension:
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise UsageError(
            f"--zip {','.join(names)}: the axes have different numbers of values: {said}",
            "give each the same number, or one value that goes with all",
        )
    rows = tuple(zip(*columns, strict=True))
    (row, times), *_ = Counter(rows).most_common(1)
    if times > 1:
        said = ", ".join(f"{name} {shortened(v)}" for name, v in zip(names, row, strict=True))
        raise UsageError(
            f"--zip gives the same setting {times} times: {said}",
            "give each once; several runs of a setting come from --seeds",
        )
    return Dimension(names, rows)


def with_requested_bos(grid: Grid, records: Iterable[CellRecord]) -> Iterator[CellRecord]:
    """The records, with the `bos` that was asked for where both auto and another were: a record has what
    auto came to, and two settings would become one."""
    asked = grid.axes["bos"]
    if len(asked) == 1 or None not in asked:
        yield from records
        return
    for record in records:
        yield replace(record, params={**record.params, "bos": grid[record.index].bos})


def zip_group(text: str) -> tuple[str, ...]:
    """The axes named by `--zip temperature,top-p`. Raises UsageError for an unknown name."""
    names = tuple(word.strip().lstrip("-").replace("-", "_") for word in text.split(","))
    names = tuple("seed" if name == "seeds" else name for name in names)
    _checked_groups([names])
    return names


@dataclass(frozen=True)
class GridFile:
    """What a grid file says.

    values: options by name, as a layer for `config.resolve(grid=…)`; axes are tuples of values.
    prompts: empty where it names none. zip_groups: for `plan`.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    prompts: tuple[Prompt, ...] = ()
    zip_groups: tuple[tuple[str, ...], ...] = ()
    description: str = ""


def grid_names() -> list[str]:
    """The shipped grids, by name."""
    return sorted(path.stem for path in (configs_folder() / "sweeps").glob("*.toml"))


def read_grid(name: str | Path) -> GridFile:
    """A grid file, or a shipped grid by its name.

    Raises:
        UsageError: there is none, it is no TOML, has an unknown key (the nearest is named) or a bad
            value, or its prompt file is not right.
    """
    path = _grid_path(name)
    shown = path.name
    found = read_toml(path, shown, also=(*_OWN_KEYS, *AXES))
    found.pop("sweep", None)
    if "seed" in found and "seeds" in found:
        raise UsageError(f"{shown} has both seed and seeds, which are one axis", "leave one out")
    if "seeds" in found:
        found["seed"] = found.pop("seeds")
    description = found.pop("description", "")
    if not isinstance(description, str):
        raise UsageError(f"description in {shown} must be a string", 'write description = "…"')
    prompts = _prompts_of(found.pop("prompts", []), path)
    groups = _said_in(shown, partial(_groups_of, found.pop("zip", [])))
    paired = {member for group in groups for member in group}
    for axis in AXES:
        if axis in found:
            read = partial(parse_axis, axis, found[axis], repeats=axis in paired)
            found[axis] = _said_in(shown, read)
    return GridFile(shown, found, prompts, groups, description)


def _grid_path(name: str | Path) -> Path:
    """The file of a shipped grid by its name, or the file of that name."""
    text, names = str(name), grid_names()
    if text in names:
        return configs_folder() / "sweeps" / f"{text}.toml"
    path = Path(os.path.expanduser(text))
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    if path.suffix == ".toml" or os.sep in text:
        what = "it is no file" if os.path.exists(path) else "there is no such file"
        raise UsageError(f"--grid {text}: {what}", _shipped())
    near = nearest(text, names)
    raise UsageError(
        f"there is no grid {shortened(text)}",
        (f"did you mean {near}? " if near else "") + _shipped(),
    )


def _shipped() -> str:
    return f"give a TOML file or one of: {', '.join(grid_names())}"


def _said_in(shown: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; its errors say which file they are about."""
    try:
        return read()
    except UsageError as error:
        raise UsageError(f"{error.message} (in {shown})", error.hint) from None


def _prompts_of(value: Any, path: Path) -> tuple[Prompt, ...]:
    """Prompts from a list of strings and tables, or from the file that is named, beside the grid."""
    if isinstance(value, str):
        file = Path(os.path.expanduser(value))
        return read_prompts(path.parent / file)
    if not isinstance(value, list):
        raise UsageError(
            f"prompts in {path.name} must be a file's name or a list, got {shortened(value)}",
            _PROMPTS_HINT,
        )
    found = []
    for place, item in enumerate(value, start=1):
        where = f"{path.name}, prompt {place}"
        if isinstance(item, str):
            found.append(PromptEntry(item, where))
        else:
            found.append(prompt_from(item, where))
    return with_ids(found)


def _groups_of(value: Any) -> tuple[tuple[str, ...], ...]:
    """Zip groups: a list of lists of names, or one list."""

    def names(group: Any) -> bool:
        return isinstance(group, list) and all(isinstance(name, str) for name in group)

    groups = [value] if value and names(value) else value
    if not isinstance(groups, list) or not all(map(names, groups)):
        raise UsageError(f"zip must be lists of names, got {shortened(value)}", _ZIP_HINT)
    names_with_underscores = [[name.replace("-", "_") for name in group] for group in groups]
    return tuple(_checked_groups(names_with_underscores))


@dataclass(frozen=True)
class Size:
    """How much a grid asks for: `--dry-run` shows it.

    prefills: different prompts for the model to read, at most; with and without BOS count apart.
    tokens: an upper bound of the tokens to draw: every cell up to its max_new_tokens.
    repeated: cells that must equal another, being greedy with another seed.
    """

    prompts: int
    prefills: int
    settings: int
    seeds: int
    cells: int
    tokens: int
    repeated: int
    varying: dict[str, tuple[Any, ...]]
    zipped: tuple[tuple[str, ...], ...]

    def seconds(self, tokens_per_second: float) -> float:
        """How long drawing them all takes at this rate, at most."""
        return self.tokens / tokens_per_second


def describe(grid: Grid) -> Size:
    """The grid's size, without making its cells."""
    lengths, greedy = _column(grid, "max_new_tokens"), _column(grid, "temperature").count(0)
    runs = len(grid.prompts) * len(grid.seeds)
    cold = grid.settings // len(_column(grid, "temperature")) * greedy
    return Size(
        prompts=len(grid.prompts),
        prefills=len({prompt.text for prompt in grid.prompts}) * len(grid.axes["bos"]),
        settings=grid.settings,
        seeds=len(grid.seeds),
        cells=len(grid),
        tokens=runs * (grid.settings // len(lengths)) * sum(lengths),
        repeated=cold * len(grid.prompts) * (len(grid.seeds) - 1),
        varying=grid.varying,
        zipped=grid.zipped,
    )


def _column(grid: Grid, name: str) -> tuple[Any, ...]:
    """An axis's value at every place of its dimension."""
    home = next(each for each in grid.dimensions if name in each.names)
    return tuple(row[home.names.index(name)] for row in home.rows)
