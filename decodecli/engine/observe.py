"""The numbers of a step, gathered from the full vocabulary in a few passes.

Vocabulary-wide sums are taken in float32 after subtracting the maximum; the rows that a person sees
are then finished in float64, so that a temperature of 0.001 or 100 loses nothing. `measure` does the
former and leaves the numbers in one small tensor on the logits' device, without waiting for it;
`finished` makes the observation of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decodecli.engine.chain import Chain, Filtered
from decodecli.engine.stages import SMALLEST_TEMPERATURE
from decodecli.errors import DecodeError
from decodecli.records import Candidate


@dataclass(frozen=True)
class Distribution:
    """A softmax over the vocabulary by its constants: logprob = (x − highest) / divisor − log_sum."""

    highest: float
    divisor: float
    log_sum: float
    entropy: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.log_sum) and math.isfinite(self.entropy)

    def logprob(self, score: float) -> float:
        value = (score - self.highest) / self.divisor - self.log_sum
        return max(min(value, 0.0), -1e308)  # a strict JSON number at any temperature


CERTAIN = Distribution(0.0, 1.0, 0.0, 0.0)  # all of the probability on one token


@dataclass(frozen=True)
class Observation:
    """What `Step` needs besides its place and its text."""

    token_id: int
    rank: int
    logit: float
    logprob: float
    tempered_logprob: float
    final_logprob: float
    entropy: float
    final_entropy: float
    kept: int
    candidates: tuple[Candidate, ...]


def _constants(scores: Tensor, divisor: float) -> Tensor:
    """Highest score, log of the sum, entropy in nats of softmax(scores (vocab,) / divisor), (3,)."""
    highest = scores.amax()
    shifted = (scores - highest) / max(divisor, SMALLEST_TEMPERATURE)
    log_sum = shifted.logsumexp(-1)
    entropy = torch.special.entr((shifted - log_sum).exp()).sum()
    return torch.stack((highest, log_sum, entropy))


def distribution(scores: Tensor, divisor: float = 1.0) -> Distribution:
    """The softmax of `scores` (vocab,) / divisor; −inf entries have probability 0."""
    top, total, nats = _constants(scores, divisor).tolist()
    return Distribution(top, divisor, total, nats)


def highest_ids(logits: Tensor, count: int) -> list[int]:
    """The ids of the `count` highest logits (vocab,), highest first, equal logits by id."""
    found: list[int] = _highest_ids(logits, min(count, logits.shape[-1])).tolist()
    return found


def _highest_ids(logits: Tensor, count: int) -> Tensor:
    """The same as a tensor: the highest of whole numbers that no two tokens share."""
    bits = (logits + 0.0).view(torch.int32).long()  # adding 0 makes −0 equal to 0
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the floats are ordered
    reverse = torch.arange(logits.shape[-1] - 1, -1, -1, device=logits.device)
    found = ((order << 32) | reverse).topk(count).values & 0xFFFFFFFF
    return logits.shape[-1] - 1 - found


def observe(
    logits: Tensor,
    filtered: Filtered,
    chain: Chain,
    token_id: int,
    count: int,
    piece: Callable[[int], str],
    step: int = 0,
) -> Observation:
    """The step's numbers for `logits` (vocab,).

    `filtered` holds one row; `piece` spells a token id; `count` rows are listed, and the chosen
    token besides.

    Raises:
        DecodeError: the logits are not finite, or the settings leave nothing to draw from.
    """
    chosen = torch.tensor([[token_id]], device=logits.device)
    measured = measure(logits[None], filtered, chain, chosen, count)
    return finished(measured.cpu().numpy(), chain, count, logits.shape[-1], piece, step)


def measure(logits: Tensor, filtered: Filtered, chain: Chain, chosen: Tensor, count: int) -> Tensor:
    """All that `finished` needs of a step, from `logits` (1, vocab) and the token `chosen` (1, 1).

    One int32 tensor on the same device, made without synchronisation: whole numbers as they are and
    float32 numbers by their bits, `chosen` first.
    """
    row, token = logits[0], chosen[0]
    penalised = filtered.penalised[0]
    removed = None if filtered.removed_by is None else filtered.removed_by[0]
    plain = _constants(row, 1.0)
    same = chain.divisor == 1.0 and not chain.penalises
    tempered = plain if same else _constants(penalised, chain.divisor)
    final, kept = tempered, torch.full((1,), row.shape[0], device=row.device)
    if removed is not None:
        kept = (removed == 0).sum()[None]
        if not chain.greedy:
            left = penalised.masked_fill(removed != 0, -torch.inf)
            final = _constants(left, chain.divisor)
    rank, mass = rank_and_mass(row, penalised, token, tempered[0], tempered[1], chain.divisor)
    ids = torch.cat((_highest_ids(row, min(count, row.shape[0])), token))
    codes = torch.zeros_like(ids) if removed is None else removed[ids].long()
    whole = torch.cat((token, kept, rank, ids, codes)).int()
    floats = torch.cat((plain, tempered, final, row.amin()[None], mass, row[ids], penalised[ids]))
    return torch.cat((whole, floats.view(torch.int32)))


def rank_and_mass(
    logits: Tensor,
    penalised: Tensor,
    token: Tensor,
    highest: Tensor | float,
    log_sum: Tensor | float,
    divisor: float,
) -> tuple[Tensor, Tensor]:
    """The rank of `token` (1,) among all `logits` (vocab,), and the tempered probability of all tokens up
    to and including it, each (1,); equal logits stand by id."""
    above, level = logits > logits[token], logits == logits[token]
    level = level & (torch.arange(logits.shape[0], device=logits.device) <= token)
    shifted = (penalised - highest) / max(divisor, SMALLEST_TEMPERATURE) - log_sum
    return 1 + above.sum()[None], torch.where(above | level, shifted.exp(), 0.0).sum()[None]


def finished(
    measured: np.ndarray,
    chain: Chain,
    count: int,
    vocab: int,
    piece: Callable[[int], str],
    step: int = 0,
) -> Observation:
    """The observation of a step from what `measure` gave, on the host.

    Raises:
        DecodeError: the logits are not finite, or the settings leave nothing to draw from.
    """
    listed_rows = min(count, vocab)
    width = listed_rows + 1  # the chosen token comes last
    token, kept, rank, *whole = measured[: 3 + 2 * width].tolist()
    floats = measured[3 + 2 * width :].view(np.float32).tolist()
    ids, codes = whole[:width], whole[width:]
    values, penalised = floats[11 : 11 + width], floats[11 + width :]
    plain = Distribution(floats[0], 1.0, *floats[1:3])
    tempered = Distribution(floats[3], chain.divisor, *floats[4:6])
    final = CERTAIN if chain.greedy else Distribution(floats[6], chain.divisor, *floats[7:9])
    lowest, mass = floats[9:11]
    if not (plain.finite and math.isfinite(lowest)):
        raise DecodeError(
            f"the logits of step {step} are not finite (nan or inf)",
            "try --dtype float32 or bfloat16, or --quantize none",
        )
    if not (kept and tempered.finite and final.finite):
        raise DecodeError(
            f"{' and '.join(chain.order)} leave nothing to draw from at step {step}",
            "choose milder values",
        )
    place = None
    if token in ids[:listed_rows]:
        ids, values, penalised, codes = (x[:listed_rows] for x in (ids, values, penalised, codes))
    else:
        place = rank, min(mass, 1.0)
    rows = Rows(ids, values, penalised, codes, place)
    return listed(rows, Numbers(plain, tempered, final, kept), chain, piece, token)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a step lists, highest logit first; the last may be the chosen token alone, and
    `place` is then its rank and its cumulative probability among all tokens.

    `removed` holds 0 or 1 + the index in the chain's order of the stage that removed the token.
    """

    ids: list[int]
    logits: list[float]
    penalised: list[float]
    removed: list[int]
    place: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """The three distributions of a step, and how many tokens its filters kept."""

    plain: Distribution
    tempered: Distribution
    final: Distribution
    kept: int


