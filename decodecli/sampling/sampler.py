"""`Sampler`: draws the token of a step and computes its numbers; on a CPU from very few passes.

The processors each look at the whole vocabulary; top-p even sorts it. But after a top-k or a top-p few
tokens are left, all of them among the highest logits: one search for those and one sum over the
vocabulary say everything. (In numpy: passes this short take torch longer to hand to threads than to
do.) `Sampler` goes this way where the outcome is the same as the processors' own and leaves the rest
to them: other filters, penalties, and every step in which the rounding of their float32 sums could
decide what a filter keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.processors import divide_by_temperature
from decodecli.sampling.statistics import (
    ONE_HOT,
    Distribution,
    StepNumbers,
    StepStatistics,
    compute,
    rank_and_mass,
    step_statistics,
)
from decodecli.sampling.truncation import TRUNCATING, RowSettings, TieCheck, Truncation, truncate

_FAST = TRUNCATING | {"temperature", "greedy"}
_LEAST_TEMPERATURE = 1e-20  # below, differences of logits overflow float32
_LEAST_MIN_P = 1e-30  # below, a share of a probability underflows float32
_SEARCH = 128  # how many of the highest logits are looked at first
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Head:
    """The highest logits, falling, equal ones by id."""

    logits: np.ndarray  # float32
    ids: np.ndarray
    complete: bool  # whether these are all there are

    @classmethod
    def of(cls, row: Tensor, count: int) -> Head:
        """The `count` highest of `row` (vocab,)."""
        by_chunks = _topk_by_chunks(row.numpy(), count)
        if by_chunks is None:
            top = row.topk(min(count, len(row)))
            by_chunks = top.values.numpy(), top.indices.numpy()
        values, ids = by_chunks
        if (values[1:] == values[:-1]).any():
            order = np.lexsort((ids, -values))
            values, ids = values[order], ids[order]
        return cls(values, ids, len(values) == len(row))

    def determines(self, count: int) -> bool:
        """Whether the first `count` are known: not if the last of them equals the last in sight."""
        return self.complete or count < 1 or bool(self.logits[count - 1] > self.logits[-1])


def _topk_by_chunks(row: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray] | None:
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


class Sampler:
    """Samples from (1, vocab) logits, step after step, and computes each step's numbers.

    Args:
        chain: the stages.
        count: candidates that a step lists.
        piece: spells a token id.
        seed: of the noise; unused under greedy.
        tolerance: how far, in logits, another way to run the model may be off. Where it is not 0,
            `ambiguous` says after every draw whether logits that far off could have drawn another token.
        exact_ties: whether tokens of equal logits at top-p's edge are told apart as the processors tell
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
        self.tie_check, self.ambiguous = TieCheck(chain, tolerance) if tolerance else None, False
        self._score_margin = np.array([[0.0 if exact_ties else -1.0]])
        self._settings = RowSettings.of([chain])
        self._noise: ExponentialNoise | None = None
        self._fast = (
            _FAST.issuperset(chain.order)
            and chain.temperature >= _LEAST_TEMPERATURE
            and not 0 < chain.params.min_p < _LEAST_MIN_P
        )
        self._search = _SEARCH
        self._buffers: tuple[np.ndarray, np.ndarray] | None = None

    @torch.inference_mode()
    def __call__(
        self, logits: Tensor, ids: Tensor | None = None, step: int = 0
    ) -> tuple[Tensor, StepStatistics]:
        """The drawn token, (1, 1), and its statistics, for float32 `logits` (1, vocab) after the
        tokens `ids` (1, length), which a chain without penalties does not need.

        Raises:
            DecodeError: the logits are not finite, or the settings leave nothing to draw from.
        """
        self._prepare(logits)
        self.ambiguous = False
        if self._fast and logits.device.type == "cpu":
            statistics = self._from_head(logits)
            if statistics is not None:
                return torch.tensor([[statistics.token_id]]), statistics
        return self._by_processors(logits, ids, step)

    def _prepare(self, logits: Tensor) -> None:
        if self._noise is None and not self.chain.greedy:
            self._noise = ExponentialNoise(self.seed, logits.shape[-1], logits.device)

    def batchable(self, logits: Tensor) -> bool:
        """Whether draws from `logits` (rows, vocab) may be made for several rows at once
        (`BatchedSampler`)."""
        self._prepare(logits)
        if not (self._fast and self.tie_check) or logits.device.type != "cpu":
            return False
        return self._noise is None or self._noise.has_bits

    def step_bits(self) -> np.ndarray:
        """The bits that this step's noise is made of, (vocab,) int64, for a draw made elsewhere."""
        assert self._noise is not None
        return self._noise.bits()

    @torch.inference_mode()
    def launch(self, logits: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a call does, on the device and without waiting for it: the drawn token, (1, 1), and what
        `statistics.unpack` makes the statistics of."""
        self._prepare(logits)
        processed = self.chain(logits, ids)
        chosen = draw(processed.scores, None if self._noise is None else self._noise.full())
        return chosen, compute(logits, processed, self.chain, chosen, self.count)

    def _by_processors(
        self, logits: Tensor, ids: Tensor | None, step: int
    ) -> tuple[Tensor, StepStatistics]:
        processed = self.chain(logits, ids)
        noise = None if self._noise is None else self._noise.full()
        chosen = draw(processed.scores, noise)
        if self.tie_check is not None:
            self.ambiguous = self.tie_check.in_chain(logits, ids, processed, noise, chosen)
        statistics = step_statistics(
            logits[0], processed, self.chain, int(chosen), self.count, self.piece, step
        )
        return chosen, statistics

    def _from_head(self, logits: Tensor) -> StepStatistics | None:
        """From the highest logits and one sum; None, before any noise is used, where that may not be
        what the processors give."""
        row, chain = logits[0], self.chain
        raw, tempered = self._distributions(row)
        if raw is None or tempered is None:
            return None
        margin = self.tie_check.margin(float(row.abs().amax())) if self.tie_check else 0.0
        if chain.filters:
            truncated = self._truncated(row, tempered.log_sum)
            if truncated is None:
                return None
            head, truncation = truncated
            kept, removed = int(truncation.kept.sum()), self._removed_by(truncation)
            token = self._draw_kept(head, kept, tempered, margin)
            shifted = divide_by_temperature(
                head.logits[:kept].astype(np.float64) - raw.highest, chain.temperature
            )
            final = _exact_distribution(shifted, raw.highest, chain.temperature)
        else:
            head = Head.of(row, self.count + 1)
            if not head.determines(min(self.count, len(row))):
                return None
            kept, removed = len(row), np.zeros(len(head.ids), np.uint8)
            token = self._draw_any(logits, margin)
            final = ONE_HOT if chain.greedy else tempered
        ids, values = head.ids[: self.count].tolist(), head.logits[: self.count].tolist()
        codes, unlisted = removed[: self.count].tolist(), None
        if token not in ids:
            rank, mass = rank_and_mass(
                row,
                row,
                torch.tensor([token]),
                tempered.highest,
                tempered.log_sum,
                chain.temperature,
            )
            unlisted = int(rank), min(float(mass), 1.0)
            ids, values, codes = [*ids, token], [*values, float(row[token])], [*codes, 0]
        numbers = StepNumbers(raw, tempered, final, kept, ids, values, values, codes, unlisted)
        return numbers.statistics(chain, self.piece, token)

    def _distributions(self, row: Tensor) -> tuple[Distribution | None, Distribution | None]:
        """The softmax of finite `row` (vocab,), and at the temperature; None where float32 does not
        reach."""
        if self._buffers is None or len(self._buffers[0]) != len(row):
            self._buffers = np.empty(len(row), np.float32), np.empty(len(row), np.float32)
        shifted, weights = self._buffers
        logits, temperature = row.numpy(), self.chain.temperature
        highest = float(logits.max())
        with np.errstate(all="ignore"):  # what is not finite is noticed
            np.subtract(logits, np.float32(highest), out=shifted)
            raw = _of_shifted(shifted, weights, highest, 1.0)
            if temperature == 1.0 or raw is None:
                return raw, raw
            shifted = divide_by_temperature(shifted, temperature)
            return raw, _of_shifted(shifted, weights, highest, temperature)

    def _draw_any(self, logits: Tensor, margin: float) -> int:
        """The highest logit, or a draw from the whole vocabulary."""
        noise = None if self._noise is None else self._noise.full()
        scores = self._scores(logits)
        token = int(draw(scores, noise))
        if self.tie_check is not None and logits.shape[-1] > 1:
            row_noise = None if noise is None else noise[0]
            self.ambiguous = self.tie_check.in_vocabulary(scores[0], row_noise, token, margin)
        return token

    def _draw_kept(self, head: Head, kept: int, tempered: Distribution, margin: float) -> int:
        """A draw from what the filters keep, the first `kept` of the head."""
        assert self._noise is not None
        scores = self._scores(head.logits)
        probabilities = torch.from_numpy(scores[:kept]).softmax(-1).numpy()
        noise = self._noise.gather(head.ids if self.tie_check else head.ids[:kept])
        index = int(np.argmax(probabilities / noise[:kept]))
        if self.tie_check is not None:
            self.ambiguous = self.tie_check.in_head(
                scores, noise, index, tempered.log_sum, margin, head.complete
            )
        return int(head.ids[index])

    def _truncated(self, row: Tensor, log_sum: float) -> tuple[Head, Truncation] | None:
        """What the filters keep, looking at more and more of the highest logits until it is clear; None
        where rounding may decide it."""
        vocab, least = len(row), self.count + 1
        if self.chain.filters[0] == "top_k":
            search = max(least, min(self.chain.params.top_k, vocab) + 8)
        else:
            search = max(least, self._search)
        total = np.array([[math.exp(log_sum)]])
        while True:
            head = Head.of(row, search)
            if head.determines(min(self.count, vocab)):
                scores = self._scores(head.logits).astype(np.float64)
                falling = (scores - scores[0])[None]
                truncation = truncate(
                    falling, self._settings, total, self._score_margin, head.complete
                )
                if truncation.in_sight[0]:
                    if truncation.borderline.any():
                        return None
                    self._search = max(_SEARCH, 2 * int(truncation.kept.sum()))
                    return head, truncation
            if head.complete or search * 8 > max(vocab // 2, _SEARCH * 8):
                return None
            search *= 8

    def _scores(self, logits: Any) -> Any:
        """Logits over the temperature, in the float32 that the processors see."""
        temperature = self.chain.temperature
        return logits if temperature == 1.0 else divide_by_temperature(logits, temperature)

    def _removed_by(self, truncation: Truncation) -> np.ndarray:
        """For every score 0, or 1 + the index in the chain's order of the filter that removed it."""
        codes = np.zeros(truncation.kept.shape[1], dtype=np.uint8)
        left = np.ones_like(truncation.kept[0])
        for name, kept in (
            ("top_k", truncation.in_top_k), ("top_p", truncation.in_top_p), ("min_p", truncation.kept)
        ):  # fmt: skip
            if name in self.chain.filters:
                codes[left & ~kept[0]] = self.chain.order.index(name) + 1
                left = kept[0]
        return codes


def _of_shifted(
    shifted: np.ndarray, weights: np.ndarray, highest: float, temperature: float
) -> Distribution | None:
    """The softmax of `shifted` (vocab,), at most 0, which is (logit − highest) / temperature; `weights`
    is a buffer. None where it overflows."""
    np.exp(shifted, out=weights)
    mass, mean = float(weights.sum()), float(weights @ shifted)
    if not (math.isfinite(mass) and math.isfinite(mean)):
        return None
    log_sum = math.log(mass)
    return Distribution(highest, temperature, log_sum, max(log_sum - mean / mass, 0.0))


def _exact_distribution(shifted: np.ndarray, highest: float, temperature: float) -> Distribution:
    """The softmax of a few tokens from their float64 (logit − highest) / temperature."""
    weights = np.exp(shifted)
    mass = float(weights.sum())
    log_sum = math.log(mass)
    some = weights > 0
    entropy = log_sum - float(weights[some] @ shifted[some]) / mass
    return Distribution(highest, temperature, log_sum, max(entropy, 0.0))
