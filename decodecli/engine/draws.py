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

from decodecli.engine.doubt import Edges, Filters, close, edges, slack
from decodecli.engine.exponentials import exponential, uniform
from decodecli.engine.sampler import Sampler

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
    """The rows' settings, (rows, 1) each."""

    divisor: np.ndarray
    tolerance: np.ndarray
    filters: Filters

    @classmethod
    def of(cls, samplers: Sequence[Sampler]) -> _Settings:
        chains = [sampler.chain for sampler in samplers]
        tolerances = [sampler.doubts.tolerance if sampler.doubts else 0.0 for sampler in samplers]
        return cls(
            np.array([chain.divisor for chain in chains])[:, None],
            np.array(tolerances)[:, None],
            Filters.of(chains),
        )


class Draws:
    """Draws a token in each of several rows, step after step."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[list[Sampler], _Settings]] = {}
        self._width = _FEW

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
        settings = self._settings(list(samplers))
        largest = np.maximum(np.abs(highest), np.abs(scores.min(1, keepdims=True)))
        with np.errstate(invalid="ignore"):
            room = slack(settings.tolerance, largest, settings.divisor)
        for row, token, doubtful in self._tokens(samplers, logits, shifted, room, rows):
            logprob = min(float(shifted[row, token]) - float(log_sum[row, 0]), 0.0)
            found[row] = Draw(token, logprob, float(entropy[row, 0]), doubtful)
        return found

    def _tokens(
        self,
        samplers: Sequence[Sampler],
        logits: Tensor,
        shifted: np.ndarray,
        room: np.ndarray,
        rows: list[int],
    ) -> list[tuple[int, int, bool]]:
        """Row, token and whether it is doubtful, for those of `rows` that can be drawn here."""
        greedy = [r for r in rows if samplers[r].chain.greedy]
        plain = [r for r in rows if r not in greedy and not samplers[r].filters]
        narrow = [r for r in rows if samplers[r].filters and r not in greedy]
        found: list[tuple[int, int, bool]] = []
        if greedy:
            top = logits[greedy].topk(2).values
            gaps = (top[:, 0] - top[:, 1]).tolist()
            tokens = logits[greedy].argmax(1).tolist()
            found += [
                (r, token, gap <= room[r, 0])
                for r, token, gap in zip(greedy, tokens, gaps, strict=True)
            ]
        for r in plain:
            found.append((r, *_from_all(samplers[r], shifted[r], float(room[r, 0]))))
        if narrow:
            found += self._from_the_highest(samplers, logits, shifted, room, narrow)
        return found

    def _from_the_highest(
        self,
        samplers: Sequence[Sampler],
        logits: Tensor,
        shifted: np.ndarray,
        room: np.ndarray,
        rows: list[int],
    ) -> list[tuple[int, int, bool]]:
        """The same for rows with a filter; those whose filters reach too far are left out."""
        settings = self._settings([samplers[r] for r in rows])
        if len(rows) < len(logits):
            logits, shifted, room = logits[rows], shifted[rows], room[rows]
        top = logits.topk(self._width)
        ids = top.indices.numpy()
        scores = top.values.numpy().astype(np.float64) / settings.divisor
        scores -= scores[:, :1]
        total = np.exp(shifted / settings.divisor.astype(np.float32)).sum(1, keepdims=True)
        found = edges(scores, settings.filters, total, room)
        widest = int(found.kept.sum(1).max())
        self._width = _SOME if widest * 2 > _FEW else _FEW
        usable = np.flatnonzero(found.in_sight)
        if not len(usable):
            return []
        bits = np.stack([samplers[rows[i]].step_bits()[ids[i]] for i in usable])
        with np.errstate(divide="ignore"):
            reach = scores[usable] - np.log(exponential(torch.from_numpy(bits)).numpy())
        found = Edges(found.kept[usable], found.unsure[usable], found.in_sight[usable])
        winners = np.where(found.kept, reach, -np.inf).argmax(1)[:, None]
        doubts = close(found, reach, winners, room[usable])
        tokens = np.take_along_axis(ids[usable], winners, 1)[:, 0]
        return [
            (rows[i], int(token), bool(doubt))
            for i, token, doubt in zip(usable, tokens, doubts, strict=True)
        ]

    def _settings(self, samplers: list[Sampler]) -> _Settings:
        """Those of these samplers; remembered, as they are the same until a row ends."""
        key = tuple(map(id, samplers))
        if key not in self._known:
            if len(self._known) > 3:
                self._known.clear()
            self._known[key] = samplers, _Settings.of(samplers)
        return self._known[key][1]


def _from_all(sampler: Sampler, shifted: np.ndarray, room: float) -> tuple[int, bool]:
    """A draw from the whole vocabulary, and whether it is doubtful.

    The noise e = −log(1 − u) is at least u, so exp(score) / u bounds exp(score) / e from above: only
    tokens whose bound reaches the best one found need their logarithm.
    """
    bits = sampler.step_bits()
    scores = shifted.astype(np.float64) / sampler.chain.divisor
    with np.errstate(divide="ignore"):
        bounds = scores - np.log(uniform(bits))
        first = int(bounds.argmax())
        reach = scores[first] - float(np.log(_noise(bits, np.array([first])))[0])
        some = np.flatnonzero(bounds >= reach - room)
        exact = scores[some] - np.log(_noise(bits, some))
    winner = int(exact.argmax())
    best = float(exact[winner])
    exact[winner] = -np.inf
    return int(some[winner]), bool((exact > best - room).any())


def _noise(bits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return exponential(torch.from_numpy(bits[ids])).numpy()
