"""Ctrl-C, SIGTERM and SIGHUP: whichever comes, a run ends the same way.

One that is ignored from the start, as `nohup` and a shell's background jobs have it, stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

HANGUP = 1  # SIGHUP, which not every system has
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end. `exit_code` is what a shell says of one: 130, 143 or 129."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.exit_code = number, 128 + number

    @classmethod
    def of(cls, error: KeyboardInterrupt) -> Interrupted:
        """One that somebody else raised counts as Ctrl-C."""
        return error if isinstance(error, Interrupted) else cls(signal.SIGINT)

    def __str__(self) -> str:
        return {signal.SIGTERM: "Terminated.", HANGUP: "Hung up."}.get(self.number, "Interrupted.")


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Have the signals call `handler` during the block. Only the main thread can ask for it; elsewhere
    nothing changes."""
    before: dict[int, Any] = {}
    try:
        try:
            for number in ENDING:
                # None: somebody set it who is not Python.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, handler)
        except ValueError:
            pass
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def raised() -> Iterator[None]:
    """Have each of the signals raise `Interrupted`."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    with handled(interrupt):
        yield


@contextmanager
def postponed(then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Call `then` when a signal comes, and raise `Interrupted` at the end of the block; a second signal
    raises it at once."""
    came: list[int] = []

    def wait(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise Interrupted(number)
        then()

    with handled(wait):
        yield
    if came:
        raise Interrupted(came[0])
