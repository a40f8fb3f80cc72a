"""From the words of a `sweep` command to its grid, checked before anything heavy is imported or made."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import streams
from decodecli.cli.options import OF_CELLS
from decodecli.config import Effective, from_source, resolve
from decodecli.errors import UsageError
from decodecli.ranges import SEED_LIMIT, check_choice, flag_name
from decodecli.settings import LoadParams, OutputParams, SweepParams
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.grid import Grid, plan, zip_group
from decodecli.sweeps.grid_file import GridFile, read_grid
from decodecli.sweeps.manifest import read_manifest, read_manifest_grid
from decodecli.sweeps.prompts import gather_prompts, parse_prompts

if TYPE_CHECKING:
    from decodecli.cli.commands.sweep import SweepRequest

# Options that sweep.toml keeps of the model; the others are this machine's, or trust in its files.
_KEPT = ("model", "revision", "device", "dtype", "quantize")
_NUMBERS = re.compile(r"[-+]?[0-9.][0-9.,:eE+-]*", re.ASCII)
RUNS_HOME = Path("decodecli-runs")  # what holds the folders of sweeps without --out
_ONLY_RAY = ("address", "actors")


@dataclass(frozen=True)
class Plan:
    """A sweep that may begin.

    folder: of the results, None to keep none. draws: whether plots are made.
    words: of the command that goes on in the folder.
    """

    grid: Grid
    load: LoadParams
    how: SweepParams
    output: OutputParams
    folder: Path | None
    draws: bool
    notices: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """What `sweep.toml` says of the model, where it is not the default."""
        options = {name: getattr(self.load, name) for name in _KEPT}
        if os.path.isdir(os.path.expanduser(self.load.model)):  # from another folder too
            options["model"] = os.path.abspath(os.path.expanduser(self.load.model))
        defaults = {item.name: item.default for item in fields(LoadParams)}
        return {name: value for name, value in options.items() if value != defaults[name]}

    @property
    def again(self) -> str:
        """The command that goes on where this sweep stops."""
        return shlex.join(self.words)


def build_plan(request: SweepRequest) -> Plan:
    """The plan of a command, with every value checked.

    Raises:
        UsageError: whatever is wrong with it.
    """
    out = request.flags.get("out")
    grid_file = read_grid(request.grid) if request.grid else None
    if not request.says_cells and out is not None:
        grid_file = _stored_grid(Path(os.path.expanduser(out)))
    effective = resolve(
        request.flags, grid=grid_file.values if grid_file else None, expressions=True
    )
    how, output, load = effective.sweep(), effective.output(), effective.load()
    check_choice("format", output.format, ("text", "jsonl"))
    _check_together(how, output, request)
    folder = _folder(how, output)
    notices = list(effective.notices)
    if folder is not None and effective.sources["out"] not in ("flag", "default"):
        named = from_source(UsageError(f"results go to {folder}"), "out", effective.sources["out"])
        notices.append(named.message)
    prompts = _prompts(request, grid_file, notices)
    grid = plan(
        _seeded(effective, folder, notices),
        prompts,
        [zip_group(text) for text in request.zip] or (grid_file.zip_groups if grid_file else ()),
        sources=effective.sources,
        description=grid_file.description if grid_file else "",
    )
    words = ("decodecli", "sweep", "--out", str(folder), *_repeated(effective))
    draws = folder is not None and how.plots
    if draws and importlib.util.find_spec("matplotlib") is None:
        draws, hint = False, "pip install 'decodecli[plots]'"
        if effective.sources["plots"] != "default":
            raise UsageError("the plots need matplotlib, which is not installed", hint)
        notices.append(f"there will be no plots without matplotlib: {hint}")
    return Plan(grid, load, how, output, folder, draws, tuple(notices), words)


def _stored_grid(folder: Path) -> GridFile | None:
    """The grid of a folder's sweep, where it is one: without any other word, it goes on, as exact as
    before and keeping traces as before."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    file = read_manifest_grid(folder)
    flags = {name: True for name in ("exact", "traces") if manifest.about.get(name)}
    return replace(file, values={**file.values, **flags})


