"""`decodecli generate`: stream text, and show how every token was picked."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import Request, command
from decodecli.cli.loading_line import load_model, loading_line
from decodecli.cli.output import is_byte_level
from decodecli.cli.pace import KEYS, Pace
from decodecli.config import what_if
from decodecli.errors import UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.ranges import SEED_LIMIT, check_choice, flag_name
from decodecli.render.html import check_page
from decodecli.settings import BeamParams, check_chat_and_bos
from decodecli.signals import postponed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodecli.analysis.side_by_side import StageColumns
    from decodecli.cli.sinks import Sinks
    from decodecli.decoding.observers import Observer
    from decodecli.decoding.prompt import PrefilledPrompt
    from decodecli.records.run import Step
    from decodecli.render.run_files import LogitsFile
    from decodecli.render.terminal.step_table import Style
    from decodecli.settings import SamplingParams

FORMATS = ("text", "jsonl")


@dataclass(frozen=True, eq=False, repr=False)
class GenerateRequest(Request):
    """Everything that `generate` is told, checked.

    Raises:
        UsageError: a value out of range, or values that contradict each other.
    """

    prompt: str | None = None
    file: str | None = None
    plot: str | None = None
    html: str | None = None
    stages: str = "last"
    what_if: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    explain: bool = False

    def __post_init__(self) -> None:
        check_choice("format", self.output.format, FORMATS)
        check_chat_and_bos(self.output.chat_params, self.output.bos)
        check_choice("stages", self.stages, ("last", "all"))
        in_tables = self.output.tables in (None, "full") and self.output.format == "text"
        if self.stages == "all" and not in_tables:
            hint = "leave --tables and --format out"
            raise UsageError("--stages all is shown in full tables", hint)
        _ = self.seed, self.load, self.alternatives
        if self.html is not None:
            check_page(self.html)
        if self.beams.num_beams > 1:
            from decodecli.cli.beams import check

            check(self)
        elif self.plot is not None:
            from decodecli.render.plots.text import check_text_plot

            check_text_plot(self.plot)
        self._check_files()

    @cached_property
    def seed(self) -> int:
        """Of the first sample: the one given, or one that is drawn, if there is room for those of all."""
        import secrets

        seed, samples = self.sampling.seed, self.output.num_samples
        if samples > SEED_LIMIT:
            problem = f"--num-samples must be at most {SEED_LIMIT}, got {samples}"
            raise UsageError(problem, "there are no more seeds")
        if seed is None:
            return secrets.randbelow(SEED_LIMIT - samples + 1)
        if seed + samples > SEED_LIMIT:
            problem = f"--seed {seed} with --num-samples {samples} runs past 4294967295"
            raise UsageError(problem, "choose a smaller seed")
        return seed

    @cached_property
    def beams(self) -> BeamParams:
        """Whether and how beams are searched.

        Raises:
            UsageError: what belongs to beams was given without them.
        """
        beams = self.effective.beams()
        if beams.num_beams == 1 and beams != BeamParams():
            names = [f.name for f in fields(BeamParams) if getattr(beams, f.name) != f.default]
            raise UsageError(f"{flag_name(names[0])} goes with --num-beams", "add --num-beams 4")
        return beams

    @cached_property
    def alternatives(self) -> dict[str, SamplingParams]:
        """What `--what-if` asks for, by its words."""
        return dict(what_if(self.sampling, words) for words in self.what_if)

    def _check_files(self) -> None:
        """Refuse one file for the trace and the picture, or for the trace and the logits of a sample."""
        output, clash = self.output, ""
        if not output.trace:
            return
        trace = _resolved(output.trace)
        if self.plot and trace == _resolved(self.plot):
            clash = f"--plot {self.plot}"
        if output.save_logits:
            logits = _resolved(output.save_logits)
            number = re.fullmatch(re.escape(logits.stem) + r"-([1-9]\d*)\.npy", trace.name)
            of_a_sample = number is not None and int(number[1]) <= output.num_samples > 1
            if trace == logits or (of_a_sample and trace.parent == logits.parent):
                clash = f"--save-logits {output.save_logits}"
        if clash:
            problem = f"{clash} and --trace {output.trace} would be one file"
            raise UsageError(problem, "give them two names")

    def recorded(self) -> dict[str, Any]:
        """What the trace's header says beside the decoding settings."""
        output, load = self.output, self.load
        recorded: dict[str, Any] = {"bos": output.bos, "num_samples": output.num_samples}
        recorded |= output.chat_params.as_dict() if output.chat_params else {}
        trusted = ("allow_pickle", "trust_remote_code")
        recorded |= {name: True for name in trusted if getattr(load, name)}
        return recorded | ({} if load.loader == "auto" else {"loader": load.loader})


