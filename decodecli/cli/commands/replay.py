"""`decodecli replay`: a recorded run shown again."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import count, islice
from typing import TYPE_CHECKING, Any, BinaryIO

from decodecli.cli import options as o
from decodecli.cli.command import INPUT, OUTPUT, Argument, Option, Request, command
from decodecli.cli.pace import KEYS, Pace
from decodecli.cli.streams import Notices
from decodecli.errors import DecodecliError, UsageError
from decodecli.ranges import check_choice
from decodecli.render.html import check_page
from decodecli.settings import SamplingParams

if TYPE_CHECKING:
    from decodecli.analysis.other_settings import OtherSettings
    from decodecli.analysis.run_curves import RunCurves
    from decodecli.cli.sinks import Sinks
    from decodecli.records.run import ModelInfo, RunHeader
    from decodecli.records.trace import TraceReader

FORMATS = ("text", "jsonl", "csv")
_LOOKAHEAD = 50  # records in which to look for how the tokenizer spells tokens

TRACE = Argument(
    "trace",
    "TRACE",
    "What generate --trace or --format jsonl wrote; - reads standard input.",
    required=True,
)
STEPS = Option(
    "steps", str, OUTPUT, "Only these steps, counted from 1: 20..25, 20.., ..5, or 3,7.", "A..B",
    "all"
)  # fmt: skip
CANDIDATES = o.CANDIDATES.but(default="all that were recorded")
LOGITS = Option("logits", str, INPUT, "What generate --save-logits wrote beside it.", "FILE.npy")
VERIFY = Option(
    "verify", bool, OUTPUT, "Run the model again, and say whether tokens and numbers still hold."
)
HTML = o.HTML.but(
    help="A page with every step's table, and sliders for temperature and filters; with --logits."
)
# Of the stages of a run, those that need no tokenizer.
WITHOUT_A_MODEL = (
    "xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta"
)  # fmt: skip
SETTINGS: tuple[Option, ...] = (
    *(o.TEMPERATURE, o.GREEDY, *o.FILTERS, *o.PENALTIES),
    *(option for option in o.RUN_STAGES if option.name in WITHOUT_A_MODEL),
    o.ORDER,
    o.SEED.but(help="Draw with the noise of another seed.", default="the recorded one"),
)
MODEL_OPTIONS = (
    o.MODEL_NAME.but(help="For --verify, a copy of the model.", default="the recorded one"),
    o.DEVICE, o.ALLOW_PICKLE, o.TRUST_REMOTE_CODE,
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class ReplayRequest(Request):
    """Everything that `replay` is told, checked."""

    trace: str = "-"
    steps: str | None = None
    logits: str | None = None
    verify: bool = False
    html: str | None = None

    def __post_init__(self) -> None:
        check_choice("format", self.output.format, FORMATS)
        if self.verify and (self.changes or self.logits or self.steps or self.html):
            raise UsageError(
                "--verify makes the run as it was recorded",
                "leave --logits, --steps, --html and the settings out",
            )
        if self.html is not None:
            check_page(self.html)
            if self.steps:
                raise UsageError("--html is a page of the whole run", "leave --steps out")
            if self.logits is None:
                raise UsageError(
                    "--html needs all logits, and a trace has those of some candidates",
                    "generate with --save-logits FILE.npy, and give that file with --logits",
                )
        if self.logits and not (self.changes or self.html):
            raise UsageError(
                "--logits is for other settings and for --html",
                "add some, for example --temperature 0.7",
            )

    @cached_property
    def changes(self) -> dict[str, Any]:
        """The decoding settings that were typed, or come from a preset that was."""
        sources, values = self.effective.sources, self.effective.values
        layers = ("flag", "preset") if sources.get("preset") == "flag" else ("flag",)
        _ = self.sampling  # checked
        return {f.name: values[f.name] for f in fields(SamplingParams) if sources[f.name] in layers}


@command(
    *(TRACE, STEPS, LOGITS),
    *SETTINGS,
    HTML,
    VERIFY,
    *MODEL_OPTIONS,
    *(o.TABLES, CANDIDATES, o.DELAY, o.PAUSE),
    *(o.format_of(*FORMATS), o.QUIET_TEXT, o.COLOR, o.DEBUG, o.PRESET, o.CONFIG_FILE),
    request=ReplayRequest,
)
def replay(request: ReplayRequest) -> None:
    """Show a recorded run again, or what other settings would have made of it.

    On a terminal: a table a step. Into a pipe or file: the text alone. As CSV: a row a step. No model is
    loaded, but for --verify.

    With other settings, each step shows what they would have drawn: exactly with the logits that were
    saved, else as far as the recorded candidates tell.

    [bold]Examples[/bold]

      decodecli generate "The capital of Japan is" --trace run.jsonl

      decodecli replay run.jsonl --steps 20..25

      decodecli replay run.jsonl --tables line --delay 0.3

      decodecli replay - --format csv < run.jsonl > run.csv

      decodecli replay run.jsonl -t 0.7 --top-p 0.9 --logits run.npy --html run.html

      decodecli replay run.jsonl --verify
    """
    from decodecli.cli.sinks import Page, Sinks
    from decodecli.records.trace import TraceReader

    effective, output, steps = request.effective, request.output, request.steps
    chosen = step_ranges(steps)
    rows = None if effective.sources["candidates"] == "default" else output.candidates
    notices = Notices(output.quiet)
    notices.tell_all(effective.notices)
    with _opened(request.trace) as (file, name), Pace(output) as pace:
        reader = TraceReader(file, name)
        if request.verify:
            from decodecli.cli.verify import verify

            verify(reader, effective, output)
            return
        if pace.pauses:
            notices.tell(KEYS)
        curves = page = None
        if request.html is not None:
            from decodecli.analysis.run_curves import RunCurves

            curves = RunCurves()
            page = Page(request.html, output.quiet, curves.steps)
        sinks = Sinks(output, None, _byte_level(file, name), page=page)
        others = _other_settings(request, curves) if request.changes or curves else None
        try:
            steps_played, longest = _play(
                reader, sinks, pace, chosen, rows, output.format != "jsonl", others
            )
        finally:
            sinks.close()
        if request.changes and not request.logits:
            notices.tell(
                "what these settings would have drawn is shown as far as the recorded candidates tell; "
                "with generate --save-logits and --logits it is exact"
            )
        if reader.truncated is not None:
            notices.tell(f"{name} ends in the middle of line {reader.truncated}; it is left out")
    if steps is not None and not steps_played:
        raise UsageError(
            f"--steps {steps}: there is no such step", f"the longest run has {longest:,} steps"
        )


def _play(
    reader: TraceReader,
    sinks: Sinks,
    pace: Pace,
    chosen: list[range] | None,
    rows: int | None,
    skips: bool,
    others: Callable[[RunHeader], OtherSettings] | None,
) -> tuple[int, int]:
    """Play all runs of a trace. One without a summary gets that of the steps there are, whatever ends it.

    chosen: which steps are shown, by index; None for all. Of some steps there is no summary.
    rows: of a step's candidates, None for all. skips: whether a run is left after its last chosen step.
    others: makes of a run's header what shows its steps under other settings.

    Returns how many steps were played, and how many the longest run has.
    """
    from decodecli.records.run import RunHeader, RunSummary, Step, perplexity

    other: OtherSettings | None = None
    header: RunHeader | None = None  # of the run that has begun and not ended
    before: RunHeader | None = None
    started = False  # whether anything was shown of it
    sample = samples = steps = played = longest = 0
    logprobs = 0.0
    last = max((part.stop for part in chosen), default=1) - 1 if chosen else sys.maxsize

    def end(why: str) -> None:
        nonlocal header
        if header is None or not started:
            return
        mean = logprobs / steps if steps else None
        # What views do not show is left out: the text, which they have.
        summary = RunSummary(
            text="",
            token_ids=(),
            finish_reason=why,
            prompt_tokens=len(header.prompt_ids),
            new_tokens=steps,
            mean_logprob=mean,
            perplexity=perplexity(mean),
            seconds={},
            tokens_per_second=None,
        )
        header = None
        sinks.finish(summary, recorded=False, complete=chosen is None)

    why = "interrupted"
    try:
        for record in reader:
            if isinstance(record, RunHeader):
                end("the record ends here")
                if others is not None:
                    other = others(record)
                    record = other.header
                samples = record.params.get("num_samples", 1)
                follows = before is not None and (before.seed + 1, before.prompt_ids, samples) == (
                    record.seed, record.prompt_ids, before.params.get("num_samples", 1),
                )  # fmt: skip
                sample = sample + 1 if follows and sample < samples else 1
                header = before = record
                steps, logprobs, started = 0, 0.0, chosen is None
                if started:
                    sinks.start(record, (sample, samples))
            elif isinstance(record, Step):
                if other is not None:
                    record = other(record)
                steps, longest = steps + 1, max(longest, record.index + 1)
                logprobs += record.logprob
                if skips and record.index >= last:
                    reader.skip_run()
                if chosen is not None and not any(record.index in part for part in chosen):
                    continue
                if not started and header is not None:
                    sinks.start(header, (sample, samples))
                    started = True
                if played and not sinks.folded and not pace.wait():
                    why = "ended by q"
                    break
                played += 1
                if rows is not None:
                    kept = (
                        row
                        for number, row in enumerate(record.candidates)
                        if number < rows or row.token_id == record.token_id
                    )
                    record = replace(record, candidates=tuple(kept))
                sinks.step(record)
            else:
                header = None
                if started:
                    sinks.finish(record, complete=chosen is None)
        else:
            why = "the record ends here"
    except BrokenPipeError:
        header = None
        raise
    finally:
        end(why)
    return played, longest


def _other_settings(
    request: ReplayRequest, curves: RunCurves | None
) -> Callable[[RunHeader], OtherSettings]:
    """What makes `OtherSettings` of each run of a trace, in their order, and fills `curves`."""
    from decodecli.analysis.other_settings import OtherSettings
    from decodecli.records.trace import sampling_params
    from decodecli.render.run_files import read_logits

    words = ",".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in request.changes.items()
    )
    numbers = count(1)

    def made(header: RunHeader) -> OtherSettings:
        number = next(numbers)
        logits = read_logits(request.logits, number) if request.logits else None
        params = replace(sampling_params(header), **{"seed": None, **request.changes})
        rows, piece = request.output.candidates, _pieces(header.model)
        if curves is not None:
            curves.piece = piece
        return OtherSettings(header, words, params, logits, piece, rows, curves)

    return made


def _pieces(model: ModelInfo) -> Callable[[int], str]:
    """Spells tokens by the model's tokenizer where that is on this machine, else by their ids."""
    from decodecli.models.tokenizer import find_tokenizer

    try:
        tokenizer = find_tokenizer(model.name, model.revision, download=False)
    except DecodecliError:
        return lambda token_id: f"<{token_id}>"
    return lambda token_id: tokenizer.piece(token_id) or f"<{token_id}>"


def step_ranges(text: str | None) -> list[range] | None:
    """The indices, from 0, that `--steps` chooses: `20..25,30` counts from 1 and holds both ends; None
    for all.

    Raises:
        UsageError: it is not written like that.
    """
    if text is None:
        return None
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
    return ranges


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """The trace as bytes, and what to call it.

    Raises:
        UsageError: it is not there, or is no file.
    """
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
