"""The numbers of a step, gathered from the full vocabulary in a few passes.

Vocabulary-wide sums are taken in float32 after subtracting the maximum; the rows that a person sees
are then finished in float64, so that a temperature of 0.001 or 100 loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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


def distribution(scores: Tensor, divisor: float = 1.0) -> Distribution:
    """The softmax of `scores` (vocab,) / divisor; −inf entries have probability 0."""
    highest = scores.amax()
    shifted = (scores - highest) / max(divisor, SMALLEST_TEMPERATURE)
    log_sum = shifted.logsumexp(-1)
    entropy = torch.special.entr((shifted - log_sum).exp()).sum()
    top, total, nats = torch.stack((highest, log_sum, entropy)).tolist()
    return Distribution(top, divisor, total, nats)


def highest_ids(logits: Tensor, count: int) -> list[int]:
    """The ids of the `count` highest logits (vocab,), highest first, equal logits by id."""
    count = min(count, logits.shape[-1])
    if count < 1:
        return []
    values, ids = logits.topk(count)
    floor = values[-1]
    above = int((values > floor).sum())
    found: list[int] = ids.tolist()
    if int((logits >= floor).sum()) > count:  # a tie at the edge: the lowest ids of it
        found = found[:above] + (logits == floor).nonzero()[: count - above, 0].tolist()
    rows = dict(zip(found, logits[found].tolist(), strict=True))
    return sorted(rows, key=lambda token: (-rows[token], token))


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
    plain = distribution(logits)
    if not (plain.finite and bool(torch.isfinite(logits.amin()))):
        raise DecodeError(
            f"the logits of step {step} are not finite (nan or inf)",
            "try --dtype float32 or bfloat16, or --quantize none",
        )
    penalised = filtered.penalised[0]
    same = chain.divisor == 1.0 and not chain.penalises
    tempered = plain if same else distribution(penalised, chain.divisor)
    removed = None if filtered.removed_by is None else filtered.removed_by[0]
    kept = logits.shape[-1] if removed is None else int((removed == 0).sum())
    final = _final(penalised, removed, tempered, chain)
    if not (kept and tempered.finite and final.finite):
        raise DecodeError(
            f"{' and '.join(chain.order)} leave nothing to draw from at step {step}",
            "choose milder values",
        )
    ids = highest_ids(logits, count)
    shown = ids if token_id in ids else [*ids, token_id]
    at = torch.tensor(shown, device=logits.device)
    rows = Rows(
        ids=shown,
        logits=logits[at].tolist(),
        penalised=penalised[at].tolist(),
        removed=[0] * len(shown) if removed is None else removed[at].tolist(),
        place=None if token_id in ids else _place(token_id, logits, penalised, tempered),
    )
    numbers = Numbers(plain, tempered, final, kept)
    return listed(rows, numbers, chain, piece, token_id)


def _place(
    token_id: int, logits: Tensor, penalised: Tensor, tempered: Distribution
) -> tuple[int, float]:
    """A token's rank and cumulative probability among all, not only those listed."""
    above, level = logits > logits[token_id], logits == logits[token_id]
    level[token_id + 1 :] = False
    scores = (penalised[above | level] - tempered.highest) / tempered.divisor
    mass = float((scores - tempered.log_sum).exp().sum())
    return 1 + int(above.sum()), min(mass, 1.0)


def _final(
    penalised: Tensor, removed: Tensor | None, tempered: Distribution, chain: Chain
) -> Distribution:
    if chain.greedy:
        return CERTAIN
    if removed is None:
        return tempered
    return distribution(penalised.masked_fill(removed != 0, -torch.inf), chain.divisor)


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