def _resolved(path: str) -> Path:
    return Path(os.path.expanduser(path)).resolve()


@command(
    o.PROMPT,
    *(o.TEMPERATURE, o.GREEDY, *o.FILTERS, *o.PENALTIES, *o.RUN_STAGES, *o.TEXTS, o.ORDER),
    *(o.MAX_NEW_TOKENS, o.STOP, o.SEED, *o.BEAMS),
    *(o.NUM_SAMPLES, o.BOS, *o.CHAT, o.FILE, *o.LOADING),
    *(o.TABLES, o.STAGES, o.CANDIDATES, o.format_of(*FORMATS), o.DELAY, o.PAUSE, o.TRACE),
    *(o.EXPLAIN, o.WATCH, o.WHAT_IF, o.SAVE_LOGITS, o.TEXT_PLOT, o.HTML),
    *(o.QUIET_TEXT, o.VERBOSE, o.COLOR, o.DEBUG, o.PRESET, o.CONFIG_FILE),
    request=GenerateRequest,
)
def generate(request: GenerateRequest) -> None:
    """Generate text, and see at every step which tokens were in play and why one was picked.

    On a terminal: a table a step. Into a pipe or file: the text alone.

    [bold]Examples[/bold]

      decodecli generate --temperature 1.4 --top-p 0.9

      decodecli generate "The capital of Japan is" --greedy --tables line

      decodecli generate -m mistralai/Mistral-7B-v0.1 -q nf4 "Long, long ago," -t 0.7

      decodecli generate -m ./chat-model "Who are you?" --chat --system "Answer in one word."

      decodecli generate "Once upon a time" --num-samples 5 --seed 0 --quiet

      decodecli generate "Once upon a time" -t 1.3 --seed 3 --plot text.png

      decodecli generate "Once upon a time" -t 1.3 --seed 3 --html page.html

      decodecli generate "The capital of Japan is" --num-beams 4 --num-return-sequences 3

      decodecli generate "Once upon a time" -t 1.4 --top-p 0.9 --explain --tables line

      decodecli generate "The capital of Japan is" --what-if temperature=0.2 --what-if top_p=0.5

      decodecli generate "The capital of Japan is" --watch " Tokyo" --watch " Kyoto" --tables line

      decodecli generate < prompt.txt --format jsonl | jq -j 'select(.type == "step").text'
    """
    notices = streams.Notices(request.output.quiet)
    text = streams.read_prompt(
        request.prompt, request.file, notices.tell, "no prompt was given; continuing"
    )
    notices.tell_all(request.effective.notices)
    for stop in request.sampling.stop:
        if "\\n" in stop or "\\t" in stop:
            notices.tell(
                f"--stop {stop} is a backslash and a letter; for a line end, type --stop $'\\n'"
            )

    from decodecli.cli.sinks import Page, Sinks
    from decodecli.render.run_files import LogitsFile, TraceFile

    output, pace = request.output, Pace(request.output)
    trace = TraceFile(output.trace) if output.trace else None
    logits = None
    with ExitStack() as stack:
        if trace is not None:
            stack.callback(trace.close)
        if output.save_logits is not None:
            logits = LogitsFile(output.save_logits, output.num_samples)
            stack.callback(logits.close)
        stack.enter_context(quiet_libraries(output.verbose))
        prefix = _load_and_prefill(request, text, notices)
        _note_watched(prefix, request.watch, notices)
        if pace.pauses:
            notices.tell(KEYS)
        if request.beams.num_beams > 1:
            from decodecli.cli.beams import search

            with pace:
                search(prefix, request, trace, notices, pace)
            return
        observers: list[Observer] = []
        below = page = None
        if request.stages == "all":
            from decodecli.analysis.side_by_side import StageColumns

            stages = StageColumns(prefix.lm.piece, output.candidates)
            observers, below = [stages], partial(_stage_lines, stages)
            output = replace(output, tables="full")
        if request.html is not None:
            from decodecli.analysis.run_curves import RunCurves

            curves = RunCurves(prefix.lm.piece)
            observers, page = [*observers, curves], Page(request.html, output.quiet, curves.steps)
        sinks = Sinks(output, trace, is_byte_level(prefix.lm), request.plot, below, page)
        stack.callback(sinks.close)
        asked = {
            "--explain": request.explain,
            "--watch": request.watch,
            "--what-if": request.what_if,
        }
        unseen = " and ".join(name for name, value in asked.items() if value)
        if unseen and not sinks.shows_steps:
            notices.tell(
                f"{unseen} is shown in tables and traces: add --tables line, or --trace FILE"
            )
        with pace:
            run_samples(prefix, request, sinks, notices, logits, pace, observers)
    for written in (trace, logits):
        if written is not None and written.problem is not None:
            raise written.problem


