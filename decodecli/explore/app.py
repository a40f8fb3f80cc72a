"""The screen of `explore`: keys and clicks change a `Session`, and what stands there is drawn anew."""

from __future__ import annotations

import asyncio
import select
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Input, Static
from torch import Tensor

from decodecli.errors import DecodecliError
from decodecli.explore.dialogs import AskName, EditPrompt, Help, Leave, Tree
from decodecli.explore.engine import CURVE, Distribution, Noise, Source
from decodecli.explore.session import DRAWN, GREEDY, TAKEN, Choice, Session, settings_of
from decodecli.explore.widgets import SETTINGS, Candidates, EntropyCurve, Slider, TokenText
from decodecli.records.run import Candidate, exp_or_zero
from decodecli.render import number_format as numbers
from decodecli.render.escaping import one_line, visible

SPEEDS = (1.0, 2.0, 5.0, 10.0, 25.0, 1000.0)  # tokens a second
MIN_COLUMNS, MIN_ROWS = 36, 14
_KEYS = (  # as many as fit
    "space draw  ⏎ take  r again  g greedy  a run  ⌫ undo  b branch  / find  w guess  s save  ? help",
    "space draw  ⏎ take  r again  g greedy  ⌫ undo  b branch  / find  ? help  q quit",
    "space draw  ⏎ take  ⌫ undo  ? help",
)

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
        Binding("space", "draw"),
        Binding("enter", "take"),
        Binding("r", "redraw"),
        Binding("g", "greedy"),
        Binding("a", "run"),
        Binding("plus,equals_sign", "speed(1)"),
        Binding("minus", "speed(-1)"),
        Binding("backspace", "undo"),
        Binding("b", "branch"),
        Binding("left_square_bracket", "switch(-1)"),
        Binding("right_square_bracket", "switch(1)"),
        Binding("v", "tree"),
        Binding("slash", "find"),
        Binding("e", "edit"),
        Binding("w", "guess"),
        Binding("s", "save"),
        Binding("question_mark,f1", "help"),
        Binding("q", "leave"),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("escape", "close"),
        Binding("up", "highlight(-1)"),
        Binding("down", "highlight(1)"),
        Binding("pageup", "page(-1)"),
        Binding("pagedown", "page(1)"),
        Binding("left", "slide(-1)"),
        Binding("right", "slide(1)"),
        Binding("tab", "slider(1)", priority=True),
        Binding("shift+tab", "slider(-1)", priority=True),
        Binding("comma,shift+left", "cursor(-1)"),
        Binding("full_stop,shift+right", "cursor(1)"),
        Binding("home", "ends(0)"),
        Binding("end", "ends(1)"),
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
        self.source, self.session, self.byte_level = source, session, byte_level
        self.path, self._reopen, self._save = path, reopen, save
        self.ended_by, self._is_open = 0, False  # a signal's number
        self._events: asyncio.AbstractEventLoop | None = None
        self._noise = Noise(source.vocab_size)
        self._cursor: int | None = None  # an earlier token that is looked at; None is the end
        self._distribution: Distribution | None = None  # None while it is computed
        self._curve: tuple[Any, list[float]] = (None, [])  # of which logits and penalty
        self._pending = 0  # draws that were asked for while the model computed
        self._run: Timer | None = None
        self._speed = 2
        self._highlight, self._slider = 0, 0
        self._rows: Sequence[int] | None = None  # ids that match what is searched
        self._spellings: list[str] = []
        self._guess: str | None = None  # "open" while one is asked for; else what it came to
        self._guesses: list[tuple[int, float]] = []  # rank and surprisal of each
        self._message = ""

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        with Horizontal(id="middle"):
            with VerticalScroll(id="text", can_focus=False):
                yield TokenText(id="tokens")
            yield Candidates(self.byte_level, id="candidates")
        with Horizontal(id="bottom"):
            with Vertical(id="sliders"):
                for setting in SETTINGS:
                    yield Slider(setting, getattr(self.session.params, setting.name))
            yield EntropyCurve(CURVE, id="curve")
        yield Input(id="input")
        yield Static(id="message", markup=False)
        yield Static(id="keys", markup=False)
        yield Static(id="small", markup=False)

    def on_mount(self) -> None:
        self._is_open, self._events = True, asyncio.get_running_loop()
        self.theme = "ansi-dark"
        self.query_one("#input", Input).display = False
        if not self.is_headless and hasattr(select, "poll"):
            self.set_interval(1.0, self._check_terminal)
        self._look()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 72, "narrow")
        small = event.size.width < MIN_COLUMNS or event.size.height < MIN_ROWS
        self.set_class(small, "small")
        self.query_one("#small", Static).update(
            f"explore needs {MIN_COLUMNS} columns and {MIN_ROWS} rows; this terminal has "
            f"{event.size.width} and {event.size.height}. Make it larger, or press q."
        )
        self.call_after_refresh(self._show)

    # What is looked at, and where its numbers come from.

    @property
    def _length(self) -> int:
        """How many tokens of the branch stand before the place that is looked at."""
        choices = len(self.session.branch.choices)
        return choices if self._cursor is None else min(self._cursor, choices)

    def _ids(self) -> tuple[int, ...]:
        return (*self.session.prompt_ids, *self.session.branch.ids[: self._length])

    def _look(self) -> None:
        """Show the place that is looked at: at once where its logits are known, else when they come."""
        ids = self._ids()
        self._highlight, self._rows = 0, None
        self.say("")
        logits = self.source.ready(ids)
        if logits is not None:
            self._arrived(ids, logits)
            return
        self._distribution = None
        self._show()
        self._forward(ids)

    @work(group="forward")
    async def _forward(self, ids: tuple[int, ...]) -> None:
        if ids != self._ids():  # somebody has gone on meanwhile
            return
        try:
            logits = await asyncio.to_thread(self.source.logits, ids)
        except DecodecliError as error:
            self._stop_running()
            self._pending = 0
            self.say(f"{error.message}; backspace goes back")
            return
        if ids == self._ids():
            self._arrived(ids, logits)

    def _arrived(self, ids: tuple[int, ...], logits: Tensor) -> None:
        self._distribution = Distribution(logits, ids, self.session.params)
        present = self._present()
        if present is not None:
            self._highlight = self._row_of(present)
        if self._pending and self._cursor is None:
            self._pending -= 1
            self._draw()
            return
        self._show()

    def _row_of(self, token_id: int) -> int:
        assert self._distribution is not None
        return int((self._distribution.order == token_id).argmax())

    def _present(self) -> int | None:
        """The token that the branch has at an earlier place."""
        choices = self.session.branch.choices
        return choices[self._length].token_id if self._length < len(choices) else None

    def _row(self, row: int) -> Candidate:
        distribution = self._distribution
        assert distribution is not None
        token = int((distribution.order if self._rows is None else self._rows)[row])
        return distribution.candidate(token, self.source.piece(token))

    @work(group="curve", exclusive=True)
    async def _compute_curve(self, distribution: Distribution, key: Any) -> None:
        self._curve = key, await asyncio.to_thread(distribution.entropy_curve)
        self._show_curve()

    # What a person sees.

    def say(self, words: str) -> None:
        """A line below everything, until the next key."""
        self._message = words
        self.query_one("#message", Static).update(one_line(words))

    def _show(self) -> None:
        if not self._is_open:
            return
        session, branch = self.session, self.session.branch
        name = "numbers" if session.model is None else session.model.name
        title = f"{one_line(name)} · branch {session.current + 1} of {len(session.branches)}"
        title += f" · seed {branch.seed}"
        if branch.mean_surprisal is not None:
            length = numbers.count(len(branch.choices), "token")
            title += f" · {length} · {branch.mean_surprisal:.2f} nats each"
        title += "" if session.saved else " · not saved"
        self.query_one("#title", Static).update(title)
        texts = self.source.texts(session.prompt_ids, branch.ids)
        pieces = [
            (text, exp_or_zero(c.logprob)) for text, c in zip(texts, branch.choices, strict=True)
        ]
        cursor = None if self._present() is None else self._length
        tokens = self.query_one("#tokens", TokenText)
        tokens.show(session.prompt, pieces, cursor, " …" if self._distribution is None else "")
        if cursor is None:
            self.query_one("#text", VerticalScroll).scroll_end(animate=False)
        keys = next(keys for keys in _KEYS if len(keys) <= self.size.width or keys is _KEYS[-1])
        self.query_one("#keys", Static).update(keys)
        for index, slider in enumerate(self.query(Slider)):
            slider.selected = index == self._slider
            slider.refresh()
        self._show_candidates()
        self._show_curve()

    def _show_candidates(self) -> None:
        table, distribution = self.query_one("#candidates", Candidates), self._distribution
        if distribution is None:
            table.hide("computing …")
        elif self._guess == "open":
            table.hide("which token comes next? type it, and enter")
        else:
            temperature = distribution.params.temperature
            tempered = "" if temperature in (0, 1) else f"T={temperature:.3g}"
            tempered = tempered or ("penalty" if distribution.chain.penalises else "")
            count = self.source.vocab_size if self._rows is None else len(self._rows)
            self._highlight = max(min(self._highlight, count - 1), 0)
            table.show(count, self._row, self._highlight, tempered, self._present())

    def _show_curve(self) -> None:
        curve, distribution = self.query_one("#curve", EntropyCurve), self._distribution
        if distribution is None or self._guess == "open":
            curve.show((), 1.0, "")
            return
        before, after = (numbers.entropy(nats) for nats in distribution.entropies)
        size = numbers.count(self.source.vocab_size)
        everything = distribution.kept == self.source.vocab_size
        kept = (
            f"all {size} kept"
            if everything
            else f"kept {numbers.count(distribution.kept)} of {size}"
        )
        key = distribution.ids, distribution.params.repetition_penalty
        if self._curve[0] != key:
            self._compute_curve(distribution, key)
        nats = self._curve[1] if self._curve[0] == key else []
        facts = f"entropy {before} → {after} · {kept}"
        curve.show(nats, distribution.params.temperature, facts)

    # Keys that add and take away tokens.

    def _add(self, token_id: int, how: str) -> None:
        """Put a token at the place that is looked at; at an earlier place it makes a branch."""
        distribution = self._distribution
        assert distribution is not None
        if self._cursor is not None:
            if token_id == self._present():
                self.action_cursor(1)
                return
            self.session.open_branch(self._length, fresh_seed=False)
            self._cursor = None
        row = distribution.candidate(token_id, self.source.piece(token_id))
        seed = self.session.branch.seed if how == DRAWN else None
        params = settings_of(distribution.params)
        self.session.add(
            Choice(token_id, row.token, row.rank, row.logprob, row.final_logprob, how, seed, params)
        )
        self._look()

    def _draw(self) -> None:
        distribution, branch = self._distribution, self.session.branch
        assert distribution is not None
        if self._ended():
            self._pending = 0
            self._stop_running()
            self.say("the text has ended here; backspace takes the end away")
            self._show()
            return
        greedy = distribution.chain.greedy
        noise = None if greedy else self._noise.at(branch.seed, self._length)
        self._add(distribution.draw(noise), GREEDY if greedy else DRAWN)

    def _ended(self) -> bool:
        choices = self.session.branch.choices[: self._length]
        return bool(choices) and choices[-1].token_id in self.source.eos_ids

    def action_draw(self) -> None:
        if self._guess is not None:
            self._close_guess()
        elif self._distribution is None:
            self._pending += 1
        else:
            self._draw()

    def action_take(self) -> None:
        if self._guess is not None:
            self._close_guess()
        elif self._distribution is not None and (self._rows is None or len(self._rows)):
            self._add(self._row(self._highlight).token_id, TAKEN)

    def action_greedy(self) -> None:
        if self._distribution is not None and not self._ended():
            greedy = self._distribution.under(replace(self.session.params, temperature=0.0))
            self._add(greedy.greedy, GREEDY)

    def action_redraw(self) -> None:
        self._cursor = None
        if not self.session.branch.choices:
            self.say("there is nothing to draw again yet; space draws a token")
            return
        self.session.undo()
        self.session.reseed()
        self._pending = 1
        self._look()

    def action_undo(self) -> None:
        self._pending = 0
        self._stop_running()
        self._cursor = None
        self.session.undo()
        self._look()

    def action_run(self) -> None:
        if self._run is not None:
            self._stop_running()
            return
        self._cursor = None
        self._run = self.set_interval(1 / SPEEDS[self._speed], self._tick)
        speed = SPEEDS[self._speed]
        words = "as fast as it goes" if speed > 100 else f"at most {speed:g} tokens a second"
        self.say(f"running, {words}: a stops, + and - change the speed")

    def _tick(self) -> None:
        if self._distribution is not None:
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
        self.session.open_branch(self._length)
        self._cursor = None
        self._look()
        self.say("a branch from here; [ and ] move among branches")

    def action_switch(self, step: int) -> None:
        self.show_branch((self.session.current + step) % len(self.session.branches))

    def show_branch(self, number: int) -> None:
        """Go to the end of another branch."""
        self._stop_running()
        self._cursor, self._pending = None, 0
        self.session.current = number
        self._look()

    def action_tree(self) -> None:
        self._stop_running()
        self.push_screen(
            Tree(self.session, self.byte_level),
            lambda number: None if number is None else self.show_branch(number),
        )

    def action_cursor(self, step: int) -> None:
        self._go_to(self._length + step)

    def action_ends(self, end: int) -> None:
        self._go_to(len(self.session.branch.choices) if end else 0)

    def _go_to(self, place: int) -> None:
        self._stop_running()
        last = len(self.session.branch.choices)
        place = max(min(place, last), 0)
        self._cursor, self._pending = (None if place == last else place), 0
        self._look()

    def on_token_text_chosen(self, message: TokenText.Chosen) -> None:
        self._go_to(message.index)

    # The table.

    def action_highlight(self, step: int) -> None:
        self._highlight = max(self._highlight + step, 0)
        self._show_candidates()

    def action_page(self, step: int) -> None:
        self.action_highlight(step * self.query_one("#candidates", Candidates).page)

    def on_candidates_chosen(self, message: Candidates.Chosen) -> None:
        self._highlight = message.row
        self._show_candidates()
        if message.take:
            self.action_take()

    def action_find(self) -> None:
        self._ask("find a token")

    def _ask(self, prompt: str) -> None:
        box = self.query_one("#input", Input)
        box.placeholder, box.value, box.display = prompt, "", True
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id != "input" or self._distribution is None or self._guess is not None:
            return
        self._highlight = 0
        self._rows = self._matching(event.value) if event.value else None
        self._show_candidates()

    def _matching(self, text: str, whole: bool = False) -> Sequence[int]:
        """The tokens spelt so, or with `text` in them, by logit; a typed space is a space."""
        if not self._spellings:
            pieces = map(self.source.piece, range(self.source.vocab_size))
            self._spellings = [visible(piece, self.byte_level).lower() for piece in pieces]
        sought, spellings = text.lower().replace(" ", "␣"), self._spellings
        assert self._distribution is not None
        order = self._distribution.order.tolist()
        if whole:
            return [k for k in order if spellings[k].lstrip("␣") == sought.lstrip("␣")]
        return [k for k in order if sought in spellings[k]]

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_input()
        if self._guess == "open":
            self._judge(event.value)

    def _close_input(self) -> None:
        self.query_one("#input", Input).display = False
        self.set_focus(None)

    def action_close(self) -> None:
        """Leave whatever is open, and go back to the end of the branch."""
        self._stop_running()
        self._close_input()
        self._guess, self._cursor = None, None
        self._look()

    # A guessing round.

    def action_guess(self) -> None:
        if self._distribution is None:
            return
        self._stop_running()
        self._guess = "open"
        self._show()
        self._ask("which token comes next?")

    def _judge(self, text: str) -> None:
        matching = self._matching(text, whole=True) if text.strip() else []
        if not matching:
            self._guess = None
            self.say(f"no token is spelt {text!r}" if text.strip() else "")
            self._show()
            return
        self._guess = "judged"
        row = self._distribution.candidate(int(matching[0]), self.source.piece(int(matching[0])))  # type: ignore[union-attr]
        self._guesses.append((row.rank, -row.logprob))
        hits = sum(rank == 1 for rank, _ in self._guesses)
        mean = sum(surprisal for _, surprisal in self._guesses) / len(self._guesses)
        self._highlight = self._row_of(row.token_id)
        self._show()
        self.say(
            f"{visible(row.token, self.byte_level)} is number {row.rank}, "
            f"{numbers.percent(exp_or_zero(row.logprob))}. {hits} of {len(self._guesses)} right, "
            f"{mean:.2f} nats a guess. w guesses again, space goes on"
        )

    def _close_guess(self) -> None:
        self._guess = None
        self.say("")
        self._show()

    # Settings.

    def action_slider(self, step: int) -> None:
        if len(self.screen_stack) > 1:
            self.screen.focus_next() if step > 0 else self.screen.focus_previous()
            return
        self._slider = (self._slider + step) % len(SETTINGS)
        self._show()

    def action_slide(self, step: int) -> None:
        list(self.query(Slider))[self._slider].move(step)

    def on_slider_focused(self, message: Slider.Focused) -> None:
        self._slider = SETTINGS.index(message.setting)
        self._show()

    def on_slider_moved(self, message: Slider.Moved) -> None:
        value = int(message.value) if message.setting.name == "top_k" else message.value
        self.session.params = replace(self.session.params, **{message.setting.name: value})  # type: ignore[arg-type]
        if self._distribution is not None:
            self._distribution = self._distribution.under(self.session.params)
            self._show_candidates()
            self._show_curve()

    # The session.

    def action_edit(self) -> None:
        self._stop_running()
        if self._reopen is None:
            self.say("numbers have no prompt to edit")
            return
        self.push_screen(EditPrompt(self.session.prompt), self._read_prompt)

    def _read_prompt(self, prompt: str | None) -> None:
        if prompt is None or prompt == self.session.prompt:
            return
        if self.session.saved:
            self._open_prompt(prompt)
        else:
            words = "Another prompt begins a new session, and this one is not saved."
            self.push_screen(Leave(words), lambda answer: self._if_agreed(answer, prompt))

    def _if_agreed(self, answer: str | None, prompt: str) -> None:
        if answer == "save":
            self._save_then(lambda: self._open_prompt(prompt))
        elif answer == "discard":
            self._open_prompt(prompt)

    @work(group="forward")
    async def _open_prompt(self, prompt: str) -> None:
        assert self._reopen is not None
        self.say("reading the prompt …")
        try:
            source, session = await asyncio.to_thread(self._reopen, prompt)
        except DecodecliError as error:
            self.say(error.message)
            return
        self.source, self.session = source, replace(session, params=self.session.params)
        self._cursor = None
        self._look()

    def action_save(self) -> None:
        self._save_then(lambda: None)

    def _save_then(self, then: Callable[[], object]) -> None:
        if self.path is not None:
            self._write(self.path, then)
        else:
            self.push_screen(AskName("session.json"), lambda name: self._write(name, then))

    def _write(self, name: str | None, then: Callable[[], object]) -> None:
        if name is None or self._save is None:
            return
        try:
            words = self._save(self.source, self.session, name)
        except DecodecliError as error:
            self.say(f"{error.message}: {error.hint}")
            return
        self.path = name
        self._show()
        self.say(words)
        then()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_leave(self) -> None:
        self._stop_running()
        if self.session.saved:
            self.exit()
        else:
            self.push_screen(Leave("This session is not saved."), self._leave)

    def _leave(self, answer: str | None) -> None:
        if answer == "save":
            self._save_then(self.exit)
        elif answer == "discard":
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
