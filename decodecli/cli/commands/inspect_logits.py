"""`decodecli inspect-logits`: one forward pass, and the next-token distribution laid open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import INPUT, OUTPUT, Argument, Option, Request, command
from decodecli.cli.loading_line import load_model
from decodecli.cli.output import (
    TABLE_FORMATS,
    is_byte_level,
    show_distribution,
    temperatures,
    write_report,
)
from decodecli.errors import UsageError
from decodecli.library_logging import quiet_libraries
from decodecli.ranges import check_choice
from decodecli.settings import check_chat_and_bos
from decodecli.stages import ORDERS

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

COMPARE = "Compare"
SAVED = (".safetensors", ".npz", ".csv", ".json")

PROMPTS = Argument(
    "prompt",
    "PROMPT…",
    "What to continue; several side by side; - reads it from standard input. "
    r"[dim]\[default: Once upon a time,][/dim]",
    several=True,
)
ALL_POSITIONS = Option("all_positions", bool, INPUT, "Score the prompt itself, token by token.")
BY_WORD = Option(
    "by_word", bool, INPUT,
    "With --all-positions: surprisal by word, plain and corrected for where words end.",
)  # fmt: skip
WINDOW = Option("window", int, INPUT, "Tokens read at once.", "N", "the context, at most 1024")
STRIDE = Option(
    "stride", int, INPUT, "Tokens between the starts of two windows.", "N", "half the window"
)  # fmt: skip
COMPARISONS = (
    Option("compare_quantize", str, COMPARE, "Schemes side by side, as none,nf4,int8.", "A,B,…"),
    Option("compare_dtype", str, COMPARE, "Number types side by side, as float32,bfloat16.", "A,B,…"),
    Option("compare_bos", bool, COMPARE, "With and without the BOS token."),
    Option("compare_order", str, COMPARE,
           "Orders of the stages: transformers,llama.cpp,vllm,mlx.", "A,B,…"),
    Option("compare_model", str, COMPARE, "Models with one vocabulary side by side.", "A,B,…"),
)  # fmt: skip
TOKEN = Option(
    "token", str, OUTPUT,
    "Where this stands as what comes next; repeatable. text:12 for digits as text.", "STR|ID",
    several=True
)  # fmt: skip
TARGET = Option("target", str, OUTPUT, "Add its cross-entropy.", "STR|ID")
SORT = Option(
    "sort", str, OUTPUT,
    "rank: the most probable first; given: only what --token names, in that order.",
    default="rank", choices=("rank", "given")
)  # fmt: skip
SAVE = Option(
    "save", str, OUTPUT, "All logits with the token table: .safetensors, .npz, .csv or .json.",
    "FILE"
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class InspectRequest(Request):
    """Everything that `inspect-logits` is told, checked.

    Raises:
        UsageError: an option that goes with no other that was given.
    """

    prompt: tuple[str, ...] = ()
    file: str | None = None
    temperature: tuple[str, ...] = ()
    all_positions: bool = False
    window: int | None = None
    stride: int | None = None
    compare_quantize: str | None = None
    compare_dtype: str | None = None
    compare_bos: bool = False
    compare_model: str | None = None
    compare_order: str | None = None
    by_word: bool = False
    stages: str = "last"
    token: tuple[str, ...] = ()
    target: str | None = None
    sort: str = "rank"
    format: str = "table"
    save: str | None = None
    plot: str | None = None
    plot_kind: str | None = None

    @cached_property
    def temperatures(self) -> tuple[float, ...]:
        return temperatures(self.temperature, self.effective)

    @cached_property
    def compared(self) -> tuple[str, tuple[str, ...]] | None:
        """What is compared, and the variants; None when nothing is."""
        options = {
            "quantize": self.compare_quantize,
            "dtype": self.compare_dtype,
            "bos": "bos,no-bos" if self.compare_bos else None,
            "model": self.compare_model,
            "order": self.compare_order,
        }
        variants_of = {by: names for by, names in options.items() if names is not None}
        spelt = " and ".join(f"--compare-{by}" for by in variants_of)
        if len(self.prompt) > 1:
            if spelt:
                raise UsageError(
                    f"{spelt} and several prompts were given together", "compare one thing"
                )
            if len(set(self.prompt)) < len(self.prompt):
                raise UsageError("one prompt is given twice", "give each once")
            return "prompt", self.prompt
        if len(variants_of) > 1:
            raise UsageError(f"{spelt} were given together", "compare one thing")
        for by, names in variants_of.items():
            variants = tuple(name for name in str(names).split(",") if name)
            if len(variants) < 2:
                raise UsageError(f"{spelt} needs two or more, got {names!r}", "as A,B")
            if len(set(variants)) < len(variants):
                raise UsageError(f"{spelt} names one twice: {names}", "give each once")
            return by, variants
        return None

    def __post_init__(self) -> None:
        from decodecli.analysis.distribution import SORTS, check_temperatures

        check_choice("sort", self.sort, SORTS)
        check_choice("stages", self.stages, ("last", "all"))
        check_temperatures(self.temperatures)
        output, compared, _ = self.output, self.compared, (self.load, self.sampling)
        check_chat_and_bos(output.chat_params, self.compare_bos or output.bos)
        if self.sort == "given" and not self.token:
            raise UsageError(
                "--sort given lists the tokens of --token, and there are none",
                'name them, as --token " day" --token " night"',
            )
        if self.save is not None and Path(self.save).suffix not in SAVED:
            raise UsageError(f"--save {self.save}: unknown suffix", f"one of {', '.join(SAVED)}")
        if self.plot == "-" and self.format != "table":
            raise UsageError(
                f"--plot - draws in the terminal, not in {self.format}", "leave one out"
            )
        if self.by_word and not self.all_positions:
            raise UsageError("--by-word goes with --all-positions", "add --all-positions")
        if self.by_word and self.plot:
            raise UsageError("--by-word is a table", "leave --plot out, or --by-word")
        if self.all_positions:
            if self.temperature:
                raise UsageError("--all-positions is at temperature 1", "leave --temperature out")
            if compared or self.save or self.plot_kind:
                raise UsageError(
                    "--all-positions goes with one prompt and no comparison, --save or --plot-kind",
                    "leave one out",
                )
            if self.plot is not None:
                from decodecli.render.plots.text import check_text_plot

                check_text_plot(self.plot)
        one_by_one = "--stages all" if self.stages == "all" else ""
        if one_by_one or self.compare_order is not None:
            what = one_by_one or "--compare-order"
            if len(self.temperatures) > 1:
                raise UsageError(f"{what} is at one temperature", "give one -t")
            if one_by_one and (compared or self.all_positions):
                raise UsageError(f"{what} goes with no comparison", "leave one out")
            if self.target or self.token or self.save or self.plot:
                hint = "leave it out"
                raise UsageError(f"{what} goes with no --token, --target, --save or --plot", hint)
            for name in compared[1] if compared else ():
                if name not in ORDERS:
                    hint = f"engines are {', '.join(ORDERS)}"
                    raise UsageError(f"--compare-order: no engine {name!r}", hint)
                replace(self.sampling, order=name)
        if compared and (self.save or self.plot or self.token):
            raise UsageError("a comparison goes with no --save, --plot or --token", "leave one out")


@command(
    *(PROMPTS, o.TEMPERATURES, *o.FILTERS, *o.PENALTIES, *o.RUN_STAGES, *o.TEXTS, o.ORDER, o.BOS),
    *(*o.CHAT, o.FILE, ALL_POSITIONS, BY_WORD, WINDOW, STRIDE, *o.LOADING, *COMPARISONS),
    *(o.CANDIDATES, o.STAGES, TOKEN, TARGET, SORT, o.format_of(*TABLE_FORMATS), SAVE, o.PLOT),
    *(o.PLOT_KIND, o.QUIET, o.VERBOSE, o.COLOR, o.DEBUG, o.PRESET, o.CONFIG_FILE),
    request=InspectRequest,
)
def inspect_logits(request: InspectRequest) -> None:
    """See the distribution of the next token, at several temperatures side by side.

    [bold]Examples[/bold]

      decodecli inspect-logits "The capital of Japan is" -t 0.4,1.0,1.6

      decodecli inspect-logits "The capital of Japan is" --token " Tokyo" --token " Kyoto"

      decodecli inspect-logits "Once upon a time" --top-p 0.9 --plot panel.png -t 0.4,1.0,1.6

      decodecli inspect-logits "The capital of Japan is" "The capital of Italy is" -t 0.4,1.0

      decodecli inspect-logits "Who are you?" --chat -m ./chat-model

      decodecli inspect-logits --file essay.txt --all-positions

      decodecli inspect-logits "Once upon a time" -t 1.4 --top-p 0.9 --compare-order vllm,mlx

      decodecli inspect-logits "Long, long ago," --compare-quantize none,nf4,int8
    """
    output, prompts = request.output, request.prompt
    notices = streams.Notices(output.quiet)
    streams.note_words("inspect-logits", prompts, notices.tell)
    first = next(iter(prompts), None)
    text = streams.read_prompt(first, request.file, notices.tell, "no prompt was given; reading")
    with quiet_libraries(output.verbose):
        if request.compare_order or request.stages == "all":
            _side_by_side(request, text)
            return
        if request.compared:
            others = (streams.read_prompt(word, None, notices.tell) for word in prompts[1:])
            _compare(request, [text, *others])
            return
        lm = load_model(request.load, output)
        if request.all_positions or _too_long(request, lm, text, notices):
            _positions(request, lm, text)
        else:
            _next(request, lm, text)


def _prompt(
    request: InspectRequest, lm: LanguageModel, text: str
) -> tuple[str | list[int], bool | None]:
    """What to read, and whether special tokens are added: under a chat template its ids as they are."""
    output = request.output
    if output.chat_params is None:
        return text, output.bos
    from decodecli.decoding.prompt import encode

    return encode(lm, text, chat=output.chat_params), False


def _report(
    request: InspectRequest,
    lm: LanguageModel,
    text: str | list[int],
    bos: bool | None,
    tokens: Sequence[str | int],
) -> Any:
    from decodecli.analysis.next_token import next_token

    return next_token(
        lm,
        text,
        request.temperatures,
        params=request.sampling,
        rows=request.output.candidates,
        tokens=tokens,
        target=request.target,
        bos=bos,
        sort=request.sort,
    )


def _too_long(
    request: InspectRequest, lm: LanguageModel, text: str, notices: streams.Notices
) -> bool:
    """Whether a file's text has no next token to ask for, being longer than the context: then it is
    read token by token, in windows."""
    from decodecli.decoding.prompt import encode

    options = (request.token, request.target, request.save, request.plot, request.temperature)
    if request.file is None or any(options) or lm.context is None:
        return False
    output = request.output
    if len(encode(lm, text, output.bos, output.chat_params)) < lm.context:
        return False
    notices.tell(
        f"the text is longer than the context of {lm.context:,} tokens; "
        "reading it token by token, as --all-positions does"
    )
    return True


def _next(request: InspectRequest, lm: LanguageModel, text: str) -> None:
    from decodecli.analysis.next_token import continuation, save_logits
    from decodecli.stages import PENALTIES

    prompt, bos = _prompt(request, lm, text)
    report, logits = _report(request, lm, prompt, bos, request.token)
    chains = [continuation(lm, prompt, token, bos) for token in request.token]
    notes = list(report.notes)
    if report.prompt[-1:].strip():
        # A word typed without its leading space is rarely what was meant: say where the other is.
        for token, chain in zip(request.token, chains, strict=True):
            spaced = f" {token}"
            is_word = token[:1].isalpha() and not token.startswith("text:")
            if is_word and continuation(lm, prompt, spaced, bos).logprob > chain.logprob:
                notes.append(
                    f"{token!r} was taken as written, without a space before it; {spaced!r} "
                    "is more probable"
                )
    report = replace(report, notes=tuple(notes))
    if request.save is not None:
        save_logits(request.save, lm, logits, report)
    # Curves are drawn from what is divided by the temperature, which a penalty makes another thing.
    scores = None if PENALTIES.intersection(report.order) else logits
    kind = request.plot_kind or "auto"
    show_distribution(
        report, request.format, request.plot, kind, request.output.quiet, scores, chains
    )


def _words(
    request: InspectRequest, lm: LanguageModel, text: str | list[int], bos: bool | None
) -> None:
    from decodecli.analysis.word_surprisal import by_word
    from decodecli.render.terminal.distribution_tables import word_lines

    words = by_word(lm, text, window=request.window, stride=request.stride, bos=bos)
    write_report(words, request.format, lambda style: word_lines(words, style), is_byte_level(lm))


def _positions(request: InspectRequest, lm: LanguageModel, text: str) -> None:
    from decodecli.analysis.next_token import all_positions
    from decodecli.render.terminal.distribution_tables import position_lines

    prompt, bos = _prompt(request, lm, text)
    if request.by_word:
        _words(request, lm, prompt, bos)
        return
    report = all_positions(lm, prompt, window=request.window, stride=request.stride, bos=bos)
    if request.plot is not None:
        from decodecli.render.plots.text import draw_report

        draw_report(report, request.plot)
        streams.Notices(request.output.quiet).tell(f"the text is drawn in {request.plot}")
    write_report(
        report, request.format, lambda style: position_lines(report, style), is_byte_level(lm)
    )


def _side_by_side(request: InspectRequest, text: str) -> None:
    from decodecli.analysis.side_by_side import side_by_side
    from decodecli.render.terminal.stage_tables import side_by_side_lines

    lm = load_model(request.load, request.output)
    prompt, bos = _prompt(request, lm, text)
    report = side_by_side(
        lm,
        prompt,
        request.compared[1] if request.compared else (),
        params=replace(request.sampling, temperature=request.temperatures[0]),
        rows=request.output.candidates,
        bos=bos,
    )
    write_report(
        report, request.format, lambda style: side_by_side_lines(report, style), is_byte_level(lm)
    )


def _compare(request: InspectRequest, texts: Sequence[str]) -> None:
    from decodecli.analysis.next_token import check_same_vocabulary, compare
    from decodecli.render.terminal.distribution_tables import comparison_lines

    assert request.compared is not None
    by, variants = request.compared
    variants = tuple(texts) if by == "prompt" else variants
    one_model = by in ("bos", "prompt")
    # Every variant's settings are checked before the first is loaded.
    loads = {
        name: request.load if one_model else replace(request.load, **{by: name})  # type: ignore[arg-type]
        for name in variants
    }
    models: dict[str, LanguageModel] = {}

    def answer(name: str, tokens: Sequence[int] = ()) -> Any:
        lm = models[name]
        prompt, bos = _prompt(request, lm, name if by == "prompt" else texts[0])
        return _report(request, lm, prompt, name == "bos" if by == "bos" else bos, tokens)

    answers = {}
    for name in variants:
        reuse = one_model and models
        models[name] = models[variants[0]] if reuse else load_model(loads[name], request.output)
        check_same_vocabulary(models[variants[0]], models[name])
        answers[name] = answer(name)
    report = compare(by, answers, lambda name, tokens: answer(name, tokens)[0])
    byte_level = is_byte_level(models[variants[0]])
    write_report(report, request.format, lambda style: comparison_lines(report, style), byte_level)
