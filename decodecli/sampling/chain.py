"""The sampler chain: which processors run, in which order, and which one removed which token.

By default the order is transformers', which knows no top_nsigma, dynatemp, and none of the last four
filters; `stages.ORDERS` has those of other engines, `SamplingParams.order` chooses:

1. logit_bias           adds to the logits of single tokens
2. repetition_penalty, presence_penalty, frequency_penalty, dry_multiplier
                        lower the logits of tokens already in the text
3. constraint, no_repeat_ngram_size, bad_words, min_new_tokens
                        ban tokens that would repeat an n-gram, complete a bad word, or end too early
4. top_nsigma           removes logits far below the highest; the temperature does not change which
5. dynatemp_range       scales the logits to a temperature that follows the entropy
6. temperature          divides the logits
7. top_h, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, top_a, tfs_z, xtc_probability,
   mirostat             filters, in this order
8. the draw             argmax(softmax(scores) / exponential noise); under greedy, argmax

A stage at its neutral value is left out; greedy decoding runs 1 to 3 alone. To add a method, write it
in `processors` and in `reference`, and add its field to `settings.SamplingParams` and its name to
`stages.ORDERS`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.sampling import processors
from decodecli.settings import SamplingParams
from decodecli.stages import OF_SCORES_ALONE, PENALTIES, RESCORING, STATEFUL, stage_order

# Filters that leave the highest scores where they must leave several; typical_p has its own order.
_BY_SCORE = frozenset(OF_SCORES_ALONE) - {"typical_p"}


@dataclass(frozen=True)
class Processed:
    """What the chain made of the logits; every tensor is (rows, vocab).

    penalised: float32, the logits after the penalties; divided by the temperature, the tempered scores.
    scores: float32, what the token is drawn from; −inf where removed.
    removed_by: uint8, 0 where kept, else 1 + the index in the order of the stage that removed the
        token first; None when no stage of this chain removes anything.
    """

    penalised: Tensor
    scores: Tensor
    removed_by: Tensor | None


@dataclass(frozen=True)
class RunContext:
    """What stages know of a run besides its settings (`decoding.prompt.run_context`).

    prompt_length: tokens before the first new one. eos_ids: those that end a text.
    logit_bias: token id → what is added. bad_words: the token ids of each.
    forbidden: called with tokens (rows, length), which the constraint rules out next, (rows, vocab).
    breaks: whether a token is one that no repetition reaches across.
    seed: of the run; without one, XTC excludes at every step.
    """

    prompt_length: int = 0
    eos_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    forbidden: Any = None
    breaks: Callable[[int], bool] = lambda token_id: False
    seed: int | None = None


class Chain:
    """The active stages of `params`, ready to run, at its own `temperature` or the one given.

    `order` names them, `filters` those that remove tokens; `temperature` is the one that the tempered
    distribution is taken at (1 under greedy). `min_tokens_to_keep` is what a filter leaves of a row at
    least, as transformers has it for beams. Calls are pure but for mirostat, whose `max_surprise` in
    bits `advance` moves on after a draw and `reset` takes back to the start of a run.
    """

    def __init__(
        self,
        params: SamplingParams,
        temperature: float | None = None,
        context: RunContext | None = None,
        min_tokens_to_keep: int = 1,
    ) -> None:
        temperature = params.temperature if temperature is None else temperature
        self.params, self.context = params, context or RunContext()
        self.min_tokens_to_keep = min_tokens_to_keep
        self.order = stage_order(params, temperature)
        self.greedy = temperature == 0
        self.temperature = 1.0 if self.greedy else temperature
        self.penalises = not PENALTIES.isdisjoint(self.order)
        self.needs_history = not STATEFUL.isdisjoint(self.order)
        self.filters = tuple(n for n in self.order if n not in RESCORING and n != "greedy")
        self.reset()

    def first(self, count: int) -> Chain:
        """The chain of the first `count` stages of this one."""
        part = copy(self)
        part.order = self.order[:count]
        part.penalises = not PENALTIES.isdisjoint(part.order)
        part.filters = tuple(name for name in self.filters if name in part.order)
        return part

    def reset(self) -> None:
        """Begin a run."""
        self.max_surprise = 2 * self.params.mirostat_tau

    def advance(self, scores: Tensor, token: int) -> None:
        """Take note that `token` was drawn from `scores` (1, vocab)."""
        if "mirostat" in self.order:
            surprise = -float(scores[0].double().log_softmax(-1)[token]) / math.log(2)
            self.max_surprise -= self.params.mirostat_eta * (surprise - self.params.mirostat_tau)

    def __call__(self, logits: Tensor, ids: Tensor | None) -> Processed:
        """Run the stages on `logits` (rows, vocab), float32, after the tokens `ids` (rows, length).

        `ids` may be None when `needs_history` is false.
        """
        penalised = scores = logits
        removed_by = torch.zeros_like(logits, dtype=torch.uint8) if self.filters else None
        divisor = 1.0  # what the scores are already divided by
        for number, name in enumerate(self.order, start=1):
            if name == "greedy":
                break
            result = self._run(name, scores, ids)
            if name == "temperature":
                scores, divisor = result, self.temperature
            elif name == "dynatemp_range":
                scores, penalised = scores * result, penalised * result
            elif name in RESCORING:
                if scores is penalised:
                    scores = penalised = result
                else:  # without what is removed so far
                    tempered = processors.divide_by_temperature(penalised, divisor)
                    scores, penalised = result, self._run(name, tempered, ids) * divisor
            else:
                assert removed_by is not None
                if self.min_tokens_to_keep > 1 and name in _BY_SCORE:
                    count = min(self.min_tokens_to_keep, scores.shape[-1])
                    result.scatter_(-1, scores.topk(count).indices, False)
                removed_by.masked_fill_(result & (removed_by == 0), number)
                scores = scores.masked_fill(result, -torch.inf)
        return Processed(penalised, scores, removed_by)

    def removal_codes(self, processed: Processed) -> np.ndarray:
        """Of the first row, (vocab,) uint8: 0 where a token is kept, else 1 + the index in the order of
        the stage that removed it first. Greedy removes all but the highest score."""
        codes = np.zeros(processed.scores.shape[-1], np.uint8)
        if processed.removed_by is not None:
            codes = processed.removed_by[0].cpu().numpy().copy()
        if "greedy" in self.order:
            others = np.arange(codes.size) != int(processed.scores[0].argmax())
            codes[others & (codes == 0)] = self.order.index("greedy") + 1
        return codes

    def _run(self, name: str, scores: Tensor, ids: Tensor | None) -> Tensor:
        """What the stage's processor makes of `scores`."""
        params, context = self.params, self.context
        value = getattr(params, name)
        inputs: tuple[Any, ...] = (value,)
        if name == "typical_p":
            inputs = value, self.min_tokens_to_keep
        if name == "temperature":
            inputs = (self.temperature,)
        elif name == "dynatemp_range":
            inputs = value, params.dynatemp_exponent, self.temperature
        elif name == "mirostat":
            inputs = (self.max_surprise,)
        elif name == "logit_bias":
            inputs = (context.logit_bias,)
        elif name in STATEFUL:
            assert ids is not None
            inputs = ids, value
            if name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
                inputs = _last(ids, params.penalty_last_n), value
            elif name == "dry_multiplier":
                recent = _last(ids, params.dry_penalty_last_n)
                more = params.dry_base, params.dry_allowed_length, context.breaks
                inputs = recent, value, *more
            elif name == "constraint":
                inputs = ids, context.forbidden
            elif name == "bad_words":
                inputs = ids, context.bad_words
            elif name == "min_new_tokens":
                inputs = ids, context.prompt_length + value, context.eos_ids
            elif name == "xtc_probability":
                if context.seed is not None and value < 1:
                    # A number of its own for every position, whatever else is drawn.
                    dice = random.Random(f"xtc {context.seed} {ids.shape[1]}")
                    value = float(dice.random() < value)
                inputs = bool(value), params.xtc_threshold
        result: Tensor = getattr(processors, name)(scores, *inputs)
        return result


def _last(ids: Tensor, count: int) -> Tensor:
    return ids if count < 0 else ids[:, max(ids.shape[1] - count, 0) :]


def draw(scores: Tensor, noise: Tensor | None) -> Tensor:
    """One token a row, shape (rows, 1): the highest score without noise, else a draw.

    The draw is argmax(p / e) with `noise` e from an exponential distribution, (rows, vocab), which is
    what `torch.multinomial` computes for a single sample, without its synchronisation with the host.
    """
    if noise is None:
        return scores.argmax(-1, keepdim=True)
    return (scores.softmax(-1) / noise).argmax(-1, keepdim=True)
