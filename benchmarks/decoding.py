"""Decoding with the full trace against transformers' `generate`, and drawn against untraced.

Both sides run the same weights in this process, each as it loads them, with the same sampling and number
of tokens.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

from benchmarks.report import Row, Target, at_least, at_most, compared
from benchmarks.subjects import FILTERED_WORDS, FILTERS, PLAIN, Subject, traced, untraced
from decodecli.analysis.speed import transformers_generate
from decodecli.analysis.timing import Samples, Speed, alternate
from decodecli.library_logging import quiet_libraries
from decodecli.settings import SamplingParams

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

GENERATE = "generate, nothing kept"
SCORES = "generate, scores and logits kept"
STATIC = "generate, static cache"
OURS = "full trace, 10 candidates"
_LARGE = 100_000_000  # parameters from which drawing may cost least
_SCREEN = (40, 100)  # rows and columns of the pseudo-terminal
_DRAIN = """
import os
try:
    while os.read(0, 1 << 16):
        pass
except OSError:
    pass
"""


class Drawn(Protocol):
    """Decodes and draws as `decodecli generate` does on the terminal `stream`."""

    def __call__(
        self, lm: LanguageModel, prompt: Sequence[int], params: SamplingParams, stream: IO[str]
    ) -> None: ...


def decode_rows(subject: Subject, repeat: int) -> Iterator[Row]:
    """Tokens/s of ours against `generate`: with filters, and plain sampling."""
    filtered = {GENERATE: _generate(subject, FILTERS)}
    filtered[SCORES] = _generate(
        subject, FILTERS, output_scores=True, output_logits=True, return_dict_in_generate=True
    )
    filtered[STATIC] = _generate(subject, FILTERS, cache_implementation="static")
    yield from _against(subject, FILTERS, filtered, f"{OURS}; {FILTERED_WORDS}", repeat)
    plain = {GENERATE: _generate(subject, PLAIN)}
    yield from _against(subject, PLAIN, plain, f"{OURS}; T 1, no filter", repeat)
    if subject.on_gpu:
        yield from _gpu_rows(subject, repeat)


def _against(
    subject: Subject,
    params: SamplingParams,
    peers: dict[str, Callable[[int], None]],
    what: str,
    repeat: int,
) -> Iterator[Row]:
    ours = traced(subject, params)
    ours(subject.speed.long)  # not inside `quiet_libraries`: an error of ours is one
    with quiet_libraries(allowed=False):
        broken = {name: problem for name, peer in peers.items() if (problem := _try(subject, peer))}
        sides: dict[str, Callable[[int], None]] = {OURS: ours}
        sides |= {name: peer for name, peer in peers.items() if name not in broken}
        found = alternate({name: _rate(subject, run) for name, run in sides.items()}, repeat, False)
    targets = {GENERATE: decode_target(subject, params)}
    note = f"{subject.speed.long} tokens less {subject.speed.short}, so without the prompt; {subject.how}"
    yield from compared("decode", subject.label, what, found, "tokens/s", targets, note)
    for name, problem in broken.items():
        yield Row("decode", subject.label, what, name, skipped=f"it fails: {problem}")


def decode_target(subject: Subject, params: SamplingParams) -> Target:
    """What ours should reach of `generate` on this model."""
    if subject.on_gpu:
        large_nf4 = subject.name == "llama-8b" and subject.precision.startswith("nf4")
        return at_least(5.0 if large_nf4 else 1.0)
    if subject.name == "builtin":
        return at_least(1.2)
    return at_least(1.0 if params == PLAIN else 1.1)


def _rate(subject: Subject, run: Callable[[int], None]) -> Callable[[], float]:
    return lambda: subject.speed.tokens_per_second(run)


def _try(subject: Subject, peer: Callable[[int], None]) -> str:
    """Run a peer once, at full length; its complaint, or ""."""
    try:
        peer(subject.speed.long)
    except Exception as error:  # whatever a library cannot do on this model
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:120] if lines else ''}"
    return ""


def _generate(subject: Subject, params: SamplingParams, **more: Any) -> Callable[[int], None]:
    """transformers' `generate` of n tokens, every value passed."""
    return partial(transformers_generate, subject.peer, subject.prompt, params, **more)


def overhead(speed: Speed, run: Callable[[int], object]) -> float:
    """Seconds before decoding is under way: a short run less what its tokens take."""
    rate = speed.tokens_per_second(run)
    return max(speed.watch.seconds(lambda: run(speed.short)) - speed.short / rate, 0.0)


def _gpu_rows(subject: Subject, repeat: int) -> Iterator[Row]:
    """What a CUDA device is asked besides speed: quick to get ready, and hardly ever waited for."""
    run = traced(subject, FILTERS)
    ready = alternate({"ready": lambda: overhead(subject.speed, run)}, repeat, False)["ready"]
    what = "before the first token: prompt, and graph capture where there is one"
    yield Row("decode", subject.label, what, unit="s", ours=ready, target=at_most(2))
    waits = Samples((blocking_waits(subject, run),))
    what = "synchronisations that block the host (PyTorch's own count)"
    yield Row("decode", subject.label, what, unit="a step", ours=waits, target=at_most(1))


def blocking_waits(subject: Subject, run: Callable[[int], None]) -> float:
    """How often a step makes the host wait for the CUDA device, as PyTorch's debug mode counts."""
    import warnings

    import torch

    counts = []
    for tokens in (subject.speed.short, subject.speed.long):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run(tokens)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchronizing" in str(warning.message) for warning in heard))
    return (counts[1] - counts[0]) / (subject.speed.long - subject.speed.short)


def trace_rows(subject: Subject, repeat: int, drawn: Drawn) -> Iterator[Row]:
    """Tokens/s with a table a step drawn at a pseudo-terminal against no candidates and no view."""
    from dataclasses import replace

    what, peer = "trace, and a table a step at a terminal", "ours without trace"
    try:
        import pty  # noqa: F401  there is none on Windows
    except ImportError:
        yield Row("trace", subject.label, what, peer, skipped="no pseudo-terminals on this system")
        return
    with pseudo_terminal() as stream:

        def with_tables(count: int) -> None:
            drawn(subject.lm, subject.prompt, replace(FILTERS, max_new_tokens=count), stream)

        without = untraced(subject, FILTERS)
        sides = {what: _rate(subject, with_tables), peer: _rate(subject, without)}
        found = alternate(sides, repeat)
    note = f"drawn as generate draws; another process reads the terminal; {subject.how}"
    targets = {peer: trace_target(subject)}
    yield from compared("trace", subject.label, what, found, "tokens/s", targets, note)


def trace_target(subject: Subject) -> Target:
    """What of the untraced speed should remain with trace and tables."""
    if subject.on_gpu:
        return at_least(0.98)
    return at_least(0.95 if subject.lm.info.parameters >= _LARGE else 0.85)


@contextmanager
def pseudo_terminal() -> Iterator[IO[str]]:
    """A text stream to a terminal of 100 columns and 40 rows that another process reads away."""
    import fcntl
    import termios

    rows, columns = _SCREEN
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    reader = subprocess.Popen([sys.executable, "-S", "-c", _DRAIN], stdin=master)
    os.close(master)
    told = {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(rows)}
    before = {name: os.environ.get(name) for name in (*told, "NO_COLOR")}
    os.environ.update(told)
    os.environ.pop("NO_COLOR", None)
    try:
        with open(slave, "w", encoding="utf-8", newline="") as stream:
            yield stream
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        try:
            reader.wait(timeout=10)
        except subprocess.TimeoutExpired:
            reader.kill()
            reader.wait()
