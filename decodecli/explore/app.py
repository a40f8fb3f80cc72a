"""The screen of `explore`: keys and clicks change a `Session`, and what stands there is drawn anew."""

from __future__ import annotations

import asyncio
import select
import signal
import sys
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import Input
from torch import Tensor

from decodecli.errors import DecodecliError
from decodecli.explore.dialogs import AskName, EditPrompt, Help, Leave, Tree
from decodecli.explore.engine import Source
from decodecli.explore.keys import KEYS, PRIORITY_KEYS
from decodecli.explore.session import Session
from decodecli.explore.view import View
from decodecli.explore.walk import Walk
from decodecli.explore.widgets import SETTINGS, Candidates, Slider, TokenText

SPEEDS = (1.0, 2.0, 5.0, 10.0, 25.0, 1000.0)  # tokens a second
MIN_COLUMNS, MIN_ROWS = 36, 14
Opened = tuple[Source, Session]


class Explorer(App[None]):
    """A model's distributions, walked through by hand.

    Args:
        source: where logits come from.
        session: what is looked at; it is changed.
        byte_level: whether pieces are spelt in GPT-2's byte alphabet.
        reopen: reads another prompt; None where there is none to edit.
        save: writes the session, and a trace of its branch, under a name; returns what to say.
        path: the name that they have already.
    """

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None  # keys are the app's own, until a box opens
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, action) for key, action in KEYS.items()),
        *(Binding(key, action, priority=True) for key, action in PRIORITY_KEYS.items()),
    ]

    def __init__(
        self,
        source: Source,
        session: Session,
        *,
        byte_level: bool = False,
        reopen: Callable[[str], Opened] | None = None,
        save: Callable[[Source, Session, str], str] | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self.title = "decodecli explore"
        self.view = View(Walk(source, session, byte_level))
        self.path, self._reopen, self._save = path, reopen, save
        self.ended_by = 0  # a signal's number
        self._events: asyncio.AbstractEventLoop | None = None
        self._run: Timer | None = None
        self._speed = 2
        self._judged = False  # a guess, which the next key leaves

    @property
    def walk(self) -> Walk:
        return self.view.walk

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self._events = asyncio.get_running_loop()
        self.theme = "ansi-dark"
        if not self.is_headless and hasattr(select, "poll"):
            self.set_interval(1.0, self._check_terminal)
        self._look()

    # Where the numbers come from.

    def _look(self) -> None:
        """Show the place that is looked at: at once where its logits are known, else when they come."""
        walk = self.walk
        walk.leave()
        self.view.say("")
        logits = walk.source.ready(walk.ids)
        if logits is not None:
            self._arrived(logits)
            return
        self.view.show()
        self._forward(walk.ids)

    @work(group="forward")
    async def _forward(self, ids: tuple[int, ...]) -> None:
        if ids != self.walk.ids:  # somebody has gone on meanwhile
            return
        try:
            logits = await asyncio.to_thread(self.walk.source.logits, ids)
        except DecodecliError as error:
            self._stop_running()
            self.walk.pending = 0
            self.view.say(f"{error.message}; backspace goes back")
            return
        if ids == self.walk.ids:
            self._arrived(logits)

    def _arrived(self, logits: Tensor) -> None:
        self.walk.arrived(logits)
        if self.walk.pending and self.walk.cursor is None:
            self.walk.pending -= 1
            self._draw()
        else:
            self.view.show()

    # Keys that add and take away tokens.

    def _draw(self) -> None:
        if self.walk.has_ended:
            self.walk.pending = 0
            self._stop_running()
            self.view.say("the text has ended here; backspace takes the end away")
            self.view.show()
            return
        self.walk.draw()
        self._look()

    def action_draw(self) -> None:
        if self._judged or self.view.guessing:
            self._close_guess()
        elif self.walk.distribution is None:
            self.walk.pending += 1
        else:
            self._draw()

    def action_take(self) -> None:
        if self._judged or self.view.guessing:
            self._close_guess()
        elif self.walk.distribution is not None and self.walk.count:
            self.walk.take()
            self._look()

    def action_greedy(self) -> None:
        if self.walk.distribution is not None and not self.walk.has_ended:
            self.walk.take_most_probable()
            self._look()

    def action_redraw(self) -> None:
        if not self.walk.session.branch.choices:
            self.view.say("there is nothing to draw again yet; space draws a token")
            return
        self.walk.redraw()
        self._look()

    def action_undo(self) -> None:
        self._stop_running()
        self.walk.undo()
        self._look()

    def action_run(self) -> None:
        if self._run is not None:
            self._stop_running()
            return
        self.walk.cursor = None
        self._run = self.set_interval(1 / SPEEDS[self._speed], self._tick)
        speed = SPEEDS[self._speed]
        words = "as fast as it goes" if speed > 100 else f"at most {speed:g} tokens a second"
        self.view.say(f"running, {words}: a stops, + and - change the speed")

    def _tick(self) -> None:
        if self.walk.distribution is not None:
            self._draw()

    def _stop_running(self) -> None:
        if self._run is not None:
            self._run.stop()
            self._run = None

    def action_speed(self, step: int) -> None:
        self._speed = max(min(self._speed + step, len(SPEEDS) - 1), 0)
        if self._run is not None:
            self._stop_running()
            self.action_run()

    # Branches, and the place in them.

    def action_branch(self) -> None:
        self._stop_running()
        self.walk.open_branch()
        self._look()
        self.view.say("a branch from here; [ and ] move among branches")

    def action_switch(self, step: int) -> None:
        self._show_branch(self.walk.session.current + step)

    def _show_branch(self, number: int | None) -> None:
        if number is not None:
            self._stop_running()
            self.walk.show_branch(number)
            self._look()

    def action_tree(self) -> None:
        self._stop_running()
        self.push_screen(Tree(self.walk.session, self.walk.byte_level), self._show_branch)

    def action_cursor(self, step: int) -> None:
        self._go_to(self.walk.length + step)

    def action_ends(self, end: int) -> None:
        self._go_to(len(self.walk.session.branch.choices) if end else 0)

    def _go_to(self, index: int) -> None:
        self._stop_running()
        self.walk.go_to(index)
        self._look()

    def on_token_text_chosen(self, message: TokenText.Chosen) -> None:
        self._go_to(message.index)

    # The table.

    def action_highlight(self, step: int) -> None:
        self.walk.highlight = max(self.walk.highlight + step, 0)
        self.view.show_candidates()

    def action_page(self, step: int) -> None:
        self.action_highlight(step * self.query_one("#candidates", Candidates).page)

    def on_candidates_chosen(self, message: Candidates.Chosen) -> None:
        self.walk.highlight = message.row
        self.view.show_candidates()
        if message.take:
            self.action_take()

    def action_find(self) -> None:
        self.view.ask("find a token")

    def on_input_changed(self, event: Input.Changed) -> None:
        searching = event.input.id == "input" and not self.view.guessing
        if searching and self.walk.distribution is not None:
            self.walk.find(event.value)
            self.view.show_candidates()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.view.close_input()
        if self.view.guessing:
            self._judge(event.value)

    def action_close(self) -> None:
        """Leave whatever is open, and go back to the end of the branch."""
        self._stop_running()
        self.view.close_input()
        self.view.guessing, self._judged, self.walk.cursor = False, False, None
        self._look()

    # A guessing round.

    def action_guess(self) -> None:
        if self.walk.distribution is None:
            return
        self._stop_running()
        self.view.guessing = True
        self.view.show()
        self.view.ask("which token comes next?")

    def _judge(self, text: str) -> None:
        verdict = self.walk.guess(text)
        self.view.guessing, self._judged = False, verdict is not None
        self.view.show()
        self.view.say(verdict or (f"no token is spelt {text!r}" if text.strip() else ""))

    def _close_guess(self) -> None:
        self.view.guessing, self._judged = False, False
        self.view.say("")
        self.view.show()

    # Settings.

    def action_slider(self, step: int) -> None:
        if len(self.screen_stack) > 1:
            self.screen.focus_next() if step > 0 else self.screen.focus_previous()
            return
        self.view.slider = (self.view.slider + step) % len(SETTINGS)
        self.view.show()

    def action_slide(self, step: int) -> None:
        list(self.query(Slider))[self.view.slider].move(step)

    def on_slider_focused(self, message: Slider.Focused) -> None:
        self.view.slider = SETTINGS.index(message.setting)
        self.view.show()

    def on_slider_moved(self, message: Slider.Moved) -> None:
        value = int(message.value) if message.setting.name == "top_k" else message.value
        self.walk.set(message.setting.name, value)
        if self.walk.distribution is not None:
            self.view.show_candidates()
            self.view.show_curve()

    # The session.

    @work
    async def action_edit(self) -> None:
        self._stop_running()
        session = self.walk.session
        if self._reopen is None:
            self.view.say("numbers have no prompt to edit")
            return
        prompt = await self.push_screen_wait(EditPrompt(session.prompt))
        words = "Another prompt begins a new session, and this one is not saved."
        if prompt is None or prompt == session.prompt or not await self._may_go(words):
            return
        self.view.say("reading the prompt …")
        try:
            source, opened = await asyncio.to_thread(self._reopen, prompt)
        except DecodecliError as error:
            self.view.say(error.message)
            return
        opened.params = self.walk.session.params
        self.view.walk = Walk(source, opened, self.walk.byte_level)
        self._look()

    async def _may_go(self, words: str) -> bool:
        """Whether the session may go: it is saved, is saved now, or may be lost."""
        if self.walk.session.saved:
            return True
        answer = await self.push_screen_wait(Leave(words))
        return answer == "discard" or (answer == "save" and await self._save_session())

    @work
    async def action_save(self) -> None:
        await self._save_session()

    async def _save_session(self) -> bool:
        name = self.path or await self.push_screen_wait(AskName("session.json"))
        if name is None or self._save is None:
            return False
        try:
            words = self._save(self.walk.source, self.walk.session, name)
        except DecodecliError as error:
            self.view.say(f"{error.message}: {error.hint}")
            return False
        self.path = name
        self.view.show()
        self.view.say(words)
        return True

    def action_help(self) -> None:
        self.push_screen(Help())

    @work
    async def action_leave(self) -> None:
        self._stop_running()
        if await self._may_go("This session is not saved."):
            self.exit()

    def action_interrupt(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        self.ended_by = number
        self.exit()

    def _check_terminal(self) -> None:
        """End when the terminal has gone without a signal, as it may for a process in its own session."""
        watch = select.poll()
        watch.register(sys.__stdin__, 0)  # type: ignore[arg-type]
        if any(events & select.POLLHUP for _, events in watch.poll(0)):
            self._end(signal.SIGHUP)

    def stop(self) -> None:
        """Leave at once, from a signal handler; a session that has a name is saved."""
        if self._events is not None:
            self._events.call_soon_threadsafe(self.exit)
