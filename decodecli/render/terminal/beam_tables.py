"""A beam search on a terminal: the beams of each step, then the tree of what was considered and the
hypotheses in their order."""

from __future__ import annotations

from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from decodecli.records.beams import (
    FINISHED,
    PRUNED,
    BeamRun,
    BeamStep,
    Continuation,
    Hypothesis,
    Node,
    beam_tree,
)
from decodecli.records.run import RunHeader
from decodecli.render.escaping import clip, one_line, safe_text
from decodecli.render.number_format import count, decimal
from decodecli.render.repro_command import repeat_command
from decodecli.render.terminal.step_table import Style
from decodecli.render.terminal.summary import header_lines, text_tail
from decodecli.render.terminal.table import Column, table_lines
from decodecli.render.terminal.wrap import wrap_parts
from decodecli.render.theme import Theme


class BeamView:
    """Draws a search on a console as its steps come.

    tables: "full", a table a step; "line", a line a step; or "none". rows: of a table, besides the live
    beams.
    """

    def __init__(self, console: Console, tables: str, byte_level: bool, rows: int) -> None:
        self._console, self._tables, self._rows = console, tables, rows
        self._style = Style(
            theme=Theme.of(console), encoding=console.encoding, byte_level=byte_level,
            width=console.width,
        )  # fmt: skip

    def start(self, header: RunHeader) -> None:
        self._style = self._style.of_run(header)
        prompt = self._style.encodable(safe_text(text_tail(header.prompt)))
        self._write([*beam_header_lines(header, self._style), "", prompt])

    def step(self, step: BeamStep) -> None:
        style = self._style = replace(self._style, width=self._console.width)
        if self._tables == "full":
            self._write(step_lines(step, self._rows, style))
        elif self._tables == "line":
            self._write([step_line(step, style)])

    def finish(self, run: BeamRun) -> None:
        if self._tables != "none":
            self._write(["", "all that was carried on:"])
            self._console.print(_rich_tree(beam_tree(run.steps), run.header, self._style))
        self._write(
            ["", *hypothesis_lines(run.hypotheses, self._style), *closing_lines(run, self._style)]
        )

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        self._console.file.write(self._style.printable(text))
        self._console.file.flush()


def beam_header_lines(header: RunHeader, style: Style) -> list[str]:
    """A run's header, then how many beams, and what they are scored by."""
    params = header.params
    parts = [f"{params['num_beams']} beams{', drawn' if params['beam_sample'] else ''}"]
    parts.append(f"length penalty {params['length_penalty']:g}")
    parts.append(f"early stopping {params['early_stopping']}")
    settings = wrap_parts([style.encodable(part) for part in parts], style.width - 1, indent="  ")
    return [*header_lines(header, style), *settings]


def step_lines(step: BeamStep, rows: int, style: Style) -> list[str]:
    """A step's table: the live beams, what ended here, and the first of those that were pruned."""
    pruned = [row for row in step.continuations if row.fate == PRUNED]
    ended = [row for row in step.continuations if row.fate == FINISHED]
    shown = [*step.live, *ended, *pruned[: max(rows - len(step.live) - len(ended), 0)]]
    title = f"#{step.index + 1}  {count(len(step.live), 'beam')}"
    if step.best is not None:
        title += f" · {step.finished} ended, the best {decimal(step.best)}"
    codes = [_code(row, style) for row in shown]
    columns = [
        Column("beam", [_number(row) for row in shown], right=True, codes=codes),
        Column("from", [str(row.parent + 1) for row in shown], right=True, codes=codes),
        Column("token", [style.token(row.token) for row in shown], least=8, most=24, codes=codes),
        Column("logprob", [decimal(row.logprob) for row in shown], right=True, codes=codes),
        Column("sum", [decimal(row.score) for row in shown], right=True, codes=codes),
        Column("score", [decimal(row.normalized) for row in shown], right=True, codes=codes),
        Column("", [row.fate if row.beam is None else "" for row in shown], codes=codes),
    ]
    lines = [f" {style.bold(title)}", *table_lines(columns, style, ("sum", "logprob"), indent="  ")]
    left = len(step.continuations) - len(shown)
    return [*lines, *([style.dim(f"  + {left} more pruned")] if left else []), ""]


def _number(row: Continuation) -> str:
    return str(row.beam + 1) if row.beam is not None else "■" if row.fate == FINISHED else "·"


def _code(row: Continuation, style: Style) -> str:
    if row.fate == FINISHED:
        return style.theme.accent
    return style.theme.dim if row.fate == PRUNED else ""


def step_line(step: BeamStep, style: Style) -> str:
    """A step in one line: each live beam, the one that it comes from, its token and its score."""
    line = f"#{step.index + 1}".rjust(4)
    ended = f" │ {step.finished} ended" if step.finished else ""
    for number, row in enumerate(step.live, start=1):
        cell = f"  {number}←{row.parent + 1} {style.token(row.token)} {decimal(row.normalized)}"
        if cell_len(line) + cell_len(cell) + len(ended) > style.width:
            break
        line += cell
    return f"{line}{style.dim(ended)}"


def _rich_tree(root: Node, header: RunHeader, style: Style) -> Tree:
    tree = Tree(Text(clip(style.encodable(one_line(header.prompt)[-40:]), 40), style="dim"))
    stack = [(root, tree)]
    while stack:
        node, branch = stack.pop()
        for child in node.children:
            label = Text(clip("".join(map(style.token, child.tokens)), max(style.width - 24, 12)))
            signs = {FINISHED: ("■", "bold"), PRUNED: ("·", "dim")}
            sign, look = signs.get(child.fate, ("", ""))
            if sign or not child.children:
                label.append(style.printable(f" {sign} {decimal(child.score)}"))
            label.stylize(look)
            stack.append((child, branch.add(label)))
    return tree


def hypothesis_lines(hypotheses: tuple[Hypothesis, ...], style: Style) -> list[str]:
    """The hypotheses, the best first: score, tokens, and the text on as many lines as it needs."""
    lines = []
    for number, row in enumerate(hypotheses, start=1):
        head = f"{number:>2}  {decimal(row.score)}  "
        words = style.encodable(safe_text(row.text).replace("\n", "↵ ")).split(" ")
        text = wrap_parts(words, style.width - len(head) - 1, " ")
        lines.append(style.bold(head) + (text[0] if text else ""))
        lines += [" " * len(head) + line for line in text[1:]]
        facts = [count(len(row.token_ids), "token"), row.finish_reason]
        facts.append(f"mean logprob {decimal(row.mean_logprob)}")
        below = wrap_parts(facts, style.width - len(head) - 1, ", ")
        lines += [style.dim(" " * len(head) + line) for line in below]
    return lines


def closing_lines(run: BeamRun, style: Style) -> list[str]:
    """Speed, and the command that repeats the search."""
    seconds = run.summary.seconds["prefill"] + run.summary.seconds["decode"]
    steps = count(len(run.steps), "step")
    lines = ["", f" {steps} of {run.header.params['num_beams']} beams in {seconds:.2f} s"]
    return [*lines, f" repeat: {repeat_command(run.header)}"]
