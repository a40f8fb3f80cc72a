"""Many runs from one model at once: as many rows as there is room for, each with its own settings.

Rows share the forward passes (`together`) and nothing else: prompt, settings, seed, noise and text are
each row's own, and a row that ends gives its place to the next job at once. The tokens are those that
`decode` gives for the same job alone. Sharing rounds a layer's sums differently, though, by some 1e-5
of a logit in float32; so every draw that logits this far off could turn over counts as ambiguous, and a
job with an ambiguous draw is run again alone, which takes about one job in a hundred. In 16-bit types
the rounding is coarser than many draws' margins, and nothing of the kind is done: there only `exact`,
which runs every job alone, keeps the promise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decodecli.decoding.decode import Decoding, Prefix, memory
from decodecli.errors import DecodecliError, DecodeError
from decodecli.models.batched_forward import BatchedForward
from decodecli.models.loading import LanguageModel
from decodecli.models.supported import UnsupportedModel
from decodecli.records.run import RunHeader, RunSummary, Step
from decodecli.sampling.batched import BatchedSampler, SampledToken
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import StepStatistics, unpack
from decodecli.settings import SamplingParams

# Of a logit in float32; `truncation` allows for more where logits are large.
TOLERANCE = 5e-5
_END: Any = object()


@dataclass(frozen=True)
class Job:
    """One run to be done: `params` with an integer seed, after the prompt of `prefix`; `key` is the
    caller's own. `recorded`: further values for the header's params."""

    key: Any
    prefix: Prefix
    params: SamplingParams
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Done:
    """How a job ended.

    segments, logprobs, entropies: for each token the text that it added, and its logprob and the
        entropy at temperature 1, nats.
    steps: the whole record, where it was asked for.
    error: what stopped it; everything else is what there was until then.
    """

    job: Job
    header: RunHeader
    summary: RunSummary
    segments: tuple[str, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    steps: tuple[Step, ...] = ()
    error: DecodecliError | None = None


class Batch:
    """Runs jobs together.

    Args:
        lm: the model that all prefixes come from.
        size: how many rows decode at once.
        candidates: how many rows every step's record lists; None to keep no records of steps.
        exact: run every job alone, as `decode` does; the tokens are then the same by construction.
        on_tokens: called with the number of tokens that a pass has added; less than 0 where a job
            begins again.

    `why_alone` says why rows do not share passes, and is empty where they do. `again` counts the jobs
    that were run a second time, alone.
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
        self.why_alone = "asked for" if exact else "one row at a time" if size == 1 else ""
        self.again = 0
        if not self.why_alone:
            try:
                BatchedForward(lm.model, size)
            except UnsupportedModel as unknown:
                self.why_alone = str(unknown)
        careful = lm.info.dtype == "float32" and lm.info.device == "cpu"
        self.tolerance = TOLERANCE if careful else 0.0

    def __call__(self, jobs: Iterable[Job | None]) -> Iterator[Done | None]:
        """The jobs, as they end. One is taken from `jobs` when there is a row for it.

        A None among the jobs says that there is none just now: rows that are under way go on, and
        where there are none, a None is given back.

        Raises:
            DecodeError: memory ran out.
        """
        if self.why_alone:
            for job in jobs:
                yield None if job is None else self._alone(job)
            return
        with memory(self.lm):
            for row in _Rows(self).run(iter(jobs)):
                if row is None:
                    yield None
                elif row.sampler.ambiguous:
                    self.again += 1
                    self.on_tokens(-len(row.logprobs))
                    yield self._alone(row.job)
                else:
                    yield row.done()

    def _alone(self, job: Job) -> Done:
        row = _Row(job, self)
        try:
            for step in row.decoding:
                row.note(step.text, step.logprob, step.entropy, step)
                self.on_tokens(1)
        except DecodeError as error:
            if error.__cause__ is not None:  # memory, which concerns all
                raise
            row.error = error
        return row.done()