def _check_together(how: SweepParams, output: OutputParams, request: SweepRequest) -> None:
    for name in _ONLY_RAY:
        if getattr(how, name) is not None and how.engine != "ray":
            raise UsageError(f"{flag_name(name)} goes with --engine ray", "add it, or leave it out")
    streams_cells = output.format == "jsonl"
    if streams_cells and how.show:
        raise UsageError(
            "--show and --format jsonl both want standard output",
            "leave one out, or look later: decodecli compare DIR",
        )
    if request.extend and how.out is None:
        raise UsageError("--extend needs the folder of a sweep", "add --out DIR")
    if streams_cells and how.traces and how.out is None:
        raise UsageError("--traces needs a folder to keep them in", "add --out DIR")


def _folder(how: SweepParams, output: OutputParams) -> Path | None:
    if how.out is not None:
        if not how.out:
            raise UsageError("--out is empty", "give a folder that is new or empty")
        return Path(os.path.expanduser(how.out))
    if output.format == "jsonl":
        return None
    name = time.strftime("sweep-%Y%m%d-%H%M%S")
    names = (name if not number else f"{name}-{number}" for number in range(1000))
    return next(RUNS_HOME / free for free in names if not os.path.lexists(RUNS_HOME / free))


def _prompts(
    request: SweepRequest, grid_file: GridFile | None, notices: list[str]
) -> Sequence[Prompt]:
    """Those given and named; else those of the grid; else, as `generate`, standard input or ours."""
    notices += _numbers_as_prompts(request)
    streams.note_words("sweep", request.prompt, notices.append)
    for word in request.prompt:
        streams.note_file(word, notices.append)
    tell = notices.append
    words = [streams.read_prompt("-", None, tell) if w == "-" else w for w in request.prompt]
    if request.file is not None:
        words.append(streams.read_prompt(None, request.file, tell))
    if request.prompts == "-":
        if words:
            raise UsageError("prompts and --prompts - were both given", "pipe them all in")
        return parse_prompts(streams.read_data("-")[0].encode("utf-8"), "standard input")
    if words or request.prompts is not None:
        return gather_prompts(words, request.prompts)
    if grid_file is not None and grid_file.prompts:
        return grid_file.prompts
    return gather_prompts(
        [streams.read_prompt(None, None, tell, "no prompt was given; continuing")]
    )


def _numbers_as_prompts(request: SweepRequest) -> Iterator[str]:
    """What to say of prompts that look like values, as of `-t 0.2 0.7`, where 0.7 is a prompt."""
    numbers = [word for word in request.prompt if _NUMBERS.fullmatch(word)]
    if not numbers:
        return
    axes = [name for name in OF_CELLS if isinstance(request.flags.get(name), str)]
    if not axes and request.flags.get("seeds"):
        axes = ["seeds"]
    axis = axes[0] if len(axes) == 1 else "temperature"
    values = ",".join([request.flags.get(axis) or "0.2", *numbers])
    several = len(numbers) > 1
    yield (
        f"{', '.join(numbers[:5])}{', …' if len(numbers) > 5 else ''} "
        f"{'are prompts' if several else 'is a prompt'} here; values of an option are joined by "
        f"commas, as in {flag_name(axis)} {values}"
    )


def _seeded(effective: Effective, folder: Path | None, notices: list[str]) -> dict[str, Any]:
    """The values with a seed: where none was given, that of the folder's sweep, or one that is drawn."""
    values = dict(effective.values)
    if values["seed"] is None:
        if folder is not None and read_manifest(folder) is not None:
            values["seed"] = read_manifest_grid(folder).values["seed"]
        else:
            values["seed"] = secrets.randbelow(SEED_LIMIT)
            notices.append(f"no seed was given; every cell draws with {values['seed']}")
    return values


def _repeated(effective: Effective) -> Iterator[str]:
    """The words for those options that the folder does not remember."""
    owners = (LoadParams, SweepParams, OutputParams)
    defaults = {item.name: item.default for owner in owners for item in fields(owner)}
    for name in (
        *("max_memory", "threads", "allow_pickle", "trust_remote_code"),
        *("batch_size", "exact", "engine", "address", "actors", "traces", "candidates", "plots"),
    ):
        value = effective.values[name]
        if value == defaults[name] or effective.sources[name] in ("env", "user"):
            continue
        if isinstance(value, bool):
            yield flag_name(name if value else f"no_{name}")
        else:
            yield from (flag_name(name), str(value))
