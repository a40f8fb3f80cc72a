"""The draws of many rows in a few passes over all of them, where only the tokens are wanted.

`Sampler` finds every number that a step shows, a row at a time. A sweep wants the token, its logprob
and the entropy: those are found here for all rows of a small vocabulary at once. Numbers are rounded
otherwise than in transformers' stages, so this only serves rows whose sampler has a tolerance, far
above that rounding, and says of every draw within it that it is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decodecli.engine.exponentials import exponential, uniform
from decodecli.engine.sampler import MASS_MARGIN, Sampler

LARGEST_VOCABULARY = 32_768  # beyond, a row at a time is as quick
_FEW, _SOME = 32, 128  # how many of the highest logits are looked at


@dataclass(frozen=True, slots=True)
class Draw:
    """A drawn token, its logprob and the entropy at temperature 1, nats; `doubtful` as in `Sampler`."""

    token_id: int
    logprob: float
    entropy: float
    doubtful: bool


@dataclass(frozen=True)
class _Settings:
    """The rows' settings, (rows, 1) each; a filter that is off has a value that keeps everything."""

    divisor: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    log_min_p: np.ndarray
    slack: np.ndarray

    @classmethod
    def of(cls, samplers: Sequence[Sampler]) -> _Settings:
        def column(values: list[float]) -> np.ndarray:
            return np.array(values, dtype=np.float64)[:, None]

        params = [sampler.chain.params for sampler in samplers]
        with np.errstate(divide="ignore"):
            log_min_p = np.log(column([p.min_p for p in params]))
        return cls(
            column([sampler.chain.divisor for sampler in samplers]),
            column([p.top_k or np.inf for p in params]),
            column([np.inf if p.top_p == 1 else p.top_p for p in params]),
            log_min_p,
            column([sampler.slack for sampler in samplers]),
        )


class Draws:
    """Draws a token in each of several rows, step after step."""

    def __init__(self) -> None:
        self._kept: tuple[list[Sampler], _Settings] | None = None
        self._few = _FEW

    @torch.inference_mode()
    def __call__(self, samplers: Sequence[Sampler], logits: Tensor) -> list[Draw | None]:
        """A draw for each row of `logits` (rows, vocab), float32 on the CPU, by the settings and the
        noise of its sampler. None, and no noise used, where the sampler must do it itself."""
        found: list[Draw | None] = [None] * len(samplers)
        vocab = logits.shape[-1]
        able = [sampler.can_share(logits) for sampler in samplers]
        if vocab > LARGEST_VOCABULARY or vocab < 2 * _SOME or not any(able):
            return found
        scores = logits.numpy()
        highest = scores.max(1, keepdims=True)
        with np.errstate(all="ignore"):  # what is not finite is noticed
            shifted = scores - highest
            weights = np.exp(shifted)
            mass = weights.sum(1, keepdims=True)
            mean = np.einsum("ij,ij->i", weights, shifted)[:, None] / mass
            log_sum = np.log(mass)
            entropy = np.maximum(log_sum - mean, 0)
        fine = np.isfinite(entropy[:, 0])
        rows = [r for r, sampler in enumerate(samplers) if able[r] and fine[r]]
        for row, token, doubtful in self._tokens(samplers, logits, shifted, rows):
            logprob = min(float(shifted[row, token]) - float(log_sum[row, 0]), 0.0)
            found[row] = Draw(token, logprob, float(entropy[row, 0]), doubtful)
        return found

    def _tokens(
        self, samplers: Sequence[Sampler], logits: Tensor, shifted: np.ndarray, rows: list[int]
    ) -> list[tuple[int, int, bool]]:
        """Row, token and whether it is doubtful, for those of `rows` that can be drawn here."""
        greedy = [r for r in rows if samplers[r].chain.greedy]
        plain = [r for r in rows if r not in greedy and not samplers[r].filters]
        narrow = [r for r in rows if samplers[r].filters and r not in greedy]
        found: list[tuple[int, int, bool]] = []
        if greedy:
            top = logits[greedy].topk(2)
            slack = [samplers[r].slack for r in greedy]
            gaps = (top.values[:, 0] - top.values[:, 1]).tolist()
            tokens = logits[greedy].argmax(1).tolist()
            found += [
                (r, token, gap <= room)
                for r, token, gap, room in zip(greedy, tokens, gaps, slack, strict=True)
            ]
        found += [(r, *_from_all(samplers[r], shifted[r])) for r in plain]
        if narrow:
            found += self._from_the_highest([samplers[r] for r in narrow], logits, shifted, narrow)
        return found

    def _from_the_highest(
        self, samplers: list[Sampler], logits: Tensor, shifted: np.ndarray, rows: list[int]
    ) -> list[tuple[int, int, bool]]:
        settings = self._settings(samplers)
        every = len(rows) == len(logits)
        top = (logits if every else logits[rows]).topk(self._few)
        ids = top.indices.numpy()
        scores = top.values.numpy().astype(np.float64) / settings.divisor
        scores -= scores[:, :1]
        own = shifted if every else shifted[rows]
        total = np.exp(own / settings.divisor.astype(np.float32)).sum(1, keepdims=True)
        kept, unsure, settled = _filtered(scores, settings, total)
        counts = kept.sum(1)
        widest = int(counts.max())
        self._few = _SOME if widest * 2 > _FEW else _FEW
        usable = np.flatnonzero(settled)
        if not len(usable):
            return []
        bits = np.stack([samplers[i].step_bits()[ids[i]] for i in usable])
        noise = exponential(torch.from_numpy(bits)).numpy()
        with np.errstate(divide="ignore"):
            reach = scores[usable] - np.log(noise)
        kept, unsure = kept[usable], unsure[usable]
        winners = np.where(kept, reach, -np.inf).argmax(1)[:, None]
        best = np.take_along_axis(reach, winners, 1)
        rivals = kept | unsure
        np.put_along_axis(rivals, winners, False, 1)
        close = (rivals & (reach > best - settings.slack[usable])).any(1)
        close |= np.take_along_axis(unsure, winners, 1)[:, 0]
        tokens = np.take_along_axis(ids[usable], winners, 1)[:, 0]
        return [
            (rows[i], int(token), bool(doubt))
            for i, token, doubt in zip(usable, tokens, close, strict=True)
        ]

    def _settings(self, samplers: list[Sampler]) -> _Settings:
        if self._kept is None or self._kept[0] != samplers:
            self._kept = samplers, _Settings.of(samplers)
        return self._kept[1]


