"""A run on a terminal: header, prompt, a table or a line a step, the running text, the summary.

Steps are written and flushed once, alone or several together. Finished steps are printed for good;
only the running text at the bottom is drawn again. After drawing it the cursor rests at its *top*,
so that erasing is "clear from here down": right whatever the terminal does to the rows below when it
is resized.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from rich.console import Console

from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.render.escaping import guess_byte_level, safe_text
from decodecli.render.terminal.step_table import (
    Style,
    legend_lines,
    line_layout,
    step_line,
    step_table,
)
from decodecli.render.terminal.summary import (
    Facts,
    header_lines,
    summary_lines,
    text_tail,
)
from decodecli.render.terminal.wrap import RunningText
from decodecli.render.theme import LEGEND, LEVELS, Theme, level

_REGION_ROWS = 4  # the rule and three rows of text
_PROMPT_TAIL = 2000  # characters of the prompt that the region may show

ERASE = "\r\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
# No autowrap while the region is drawn: a terminal that finds a character wider than we do then
# clips a row, and the count of rows still holds.
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"


class TerminalView:
    """Draws one run after another on a console.

    Args:
        console: where to; its terminal, colours, NO_COLOR and TERM are respected.
        tables: "full", a table a step; "line", a line a step; "none", only the text as it comes.
        live: keep the running text in sight at the bottom, where the terminal can.
        show_text: whether prompt and generated text are shown at all; False when they go elsewhere.
        byte_level: whether tokens are spelt in GPT-2's byte alphabet; None guesses from the tokens.
        below: lines that stand below a step's table.

    Steps may be left out; a `…` stands for their text. Tokens of the running text are coloured by their
    probability at temperature 1: how much of a surprise each was to the model, whatever the sampler did.
    """

    def __init__(
        self,
        console: Console,
        *,
        tables: str = "full",
        live: bool = True,
        show_text: bool = True,
        byte_level: bool | None = None,
        below: Callable[[Step, Style], list[str]] | None = None,
    ) -> None:
        self._console = console
        self._tables = tables
        self._show_text = show_text
        self._byte_level = byte_level
        self._below = below
        self._style = Style(theme=Theme.of(console), encoding=console.encoding)
        can_move = show_text and can_move_cursor(console)
        self._live, self._flowing = live and can_move and tables != "none", can_move
        self._region_drawn = False  # whether the region may be on the screen
        self._header: RunHeader | None = None

    def start(self, header: RunHeader, sample: tuple[int, int] = (1, 1)) -> None:
        """Print the header and the prompt. `sample` is (which, of how many), from 1."""
        self.close()
        style = self._style = self._current_style().of_run(header)
        lines = [*([] if self._header is None else [""]), *header_lines(header, style, sample), ""]
        self._header, self._facts = header, Facts()
        self._running = RunningText(_REGION_ROWS - 1 if self._live else _PROMPT_TAIL)
        self._next = 0  # the index that follows the last step
        # A message, which the text answers, stands on lines of its own.
        text = header.prompt + ("\n" if header.params.get("chat") else "")
        text = text if self._show_text else ""
        prompt = self._safe(text_tail(text))
        self._spans = [(prompt, style.theme.prompt)]  # and the steps' texts in their colours
        self._line_start = not prompt
        out = "".join(f"{line}\n" for line in lines)
        if self._show_text:
            if self._tables == "none":
                out += self._flow(prompt, style.theme.prompt)
            else:
                self._running.add(self._safe(text[-_PROMPT_TAIL:]), style.theme.prompt)
                out += style.theme.paint(style.theme.prompt, prompt) + ("\n" if prompt else "")
        if self._tables == "line":
            out += line_layout(style).headings
        self._write(out)

    def step(self, step: Step) -> None:
        """Print a step and draw the running text again, in one write."""
        self.steps((step,))

    def steps(self, steps: Sequence[Step]) -> None:
        """Print several steps in order and draw the running text again, in one write."""
        self._style = self._current_style(steps)
        out = "".join([self._step_text(step, self._style) for step in steps])
        if self._live:
            erase, self._region_drawn = (ERASE if self._region_drawn else ""), True
            out = f"{erase}{out}{self._region()}"
        self._write(out)

    def _step_text(self, step: Step, style: Style) -> str:
        """The part of a step that stays on the screen."""
        self._facts.add(step)
        code = style.theme.text[level(math.exp(step.logprob))]
        spans = [(self._safe(step.text), code)]
        if step.index != self._next:
            spans.insert(0, (self._safe("…"), style.theme.dim))
        self._next = step.index + 1
        if self._show_text and self._tables != "none":
            self._spans += spans
            for span in spans if self._live else ():
                self._running.add(*span)
        if self._tables == "full":
            more = self._below(step, style) if self._below else []
            return step_table(step, style) + "".join(f"{line}\n" for line in more)
        if self._tables == "line":
            return step_line(step, style)
        return "".join(self._flow(*span) for span in spans) if self._show_text else ""

    def _flow(self, text: str, code: str) -> str:
        """Text that goes on without tables. Where the cursor can move and a row ends, it is written
        again, so that a word which does not fit goes to the next."""
        if not text:
            return ""
        self._line_start = text.endswith("\n")
        theme, running = self._style.theme, self._running
        if not self._flowing:
            return theme.paint(code, text)
        running.fit(max(self._style.width - 1, 1))
        ended = running.ended
        running.add(text, code)
        if running.ended == ended:
            return theme.paint(code, text)
        return ERASE + "\n".join(running.last(running.ended - ended, theme.reset))

    def finish(self, summary: RunSummary | None) -> None:
        """Take the running text away; print the whole text once, and the summary, if there is one."""
        self.close()
        style = self._style = self._current_style()
        assert self._header is not None
        below = []
        if summary is not None:
            below = summary_lines(self._header, summary, self._facts, style)
        out = ""
        if self._show_text and self._tables == "none":
            out = "\n" if self._line_start else "\n\n"
            below = legend_lines(style) + below
        elif self._show_text:
            text = "".join([style.theme.paint(code, text) for text, code in self._spans])
            if self._console.is_terminal:  # wrapped between words
                wrapped = RunningText()
                for span in self._spans:
                    wrapped.add(*span)
                text = "\n".join(wrapped.rows(max(style.width - 1, 1), style.theme.reset))
            out = f"{self._rule()}\n{text}\n\n"
        self._write(out + "".join(f" {line}\n" for line in below))

    def close(self) -> None:
        """Erase the running text and give the cursor back. The next step, if there is one, draws it
        again; so this is also what to call before something else is printed."""
        if self._region_drawn:
            self._region_drawn = False
            self._write(ERASE + WRAP + SHOW_CURSOR)

    def _region(self) -> str:
        """The rule and the last rows of the text, the cursor put back to where it started."""
        theme, (width, height) = self._style.theme, self._size()
        rows = self._running.rows(max(width - 2, 1), theme.reset)[-max(min(height - 2, 3), 0) :]
        if not rows or height < 4:
            return ""
        lines = [self._rule(), *(f" {row}" for row in rows)]
        lines[-1] += self._style.dim("▌")
        back = f"\r\x1b[{len(lines) - 1}A"
        return f"{HIDE_CURSOR}{NO_WRAP}" + "\n".join(lines) + f"{back}{WRAP}"

    def _rule(self) -> str:
        """A line across, with the key to the text's colours where there is room and colour."""
        style, width = self._style, self._style.width
        for name in (LEGEND, "T=1") if any(style.theme.text) else ():
            dashes = width - len(f" {name} {' '.join(LEVELS)} ──")
            if dashes >= 8:
                return f"{style.dim('─' * dashes)} {style.theme.legend(name)} {style.dim('──')}"
        return style.dim("─" * width)

    def _current_style(self, steps: Iterable[Step] = ()) -> Style:
        """The style at the terminal's present width, knowing what the steps' tokens give away."""
        style, width = self._style, self._size()[0]
        byte_level = style.byte_level if self._byte_level is None else self._byte_level
        if self._byte_level is None:
            for step in steps:
                pieces = [row.token for row in step.candidates]
                byte_level = guess_byte_level(pieces, byte_level)
        if width == style.width and byte_level == style.byte_level:
            return style
        return replace(style, width=width, byte_level=byte_level)

    def _size(self) -> tuple[int, int]:
        """Columns and rows. Rich takes a dumb terminal to have 80 columns; it may say otherwise."""
        console = self._console
        if console.is_dumb_terminal and "COLUMNS" not in os.environ:
            try:
                width, height = os.get_terminal_size(console.file.fileno())
            except (OSError, ValueError):
                width = height = 0
            if width and height:
                return width, height
        return console.width, console.height

    def _safe(self, text: str) -> str:
        """Text of the run that neither steers the terminal nor fails to encode."""
        return self._style.encodable(safe_text(text))

    def _write(self, text: str) -> None:
        if not text:
            return
        self._console.file.write(self._style.printable(text))
        self._console.file.flush()


def can_move_cursor(console: Console) -> bool:
    """Whether this is a real terminal that takes escape sequences, and not a pipe told to be one."""
    isatty = getattr(console.file, "isatty", None)
    return (
        isatty is not None
        and isatty()
        and console.is_interactive
        and console.is_terminal
        and not console.is_dumb_terminal
        and not console.legacy_windows
    )
