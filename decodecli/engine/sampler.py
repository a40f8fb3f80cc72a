"""One step of decoding: the draw and every number that is shown; on a CPU from very few passes.

The stages as they are written down in `stages` each look at the whole vocabulary; top-p even sorts it.
But after a top-k or a top-p few tokens are left, and all of them are among the highest logits: one
search for those and one sum over the vocabulary say everything. (In numpy: passes this short take torch
longer to hand out to threads than to do.) `Sampler` goes this way where the outcome is the same as the
stages' own, and leaves the rest to them: other filters, penalties, and every step in which the rounding
of their float32 sums could decide what a filter keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decodecli.engine.chain import Chain, draw
from decodecli.engine.doubt import Doubts
from decodecli.engine.exponentials import Exponentials
from decodecli.engine.observe import (
    CERTAIN,
    Distribution,
    Numbers,
    Observation,
    Rows,
    listed,
    measure,
    observe,
    rank_and_mass,
)

_QUICK = frozenset(("temperature", "top_k", "top_p", "min_p", "greedy"))
_LEAST_TEMPERATURE = 1e-20  # below, differences of logits overflow float32
_LEAST_SHARE = 1e-30  # below, a share of a probability underflows float32
# Nearer than this to a filter's edge, rounding may decide: a share of probability, a ratio.
_MASS_MARGIN = 4e-6
_RATIO_MARGIN = 1e-5
_SEARCH = 128  # how many of the highest logits are looked at first
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest logits, falling, equal ones by id."""

    logits: np.ndarray  # float32
    ids: np.ndarray
    whole: bool  # whether these are all there are

    @classmethod
    def of(cls, row: Tensor, count: int) -> Highest:
        """The `count` highest of `row` (vocab,)."""
        found = _by_chunks(row.numpy(), count)
        if found is None:
            top = row.topk(min(count, len(row)))
            found = top.values.numpy(), top.indices.numpy()
        values, ids = found
        if (values[1:] == values[:-1]).any():
            order = np.lexsort((ids, -values))
            values, ids = values[order], ids[order]
        return cls(values, ids, len(values) == len(row))

    def sure_of(self, count: int) -> bool:
        """Whether the first `count` are known: not if the last of them equals the last in sight."""
        return self.whole or count < 1 or bool(self.logits[count - 1] > self.logits[-1])


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the filters keep: the first `count` of `top`; `removed` says for each row of `top` 0 or 1 +
    the index in the chain's order of the stage that removed it."""

    top: Highest
    count: int
    removed: np.ndarray


