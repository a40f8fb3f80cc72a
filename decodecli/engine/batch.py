"""Many runs from one model at once: as many rows as there is room for, each with its own settings.

Rows share the forward passes (`together`) and nothing else: prompt, settings, seed, noise and text are
each row's own, and a row that ends gives its place to the next job at once. The tokens are those that
`decode` gives for the same job alone. Sharing rounds a layer's sums differently, though, by some 1e-5
of a logit in float32; so every draw that logits this far off could turn over counts as doubtful, and a
job with a doubtful draw is run again alone, which takes about one job in a hundred. In 16-bit types
the rounding is coarser than many draws' margins, and nothing of the kind is done: there only `exact`,
which runs every job alone, keeps the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decodecli.engine.decode import Decoding, Prefix, memory
from decodecli.engine.direct import Unknown
from decodecli.engine.draws import Draw, Draws
from decodecli.engine.loading import LanguageModel
from decodecli.engine.observe import Observation, finished
from decodecli.engine.sampler import Sampler
from decodecli.engine.together import Together
from decodecli.errors import DecodecliError, DecodeError
from decodecli.records import RunHeader, RunSummary, Step
from decodecli.settings import SamplingParams

TOLERANCE = 5e-5  # of a logit in float32; five times what was seen


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
                Together(lm.model, size)
            except Unknown as unknown:
                self.why_alone = str(unknown)
        careful = lm.info.dtype == "float32" and lm.info.device == "cpu"
        self.tolerance = TOLERANCE if careful else 0.0

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Done]:
        """The jobs, as they end. One is taken from `jobs` when there is a row for it.

        Raises:
            DecodeError: memory ran out.
        """
        if self.why_alone:
            for job in jobs:
                yield self._alone(job)
            return
        rows = _Rows(self)
        with memory(self.lm):
            waiting = iter(jobs)
            while rows.fill(waiting):
                for row in rows.step():
                    if row.sampler.doubtful:
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
        self.ids: Tensor | None = None
        if chain.needs_history:
            self.ids = torch.tensor([job.prefix.ids], device=job.prefix.logits.device)

    def take(self, drawn: Draw | Observation, chosen: Tensor) -> None:
        """Count a drawn token in; `chosen` is the same, (1, 1)."""
        if isinstance(drawn, Draw):
            text = self.decoding.add(drawn.token_id, drawn.logprob)
            self.note(text, drawn.logprob, drawn.entropy)
        else:
            step = self.decoding.take(drawn)
            self.note(step.text, step.logprob, step.entropy, step)
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
        return self.decoding.over or self.sampler.doubtful or self.error is not None

    def done(self) -> Done:
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
        self.forward = Together(batch.lm.model, batch.size)
        self.draws = None if batch.candidates is not None else Draws()
        self.rows: list[_Row] = []
        self.logits = torch.empty(0)  # (rows, vocab), not yet drawn from

    @torch.inference_mode()
    def fill(self, waiting: Iterator[Job]) -> bool:
        """Start jobs in all free rows; returns whether there is anything to do."""
        fresh: list[Tensor] = []
        while len(self.rows) < self.batch.size:
            job = next(waiting, None)
            if job is None:
                break
            self.forward.put(len(self.rows), job.prefix.forward.cache(), len(job.prefix.ids))
            self.rows.append(_Row(job, self.batch))
            fresh.append(job.prefix.logits)
        if fresh:
            before = [self.logits] if len(self.rows) > len(fresh) else []
            self.logits = torch.cat((*before, *fresh))
        return bool(self.rows)

    @torch.inference_mode()
    def step(self) -> list[_Row]:
        """Draw a token in every row, then run those that go on through the model; returns those that
        have ended, or are doubtful."""
        chosen = self._draw()
        ended = [number for number, row in enumerate(self.rows) if row.ended]
        left = [self.rows[number] for number in ended]
        self.batch.on_tokens(sum(not (row.sampler.doubtful or row.error) for row in self.rows))
        places = list(range(len(self.rows)))
        for number in reversed(ended):  # the last row takes the place of one that ends
            self.forward.drop(number)
            for rows in (self.rows, places):
                last = rows.pop()
                if number < len(rows):
                    rows[number] = last  # type: ignore[call-overload]
        if self.rows:
            self.logits = self.forward(chosen[places])
        return left

    def _draw(self) -> Tensor:
        """A token for every row, which has taken it; (rows, 1)."""
        if self.logits.device.type != "cpu":
            return self._draw_there()
        samplers = [row.sampler for row in self.rows]
        shared = self.draws(samplers, self.logits) if self.draws else [None] * len(samplers)
        chosen = torch.zeros((len(samplers), 1), dtype=torch.long)
        for number, (row, drawn) in enumerate(zip(self.rows, shared, strict=True)):
            if drawn is not None:
                row.sampler.doubtful, seen = drawn.doubtful, drawn
                token = torch.tensor([[drawn.token_id]])
            else:
                try:
                    logits = self.logits[number : number + 1]
                    token, seen = row.sampler(logits, row.ids, len(row.logprobs))
                except DecodeError as error:
                    row.error = error
                    continue
            if not row.sampler.doubtful:
                row.take(seen, token)
                chosen[number] = token
        return chosen

    def _draw_there(self) -> Tensor:
        """The same on a device that works on while nobody waits: the host looks once, at the end."""
        launched = [
            row.sampler.launch(self.logits[number : number + 1], row.ids)
            for number, row in enumerate(self.rows)
        ]
        measured = torch.stack([found for _, found in launched]).cpu().numpy()
        for row, (token, _), found in zip(self.rows, launched, measured, strict=True):
            sampler, vocab = row.sampler, self.logits.shape[-1]
            try:
                seen = finished(
                    found, sampler.chain, sampler.count, vocab, sampler.piece, len(row.logprobs)
                )
            except DecodeError as error:
                row.error = error
            else:
                row.take(seen, token)
        return torch.cat([token for token, _ in launched])