def _filtered(
    scores: np.ndarray, settings: _Settings, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What top-k, top-p and min-p, in this order, keep of the highest `scores` (rows, count), falling
    from 0; what they could treat otherwise if every logit were off by the tolerance; and for which
    rows (rows,) all of this is in sight. `total` (rows, 1): the sum of exp(score) over the vocabulary.
    """
    rows, width = scores.shape
    weights = np.exp(scores)
    slack = settings.slack
    # Top-k: all that reach the score of the k-th.
    finite = np.isfinite(settings.top_k)
    place = np.minimum(np.where(finite, settings.top_k, width), width).astype(np.int64) - 1
    edge = np.where(finite, np.take_along_axis(scores, place, 1), -np.inf)
    kept = scores >= edge
    unsure = _near_the_edge(scores, kept, slack)
    beyond = finite[:, 0] & (settings.top_k[:, 0] >= width)
    # Top-p: all before whom there is less than p.
    mass = np.where(finite, (weights * kept).sum(1, keepdims=True), total)
    share = np.cumsum(weights * kept, 1) / mass
    before = np.concatenate((np.zeros((rows, 1)), share[:, :-1]), 1)
    inside = before < settings.top_p
    room = slack / 4 + MASS_MARGIN + (weights * unsure).sum(1, keepdims=True) / mass
    unsure |= np.abs(before - settings.top_p) <= room
    unsure[:, 0] &= settings.top_p[:, 0] <= room[:, 0]  # the first is always kept
    nucleus = kept & inside
    unsure |= _near_the_edge(scores, nucleus, slack)
    # Min-p: all with at least this share of the first.
    unsure |= np.abs(scores - settings.log_min_p) <= slack
    kept = nucleus & (scores >= settings.log_min_p)
    kept[:, 0] = True
    last = kept[:, -1] | unsure[:, -1]
    return kept, unsure, ~(last | beyond)


def _near_the_edge(scores: np.ndarray, kept: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Those within `slack` of the last that is `kept`, where the first that is not is among them."""
    count = kept.sum(1, keepdims=True)
    last = np.take_along_axis(scores, count - 1, 1)
    following = np.take_along_axis(scores, np.minimum(count, scores.shape[1] - 1), 1)
    tied = (last - following <= slack) & (count < scores.shape[1])
    found: np.ndarray = tied & (np.abs(scores - last) <= slack)
    return found


def _from_all(sampler: Sampler, shifted: np.ndarray) -> tuple[int, bool]:
    """A draw from the whole vocabulary, and whether it is doubtful.

    The noise e = −log(1 − u) is at least u, so exp(score) / u bounds exp(score) / e from above: only
    tokens whose bound reaches the best one found need their logarithm.
    """
    bits = sampler.step_bits()
    scores = shifted.astype(np.float64) / sampler.chain.divisor
    with np.errstate(divide="ignore"):
        bounds = scores - np.log(uniform(bits))
    first = int(bounds.argmax())
    with np.errstate(divide="ignore"):
        reach = scores[first] - float(np.log(_noise(bits, np.array([first])))[0])
        some = np.flatnonzero(bounds >= reach - sampler.slack)
        exact = scores[some] - np.log(_noise(bits, some))
    winner = int(exact.argmax())
    best = float(exact[winner])
    exact[winner] = -np.inf
    return int(some[winner]), bool((exact > best - sampler.slack).any())


def _noise(bits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return exponential(torch.from_numpy(bits[ids])).numpy()
