"""From a prompt to the logits after it: its token ids, run through the model once."""

from __future__ import annotations

import operator
import reprlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from decodecli.errors import DecodeError, PromptError, UsageError
from decodecli.models.chat_template import encode_chat
from decodecli.models.load_errors import out_of_memory
from decodecli.models.loading import LanguageModel
from decodecli.models.runner import ModelRunner
from decodecli.models.time_limit import token_ids, tokenized
from decodecli.ranges import split_bias
from decodecli.sampling.chain import RunContext
from decodecli.settings import ChatParams, SamplingParams
from decodecli.text_files import check_size


def encode(
    lm: LanguageModel, text: str, bos: bool | None = None, chat: ChatParams | None = None
) -> list[int]:
    """The prompt's token ids; with `chat`, those of the chat template, to which nothing is added.

    `bos` says whether the tokenizer's special tokens are added; None does as the tokenizer does.
    Special-token text in `text` is parsed as such, and a BOS typed by hand is not added a second
    time. An empty text is the BOS token alone.

    Raises:
        PromptError: the text is empty and the model has no BOS token (or `bos` is False); a system
            message that the template does not take.
        LoadError: `chat` and no template, or one that does not work; the tokenizer fails on the text.
    """
    check_size(len(text), "the prompt")
    try:
        for part in (text, chat.system if chat and chat.system else ""):
            part.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt is not Unicode text (a lone surrogate at {error.start})", "leave it out"
        ) from None
    if chat is not None:
        name, template = lm.info.name, chat
        return tokenized(name, text, lambda: encode_chat(lm.codec, name, text, template))
    ids = token_ids(lm, text, special=bos is not False)
    if bos and lm.bos_id is not None and ids[:1] != [lm.bos_id]:
        ids = [lm.bos_id, *ids]
    typed = lm.codec.bos_token
    if bos is not False and typed and text.startswith(typed) and ids[:2] == [lm.bos_id, lm.bos_id]:
        ids = ids[1:]
    if not ids:
        if lm.bos_id is None or bos is False:
            reason = "--no-bos was given" if lm.bos_id is not None else "it has no BOS token"
            raise PromptError(
                f"the prompt is empty, and {lm.info.name} cannot start from nothing: {reason}",
                "give a prompt of at least one token",
            )
        ids = [lm.bos_id]
    return ids


@dataclass(frozen=True)
class PrefilledPrompt:
    """A prompt that has been through the model.

    text, ids: what it says, and its token ids.
    logits: after it, (1, vocab) float32.
    runner: the model with the prompt in its cache.
    seconds: how long the prefill took.
    """

    lm: LanguageModel
    text: str
    ids: tuple[int, ...]
    logits: Tensor
    runner: ModelRunner
    seconds: float


def prefill(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    bos: bool | None = None,
    chat: ChatParams | None = None,
) -> PrefilledPrompt:
    """Run the prompt, text or token ids, through the model once.

    Raises:
        LoadError: as `encode`.
        PromptError: as `encode`; the prompt is no text and no token ids, is empty, longer than the
            context, or has ids out of range.
        DecodeError: memory ran out.
    """
    if isinstance(prompt, str):
        text, ids = prompt, encode(lm, prompt, bos, chat)
    else:
        try:
            ids = [operator.index(token) for token in prompt]
        except TypeError:
            raise PromptError(
                f"the prompt is neither a text nor token ids: {reprlib.repr(prompt)}",
                "for several texts, call it once for each",
            ) from None
        text = lm.codec.decode(ids, clean_up_tokenization_spaces=False)
    _check_ids(lm, ids)
    start = time.perf_counter()
    runner = lm.runner()
    with out_of_memory_guard(lm):
        logits = runner.prefill(ids)
    return PrefilledPrompt(lm, text, tuple(ids), logits, runner, time.perf_counter() - start)


