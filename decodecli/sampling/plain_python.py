"""What `softmax` needs of `reference`, on lists of Python floats: for numbers typed by hand.

Importing numpy takes longer than all else that `softmax` does, so a handful of numbers goes this way;
long lists and filters go the other. A test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def log_softmax(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
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


def entropy(logprobs: Sequence[float]) -> float:
    """Shannon entropy in nats."""
    terms = (math.exp(value) * value for value in logprobs if value > -math.inf)
    return max(0.0, -math.fsum(terms))


def covering(
    logprobs: Sequence[float], shares: tuple[float, ...] = (0.5, 0.9, 0.99)
) -> tuple[int, ...]:
    """How many of the most probable tokens it takes to hold each share of the mass."""
    falling = sorted(map(math.exp, logprobs), reverse=True)
    counts = []
    for share in shares:
        mass, count = 0.0, 0
        for probability in falling:
            if mass >= share - 1e-12:
                break
            mass, count = mass + probability, count + 1
        counts.append(max(count, 1))
    return tuple(counts)


def margin(logprobs: Sequence[float]) -> float:
    """Probability of the first token less that of the second; of one token alone, 1."""
    if len(logprobs) < 2:
        return 1.0
    first, second = sorted(logprobs, reverse=True)[:2]
    return math.exp(first) - math.exp(second)


def rank_of(logits: Sequence[float], token_id: int) -> int:
    """1 + the number of tokens with a strictly greater logit."""
    return 1 + sum(logit > logits[token_id] for logit in logits)


def row_order(logits: Sequence[float]) -> list[int]:
    """Indexes by logit, highest first, equal logits by index."""
    return sorted(range(len(logits)), key=lambda index: (-logits[index], index))


def kept(logprobs: Sequence[float]) -> int:
    """How many tokens have a probability above 0."""
    return sum(value > -math.inf for value in logprobs)
