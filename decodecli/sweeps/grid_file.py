"""Grid files: options with underscores, a list or an expression making an axis; see docs/SWEEP.md."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decodecli.config import configs_folder, nearest, read_toml
from decodecli.errors import UsageError
from decodecli.sweeps.axes import AXES, parse_axis, shortened
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.grid import checked_groups
from decodecli.sweeps.prompts import prompt_from, read_prompts, text_entry, with_ids

# Keys of a grid file beside the options'; `sweep` is the table that a finished sweep adds of itself.
_KEYS = ("prompts", "seeds", "zip", "description", "sweep", *AXES)


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
    values = read_toml(path, path.name, also=_KEYS)
    values.pop("sweep", None)
    if "seeds" in values:
        if "seed" in values:
            raise UsageError(
                f"{path.name} has both seed and seeds, which are one axis", "leave one out"
            )
        values["seed"] = values.pop("seeds")
    description = values.pop("description", "")
    if not isinstance(description, str):
        raise UsageError(f"description in {path.name} must be a string", 'write description = "…"')
    prompts = _prompts(values.pop("prompts", []), path)
    try:
        groups = _zip_groups(values.pop("zip", []))
        zipped = {name for group in groups for name in group}
        for axis in AXES:
            if axis in values:
                values[axis] = parse_axis(axis, values[axis], repeats=axis in zipped)
    except UsageError as error:
        raise UsageError(f"{error.message} (in {path.name})", error.hint) from None
    return GridFile(path.name, values, prompts, groups, description)


def _grid_path(name: str | Path) -> Path:
    """The file of a shipped grid by its name, or the file of that name."""
    text, names = str(name), grid_names()
    if text in names:
        return configs_folder() / "sweeps" / f"{text}.toml"
    path = Path(os.path.expanduser(text))
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    shipped = f"give a TOML file or one of: {', '.join(names)}"
    if path.suffix == ".toml" or os.sep in text:
        problem = "it is no file" if os.path.exists(path) else "there is no such file"
        raise UsageError(f"--grid {text}: {problem}", shipped)
    near = nearest(text, names)
    hint = f"did you mean {near}? {shipped}" if near else shipped
    raise UsageError(f"there is no grid {shortened(text)}", hint)


def _prompts(value: Any, path: Path) -> tuple[Prompt, ...]:
    """Prompts from a list of strings and tables, or from the file that is named, beside the grid."""
    if isinstance(value, str):
        return read_prompts(path.parent / os.path.expanduser(value))
    if not isinstance(value, list):
        raise UsageError(
            f"prompts in {path.name} must be a file's name or a list, got {shortened(value)}",
            'write prompts = ["The capital of Japan is"] or prompts = "file.jsonl"',
        )
    entries = []
    for number, item in enumerate(value, start=1):
        entry = text_entry if isinstance(item, str) else prompt_from
        entries.append(entry(item, f"{path.name}, prompt {number}"))
    return with_ids(entries)


def _zip_groups(value: Any) -> tuple[tuple[str, ...], ...]:
    """Groups of axes: a list of lists of names, or one list."""

    def is_names(group: Any) -> bool:
        return isinstance(group, list) and all(isinstance(name, str) for name in group)

    groups = [value] if value and is_names(value) else value
    if not isinstance(groups, list) or not all(map(is_names, groups)):
        raise UsageError(
            f"zip must be lists of names, got {shortened(value)}",
            'write zip = [["temperature", "top_p"]]',
        )
    return checked_groups([[name.replace("-", "_") for name in group] for group in groups])