def _load_and_prefill(
    request: GenerateRequest, text: str, notices: streams.Notices
) -> PrefilledPrompt:
    output = request.output
    with loading_line(request.load.model, output, libraries=True) as progress:
        lm = load_model(request.load, output, progress)
        from decodecli.decoding.prompt import prefill

        prefix = prefill(lm, text, output.bos, output.chat_params)
    notices.tell_all(lm.notices)
    if output.chat_params is None and getattr(lm.codec, "chat_template", None):
        notices.tell(
            f"{lm.info.name} is tuned for chat and got a plain prompt; it may answer oddly "
            "without its template (--chat)"
        )
    return prefix


def _note_watched(
    prefix: PrefilledPrompt, watch: tuple[str, ...], notices: streams.Notices
) -> None:
    """Say that a word is another token with a space before it, where that is likely meant."""
    from decodecli.decoding.prompt import token_chain

    for text in watch:
        tokens, spaced = (token_chain(prefix.lm, t, "--watch") for t in (text, f" {text}"))
        if len(tokens) > 1 == len(spaced):
            notices.tell(
                f'--watch {text} is {len(tokens)} tokens; with its space, --watch " {text}", it is one'
            )


def _stage_lines(stages: StageColumns, step: Step, style: Style) -> list[str]:
    """What a step's stages leave, below its table."""
    from decodecli.render.terminal.stage_tables import column_lines

    narrower = replace(style, width=style.width - 2)
    return [f"  {line}" for line in column_lines(stages.columns.pop(step.index), narrower)]


def run_samples(
    prefix: PrefilledPrompt,
    request: GenerateRequest,
    sinks: Sinks,
    notices: streams.Notices,
    logits: LogitsFile | None = None,
    pace: Pace | None = None,
    observers: Sequence[Observer] = (),
) -> None:
    """Decode all samples, one after the other, from the one prefilled prompt."""
    from decodecli.decoding.decode import Decoding

    params, output, recorded = request.sampling, request.output, request.recorded()
    sources = {k: v for k, v in request.effective.sources.items() if k not in ("preset", "config")}
    for sample in range(output.num_samples):
        if logits is not None:
            logits.start(sample + 1)
        decoding = Decoding(
            prefix,
            params,
            seed=request.seed + sample,
            candidates=output.candidates,
            shared=sample + 1 < output.num_samples,
            sources=sources,
            recorded=recorded,
            on_logits=None if logits is None else lambda row: logits.write(row.numpy()),
            what_if=request.alternatives,
            watch=request.watch,
            explain=request.explain,
            observers=observers,
        )
        if sample == 0:
            notices.tell_all(decoding.notices)
        known = len(decoding.notices)
        sinks.start(decoding.header, (sample + 1, output.num_samples))
        quit_by_key = False
        # The first Ctrl-C ends the run after the step under way.
        with postponed(decoding.interrupt):
            try:
                for step in decoding:
                    sinks.step(step)
                    if pace is None or decoding.ended or sinks.folded:
                        continue
                    if not pace.wait(lambda: decoding.interrupted):  # noqa: B023
                        quit_by_key = True
                        break
            finally:
                # Whatever ended it, the records so far are closed with what is known.
                sinks.finish(decoding.summary())
        notices.tell_all(decoding.notices[known:])
        if output.verbose and decoding.backend:
            notices.tell(f"the steps were run {decoding.backend}")
        # Of greedy samples, the others would be the same.
        if quit_by_key or (params.greedy and sinks.show_only and logits is None):
            return
