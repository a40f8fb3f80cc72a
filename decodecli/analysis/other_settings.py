"""A recorded run under other settings: what each step's distribution and draw would have been.

With the logits that `generate --save-logits` wrote, or a trace that lists the whole vocabulary, all of it
is exact. From a few candidates it is as far as they tell. A row's logprob says what the softmax's sum at
temperature 1 is, and so the mass m of the U tokens that are not listed; the weight exp(logit − highest)
of each is at most the last listed, c. At temperature T, with b = 1 / T, the sum of their weights lies
between m·c^(b−1) and U·(m/U)^b, whichever is the greater (Jensen's inequality). And their noise is known,
which bounds what they can win a draw with. What these bounds leave open is None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from decodecli.decoding.observers import Observer
from decodecli.errors import UsageError
from decodecli.records.run import RunHeader, Step, WhatIf
from decodecli.sampling.chain import Chain, RunContext
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.one_position import Distribution
from decodecli.sampling.sampler import Sampler
from decodecli.settings import SamplingParams

# Whose outcome a few candidates may tell, in this order.
_BOUNDED = ("temperature", "top_k", "top_p", "min_p")
_OF_THE_MODEL = ("constraint", "logit_bias", "dry_multiplier", "bad_words", "min_new_tokens")
_SLACK = 2e-5  # what recorded logprobs may be off, and masses with them
_CLEAR = 1e-4  # by how much, in logits, a draw must be won
_KNOWN = 1e-3  # nats within which bounds of a logprob are a number


class OtherSettings:
    """The steps of one recorded run under other settings, taken in order from the first.

    words: what the settings are called, "" for the recorded ones. logits: (steps, vocab) float32; None
    where they were not saved. piece: spells a token id. count: candidates that a step lists.
    observer: told of each step's distribution, where its logits are known.

    Raises:
        UsageError: the settings need the model; the logits are not of this run.
    """

    def __init__(
        self,
        header: RunHeader,
        words: str,
        params: SamplingParams,
        logits: Any,
        piece: Callable[[int], str],
        count: int,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._header, self._words, self._params, self._logits = header, words, params, logits
        self._piece, self._count, self._vocab = piece, count, header.model.vocab_size
        seed = header.seed if params.seed is None else params.seed
        self._chain = Chain(params, context=RunContext(len(header.prompt_ids), seed=seed))
        for name in _OF_THE_MODEL:
            if name in self._chain.order:
                raise UsageError(
                    f"{name} needs the model's tokenizer, which replay does without",
                    "generate with these settings and this seed again",
                )
        if logits is not None and (logits.ndim != 2 or logits.shape[1] != self._vocab):
            raise UsageError(
                f"the logits have the shape {logits.shape}, and the vocabulary {self._vocab:,} tokens",
                "give the file that --save-logits wrote beside this trace",
            )
        self.exact = logits is not None
        exact_ties = header.model.dtype == "float32"
        self._sampler = Sampler(self._chain, 0, piece, seed, exact_ties)
        # A GPU's generator gives other noise than a CPU's.
        self._has_noise = header.model.device == "cpu" or self._chain.greedy
        self._noise: ExponentialNoise | None = None
        if self._has_noise and not self._chain.greedy:
            self._noise = ExponentialNoise(seed, self._vocab, torch.device("cpu"))
        self._ids = list(header.prompt_ids)
        self._may_mark = True  # whether a divergence would be the first

    @property
    def header(self) -> RunHeader:
        """The run's, with the settings that its steps are shown under."""
        if not self.exact or not self._words:
            return self._header
        params = {**self._header.params, **self._params.as_dict(), "seed": self._header.seed}
        return replace(self._header, params=params, order=self._chain.order)

    def __call__(self, step: Step) -> Step:
        """The step with the draw of the other settings in `what_if`. Where its logits are known, its
        numbers are those of the recorded token under them; a final_logprob is −1e308 where it is removed.
        """
        index = len(self._ids) - len(self._header.prompt_ids)
        if step.index != index:
            raise UsageError(f"the trace lacks step {index + 1}", "record the run again")
        row = self._row(step)
        shown, other = self._bounds(step) if row is None else self._compute(step, row)
        diverges = other.token_id not in (None, step.token_id)
        other = replace(other, first_divergence=diverges and self._may_mark)
        self._may_mark = self._may_mark and other.token_id == step.token_id
        self._ids.append(step.token_id)
        return replace(shown, what_if=(other,)) if self._words else step

    def _row(self, step: Step) -> np.ndarray | None:
        if self._logits is None:
            if len(step.candidates) < self._vocab:
                return None
            row = np.empty(self._vocab, np.float32)
            for candidate in step.candidates:
                row[candidate.token_id] = candidate.logit
            return row
        if step.index >= len(self._logits):
            raise UsageError(
                f"the logits end at step {len(self._logits)}", "the trace goes on without them"
            )
        row = np.array(self._logits[step.index], np.float32)
        if abs(float(row[step.token_id]) - step.logit) > 1e-4 * max(abs(step.logit), 1.0):
            raise UsageError(
                f"the logits of step {step.index + 1} are not those of this run",
                "give the file that --save-logits wrote beside this trace",
            )
        return row

    def _compute(self, step: Step, row: np.ndarray) -> tuple[Step, WhatIf]:
        logits, ids = torch.from_numpy(row)[None], torch.tensor([self._ids])
        distribution = Distribution(logits, tuple(self._ids), self._params, self._chain)
        shown = distribution.step(step.index, step.token_id, self._piece, self._count)
        shown = replace(shown, position=step.position, text=step.text)
        if self._observer is not None:
            self._observer.observe(step.index, distribution)
            self._observer.drawn(shown)
        if not self._has_noise or not self._words:
            return shown, replace(self._unknown, kept=shown.kept)
        _, drawn = self._sampler(logits, ids, step.index)
        return shown, WhatIf(
            self._words, drawn.token_id, drawn.token, drawn.rank,
            drawn.logprob, drawn.final_logprob, drawn.kept, False,
        )  # fmt: skip

    @property
    def _unknown(self) -> WhatIf:
        return WhatIf(self._words, None, None, None, None, None, None, False)

    def _bounds(self, step: Step) -> tuple[Step, WhatIf]:
        noise = None if self._noise is None else self._noise.full()[0].numpy()
        if self._chain.greedy and self._chain.order == ("greedy",):
            first = step.candidates[0]
            return step, WhatIf(
                self._words, first.token_id, first.token, 1, first.logprob, 0.0, 1, False
            )
        if list(self._chain.order) != [name for name in _BOUNDED if name in self._chain.order]:
            return step, self._unknown
        bounds = _Bounds.of(step, self._params, self._vocab)
        exact = bounds.sure.sum() == bounds.possible.sum() and not bounds.unlisted_possible
        kept = int(bounds.sure.sum()) if exact else self._vocab if not self._chain.filters else None
        winner = None if noise is None else bounds.winner(step, noise)
        if winner is None:
            return step, replace(self._unknown, kept=kept)
        row = step.candidates[winner]
        return step, WhatIf(
            self._words, row.token_id, row.token, row.rank,
            row.logprob, bounds.logprob(winner), kept, False,
        )  # fmt: skip


