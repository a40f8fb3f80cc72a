"""What may be looked at in the logits of every step beside the draw: named tokens, other settings' draws,
why a token was taken.

An observer is called before the draw and returns fields for the step's record. Nothing here runs the
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from decodecli.decoding.prompt import run_context, token_chain
from decodecli.models.loading import LanguageModel
from decodecli.records.run import Candidate, Cut, Explanation, Step, Watched, WhatIf, Without
from decodecli.sampling.chain import Chain
from decodecli.sampling.processors import divide_by_temperature
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import compute, unpack
from decodecli.settings import SamplingParams
from decodecli.stages import stage_order


class Observer(Protocol):
    """Is asked about each step of one run, in order."""

    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        """Fields of the step's record, from the logits (1, vocab) float32 after the tokens `ids`
        (1, length); `chain` is the run's."""

    def drawn(self, step: Step) -> Step:
        """The step, once its token is known."""


class WhatIfs:
    """What other settings would have drawn from the logits of a run.

    others: the settings by the words that asked for them. seed: the run's, for those without one.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompt_ids: Sequence[int],
        others: Mapping[str, SamplingParams],
        seed: int,
    ) -> None:
        self._samplers: dict[str, Sampler] = {}
        for words, params in others.items():
            own_seed = seed if params.seed is None else params.seed
            chain = Chain(params, context=run_context(lm, params, prompt_ids, own_seed))
            exact_ties = lm.info.dtype == "float32"
            self._samplers[words] = Sampler(chain, 0, lm.piece, own_seed, exact_ties)
        self._diverged: set[str] = set()

    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        rows = []
        for words, sampler in self._samplers.items():
            _, step = sampler(logits, ids, index)
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


class Explanations:
    """Why each step took its token: what would have been drawn were one stage off, and what each cut."""

    def __init__(
        self, lm: LanguageModel, prompt_ids: Sequence[int], params: SamplingParams, seed: int
    ) -> None:
        active = [name for name in stage_order(params) if name != "greedy"]
        others = {name: replace(params, **{name: getattr(SamplingParams, name)}) for name in active}
        self._without = WhatIfs(lm, prompt_ids, others, seed)
        self._piece = lm.piece

    @torch.inference_mode()
    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        processed = chain(logits.cpu(), ids.cpu())
        codes = chain.removal_codes(processed)
        tempered = divide_by_temperature(processed.penalised[0].double(), chain.temperature)
        masses = tempered.softmax(-1).numpy()
        cuts = []
        for name in chain.filters:
            removed = codes == chain.order.index(name) + 1
            cuts.append(Cut(name, int(removed.sum()), float(masses[removed].sum())))
        rows = self._without(index, chain, logits, ids)["what_if"]
        without = tuple(Without(row.settings, row.token_id, row.token) for row in rows)
        top = int(processed.scores[0].argmax())
        return {
            "explain": Explanation(chain.temperature, tuple(cuts), without, top, self._piece(top))
        }

    def drawn(self, step: Step) -> Step:
        return step


class ConstrainedMass:
    """What the model had put on the tokens that the run's constraint rules out."""

    @torch.inference_mode()
    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        forbidden = chain.context.forbidden(ids)[0].to(logits.device)
        return {"constrained_mass": min(float(logits[0].softmax(-1)[forbidden].sum()), 1.0)}

    def drawn(self, step: Step) -> Step:
        return step


class Watches:
    """The numbers of named tokens, wherever they rank.

    tokens: texts or ids. Of a text of several tokens, the one is looked at that follows on as many of
    them as the sequence ends with.

    Raises:
        UsageError: one that is no token.
    """

    def __init__(self, lm: LanguageModel, tokens: Sequence[str | int]) -> None:
        self._chains = {str(token): token_chain(lm, str(token), "--watch") for token in tokens}
        self._piece = lm.piece

    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        with torch.inference_mode():
            processed, rows = chain(logits, ids), []
            for words, tokens in self._chains.items():
                token = tokens[_matched(tokens, ids[0, -len(tokens) :].tolist())]
                chosen = torch.tensor([[token]], device=logits.device)
                packed = compute(logits, processed, chain, chosen, 0).cpu().numpy()
                row = unpack(packed, chain, 0, logits.shape[-1], self._piece, index).candidates[0]
                if chain.greedy and token != int(processed.scores[0].argmax()):
                    row = replace(row, final_logprob=None, removed_by=row.removed_by or "greedy")
                rows.append(
                    Watched(
                        **{f.name: getattr(row, f.name) for f in fields(Candidate)}, watch=words
                    )
                )
        return {"watch": tuple(rows)}

    def drawn(self, step: Step) -> Step:
        return step


def _matched(tokens: Sequence[int], recent: Sequence[int]) -> int:
    """How many of `tokens`, not all, the sequence ends with."""
    return next(
        length
        for length in range(len(tokens) - 1, -1, -1)
        if not length or list(tokens[:length]) == list(recent[-length:])
    )
