"""The numbers of a step, from the full vocabulary in a few passes.

Vocabulary-wide sums are taken in float32 after subtracting the maximum; the listed rows are then
finished in float64, so that a temperature of 0.001 or 100 loses nothing. `compute` does the former
and leaves the numbers in one small tensor on the logits' device, without waiting for it; `unpack`
makes a `Step` of them on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.errors import DecodeError
from decodecli.records.run import Candidate, Step
from decodecli.sampling.chain import Chain, Processed
from decodecli.sampling.processors import divide_by_temperature


@dataclass(frozen=True)
class Distribution:
    """A softmax by its constants: logprob = (score − highest) / temperature − log_sum."""

    highest: float
    temperature: float
    log_sum: float
    entropy: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.log_sum) and math.isfinite(self.entropy)

    def logprob(self, scores: Any) -> Any:
        """Of a score, or of a float64 array of them; finite, as strict JSON wants it."""
        values = divide_by_temperature(scores - self.highest, self.temperature) - self.log_sum
        return np.maximum(np.minimum(values, 0.0), -1e308)


ONE_HOT = Distribution(0.0, 1.0, 0.0, 0.0)  # all of the probability on one token


def _constants(scores: Tensor, temperature: float) -> Tensor:
    """Highest score, log of the sum, entropy in nats of softmax(scores (vocab,) / temperature), (3,)."""
    highest = scores.amax()
    shifted = divide_by_temperature(scores - highest, temperature)
    weights = shifted.exp()
    mass = weights.sum()
    entropy = torch.special.entr(weights / mass).sum()
    return torch.stack((highest, mass.log(), entropy))


def distribution(scores: Tensor) -> Distribution:
    """The softmax of `scores` (vocab,); −inf entries have probability 0."""
    highest, log_sum, entropy = _constants(scores, 1.0).tolist()
    return Distribution(highest, 1.0, log_sum, entropy)


def highest_ids(logits: Tensor, count: int) -> Tensor:
    """The ids of the `count` highest logits (vocab,), highest first, equal logits by id: by integer keys
    that no two tokens share."""
    bits = (logits + 0.0).view(torch.int32).long()  # adding 0 makes −0 equal to 0
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the floats are ordered
    last = logits.shape[-1] - 1
    reverse = torch.arange(last, -1, -1, device=logits.device)
    keys = ((order << 32) | reverse).topk(min(count, last + 1)).values
    return last - (keys & 0xFFFFFFFF)


def compute(
    logits: Tensor, processed: Processed, chain: Chain, chosen: Tensor, count: int
) -> Tensor:
    """All that `unpack` needs of a step, from `logits` (1, vocab) and the token `chosen` (1, 1).

    One int32 tensor on the same device, made without synchronisation: integers as they are, then
    float32 numbers by their bits; `chosen` is first.
    """
    row, token = logits[0], chosen[0]
    penalised = processed.penalised[0]
    removed = None if processed.removed_by is None else processed.removed_by[0]
    raw = _constants(row, 1.0)
    same = chain.temperature == 1.0 and not chain.penalises
    tempered = raw if same else _constants(penalised, chain.temperature)
    final, kept = tempered, torch.full((1,), row.shape[0], device=row.device)
    if removed is not None:
        kept = (removed == 0).sum()[None]
        if not chain.greedy:
            left = penalised.masked_fill(removed != 0, -torch.inf)
            final = _constants(left, chain.temperature)
    listed = highest_ids(row, count)
    if row.device.type == "cpu" and bool((listed == token).any()):  # `unpack` needs neither
        rank, mass = torch.ones_like(token), torch.zeros(1)
    else:
        constants = tempered[0], tempered[1], chain.temperature
        rank, mass = rank_and_mass(row, penalised, token, *constants)
    ids = torch.cat((listed, token))
    codes = torch.zeros_like(ids) if removed is None else removed[ids].long()
    integers = torch.cat((token, kept, rank, ids, codes)).int()
    floats = torch.cat((raw, tempered, final, row.amin()[None], mass, row[ids], penalised[ids]))
    return torch.cat((integers, floats.view(torch.int32)))


def rank_and_mass(
    logits: Tensor,
    penalised: Tensor,
    token: Tensor,
    highest: Tensor | float,
    log_sum: Tensor | float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """The rank of `token` (1,) among all `logits` (vocab,), and the tempered probability of all tokens up
    to and including it, each (1,); equal logits are ordered by id."""
    above, level = logits > logits[token], logits == logits[token]
    level = level & (torch.arange(logits.shape[0], device=logits.device) <= token)
    shifted = divide_by_temperature(penalised - highest, temperature) - log_sum
    return 1 + above.sum()[None], torch.where(above | level, shifted.exp(), 0.0).sum()[None]


def unpack(
    packed: np.ndarray,
    chain: Chain,
    count: int,
    vocab: int,
    piece: Callable[[int], str],
    index: int = 0,
) -> Step:
    """The `build_step` of what `compute` gave, on the host.

    Raises:
        DecodeError: the logits are not finite, or the settings leave nothing to draw from.
    """
    listed = min(count, vocab)
    width = listed + 1  # the chosen token comes last
    token, kept, rank, *integers = packed[: 3 + 2 * width].tolist()
    floats = packed[3 + 2 * width :].view(np.float32).tolist()
    raw = Distribution(floats[0], 1.0, *floats[1:3])
    tempered = Distribution(floats[3], chain.temperature, *floats[4:6])
    final = ONE_HOT if chain.greedy else Distribution(floats[6], chain.temperature, *floats[7:9])
    lowest, mass = floats[9:11]
    if not (raw.finite and math.isfinite(lowest)):
        raise DecodeError(
            f"the logits of step {index} are not finite (nan or inf)",
            "try --dtype float32 or bfloat16, or --quantize none",
        )
    if not (kept and tempered.finite and final.finite):
        raise DecodeError(
            f"{' and '.join(chain.order)} leave nothing to draw from at step {index}",
            "choose milder values",
        )
    unlisted = None if token in integers[:listed] else (rank, min(mass, 1.0))
    rows = slice(listed if unlisted is None else width)
    ids, codes = integers[:width][rows], integers[width:][rows]
    logits = np.array(floats[11 : 11 + width][rows])
    penalised = np.array(floats[11 + width :][rows])
    return build_step(
        chain,
        piece,
        index,
        token,
        (raw, tempered, final),
        kept,
        ids,
        logits,
        penalised,
        codes,
        unlisted,
    )


def build_step(
    chain: Chain,
    piece: Callable[[int], str],
    index: int,
    token_id: int,
    distributions: tuple[Distribution, Distribution, Distribution],
    kept: int,
    ids: Sequence[int],
    logits: np.ndarray,
    penalised: np.ndarray,
    codes: Sequence[int],
    unlisted: tuple[int, float] | None,
) -> Step:
    """The `Step` that drew `token_id`, but for `position` and `text`, which the decode loop knows.

    Args:
        piece: spells a token id.
        distributions: at temperature 1, after penalties and temperature, and the one drawn from.
        ids: what is listed, highest logit first, with its `logits`, the logits after the penalties (both
            float64), and in `codes` 0 or 1 + the index in the chain's order of the stage that removed it.
        unlisted: where the last one is the chosen token alone, its rank and its cumulative probability.
    """
    raw, tempered, final = distributions
    columns = raw.logprob(logits), tempered.logprob(penalised), final.logprob(penalised)
    masses = np.minimum(np.cumsum(np.exp(columns[1])), 1.0).tolist()
    numbers = [column.tolist() for column in (logits, *columns)]
    candidates: list[Candidate] = []
    rank, previous = 0, math.inf
    for number, (token, code, mass, logit, logprob, tempered_logprob, final_logprob) in enumerate(
        zip(ids, codes, masses, *numbers, strict=True), start=1
    ):
        if logit < previous:  # equal logits share a rank
            rank, previous = number, logit
        if unlisted is not None and number == len(ids):
            rank, mass = unlisted
        removed_by = chain.order[code - 1] if code else None
        if chain.greedy and not code and token != token_id:
            removed_by = "greedy"
        if removed_by is not None:
            final_logprob = None
        elif chain.greedy:
            final_logprob = 0.0
        candidates.append(
            Candidate(
                rank, token, piece(token), logit, logprob,
                tempered_logprob, mass, final_logprob, removed_by,
            )
        )  # fmt: skip
    entropies = raw.entropy, final.entropy
    return step_record(index, token_id, tuple(candidates), entropies, 1 if chain.greedy else kept)


def step_record(
    index: int,
    token_id: int,
    candidates: tuple[Candidate, ...],
    entropies: tuple[float, float],
    kept: int,
) -> Step:
    """The record of a step that chose `token_id`, one of its `candidates`, but for `position` and `text`;
    a final_logprob of −1e308 where the settings remove the token. entropies: raw and final."""
    chosen = next(row for row in candidates if row.token_id == token_id)
    return Step(
        index=index,
        position=0,
        token_id=token_id,
        token=chosen.token,
        text="",
        rank=chosen.rank,
        logit=chosen.logit,
        logprob=chosen.logprob,
        tempered_logprob=chosen.tempered_logprob,
        final_logprob=-1e308 if chosen.final_logprob is None else chosen.final_logprob,
        entropy=entropies[0],
        final_entropy=entropies[1],
        kept=kept,
        candidates=candidates,
    )