class _Row:
    """One job under way."""

    def __init__(self, job: Job, batch: Batch) -> None:
        self.job = job
        self.recorded = batch.candidates is not None
        count = batch.candidates or 0
        self.decoding = Decoding(job.prefix, job.params, candidates=count, recorded=job.recorded)
        lm, chain = batch.lm, self.decoding.chain
        exact_ties = lm.info.dtype == "float32"
        self.sampler = Sampler(
            chain, count, lm.piece, self.decoding.seed, exact_ties, batch.tolerance
        )
        self.segments: list[str] = []
        self.logprobs: list[float] = []
        self.entropies: list[float] = []
        self.steps: list[Step] = []
        self.error: DecodecliError | None = None
        self.began = time.perf_counter()
        self.logits = self.chosen = job.prefix.logits  # (1, vocab), and the token drawn, (1, 1)
        self.ids: Tensor | None = None
        if chain.needs_history:
            self.ids = torch.tensor([job.prefix.ids], device=job.prefix.logits.device)

    def take(self, drawn: SampledToken | StepStatistics, chosen: Tensor) -> None:
        """Count a drawn token in; `chosen` is the same, (1, 1)."""
        if isinstance(drawn, SampledToken):
            text = self.decoding.add(drawn.token_id, drawn.logprob)
            self.note(text, drawn.logprob, drawn.entropy)
        else:
            step = self.decoding.take(drawn)
            self.note(step.text, step.logprob, step.entropy, step)
        self.chosen = chosen
        if self.ids is not None:
            self.ids = torch.cat((self.ids, chosen), dim=1)

    def note(self, text: str, logprob: float, entropy: float, step: Step | None = None) -> None:
        self.segments.append(text)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        if self.recorded and step is not None:
            self.steps.append(step)

    @property
    def ended(self) -> bool:
        return self.decoding.over or self.sampler.ambiguous or self.error is not None

    def done(self) -> Done:
        self.decoding.lasted(time.perf_counter() - self.began)
        if self.error is not None:
            self.decoding.finish_reason = "error"
        summary = self.decoding.summary()
        return Done(
            self.job,
            self.decoding.header,
            summary,
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
        self.forward = BatchedForward(batch.lm.model, batch.size)
        self.batched_sampler = None if batch.candidates is not None else BatchedSampler()
        self.rows: list[_Row] = []
        self.exhausted = False  # whether there are no more jobs

    def run(self, waiting: Iterator[Job | None]) -> Iterator[_Row | None]:
        """Every job's row when it has ended, or is ambiguous. A token is drawn in every row, in those
        that take the place of ended ones too, before all go through the model."""
        while True:
            drawing = [*self.rows, *self._fill(waiting)]
            if not drawing and self.exhausted:
                return
            if not drawing:
                yield None
            while drawing:
                self._draw(drawing)
                for row in drawing:
                    if row.ended:
                        self._take_out(row)
                        yield row
                drawing = self._fill(waiting)
            self._pass()

    @torch.inference_mode()
    def _fill(self, waiting: Iterator[Job | None]) -> list[_Row]:
        """Start jobs in all free rows, as far as there are any."""
        started: list[_Row] = []
        while len(self.rows) < self.batch.size and not self.exhausted:
            job = next(waiting, _END)
            self.exhausted = job is _END
            if job is None or self.exhausted:
                break
            self.forward.put(len(self.rows), job.prefix.forward.cache(), len(job.prefix.ids))
            started.append(_Row(job, self.batch))
            self.rows.append(started[-1])
        return started

    def _take_out(self, row: _Row) -> None:
        """End a row; the last one moves there."""
        number = self.rows.index(row)
        self.forward.drop(number)
        last = self.rows.pop()
        if last is not row:
            self.rows[number] = last

    @torch.inference_mode()
    def _pass(self) -> None:
        if self.rows:
            logits = self.forward(torch.cat([row.chosen for row in self.rows]))
            for row, own in zip(self.rows, logits.split(1), strict=True):
                row.logits = own

    @torch.inference_mode()
    def _draw(self, rows: list[_Row]) -> None:
        """A token in each of `rows`, unless it is ambiguous or fails."""
        if rows[0].logits.device.type == "cpu":
            self._sample_on_cpu(rows)
        else:
            self._sample_on_device(rows)
        self.batch.on_tokens(sum(not (row.sampler.ambiguous or row.error) for row in rows))

    def _sample_on_cpu(self, rows: list[_Row]) -> None:
        shared: list[Any] = [None] * len(rows)
        if self.batched_sampler is not None:
            logits = torch.cat([row.logits for row in rows])
            shared = list(self.batched_sampler([row.sampler for row in rows], logits))
        for row, drawn in zip(rows, shared, strict=True):
            if drawn is not None:
                row.sampler.ambiguous = drawn.ambiguous
                chosen = torch.tensor([[drawn.token_id]])
            else:
                try:
                    chosen, drawn = row.sampler(row.logits, row.ids, len(row.logprobs))
                except DecodeError as error:
                    row.error = error
                    continue
            if not row.sampler.ambiguous:
                row.take(drawn, chosen)

    def _sample_on_device(self, rows: list[_Row]) -> None:
        """On a device that works on while nobody waits: the host looks once, at the end."""
        launched = [row.sampler.launch(row.logits, row.ids) for row in rows]
        packed_rows = torch.stack([packed for _, packed in launched]).cpu().numpy()
        for row, (chosen, _), packed in zip(rows, launched, packed_rows, strict=True):
            sampler, vocab = row.sampler, row.logits.shape[-1]
            try:
                statistics = unpack(
                    packed, sampler.chain, sampler.count, vocab, sampler.piece, len(row.logprobs)
                )
            except DecodeError as error:
                row.error = error
            else:
                row.take(statistics, chosen)