def _check_ids(lm: LanguageModel, ids: list[int]) -> None:
    if not ids:
        raise PromptError("the prompt has no tokens", "give at least one token id")
    unknown = next((token for token in ids if not 0 <= token < lm.info.vocab_size), None)
    if unknown is not None:
        raise PromptError(
            f"token id {unknown} is not in the vocabulary of {lm.info.name} "
            f"(0 to {lm.info.vocab_size - 1})",
            "does the tokenizer belong to this model?",
        )
    if lm.context is not None and len(ids) >= lm.context:
        raise PromptError(
            f"the prompt has {len(ids):,} tokens; {lm.info.name} has room for {lm.context:,}, "
            "one of them new",
            f"shorten it to {lm.context - 1:,} tokens, or use a model with a longer context",
        )


@contextmanager
def out_of_memory_guard(lm: LanguageModel) -> Iterator[None]:
    """Say what to do when memory runs out.

    Raises:
        DecodeError: it did.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise DecodeError(
            f"out of memory on {lm.info.device} while decoding", lm.what_fits()
        ) from error


def run_context(
    lm: LanguageModel,
    params: SamplingParams,
    prompt_ids: Sequence[int] = (),
    seed: int | None = None,
) -> RunContext:
    """What the stages need to know of a run of `lm`: the settings' texts as token ids, and where the
    new tokens begin.

    Bad words are banned with a space before them and without.

    Raises:
        UsageError: a biased token that is none, or several.
    """
    words = [word for text in params.bad_words for word in (text, f" {text}")]
    breakers = params.dry_sequence_breakers

    @cache
    def breaks(token_id: int) -> bool:
        text = lm.codec.decode([token_id], skip_special_tokens=False)
        return any(breaker in text for breaker in breakers)

    forbidden = None
    if params.constraint:
        from decodecli.decoding.constraint import Constraint

        forbidden = Constraint(lm, params.constraint, len(prompt_ids))
    return RunContext(
        prompt_length=len(prompt_ids),
        eos_ids=tuple(sorted(lm.eos_ids)),
        logit_bias=tuple(
            (_biased_token(lm, token), bias) for token, bias in map(split_bias, params.logit_bias)
        ),
        bad_words=tuple(
            dict.fromkeys(ids for word in words if (ids := tuple(_ids_within_text(lm, word))))
        ),
        forbidden=forbidden,
        breaks=breaks,
        seed=seed,
    )


def _ids_within_text(lm: LanguageModel, text: str) -> list[int]:
    """The ids of `text` behind a line break, as many tokenizers put a space before a text's beginning."""
    first, both = (token_ids(lm, part, special=False) for part in ("\n", f"\n{text}"))
    within = both[: len(first)] == first
    return both[len(first) :] if within else token_ids(lm, text, special=False)


def token_chain(lm: LanguageModel, token: str, option: str) -> tuple[int, ...]:
    """The ids that a number or a text stands for; `text:7` is the text.

    Raises:
        UsageError: there is no such token; `option` is what named it.
    """
    if token.isascii() and token.isdecimal():
        ids = [int(token)]
    else:
        ids = _ids_within_text(lm, token.removeprefix("text:"))
    if not ids:
        raise UsageError(f"{option}: {token!r} is no token", "give a text or an id")
    if not all(0 <= token_id < lm.info.vocab_size for token_id in ids):
        problem = f"{token!r} is not in the vocabulary (0 to {lm.info.vocab_size - 1})"
        raise UsageError(f"{option}: {problem}", "give a text or an id")
    return tuple(ids)


def _biased_token(lm: LanguageModel, token: str) -> int:
    ids = token_chain(lm, token, "--logit-bias")
    if len(ids) == 1:
        return ids[0]
    problem = f"is {len(ids)} tokens ({' '.join(map(lm.piece, ids[:8]))})"
    hint = "a bias is for one token: give its text, with its space, or its id"
    raise UsageError(f"--logit-bias: {token!r} {problem}", hint, "logit_bias")
