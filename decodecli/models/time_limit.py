"""Calls into what a model's folder brings along, a tokenizer's regular expressions or a chat template,
which may run for ever, or panic in Rust."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from decodecli.errors import LoadError
from decodecli.models.model_files import blamed_on

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

T = TypeVar("T")
_SECONDS = 10.0
_CHARACTERS = 50_000  # that a slow tokenizer takes in a second, and then some


def tokenized(name: str, text: str, call: Callable[[], T], folder: Path | None = None) -> T:
    """What `call`, which tokenizes `text` with the tokenizer of the model `name`, returns.

    `folder` is where its files are, so that an error can say what is wrong in them.

    Raises:
        LoadError: it failed, or took longer than any sound tokenizer would.
    """
    with blamed_on(f"the tokenizer of {name}", folder=folder), _quiet_panics():
        return within(_SECONDS + len(text) / _CHARACTERS, call, f"the tokenizer of {name}")


def token_ids(lm: LanguageModel, text: str, special: bool) -> list[int]:
    """The ids of a text as the model's tokenizer gives them, with its special tokens or without.

    Raises:
        LoadError: as for `tokenized`.
    """
    folder = lm.checkpoint.folder if lm.checkpoint else None
    return tokenized(
        lm.info.name,
        text,
        lambda: lm.codec(text, add_special_tokens=special)["input_ids"],
        folder,
    )


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """What `call` returns or raises, if it does so in time. It runs in a thread of its own, which
    Ctrl-C does not wait for.

    Raises:
        LoadError: `what` did not come to an end in so many seconds.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    worker = threading.Thread(target=run, name="time-limit", daemon=True)
    worker.start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():  # it is the call's own
            raise
        raise LoadError(
            f"{what} did not come to an end in {seconds:.0f} seconds",
            "copy the original model's files into the folder",
        ) from None
    finally:
        if not future.done() and worker.ident is not None:
            # This ends Python code; Rust code ends with the process.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(worker.ident), ctypes.py_object(SystemExit)
            )


class _Stderr:
    """The process's stderr, closed while anyone needs that."""

    lock, users, saved = threading.Lock(), 0, -1


@contextlib.contextmanager
def _quiet_panics() -> Iterator[None]:
    """Keep what Rust prints when it panics, a backtrace with it, off stderr; the exception says it."""
    with _Stderr.lock:
        _Stderr.users += 1
        if _Stderr.users == 1:
            _Stderr.saved = -1
            with contextlib.suppress(OSError):  # closed already
                _Stderr.saved = os.dup(2)
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 2)
                os.close(null)
    try:
        yield
    finally:
        with _Stderr.lock:
            _Stderr.users -= 1
            if _Stderr.users == 0 and _Stderr.saved >= 0:
                os.dup2(_Stderr.saved, 2)
                os.close(_Stderr.saved)
