"""A view drawn beside the run: everything, in order, at most so often, and nobody waits."""

from __future__ import annotations

import re
import threading
import time
from itertools import pairwise

import made_up
import pytest
from emulator import Terminal
from rich.console import Console

from decodecli.records.run import Step
from decodecli.render.terminal.background_renderer import BackgroundRenderer
from decodecli.render.terminal.view import TerminalView


def some_steps(count: int) -> list[Step]:
    tokens = [("▁Tokyo", 9.0), ("▁a", 5.0)]
    return [made_up.step(tokens, index=index, vocab_size=2) for index in range(count)]


class Slow(Terminal):
    """A terminal on which a write waits until it is let go; it knows when each came."""

    def __init__(self) -> None:
        super().__init__(80, 24)
        self.times: list[float] = []
        self.free = threading.Event()
        self.free.set()
        self.trouble: Exception | None = None

    def write(self, text: str) -> int:
        self.times.append(time.monotonic())
        assert self.free.wait(20)
        if self.trouble is not None:
            raise self.trouble
        return super().write(text)


@pytest.fixture
def terminal() -> Slow:
    return Slow()


def drawing_on(terminal: Slow, **more: float) -> BackgroundRenderer:
    environ = {"TERM": "xterm-256color"}
    console = Console(file=terminal, width=80, height=24, _environ=environ)
    view = BackgroundRenderer(TerminalView(console, byte_level=False), **more)  # type: ignore[arg-type]
    view.start(made_up.header(vocab_size=2))
    return view


def until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def numbers(terminal: Terminal) -> list[int]:
    return [int(found) for found in re.findall(r"(?m)^ +#(\d+)  ␣Tokyo .*rank", terminal.text)]


def test_the_screen_is_in_the_end_what_it_is_step_by_step(terminal: Slow) -> None:
    steps = some_steps(50)
    plain = Terminal(80, 24)
    environ = {"TERM": "xterm-256color"}
    console = Console(file=plain, width=80, height=24, _environ=environ)
    for view in (drawing_on(terminal), TerminalView(console, byte_level=False)):
        if isinstance(view, TerminalView):
            view.start(made_up.header(vocab_size=2))
        for step in steps:
            view.step(step)
        view.finish(made_up.summary(steps))
        view.close()
    assert terminal.rows == plain.rows
    assert numbers(terminal) == list(range(1, 51))
    assert len(terminal.writes) < len(plain.writes) / 4


def test_updates_are_no_closer_than_the_rate_allows(terminal: Slow) -> None:
    view = drawing_on(terminal, updates=50)
    for step in some_steps(100):
        view.step(step)
        time.sleep(0.003)
    view._caught_up()
    drawn = terminal.times[1:-1]  # without the header, and the last, which hurries
    gaps = [after - before for before, after in pairwise(drawn)]
    assert len(gaps) >= 3
    assert min(gaps) >= 0.02


def test_the_first_step_and_one_after_a_pause_come_at_once(terminal: Slow) -> None:
    view = drawing_on(terminal, updates=0.5)
    first, second = some_steps(2)
    view.step(first)
    until(lambda: numbers(terminal) == [1], 1.5)
    view._due = 0.0  # as after a pause
    view.step(second)
    until(lambda: numbers(terminal) == [1, 2], 1.5)
    view.close()


def test_a_screen_that_hangs_does_not_hold_the_run(terminal: Slow) -> None:
    view = drawing_on(terminal)
    terminal.free.clear()
    began = time.monotonic()
    for step in some_steps(500):
        view.step(step)
    assert time.monotonic() - began < 5
    assert numbers(terminal) == []
    terminal.free.set()
    view.close()
    assert numbers(terminal) == list(range(1, 501))


def test_steps_that_wait_for_the_screen_are_bounded(terminal: Slow) -> None:
    view = drawing_on(terminal, capacity=20)
    terminal.free.clear()
    done = []

    def run() -> None:
        for step in some_steps(60):
            view.step(step)
            done.append(step)

    model = threading.Thread(target=run)
    model.start()
    until(lambda: len(done) >= 19)
    time.sleep(0.1)
    assert len(done) <= 20 + 20, "those of the update under way, and those that wait"
    terminal.free.set()
    model.join(20)
    view.close()
    assert numbers(terminal) == list(range(1, 61))


