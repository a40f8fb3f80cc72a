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
from functools import cache

import numpy as np
import torch
from torch import Tensor

from decodecli.records.run import Step
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.processors import divide_by_temperature
from decodecli.sampling.statistics import (
    ONE_HOT,
    Distribution,
    build_step,
    compute,
    rank_and_mass,
    unpack,
)
from decodecli.sampling.truncation import RowSettings, TieCheck, Truncation, truncate, truncates

_LEAST_TEMPERATURE = 1e-20  # below, differences of logits overflow float32
_LEAST_MIN_P = 1e-30  # below, a share of a probability underflows float32
_SEARCH = 128  # how many of the highest logits are looked at first
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Head:
    """The highest logits, falling, equal ones by id."""

    logits: np.ndarray  # float32
    ids: np.ndarray
    complete: bool  # whether these are all there are

    @classmethod
    def of(cls, row: Tensor, count: int) -> Head:
        """The `count` highest of `row` (vocab,).

        In a long row they are looked for only in the chunks whose own highest is among the `count`
        highest of those: a higher logit elsewhere would have made its chunk one of them. (A chunk is
        every so-manieth logit, as numpy takes the maximum of columns ten times as fast as that of rows.)
        """
        chunks = len(row) // _CHUNK
        if chunks < 4 * count:
            top = row.topk(min(count, len(row)))
            values, ids = top.values.numpy(), top.indices.numpy()
        else:
            logits = row.numpy()
            maxima = logits[: chunks * _CHUNK].reshape(_CHUNK, chunks).max(0)
            chosen = np.argpartition(maxima, chunks - count)[chunks - count :]
            rest = np.arange(chunks * _CHUNK, len(row))
            ids = np.concatenate(((chosen + chunks * np.arange(_CHUNK)[:, None]).ravel(), rest))
            values = logits[ids]
            best = np.argpartition(values, len(values) - count)[len(values) - count :]
            best = best[np.argsort(-values[best], kind="stable")]
            values, ids = values[best], ids[best]
        if (values[1:] == values[:-1]).any():
            order = np.lexsort((ids, -values))
            values, ids = values[order], ids[order]
        return cls(values, ids, len(values) == len(row))

    def determines(self, count: int) -> bool:
        """Whether the first `count` are known: not if the last of them equals the last in sight."""
        return self.complete or count < 1 or bool(self.logits[count - 1] > self.logits[-1])


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
        self.chain, self.count, self.piece, self.seed = chain, count, cache(piece), seed
        chain.reset()
        self.noise: ExponentialNoise | None = None  # none under greedy, nor before the first logits
        self.tie_check = TieCheck(chain, tolerance) if tolerance else None
        self.ambiguous = False
        self._score_margin = np.array([[0.0 if exact_ties else -1.0]])
        self._settings = RowSettings.of([chain])
        self._fast = (
            not chain.needs_history
            and truncates(chain)
            and chain.temperature >= _LEAST_TEMPERATURE
            and not 0 < chain.params.min_p < _LEAST_MIN_P
        )
        self._search = _SEARCH
        self._buffers: tuple[np.ndarray, np.ndarray] | None = None

    @torch.inference_mode()
    def __call__(
        self, logits: Tensor, ids: Tensor | None = None, index: int = 0
    ) -> tuple[Tensor, Step]:
        """The drawn token, (1, 1), and step `index` as `build_step` makes it, for float32 `logits`
        (1, vocab) after the tokens `ids` (1, length), which a chain without penalties does not need.

        Raises:
            DecodeError: the logits are not finite, or the settings leave nothing to draw from.
        """
        self.ambiguous = False
        if self._fast and logits.device.type == "cpu":
            self._prepare(logits)
            step = self._from_head(logits, index)
            if step is not None:
                return torch.tensor([[step.token_id]]), step
        chosen, packed = self.launch(logits, ids)
        packed, vocab = packed.cpu(), logits.shape[-1]
        return chosen, unpack(packed.numpy(), self.chain, self.count, vocab, self.piece, index)

    def batchable(self, logits: Tensor) -> bool:
        """Whether draws from `logits` (rows, vocab) may be made for several rows at once
        (`BatchedSampler`)."""
        self._prepare(logits)
        if not (self._fast and self.tie_check) or logits.device.type != "cpu":
            return False
        return self.noise is None or self.noise.has_bits

    @torch.inference_mode()
    def launch(self, logits: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a call does by the processors, on the device and without waiting for it (but for
        mirostat, which learns from the draw): the drawn token, (1, 1), and what `statistics.unpack` makes
        the step of."""
        self._prepare(logits)
        processed = self.chain(logits, ids)
        noise = None if self.noise is None else self.noise.full()
        chosen = draw(processed.scores, noise)
        if self.tie_check is not None:
            self.ambiguous = self.tie_check.in_chain(logits, ids, processed, noise, chosen)
        if "mirostat" in self.chain.order:
            self.chain.advance(processed.scores, int(chosen))
        return chosen, compute(logits, processed, self.chain, chosen, self.count)

    def _prepare(self, logits: Tensor) -> None:
        if self.noise is None and not self.chain.greedy:
            self.noise = ExponentialNoise(self.seed, logits.shape[-1], logits.device)

    def _from_head(self, logits: Tensor, index: int) -> Step | None:
        """From the highest logits and one sum; None, before any noise is used, where that may not be
        what the processors give."""
        row, chain = logits[0], self.chain
        distributions = self._distributions(row)
        if distributions is None:
            return None
        raw, tempered = distributions
        margin = self.tie_check.margin(float(row.abs().amax())) if self.tie_check else 0.0
        if chain.filters:
            drawn = self._draw_filtered(row, raw, tempered, margin)
            if drawn is None:
                return None
            head, token, final, kept, removed = drawn
        else:
            head = Head.of(row, self.count + 1)
            if not head.determines(min(self.count, len(row))):
                return None
            noise = None if self.noise is None else self.noise.full()
            scores = divide_by_temperature(logits, chain.temperature)
            token = int(draw(scores, noise))
            if self.tie_check is not None and len(row) > 1:
                row_noise = None if noise is None else noise[0]
                self.ambiguous = self.tie_check.in_vocabulary(scores[0], row_noise, token, margin)
            final = ONE_HOT if chain.greedy else tempered
            kept, removed = len(row), np.zeros(len(head.ids), np.uint8)
        ids, codes = (values[: self.count].tolist() for values in (head.ids, removed))
        listed, unlisted = head.logits[: self.count].astype(np.float64), None
        if token not in ids:
            position = int((head.ids == token).argmax())
            if head.ids[position] == token and head.determines(position + 1):
                rank = 1 + int(np.searchsorted(-head.logits, -head.logits[position]))
                above = head.logits[: position + 1].astype(np.float64)
                mass = float(np.exp(tempered.logprob(above)).sum())
            else:
                constants = tempered.highest, tempered.log_sum, chain.temperature
                both = rank_and_mass(row, row, torch.tensor([token]), *constants)
                rank, mass = int(both[0]), float(both[1])
            unlisted = rank, min(mass, 1.0)
            ids, codes, listed = [*ids, token], [*codes, 0], np.append(listed, float(row[token]))
        return build_step(
            chain, self.piece, index, token, (raw, tempered, final), kept,
            ids, listed, listed, codes, unlisted,
        )  # fmt: skip

    def _distributions(self, row: Tensor) -> tuple[Distribution, Distribution] | None:
        """The softmax of finite `row` (vocab,), and at the temperature; None where float32 does not
        reach."""
        if self._buffers is None or len(self._buffers[0]) != len(row):
            self._buffers = np.empty(len(row), np.float32), np.empty(len(row), np.float32)
        shifted, weights = self._buffers
        logits = row.numpy()
        highest = float(logits.max())
        distributions = []
        with np.errstate(all="ignore"):  # what is not finite is noticed
            np.subtract(logits, np.float32(highest), out=shifted)
            for temperature in dict.fromkeys((1.0, self.chain.temperature)):
                divide_by_temperature(shifted, temperature, out=shifted)
                np.exp(shifted, out=weights)
                mass, mean = float(weights.sum()), float(weights @ shifted)
                if not (math.isfinite(mass) and math.isfinite(mean)):
                    return None
                log_sum = math.log(mass)
                entropy = max(log_sum - mean / mass, 0.0)
                distributions.append(Distribution(highest, temperature, log_sum, entropy))
        return distributions[0], distributions[-1]

    def _draw_filtered(
        self, row: Tensor, raw: Distribution, tempered: Distribution, margin: float
    ) -> tuple[Head, int, Distribution, int, np.ndarray] | None:
        """A draw from what the filters keep, the first of the head: the head, the token, the
        distribution drawn from, how many are kept, and the stages that removed the others, as
        `build_step` has them. None where rounding may decide what is kept."""
        assert self.noise is not None
        chain = self.chain
        truncated = self._truncate(row, tempered.log_sum)
        if truncated is None:
            return None
        head, truncation = truncated
        kept = int(truncation.kept.sum())
        scores = divide_by_temperature(head.logits, chain.temperature)
        probabilities = torch.from_numpy(scores[:kept]).softmax(-1).numpy()
        noise = self.noise.gather(head.ids if self.tie_check else head.ids[:kept])
        index = int(np.argmax(probabilities / noise[:kept]))
        if self.tie_check is not None:
            self.ambiguous = self.tie_check.in_head(
                scores, noise, index, tempered.log_sum, margin, head.complete
            )
        # In float64: few tokens, and exact at any temperature.
        exact = head.logits[:kept].astype(np.float64) - raw.highest
        exact = np.maximum(divide_by_temperature(exact, chain.temperature), -1e308)
        weights = np.exp(exact)
        mass = float(weights.sum())
        log_sum = math.log(mass)
        entropy = max(log_sum - float(weights @ exact) / mass, 0.0)
        final = Distribution(raw.highest, chain.temperature, log_sum, entropy)
        removed = np.zeros(len(head.ids), np.uint8)
        survivors = {
            "min_p": truncation.kept, "top_p": truncation.in_top_p, "top_k": truncation.in_top_k
        }  # fmt: skip
        for (
            name,
            survives,
        ) in survivors.items():  # the last first, so that the first has the last word
            if name in chain.filters:
                removed[~survives[0]] = chain.order.index(name) + 1
        return head, int(head.ids[index]), final, kept, removed

    def _truncate(self, row: Tensor, log_sum: float) -> tuple[Head, Truncation] | None:
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
                scores = divide_by_temperature(head.logits, self.chain.temperature)
                falling = scores.astype(np.float64)[None]
                falling -= falling[:, :1]
                margin = self._score_margin
                truncation = truncate(falling, self._settings, total, margin, head.complete)
                if truncation.in_sight[0]:
                    if truncation.borderline.any():
                        return None
                    self._search = max(_SEARCH, 2 * int(truncation.kept.sum()))
                    return head, truncation
            if head.complete or search * 8 > max(vocab // 2, _SEARCH * 8):
                return None
            search *= 8
