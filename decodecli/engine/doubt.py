"""Which tokens a filter could treat otherwise if the logits were a little off.

Logits of one model differ by some 1e-6 of their size with the way they are computed: alone or beside
other rows, with another number of threads. A draw is the same in spite of that unless it is close: two
scores that could change places, or a token at the edge of a filter. What is close is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decodecli.engine.chain import Chain, Filtered, draw

_PER_LOGIT = 2.5e-6  # of the largest logit: five times what was seen
_ROUNDING = 4e-6  # of a score in float32, whatever the temperature
_MASS = 4e-6  # of a sum of probabilities in float32
_LEAST_TEMPERATURE = 1e-20
_EDGED = frozenset(("top_k", "top_p", "min_p"))  # the filters that `edges` knows
_SEARCH = 256  # how many of the highest scores are looked at first
_TRIALS, _FURTHER = 4, 3  # directions in which logits are moved, and how many times the tolerance


def slack(tolerance: np.ndarray, largest: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """How far apart two scores, logits / `divisor`, may be and yet change places, where every logit may
    be off by `tolerance`, or by a share of the `largest` absolute one."""
    off = np.maximum(tolerance, _PER_LOGIT * largest)
    found: np.ndarray = np.maximum(2 * off / np.maximum(divisor, _LEAST_TEMPERATURE), _ROUNDING)
    return found


@dataclass(frozen=True)
class Filters:
    """The filters of several rows, (rows, 1) each; one that is off has a value that keeps everything."""

    top_k: np.ndarray
    top_p: np.ndarray
    log_min_p: np.ndarray

    @classmethod
    def of(cls, chains: list[Chain]) -> Filters:
        params = [chain.params for chain in chains]
        with np.errstate(divide="ignore"):
            log_min_p = np.log(_column([p.min_p for p in params]))
        return cls(
            _column([p.top_k or np.inf for p in params]),
            _column([np.inf if p.top_p == 1 else p.top_p for p in params]),
            log_min_p,
        )


@dataclass(frozen=True)
class Edges:
    """What filters do to the highest scores, (rows, width) each.

    kept: what they keep. unsure: what they could treat otherwise. in_sight: for which rows, (rows,), no
    token beyond these is kept or unsure.
    """

    kept: np.ndarray
    unsure: np.ndarray
    in_sight: np.ndarray


def edges(
    scores: np.ndarray, filters: Filters, total: np.ndarray, room: np.ndarray, whole: bool = False
) -> Edges:
    """What top-k, top-p and min-p, in this order, do to the highest `scores` (rows, width), float64,
    falling from 0.

    Args:
        total: the sum of exp(score) over the vocabulary, (rows, 1).
        room: how far apart two scores may be and yet change places, (rows, 1), from `slack`.
        whole: whether these are all scores there are.
    """
    weights = np.exp(scores)
    with np.errstate(invalid="ignore"):  # −inf beside −inf, where tokens are banned
        clusters = np.cumsum(np.diff(scores, axis=1, prepend=scores[:, :1]) < -room, axis=1)
    by_k, unsure, beyond = _top_k(scores, clusters, filters.top_k, whole)
    mass = np.where(np.isfinite(filters.top_k), _sum(weights * by_k), total)
    by_p, doubts = _top_p(weights, by_k, clusters, filters.top_p, mass, room, unsure)
    kept = by_p & (scores >= filters.log_min_p)
    kept[:, 0] = True
    with np.errstate(invalid="ignore"):
        unsure |= doubts | (np.abs(scores - filters.log_min_p) <= room)
    # The first stays whatever happens, unless another could be the first.
    unsure[:, 0] &= clusters[:, 1] == 0
    last = kept[:, -1] | unsure[:, -1]
    return Edges(kept, unsure, ~(beyond | last) | whole)


def _top_k(
    scores: np.ndarray, clusters: np.ndarray, top_k: np.ndarray, whole: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kept are all that reach the score of the k-th; unsure those that could change places with it."""
    width = scores.shape[1]
    on = np.isfinite(top_k)
    last = np.where(on, np.minimum(top_k, width), width).astype(np.int64) - 1
    kept = scores >= np.where(on, np.take_along_axis(scores, last, 1), -np.inf)
    own = np.take_along_axis(clusters, last, 1)
    following = np.take_along_axis(clusters, np.minimum(last + 1, width - 1), 1)
    tied = on & (last + 1 < width) & (own == following)
    beyond = (on & (top_k >= width))[:, 0] & (not whole)
    return kept, tied & (clusters == own), beyond


