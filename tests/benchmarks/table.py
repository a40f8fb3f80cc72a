"""What a table of ten rows costs, ours beside `rich.table.Table`: `python tests/benchmarks/table.py`.

Not a test: times depend on the machine. Every round shows other tokens, as a real run does.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable

import made_up
from rich.console import Console
from rich.table import Table
from rich.text import Text

from decodecli.records.run import Step, exp_or_zero
from decodecli.render.escaping import visible
from decodecli.render.terminal.step_table import Style, step_table
from decodecli.render.terminal.view import TerminalView
from decodecli.render.theme import Theme

ROUNDS = 300


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def steps() -> list[Step]:
    """Steps of ten candidates each, no token twice."""
    made = []
    for index in range(ROUNDS):
        tokens = [(f"▁wörd{index}x{row}", 14.0 - row) for row in range(10)]
        made.append(made_up.step(tokens, index=index, vocab_size=512))
    return made


def rich_table(step: Step) -> Table:
    """The same table in a general-purpose widget."""
    table = Table(box=None)
    for name in ("#", "token", "id", "logit", "T=1", "T=1.4", "cum", "final", ""):
        table.add_column(name)
    for row in step.candidates:
        at_one, tempered = exp_or_zero(row.logprob), exp_or_zero(row.tempered_logprob)
        final = exp_or_zero(row.final_logprob)
        numbers = [f"{100 * p:.1f}%" for p in (at_one, tempered, row.cumulative, final)]
        token = Text(visible(row.token))
        table.add_row(
            str(row.rank), token, str(row.token_id), f"{row.logit:.2f}", *numbers, "█" * 8
        )
    return table


def microseconds(draw: Callable[[Step], object], todo: list[Step]) -> float:
    """The median over the steps."""
    times = []
    for step in todo:
        start = time.perf_counter()
        draw(step)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def main() -> None:
    """Print the median times of the three ways."""
    header, todo = made_up.header(vocab_size=512), steps()
    console = Console(file=Terminal(), force_terminal=True, color_system="256", width=80, height=40)
    style = Style(width=80, theme=Theme.of(console)).of_run(header)
    view = TerminalView(console)
    view.start(header)
    ways: dict[str, Callable[[Step], object]] = {
        "table of 10 rows, ours": lambda step: step_table(step, style),
        "whole step with the running text": view.step,
        "rich.table.Table": lambda step: console.print(rich_table(step)),
    }
    for name, draw in ways.items():
        print(f"{name:34}{microseconds(draw, todo):7.0f} µs")


if __name__ == "__main__":
    main()
