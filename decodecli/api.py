"""The short forms that stand at the top of the package: a name loads the model, keywords are settings.

    run = decodecli.generate("builtin", "The capital of Japan is", temperature=0.7, seed=1)

A model is a name or path, which is loaded for the one call, or what `decodecli.load` returned, which
serves many. Decoding keywords are `SamplingParams`' fields; with `params` given too, they override it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError
from decodecli.settings import (
    BeamParams,
    ChatParams,
    LoadParams,
    SamplingParams,
    chat_params,
    check_chat_and_bos,
)
from decodecli.stages import OF_SCORES_ALONE

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel
    from decodecli.records.beams import BeamRun
    from decodecli.records.distribution import DistributionReport
    from decodecli.records.embedding import EmbedReport
    from decodecli.records.run import Run, Step
    from decodecli.records.sweep import SweepResult
    from decodecli.records.tokens import TokenReport

_SAMPLING = tuple(field.name for field in fields(SamplingParams))
_LOADING = tuple(field.name for field in fields(LoadParams))
_NO_FILTERS = ("temperature", "max_new_tokens", "stop", "seed")
_NOT_OF_NUMBERS = tuple(name for name in _SAMPLING if name not in (*OF_SCORES_ALONE, "order"))


def decode(
    model: LanguageModel | LoadParams | str | Path,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = 10,
    bos: bool | None = None,
    chat: bool = False,
    system: str | None = None,
    allow_special: bool = False,
    what_if: Sequence[str | Mapping[str, Any]] = (),
    watch: Sequence[str | int] = (),
    explain: bool = False,
    **settings: Any,
) -> Iterator[Step]:
    """Generate after `prompt`, one `Step` at a time. The arguments are those of `generate`.

    Closing the iterator early frees what it holds.
    """
    from decodecli import config
    from decodecli.decoding import decode as decoding

    params = _sampling_params(params, settings)
    template = _chat(prompt, bos, chat, system, allow_special)
    others = dict(config.what_if(params, wanted) for wanted in what_if)
    return decoding.decode(
        _loaded(model), prompt, params, candidates=candidates, bos=bos, chat=template,
        what_if=others, watch=watch, explain=explain,
    )  # fmt: skip


def generate(
    model: LanguageModel | LoadParams | str | Path,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = 10,
    bos: bool | None = None,
    chat: bool = False,
    system: str | None = None,
    allow_special: bool = False,
    what_if: Sequence[str | Mapping[str, Any]] = (),
    watch: Sequence[str | int] = (),
    explain: bool = False,
    page: bool = False,
    **settings: Any,
) -> Run:
    """Generate after `prompt` to the end: header, steps and summary.

    >>> run = generate("builtin", "Once upon a time", temperature=0.7, seed=1)
    >>> run[3].token, len(run), run.text

    Args:
        model: a name or path, or what `load` returned.
        prompt: text or token ids.
        params: the decoding settings; keywords override them.
        candidates: how many rows a step lists.
        bos: whether the tokenizer's special tokens are added; None does as the tokenizer does.
        chat: whether the prompt is the user's message in the model's chat template.
        system: the system message before it; implies `chat`.
        allow_special: whether special tokens spelt in a message are read as such.
        what_if: other settings whose draws each step records, as "temperature=0.2,top_p=0.5" or a
            mapping: from the same logits, with the same noise.
        watch: tokens, texts or ids, whose numbers each step records, wherever they rank.
        explain: whether each step records why it took its token: `step.sentence`, `step.explain`.
        page: whether each step records what the interactive page needs: for `run.save_html(FILE)`, and
            what a notebook then shows.
        settings: `SamplingParams`' fields: temperature, top_p, seed, max_new_tokens …

    Raises:
        UsageError: an unknown keyword (the nearest is named), a value out of range.
        LoadError, PromptError, DecodeError: as `load` and decoding raise them.
    """
    from decodecli import config
    from decodecli.analysis.run_curves import RunCurves
    from decodecli.decoding import decode as decoding

    params = _sampling_params(params, settings)
    template = _chat(prompt, bos, chat, system, allow_special)
    others = dict(config.what_if(params, wanted) for wanted in what_if)
    lm = _loaded(model)
    curves = RunCurves(lm.piece)
    run = decoding.generate(
        lm, prompt, params, candidates=candidates, bos=bos, chat=template, what_if=others, watch=watch,
        explain=explain, observers=[curves] if page else (),
    )  # fmt: skip
    return replace(run, curves=curves.steps) if page else run


def beam_search(
    model: LanguageModel | LoadParams | str | Path,
    prompt: str | Sequence[int],
    num_beams: int = 4,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    num_return_sequences: int = 1,
    beam_sample: bool = False,
    bos: bool | None = None,
    **settings: Any,
) -> BeamRun:
    """Search with several texts at once: every step's beams, and the hypotheses, the best first.

    >>> run = beam_search("builtin", "The capital of Japan is", 4, num_return_sequences=3)
    >>> run.text, run.hypotheses[1].score, run[0].live[0].token

    Args:
        length_penalty: a hypothesis' score is its log probability / length ** length_penalty.
        early_stopping: True, False or "never", as in transformers.
        num_return_sequences: how many hypotheses to return.
        beam_sample: draw the beams, with temperature and filters, in place of taking the best.
        settings: as for `generate`; without `beam_sample`, of use are the penalties and max_new_tokens.

    Raises:
        UsageError, LoadError, PromptError, DecodeError: as `generate`.
    """
    from decodecli.decoding.beam_search import BeamSearch
    from decodecli.decoding.prompt import prefill

    params = _sampling_params(None, settings)
    beams = BeamParams(
        num_beams, length_penalty, str(early_stopping).lower(), num_return_sequences, beam_sample
    )
    return BeamSearch(prefill(_loaded(model), prompt, bos), params, beams).run()


def next_token(
    model: LanguageModel | LoadParams | str | Path,
    prompt: str | Sequence[int],
    temperature: float | Sequence[float] = 1.0,
    *,
    rows: int = 10,
    tokens: Sequence[str | int] = (),
    target: str | int | None = None,
    bos: bool | None = None,
    **settings: Any,
) -> DistributionReport:
    """The distribution of the token after `prompt`, at one temperature or several.

    >>> print(next_token("builtin", "The capital of Japan is", [0.4, 1.0, 1.6], top_p=0.9))

    Args:
        rows: how many of the highest logits to list.
        tokens: texts or token ids to list in any case, by their first token.
        target: the token whose cross-entropy is wanted.
        settings: penalties and filters, as in `SamplingParams`.

    Raises:
        UsageError, LoadError, PromptError, DecodeError: as `generate`.
    """
    from decodecli.analysis import next_token as analysis

    params = _sampling_params(None, settings, without=_NO_FILTERS)
    lm, temperatures = _loaded(model), _several(temperature)
    return analysis.next_token(
        lm, prompt, temperatures, params=params, rows=rows, tokens=tokens, target=target, bos=bos
    )[0]


def softmax(
    numbers: Mapping[str, float] | Sequence[tuple[str, float]] | Sequence[float],
    temperature: float | Sequence[float] = 1.0,
    *,
    kind: str = "logit",
    target: str | None = None,
    **settings: Any,
) -> DistributionReport:
    """The distribution of a few numbers, at one temperature or several; no model is needed.

    >>> print(softmax({"day": 5.0, "space": 2.2}, [0.5, 1.0]))

    Args:
        numbers: token → number, pairs, or numbers alone (named by their positions).
        kind: what the numbers are: "logit", "probability" or "energy".
        target: the token whose cross-entropy is wanted.
        settings: filters, as in `SamplingParams`.

    Raises:
        UsageError: nothing to work on, a number that is none, an unknown keyword.
    """
    from decodecli.analysis import distribution

    params = _sampling_params(None, settings, without=_NOT_OF_NUMBERS)
    scores = dict(numbers) if isinstance(numbers, Mapping) else numbers
    temperatures = _several(temperature)
    return distribution.softmax(scores, temperatures, kind=kind, target=target, params=params)


def tokenize(
    text: str, model: LanguageModel | str | Path = "builtin", *, bos: bool | None = None
) -> TokenReport:
    """The tokens of a text, with their bytes and spans.

    Raises:
        LoadError: there is no such tokenizer. PromptError: the text cannot be encoded.
    """
    from decodecli.analysis import tokenization
    from decodecli.models import tokenizer

    if isinstance(model, str | Path):
        return tokenization.tokenize(text, str(model), bos)
    return tokenization.tokenize(text, tokenizer.wrap(model.codec, model.info.name), bos)


def embed(
    words: Sequence[str] | Mapping[str, Sequence[str]],
    model: LanguageModel | LoadParams | str | Path = "builtin",
    *,
    output: bool = False,
    space: bool | None = None,
    nearest: int = 0,
) -> EmbedReport:
    """Vectors of words in a model's embedding matrix, and how near they are to each other.

    >>> print(embed(["king", "queen", "king - man + woman"], nearest=5))

    Args:
        words: words and expressions, or groups of them by name.
        output: the unembedding in place of the input embeddings.
        space: whether a space before each word is meant; None: where its script has spaces.
        nearest: how many of the nearest tokens to list for each vector.

    Raises:
        UsageError: a word that is empty, given twice or unknown.
        LoadError: the model or its matrix is missing or cannot be read.
    """
    from decodecli.analysis import embedding

    name = None
    if not isinstance(model, str | Path | LoadParams):
        if model.checkpoint is None:
            problem = "embed reads a model's files, and this one was wrapped"
            raise UsageError(problem, "give its name or folder")
        name, model = model.info.name, str(model.checkpoint.folder)
    report = embedding.embed(words, model, output=output, space=space, nearest=nearest)[0]
    return report if name is None else replace(report, model=name)


def sweep(
    model: LanguageModel | LoadParams | str | Path,
    prompts: str | Iterable[str],
    *,
    seeds: int | Iterable[int] = range(5),
    batch_size: int = 16,
    **settings: Any,
) -> SweepResult:
    """Every setting with every prompt and seed, in memory; `decodecli sweep` keeps its cells in files.

    >>> print(sweep("builtin", "Once upon a time", temperature=[0.2, 0.7, 1.0], seeds=range(5)))

    Args:
        prompts: one text or several.
        batch_size: how many cells are decoded at once.
        settings: `SamplingParams`' fields and `bos`, each one value or a list of values.

    Raises:
        UsageError, LoadError, PromptError, DecodeError: as `generate`.
    """
    from decodecli.records.sweep import SweepResult
    from decodecli.sweeps.grid import plan
    from decodecli.sweeps.prompts import gather_prompts
    from decodecli.sweeps.run import run_cells
    from decodecli.sweeps.summary import summarise

    _check_names(settings, ("seed",), also=("bos",))
    values = {
        name: list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
        for name, value in settings.items()
    }
    values["seeds"] = [seeds] if isinstance(seeds, int) else list(seeds)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    grid = plan(values, gather_prompts(texts))
    lm = _loaded(model)
    results = run_cells(lm, grid, batch_size=batch_size)
    records = sorted((result.record for result in results), key=lambda record: record.index)
    size = len(grid.prompts), len(grid)
    summary = summarise(lm.info.name, grid.varying, grid.seeds, *size, records)
    return SweepResult(summary, tuple(records))


def _sampling_params(
    params: SamplingParams | None, settings: Mapping[str, Any], without: Sequence[str] = ()
) -> SamplingParams:
    """`params` with keywords in place of its values; `without` names those that are unknown here."""
    _check_names(settings, without)
    if params is not None and not isinstance(params, SamplingParams):
        problem = f"params must be SamplingParams, got {type(params).__name__}"
        raise UsageError(problem, "give settings by name: temperature=0.7, seed=1")
    return SamplingParams(**settings) if params is None else replace(params, **settings)


def _chat(
    prompt: str | Sequence[int],
    bos: bool | None,
    chat: bool,
    system: str | None,
    allow_special: bool,
) -> ChatParams | None:
    template = chat_params({"chat": chat, "system": system, "allow_special": allow_special})
    check_chat_and_bos(template, bos)
    if template is not None and not isinstance(prompt, str):
        raise UsageError("a chat template takes a text, and token ids were given", "give the text")
    return template


def _check_names(
    settings: Mapping[str, Any], without: Sequence[str] = (), also: Sequence[str] = ()
) -> None:
    known = [name for name in (*_SAMPLING, *also) if name not in without]
    for name in settings:
        if name in known:
            continue
        if name == "greedy":
            hint = "temperature=0 is greedy decoding"
        elif name in _LOADING:
            hint = f"it belongs to the model: decodecli.load(name, {name}=…)"
        else:
            from decodecli.config import nearest

            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else "known are " + ", ".join(known)
        raise UsageError(f"unknown keyword {name!r}", hint)


def _several(temperature: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(temperature, int | float):
        return (temperature,)
    try:
        return tuple(float(value) for value in temperature)
    except (TypeError, ValueError):
        problem = f"temperature must be a number or several, got {temperature!r}"
        raise UsageError(problem, "as 0.7, or [0.4, 1]") from None


def _loaded(model: LanguageModel | LoadParams | str | Path) -> LanguageModel:
    if not isinstance(model, str | Path | LoadParams):
        return model
    from decodecli.models.loading import load

    return load(model)
