"""The parts of `explore`'s screen: the text, the candidates, the sliders and the curve.

Each draws what it is given and says what was clicked; none computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from decodecli.records.run import Candidate, exp_or_zero
from decodecli.render import number_format as numbers
from decodecli.render.escaping import pad, safe_text, visible
from decodecli.render.theme import ACCENT, BAR, SCALE, level
from decodecli.settings import SamplingParams

_DIM, _BOLD = Style(dim=True), Style(bold=True)
_CHOSEN = Style(bold=True, reverse=True)
_BARS = Style(color=f"color({BAR})")
_STAGE_CELLS = 9
SURPRISE = tuple(
    Style(
        color=None if step.ink is None else f"color({step.ink})",
        bgcolor=None if step.fill is None else f"color({step.fill})",
        bold=step.bold,
        underline=step.underline,
    )
    for step in SCALE
)


class TokenText(Widget):
    """The prompt and the branch's tokens, each coloured by its probability."""

    DEFAULT_CSS = "TokenText { height: auto; }"

    class Chosen(Message):
        """A token was clicked; `index` counts from 0."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._text = Text()

    def show(
        self, prompt: str, tokens: Sequence[tuple[str, float]], cursor: int | None, note: str
    ) -> None:
        """tokens: text and probability at temperature 1 of each. cursor: the place that is looked at,
        None at the end. note: what stands there, as while the model computes."""
        text = Text(safe_text(prompt), style=_DIM)
        for index, (piece, probability) in enumerate(tokens):
            style = SURPRISE[level(probability)] + Style.from_meta({"index": index})
            if index == cursor:
                style += _CHOSEN
            text.append(safe_text(piece) or ("⋅" if index == cursor else ""), style)
        text.append(note if note else "▌" if cursor is None else "", _DIM)
        self._text = text
        self.refresh(layout=True)

    def render(self) -> Text:
        return self._text

    def on_click(self, event: events.Click) -> None:
        index = event.style.meta.get("index")
        if index is not None:
            self.post_message(self.Chosen(index))


class Candidates(Widget):
    """Rows of tokens with their numbers; the one that is highlighted would be taken."""

    DEFAULT_CSS = "Candidates { height: 1fr; }"

    class Chosen(Message):
        """A row was clicked; `take` when twice."""

        def __init__(self, row: int, take: bool) -> None:
            super().__init__()
            self.row, self.take = row, take

    def __init__(self, byte_level: bool, id: str) -> None:
        super().__init__(id=id)
        self.byte_level = byte_level
        self.count, self.highlight, self._first = 0, 0, 0
        self._row: Callable[[int], Candidate] | None = None
        self._present: int | None = None
        self._tempered, self._empty = "", ""

    def show(
        self,
        count: int,
        row: Callable[[int], Candidate],
        highlight: int,
        tempered: str,
        present: int | None = None,
    ) -> None:
        """count: of rows, of which `row` makes one. tempered: the heading of the column at the
        temperature, "" where it would repeat T=1. present: the token that the text has here."""
        self.count, self._row, self.highlight = count, row, highlight
        self._tempered, self._present = tempered, present
        self._empty = "" if count else "no token is spelt like that"
        self.refresh()

    def hide(self, words: str) -> None:
        """Show no distribution, but a few words."""
        self._row, self._empty = None, words
        self.refresh()

    @property
    def page(self) -> int:
        """Rows that fit."""
        return max(self.size.height - 1, 1)

    def render(self) -> Text:
        width, row = self.size.width, self._row
        if row is None or not self.count:
            return Text(self._empty, style=_DIM)
        self._first = max(min(self._first, self.highlight), self.highlight - self.page + 1)
        self._first = max(min(self._first, self.count - self.page), 0)
        rows = [row(k) for k in range(self._first, min(self._first + self.page, self.count))]
        rank = max(len(f"{rows[-1].rank}"), 1)
        shares = 3 if self._tempered else 2
        spare = width - rank - 3 - shares * (numbers.CELL + 1)
        with_logit = spare > 8 + 10 + _STAGE_CELLS
        spare -= 8 if with_logit else 0
        token = max(min(spare - _STAGE_CELLS, 22), 6)
        bar = max(spare - token - 1, 0)
        heading = " " * (rank + 2) + pad("token", token) + ("   logit" if with_logit else "")
        heading += "     T=1" + (f" {self._tempered:>7}" if self._tempered else "") + "   final"
        lines = [Text(heading[:width], style=_DIM)]
        for k, candidate in enumerate(rows, start=self._first):
            line = Text(
                f"{'▸' if k == self.highlight else ' '} {candidate.rank:>{rank}} "[-rank - 2 :]
            )
            line = Text(f"{'▸' if k == self.highlight else ' '}{candidate.rank:>{rank}} ")
            here = candidate.token_id == self._present
            line.append(
                pad(visible(candidate.token, self.byte_level), token), _BOLD if here else ""
            )
            if with_logit:
                line.append(f"{candidate.logit:>8.2f}"[:8])
            shown = [candidate.logprob, *([candidate.tempered_logprob] if self._tempered else [])]
            for logprob in shown:
                line.append(f" {numbers.percent_cell(exp_or_zero(logprob))}")
            share = exp_or_zero(candidate.final_logprob)
            line.append(f" {numbers.percent_cell(share)}", _BOLD)
            if candidate.removed_by is not None:
                line.append(f" {candidate.removed_by}"[: bar + 1])
                line.stylize(_DIM)
            else:
                line.append(f" {numbers.bar(share, bar)}", _BARS)
            if k == self.highlight:
                line.stylize(Style(bold=True, color=f"color({ACCENT})"))
            line.truncate(width)
            lines.append(line)
        return Text("\n").join(lines)

    def on_click(self, event: events.Click) -> None:
        row = self._first + event.get_content_offset_capture(self).y - 1 if self._row else -1
        if 0 <= row < self.count:
            self.post_message(self.Chosen(row, event.chain > 1))

    def on_mouse_scroll_down(self) -> None:
        self._scroll(3)

    def on_mouse_scroll_up(self) -> None:
        self._scroll(-3)

    def _scroll(self, rows: int) -> None:
        if self.count:
            row = max(min(self.highlight + rows, self.count - 1), 0)
            self.post_message(self.Chosen(row, False))


@dataclass(frozen=True)
class Setting:
    """A setting that a slider moves over `stops`, and the word for its neutral one."""

    name: str
    label: str
    stops: tuple[float, ...]
    neutral: str = ""


def _grid(*parts: tuple[float, float, float]) -> tuple[float, ...]:
    """Numbers from, to, in steps of."""
    return tuple(
        round(low + k * step, 4)
        for low, high, step in parts
        for k in range(round((high - low) / step) + 1)
    )


SETTINGS = (
    Setting("temperature", "temperature", _grid((0, 2, 0.05), (2.1, 4, 0.1), (4.5, 10, 0.5))),
    Setting("top_p", "top-p", (0.01, *_grid((0.05, 0.95, 0.05)), 0.97, 0.99, 0.999, 1.0), "off"),
    Setting(
        "top_k", "top-k",
        (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100, 200, 500, 1000, 0), "off",
    ),
    Setting(
        "min_p", "min-p", (0.0, 0.001, 0.01, 0.02, 0.03, 0.05, 0.07, *_grid((0.1, 1.0, 0.05))), "off"
    ),
    Setting("repetition_penalty", "repetition", _grid((1.0, 2.0, 0.05)), "off"),
)  # fmt: skip


class Slider(Widget):
    """One setting: keys and clicks move it over its stops."""

    DEFAULT_CSS = "Slider { height: 1; }"

    class Moved(Message):
        """The value is another one."""

        def __init__(self, setting: Setting, value: float) -> None:
            super().__init__()
            self.setting, self.value = setting, value

    class Focused(Message):
        """It was clicked."""

        def __init__(self, setting: Setting) -> None:
            super().__init__()
            self.setting = setting

    def __init__(self, setting: Setting, value: float) -> None:
        super().__init__()
        self.setting, self.value, self.selected = setting, value, False
        at_end = setting.stops[-1] == 0  # off is the weakest, as no top-k at all
        self._stops = sorted({*setting.stops, value}, key=lambda v: (at_end and v == 0, v))
        self._track = (0, 1)

    def move(self, steps: int) -> None:
        """Some stops to the right, or, below 0, to the left."""
        index = self._stops.index(self.value) + steps
        self._set(self._stops[max(min(index, len(self._stops) - 1), 0)])

    def _set(self, value: float) -> None:
        if value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Moved(self.setting, value))

    def render(self) -> Text:
        neutral = getattr(SamplingParams, self.setting.name)
        off = self.setting.neutral and self.value == neutral
        value = self.setting.neutral if off else f"{self.value:g}"
        if self.setting.name == "temperature":
            value = "greedy" if self.value == 0 else f"{self.value:.3g}"
        head = f"{'▸' if self.selected else ' '}{self.setting.label:<12}{value:>7} "
        width = max(self.size.width - len(head) - 1, 2)
        self._track = len(head), width
        knob = round(self._stops.index(self.value) / (len(self._stops) - 1) * (width - 1))
        text = Text(head, style=_BOLD if self.selected else "")
        text.append("━" * knob, _BARS)
        text.append("●", Style(bold=True, color=f"color({ACCENT})"))
        text.append("─" * (width - 1 - knob), _DIM)
        return text

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self.post_message(self.Focused(self.setting))
        self.capture_mouse()
        self._follow(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if event.button:
            self._follow(event)

    def on_mouse_up(self) -> None:
        self.release_mouse()

    def _follow(self, event: events.MouseEvent) -> None:
        start, width = self._track
        share = (event.get_content_offset_capture(self).x - start) / max(width - 1, 1)
        if share > -0.05:
            self._set(self._stops[round(max(min(share, 1), 0) * (len(self._stops) - 1))])


class EntropyCurve(Widget):
    """Entropy over the logarithm of the temperature, the present one marked."""

    DEFAULT_CSS = "EntropyCurve { height: 5; }"

    def __init__(self, temperatures: Sequence[float], id: str) -> None:
        super().__init__(id=id)
        self._temperatures = temperatures
        self._nats: Sequence[float] = ()
        self._present, self._facts = 1.0, ""

    def show(self, nats: Sequence[float], present: float, facts: str) -> None:
        """nats: the entropy at each of the temperatures; empty while it is not known. present: the
        temperature of the settings. facts: a line above the curve."""
        self._nats, self._present, self._facts = nats, present, facts
        self.refresh()

    def render(self) -> Text:
        width, height = max(self.size.width, 8), max(self.size.height - 2, 1)
        text = Text(self._facts[:width])
        if not self._nats:
            return text
        last, top = len(self._temperatures) - 1, max(self._nats) or 1.0
        low, high = log(self._temperatures[0]), log(self._temperatures[-1])
        mark = None
        if self._present > 0:
            share = (log(self._present) - low) / (high - low)
            mark = round(max(min(share, 1), 0) * (width - 1))
        cells = []
        for column in range(width):
            place = column / (width - 1) * last
            left = min(int(place), last - 1)
            nats = self._nats[left] + (place - left) * (self._nats[left + 1] - self._nats[left])
            cells.append(round(nats / top * height * 8))
        here = Style(bold=True, color=f"color({ACCENT})")
        for row in range(height - 1, -1, -1):
            line = Text(
                "\n" + "".join(" ▁▂▃▄▅▆▇█"[max(min(c - 8 * row, 8), 0)] for c in cells), _BARS
            )
            if mark is not None:
                bar = line.plain[mark + 1].replace(" ", "│")
                line = line[: mark + 1] + Text(bar, here) + line[mark + 2 :]
            text.append_text(line)
        one = round((0 - low) / (high - low) * (width - 1))
        axis = list(f"T {self._temperatures[0]:g}".ljust(width))
        axis[one] = "1"
        end = f"{self._temperatures[-1]:g}"
        axis[width - len(end) :] = end
        text.append("\n" + "".join(axis), _DIM)
        return text
