"""What may be looked at in the logits of every step beside the draw: named tokens, other settings' draws,
why a token was taken.

Nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from decodecli.decoding.prompt import run_context, token_chain
from decodecli.models.loading import LanguageModel
from decodecli.records.run import Cut, Explanation, Step, Watched, WhatIf, Without
from decodecli.sampling.chain import Chain
from decodecli.sampling.one_position import Distribution
from decodecli.sampling.sampler import Sampler
from decodecli.settings import SamplingParams
from decodecli.stages import stage_order


class Observer:
    """Looks at the steps of one run, in order, and may add to their records."""

    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        """Fields of step `index`, of which the logits are known and the token is not. What
        `position` computes is computed once for all observers."""
        return {}

    def drawn(self, step: Step) -> Step:
        """The step, once its token is known."""
        return step


class WhatIfs(Observer):
    """What other settings would have drawn from the logits of a run.

    others: the settings by the words that asked for them. seed: the run's, for those without one.
    forbidden: what the run's constraint rules out; theirs is the same, or none.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompt_ids: Sequence[int],
        others: Mapping[str, SamplingParams],
        seed: int,
        forbidden: Any = None,
    ) -> None:
        self._samplers: dict[str, Sampler] = {}
        for words, params in others.items():
            own_seed = seed if params.seed is None else params.seed
            context = run_context(lm, replace(params, constraint=""), prompt_ids, own_seed)
            chain = Chain(params, context=replace(context, forbidden=forbidden))
            exact_ties = lm.info.dtype == "float32"
            self._samplers[words] = Sampler(chain, 0, lm.piece, own_seed, exact_ties)
        self._diverged: set[str] = set()

    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        rows = []
        for words, sampler in self._samplers.items():
            _, step = sampler(position.logits, position.sequence, index)
            rows.append(
                WhatIf(
                    words, step.token_id, step.token, step.rank,
                    step.logprob, step.final_logprob, step.kept, False,
                )
            )  # fmt: skip
        return {"what_if": tuple(rows)}

    def drawn(self, step: Step) -> Step:
        rows = []
        for row in step.what_if:
            first = row.token_id != step.token_id and row.settings not in self._diverged
            self._diverged |= {row.settings} if first else set()
            rows.append(replace(row, first_divergence=first))
        return replace(step, what_if=tuple(rows))


class Explanations(Observer):
    """Why each step took its token: what would have been drawn were one stage off, and what each cut."""

    def __init__(
        self,
        lm: LanguageModel,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        seed: int,
        forbidden: Any = None,
    ) -> None:
        active = [name for name in stage_order(params) if name != "greedy"]
        others = {name: replace(params, **{name: getattr(SamplingParams, name)}) for name in active}
        self._without = WhatIfs(lm, prompt_ids, others, seed, forbidden)
        self._piece = lm.piece

    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        chain, masses = position.chain, np.exp(position.tempered)
        cuts = []
        for name in chain.filters:
            removed = position.removed == chain.order.index(name) + 1
            cuts.append(Cut(name, int(removed.sum()), float(masses[removed].sum())))
        rows = self._without.observe(index, position)["what_if"]
        without = tuple(Without(row.settings, row.token_id, row.token) for row in rows)
        top, temperature = position.top, chain.temperature
        return {"explain": Explanation(temperature, tuple(cuts), without, top, self._piece(top))}


class ConstrainedMass(Observer):
    """What the model had put on the tokens that the run's constraint rules out."""

    @torch.inference_mode()
    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        forbidden = position.chain.context.forbidden(position.sequence)[0]
        masses = position.logits[0].softmax(-1)[forbidden.to(position.logits.device)]
        return {"constrained_mass": min(float(masses.sum()), 1.0)}


class Watches(Observer):
    """The numbers of named tokens, wherever they rank.

    tokens: texts or ids. Of a text of several tokens, the one is looked at that follows on as many of
    them as the sequence ends with.

    Raises:
        UsageError: one that is no token.
    """

    def __init__(self, lm: LanguageModel, tokens: Sequence[str | int]) -> None:
        self._chains = {str(token): token_chain(lm, str(token), "--watch") for token in tokens}
        self._piece = lm.piece

    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        rows = []
        for words, tokens in self._chains.items():
            token = tokens[_matched(tokens, position.ids[-len(tokens) :])]
            row = position.candidate(token, self._piece(token))
            rows.append(Watched(**row.as_dict(), watch=words))
        return {"watch": tuple(rows)}


def _matched(tokens: Sequence[int], recent: Sequence[int]) -> int:
    """How many of `tokens`, not all, the sequence ends with."""
    return next(
        length
        for length in range(len(tokens) - 1, -1, -1)
        if not length or list(tokens[:length]) == list(recent[-length:])
    )