@pytest.mark.parametrize("call", ["step", "finish", "close"])
def test_what_goes_wrong_is_raised_by_the_next_call_and_once(terminal: Slow, call: str) -> None:
    view = drawing_on(terminal)
    steps = some_steps(3)
    terminal.trouble = BrokenPipeError()
    view.step(steps[0])
    until(lambda: view._problem is not None)
    argument = {"step": (steps[1],), "finish": (made_up.summary(steps),), "close": ()}[call]
    with pytest.raises(BrokenPipeError):
        getattr(view, call)(*argument)
    view.step(steps[2])
    view.finish(made_up.summary(steps))
    view.close()


def test_after_an_error_closing_gives_the_cursor_back(terminal: Slow) -> None:
    view = drawing_on(terminal)
    steps = some_steps(3)
    view.step(steps[0])
    until(lambda: numbers(terminal) == [1])
    terminal.trouble = ValueError("closed")
    view.step(steps[1])
    until(lambda: view._problem is not None)
    with pytest.raises(ValueError, match="closed"):
        view.step(steps[2])
    terminal.trouble = None
    view.close()
    assert terminal.cursor_shown
    assert "▌" not in terminal.rows[-1]


def test_an_interrupt_while_waiting_for_a_hanging_screen_gives_up_what_waits(
    terminal: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = drawing_on(terminal)
    terminal.free.clear()
    for step in some_steps(5):
        view.step(step)
    thread, wait = view._thread, view._ended.wait
    assert thread is not None

    def interrupted(timeout: float | None = None) -> bool:
        monkeypatch.setattr(view._ended, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(view._ended, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        view.finish(made_up.summary(some_steps(5)))
    began = time.monotonic()
    view.close()
    assert time.monotonic() - began < 5
    terminal.free.set()
    thread.join(10)
    assert not thread.is_alive()


def test_an_interrupt_while_the_queue_is_full_is_the_last_that_is_needed(
    terminal: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = drawing_on(terminal, capacity=3)
    terminal.free.clear()
    steps = some_steps(20)
    view.step(steps[0])
    until(lambda: not view._queue)  # the thread hangs in its write
    view.step(steps[1])
    view.step(steps[2])

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("decodecli.render.terminal.background_renderer.time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            view.step(steps[3])
    thread = view._thread
    ending = threading.Thread(target=view.finish, args=(made_up.summary(steps),), daemon=True)
    ending.start()
    ending.join(2)
    waits = ending.is_alive()
    view.close()
    terminal.free.set()
    for one in (ending, thread):
        assert one is not None
        one.join(10)
        assert not one.is_alive()
    assert not waits, "only one more Ctrl-C would end the run"
    assert numbers(terminal) == [1]


def test_several_runs_use_one_view(terminal: Slow) -> None:
    view = drawing_on(terminal)
    for _ in range(3):
        for step in some_steps(4):
            view.step(step)
        view.finish(made_up.summary(some_steps(4)))
        view.start(made_up.header(vocab_size=2))
    view.close()
    assert numbers(terminal) == [1, 2, 3, 4] * 3
    assert threading.active_count() == 1 or not any(
        thread.name == "decodecli drawing" for thread in threading.enumerate()
    )


def test_a_long_run_leaves_its_text_in_memory_and_little_else() -> None:
    import tracemalloc

    class Nowhere(Terminal):
        def write(self, text: str) -> int:
            return len(text)

    console = Console(file=Nowhere(80, 24), width=80, height=24, _environ={"TERM": "xterm"})
    view = BackgroundRenderer(TerminalView(console, byte_level=False))
    view.start(made_up.header(vocab_size=2))

    def run(first: int, last: int) -> None:
        for index in range(first, last):
            tokens = [(f"▁{index}x{row}", 9.0 - row / 9) for row in range(9)]
            view.step(made_up.step(tokens, index=index, vocab_size=9))
        view._caught_up()

    tracemalloc.start()
    try:
        run(0, 1000)  # the caches fill up
        before = tracemalloc.get_traced_memory()[0]
        run(1000, 3000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    view.close()
    # 2000 steps as records would be 6 MB.
    assert grown < 300 * 2000
