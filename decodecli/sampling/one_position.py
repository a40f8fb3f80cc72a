"""One position's logits under some settings, every number of every token in float64: for views that ask
for one position at a time, where `statistics` computes what each step of a run records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.records.run import Candidate, Step
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.reference import entropy, log_softmax, row_order
from decodecli.sampling.statistics import step_record
from decodecli.settings import SamplingParams

# Over which the entropy is drawn, evenly in the logarithm.
CURVE = tuple(float(t) for t in np.geomspace(0.1, 10.0, 41))


@dataclass(frozen=True)
class Distribution:
    """A position's logits under some settings; numbers in float64, masks as `generate` makes them.

    logits: (1, vocab) float32, as the model gave them, on any device. ids: the tokens before.
    shared_chain: that of a run, which may have learnt from its draws; a new one where it is None.
    """

    logits: Tensor
    ids: tuple[int, ...]
    params: SamplingParams
    shared_chain: Chain | None = None

    @cached_property
    def chain(self) -> Chain:
        return self.shared_chain or Chain(self.params)

    @cached_property
    def sequence(self) -> Tensor:
        """(1, length): `ids` beside the logits."""
        return torch.tensor([self.ids], dtype=torch.long, device=self.logits.device)

    @cached_property
    def _processed(self) -> Any:
        with torch.inference_mode():
            return self.chain(self.logits, self.sequence)

    @cached_property
    def raw(self) -> Any:
        """(vocab,): the logits."""
        return self.logits[0].cpu().double().numpy()

    @cached_property
    def logprobs(self) -> Any:
        """(vocab,): at temperature 1, before everything."""
        return log_softmax(self.raw)

    @cached_property
    def penalised(self) -> Any:
        """(vocab,): the logits after the penalties."""
        return self._processed.penalised[0].cpu().double().numpy()

    @cached_property
    def tempered(self) -> Any:
        """(vocab,): log probabilities after penalties and temperature."""
        return log_softmax(self.penalised, self.chain.temperature)

    @cached_property
    def removed(self) -> Any:
        """(vocab,): `Chain.removal_codes`."""
        return self.chain.removal_codes(self._processed)

    @cached_property
    def final(self) -> Any:
        """(vocab,): log probabilities of the distribution that is drawn from; −inf where removed."""
        return log_softmax(np.where(self.removed > 0, -np.inf, self.tempered))

    @property
    def top(self) -> int:
        """The token of the highest score, the most probable of what is left."""
        return int(self._processed.scores.argmax())

    @cached_property
    def order(self) -> Any:
        """Token ids by logit, highest first."""
        return row_order(self.raw)

    @cached_property
    def kept(self) -> int:
        return int((self.removed == 0).sum())

    @cached_property
    def entropies(self) -> tuple[float, float]:
        """Nats, at temperature 1 and of the final distribution."""
        return entropy(self.logprobs), entropy(self.final)

    def entropy_curve(self) -> list[float]:
        """Nats at each temperature of `CURVE`, after the penalties and before the filters."""
        return [entropy(log_softmax(self.penalised, temperature)) for temperature in CURVE]

    @cached_property
    def _cumulative(self) -> Any:
        return np.minimum(np.cumsum(np.exp(self.tempered[self.order])), 1.0)

    @cached_property
    def _positions(self) -> Any:
        positions = np.empty_like(self.order)
        positions[self.order] = np.arange(self.order.size)
        return positions

    def candidate(self, token_id: int, piece: str) -> Candidate:
        """A token with its numbers."""
        code = int(self.removed[token_id])
        return Candidate(
            rank=1 + int((self.raw > self.raw[token_id]).sum()),
            token_id=token_id,
            token=piece,
            logit=float(self.raw[token_id]),
            logprob=float(self.logprobs[token_id]),
            tempered_logprob=max(float(self.tempered[token_id]), -1e308),
            cumulative=float(self._cumulative[self._positions[token_id]]),
            final_logprob=None if code else max(float(self.final[token_id]), -1e308),
            removed_by=self.chain.order[code - 1] if code else None,
        )

    def step(self, index: int, token_id: int, piece: Callable[[int], str], count: int) -> Step:
        """The record of a step that chose `token_id`, but for `position` and `text`, listing `count`
        candidates; a final_logprob of −1e308 where the settings remove the token."""
        listed = self.order[:count].tolist()
        if token_id not in listed:
            listed.append(token_id)
        rows = tuple(self.candidate(token, piece(token)) for token in listed)
        return step_record(index, token_id, rows, self.entropies, self.kept)

    @torch.inference_mode()
    def draw(self, noise: Tensor | None) -> int:
        """A token drawn with a step's noise (1, vocab), as `generate` draws it."""
        return int(draw(self._processed.scores, None if self.chain.greedy else noise))

    def under(self, params: SamplingParams) -> Distribution:
        """The same logits under other settings."""
        return replace(self, params=params)