@dataclass(frozen=True)
class _Bounds:
    """What is known of a step's weights exp((logit − highest) / T) under some filters.

    weights: of the listed tokens. sure, possible: which of them are kept for certain, and perhaps.
    unlisted_possible: whether one that is not listed may be kept. unlisted: at least and at most the sum
    of their kept weights. cap: the greatest weight that one of them may have.
    """

    weights: np.ndarray
    sure: np.ndarray
    possible: np.ndarray
    unlisted_possible: bool
    unlisted: tuple[float, float]
    cap: float

    @classmethod
    def of(cls, step: Step, params: SamplingParams, vocab: int) -> _Bounds:
        rows = step.candidates
        logits = np.array([row.logit for row in rows])
        weights = np.exp((logits - logits[0]) / params.temperature)
        # The chosen token may stand behind the highest ones.
        head = len(rows) - (rows[-1].rank > len(rows) and len(rows) > 1)
        count, cap = vocab - len(rows), float(weights[head - 1])
        low, high = _unlisted_sum(step, logits, head, count, params.temperature)
        sure = np.ones(len(rows), bool)
        possible, unlisted = sure.copy(), count > 0
        if params.top_k:
            is_clear = params.top_k < head and logits[params.top_k - 1] > logits[head - 1]
            if is_clear or not unlisted:
                keep = logits >= logits[min(params.top_k, len(rows)) - 1]
                sure, possible, unlisted, low, high = keep, keep.copy(), False, 0.0, 0.0
            else:
                low = 0.0
                sure[min(params.top_k, head) :] = False
        if params.top_p < 1:
            before = np.concatenate(([0.0], np.cumsum(weights[:-1] * possible[:-1])))
            total = float(weights[possible].sum())
            least, most = float(weights[sure].sum()) + low, total + high
            sure &= before / least < params.top_p - _SLACK
            possible &= before / most < params.top_p + _SLACK
            sure[0] = possible[0] = True
            if head < len(rows) and unlisted:  # others stand before the last
                sure[-1] = False
            if not possible[head - 1] or float(before[head - 1] + weights[head - 1]) / most >= (
                params.top_p + _SLACK
            ):
                possible[head:], sure[head:], unlisted = False, False, False
            low, high = 0.0, high if unlisted else 0.0
        if params.min_p:
            sure &= weights >= params.min_p * (1 + _SLACK)
            possible &= weights >= params.min_p * (1 - _SLACK)
            if cap < params.min_p * (1 - _SLACK):
                unlisted, high = False, 0.0
            low = 0.0
        return cls(weights, sure, possible, unlisted, (low, high if unlisted else 0.0), cap)

    def winner(self, step: Step, noise: np.ndarray) -> int | None:
        """The row that the draw takes; None where another token may win it."""
        ids = np.array([row.token_id for row in step.candidates])
        with np.errstate(divide="ignore"):
            scores = np.log(self.weights) - np.log(noise[ids])
        best = int(np.argmax(np.where(self.sure, scores, -np.inf)))
        others = np.where(self.possible, scores, -np.inf)
        others[best] = -np.inf
        rival = float(others.max(initial=-np.inf))
        if self.unlisted_possible:
            unlisted = np.delete(noise, ids)
            rival = max(rival, float(np.log(self.cap) - np.log(unlisted.min())))
        return best if scores[best] > rival + _CLEAR else None

    def logprob(self, row: int) -> float | None:
        """Of a row that is kept; None where its bounds are not near each other."""
        least = float(self.weights[self.sure].sum()) + self.unlisted[0]
        most = float(self.weights[self.possible].sum()) + self.unlisted[1]
        if np.log(most / least) > _KNOWN:
            return None
        return min(float(np.log(self.weights[row] / ((least + most) / 2))), 0.0)


def _unlisted_sum(
    step: Step, logits: np.ndarray, head: int, count: int, temperature: float
) -> tuple[float, float]:
    """At least and at most the sum of the weights of the `count` tokens that are not listed."""
    if not count:
        return 0.0, 0.0
    total = float(np.exp(-step.candidates[0].logprob))  # of all weights at T = 1
    mass = total - float(np.exp(logits - logits[0]).sum())
    slack = _SLACK * total
    cap, b = float(np.exp(logits[head - 1] - logits[0])), 1 / temperature

    def ends(mass: float) -> tuple[float, float]:
        mass = min(max(mass, 0.0), count * cap)
        return mass * cap ** (b - 1), count * (mass / count) ** b

    return min(ends(mass - slack)), max(ends(mass + slack))
