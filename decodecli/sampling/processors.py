"""The decoding methods: pure functions on scores of shape (rows, vocab), float32.

A filter returns a boolean mask of the same shape, True where the token is removed, and keeps at least
one token a row; a penalty and the temperature return new scores. The arithmetic is that of
transformers' logits processors, operation for operation, so that the same tokens survive and the same
token is drawn from one seed; `top_nsigma`, which transformers lacks, follows its paper. A score of −inf
is a token that an earlier processor removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Dividing by less than the first could overflow float32, so the maximum is subtracted before; less
# than the second is 0 in float32, and no two scores are near enough for it to matter.
_TINY_TEMPERATURE = 1e-30
_SMALLEST_TEMPERATURE = 1e-37


def divide_by_temperature(scores: Any, value: Any, out: Any = None) -> Any:
    """`scores / value`, of tensors, arrays or floats: nothing else divides by a temperature. Arrays may
    be divided in place, as `out`."""
    if isinstance(value, float):
        if value == 1.0:
            return scores
        value = max(value, _SMALLEST_TEMPERATURE)
    return scores / value if out is None else np.divide(scores, value, out=out)


def repetition_penalty(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores of tokens in `ids` (rows, length) divided by `penalty` if positive, else multiplied.

    Keskar et al. 2019, "CTRL", arXiv 1909.05858. A token is penalised once, however often it occurs.
    """
    present = scores.gather(1, ids)
    penalised = torch.where(present < 0, present * penalty, present / penalty)
    return scores.scatter(1, ids, penalised)


def no_repeat_ngram_size(scores: Tensor, ids: Tensor, size: int) -> Tensor:
    """Mask of the tokens that would complete an n-gram of `size` tokens already in `ids`.

    Paulus et al. 2017, arXiv 1705.04304. Unlike the filters it may remove every token but never
    does in practice: that takes a sequence longer than the vocabulary.
    """
    removed = torch.zeros(
        scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device
    )
    length = ids.shape[1]
    if length >= size:
        windows = ids.unfold(1, size, 1)
        suffix = ids[:, length + 1 - size :]
        matches = (windows[..., :-1] == suffix.unsqueeze(1)).all(-1)
        banned = windows[..., -1].clamp(max=scores.shape[1])
        # No match lands in the spare last column.
        removed.scatter_(1, banned.masked_fill(~matches, scores.shape[1]), True)
    return removed[:, :-1]


def top_nsigma(scores: Tensor, n: float) -> Tensor:
    """Scores more than `n` standard deviations below the highest; deviation over those not −inf.

    Tang et al. 2024, "Top-nσ", arXiv 2411.07641. transformers has none; the deviation is
    llama.cpp's, divided by the number of scores. Applied twice it removes more.
    """
    below = scores - scores.amax(-1, keepdim=True)
    possible = below.isfinite()
    count = possible.sum(-1, keepdim=True)
    mean = torch.where(possible, below, 0.0).sum(-1, keepdim=True) / count
    squares = torch.where(possible, (below - mean).square(), 0.0)
    return below < -n * (squares.sum(-1, keepdim=True) / count).sqrt()


def temperature(scores: Tensor, value: float) -> Tensor:
    """Scores divided by the temperature, > 0 (Ackley, Hinton & Sejnowski 1985)."""
    if value < _TINY_TEMPERATURE:
        scores = scores - scores.amax(-1, keepdim=True)
    tempered: Tensor = divide_by_temperature(scores, value)
    return tempered


def top_k(scores: Tensor, k: int) -> Tensor:
    """All but the k highest scores; ties with the k-th stay, so more than k can remain.

    Fan, Lewis & Dauphin 2018, arXiv 1805.04833.
    """
    k = min(k, scores.shape[-1])
    return scores < scores.topk(k)[0][..., -1, None]


def top_p(scores: Tensor, p: float) -> Tensor:
    """All but the smallest set of most probable tokens with mass at least p (nucleus sampling).

    Holtzman et al. 2019, arXiv 1904.09751.
    """
    ascending, order = scores.sort(descending=False)
    removed = ascending.softmax(-1).cumsum(-1) <= (1 - p)
    removed[..., -1:] = False
    return removed.scatter(1, order, removed)


def min_p(scores: Tensor, share: float) -> Tensor:
    """Tokens less probable than `share` of the most probable one.

    Nguyen et al. 2024, arXiv 2407.01082.
    """
    probabilities = scores.softmax(-1)
    highest = probabilities.amax(-1, keepdim=True)
    removed = probabilities < share * highest
    return removed.scatter(-1, probabilities.topk(1, -1).indices, False)


def typical_p(scores: Tensor, mass: float) -> Tensor:
    """All but the tokens whose surprisal is nearest the entropy, up to `mass` (locally typical).

    Meister et al. 2022, arXiv 2202.00666. The most probable token itself may go.
    """
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    distance, order = (-logprobs - entropy).abs().sort(descending=False)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (cumulative < mass).sum(1).clamp(max=scores.shape[-1] - 1)
    removed = distance > distance.gather(1, last.view(-1, 1))
    removed[..., :1] = False
    return removed.scatter(1, order, removed)


def epsilon_cutoff(scores: Tensor, epsilon: float) -> Tensor:
    """Tokens less probable than `epsilon`, the most probable excepted.

    Hewitt, Manning & Liang 2022, arXiv 2210.15191.
    """
    return (scores.softmax(-1) < epsilon) & (scores < scores.topk(1)[0][..., -1, None])


def eta_cutoff(scores: Tensor, epsilon: float) -> Tensor:
    """Tokens less probable than min(epsilon, sqrt(epsilon)·exp(−entropy)), the top one excepted.

    Hewitt, Manning & Liang 2022, arXiv 2210.15191.
    """
    probabilities = scores.softmax(-1)
    entropy = torch.distributions.Categorical(logits=scores, validate_args=False).entropy()
    cutoff = torch.full((), epsilon, device=scores.device)
    eta = torch.minimum(cutoff, cutoff.sqrt() * torch.exp(-entropy))[..., None]
    return (probabilities < eta) & (scores < scores.topk(1)[0][..., -1, None])
