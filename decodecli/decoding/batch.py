"""Continuous batching: as many requests at once as there are rows, each with its own settings.

Rows share the forward passes (`BatchedForward`) and nothing else: prompt, settings, seed, noise and text
are each row's own, and a row that ends gives its place to the next request at once. The tokens are those
that `decode` gives for the same request alone. Sharing rounds a layer's sums differently, though, by
some 1e-5 of a logit in float32; so every draw that logits this far off could turn over counts as
ambiguous, and a request with an ambiguous draw is run again alone, which takes about one in a hundred.
In 16-bit types the rounding is coarser than many draws' margins, and nothing of the kind is done: there
only `exact`, which runs every request alone, keeps the promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import PrefilledPrompt, out_of_memory_guard
from decodecli.errors import DecodecliError, DecodeError
from decodecli.models.batched_forward import BatchedForward
from decodecli.models.loading import LanguageModel
from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.sampling.batched import BatchedSampler, SampledToken
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import unpack
from decodecli.settings import SamplingParams

# Of a logit in float32; `truncation` allows for more where logits are large.
TOLERANCE = 5e-5
_NO_MORE: Any = object()


@dataclass(frozen=True)
class Request:
    """One run to be done: `params` with an integer seed, after `prompt`; `key` is the caller's own.
    `recorded`: further values for the header's params."""

    key: Any
    prompt: PrefilledPrompt
    params: SamplingParams
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestOutput:
    """How a request ended.

    segments, logprobs, entropies: for each token the text that it added, and its logprob and the
        entropy at temperature 1, nats.
    steps: the whole record, where it was asked for.
    error: what stopped it; everything else is what there was until then.
    """

    request: Request
    header: RunHeader
    summary: RunSummary
    segments: tuple[str, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    steps: tuple[Step, ...]
    error: DecodecliError | None


class Batch:
    """Runs requests together.

    Args:
        lm: the model that all prompts have been through.
        size: how many rows decode at once.
        candidates: how many rows every step's record lists; None to keep no records of steps.
        exact: run every request alone, as `decode` does; the tokens are then the same by construction.
        on_tokens: called with the number of tokens that a pass has added; less than 0 where a request
            begins again.

    `fallback_reason` says why rows do not share passes, and is empty where they do. `reruns` counts the
    requests that were run a second time, alone.
    """

    def __init__(
        self,
        lm: LanguageModel,
        size: int,
        *,
        candidates: int | None = None,
        exact: bool = False,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        self.lm, self.size, self.candidates = lm, size, candidates
        self.on_tokens = on_tokens or (lambda count: None)
        self.fallback_reason = "asked for" if exact else "one row at a time" if size == 1 else ""
        self.reruns = 0
        if not self.fallback_reason:
            self.fallback_reason = lm.runner().fallback_reason or ""
        checked = lm.info.dtype == "float32" and lm.info.device == "cpu"
        self.tolerance = TOLERANCE if checked else 0.0

    def __call__(self, requests: Iterable[Request | None]) -> Iterator[RequestOutput | None]:
        """The outputs, as requests end. A request is taken when there is a row for it.

        A None among the requests says that there is none just now: rows that are under way go on, and
        where there are none, a None is given back.

        Raises:
            DecodeError: memory ran out.
        """
        if self.fallback_reason:
            for request in requests:
                yield None if request is None else self._run_alone(request)
            return
        with out_of_memory_guard(self.lm):
            for row in _Rows(self).run(iter(requests)):
                if row is None:
                    yield None
                elif row.sampler.ambiguous:
                    self.reruns += 1
                    self.on_tokens(-len(row.logprobs))
                    yield self._run_alone(row.request)
                else:
                    yield row.output()

    def _run_alone(self, request: Request) -> RequestOutput:
        row = _Row(request, self)
        try:
            for step in row.decoding:
                row.append(step.text, step.logprob, step.entropy, step)
                self.on_tokens(1)
        except DecodeError as error:
            if error.__cause__ is not None:  # memory, which concerns all
                raise
            row.error = error
        return row.output()


class _Row:
    """One request under way."""

    def __init__(self, request: Request, batch: Batch) -> None:
        self.request = request
        prompt, lm, count = request.prompt, batch.lm, batch.candidates or 0
        self.decoding = Decoding(
            prompt, request.params, candidates=count, recorded=request.recorded
        )
        self.sampler = Sampler(
            self.decoding.chain, count, lm.piece, self.decoding.seed,
            exact_ties=lm.info.dtype == "float32", tolerance=batch.tolerance,
        )  # fmt: skip
        self.keeps_steps = batch.candidates is not None
        self.segments: list[str] = []
        self.logprobs: list[float] = []
        self.entropies: list[float] = []
        self.steps: list[Step] = []
        self.error: DecodecliError | None = None
        self.start = time.perf_counter()
        self.logits = self.token = prompt.logits  # (1, vocab), and the token drawn, (1, 1)
        self.ids: Tensor | None = None
        if self.decoding.chain.needs_history:
            self.ids = torch.tensor([prompt.ids], device=prompt.logits.device)

    def take(self, sampled: SampledToken | Step, token: Tensor) -> None:
        """Count a sampled token in; `token` is the same, (1, 1)."""
        if isinstance(sampled, SampledToken):
            text = self.decoding.add_token(sampled.token_id, sampled.logprob)
            self.append(text, sampled.logprob, sampled.entropy)
        else:
            step = self.decoding.record(sampled)
            self.append(step.text, step.logprob, step.entropy, step)
        self.token = token
        if self.ids is not None:
            self.ids = torch.cat((self.ids, token), dim=1)

    def append(self, text: str, logprob: float, entropy: float, step: Step | None = None) -> None:
        self.segments.append(text)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        if self.keeps_steps and step is not None:
            self.steps.append(step)

    @property
    def ended(self) -> bool:
        return self.decoding.ended or self.sampler.ambiguous or self.error is not None

    def output(self) -> RequestOutput:
        self.decoding.seconds = time.perf_counter() - self.start
        if self.error is not None:
            self.decoding.finish_reason = "error"
        return RequestOutput(
            self.request,
            self.decoding.header,
            self.decoding.summary(),
            tuple(self.segments),
            tuple(self.logprobs),
            tuple(self.entropies),
            tuple(self.steps),
            self.error,
        )


class _Rows:
    """The rows of a batch and what they decode on."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        forward = batch.lm.runner().forward
        assert forward is not None, batch.fallback_reason
        self.forward = BatchedForward(forward, batch.size)
        self.batched_sampler = None if batch.candidates is not None else BatchedSampler()
        self.rows: list[_Row] = []
        self.exhausted = False  # whether there are no more requests

    @torch.inference_mode()
    def run(self, waiting: Iterator[Request | None]) -> Iterator[_Row | None]:
        """Every request's row when it has ended, or is ambiguous. A token is sampled in every row, in
        those that take the place of ended ones too, before all go through the model."""
        while True:
            sampling = [*self.rows, *self._fill(waiting)]
            if not sampling and self.exhausted:
                return
            if not sampling:
                yield None
            while sampling:
                self._sample(sampling)
                for row in [row for row in sampling if row.ended]:
                    self._remove(row)
                    yield row
                sampling = self._fill(waiting)
            if self.rows:
                logits = self.forward(torch.cat([row.token for row in self.rows]))
                for row, row_logits in zip(self.rows, logits.split(1), strict=True):
                    row.logits = row_logits

    def _fill(self, waiting: Iterator[Request | None]) -> list[_Row]:
        """Start requests in all free rows, as far as there are any."""
        started: list[_Row] = []
        while len(self.rows) < self.batch.size and not self.exhausted:
            request = next(waiting, _NO_MORE)
            self.exhausted = request is _NO_MORE
            if request is None or self.exhausted:
                break
            prompt = request.prompt
            self.forward.add_row(len(self.rows), prompt.runner.written_out()[1])
            started.append(_Row(request, self.batch))
            self.rows.append(started[-1])
        return started

    def _remove(self, row: _Row) -> None:
        """End a row; the last one moves there."""
        index = self.rows.index(row)
        self.forward.remove_row(index)
        last = self.rows.pop()
        if last is not row:
            self.rows[index] = last

    def _sample(self, rows: list[_Row]) -> None:
        """A token in each of `rows`, unless it is ambiguous or fails."""
        if rows[0].logits.device.type == "cpu":
            self._sample_on_cpu(rows)
        else:
            self._sample_on_device(rows)
        self.batch.on_tokens(sum(not (row.sampler.ambiguous or row.error) for row in rows))

    def _sample_on_cpu(self, rows: list[_Row]) -> None:
        together: list[SampledToken | None] = [None] * len(rows)
        if self.batched_sampler is not None:
            logits = torch.cat([row.logits for row in rows])
            together = self.batched_sampler([row.sampler for row in rows], logits)
        for row, sampled in zip(rows, together, strict=True):
            if sampled is not None:
                row.sampler.ambiguous = sampled.ambiguous
                if not sampled.ambiguous:
                    row.take(sampled, torch.tensor([[sampled.token_id]]))
                continue
            try:
                token, step = row.sampler(row.logits, row.ids, len(row.logprobs))
            except DecodeError as error:
                row.error = error
            else:
                if not row.sampler.ambiguous:
                    row.take(step, token)

    def _sample_on_device(self, rows: list[_Row]) -> None:
        """On a device that works on while nobody waits: the host looks once, at the end."""
        launched = [row.sampler.launch(row.logits, row.ids) for row in rows]
        packed_rows = torch.stack([packed for _, packed in launched]).cpu().numpy()
        for row, (token, _), packed in zip(rows, launched, packed_rows, strict=True):
            sampler, vocab = row.sampler, row.logits.shape[-1]
            try:
                step = unpack(
                    packed, sampler.chain, sampler.count, vocab, sampler.piece, len(row.logprobs)
                )
            except DecodeError as error:
                row.error = error
            else:
                row.take(step, token)
