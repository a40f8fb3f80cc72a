"""`sweep --dry-run`: what a plan comes to, without running it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from decodecli.cli import streams
from decodecli.cli.output import style_of, write_lines
from decodecli.cli.sweep.plan import Plan
from decodecli.records.json_lines import to_json_line
from decodecli.render.escaping import clip, one_line
from decodecli.render.number_format import count
from decodecli.render.plots.sweep_data import constants, setting_name, shortened, spelt, value_name
from decodecli.sweeps.cell_lines import read_records
from decodecli.sweeps.grid import Grid

_SHOWN = 5  # cells at either end of the list
_PROMPTS = 5  # that are shown with their text
_TEXT = 56  # cells of a prompt's text
_VALUES = 12  # of an axis, from which on the middle is left out


def show_plan(plan: Plan, rate: float | None, rate_of: str = "") -> None:
    """The cells and an estimate on standard output; as JSON lines, every cell.

    Args:
        rate: tokens a second, where one was measured. rate_of: with what, where not with the same.
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
    lines = spelt(plan_lines(plan, done, rate, rate_of), style)
    if streams.is_terminal(sys.stdout):
        lines = [clip(line, style.width) for line in lines]
    write_lines(lines, style)


def plan_lines(plan: Plan, done: int, rate: float | None, rate_of: str = "") -> list[str]:
    """Axes, cells, tokens, and how long that takes.

    Args:
        done: cells that are finished already. rate, rate_of: as for `show_plan`.
    """
    grid = plan.grid
    factors = ((grid.prompts, "prompt"), (range(grid.settings), "setting"), (grid.seeds, "seed"))
    product = " × ".join(count(len(each), name) for each, name in factors)
    lines = [f"{plan.load.model}: {product} = {count(len(grid), 'cell')}", ""]
    lines += [*_axis_lines(grid), "", *_cell_lines(grid), ""]
    lines.append(
        f"at most {grid.max_tokens:,} tokens, after {grid.prefills:,} "
        f"{'prompt that is' if grid.prefills == 1 else 'prompts that are'} read once"
    )
    once = 0 if plan.how.traces else grid.repeated
    if grid.repeated:
        lines.append(
            f"{grid.repeated:,} cell{' is' if grid.repeated == 1 else 's are'} greedy and "
            f"repeat{'s' if grid.repeated == 1 else ''} that of another seed"
            + (", decoded once" if once else "")
        )
    if done:
        lines.append(f"{done:,} of {len(grid):,} cells are done")
    if rate:
        tokens = grid.max_tokens * max(len(grid) - done - once, 0) / len(grid)
        measured = f"as measured {rate_of or 'before'}"
        seconds = tokens / rate
        if seconds < 100:
            duration = f"{seconds:.0f} s" if seconds >= 1 else "a second"
        else:
            duration = f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
        lines.append(f"at most {duration} at {rate:,.0f} tokens/s, {measured}")
    else:
        lines.append("how long that takes is not known before a first run with this model")
    return lines


def _axis_lines(grid: Grid) -> list[str]:
    """The first prompts, axes, and what is the same in all cells."""
    prompts = grid.prompts[:_PROMPTS]
    ids = [clip(one_line(prompt.id), _TEXT // 2) for prompt in prompts]
    id_width = max(map(cell_len, ids))
    texts = []
    for name, prompt in zip(ids, prompts, strict=True):
        text = clip(one_line(prompt.text[: 4 * _TEXT]), _TEXT) or "(empty)"
        texts.append(f"{name}{' ' * (id_width - cell_len(name))}  {text}")
    if len(grid.prompts) > len(prompts):
        texts.append(f"… {len(grid.prompts) - len(prompts):,} more")
    rows = [("" if number else "prompts", text) for number, text in enumerate(texts)]
    rows += [(name, _values(each)) for name, each in {**grid.varying, "seed": grid.seeds}.items()]
    rows += [("paired", ", ".join(group)) for group in grid.zipped]
    same = {name: values[0] for name, values in grid.axes.items() if len(values) == 1}
    same |= grid.chat.as_dict() if grid.chat else {}
    rows.append(("constant", " · ".join(constants(same))))
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _values(values: Sequence[Any]) -> str:
    is_long = len(values) > _VALUES
    listed = [*values[: _VALUES - 4], values[-1]] if is_long else list(values)
    short = shortened(listed)
    names = [value_name(_in_few_digits(value, short)) for value in listed]
    if is_long:
        names.insert(-1, "…")
    return f"{', '.join(names)}" + (f"  ({len(values):,})" if len(values) > 1 else "")


def _in_few_digits(value: Any, short: Mapping[float, float]) -> Any:
    return short.get(value, value) if isinstance(value, float) else value


def _cell_lines(grid: Grid) -> list[str]:
    """The first and the last cells."""
    indices = range(len(grid))
    listed = [*indices[:_SHOWN], *indices[max(len(grid) - _SHOWN, _SHOWN) :]]
    cells = [grid[index] for index in listed]
    names = [*grid.varying, "seed"]
    short = {name: shortened(cell.value(name) for cell in cells) for name in names}
    lines = []
    for cell in cells:
        if cell.index and cell.index - 1 not in listed:
            lines.append("  …")
        setting = {name: _in_few_digits(cell.value(name), short[name]) for name in names}
        number = f"{cell.index:>{len(str(len(grid)))}}"
        lines.append(f"  {number}  {one_line(cell.prompt.id)} · {setting_name(setting)}")
    return lines
