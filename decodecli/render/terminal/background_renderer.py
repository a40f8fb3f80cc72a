"""Draws a terminal view in a thread, so that decoding does not wait for the screen."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from threading import Event, Thread

from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.render.terminal.view import TerminalView

UPDATES = 20  # a second, at most: each takes the interpreter from the run for a moment
CAPACITY = 1000  # steps that may wait for a screen that is slower than the model


class BackgroundRenderer:
    """A `TerminalView` with a queue before it and a thread that draws it.

    Steps are drawn in order and none is left out; all that have come by the time of an update are
    drawn in one write. After a pause the next step is drawn at once. `start`, `finish` and `close`
    draw what is queued first and return when the screen is up to date. Once `capacity` steps wait,
    `step` waits too.

    What goes wrong in drawing is raised by the next call, once; after that only `close` draws.
    """

    def __init__(
        self, view: TerminalView, *, updates: float = UPDATES, capacity: int = CAPACITY
    ) -> None:
        self._view = view
        self._interval, self._capacity = 1 / updates, capacity
        self._queue: deque[Step] = deque()
        # `Thread.join` takes a thread to have ended when Ctrl-C interrupts it (Python 3.11, 3.12).
        self._arrived, self._flush, self._ended = Event(), Event(), Event()
        self._due = 0.0
        self._thread: Thread | None = None
        self._problem: BaseException | None = None
        self._given_up = False

    def start(self, header: RunHeader, sample: tuple[int, int] = (1, 1)) -> None:
        """As `TerminalView.start`."""
        if self._caught_up():
            self._view.start(header, sample)

    def step(self, step: Step) -> None:
        """Queue a step."""
        self._raise_problem()
        if self._given_up:
            return
        if self._thread is None:
            self._flush.clear()
            self._ended.clear()
            self._thread = Thread(target=self._run, name="decodecli drawing", daemon=True)
            self._thread.start()
        self._queue.append(step)
        self._arrived.set()
        try:
            while len(self._queue) >= self._capacity and self._problem is None:
                time.sleep(self._interval)
        except BaseException:  # a second Ctrl-C: what still waits is given up
            self._give_up()
            raise

    def finish(self, summary: RunSummary | None) -> None:
        """As `TerminalView.finish`, when every step has been drawn."""
        if self._caught_up():
            self._view.finish(summary)

    def close(self) -> None:
        """As `TerminalView.close`, when every step has been drawn."""
        if self._given_up:
            # The cursor is given back if the terminal still takes anything.
            if self._thread is None or self._ended.wait(0.5):
                with contextlib.suppress(OSError, ValueError):
                    self._view.close()
        elif self._caught_up():
            self._view.close()

    def _caught_up(self) -> bool:
        """Wait until the queue is drawn and the thread has ended. Returns whether drawing goes on."""
        if self._thread is not None and not self._given_up:
            self._flush.set()
            self._arrived.set()
            try:
                while not self._ended.wait(0.1):  # not for long, so that Ctrl-C is heard everywhere
                    pass
            except BaseException:  # as in `step`
                self._give_up()
                raise
            self._thread = None
        self._raise_problem()
        return not self._given_up

    def _give_up(self) -> None:
        self._given_up = True
        self._queue.clear()
        self._flush.set()  # the thread ends once its write returns
        self._arrived.set()

    def _raise_problem(self) -> None:
        if self._problem is not None:
            problem, self._problem, self._given_up = self._problem, None, True
            raise problem

    def _run(self) -> None:
        """The thread's work: draw what is queued until `_flush` is set and nothing waits."""
        try:
            ending = False
            while not ending:
                self._arrived.wait()
                self._arrived.clear()
                self._flush.wait(max(self._due - time.monotonic(), 0))
                ending = (
                    self._flush.is_set()
                )  # before the queue is looked at: no step comes after it
                steps = [self._queue.popleft() for _ in range(len(self._queue))]
                if steps:
                    self._view.steps(steps)
                    self._due = time.monotonic() + self._interval
                steps.clear()  # not kept while waiting
        except BaseException as error:
            self._problem = error
        finally:
            self._ended.set()
