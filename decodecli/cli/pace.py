"""The pace of the screen: `--delay` between tokens, `--pause` until a key is pressed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from decodecli.errors import UsageError
from decodecli.settings import OutputParams

KEYS = "space or enter: next token, c: go on without pausing, q: end"
_POLL = 0.05  # seconds after which an interrupt is noticed


class Pace:
    """Waits between one token and the next.

    A context manager: inside, with `pause`, the terminal hands over single keys; it is put back however
    the block ends, and while the process is suspended.

    Raises:
        UsageError: `pause`, and there is no terminal to read keys from.
    """

    def __init__(self, output: OutputParams | None = None) -> None:
        self._delay = output.delay if output else 0.0
        self._keys = _Keys() if output and output.pause else None
        self._pausing = self._keys is not None
        self.pauses = self._pausing  # whether a person should be told of the keys

    def __enter__(self) -> Pace:
        if self._keys:
            self._keys.open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._keys:
            self._keys.close()

    def wait(self, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Wait as asked; whether to go on, which an interrupt and the key q deny."""
        due = time.monotonic() + self._delay
        while not interrupted():
            left = due - time.monotonic()
            if left <= 0 and not self._pausing:
                return True
            seconds = _POLL if self._pausing else min(left, _POLL)
            key: bytes | None = b""
            if self._keys is None:
                time.sleep(seconds)
            elif (key := self._keys.read(seconds)) is None:  # the terminal is gone
                self._keys.close()
                self._keys = None
            if key == b"q":
                return False
            if key == b"c" or key is None:
                self._pausing = False
            elif self._pausing and key in (b" ", b"\r", b"\n"):
                return True
        return False


class _Keys:
    """Single keys from standard input, or from the controlling terminal where that is not one."""

    def __init__(self) -> None:
        try:
            import termios
        except ImportError:
            raise UsageError("--pause needs a Unix terminal", "--delay works everywhere") from None
        self._termios = termios
        try:
            at_terminal = sys.stdin is not None and sys.stdin.isatty()
            self._number = (
                os.dup(sys.stdin.fileno()) if at_terminal else os.open("/dev/tty", os.O_RDONLY)
            )
            self._before = termios.tcgetattr(self._number)
        except (OSError, ValueError, termios.error):
            raise UsageError(
                "--pause: there is no terminal to read keys from",
                "leave it out; --delay SECONDS needs none",
            ) from None
        self._handlers: dict[int, Any] = {}

    def open(self) -> None:
        """Single keys from now on, without echo; Ctrl-C and Ctrl-Z stay what they are. Keys that
        were typed while the model was loaded are read first, as pagers do."""
        with contextlib.suppress(ValueError):  # not the main thread
            for number, handler in (
                (signal.SIGTSTP, self._suspend),
                (signal.SIGCONT, lambda number, frame: self._raw()),
            ):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, handler)
        self._raw()

    def read(self, seconds: float) -> bytes | None:
        """A key; empty when none comes in time, None once the terminal is gone."""
        try:
            if not select.select([self._number], [], [], max(seconds, 0))[0]:
                return b""
            return os.read(self._number, 1) or None
        except OSError:
            return None

    def close(self) -> None:
        """Put the terminal back. Keys that nobody waited for are not left to the shell."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self._set(self._before, drop_keys=True)
        with contextlib.suppress(OSError):
            os.close(self._number)

    def _raw(self) -> None:
        termios = self._termios
        mode = [*self._before[:6], list(self._before[6])]
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        self._set(mode)

    def _set(self, mode: list[Any], *, drop_keys: bool = False) -> None:
        """Without waiting for a terminal that hangs; never from the background, where the system would
        stop the process for it."""
        with contextlib.suppress(OSError, self._termios.error):
            if os.tcgetpgrp(self._number) == os.getpgrp():
                self._termios.tcsetattr(self._number, self._termios.TCSANOW, mode)
                if drop_keys:
                    self._termios.tcflush(self._number, self._termios.TCIFLUSH)

    def _suspend(self, number: int, frame: Any) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and its cursor."""
        if os.environ.get("TERM", "dumb") != "dumb" and sys.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                if sys.stdout.isatty():
                    os.write(sys.stdout.fileno(), b"\r\x1b[J\x1b[?25h")
        self._set(self._before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._suspend)
        self._raw()
