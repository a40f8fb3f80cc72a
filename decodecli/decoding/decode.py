"""The decode loop: prefill, then chain → draw → record → one-token forward, until something ends it.

    decoding = Decoding(lm, "The capital of Japan is", SamplingParams(seed=0))
    for step in decoding: ...
    decoding.summary()

`decode` and `generate` are the short ways. A `Prefix` is a prompt that has been run through the model
once; any number of decodings can start from it.
"""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

import decodecli
from decodecli.decoding.cuda_graph import CudaGraphDecoder
from decodecli.errors import DecodeError, PromptError
from decodecli.models.chat_template import encode_chat
from decodecli.models.detokenize import TextStream
from decodecli.models.load_errors import out_of_memory
from decodecli.models.loading import LanguageModel
from decodecli.models.runner import Forward
from decodecli.models.supported import UnsupportedModel
from decodecli.models.time_limit import token_ids, tokenized
from decodecli.records.run import Run, RunHeader, RunSummary, Step, perplexity
from decodecli.sampling.chain import Chain
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import StepStatistics, unpack
from decodecli.settings import (
    SEED_LIMIT,
    ChatParams,
    SamplingParams,
    check_positive,
    ignored_under_greedy,
)
from decodecli.text_files import check_size

DEFAULT_CANDIDATES = 10
_STATISTICS = tuple(field.name for field in fields(StepStatistics))


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
        return tokenized(name, text, lambda: encode_chat(lm.tokenizer, name, text, template))
    ids = token_ids(lm, text, special=bos is not False)
    if bos and lm.bos_id is not None and ids[:1] != [lm.bos_id]:
        ids = [lm.bos_id, *ids]
    typed = lm.tokenizer.bos_token
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
class Prefix:
    """A prompt that has been through the model: its ids, the logits after it, and its cache."""

    lm: LanguageModel
    prompt: str
    ids: tuple[int, ...]
    logits: Tensor
    forward: Forward
    seconds: float


def prefill(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    bos: bool | None = None,
    chat: ChatParams | None = None,
) -> Prefix:
    """Run the prompt, text or token ids, through the model once.

    Raises:
        LoadError: as `encode`.
        PromptError: as `encode`; the prompt is empty, longer than the context, or has ids out of range.
        DecodeError: memory ran out.
    """
    if isinstance(prompt, str):
        text, ids = prompt, encode(lm, prompt, bos, chat)
    else:
        ids = [int(token) for token in prompt]
        text = lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    _check_ids(lm, ids)
    start = time.perf_counter()
    forward = Forward(lm.model)
    with memory(lm):
        logits = forward.prefill(ids)
    return Prefix(lm, text, tuple(ids), logits, forward, time.perf_counter() - start)


def _check_ids(lm: LanguageModel, ids: list[int]) -> None:
    if not ids:
        raise PromptError("the prompt has no tokens", "give at least one token id")
    wrong = next((token for token in ids if not 0 <= token < lm.info.vocab_size), None)
    if wrong is not None:
        raise PromptError(
            f"token id {wrong} is not in the vocabulary of {lm.info.name} "
            f"(0 to {lm.info.vocab_size - 1})",
            "does the tokenizer belong to this model?",
        )
    if lm.context is not None and len(ids) >= lm.context:
        raise PromptError(
            f"the prompt has {len(ids):,} tokens; {lm.info.name} has room for {lm.context:,}, "
            "one of them new",
            f"shorten it to {lm.context - 1:,} tokens, or use a model with a longer context",
        )


