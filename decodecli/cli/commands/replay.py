"""`decodecli replay`: a recorded run shown again."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from decodecli.cli import options as o

if TYPE_CHECKING:
    from decodecli.cli.pace import Pace
    from decodecli.cli.sinks import Sinks
    from decodecli.records.run import RunHeader, RunSummary, Step
    from decodecli.records.trace import TraceReader

FORMATS = ("text", "jsonl", "csv")
_LOOKAHEAD = 50  # records in which to look for how the tokenizer spells tokens

TraceArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        show_default=False,
        help="What generate --trace or --format jsonl wrote; - reads standard input.",
    ),
]
Steps = Annotated[
    str | None,
    o.option("--steps", panel=o.OUTPUT, default="all", metavar="A..B",
    help="Only these steps, counted from 1: 20..25, 20.., ..5, or 3,7."),
]  # fmt: skip
Rows = Annotated[
    int | None,
    o.option("--candidates", "-c", panel=o.OUTPUT, default="all that were recorded", metavar="N",
    help="Rows of a step's table."),
]  # fmt: skip


def replay(
    trace: TraceArgument,
    steps: Steps = None,
    tables: o.Tables = None,
    candidates: Rows = None,
    delay: o.Delay = None,
    pause: o.Pause = None,
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    quiet: o.QuietText = None,
    color: o.Color = None,
    debug: o.Debug = None,
    config: o.Config = None,
) -> None:
    """Show a recorded run again, as generate showed it. No model is loaded.

    On a terminal: a table a step. Into a pipe or file: the text alone. As CSV: a row a step.

    [bold]Examples[/bold]

      decodecli generate "The capital of Japan is" --trace run.jsonl

      decodecli replay run.jsonl --steps 20..25

      decodecli replay run.jsonl --tables line --delay 0.3

      decodecli replay run.jsonl --pause

      decodecli replay - --format csv < run.jsonl > run.csv
    """
    from decodecli.cli.pace import KEYS, Pace
    from decodecli.cli.sinks import Sinks
    from decodecli.cli.streams import Notices
    from decodecli.config import resolve
    from decodecli.records.trace import TraceReader
    from decodecli.settings import check_choice

    effective = resolve(
        {
            **{"tables": tables, "candidates": candidates, "delay": delay, "pause": pause},
            **{"format": format, "quiet": quiet, "config": config},
        }
    )
    output = effective.output()
    check_choice("format", output.format, FORMATS)
    chosen = step_choice(steps)
    rows = None if effective.sources["candidates"] == "default" else output.candidates
    notices = Notices(output.quiet)
    notices.tell_all(effective.notices)
    with _opened(trace) as (file, name), Pace(output) as pace:
        if pace.pauses:
            notices.tell(KEYS)
        sinks = Sinks(output, None, _byte_level(file, name), chosen=chosen)
        reader = TraceReader(file, name)
        try:
            showing = _Showing(sinks, pace, chosen, rows)
            showing.show(reader)
        finally:
            sinks.close()
        if reader.truncated is not None:
            notices.tell(f"{name} ends in the middle of line {reader.truncated}; it is left out")
    showing.check_shown(steps)


class _Showing:
    """The runs of a trace on their way to the sinks."""

    def __init__(
        self, sinks: Sinks, pace: Pace, chosen: Callable[[int], bool], rows: int | None
    ) -> None:
        self._sinks, self._pace, self._chosen, self._rows = sinks, pace, chosen, rows
        self._header: RunHeader | None = None
        self._sample = 0
        self._open = False  # whether a run has begun and not ended
        self._ended = False  # whether a person ended it
        self._steps, self._logprobs = 0, 0.0  # of the run
        self._shown, self._longest = 0, 0  # of all runs

    def show(self, reader: TraceReader) -> None:
        """All of them, whatever ends it. The runs without a summary get one of what there is of them."""
        from decodecli.records.run import RunHeader, Step

        why = "interrupted"
        try:
            for record in reader:
                if isinstance(record, RunHeader):
                    self._end("the record ends here")
                    self._start(record)
                elif isinstance(record, Step):
                    if not self._step(record):
                        self._ended, why = True, "ended by q"
                        return
                else:
                    self._open = False
                    self._sinks.finish(record)
            why = "the record ends here"
        except BrokenPipeError:
            self._open = False
            raise
        finally:
            self._end(why)

    def check_shown(self, steps: str | None) -> None:
        """Refuse a choice of steps that no run has.

        Raises:
            UsageError: nothing was shown for that.
        """
        from decodecli.errors import UsageError

        if steps is not None and not self._shown and not self._ended:
            longest = f"the longest run has {self._longest:,} steps"
            raise UsageError(f"--steps {steps}: there is no such step", longest)

    def _start(self, header: RunHeader) -> None:
        samples = header.params.get("num_samples", 1)
        before = self._header
        follows = before is not None and (before.seed + 1, before.prompt_ids, samples) == (
            header.seed, header.prompt_ids, before.params.get("num_samples", 1),
        )  # fmt: skip
        self._sample = self._sample + 1 if follows and self._sample < samples else 1
        self._header, self._open = header, True
        self._steps, self._logprobs = 0, 0.0
        self._sinks.start(header, (self._sample, samples))

    def _step(self, step: Step) -> bool:
        """Show a step when it is its turn; False when a person ends it."""
        if self._chosen(step.index):
            if self._shown and not self._sinks.folded and not self._pace.wait():
                return False
            self._shown += 1
        self._steps += 1
        self._longest = max(self._longest, step.index + 1)
        self._logprobs += step.logprob
        if self._rows is not None:
            kept = (
                row
                for number, row in enumerate(step.candidates)
                if number < self._rows or row.token_id == step.token_id
            )
            step = replace(step, candidates=tuple(kept))
        self._sinks.step(step)
        return True

    def _end(self, why: str) -> None:
        if self._open and self._header is not None:
            self._open = False
            self._sinks.finish(self._summary(why, self._header), recorded=False)

    def _summary(self, why: str, header: RunHeader) -> RunSummary:
        """Of the steps so far. What views do not show is left out: the text, which they have."""
        from decodecli.records.run import RunSummary, perplexity

        mean = self._logprobs / self._steps if self._steps else None
        return RunSummary(
            text="",
            token_ids=(),
            finish_reason=why,
            prompt_tokens=len(header.prompt_ids),
            new_tokens=self._steps,
            mean_logprob=mean,
            perplexity=perplexity(mean),
            seconds={},
            tokens_per_second=None,
        )


def step_choice(text: str | None) -> Callable[[int], bool]:
    """Which indices, from 0, `--steps` chooses: `20..25,30` counts from 1 and holds both ends.

    Raises:
        UsageError: it is not written like that.
    """
    from decodecli.errors import UsageError

    if text is None:
        return lambda index: True
    ranges = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        ends = [first or "1", last or str(sys.maxsize)] if dots else [first, first]
        if part.strip() == ".." or not all(end.isascii() and end.isdecimal() for end in ends):
            raise UsageError(f"--steps cannot be read: {text!r}", "write it like 20..25 or 3,7")
        low, high = (int(end[:20]) for end in ends)
        if low < 1 or high < low:
            raise UsageError(
                f"--steps {text}: there is no step in {part.strip()}", "steps count from 1"
            )
        ranges.append(range(low - 1, high))
    return lambda index: any(index in steps for steps in ranges)


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The trace as bytes, and what to call it.

    Raises:
        UsageError: it is not there, or is no file.
    """
    from decodecli.errors import UsageError

    if name == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed", "give the name of a trace")
        yield sys.stdin.buffer, "standard input"
        return
    path = os.path.expanduser(name)
    hint = "give what generate --trace FILE or --format jsonl wrote"
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise UsageError(f"{name} is a folder", hint)
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise UsageError(f"{name}: there is no such file", hint) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{name} cannot be read: {getattr(error, 'strerror', error)}", hint
        ) from None
    with file:
        yield file, name


def _byte_level(file: BinaryIO, name: str) -> bool | None:
    """Whether tokens are spelt in GPT-2's byte alphabet, by the first steps; None for a pipe, which can't
    be read twice."""
    from decodecli.errors import DecodecliError
    from decodecli.records.run import Step
    from decodecli.records.trace import TraceReader
    from decodecli.render.escaping import guess_byte_level, visible

    if not file.seekable():
        return None
    start = file.tell()
    steps = []
    try:
        for record in islice(TraceReader(file, name), _LOOKAHEAD):
            steps += [record] if isinstance(record, Step) else []
    except DecodecliError:
        pass  # told when its turn comes
    file.seek(start)
    if guess_byte_level(row.token for step in steps for row in step.candidates):
        return True
    return any(
        visible(step.token, True) == visible(step.text) != visible(step.token)
        for step in steps
        if not step.token.isascii()
    )
