"""The decode loop: prefill, then sample → record → one-token forward, until something ends it.

    decoding = Decoding(prefill(lm, "The capital of Japan is"), SamplingParams(seed=0))
    for step in decoding: ...
    decoding.summary()

`decode` and `generate` are the short ways. Any number of decodings can start from one prefilled prompt.
"""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

import decodecli
from decodecli.decoding.cuda_graph import CudaGraphDecoder
from decodecli.decoding.observers import (
    ConstrainedMass,
    Explanations,
    Observer,
    Watches,
    WhatIfs,
)
from decodecli.decoding.prompt import PrefilledPrompt, out_of_memory_guard, prefill, run_context
from decodecli.models.detokenize import TextStream
from decodecli.models.loading import LanguageModel
from decodecli.models.supported import UnsupportedModel
from decodecli.ranges import SEED_LIMIT, check_positive
from decodecli.records.run import Run, RunHeader, RunSummary, Step, perplexity
from decodecli.sampling.chain import Chain
from decodecli.sampling.one_position import Distribution
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import unpack
from decodecli.settings import ChatParams, SamplingParams
from decodecli.stages import ignored_under_greedy

DEFAULT_CANDIDATES = 10


class Decoding:
    """One run: iterate for its steps, then ask for its `summary()`.

    Args:
        prompt: the prompt, run through the model.
        params: the decoding settings.
        seed: in place of that of `params`; where both are None, one is drawn. The header records it.
        candidates: how many rows a step lists.
        shared: whether other decodings start from the same prompt, so that its cache is copied.
        sources: where each value came from, for the header.
        recorded: further values to record in the header's params.
        on_logits: called with every step's logits, (vocab,) float32 on the CPU, before the step is
            yielded; the tensor is only valid during the call.
        what_if: other settings, by the words for them, whose draws each step records.
        watch: tokens, texts or ids, whose numbers each step records.
        explain: whether each step records why it took its token.
        observers: look at every step's logits and may add to its record.

    Iterating raises `DecodeError` when logits are not finite or memory runs out; the steps before
    stay valid, and `summary()` then says `error`. `backend` says afterwards how the steps were run: in
    a CUDA graph, directly, or by the model's own code, and then why.
    """

    def __init__(
        self,
        prompt: PrefilledPrompt,
        params: SamplingParams | None = None,
        *,
        seed: int | None = None,
        candidates: int = DEFAULT_CANDIDATES,
        shared: bool = True,
        sources: Mapping[str, str] | None = None,
        recorded: Mapping[str, Any] | None = None,
        on_logits: Callable[[Tensor], None] | None = None,
        what_if: Mapping[str, SamplingParams] | None = None,
        watch: Sequence[str | int] = (),
        explain: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.params = params or SamplingParams()
        self.prompt, self.lm = prompt, prompt.lm
        self.candidates = check_positive("candidates", candidates, "10 is the default", lowest=0)
        self.shared = shared
        self.on_logits = on_logits
        seed = self.params.seed if seed is None else seed
        self.seed = secrets.randbelow(SEED_LIMIT) if seed is None else seed
        self.chain = Chain(
            self.params, context=run_context(self.lm, self.params, prompt.ids, self.seed)
        )
        self.observers, forbidden = [*observers], self.chain.context.forbidden
        recorded = dict(recorded or {})
        if what_if:
            self.observers.append(WhatIfs(self.lm, prompt.ids, what_if, self.seed, forbidden))
            recorded["what_if"] = list(what_if)
        if watch:
            self.observers.append(Watches(self.lm, watch))
            recorded["watch"] = list(map(str, watch))
        if "constraint" in self.chain.order:
            self.observers.append(ConstrainedMass())
        if explain:
            self.observers.append(
                Explanations(self.lm, prompt.ids, self.params, self.seed, forbidden)
            )
            recorded["explain"] = True
        self.notices = self._notices()
        self.header = self._header(sources, recorded)
        self.finish_reason = "interrupted"  # until something better is known
        self.interrupted = False  # whether `interrupt` was called
        self.backend = ""  # how the steps are run, once they are
        self.seconds = 0.0  # spent on decoding so far
        self._stream = TextStream(self.lm.codec, prompt.ids, self.params.stop)
        room = self.params.max_new_tokens
        if self.lm.context is not None:
            room = min(room, self.lm.context - len(prompt.ids))
        self.max_new_tokens = room  # that there is also a context for
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._logprob_sum = 0.0

    def interrupt(self) -> None:
        """End the run after the step that is under way, as `interrupted`."""
        self.interrupted = True

    def __iter__(self) -> Iterator[Step]:
        try:
            with out_of_memory_guard(self.lm):
                graph = self._cuda_graph()
                yield from self._decode() if graph is None else self._read(graph)
        except Exception:
            self.finish_reason = "error"
            raise

    def _decode(self) -> Iterator[Step]:
        """The loop: a token is sampled, recorded and yielded, and goes through the model."""
        prompt, lm = self.prompt, self.lm
        runner = prompt.runner.fork() if self.shared else prompt.runner
        exact_ties = lm.info.dtype == "float32"
        sampler = Sampler(self.chain, self.candidates, lm.piece, self.seed, exact_ties)
        logits, ids = prompt.logits, torch.tensor([prompt.ids], device=prompt.logits.device)
        start = time.perf_counter()
        while True:
            observed = self._observed(logits, ids) if self.observers else {}
            token, sampled = sampler(logits, ids, len(self._tokens))
            if self.observers:
                sampled = replace(sampled, **observed)
                for observer in self.observers:
                    sampled = observer.drawn(sampled)
            if self.on_logits is not None:
                self.on_logits(logits[0].cpu())
            step = self.record(sampled)
            self.seconds = time.perf_counter() - start
            yield step
            if self.finish_reason != "going":
                return
            start = time.perf_counter() - self.seconds  # a slow reader is not the model's fault
            if self.chain.needs_history or self.observers:
                ids = torch.cat((ids, token), dim=1)
            logits = runner.step(token)
            self.backend = self.backend or runner.backend

    def _observed(self, logits: Tensor, ids: Tensor) -> dict[str, Any]:
        """What the observers add to the record of the step whose logits these are."""
        position = Distribution(logits, tuple(ids[0].tolist()), self.params, self.chain)
        fields: dict[str, Any] = {}
        for observer in self.observers:
            fields |= observer.observe(len(self._tokens), position)
        return fields

    def _read(self, graph: CudaGraphDecoder) -> Iterator[Step]:
        """The same where a GPU samples and runs the model, steps ahead of what is read here."""
        vocab, start = self.prompt.logits.shape[-1], time.perf_counter()
        for index, packed in enumerate(graph):
            step = self.record(
                unpack(packed, self.chain, self.candidates, vocab, self.lm.piece, index)
            )
            self.seconds = time.perf_counter() - start
            yield step
            if self.finish_reason != "going":
                return

    def _cuda_graph(self) -> CudaGraphDecoder | None:
        """On a GPU, the run that does not wait for its reader; None where it cannot be, and why."""
        prompt = self.prompt
        if prompt.logits.device.type != "cuda":
            return None
        try:
            if self.on_logits is not None or self.observers:
                raise UnsupportedModel("every step's logits are asked for")
            forward, cache = prompt.runner.written_out()
            graph = CudaGraphDecoder(
                forward, cache, prompt.logits, self.chain, self.candidates, self.seed,
                self.max_new_tokens,
            )  # fmt: skip
        except UnsupportedModel as unsupported:
            self.backend = f"a step at a time: {unsupported}"
            return None
        self.backend = graph.backend
        if not self.shared:  # the graph has a copy of its own
            prompt.runner.forget()
        return graph

    @property
    def ended(self) -> bool:
        """Whether the last recorded token ended the run."""
        return self.finish_reason in ("stop", "length")

    def record(self, step: Step) -> Step:
        """The sampled step with its position and text. Iterating does this; so does whoever runs the
        steps of many decodings together."""
        position = len(self.prompt.ids) + step.index
        return replace(step, position=position, text=self.add_token(step.token_id, step.logprob))

    def add_token(self, token_id: int, logprob: float) -> str:
        """What `record` does where no record of the step is wanted; returns the token's text."""
        self._tokens.append(token_id)
        self._logprob_sum += logprob
        text = self._stream.push(token_id)
        self.finish_reason = self._finish_reason(token_id)
        if self.finish_reason != "going":
            text += self._stream.finish()
        self._texts.append(text)
        return text

    def _finish_reason(self, token_id: int) -> str:
        if self._stream.stopped or token_id in self.lm.eos_ids:
            return "stop"
        constraint = self.chain.context.forbidden
        if constraint is not None and not self.lm.eos_ids and constraint.is_complete(self._tokens):
            return "stop"
        if len(self._tokens) >= self.max_new_tokens:
            if constraint is not None and not constraint.is_met(self._tokens):
                words = "the text ends before its constraint is met; -n allows more tokens"
                self.notices = (*self.notices, words)
            if self.max_new_tokens < self.params.max_new_tokens:
                full = f"the context of {self.lm.context:,} tokens is full; stopped there"
                self.notices = (*self.notices, full)
            return "length"
        return "interrupted" if self.interrupted else "going"

    def summary(self) -> RunSummary:
        """How the run ended so far."""
        if self.finish_reason == "error":  # what was held back is not lost
            self._texts.append(self._stream.finish())
        count = len(self._tokens)
        mean = self._logprob_sum / count if count else None
        seconds = self.prompt.seconds + self.seconds
        return RunSummary(
            text="".join(self._texts),
            token_ids=tuple(self._tokens),
            finish_reason="interrupted" if self.finish_reason == "going" else self.finish_reason,
            prompt_tokens=len(self.prompt.ids),
            new_tokens=count,
            mean_logprob=mean,
            perplexity=perplexity(mean),
            seconds={
                "load": self.lm.load_seconds,
                "prefill": self.prompt.seconds,
                "decode": self.seconds,
            },
            tokens_per_second=count / seconds if count and seconds > 0 else None,
        )

    def _header(self, sources: Mapping[str, str] | None, recorded: dict[str, Any]) -> RunHeader:
        values = self.params.as_dict()
        if sources is None:
            defaults = SamplingParams().as_dict()
            sources = {
                name: "default" if value == defaults.get(name) else "flag"
                for name, value in values.items()
            }
        return RunHeader(
            decodecli=decodecli.__version__,
            versions=dict(library_versions()),
            model=self.lm.info,
            prompt=self.prompt.text,
            prompt_ids=self.prompt.ids,
            params={**values, **recorded, "seed": self.seed},
            sources=dict(sources),
            order=self.chain.order,
            seed=self.seed,
        )

    def _notices(self) -> tuple[str, ...]:
        ignored = ", ".join(ignored_under_greedy(self.params))
        if not ignored:
            return ()
        return (f"greedy decoding takes the most probable token: {ignored} has no effect",)


def decode(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = DEFAULT_CANDIDATES,
    bos: bool | None = None,
    chat: ChatParams | None = None,
    what_if: Mapping[str, SamplingParams] | None = None,
    watch: Sequence[str | int] = (),
    explain: bool = False,
) -> Iterator[Step]:
    """Generate after `prompt` (text or token ids), one `Step` at a time.

    Closing the iterator early frees what it holds. Raises as `prefill` and `Decoding` do.
    """
    prefix = prefill(lm, prompt, bos, chat)
    yield from Decoding(
        prefix, params, candidates=candidates, shared=False,
        what_if=what_if, watch=watch, explain=explain,
    )  # fmt: skip


def generate(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    params: SamplingParams | None = None,
    *,
    candidates: int = DEFAULT_CANDIDATES,
    bos: bool | None = None,
    chat: ChatParams | None = None,
    what_if: Mapping[str, SamplingParams] | None = None,
    watch: Sequence[str | int] = (),
    explain: bool = False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Generate after `prompt` (text or token ids) to the end: header, steps and summary."""
    prefix, recorded = prefill(lm, prompt, bos, chat), chat.as_dict() if chat else {}
    decoding = Decoding(
        prefix, params, recorded=recorded, candidates=candidates, shared=False,
        what_if=what_if, watch=watch, explain=explain, observers=observers,
    )  # fmt: skip
    steps = tuple(decoding)
    return Run(decoding.header, steps, decoding.summary(), decoding.notices)


@cache  # reading them takes as long as ten steps
def library_versions() -> dict[str, str]:
    """The versions that a result can depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }
