"""Softmax, entropy and the decoding methods in numpy float64: exact, small, and without torch.

Arrays are one-dimensional, `(vocab,)`, of float64. A score of −inf is a token of probability 0. These
are written from the papers' definitions (named in `settings.SamplingParams`), not from `processors`,
and serve as the oracle that tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodecli.stages import ORDER

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def log_softmax(scores: Any, temperature: float = 1.0) -> Floats:
    """log of softmax(scores / temperature), `(vocab,)`.

    The maximum is subtracted before dividing, so no temperature overflows. 0 and infinity are the
    limits: uniform over the highest scores, and uniform over all that are possible.
    """
    values = np.asarray(scores, dtype=np.float64)
    shifted = values - values.max()
    if temperature == 0:
        shifted = np.where(shifted == 0, 0.0, -np.inf)
    elif math.isinf(temperature):
        shifted = np.where(np.isneginf(shifted), -np.inf, 0.0)
    else:
        with np.errstate(over="ignore"):
            shifted = shifted / temperature
    return shifted - math.log(np.exp(shifted).sum())


def entropy(logprobs: Any) -> float:
    """Shannon entropy in nats of a distribution given by its log probabilities."""
    values = np.asarray(logprobs, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        terms = np.exp(values) * values
    return max(0.0, float(-np.nansum(terms)))


def kept(logprobs: Any) -> int:
    """How many tokens have a probability above 0."""
    return int((~np.isneginf(logprobs)).sum())


def covering(logprobs: Any, shares: tuple[float, ...] = (0.5, 0.9, 0.99)) -> tuple[int, ...]:
    """How many of the most probable tokens it takes to hold each share of the mass."""
    mass = np.cumsum(np.sort(np.exp(logprobs))[::-1])
    # A sum that falls short by rounding alone counts as reached.
    return tuple(int(np.searchsorted(mass, share - 1e-12)) + 1 for share in shares)


def margin(logprobs: Any) -> float:
    """Probability of the first token less that of the second; of one token alone, 1."""
    masses = np.exp(logprobs)
    if masses.size < 2:
        return 1.0
    second, first = np.partition(masses, -2)[-2:]
    return float(first - second)


def rank_of(logits: Any, token_id: int) -> int:
    """1 + the number of tokens with a strictly greater logit."""
    values = np.asarray(logits)
    return 1 + int((values > values[token_id]).sum())


def row_order(logits: Any) -> NDArray[np.int64]:
    """Token ids in row order: by logit, highest first, equal logits by id."""
    values = np.asarray(logits, dtype=np.float64)
    return np.lexsort((np.arange(values.size), -values))


def below_top_nsigma(scores: Floats, n: float) -> Mask:
    """True for scores more than n standard deviations, of those that are finite, below the highest."""
    return scores < scores.max() - n * scores[np.isfinite(scores)].std()


def beyond_top_k(logprobs: Floats, k: int) -> Mask:
    """True for all but the k most probable tokens and their ties."""
    if k <= 0 or k >= logprobs.size:
        return np.zeros(logprobs.size, dtype=np.bool_)
    return logprobs < np.sort(logprobs)[-k]


def beyond_top_p(logprobs: Floats, p: float) -> Mask:
    """True for all but the smallest set of most probable tokens with mass at least p."""
    order = np.argsort(-logprobs, kind="stable")
    mass_before = np.concatenate(([0.0], np.cumsum(np.exp(logprobs[order]))[:-1]))
    removed = np.zeros(logprobs.size, dtype=np.bool_)
    removed[order] = mass_before >= p
    removed[order[0]] = False
    return removed


def below_min_p(logprobs: Floats, share: float) -> Mask:
    """True for tokens less probable than `share` of the most probable one."""
    masses = np.exp(logprobs)
    return masses < share * masses.max()


def beyond_typical_p(logprobs: Floats, mass: float) -> Mask:
    """True for all but the tokens whose surprisal is nearest the entropy, up to `mass`, and ties."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(-logprobs - entropy(logprobs))
    order = np.argsort(distance, kind="stable")
    reached = np.cumsum(np.exp(logprobs[order])) < mass
    last = min(int(reached.sum()), logprobs.size - 1)
    removed = distance > distance[order[last]]
    removed[order[0]] = False
    return removed


def below_epsilon_cutoff(logprobs: Floats, epsilon: float) -> Mask:
    """True for tokens less probable than epsilon, the most probable excepted."""
    return (np.exp(logprobs) < epsilon) & (logprobs < logprobs.max())


