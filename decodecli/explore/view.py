"""The screen of `explore` put together: what a `Walk` looks like."""

from __future__ import annotations

import asyncio
from typing import Any

from textual import events, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from decodecli.explore.keys import HINTS
from decodecli.explore.walk import Walk
from decodecli.explore.widgets import SETTINGS, Candidates, EntropyCurve, Slider, TokenText
from decodecli.records.run import exp_or_zero
from decodecli.render.escaping import one_line
from decodecli.sampling.one_position import CURVE, Distribution

MIN_COLUMNS, MIN_ROWS = 36, 14


class View(Vertical):
    """All panels of the screen.

    walk: what they show. slider: the one that keys move. guessing: whether a guess is asked for, so that
    the candidates must not be seen.
    """

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self.walk, self.slider, self.guessing = walk, 0, False
        self._curve: tuple[Any, list[float]] = (None, [])  # of which logits and penalty

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        with Horizontal(id="middle"):
            with VerticalScroll(id="text", can_focus=False):
                yield TokenText(id="tokens")
            yield Candidates(self.walk.byte_level, id="candidates")
        with Horizontal(id="bottom"):
            with Vertical(id="sliders"):
                for setting in SETTINGS:
                    yield Slider(setting, getattr(self.walk.session.params, setting.name))
            yield EntropyCurve(CURVE, id="curve")
        yield Input(id="input")
        yield Static(id="message", markup=False)
        yield Static(id="keys", markup=False)
        yield Static(id="small", markup=False)

    def on_mount(self) -> None:
        self.query_one("#input", Input).display = False

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 72, "narrow")
        small = event.size.width < MIN_COLUMNS or event.size.height < MIN_ROWS
        self.set_class(small, "small")
        self.query_one("#small", Static).update(
            f"explore needs {MIN_COLUMNS} columns and {MIN_ROWS} rows; this terminal has "
            f"{event.size.width} and {event.size.height}. Make it larger, or press q."
        )
        self.call_after_refresh(self.show)

    def say(self, words: str) -> None:
        """A line below everything, until the next key."""
        self.query_one("#message", Static).update(one_line(words))

    def show(self) -> None:
        """Draw everything anew."""
        walk, branch = self.walk, self.walk.session.branch
        self.query_one("#title", Static).update(walk.title)
        texts = walk.source.texts(walk.session.prompt_ids, branch.ids)
        pieces = [
            (text, exp_or_zero(c.logprob)) for text, c in zip(texts, branch.choices, strict=True)
        ]
        cursor = None if walk.present is None else walk.length
        note = " …" if walk.distribution is None else ""
        self.query_one("#tokens", TokenText).show(walk.session.prompt, pieces, cursor, note)
        if cursor is None:
            self.query_one("#text", VerticalScroll).scroll_end(animate=False)
        keys = next(keys for keys in HINTS if len(keys) <= self.size.width or keys is HINTS[-1])
        self.query_one("#keys", Static).update(keys)
        for index, slider in enumerate(self.query(Slider)):
            slider.selected = index == self.slider
            slider.refresh()
        self.show_candidates()
        self.show_curve()

    def show_candidates(self) -> None:
        walk, table = self.walk, self.query_one("#candidates", Candidates)
        if walk.distribution is None:
            table.hide("computing …")
        elif self.guessing:
            table.hide("which token comes next? type it, and enter")
        else:
            temperature = walk.distribution.params.temperature
            tempered = "" if temperature in (0, 1) else f"T={temperature:.3g}"
            tempered = tempered or ("penalty" if walk.distribution.chain.penalises else "")
            walk.highlight = max(min(walk.highlight, walk.count - 1), 0)
            table.show(walk.count, walk.row, walk.highlight, tempered, walk.present)

    def show_curve(self) -> None:
        curve, distribution = self.query_one("#curve", EntropyCurve), self.walk.distribution
        if distribution is None or self.guessing:
            curve.show((), 1.0, "")
            return
        key = distribution.ids, distribution.params.repetition_penalty
        if self._curve[0] != key:
            self._compute_curve(distribution, key)
        nats = self._curve[1] if self._curve[0] == key else []
        curve.show(nats, distribution.params.temperature, self.walk.facts)

    @work(group="curve", exclusive=True)
    async def _compute_curve(self, distribution: Distribution, key: Any) -> None:
        self._curve = key, await asyncio.to_thread(distribution.entropy_curve)
        self.show_curve()

    def ask(self, prompt: str) -> None:
        """Open the line that a search or a guess is typed into."""
        box = self.query_one("#input", Input)
        box.placeholder, box.value, box.display = prompt, "", True
        box.focus()

    def close_input(self) -> None:
        self.query_one("#input", Input).display = False
        self.screen.set_focus(None)
