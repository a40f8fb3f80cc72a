"""One loaded model, one prompt, its samples: from settings to records to every place they go."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from decodecli.cli import streams
from decodecli.cli.pace import KEYS, Pace
from decodecli.cli.sinks import Sinks
from decodecli.config import Effective
from decodecli.errors import UsageError, WriteError
from decodecli.library_logging import quiet_libraries
from decodecli.render.jsonl import TraceFile
from decodecli.settings import SEED_LIMIT, LoadParams, OutputParams, SamplingParams
from decodecli.signals import postponed

if TYPE_CHECKING:
    from rich.text import Text

    from decodecli.decoding.decode import Prefix
    from decodecli.render.logits_file import LogitsFile


def run_command(text: str, is_default: bool, effective: Effective, plot: str | None = None) -> None:
    """Everything that `generate` does once its settings and prompt are known."""
    output, load_params = effective.output(), effective.load()
    if plot is not None:
        from decodecli.render.plots.text import check_text_plot

        check_text_plot(plot)
    params = _with_seed(effective.sampling(), output.num_samples)
    shown = streams.Notices(output.quiet)
    for notice in effective.notices:
        shown.tell(notice)
    for stop in params.stop:
        if "\\n" in stop or "\\t" in stop:
            shown.tell(
                f"--stop {stop} is a backslash and a letter; for a line end, type --stop $'\\n'"
            )
    if is_default:
        shown.tell(f"no prompt was given; continuing {text!r}")
    _check_apart(output, plot)
    pace = Pace(output)
    record = TraceFile(output.trace) if output.trace else None
    kept: list[_OnDisk] = [] if record is None else [record]
    try:
        logits = _logits_file(output)
        kept += [] if logits is None else [logits]
        with quiet_libraries(output.verbose):
            _load_and_run(
                text, params, load_params, effective, output, record, logits, shown, pace, plot
            )
    finally:
        for file in kept:
            file.close()
    for file in kept:
        if file.problem is not None:
            raise file.problem


class _OnDisk(Protocol):
    """A file whose failure does not end the run."""

    problem: WriteError | None

    def close(self) -> None: ...


def _logits_file(output: OutputParams) -> LogitsFile | None:
    if output.save_logits is None:
        return None
    from decodecli.render.logits_file import LogitsFile

    return LogitsFile(output.save_logits, output.num_samples)


def _check_apart(output: OutputParams, plot: str | None) -> None:
    """Refuse one file for both the trace and the picture, or the trace and the logits of any sample."""
    if output.trace and plot and _resolved(output.trace) == _resolved(plot):
        raise UsageError(
            f"--plot {plot} and --trace {output.trace} would be one file", "give them two names"
        )
    if not output.trace or not output.save_logits:
        return
    trace, logits = _resolved(output.trace), _resolved(output.save_logits)
    own = re.fullmatch(re.escape(logits.stem) + r"-([1-9]\d*)\.npy", trace.name)
    of_a_sample = own is not None and int(own[1]) <= output.num_samples and output.num_samples > 1
    if trace == logits or (of_a_sample and trace.parent == logits.parent):
        raise UsageError(
            f"--save-logits {output.save_logits} and --trace {output.trace} would be one file",
            "give them two names",
        )


def _resolved(path: str) -> Path:
    return Path(os.path.expanduser(path)).resolve()


def _with_seed(params: SamplingParams, samples: int) -> SamplingParams:
    """The settings with an integer seed, and room for the seeds of all samples."""
    if samples > SEED_LIMIT:
        raise UsageError(
            f"--num-samples must be at most {SEED_LIMIT}, got {samples}", "there are no more seeds"
        )
    if params.seed is None:
        return replace(params, seed=secrets.randbelow(SEED_LIMIT - samples + 1))
    if params.seed + samples > SEED_LIMIT:
        raise UsageError(
            f"--seed {params.seed} with --num-samples {samples} runs past 4294967295",
            "choose a smaller seed",
        )
    return params


def _load_and_run(
    text: str,
    params: SamplingParams,
    load_params: LoadParams,
    effective: Effective,
    output: OutputParams,
    record: TraceFile | None,
    logits: LogitsFile | None,
    shown: streams.Notices,
    pace: Pace,
    plot: str | None = None,
) -> None:
    with loading_line(load_params.model, output, libraries=True) as progress:
        from decodecli.decoding.decode import prefill
        from decodecli.models.detokenize import tokenizer_kind
        from decodecli.models.loading import load

        lm = load(load_params, progress=progress, verbose=output.verbose, auto_threads=True)
        prefix = prefill(lm, text, output.bos, output.chat_params)
    for notice in (*lm.notices, *([] if output.chat_params else _chat_notice(lm))):
        shown.tell(notice)
    if pace.pauses:
        shown.tell(KEYS)
    sinks = Sinks(output, record, tokenizer_kind(lm.tokenizer) == "byte_level", plot)
    try:
        with pace:
            _run(prefix, params, effective, output, sinks, shown, logits, pace)
    finally:
        sinks.close()


def _run(
    prefix: Prefix,
    params: SamplingParams,
    effective: Effective,
    output: OutputParams,
    sinks: Sinks,
    shown: streams.Notices,
    logits: LogitsFile | None = None,
    pace: Pace | None = None,
) -> None:
    """All samples, one after the other, from the one prefilled prompt."""
    from decodecli.decoding.decode import Decoding

    assert params.seed is not None
    pace, ended = pace or Pace(), False
    recorded = {"bos": output.bos, "num_samples": output.num_samples}
    recorded |= output.chat_params.as_dict() if output.chat_params else {}
    allowed = ("allow_pickle", "trust_remote_code")
    recorded |= {name: True for name in allowed if effective.values[name]}
    for sample in range(output.num_samples):
        if logits is not None:
            logits.start(sample + 1)
        last = sample + 1 == output.num_samples
        decoding = Decoding(
            prefix,
            replace(params, seed=params.seed + sample),
            candidates=output.candidates,
            shared=not last,
            sources={k: v for k, v in effective.sources.items() if k not in ("preset", "config")},
            recorded=recorded,
            on_logits=None if logits is None else lambda row: logits.write(row.numpy()),
        )
        if sample == 0:
            for notice in decoding.notices:
                shown.tell(notice)
        known = len(decoding.notices)
        sinks.start(decoding.header, (sample + 1, output.num_samples))
        # The first Ctrl-C ends the run after the step under way.
        with postponed(decoding.interrupt):
            try:
                for step in decoding:
                    sinks.step(step)
                    if decoding.over or sinks.folded:
                        continue
                    if not pace.wait(lambda: decoding.interrupted):  # noqa: B023
                        ended = True
                        break
            finally:
                # Whatever ended it, the records so far are closed with what is known.
                sinks.finish(decoding.summary())
        for notice in decoding.notices[known:]:
            shown.tell(notice)
        if output.verbose and decoding.how:
            shown.tell(f"the steps were run {decoding.how}")
        if ended or (params.greedy and sinks.show_only and logits is None):
            return  # by a key, or the other samples would be the same


def _chat_notice(lm: Any) -> tuple[str, ...]:
    if not getattr(lm.tokenizer, "chat_template", None):
        return ()
    return (
        f"{lm.info.name} is tuned for chat and got a plain prompt; it may answer oddly "
        "without its template (--chat)",
    )


@contextmanager
def loading_line(name: str, output: OutputParams, *, libraries: bool = False) -> Iterator[Any]:
    """A moving line on stderr while the model loads, if a person is looking.

    Args:
        libraries: whether PyTorch and Transformers are loaded before it, which takes longer than a small
            model: the line says so.
    """
    if output.quiet or not streams.is_terminal(sys.stderr):
        yield lambda words: None
        return
    from decodecli.cli.color import console

    screen = console(sys.stderr)  # this stream, though loading looks away from it meanwhile
    spinner = "dots" if screen.encoding.lower().startswith("utf") else "line"
    line = _LoadingLine(f"loading {name}", libraries)
    with screen.status(line, spinner=spinner):
        yield line.say


class _LoadingLine:
    """What is loaded at the moment of drawing."""

    def __init__(self, words: str, libraries: bool) -> None:
        self._words, self._libraries = words, libraries

    def say(self, words: str) -> None:
        self._words = words

    def __rich__(self) -> Text:
        from rich.text import Text

        words = self._words
        library = _library_to_come() if self._libraries and words.startswith("loading ") else ""
        return Text(streams.printable(f"loading {library}" if library else words))


def _library_to_come() -> str:
    """The library that is being imported, by what its modules define last; empty when all are there."""
    if not hasattr(sys.modules.get("decodecli.models.loading"), "load"):
        return "PyTorch"
    whole = hasattr(sys.modules.get("transformers.modeling_utils"), "PreTrainedModel")
    return "" if whole else "Transformers"
