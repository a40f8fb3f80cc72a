"""`sweep --dry-run`: what a plan comes to, without running it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from decodecli.cli import streams
from decodecli.cli.reporting import style_of, write_lines
from decodecli.cli.sweep_plan import Plan
from decodecli.records import to_json_line
from decodecli.sweep.cells import Cell
from decodecli.sweep.grid import Grid, Size, describe
from decodecli.sweep.store import read_records
from decodecli.views.sweep_data import setting_name, spelt, value_name
from decodecli.views.visible import clip, one_line

_SHOWN = 5  # cells at either end of the list
_VALUES = 12  # of an axis, from which on the middle is left out


def show_plan(plan: Plan, rate: float | None) -> None:
    """The cells and an estimate on standard output; as JSON lines, every cell.

    Args:
        rate: tokens a second, where one was measured.
    """
    if plan.output.format == "jsonl":
        for cell in plan.grid:
            params = cell.params.as_dict() | {"bos": cell.bos}
            line = {"type": "planned", "index": cell.index, "prompt_id": cell.prompt.id}
            line |= {"task": cell.prompt.task, "prompt": cell.prompt.text, "params": params}
            streams.write_stdout(to_json_line(line) + "\n")
        return
    done = 0
    if plan.folder is not None:
        done = sum(record.error is None for record in read_records(plan.folder))
    style = style_of(sys.stdout)
    lines = spelt(plan_lines(plan, done, rate), style)
    if streams.is_terminal(sys.stdout):
        lines = [clip(line, style.width) for line in lines]
    write_lines(lines, style)


def plan_lines(found: Plan, done: int, rate: float | None) -> list[str]:
    """Axes, cells, tokens, and how long that takes.

    Args:
        done: cells that are finished already. rate: tokens a second, where one was measured.
    """
    size = describe(found.grid)
    lines = [f"{found.load.model}: {_times(size)} = {size.cells:,} cells", ""]
    axes = {**size.varying, "seed": found.grid.seeds}
    width = max(len(name) for name in axes)
    lines += [f"  {name:<{width}}  {_values(values)}" for name, values in axes.items()]
    lines += [f"  paired: {', '.join(group)}" for group in size.zipped]
    lines += ["", *_cell_lines(found.grid), ""]
    lines.append(
        f"at most {size.tokens:,} tokens, after {size.prefills:,} "
        f"{'prompt that is' if size.prefills == 1 else 'prompts that are'} read once"
    )
    if size.repeated:
        lines.append(f"{size.repeated:,} cells are greedy and repeat that of another seed")
    if done:
        lines.append(f"{done:,} of {size.cells:,} cells are done")
    left = size.tokens * (size.cells - done) / size.cells
    if rate:
        lines.append(
            f"at most {_duration(left / rate)} at {rate:,.0f} tokens/s, as measured before"
        )
    else:
        lines.append("how long that takes is not known before a first run with this model")
    return lines


def _times(size: Size) -> str:
    parts = [(size.prompts, "prompt"), (size.settings, "setting"), (size.seeds, "seed")]
    return " × ".join(f"{n:,} {name}{'' if n == 1 else 's'}" for n, name in parts)


def _values(values: Sequence[Any]) -> str:
    shown = [value_name(value) for value in values]
    if len(shown) > _VALUES:
        shown = [*shown[: _VALUES - 4], "…", shown[-1]]
    return f"{', '.join(shown)}" + (f"  ({len(values):,})" if len(values) > 1 else "")


def _cell_lines(grid: Grid) -> list[str]:
    """The first and the last cells."""
    indices = range(len(grid))
    few = [*indices[:_SHOWN], *indices[max(len(grid) - _SHOWN, _SHOWN) :]]
    lines = []
    for index in few:
        cell = grid[index]
        if index and index - 1 not in few:
            lines.append("  …")
        setting = {name: _of_cell(cell, name) for name in (*grid.varying, "seed")}
        number = f"{index:>{len(str(len(grid)))}}"
        lines.append(f"  {number}  {one_line(cell.prompt.id)} · {setting_name(setting)}")
    return lines


def _of_cell(cell: Cell, name: str) -> Any:
    return cell.bos if name == "bos" else getattr(cell.params, name)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "a second"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
