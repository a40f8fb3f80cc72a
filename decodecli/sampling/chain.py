"""The sampler chain: which processors run, in which order, and which one removed which token.

The order is transformers', which knows no top_nsigma:

1. repetition_penalty   divides or multiplies the logits of tokens already in the text
2. no_repeat_ngram_size bans the token that would repeat an n-gram
3. top_nsigma           removes logits far below the highest; the temperature does not change which
4. temperature          divides the logits
5. top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff   filters, in this order
6. the draw             argmax(softmax(scores) / exponential noise); under greedy, argmax

A stage at its neutral value is left out; greedy decoding runs 1 and 2 alone. To add a method, write it
in `processors` and in `reference`, and add its field to `settings.SamplingParams` and its name to
`settings.ORDER`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decodecli.sampling import processors
from decodecli.settings import RESCORING, WITH_HISTORY, SamplingParams, stage_order


@dataclass(frozen=True)
class Processed:
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
    """The active stages of `params`, ready to run, at its own `temperature` or the one given.

    `order` names them, `filters` those that remove tokens; `temperature` is the one that the tempered
    distribution is taken at (1 under greedy).
    """

    def __init__(self, params: SamplingParams, temperature: float | None = None) -> None:
        temperature = params.temperature if temperature is None else temperature
        self.params = params
        self.order = stage_order(params, temperature)
        self.greedy = temperature == 0
        self.temperature = 1.0 if self.greedy else temperature
        self.penalises = "repetition_penalty" in self.order
        self.needs_history = not WITH_HISTORY.isdisjoint(self.order)
        self.filters = tuple(n for n in self.order if n not in RESCORING and n != "greedy")

    def __call__(self, logits: Tensor, ids: Tensor | None) -> Processed:
        """Run the stages on `logits` (rows, vocab), float32, after the tokens `ids` (rows, length).

        `ids` may be None when `needs_history` is false.
        """
        penalised = scores = logits
        removed_by = torch.zeros_like(logits, dtype=torch.uint8) if self.filters else None
        for number, name in enumerate(self.order, start=1):
            if name == "greedy":
                break
            value = self.temperature if name == "temperature" else getattr(self.params, name)
            inputs: tuple[Any, ...] = (ids, value) if name in WITH_HISTORY else (value,)
            result: Tensor = getattr(processors, name)(scores, *inputs)
            if name in RESCORING:
                scores = result
                penalised = result if name == "repetition_penalty" else penalised
                continue
            assert removed_by is not None
            removed_by.masked_fill_(result & (removed_by == 0), number)
            scores = scores.masked_fill(result, -torch.inf)
        return Processed(penalised, scores, removed_by)


def draw(scores: Tensor, noise: Tensor | None) -> Tensor:
    """One token a row, shape (rows, 1): the highest score without noise, else a draw.

    The draw is argmax(p / e) with `noise` e from an exponential distribution, (rows, vocab), which is
    what `torch.multinomial` computes for a single sample, without its synchronisation with the host.
    """
    if noise is None:
        return scores.argmax(-1, keepdim=True)
    return (scores.softmax(-1) / noise).argmax(-1, keepdim=True)
