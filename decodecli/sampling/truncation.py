"""top-k, top-p and min-p on the sorted head of a row, and how near a draw is to a tie.

After a top-k, top-p or min-p few tokens are left, and all of them are among the highest scores: one
search for those and one sum over the vocabulary decide what is kept. `truncate` does so for one row or
many, and says which tokens are *borderline*: those that rounding, or logits that are a little off,
could have a filter treat otherwise.

Logits of one model differ by some 1e-6 of their size with the way they are computed: alone or beside
other rows, with another number of threads. A draw is the same in spite of that unless it is near a
tie: two scores that could change places, or a token at the edge of a filter. `TieCheck` tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from decodecli.sampling.chain import Chain, Processed, draw
from decodecli.sampling.processors import divide_by_temperature
from decodecli.stages import WITH_HISTORY

TRUNCATING = ("top_k", "top_p", "min_p")  # the filters that `truncate` knows, in this order
_MASS_ROUNDING = 5e-6  # of a sum of probabilities in float32
_RATIO_ROUNDING = 1e-5  # of the ratio of two probabilities in float32
_SCORE_ROUNDING = 4e-6  # of a score in float32, whatever the temperature
_LOGIT_ROUNDING = 2.5e-6  # of the largest logit: five times what was seen
_TRIALS, _FURTHER = 4, 3  # directions in which logits are moved, and how many times the tolerance
_LEAST_TEMPERATURE = 1e-20


def truncates(chain: Chain) -> bool:
    """Whether `truncate` does what the chain does behind the stages that look at the history."""
    order = tuple(name for name in chain.order if name not in WITH_HISTORY and name != "greedy")
    return order == tuple(name for name in ("temperature", *TRUNCATING) if name in order)


@dataclass(frozen=True)
class RowSettings:
    """Temperature and filters of several rows, and how far their logits may be off, (rows, 1) each. A
    filter that is off has a value that keeps everything."""

    temperature: np.ndarray
    tolerance: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    log_min_p: np.ndarray

    @classmethod
    def of(cls, chains: Sequence[Chain], tolerances: Sequence[float] = (0.0,)) -> RowSettings:
        rows = []
        for chain, tolerance in zip(chains, tolerances, strict=True):
            params = chain.params
            top_k = params.top_k or np.inf
            top_p = np.inf if params.top_p == 1 else params.top_p
            log_min_p = math.log(params.min_p) if params.min_p else -np.inf
            rows.append((chain.temperature, tolerance, top_k, top_p, log_min_p))
        return cls(*np.array(rows, np.float64).T[..., None])

    @cached_property
    def any_top_k(self) -> bool:
        return bool(np.isfinite(self.top_k).any())

    @cached_property
    def any_top_p(self) -> bool:
        return bool(np.isfinite(self.top_p).any())

    @cached_property
    def any_min_p(self) -> bool:
        return bool(np.isfinite(self.log_min_p).any())


@dataclass(frozen=True)
class Truncation:
    """What the filters do to the highest scores, (rows, width) each.

    in_top_k, in_top_p, kept: what is left after top-k, after top-p, and after min-p.
    borderline: what could be treated otherwise.
    in_sight: for which rows, (rows,), no token beyond these is kept or borderline.
    """

    in_top_k: np.ndarray
    in_top_p: np.ndarray
    kept: np.ndarray
    borderline: np.ndarray
    in_sight: np.ndarray


def truncate(
    scores: np.ndarray, settings: RowSettings, total: np.ndarray, margin: np.ndarray, complete: bool
) -> Truncation:
    """What top-k, top-p and min-p, in this order, do to the highest `scores` (rows, width), float64,
    falling from 0.

    Args:
        total: the sum of exp(score) over the vocabulary, (rows, 1).
        margin: how far apart two scores may be and yet change places, (rows, 1). 0: only equal scores
            at the edge of top-p can; negative: none can, equal ones are told apart by their order.
        complete: whether these are all scores there are.
    """
    width, row = scores.shape[1], np.arange(len(scores))[:, None]
    movable = bool((margin > 0).any())
    weights = np.exp(scores)
    clusters = np.zeros(scores.shape, np.int64)
    with np.errstate(invalid="ignore"):  # −inf beside −inf, where tokens are banned
        np.cumsum(scores[:, 1:] - scores[:, :-1] < -margin, axis=1, out=clusters[:, 1:])
    in_top_k, in_sight = np.ones(scores.shape, bool), np.ones(len(scores), bool)
    borderline, on = np.zeros(scores.shape, bool), np.isfinite(settings.top_k)
    if settings.any_top_k:
        # Kept are all that reach the k-th; those that could change places with it are borderline.
        last = np.minimum(settings.top_k, width).astype(np.int64) - 1
        in_top_k = scores >= scores[row, last]
        if movable:
            edge, following = clusters[row, last], clusters[row, np.minimum(last + 1, width - 1)]
            tied = on & (last + 1 < width) & (edge == following) & (margin > 0)
            borderline = tied & (clusters == edge)
        in_sight = (~on | (settings.top_k < width))[:, 0]
    kept, near = in_top_k, np.zeros(scores.shape, bool)
    if settings.any_top_p:
        # Kept are those before whom there is less than p of the mass; borderline those before whom
        # there is nearly p, and all that could change places with one of them or across the edge.
        above = np.cumsum(weights * in_top_k, 1)
        mass = np.where(on | complete, above[:, -1:], total)
        before = np.zeros(scores.shape)
        np.minimum(above[:, :-1] / mass, 1.0, out=before[:, 1:])
        kept, near = (
            in_top_k & (before < settings.top_p),
            np.abs(before - settings.top_p) <= _MASS_ROUNDING,
        )
        if movable:
            near |= _nearly(
                before, settings.top_p, margin, (weights * borderline).sum(1, keepdims=True) / mass
            )
        count = kept.sum(1, keepdims=True)
        edge, following = clusters[row, count - 1], clusters[row, np.minimum(count, width - 1)]
        across = (edge == following) & (count < width) & np.isfinite(settings.top_p)
        near |= across & (clusters == edge)
        if movable:
            for i in np.flatnonzero(near.any(1) & (clusters[:, -1] < width - 1)):
                near[i] |= np.isin(clusters[i], clusters[i][near[i]])
    in_top_p = kept
    if settings.any_min_p:
        kept = in_top_p & (scores >= settings.log_min_p)
        with np.errstate(invalid="ignore"):
            near |= np.abs(scores - settings.log_min_p) <= np.maximum(margin, _RATIO_ROUNDING)
    kept[:, 0] = True
    # The first stays whatever happens, unless another could be the first.
    near[:, 0] &= clusters[:, min(1, width - 1)] == 0
    borderline |= near
    in_sight &= ~(kept[:, -1] | borderline[:, -1])
    return Truncation(in_top_k, in_top_p, kept, borderline, in_sight | complete)


def _nearly(
    before: np.ndarray, top_p: np.ndarray, margin: np.ndarray, spare: np.ndarray
) -> np.ndarray:
    """Where the share `before` a token could be p if those before weighed exp(margin) times as much
    against the others, or as little, and the share were off by `spare`."""
    more, spare = np.exp(np.clip(margin, 0, 700.0)), spare + _MASS_ROUNDING
    least = before / (before + (1 - before) * more)
    most = before * more / (before * more + 1 - before)
    near: np.ndarray = (least - spare <= top_p) & (top_p <= most + spare)
    return near


def score_margin(settings: RowSettings, largest: np.ndarray) -> np.ndarray:
    """How far apart two scores may be and yet change places, (rows, 1), where every logit may be off by
    the tolerance, or by a share of the `largest` absolute one."""
    off = 2 * np.maximum(settings.tolerance, _LOGIT_ROUNDING * largest)
    scaled = divide_by_temperature(off, np.maximum(settings.temperature, _LEAST_TEMPERATURE))
    margin: np.ndarray = np.maximum(scaled, _SCORE_ROUNDING)
    return margin


def near_tie(
    truncation: Truncation, gumbel_scores: np.ndarray, winners: np.ndarray, margin: np.ndarray
) -> np.ndarray:
    """For which rows, (rows,), another token than that of the index in `winners` (rows, 1) could have
    been drawn; `gumbel_scores` (rows, width) are score − log noise, the highest of which is drawn."""
    best = np.take_along_axis(gumbel_scores, winners, 1)
    rivals = truncation.kept | truncation.borderline
    np.put_along_axis(rivals, winners, False, 1)
    ambiguous = (rivals & (gumbel_scores > best - margin)).any(1)
    ambiguous |= np.take_along_axis(truncation.borderline, winners, 1)[:, 0]
    return np.asarray(ambiguous)


class TieCheck:
    """Whether draws of one chain are so near a tie that logits a little off would turn them over.

    Args:
        chain: the stages.
        tolerance: how far each logit may be off.
    """

    def __init__(self, chain: Chain, tolerance: float) -> None:
        self.chain, self.tolerance = chain, tolerance
        self._settings = RowSettings.of([chain], [tolerance])
        self._truncating = truncates(chain)
        penalty = chain.params.repetition_penalty
        self._stretch = max(penalty, 1 / penalty)  # what a penalty makes of a small difference

    def margin(self, largest: float) -> float:
        """How far apart two scores may be and yet change places; `largest` is that of all |logits|."""
        return self._stretch * float(score_margin(self._settings, np.array(largest))[0, 0])

    def in_head(
        self,
        scores: np.ndarray,
        noise: np.ndarray,
        index: int,
        log_sum: float,
        margin: float,
        complete: bool,
    ) -> bool:
        """For a draw from the highest `scores` (width,), falling, with their `noise`, that took the one
        at `index`. `log_sum`: the logarithm of the sum of exp(score − highest) over the vocabulary."""
        if len(scores) < 2:
            return False
        falling = (scores.astype(np.float64) - float(scores[0]))[None]
        margins = np.array([[margin]])
        truncation = truncate(falling, self._settings, np.exp([[log_sum]]), margins, complete)
        if not truncation.in_sight[0]:
            return True
        with np.errstate(divide="ignore"):
            gumbel_scores = falling - np.log(noise)
        return bool(near_tie(truncation, gumbel_scores, np.array([[index]]), margins)[0])

    def in_vocabulary(
        self, scores: Tensor, noise: Tensor | None, token: int, margin: float
    ) -> bool:
        """For a draw of `token` from all `scores` (vocab,), the highest of them without `noise`."""
        gumbel_scores = scores.double() if noise is None else scores.double() - noise.double().log()
        best = float(gumbel_scores[token])
        gumbel_scores[token] = -torch.inf
        return float(gumbel_scores.amax()) >= best - margin

    def in_chain(
        self,
        logits: Tensor,
        ids: Tensor | None,
        processed: Processed,
        noise: Tensor | None,
        chosen: Tensor,
    ) -> bool:
        """For a draw by the processors, of `chosen` (1, 1) from `logits` (1, vocab).

        Of filters that `truncate` does not know, the chain itself is asked: whether it draws the same
        from logits moved in some random directions and in the opposite ones. Two scores that are nearly
        equal change places in one or the other, so that a draw near a tie is missed about once in
        10,000 times.
        """
        largest, token = logits.abs().amax(), int(chosen)
        if not self._truncating:
            generator = torch.Generator().manual_seed(token)
            reach = torch.maximum(torch.tensor(self.tolerance), _LOGIT_ROUNDING * largest)
            off = torch.randn((_TRIALS, logits.shape[-1]), generator=generator) * reach * _FURTHER
            moved = torch.cat((logits + off, logits - off))
            history = None if ids is None else ids.expand(len(moved), -1)
            return not bool((draw(self.chain(moved, history).scores, noise) == chosen).all())
        margin = self.margin(float(largest))
        scores = divide_by_temperature(
            processed.penalised[0].double(), max(self.chain.temperature, _LEAST_TEMPERATURE)
        )
        for code, name in enumerate(self.chain.order, start=1):
            if processed.removed_by is not None and name in WITH_HISTORY:
                scores = scores.masked_fill(processed.removed_by[0] == code, -torch.inf)
        if noise is None or set(TRUNCATING).isdisjoint(self.chain.order):
            return self.in_vocabulary(scores, None if noise is None else noise[0], token, margin)
        falling = scores.sort(descending=True)
        index = int((falling.indices == token).nonzero()[0])
        log_sum = float((scores - scores.amax()).logsumexp(-1))
        row_noise = noise[0, falling.indices].numpy()
        return self.in_head(falling.values.numpy(), row_noise, index, log_sum, margin, True)
