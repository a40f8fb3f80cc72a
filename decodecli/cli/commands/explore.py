"""`decodecli explore`: a full-screen way through a model's distributions."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import INPUT, OUTPUT, Argument, Option, command
from decodecli.cli.loading_line import load_model
from decodecli.cli.output import is_byte_level
from decodecli.errors import UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.settings import check_chat_and_bos
from decodecli.signals import Interrupted, postponed
from decodecli.stages import OF_A_RUN, stage_order

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.explore.app import Explorer
    from decodecli.explore.engine import Source
    from decodecli.explore.session import Session
    from decodecli.settings import OutputParams, SamplingParams

WORDS = Argument(
    "words", "PROMPT",
    r"What to continue; with --logits, TOKEN=LOGIT…. [dim]\[default: Once upon a time,][/dim]",
    several=True,
)  # fmt: skip
LOGITS = Option(
    "logits", bool, INPUT, "No model: the words are TOKEN=LOGIT, at every step the same."
)
SESSION = Option(
    "session", str, OUTPUT, "Open a session that was saved, and save it there.", "FILE"
)


@command(
    *(WORDS, LOGITS, o.TEMPERATURE, o.GREEDY, *o.FILTERS, *o.PENALTIES, o.SEED, o.BOS, *o.CHAT),
    *(o.FILE, *o.LOADING, SESSION, o.QUIET, o.VERBOSE, o.COLOR, o.DEBUG, o.PRESET, o.CONFIG_FILE),
)
def explore(
    effective: Effective,
    words: tuple[str, ...] = (),
    logits: bool = False,
    file: str | None = None,
    session: str | None = None,
) -> None:
    """Walk through a model's distributions by hand, on the whole screen.

    Draw or take a token, go back, try another, move the sliders: everything is redrawn from the same
    logits. ? shows the keys.

    [bold]Examples[/bold]

      decodecli explore "The capital of Japan is"

      decodecli explore --logits day=5 space=2.2 furniture=2 night=4.5

      decodecli explore "Once upon a time" -t 1.3 --top-p 0.9 --session story.json
    """
    output, params = effective.output(), effective.sampling()
    check_chat_and_bos(output.chat_params, output.bos)
    for name in stage_order(params):
        if name in OF_A_RUN:  # from a preset, a file or the environment
            hint = f"set {name} to its default, or use decodecli generate"
            raise UsageError(f"explore goes back and forth, which {name} does not allow for", hint)
    _check_terminal()
    if logits:
        app = _numbers(words, file, session, params)
    else:
        if len(words) > 1:
            raise UsageError(
                f"explore reads one prompt, got {len(words)}",
                'put it in quotes: decodecli explore "The capital of Japan is"',
            )
        with quiet_libraries(output.verbose):
            app = _model(effective, words[0] if words else None, file, session, output, params)
    if output.color == "never":
        os.environ["NO_COLOR"] = "1"
    try:
        with postponed(app.stop):
            app.run()
        if app.ended_by:
            raise Interrupted(app.ended_by)
    except Interrupted:
        if app.path is not None and not app.walk.session.saved:
            app.walk.session.save(app.path)
        raise


def _check_terminal() -> None:
    if not (streams.is_terminal(sys.stdin) and streams.is_terminal(sys.stdout)):
        raise UsageError(
            "explore needs a terminal, and standard input or output is none",
            "inspect-logits and generate write to files and pipes",
        )
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise UsageError(
            f"explore needs a terminal that can move its cursor; TERM is "
            f"{os.environ.get('TERM') or 'not set'}",
            "inspect-logits and generate show the same numbers as lines",
        )


def _numbers(
    words: tuple[str, ...], file: str | None, path: str | None, params: SamplingParams
) -> Explorer:
    from decodecli.analysis.distribution import pairs_from_text, pairs_from_words, softmax
    from decodecli.explore.app import Explorer
    from decodecli.explore.engine import NumbersSource
    from decodecli.explore.session import Session

    if words and file is not None:
        raise UsageError("numbers and --file were both given", "give one of them")
    if path is not None:
        raise UsageError("--session goes with a model, not with --logits", "leave one out")
    pairs = pairs_from_words(words) if words else pairs_from_text(*streams.read_data(file), "logit")
    softmax(pairs)  # refuses what is no distribution
    return Explorer(NumbersSource(pairs), Session(None, "", (), params))


def _model(
    effective: Effective,
    word: str | None,
    file: str | None,
    path: str | None,
    output: OutputParams,
    params: SamplingParams,
) -> Explorer:
    from decodecli.explore.session import read_session

    notices = streams.Notices(output.quiet)
    load, saved = effective.load(), None
    if path is not None and Path(path).expanduser().exists():
        if word is not None or file is not None:
            raise UsageError(
                f"--session {path} has its own prompt", "leave the prompt out, or name another file"
            )
        saved = read_session(path)
        if saved.model is None:
            raise UsageError(f"{path} has no model", "it was saved from numbers")
        if effective.sources["model"] == "default":
            load = replace(load, model=saved.model.name, revision=saved.model.revision)
    text = saved.prompt if saved else streams.read_prompt(word, file, notices.tell)
    lm = load_model(load, output)
    from decodecli.decoding.prompt import prefill
    from decodecli.explore.app import Explorer
    from decodecli.explore.engine import ModelSource
    from decodecli.explore.session import Branch, Session

    seed = params.seed or 0

    def read(prompt: str) -> tuple[ModelSource, Session]:
        prefix = prefill(lm, prompt, output.bos, output.chat_params)
        fresh = Session(lm.info, prefix.text, prefix.ids, params, [Branch(seed=seed)])
        return ModelSource(prefix), fresh

    def save(source: Source, session: Session, name: str) -> str:
        from decodecli.explore.trace import write_trace

        session.save(name)
        trace = str(Path(name).expanduser().with_suffix(".jsonl"))
        if isinstance(source, ModelSource):
            write_trace(source, session, trace)
        return f"saved {name}, and its branch's trace as {Path(trace).name}"

    if saved is None:
        source, session = read(text)
    else:
        if saved.model is not None and saved.model.vocab_size != lm.info.vocab_size:
            raise UsageError(
                f"{path} was saved from {saved.model.name}, with another vocabulary",
                "name that model with --model",
            )
        source, session = ModelSource(prefill(lm, saved.prompt_ids)), saved
    app = Explorer(source, session, byte_level=is_byte_level(lm), reopen=read, save=save, path=path)
    return app