def _by_chunks(row: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The `count` highest of a long row, looked for only in the chunks whose own highest is among the
    `count` highest of those: a higher logit elsewhere would have made its chunk one of them."""
    chunks = len(row) // _CHUNK
    if chunks < 4 * count:
        return None
    body = row[: chunks * _CHUNK].reshape(chunks, _CHUNK)
    chosen = np.argpartition(body.max(1), chunks - count)[chunks - count :]
    rest = np.arange(chunks * _CHUNK, len(row))
    ids = np.concatenate(((chosen[:, None] * _CHUNK + np.arange(_CHUNK)).ravel(), rest))
    inside = row[ids]
    best = np.argpartition(inside, len(inside) - count)[len(inside) - count :]
    best = best[np.argsort(-inside[best], kind="stable")]
    return inside[best], ids[best]


class _Undecided(Exception):
    """Rounding may decide here; the stages themselves must say."""


class Sampler:
    """Draws from (1, vocab) logits, a step after the other, and observes each.

    Args:
        chain: the stages.
        count: rows that a step lists.
        piece: spells a token id.
        seed: of the noise; unused under greedy.
        tolerance: how far, in logits, another way to run the model may be off. Where it is not 0, every
            draw says in `doubtful` whether logits that far off could have drawn another token.
        exact_ties: whether tokens of equal logits at top-p's edge are told apart as the stages tell
            them, by the order in which a sort happens to leave them. Where not, as is right for the
            many ties of 16-bit logits, those of lower id are kept.
    """

    def __init__(
        self,
        chain: Chain,
        count: int,
        piece: Callable[[int], str],
        seed: int,
        exact_ties: bool = True,
        tolerance: float = 0.0,
    ) -> None:
        self.chain, self.count, self.piece, self.seed = chain, count, piece, seed
        self.exact_ties = exact_ties
        self.doubts, self.doubtful = Doubts(chain, tolerance) if tolerance else None, False
        self._room = 0.0  # of this step's scores, as `Doubts` has it
        self._noise: Exponentials | None = None
        self._quick = (
            _QUICK.issuperset(chain.order)
            and chain.divisor >= _LEAST_TEMPERATURE
            and not 0 < chain.params.min_p < _LEAST_SHARE
        )
        self.filters = tuple(n for n in chain.order if n not in ("temperature", "greedy"))
        self._search = _SEARCH
        self._space: tuple[np.ndarray, np.ndarray] | None = None

    @torch.inference_mode()
    def __call__(
        self, logits: Tensor, ids: Tensor | None = None, step: int = 0
    ) -> tuple[Tensor, Observation]:
        """The drawn token, (1, 1), and its observation, for float32 `logits` (1, vocab) after the
        tokens `ids` (1, length), which a chain without penalties does not need.

        Raises:
            DecodeError: the logits are not finite, or the settings leave nothing to draw from.
        """
        self._prepare(logits)
        self.doubtful = False
        if self._quick and logits.device.type == "cpu":
            seen = self._quickly(logits)
            if seen is not None:
                return torch.tensor([[seen.token_id]]), seen
        return self._by_the_stages(logits, ids, step)

    def _prepare(self, logits: Tensor) -> None:
        if self._noise is None and not self.chain.greedy:
            self._noise = Exponentials(self.seed, logits.shape[-1], logits.device)

    def can_share(self, logits: Tensor) -> bool:
        """Whether draws from `logits` (rows, vocab) may be made for several rows at once (`draws`)."""
        self._prepare(logits)
        if not (self._quick and self.doubts) or logits.device.type != "cpu":
            return False
        return self._noise is None or self._noise.has_bits

    def step_bits(self) -> np.ndarray:
        """The bits that this step's noise is made of, (vocab,) int64, for a draw made elsewhere."""
        assert self._noise is not None
        return self._noise.bits()

    @torch.inference_mode()
    def launch(self, logits: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a call does, on the device and without waiting for it: the drawn token, (1, 1), and what
        `observe.finished` makes the observation of."""
        self._prepare(logits)
        filtered = self.chain(logits, ids)
        chosen = draw(filtered.scores, None if self._noise is None else self._noise.all())
        return chosen, measure(logits, filtered, self.chain, chosen, self.count)

    def _by_the_stages(
        self, logits: Tensor, ids: Tensor | None, step: int
    ) -> tuple[Tensor, Observation]:
        filtered = self.chain(logits, ids)
        noise = None if self._noise is None else self._noise.all()
        chosen = draw(filtered.scores, noise)
        if self.doubts is not None:
            self.doubtful = self.doubts.of_stages(logits, ids, filtered, noise, chosen)
        seen = observe(logits[0], filtered, self.chain, int(chosen), self.count, self.piece, step)
        return chosen, seen

    def _quickly(self, logits: Tensor) -> Observation | None:
        """From the highest logits and one sum; None, before any noise is used, where that may not be
        what the stages give."""
        row = logits[0]
        plain, tempered = self._distributions(row)
        if plain is None or tempered is None:
            return None
        if self.doubts is not None:
            self._room = self.doubts.room(float(row.abs().amax()))
        if not self.filters:
            return self._unfiltered(logits, plain, tempered)
        try:
            kept = self._kept(row)
        except _Undecided:
            return None
        return self._filtered(kept, plain, tempered)

    def _distributions(self, row: Tensor) -> tuple[Distribution | None, Distribution | None]:
        """The softmax of finite `row` (vocab,), and at the temperature; None where float32 does not
        reach."""
        if self._space is None or len(self._space[0]) != len(row):
            self._space = np.empty(len(row), np.float32), np.empty(len(row), np.float32)
        shifted, weights = self._space
        logits, divisor = row.numpy(), self.chain.divisor
        highest = float(logits.max())
        with np.errstate(all="ignore"):  # what is not finite is noticed
            np.subtract(logits, np.float32(highest), out=shifted)
            plain = _of_shifted(shifted, weights, highest, 1.0)
            if divisor == 1.0 or plain is None:
                return plain, plain
            np.divide(shifted, np.float32(divisor), out=shifted)
            return plain, _of_shifted(shifted, weights, highest, divisor)

    def _unfiltered(
        self, logits: Tensor, plain: Distribution, tempered: Distribution
    ) -> Observation | None:
        """The highest logit, or a draw from the whole vocabulary."""
        row, divisor = logits[0], self.chain.divisor
        top = Highest.of(row, self.count + 1)
        if not top.sure_of(min(self.count, len(row))):
            return None
        if self._noise is None:
            token = int(row.argmax())
        else:
            noise = self._noise.all()
            token = int(draw(logits if divisor == 1.0 else logits / divisor, noise))
        if self.doubts is not None and len(row) > 1:
            own = None if self._noise is None else noise[0]
            self.doubtful = self.doubts.among_all(row.double() / divisor, own, token, self._room)
        ids = top.ids[: self.count].tolist()
        values = top.logits[: self.count].tolist()
        place = None
        if token not in ids:
            rank, mass = rank_and_mass(
                row, row, torch.tensor([token]), tempered.highest, tempered.log_sum, divisor
            )
            place = int(rank), min(float(mass), 1.0)
            ids.append(token)
            values.append(float(row[token]))
        final = CERTAIN if self.chain.greedy else tempered
        rows = Rows(ids, values, values, [0] * len(ids), place)
        numbers = Numbers(plain, tempered, final, len(row))
        return listed(rows, numbers, self.chain, self.piece, token)

    def _kept(self, row: Tensor) -> _Kept:
        """What the filters keep, looking at more and more of the highest logits until it is clear."""
        wide, least = len(row), self.count + 1
        if self.filters[0] == "top_k":
            search = max(least, min(self.chain.params.top_k, wide) + 8)
        else:
            search = max(least, self._search)
        total: float | None = None
        if self.filters[0] == "top_p":
            scores = self._scores(row.numpy())
            total = float(np.exp(scores - scores.max()).sum(dtype=np.float64))
        while True:
            top = Highest.of(row, search)
            kept = self._keep(top, total) if top.sure_of(min(self.count, wide)) else None
            if kept is not None:
                self._search = max(_SEARCH, 2 * kept.count)
                return kept
            if top.whole or search * 8 > max(wide // 2, _SEARCH * 8):
                raise _Undecided
            search *= 8

    def _keep(self, top: Highest, total: float | None) -> _Kept | None:
        """What the filters keep if all of it is in `top`, else None. `total` is the sum over the
        vocabulary of exp(score − highest score), where a top-p that comes first needs it."""
        params, order = self.chain.params, self.chain.order
        scores = self._scores(top.logits)
        weights = np.exp(scores.astype(np.float64) - float(scores[0]))
        removed = np.zeros(len(scores), dtype=np.uint8)
        count, all_in_sight = len(scores), top.whole
        for name in self.filters:
            before = count
            if name == "top_k":
                edge = scores[min(params.top_k, len(scores)) - 1]
                count = int(np.count_nonzero(scores >= edge))
            elif name == "top_p":
                mass = float(weights[:count].sum()) if all_in_sight else total
                assert mass is not None
                count = self._nucleus(scores[:count], weights[:count], mass)
            else:  # min_p
                if (np.abs(weights[:count] / params.min_p - 1) < _RATIO_MARGIN).any():
                    raise _Undecided
                count = int(np.count_nonzero(weights[:count] > params.min_p))
            if not all_in_sight and scores[count - 1] == scores[-1]:
                return None
            all_in_sight = True
            removed[count:before] = order.index(name) + 1
        return _Kept(top, count, removed)

    def _nucleus(self, scores: np.ndarray, weights: np.ndarray, mass: float) -> int:
        """How many of the falling `scores` top-p keeps; all of them when its edge is beyond."""
        p = self.chain.params.top_p
        above = np.cumsum(weights) / mass  # the mass up to and including each
        count = 1 + int(np.searchsorted(above, p))
        if (np.abs(above[max(count - 2, 0) : count] - p) < _MASS_MARGIN).any():
            raise _Undecided
        if count >= len(scores):
            return len(scores)
        if self.exact_ties and scores[count] == scores[count - 1]:
            raise _Undecided
        return count

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        """Logits over the temperature, in the float32 that the stages see."""
        if self.chain.divisor == 1.0:
            return logits
        return logits / np.float32(self.chain.divisor)

    def _filtered(self, kept: _Kept, plain: Distribution, tempered: Distribution) -> Observation:
        """A draw from what the filters keep."""
        chain, top, count = self.chain, kept.top, kept.count
        assert self._noise is not None
        odds = torch.from_numpy(self._scores(top.logits[:count])).softmax(-1).numpy()
        if self.doubts is not None:
            noise = self._noise.at(top.ids)
            index = int(np.argmax(odds / noise[:count]))
            self.doubtful = self.doubts.among_the_highest(
                self._scores(top.logits), noise, index, tempered.log_sum, self._room, top.whole
            )
        else:
            index = int(np.argmax(odds / self._noise.at(top.ids[:count])))
        shifted = (top.logits.astype(np.float64) - plain.highest) / chain.divisor
        final = _exact_distribution(shifted[:count], plain.highest, chain.divisor)
        shown = list(range(min(self.count, len(top.ids))))
        place = None
        if index >= len(shown):
            shown.append(index)
            rank = 1 + int(np.searchsorted(-top.logits, -top.logits[index]))
            mass = float(np.exp(shifted[: index + 1] - tempered.log_sum).sum())
            place = rank, min(mass, 1.0)
        values = top.logits[shown].tolist()
        rows = Rows(top.ids[shown].tolist(), values, values, kept.removed[shown].tolist(), place)
        numbers = Numbers(plain, tempered, final, count)
        return listed(rows, numbers, chain, self.piece, int(top.ids[index]))


def _of_shifted(
    shifted: np.ndarray, weights: np.ndarray, highest: float, divisor: float
) -> Distribution | None:
    """The softmax of `shifted` (vocab,), at most 0, which is (logit − highest) / divisor; `weights` is
    room to work in. None where it overflows."""
    np.exp(shifted, out=weights)
    mass, mean = float(weights.sum()), float(weights @ shifted)
    if not (math.isfinite(mass) and math.isfinite(mean)):
        return None
    log_sum = math.log(mass)
    return Distribution(highest, divisor, log_sum, max(log_sum - mean / mass, 0.0))


def _exact_distribution(shifted: np.ndarray, highest: float, divisor: float) -> Distribution:
    """The softmax of a few tokens from their float64 (logit − highest) / divisor."""
    weights = np.exp(shifted)
    mass = float(weights.sum())
    log_sum = math.log(mass)
    some = weights > 0
    entropy = log_sum - float(weights[some] @ shifted[some]) / mass
    return Distribution(highest, divisor, log_sum, max(entropy, 0.0))
