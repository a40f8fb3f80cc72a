"""The grid of a sweep: every prompt at every setting with every seed, computed when asked for.

How a command gets one:

    grid_file = read_grid(name) if name else None
    effective = resolve(flags, grid=grid_file.values if grid_file else None, expressions=True)
    prompts = gather_prompts(typed, file) or (grid_file and grid_file.prompts) or …
    values = effective.values | {"seed": …}            # where effective.sources["seed"] is "default"
    grid = plan(values, prompts, zip_groups, sources=effective.sources)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from decodecli.sweep.cells import Cell, Prompt

MOST_CELLS = 10_000_000


@dataclass(frozen=True)
class Dimension:
    """One axis, or several that are paired: a row for each place on it.

    names: the options. rows: their values, in the order of `names`.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


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
        raise NotImplementedError

    @cached_property
    def varying(self) -> dict[str, tuple[Any, ...]]:
        """The axes with more than one value, seed aside."""
        raise NotImplementedError

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.axes["seed"]

    @property
    def zipped(self) -> tuple[tuple[str, ...], ...]:
        """The groups of axes that are paired, by name."""
        raise NotImplementedError

    @property
    def settings(self) -> int:
        """How many settings there are: everything but prompt and seed."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Cell:
        """The cell of that number, from 0; negative ones count from the end. Raises IndexError."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of everything that decides the cells; not the model, not the description."""
        raise NotImplementedError

    def as_toml(
        self, options: Mapping[str, Any] | None = None, comments: Sequence[str] = ()
    ) -> str:
        """A grid file of the same cells, prompts included: `read_grid` and `plan` give this grid again.

        Args:
            options: further options to write, such as the model's; None values are left out.
            comments: lines to put at the top.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class GridFile:
    """What a grid file says.

    values: options by name, as a layer for `config.resolve(grid=…)`; axes are tuples of values.
    prompts: empty where it names none. zip_groups: for `plan`.
    """

    name: str
    values: dict[str, Any]
    prompts: tuple[Prompt, ...] = ()
    zip_groups: tuple[tuple[str, ...], ...] = ()
    description: str = ""


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
    raise NotImplementedError


def zip_group(text: str) -> tuple[str, ...]:
    """The axes named by `--zip temperature,top-p`. Raises UsageError for an unknown name."""
    raise NotImplementedError


def grid_names() -> list[str]:
    """The shipped grids, by name."""
    raise NotImplementedError


def read_grid(name: str | Path) -> GridFile:
    """A grid file, or a shipped grid by its name.

    Raises:
        UsageError: there is none, it is no TOML, has an unknown key (the nearest is named) or a bad
            value, or its prompt file is not right.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Size:
    """How much a grid asks for: `--dry-run` shows it.

    prefills: different prompts to be read by the model, with and without BOS counted apart.
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
    raise NotImplementedError