def _top_p(
    weights: np.ndarray,
    kept: np.ndarray,
    clusters: np.ndarray,
    top_p: np.ndarray,
    mass: np.ndarray,
    room: np.ndarray,
    unsure: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Kept are those before whom there is less than p of the `mass`; unsure those before whom there is
    nearly p, and all that could change places with one of them or across the edge."""
    share = np.minimum(np.cumsum(weights * kept, 1) / mass, 1.0)
    before = np.concatenate((np.zeros_like(mass), share[:, :-1]), 1)
    inside = kept & (before < top_p)
    # Those before could weigh exp(room) times as much against the others, or as little.
    more = np.exp(np.minimum(room, 700.0))
    spare = _MASS + _sum(weights * unsure) / mass
    least, most = (
        before / (before + (1 - before) * more),
        before * more / (before * more + 1 - before),
    )
    near = (least - spare <= top_p) & (top_p <= most + spare)
    count = inside.sum(1, keepdims=True)
    last = np.take_along_axis(clusters, np.maximum(count - 1, 0), 1)
    following = np.take_along_axis(clusters, np.minimum(count, clusters.shape[1] - 1), 1)
    across = (last == following) & (count < clusters.shape[1]) & np.isfinite(top_p)
    near |= across & (clusters == last)
    for row in np.flatnonzero(near.any(1) & (clusters[:, -1] < clusters.shape[1] - 1)):
        near[row] |= np.isin(clusters[row], clusters[row][near[row]])
    return inside, near


def close(found: Edges, reach: np.ndarray, winners: np.ndarray, room: np.ndarray) -> np.ndarray:
    """For which rows, (rows,), another token than that of the index in `winners` (rows, 1) could have
    been drawn; `reach` (rows, width) is score − log noise, the highest of which is drawn."""
    best = np.take_along_axis(reach, winners, 1)
    rivals = found.kept | found.unsure
    np.put_along_axis(rivals, winners, False, 1)
    near = (rivals & (reach > best - room)).any(1)
    doubtful: np.ndarray = near | np.take_along_axis(found.unsure, winners, 1)[:, 0]
    return doubtful


class Doubts:
    """Whether the draws of one chain are close.

    Args:
        chain: the stages.
        tolerance: how far each logit may be off.
    """

    def __init__(self, chain: Chain, tolerance: float) -> None:
        self.chain, self.tolerance = chain, tolerance
        self.filters = Filters.of([chain])
        named = {name for name in chain.order if name not in ("temperature", "greedy")}
        named -= {"repetition_penalty", "no_repeat_ngram_size"}
        self._edged = named <= _EDGED
        penalty = chain.params.repetition_penalty
        self._stretch = max(penalty, 1 / penalty)  # what a penalty makes of a small difference

    def room(self, largest: float) -> float:
        """How far apart two scores may be and yet change places; `largest` is that of all |logits|."""
        tolerance, divisor = np.array(self.tolerance), np.array(self.chain.divisor)
        return self._stretch * float(slack(tolerance, np.array(largest), divisor))

    def among_the_highest(
        self,
        scores: np.ndarray,
        noise: np.ndarray,
        index: int,
        log_sum: float,
        room: float,
        whole: bool,
    ) -> bool:
        """For a draw from the highest `scores` (width,), falling, with their `noise`, that took the one
        at `index`. `log_sum`: the logarithm of the sum of exp(score − highest) over the vocabulary."""
        if len(scores) < 2:
            return False
        falling = (scores.astype(np.float64) - float(scores[0]))[None]
        found = edges(falling, self.filters, np.exp([[log_sum]]), np.array([[room]]), whole)
        if not found.in_sight[0]:
            return True
        with np.errstate(divide="ignore"):
            reach = falling - np.log(noise)
        return bool(close(found, reach, np.array([[index]]), np.array([[room]]))[0])

    def among_all(self, scores: Tensor, noise: Tensor | None, token: int, room: float) -> bool:
        """For a draw of `token` from all `scores` (vocab,), the highest of them without `noise`."""
        reach = scores.double() if noise is None else scores.double() - noise.double().log()
        best = float(reach[token])
        reach[token] = -torch.inf
        return float(reach.amax()) >= best - room

    def of_stages(
        self,
        logits: Tensor,
        ids: Tensor | None,
        filtered: Filtered,
        noise: Tensor | None,
        chosen: Tensor,
    ) -> bool:
        """For a draw by the stages, of `chosen` (1, 1) from `logits` (1, vocab)."""
        room, token = self.room(float(logits.abs().amax())), int(chosen)
        if not self._edged:
            return not self._stays(logits, ids, noise, chosen)
        scores = filtered.penalised[0].double() / max(self.chain.divisor, _LEAST_TEMPERATURE)
        if filtered.removed_by is not None and "no_repeat_ngram_size" in self.chain.order:
            banned = 1 + self.chain.order.index("no_repeat_ngram_size")
            scores = scores.masked_fill(filtered.removed_by[0] == banned, -torch.inf)
        if noise is None or not _EDGED.intersection(self.chain.order):
            return self.among_all(scores, None if noise is None else noise[0], token, room)
        log_sum = float((scores - scores.amax()).logsumexp(-1))
        for width in dict.fromkeys((min(_SEARCH, len(scores)), len(scores))):
            top = scores.topk(width)
            place = (top.indices == token).nonzero()
            if len(place):
                doubtful = self.among_the_highest(
                    top.values.numpy(), noise[0, top.indices].numpy(), int(place[0]),
                    log_sum, room, width == len(scores),
                )  # fmt: skip
                if not doubtful:
                    return False
        return True

    def _stays(
        self, logits: Tensor, ids: Tensor | None, noise: Tensor | None, chosen: Tensor
    ) -> bool:
        """Whether the stages draw the same from logits moved in some random directions and in the
        opposite ones. Two scores that are nearly equal change places in one or the other, so that a
        close draw is missed about once in 10,000 times."""
        generator = torch.Generator().manual_seed(int(chosen))
        largest = torch.maximum(torch.tensor(self.tolerance), _PER_LOGIT * logits.abs().amax())
        off = torch.randn((_TRIALS, logits.shape[-1]), generator=generator) * largest * _FURTHER
        moved = torch.cat((logits + off, logits - off))
        history = None if ids is None else ids.expand(len(moved), -1)
        drawn = draw(self.chain(moved, history).scores, noise)
        return bool((drawn == chosen).all())


def _column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def _sum(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values.sum(1, keepdims=True)
    return found
