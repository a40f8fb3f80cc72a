"""Softmax, entropy and the filters in numpy float64: exact, small, and without torch.

Arrays are one-dimensional, `(vocab,)`. These are written from the definitions, not from the engine,
and serve as the oracle that the engine's tests compare with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def log_softmax(scores: Any, temperature: float = 1.0) -> Floats:
    """log of softmax(scores / temperature), `(vocab,)`; −inf scores have probability 0.

    The maximum is subtracted before dividing, so no temperature > 0 overflows.
    """
    values = np.asarray(scores, dtype=np.float64)
    with np.errstate(over="ignore", divide="ignore"):
        shifted = (values - values.max()) / temperature
        return shifted - math.log(np.exp(shifted).sum())


def entropy(logprobs: Any) -> float:
    """Shannon entropy in nats of a distribution given by its log probabilities."""
    values = np.asarray(logprobs, dtype=np.float64)
    present = values[np.isfinite(values)]
    return max(float(-(np.exp(present) * present).sum()), 0.0)


def penalise_repetition(logits: Any, ids: Any, penalty: float) -> Floats:
    """Logits of the tokens in `ids` divided by the penalty if positive, else multiplied."""
    found = np.array(logits, dtype=np.float64)
    seen = np.unique(np.asarray(ids, dtype=np.int64))
    found[seen] = np.where(found[seen] < 0, found[seen] * penalty, found[seen] / penalty)
    return found


def rank_of(logits: Any, token_id: int) -> int:
    """1 + the number of tokens with a strictly greater logit."""
    values = np.asarray(logits)
    return 1 + int((values > values[token_id]).sum())


def row_order(logits: Any) -> NDArray[np.int64]:
    """Token ids in row order: by logit, highest first, equal logits by id."""
    values = np.asarray(logits, dtype=np.float64)
    return np.lexsort((np.arange(values.size), -values))


def repeated_ngram(vocab: int, ids: Any, size: int) -> Mask:
    """True for the tokens that would complete an n-gram of `size` tokens already in `ids`."""
    tokens = [int(token) for token in ids]
    removed = np.zeros(vocab, dtype=np.bool_)
    if size and len(tokens) >= size:
        suffix = tokens[len(tokens) - size + 1 :]
        for start in range(len(tokens) - size + 1):
            if tokens[start : start + size - 1] == suffix:
                removed[tokens[start + size - 1]] = True
    return removed


def beyond_top_k(logprobs: Any, k: int) -> Mask:
    """True for all but the k most probable tokens and their ties."""
    values = np.asarray(logprobs, dtype=np.float64)
    if k <= 0 or k >= values.size:
        return np.zeros(values.size, dtype=np.bool_)
    return values < np.sort(values)[-k]


def beyond_top_p(logprobs: Any, p: float) -> Mask:
    """True for all but the smallest set of most probable tokens with mass at least p."""
    values = np.asarray(logprobs, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    mass_before = np.concatenate(([0.0], np.cumsum(np.exp(values[order]))[:-1]))
    removed = np.zeros(values.size, dtype=np.bool_)
    removed[order] = mass_before >= p
    removed[order[0]] = False
    return removed


def below_min_p(logprobs: Any, share: float) -> Mask:
    """True for tokens less probable than `share` of the most probable one."""
    probabilities = np.exp(np.asarray(logprobs, dtype=np.float64))
    return probabilities < share * probabilities.max()