class Decoding:
    """One run: iterate for its steps, then ask for its `summary()`.

    Args:
        start: the prompt, run through the model.
        params: the decoding settings; a seed of None is drawn here and recorded in the header.
        candidates: how many rows a step lists.
        shared: whether other decodings start from the same prefix, so that its cache is copied.
        sources: where each value came from, for the header.
        recorded: further values to record in the header's params.
        on_logits: called with every step's logits, (vocab,) float32 on the CPU, before the step is
            yielded; the tensor is only valid during the call.

    Iterating raises `DecodeError` when logits are not finite or memory runs out; the steps before
    stay valid, and `summary()` then says `error`. `how` says afterwards how the steps were run: in a
    CUDA graph, directly, or by the model's own code, and then why.
    """

    def __init__(
        self,
        start: Prefix,
        params: SamplingParams | None = None,
        *,
        candidates: int = DEFAULT_CANDIDATES,
        shared: bool = True,
        sources: Mapping[str, str] | None = None,
        recorded: Mapping[str, Any] | None = None,
        on_logits: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.params = params or SamplingParams()
        self.prefix = start
        self.lm = start.lm
        self.chain = Chain(self.params)
        self.candidates = check_positive("candidates", candidates, "10 is the default", lowest=0)
        self.shared = shared
        self.on_logits = on_logits
        self.seed = secrets.randbelow(SEED_LIMIT) if self.params.seed is None else self.params.seed
        self.notices = self._notices()
        self.header = self._header(sources, recorded or {})
        self.finish_reason = "interrupted"  # until something better is known
        self._stream = TextStream(self.lm.tokenizer, start.ids, self.params.stop)
        self._room = None if self.lm.context is None else self.lm.context - len(start.ids)
        self.interrupted = False  # whether `interrupt` was called
        self.how = ""  # how the steps are run, once they are
        self._ahead = False  # whether the device goes on while a step is read
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._logprobs = 0.0
        self._seconds = 0.0

    def interrupt(self) -> None:
        """End the run after the step that is under way, as `interrupted`."""
        self.interrupted = True

    def __iter__(self) -> Iterator[Step]:
        try:
            with memory(self.lm):
                yield from self._steps()
        except Exception:
            self.finish_reason = "error"
            raise

    def _steps(self) -> Iterator[Step]:
        began = time.perf_counter()
        for statistics in self._statistics():
            step = self.take(statistics)
            self._seconds = time.perf_counter() - began
            yield step
            if self.finish_reason != "going":
                return
            # A slow reader is not the model's fault, unless the device went on meanwhile.
            if not self._ahead:
                began = time.perf_counter() - self._seconds

    def _statistics(self) -> Iterator[StepStatistics]:
        """The statistics of one drawn token after the other, for as long as they are asked for."""
        ahead = self._run_ahead()
        if ahead is None:
            yield from self._one_by_one()
            return
        vocab = self.prefix.logits.shape[-1]
        for number, packed in enumerate(ahead):
            yield unpack(packed, self.chain, self.candidates, vocab, self.lm.piece, number)

    def _one_by_one(self) -> Iterator[StepStatistics]:
        forward, logits = self.prefix.forward, self.prefix.logits
        if self.shared:
            forward = forward.fork()
        exact_ties = self.lm.info.dtype == "float32"
        sampler = Sampler(self.chain, self.candidates, self.lm.piece, self.seed, exact_ties)
        ids = torch.tensor([self.prefix.ids], device=logits.device)
        while True:
            chosen, statistics = sampler(logits, ids, len(self._tokens))
            if self.on_logits is not None:
                self.on_logits(logits[0].cpu())
            yield statistics
            if self.chain.needs_history:
                ids = torch.cat((ids, chosen), dim=1)
            logits = forward.step(chosen)
            self.how = self.how or forward.how

    def _run_ahead(self) -> CudaGraphDecoder | None:
        """On a GPU, the run that does not wait for its reader; None where it cannot be, and why."""
        if self.prefix.logits.device.type != "cuda":
            return None
        steps = min(self.params.max_new_tokens, self._room or self.params.max_new_tokens)
        try:
            if self.on_logits is not None:
                raise UnsupportedModel("every step's logits are asked for")
            ahead = CudaGraphDecoder(
                self.lm.model, self.prefix.forward.cache(), self.prefix.logits,
                len(self.prefix.ids), self.chain, self.candidates, self.seed, steps,
            )  # fmt: skip
        except UnsupportedModel as unknown:
            self.how = f"a step at a time: {unknown}"
            return None
        self.how, self._ahead = ahead.how, True
        if not self.shared:  # the run has a copy of its own
            self.prefix.forward.forget()
        return ahead

    @property
    def over(self) -> bool:
        """Whether the last token that was taken ended the run."""
        return self.finish_reason in ("stop", "length")

    def take(self, statistics: StepStatistics) -> Step:
        """The next step, from its statistics. Iterating does this; so does whoever runs the steps of
        many decodings together."""
        index = len(self._tokens)
        text = self.add(statistics.token_id, statistics.logprob)
        return Step(
            index=index,
            position=len(self.prefix.ids) + index,
            text=text,
            token=self.lm.piece(statistics.token_id),
            **{name: getattr(statistics, name) for name in _STATISTICS},
        )

    def add(self, token_id: int, logprob: float) -> str:
        """Count one token in, as `take` does, where no record of the step is wanted; its text."""
        self._tokens.append(token_id)
        self._logprobs += logprob
        text = self._stream.push(token_id)
        self.finish_reason = self._ending(token_id)
        if self.finish_reason != "going":
            text += self._stream.finish()
        self._texts.append(text)
        return text

    def lasted(self, seconds: float) -> None:
        """Say how long decoding took, where its steps were run by somebody else."""
        self._seconds = seconds

    def _ending(self, token_id: int) -> str:
        if self._stream.stopped or token_id in self.lm.eos_ids:
            return "stop"
        if len(self._tokens) >= self.params.max_new_tokens:
            return "length"
        if self._room is not None and len(self._tokens) >= self._room:
            self.notices = (
                *self.notices,
                f"the context of {self.lm.context:,} tokens is full; stopped there",
            )
            return "length"
        return "interrupted" if self.interrupted else "going"

    def summary(self) -> RunSummary:
        """How the run ended so far."""
        if self.finish_reason == "error":  # what was held back is not lost
            self._texts.append(self._stream.finish())
        reason = "interrupted" if self.finish_reason == "going" else self.finish_reason
        count = len(self._tokens)
        mean = self._logprobs / count if count else None
        spent = self.prefix.seconds + self._seconds
        return RunSummary(
            text="".join(self._texts),
            token_ids=tuple(self._tokens),
            finish_reason=reason,
            prompt_tokens=len(self.prefix.ids),
            new_tokens=count,
            mean_logprob=mean,
            perplexity=perplexity(mean),
            seconds={
                "load": self.lm.load_seconds,
                "prefill": self.prefix.seconds,
                "decode": self._seconds,
            },
            tokens_per_second=count / spent if count and spent > 0 else None,
        )

    def _header(self, sources: Mapping[str, str] | None, recorded: Mapping[str, Any]) -> RunHeader:
        params = {**self.params.as_dict(), **recorded, "seed": self.seed}
        if sources is None:
            neutral = SamplingParams().as_dict()
            sources = {
                name: "default" if value == neutral.get(name) else "flag"
                for name, value in self.params.as_dict().items()
            }
        return RunHeader(
            decodecli=decodecli.__version__,
            versions=library_versions(),
            model=self.lm.info,
            prompt=self.prefix.prompt,
            prompt_ids=self.prefix.ids,
            params=params,
            sources=dict(sources),
            order=self.chain.order,
            seed=self.seed,
        )

    def _notices(self) -> tuple[str, ...]:
        ignored = ignored_under_greedy(self.params)
        if not ignored:
            return ()
        names = ", ".join(ignored)
        return (f"greedy decoding takes the most probable token: {names} has no effect",)


def decode(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = DEFAULT_CANDIDATES,
    bos: bool | None = None,
) -> Iterator[Step]:
    """Generate after `prompt` (text or token ids), one `Step` at a time.

    Closing the iterator early frees what it holds. Raises as `prefill` and `Decoding` do.
    """
    prefix = prefill(lm, prompt, bos)
    yield from Decoding(prefix, params, candidates=candidates, shared=False)


def generate(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = DEFAULT_CANDIDATES,
    bos: bool | None = None,
) -> Run:
    """Generate after `prompt` (text or token ids) to the end: header, steps and summary."""
    decoding = Decoding(prefill(lm, prompt, bos), params, candidates=candidates, shared=False)
    steps = tuple(decoding)
    return Run(decoding.header, steps, decoding.summary(), decoding.notices)


def library_versions() -> dict[str, str]:
    """The versions that a result can depend on."""
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


class memory:
    """Say what to do when memory runs out."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and out_of_memory(error):
            raise DecodeError(
                f"out of memory on {self.lm.info.device} while decoding", self.lm.what_fits()
            ) from error
