"""The order of the stages, run so that what each one removed is known.

The order is transformers': repetition_penalty, no_repeat_ngram_size, temperature, top_k, top_p,
min_p, typical_p, epsilon_cutoff, eta_cutoff. A stage at its neutral value is left out. Greedy
decoding runs the penalties and then takes the highest score: temperature and filters do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decodecli.engine import stages
from decodecli.settings import SamplingParams

_FILTERS = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_NEUTRAL = SamplingParams()


def stage_order(params: SamplingParams) -> tuple[str, ...]:
    """The names of the active stages, in the order in which they apply."""
    names = [
        name for name in ("repetition_penalty", "no_repeat_ngram_size") if _active(params, name)
    ]
    if params.greedy:
        return (*names, "greedy")
    names += [name for name in ("temperature", *_FILTERS) if _active(params, name)]
    return tuple(names)


def ignored_under_greedy(params: SamplingParams) -> tuple[str, ...]:
    """Filters that were asked for but do nothing because decoding is greedy."""
    return tuple(name for name in _FILTERS if params.greedy and _active(params, name))


def _active(params: SamplingParams, name: str) -> bool:
    return bool(getattr(params, name) != getattr(_NEUTRAL, name))


@dataclass(frozen=True)
class Filtered:
    """What the chain made of the logits; every tensor is (rows, vocab).

    penalised: float32, the logits after the repetition penalty.
    scores: float32, what the token is drawn from; −inf where removed.
    removed_by: uint8, 0 where kept, else 1 + the index in the order of the stage that removed the
        token first; None when no stage of this chain removes anything.
    """

    penalised: Tensor
    scores: Tensor
    removed_by: Tensor | None


class Chain:
    """The active stages of one setting, ready to run.

    `order` names them; `divisor` is the temperature that the tempered distribution is taken at
    (1 under greedy).
    """

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.order = stage_order(params)
        self.greedy = params.greedy
        self.divisor = 1.0 if params.greedy else params.temperature
        self.penalises = "repetition_penalty" in self.order
        self.needs_history = self.penalises or "no_repeat_ngram_size" in self.order
        self.filters = any(name in self.order for name in ("no_repeat_ngram_size", *_FILTERS))

    def __call__(self, logits: Tensor, ids: Tensor | None) -> Filtered:
        """Run the stages on `logits` (rows, vocab), float32, after the tokens `ids` (rows, length).

        `ids` may be None when `needs_history` is false.
        """
        penalised = scores = logits
        removed_by = torch.zeros_like(logits, dtype=torch.uint8) if self.filters else None
        for number, name in enumerate(self.order, start=1):
            value: Any = getattr(self.params, name, None)
            if name == "greedy":
                break
            if name == "temperature":
                scores = stages.temperature(scores, self.params.temperature)
                continue
            if name == "repetition_penalty":
                assert ids is not None
                penalised = scores = stages.repetition_penalty(scores, ids, value)
                continue
            if name == "no_repeat_ngram_size":
                assert ids is not None
                mask = stages.no_repeat_ngram_size(scores, ids, value)
            else:
                mask = getattr(stages, name)(scores, value)
            assert removed_by is not None
            removed_by.masked_fill_(mask & (removed_by == 0), number)
            scores = scores.masked_fill(mask, -torch.inf)
        return Filtered(penalised, scores, removed_by)


def draw(scores: Tensor, noise: Tensor | None) -> Tensor:
    """One token a row, shape (rows, 1): the highest score without noise, else a draw.

    The draw is argmax(p / e) with `noise` e from an exponential distribution, (rows, vocab), which is
    what `torch.multinomial` computes for a single sample, without its synchronisation with the host.
    """
    if noise is None:
        return scores.argmax(-1, keepdim=True)
    return (scores.softmax(-1) / noise).argmax(-1, keepdim=True)