def below_eta_cutoff(logprobs: Floats, epsilon: float) -> Mask:
    """True for tokens less probable than min(ε, √ε·exp(−entropy)), the most probable excepted."""
    cutoff = math.sqrt(epsilon) * math.exp(-entropy(logprobs))
    return below_epsilon_cutoff(logprobs, min(epsilon, cutoff))


def beyond_top_h(logprobs: Floats, share: float) -> Mask:
    """True for all but the most probable tokens whose terms of the entropy of the 100 most probable
    ones sum to at most `share` of it."""
    order = np.argsort(-logprobs, kind="stable")
    top = log_softmax(logprobs[order[:100]])
    with np.errstate(invalid="ignore"):
        terms = -np.nan_to_num(np.exp(top) * top)
    removed = np.ones(logprobs.size, dtype=np.bool_)
    removed[order[:100]] = np.cumsum(terms) > share * terms.sum()
    removed[order[0]] = False
    return removed


def below_top_a(logprobs: Floats, share: float) -> Mask:
    """True for tokens less probable than `share` of the square of the highest probability."""
    masses = np.exp(logprobs)
    return masses < share * masses.max() ** 2


def beyond_tfs_z(logprobs: Floats, z: float) -> Mask:
    """True from where the absolute second differences of the falling probabilities, of the possible
    tokens, sum to more than z of their total; not for the first."""
    order = np.argsort(-logprobs, kind="stable")
    falling = np.exp(logprobs[order][: kept(logprobs)])
    removed = np.zeros(logprobs.size, dtype=np.bool_)
    if falling.size < 3:
        return removed
    second = np.abs(np.diff(falling, n=2))
    even = np.full(second.size, 1 / second.size)
    share = np.cumsum(second / second.sum() if second.sum() > 1e-6 else even)
    over = np.flatnonzero(share[1:] > z)
    if over.size:
        removed[order[over[0] + 1 :]] = True
    return removed


def excluded_by_xtc(logprobs: Floats, threshold: float) -> Mask:
    """True for all tokens of at least `threshold` but the least probable of them, when XTC strikes."""
    order = np.argsort(-logprobs, kind="stable")
    choices = int((np.exp(logprobs) >= threshold).sum())
    removed = np.zeros(logprobs.size, dtype=np.bool_)
    removed[order[: max(choices - 1, 0)]] = True
    return removed


def beyond_mirostat(logprobs: Floats, max_surprise: float) -> Mask:
    """True for tokens of a surprisal above `max_surprise` bits, the most probable excepted."""
    removed = -logprobs / math.log(2) > max_surprise
    removed[np.argmax(logprobs)] = False
    return removed


def next_max_surprise(max_surprise: float, logprob: float, tau: float, eta: float) -> float:
    """Mirostat's limit after a token of this logprob among those that were left: less by the rate eta of
    what its surprisal in bits was above the target tau."""
    return max_surprise - eta * (-logprob / math.log(2) - tau)


def dynamic_temperature(scores: Floats, middle: float, extent: float, exponent: float) -> float:
    """A temperature from `extent` below `middle`, but not below 0, to `extent` above it, where the
    entropy over that of as many equal tokens stands, to the power of `exponent`."""
    logprobs = log_softmax(scores)
    lowest, possible = max(middle - extent, 0.0), kept(logprobs)
    share = entropy(logprobs) / math.log(possible) if possible > 1 else 0.0
    return lowest + (middle + extent - lowest) * min(share, 1.0) ** exponent


FILTERS: dict[str, Callable[[Any, Any], Mask]] = {
    "top_h": beyond_top_h,
    "top_a": below_top_a,
    "tfs_z": beyond_tfs_z,
    "top_nsigma": below_top_nsigma,
    "top_k": beyond_top_k,
    "top_p": beyond_top_p,
    "min_p": below_min_p,
    "typical_p": beyond_typical_p,
    "epsilon_cutoff": below_epsilon_cutoff,
    "eta_cutoff": below_eta_cutoff,
}


def filter_in_order(
    scores: Any, temperature: float, values: Mapping[str, float], order: Sequence[str] = ORDER
) -> tuple[Floats, dict[str, Mask]]:
    """Run the temperature and the named filters in an order, each on what the one before left,
    renormalised.

    Args:
        scores: what is divided by the temperature.
        values: filter name → its value, only those that are on.

    Returns:
        the final log probabilities, and for each filter the mask of what it removed first.
    """
    left = log_softmax(scores)
    removed: dict[str, Mask] = {}
    for name in order:
        if name == "temperature":
            left = log_softmax(left, temperature)
        elif name in values:
            mask = FILTERS[name](left, values[name]) & ~np.isneginf(left)
            removed[name] = mask
            left = log_softmax(np.where(mask, -np.inf, left))
    return left, removed
