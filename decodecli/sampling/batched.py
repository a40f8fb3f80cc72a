"""The draws of many rows in a few passes over all of them, where only the tokens are wanted.

`Sampler` computes every number that a step shows, a row at a time. A sweep wants the token, its logprob
and the entropy: those are computed here for all rows of a small vocabulary at once. Numbers are rounded
otherwise than in the processors, so this only serves rows whose sampler has a tolerance, far above that
rounding, and says of every draw within it that it is ambiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decodecli.sampling.noise import exponential, uniform
from decodecli.sampling.processors import divide_by_temperature
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.truncation import RowSettings, near_tie, score_margin, truncate

LARGEST_VOCABULARY = 32_768  # beyond, a row at a time is as quick
_NARROW, _WIDE = 32, 128  # how many of the highest logits are looked at


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A drawn token, its logprob and the entropy at temperature 1, nats; `ambiguous` as in `Sampler`."""

    token_id: int
    logprob: float
    entropy: float
    ambiguous: bool


class BatchedSampler:
    """Draws a token in each of several rows, step after step."""

    def __init__(self) -> None:
        self._cache: dict[tuple[int, ...], tuple[Sequence[Sampler], RowSettings]] = {}
        self._width = _NARROW

    @torch.inference_mode()
    def __call__(self, samplers: Sequence[Sampler], logits: Tensor) -> list[SampledToken | None]:
        """A draw for each row of `logits` (rows, vocab), float32 on the CPU, by the settings and the
        noise of its sampler. None, and no noise used, where the sampler must do it itself."""
        sampled: list[SampledToken | None] = [None] * len(samplers)
        vocab = logits.shape[-1]
        batchable = [sampler.batchable(logits) for sampler in samplers]
        if vocab > LARGEST_VOCABULARY or vocab < 2 * _WIDE or not any(batchable):
            return sampled
        scores = logits.numpy()
        highest = scores.max(1, keepdims=True)
        with np.errstate(all="ignore"):  # what is not finite is noticed
            shifted = scores - highest
            weights = np.exp(shifted)
            mass = weights.sum(1, keepdims=True)
            mean = np.einsum("ij,ij->i", weights, shifted)[:, None] / mass
            log_sum = np.log(mass)
            entropy = np.maximum(log_sum - mean, 0)
        finite = np.isfinite(entropy[:, 0])
        rows = [r for r in range(len(samplers)) if batchable[r] and finite[r]]
        largest = np.maximum(np.abs(highest), np.abs(scores.min(1, keepdims=True)))
        with np.errstate(invalid="ignore"):
            margin = score_margin(self._settings(samplers), largest)

        drawn: list[tuple[int, int, bool]] = []  # row, token, and whether the draw is ambiguous
        if greedy := [r for r in rows if samplers[r].chain.greedy]:
            top, tokens = logits[greedy].topk(2).values, logits[greedy].argmax(1).tolist()
            near = (top[:, 0] - top[:, 1]).numpy() <= margin[greedy, 0]
            drawn += zip(greedy, tokens, near.tolist(), strict=True)
        sampling = [r for r in rows if not samplers[r].chain.greedy]
        for r in sampling:
            if not samplers[r].chain.filters:
                drawn.append((r, *_from_vocabulary(samplers[r], shifted[r], float(margin[r, 0]))))
        if filtered := [r for r in sampling if samplers[r].chain.filters]:
            drawn += self._from_heads(samplers, logits, shifted, margin, filtered)
        for row, token, ambiguous in drawn:
            logprob = min(float(shifted[row, token]) - float(log_sum[row, 0]), 0.0)
            sampled[row] = SampledToken(token, logprob, float(entropy[row, 0]), ambiguous)
        return sampled

    def _from_heads(
        self,
        samplers: Sequence[Sampler],
        logits: Tensor,
        shifted: np.ndarray,
        margin: np.ndarray,
        rows: list[int],
    ) -> list[tuple[int, int, bool]]:
        """The draws of `rows`, which have a filter; those whose filters reach too far are left out."""
        settings = self._settings([samplers[r] for r in rows])
        if len(rows) < len(logits):
            logits, shifted, margin = logits[rows], shifted[rows], margin[rows]
        top = logits.topk(self._width)
        ids = top.indices.numpy()
        scores = divide_by_temperature(top.values.numpy().astype(np.float64), settings.temperature)
        scores -= scores[:, :1]
        tempered = divide_by_temperature(shifted, settings.temperature.astype(np.float32))
        total = np.exp(tempered).sum(1, keepdims=True)
        truncation = truncate(scores, settings, total, margin, complete=False)
        widest = int(truncation.kept.sum(1).max())
        self._width = _WIDE if widest * 2 > _NARROW else _NARROW
        usable = np.flatnonzero(truncation.in_sight)
        if not len(usable):
            return []
        gumbel_scores = np.full_like(scores, -np.inf)
        for i in usable:
            with np.errstate(divide="ignore"):
                noise = np.log(_exponential(_step_bits(samplers[rows[i]]), ids[i]))
            gumbel_scores[i] = scores[i] - noise
        winners = np.where(truncation.kept, gumbel_scores, -np.inf).argmax(1)[:, None]
        ambiguous = near_tie(truncation, gumbel_scores, winners, margin)
        tokens = np.take_along_axis(ids, winners, 1)[:, 0]
        return [(rows[i], int(tokens[i]), bool(ambiguous[i])) for i in usable]

    def _settings(self, samplers: Sequence[Sampler]) -> RowSettings:
        """Those of these samplers; remembered, as they are the same until a row ends."""
        key = tuple(map(id, samplers))
        if key not in self._cache:
            if len(self._cache) > 3:
                self._cache.clear()
            tolerances = [s.tie_check.tolerance if s.tie_check else 0.0 for s in samplers]
            settings = RowSettings.of([sampler.chain for sampler in samplers], tolerances)
            self._cache[key] = tuple(samplers), settings
        return self._cache[key][1]


def _from_vocabulary(sampler: Sampler, shifted: np.ndarray, margin: float) -> tuple[int, bool]:
    """A draw from the whole vocabulary, and whether it is ambiguous.

    The noise e = −log(1 − u) is at least u, so exp(score) / u bounds exp(score) / e from above: only
    tokens whose bound reaches the exact score of the one with the highest bound need their logarithm.
    """
    bits = _step_bits(sampler)
    scores = divide_by_temperature(shifted.astype(np.float64), sampler.chain.temperature)
    with np.errstate(divide="ignore"):
        bounds = scores - np.log(uniform(bits))
        first = int(bounds.argmax())
        reached = scores[first] - float(np.log(_exponential(bits, np.array([first])))[0])
        rivals = np.flatnonzero(bounds >= reached - margin)
        exact = scores[rivals] - np.log(_exponential(bits, rivals))
    winner = int(exact.argmax())
    best = float(exact[winner])
    exact[winner] = -np.inf
    return int(rivals[winner]), bool((exact > best - margin).any())


def _step_bits(sampler: Sampler) -> np.ndarray:
    assert sampler.noise is not None
    bits: np.ndarray = sampler.noise.bits().numpy()
    return bits


def _exponential(bits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return exponential(torch.from_numpy(bits[ids])).numpy()
