"""The functions of `distributions`, on lists of Python floats: for numbers typed by hand.

Importing numpy takes longer than all else that `softmax` does, so a handful of numbers goes this way;
long lists go the other. Both follow the same definitions, and a test holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Floats = list[float]
Mask = list[bool]


def log_softmax(scores: Sequence[float], temperature: float = 1.0) -> Floats:
    """log of softmax(scores / temperature); 0 and infinity are the limits."""
    highest = max(scores)

    def shifted(score: float) -> float:
        below = score - highest
        if temperature == 0:
            return 0.0 if below == 0 else -math.inf
        if math.isinf(temperature):
            return -math.inf if below == -math.inf else 0.0
        return below / temperature

    values = [shifted(score) for score in scores]
    total = math.log(math.fsum(map(math.exp, values)))
    return [value - total for value in values]


def exponentials(logprobs: Sequence[float]) -> Floats:
    return list(map(math.exp, logprobs))


def entropy(logprobs: Sequence[float]) -> float:
    """Shannon entropy in nats."""
    terms = (math.exp(value) * value for value in logprobs if value > -math.inf)
    return max(0.0, -math.fsum(terms))


def covering(
    logprobs: Sequence[float], shares: tuple[float, ...] = (0.5, 0.9, 0.99)
) -> tuple[int, ...]:
    """How many of the most probable tokens it takes to hold each share of the mass."""
    probabilities = sorted(map(math.exp, logprobs), reverse=True)
    found = []
    for share in shares:
        mass, count = 0.0, 0
        for probability in probabilities:
            if mass >= share - 1e-12:
                break
            mass, count = mass + probability, count + 1
        found.append(max(count, 1))
    return tuple(found)


def margin(logprobs: Sequence[float]) -> float:
    """Probability of the first token less that of the second; of one token alone, 1."""
    if len(logprobs) < 2:
        return 1.0
    first, second = sorted(logprobs, reverse=True)[:2]
    return math.exp(first) - math.exp(second)


def rank_of(logits: Sequence[float], token_id: int) -> int:
    """1 + the number of tokens with a strictly greater logit."""
    own = logits[token_id]
    return 1 + sum(logit > own for logit in logits)


def row_order(logits: Sequence[float]) -> list[int]:
    """Indexes by logit, highest first, equal logits by index."""
    return sorted(range(len(logits)), key=lambda index: (-logits[index], index))


def kept(logprobs: Sequence[float]) -> int:
    """How many tokens have a probability above 0."""
    return sum(value > -math.inf for value in logprobs)


def beyond_top_k(logprobs: Sequence[float], k: int) -> Mask:
    if k <= 0 or k >= len(logprobs):
        return [False] * len(logprobs)
    edge = sorted(logprobs)[-k]
    return [value < edge for value in logprobs]


def beyond_top_p(logprobs: Sequence[float], p: float) -> Mask:
    removed, mass = [False] * len(logprobs), 0.0
    for place, index in enumerate(row_order(logprobs)):
        removed[index] = place > 0 and mass >= p
        mass += math.exp(logprobs[index])
    return removed


def below_min_p(logprobs: Sequence[float], share: float) -> Mask:
    edge = share * math.exp(max(logprobs))
    return [math.exp(value) < edge for value in logprobs]


def beyond_typical_p(logprobs: Sequence[float], mass: float) -> Mask:
    nats = entropy(logprobs)
    distance = [abs(-value - nats) for value in logprobs]
    order = sorted(range(len(distance)), key=lambda index: (distance[index], index))
    total, last = 0.0, 0
    for place, index in enumerate(order):
        total, last = total + math.exp(logprobs[index]), place
        if total >= mass:
            break
    edge = distance[order[last]]
    removed = [value > edge for value in distance]
    removed[order[0]] = False
    return removed


def below_epsilon_cutoff(logprobs: Sequence[float], epsilon: float) -> Mask:
    highest = max(logprobs)
    return [math.exp(value) < epsilon and value < highest for value in logprobs]


def below_eta_cutoff(logprobs: Sequence[float], epsilon: float) -> Mask:
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(logprobs)))
    return below_epsilon_cutoff(logprobs, eta)


FILTERS: dict[str, Callable[..., Mask]] = {
    "top_k": beyond_top_k,
    "top_p": beyond_top_p,
    "min_p": below_min_p,
    "typical_p": beyond_typical_p,
    "epsilon_cutoff": below_epsilon_cutoff,
    "eta_cutoff": below_eta_cutoff,
}


def filter_in_order(
    logprobs: Sequence[float], values: Mapping[str, float]
) -> tuple[Floats, dict[str, Mask]]:
    """Run the named filters in order, each on what the one before left, renormalised."""
    left, removed = list(logprobs), {}
    for name, find in FILTERS.items():
        if name in values:
            found = find(left, values[name])
            mask = [cut and value > -math.inf for cut, value in zip(found, left, strict=True)]
            removed[name] = mask
            left = log_softmax([-math.inf if cut else v for cut, v in zip(mask, left, strict=True)])
    return left, removed
