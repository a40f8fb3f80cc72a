"""What `inspect-logits` does once its options are known: checks, loads, asks, shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import output as reporting
from decodecli.cli import streams
from decodecli.cli.commands.inspect_logits import FORMATS
from decodecli.cli.output import temperatures as temperatures
from decodecli.cli.run import loading_line
from decodecli.config import Effective
from decodecli.errors import UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.settings import LoadParams, check_chat_and_bos, check_choice

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

SAVED = (".safetensors", ".npz", ".csv", ".json")


@dataclass(frozen=True)
class Asked:
    """Everything that was asked for."""

    effective: Effective
    temperatures: tuple[float, ...]
    tokens: tuple[str, ...]
    target: str | None
    sort: str
    all_positions: bool
    window: int | None
    stride: int | None
    comparisons: dict[str, str | None]
    format: str
    many: bool
    save: str | None
    plot: str | None
    plot_kind: str | None

    def compared(self, texts: Sequence[str]) -> tuple[str, list[str]] | None:
        """What is compared, and the variants; None when nothing is."""
        given = {by: names for by, names in self.comparisons.items() if names is not None}
        if len(texts) > 1:
            if given:
                raise UsageError(
                    f"--compare-{next(iter(given))} and several prompts were given together",
                    "compare one thing",
                )
            if len(set(texts)) < len(texts):
                raise UsageError("one prompt is given twice", "give each once")
            return "prompt", list(texts)
        if not given:
            return None
        if len(given) > 1:
            raise UsageError(
                f"--compare-{' and --compare-'.join(given)} were given together",
                "compare one thing",
            )
        ((by, names),) = given.items()
        variants = [name for name in names.split(",") if name]
        if len(variants) < 2:
            raise UsageError(f"--compare-{by} needs two or more, got {names!r}", "as A,B")
        if len(set(variants)) < len(variants):
            raise UsageError(f"--compare-{by} names one twice: {names}", "give each once")
        return by, variants


def run(asked: Asked, texts: Sequence[str], is_default: bool, *, from_file: bool) -> None:
    """Check everything that can be checked before loading; then answer for one prompt, or for several
    side by side."""
    from decodecli.analysis.distribution import SORTS, check_temperatures

    check_choice("format", asked.format, FORMATS)
    check_choice("sort", asked.sort, SORTS)
    if asked.sort == "given" and not asked.tokens:
        raise UsageError(
            "--sort given lists the tokens of --token, and there are none",
            'name them, as --token " day" --token " night"',
        )
    check_temperatures(asked.temperatures)
    output = asked.effective.output()
    asked.effective.sampling()
    check_chat_and_bos(output.chat_params, asked.comparisons["bos"] or output.bos)
    text, compared = texts[0], asked.compared(texts)
    if asked.save is not None and Path(asked.save).suffix not in SAVED:
        raise UsageError(f"--save {asked.save}: unknown suffix", f"one of {', '.join(SAVED)}")
    if asked.plot == "-" and asked.format != "table":
        raise UsageError(f"--plot - draws in the terminal, not in {asked.format}", "leave one out")
    if asked.all_positions and asked.many:
        raise UsageError("--all-positions is at temperature 1", "leave --temperature out")
    if asked.all_positions and (compared or asked.save or asked.plot_kind):
        raise UsageError(
            "--all-positions goes with one prompt and no comparison, --save or --plot-kind",
            "leave one out",
        )
    if asked.all_positions and asked.plot is not None:
        from decodecli.render.plots.text import check_text_plot

        check_text_plot(asked.plot)
    if compared and (asked.save or asked.plot or asked.tokens):
        raise UsageError("a comparison goes with no --save, --plot or --token", "leave one out")
    if is_default and not output.quiet:
        streams.tell(f"Note: no prompt was given; reading {text!r}")
    with quiet_libraries(output.verbose):
        if compared:
            _compare(asked, text, *compared)
        else:
            with _loaded(asked, asked.effective.load()) as lm:
                if asked.all_positions or (from_file and _too_long(asked, lm, text)):
                    _positions(asked, lm, text)
                else:
                    _next(asked, lm, text)


@contextmanager
def _loaded(asked: Asked, params: LoadParams) -> Iterator[LanguageModel]:
    output = asked.effective.output()
    with loading_line(params.model, output, libraries=True) as progress:
        from decodecli.models.loading import load

        lm = load(params, progress=progress, verbose=output.verbose, auto_threads=True)
    yield lm


def _prompt(asked: Asked, lm: LanguageModel, text: str) -> tuple[str | list[int], bool | None]:
    """What to read, and whether special tokens are added: under a chat template its ids as they are."""
    output = asked.effective.output()
    if output.chat_params is None:
        return text, output.bos
    from decodecli.decoding.decode import encode

    return encode(lm, text, chat=output.chat_params), False


def _report(
    asked: Asked, lm: LanguageModel, text: str | list[int], bos: bool | None, more: Any = ()
) -> Any:
    from decodecli.analysis.next_token import next_token

    return next_token(
        lm,
        text,
        asked.temperatures,
        params=asked.effective.sampling(),
        rows=asked.effective.output().candidates,
        tokens=more,
        target=asked.target,
        bos=bos,
        sort=asked.sort,
    )


def _too_long(asked: Asked, lm: LanguageModel, text: str) -> bool:
    """Whether a file's text has no next token to ask for, being longer than the context: then it is
    read token by token, in windows."""
    from decodecli.decoding.decode import encode

    if asked.tokens or asked.target or asked.save or asked.plot or asked.many or lm.context is None:
        return False
    output = asked.effective.output()
    if len(encode(lm, text, output.bos, output.chat_params)) < lm.context:
        return False
    if not output.quiet:
        streams.tell(
            f"Note: the text is longer than the context of {lm.context:,} tokens; "
            "reading it token by token, as --all-positions does"
        )
    return True


def _next(asked: Asked, lm: LanguageModel, text: str) -> None:
    from decodecli.analysis.next_token import continuation

    output = asked.effective.output()
    prompt, bos = _prompt(asked, lm, text)
    report, logits = _report(asked, lm, prompt, bos, asked.tokens)
    chains = [continuation(lm, prompt, token, bos) for token in asked.tokens]
    spaced = not report.prompt[-1:].strip()
    notes = [] if spaced else _spaced(lm, prompt, asked.tokens, bos)
    report = replace(report, notes=(*report.notes, *notes))
    if asked.save is not None:
        from decodecli.analysis.export import save_logits

        save_logits(asked.save, lm, logits, report)
    # Curves are drawn from what is divided by the temperature, which a penalty makes another thing.
    scores = None if "repetition_penalty" in report.order else logits
    reporting.show(
        report, asked.format, FORMATS, asked.plot, asked.plot_kind, output.quiet, scores, chains
    )


def _spaced(
    lm: Any, prompt: str | list[int], tokens: tuple[str, ...], bos: bool | None
) -> list[str]:
    """A word asked for without its leading space is rarely what was meant: say where the other is."""
    from decodecli.analysis.next_token import continuation

    notes = []
    for token in tokens:
        if token[:1].isalpha() and not token.startswith("text:"):
            own, spaced = (continuation(lm, prompt, word, bos) for word in (token, " " + token))
            if spaced.logprob > own.logprob:
                notes.append(
                    f"{token!r} was taken as written, without a space before it; {' ' + token!r} "
                    "is more probable"
                )
    return notes


def _positions(asked: Asked, lm: LanguageModel, text: str) -> None:
    from decodecli.analysis.next_token import all_positions

    prompt, bos = _prompt(asked, lm, text)
    report = all_positions(lm, prompt, window=asked.window, stride=asked.stride, bos=bos)
    if asked.plot is not None:
        from decodecli.render.plots.text import draw_report

        draw_report(report, asked.plot)
    if asked.format == "json":
        reporting.write_json(report.as_dict())
    elif asked.format in ("jsonl", "csv"):
        reporting.write_rows(report.flat(), asked.format)
    else:
        from decodecli.models.detokenize import tokenizer_kind
        from decodecli.render.terminal.inspect_tables import position_lines

        style = reporting.style_of(sys.stdout, tokenizer_kind(lm.tokenizer) == "byte_level")
        reporting.write_lines(position_lines(report, style), style)


def _compare(asked: Asked, text: str, by: str, variants: list[str]) -> None:
    from decodecli.analysis.next_token import check_same_vocabulary, compare

    params, one_model = asked.effective.load(), by in ("bos", "prompt")
    loads = {
        name: params if one_model else _changed(params, by, name) for name in variants
    }  # every variant's settings are checked before the first is loaded
    found: dict[str, Any] = {}

    def one(name: str, lm: LanguageModel, more: list[int]) -> Any:
        prompt, bos = _prompt(asked, lm, name if by == "prompt" else text)
        return _report(asked, lm, prompt, name == "bos" if by == "bos" else bos, more)

    models: dict[str, LanguageModel] = {}
    for name in variants:
        if one_model and models:
            models[name] = models[variants[0]]
        else:
            with _loaded(asked, loads[name]) as lm:
                models[name] = lm
        check_same_vocabulary(models[variants[0]], models[name])
        found[name] = one(name, models[name], [])
    report = compare(by, found, lambda name, tokens: one(name, models[name], tokens)[0])
    if asked.format == "json":
        reporting.write_json(report.as_dict())
    elif asked.format in ("jsonl", "csv"):
        reporting.write_rows(report.flat(), asked.format)
    else:
        from decodecli.models.detokenize import tokenizer_kind
        from decodecli.render.terminal.inspect_tables import comparison_lines

        style = reporting.style_of(
            sys.stdout, tokenizer_kind(models[variants[0]].tokenizer) == "byte_level"
        )
        reporting.write_lines(comparison_lines(report, style), style)


def _changed(params: LoadParams, name: str, value: str) -> LoadParams:
    values: dict[str, Any] = {name: value}
    return replace(params, **values)