def listed(
    rows: Rows,
    numbers: Numbers,
    chain: Chain,
    piece: Callable[[int], str],
    token_id: int,
) -> Observation:
    """The observation of a step from its rows and distributions."""
    candidates = _candidates(rows, numbers, chain, piece, token_id)
    own = candidates[rows.ids.index(token_id)]
    return Observation(
        token_id=token_id,
        rank=own.rank,
        logit=own.logit,
        logprob=own.logprob,
        tempered_logprob=own.tempered_logprob,
        final_logprob=own.final_logprob or 0.0,  # a drawn token was not removed
        entropy=numbers.plain.entropy,
        final_entropy=numbers.final.entropy,
        kept=1 if chain.greedy else numbers.kept,
        candidates=tuple(candidates),
    )


def _candidates(
    rows: Rows, numbers: Numbers, chain: Chain, piece: Callable[[int], str], token_id: int
) -> list[Candidate]:
    plain, tempered, final = numbers.plain, numbers.tempered, numbers.final
    found: list[Candidate] = []
    cumulative, rank, before = 0.0, 0, math.inf
    last = len(rows.ids) if rows.place is not None else 0
    for number, (token, logit, penalised, code) in enumerate(
        zip(rows.ids, rows.logits, rows.penalised, rows.removed, strict=True), start=1
    ):
        if logit < before:  # equal logits share a rank
            rank, before = number, logit
        at_temperature = tempered.logprob(penalised)
        cumulative += math.exp(at_temperature)
        if number == last and rows.place is not None:
            rank, cumulative = rows.place
        removed_by: str | None = None
        final_logprob: float | None = None
        if code:
            removed_by = chain.order[code - 1]
        elif chain.greedy and token != token_id:
            removed_by = "greedy"
        else:
            final_logprob = 0.0 if chain.greedy else final.logprob(penalised)
        found.append(
            Candidate(
                rank,
                token,
                piece(token),
                logit,
                plain.logprob(logit),
                at_temperature,
                min(cumulative, 1.0),
                final_logprob,
                removed_by,
            )
        )
    return found
