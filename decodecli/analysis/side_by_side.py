"""What stages make of one row of logits: after each of them, or at the end of several orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.decoding.observers import Observer
from decodecli.decoding.prompt import prefill, run_context
from decodecli.errors import DecodeError
from decodecli.models.loading import LanguageModel
from decodecli.records.distribution import Columns, SideBySide, StagesDone, TokenAcross
from decodecli.sampling.chain import Chain
from decodecli.sampling.one_position import Distribution
from decodecli.sampling.reference import entropy, log_softmax, rank_of, row_order
from decodecli.settings import SamplingParams


def side_by_side(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    orders: Sequence[str] = (),
    *,
    params: SamplingParams | None = None,
    rows: int = 10,
    bos: bool | None = None,
) -> SideBySide:
    """The next-token distribution at the end of each of `orders` (`SamplingParams.order`), or where
    there is none, before all stages of `params` and after each.

    Raises:
        PromptError, DecodeError: as `prefill`; logits that are not finite.
        UsageError: an order that leaves out a stage that is on.
    """
    params = params or SamplingParams()
    prefix = prefill(lm, prompt, bos)
    logits, ids = prefix.logits.cpu(), torch.tensor([prefix.ids])
    if not bool(torch.isfinite(logits).all()):
        raise DecodeError("the logits are not finite (nan or inf)", "try --dtype float32")
    context = run_context(lm, params, prefix.ids, params.seed)
    chains = {name: Chain(replace(params, order=name), context=context) for name in orders}
    if not orders:
        chains = stage_by_stage(Chain(params, context=context))
    across = columns_of(chains, logits, ids, lm.piece, rows)
    return SideBySide(lm.info, prefix.text, prefix.ids, params.as_dict(), across)


def stage_by_stage(chain: Chain) -> dict[str, Chain]:
    """The chain cut before its first stage, and after each, by the stage's name."""
    parts = {name: chain.first(number) for number, name in enumerate(chain.order, start=1)}
    return {"logits": chain.first(0), **parts}


class StageColumns(Observer):
    """What the stages leave at each step of a run: `columns`, by the step's index."""

    def __init__(self, piece: Callable[[int], str], rows: int) -> None:
        self._piece, self._rows = piece, rows
        self.columns: dict[int, Columns] = {}

    def observe(self, index: int, position: Distribution) -> dict[str, Any]:
        parts, logits = stage_by_stage(position.chain), position.logits.cpu()
        ids = position.sequence.cpu()
        self.columns[index] = columns_of(parts, logits, ids, self._piece, self._rows)
        return {}


def columns_of(
    chains: Mapping[str, Chain], logits: Tensor, ids: Tensor, piece: Callable[[int], str], rows: int
) -> Columns:
    """What each of `chains` leaves of `logits` (1, vocab), after the tokens `ids` (1, length); the
    highest `rows` tokens are listed."""
    columns, distributions, removers = [], [], []
    with torch.inference_mode():
        for name, chain in chains.items():
            processed = chain(logits, ids)
            codes = chain.removal_codes(processed)
            scores = np.where(codes > 0, -np.inf, processed.penalised[0].double().numpy())
            temperature = chain.temperature if "temperature" in chain.order else 1.0
            logprobs = log_softmax(scores, temperature)
            distributions.append(np.exp(logprobs))
            removers.append([None if code == 0 else chain.order[code - 1] for code in codes])
            kept = int((codes == 0).sum())
            columns.append(StagesDone(name, chain.order, kept, entropy(logprobs)))
    distances = tuple(
        tuple(float(np.abs(p - q).sum() / 2) for q in distributions) for p in distributions
    )
    raw = logits[0].double().numpy()
    before = np.exp(log_softmax(raw))
    tokens = tuple(
        TokenAcross(
            token=piece(token_id),
            token_id=token_id,
            rank=rank_of(raw, token_id),
            logit=float(raw[token_id]),
            probability=float(before[token_id]),
            after=tuple(float(p[token_id]) for p in distributions),
            removed_by=tuple(names[token_id] for names in removers),
        )
        for token_id in map(int, row_order(raw)[:rows])
    )
    return Columns(tuple(columns), tokens, distances)
