"""The decoding methods: pure functions on scores of shape (rows, vocab), float32.

A filter returns a boolean mask of the same shape, True where the token is removed, and keeps at least
one token a row; a penalty and the temperature return new scores. The arithmetic is that of
transformers' logits processors, operation for operation, so that the same tokens survive and the same
token is drawn from one seed; what transformers lacks follows its paper, or the engine named. A score
of −inf is a token that an earlier processor removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Dividing by less than the first could overflow float32, so the maximum is subtracted before; less
# than the second is 0 in float32, and no two scores are near enough for it to matter.
_TINY_TEMPERATURE = 1e-30
_SMALLEST_TEMPERATURE = 1e-37
_LEAST_DYNAMIC_TEMPERATURE = 1e-4
_LARGEST_PENALTY = 1e30
_TOP_H_TOKENS = 100


def divide_by_temperature(scores: Any, value: Any, out: Any = None) -> Any:
    """`scores / value`, of tensors, arrays or floats: nothing else divides by a temperature. Arrays may
    be divided in place, as `out`."""
    if isinstance(value, float):
        if value == 1.0:
            return scores
        value = max(value, _SMALLEST_TEMPERATURE)
    return scores / value if out is None else np.divide(scores, value, out=out)


def logit_bias(scores: Tensor, biases: Sequence[tuple[int, float]]) -> Tensor:
    """Scores with a number added for each of some token ids."""
    tokens = torch.tensor([token for token, _ in biases], dtype=torch.long, device=scores.device)
    added = torch.tensor([bias for _, bias in biases], dtype=scores.dtype, device=scores.device)
    return scores.index_add(1, tokens, added.expand(scores.shape[0], -1))


def repetition_penalty(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores of tokens in `ids` (rows, length) divided by `penalty` if positive, else multiplied.

    Keskar et al. 2019, "CTRL", arXiv 1909.05858. A token is penalised once, however often it occurs.
    """
    present = scores.gather(1, ids)
    penalised = torch.where(present < 0, present * penalty, present / penalty)
    return scores.scatter(1, ids, penalised)


def _counts(scores: Tensor, ids: Tensor) -> Tensor:
    """How often each token occurs in `ids`, in the shape of `scores`."""
    return torch.zeros_like(scores).scatter_add_(1, ids, torch.ones_like(ids, dtype=scores.dtype))


def presence_penalty(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores less `penalty` for tokens in `ids` (rows, length), as OpenAI's API has it."""
    return scores - penalty * (_counts(scores, ids) > 0)


def frequency_penalty(scores: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores less `penalty` for every time a token is in `ids` (rows, length), as OpenAI's API has it."""
    return scores - penalty * _counts(scores, ids)


def dry_multiplier(
    scores: Tensor,
    ids: Tensor,
    multiplier: float,
    base: float,
    allowed_length: int,
    breaks: Callable[[int], bool],
) -> Tensor:
    """Scores less multiplier · base^(n − allowed_length) for tokens that would extend a repetition of n
    tokens, at least `allowed_length`: the text ends with n tokens that the token once followed.

    text-generation-webui PR 5677, "Don't repeat yourself". No repetition holds a token that `breaks` it.
    """
    longest = (
        math.log(_LARGEST_PENALTY / max(multiplier, 1.0)) / math.log(base) if base > 1 else 0.0
    )
    scores = scores.clone()
    for row, tokens in enumerate(ids.tolist()):
        for token, length in repetitions(tokens, breaks).items():
            if length >= allowed_length:
                beyond = length - allowed_length
                scores[row, token] -= multiplier * base ** (min(beyond, longest) if base > 1 else 0)
    return scores


def repetitions(tokens: Sequence[int], breaks: Callable[[int], bool]) -> dict[int, int]:
    """Tokens that followed the end of `tokens` before → how many tokens before them are the same as at
    the end. Takes time in proportion to the number of tokens (the Z algorithm, from the end on)."""
    count = len(tokens)
    limit = next((i for i in range(count) if breaks(tokens[count - 1 - i])), count)
    longest: dict[int, int] = {}
    lengths, left, right = [0] * count, 0, 0  # of what ends at i, counted from the end
    for i in range(1, count):
        length = min(right - i, lengths[i - left]) if i < right else 0
        while i + length < count and tokens[count - 1 - i - length] == tokens[count - 1 - length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        lengths[i] = length
        if min(length, limit) > longest.get(tokens[count - i], 0):
            longest[tokens[count - i]] = min(length, limit)
    return longest


def constraint(scores: Tensor, ids: Tensor, forbidden: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Mask of the tokens that `forbidden` rules out after `ids` (rows, length)."""
    if forbidden is None:
        return torch.zeros_like(scores, dtype=torch.bool)
    return forbidden(ids).to(scores.device)


def bad_words(scores: Tensor, ids: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """Mask of the tokens that would complete one of `words`, each the ids of its tokens."""
    removed = torch.zeros_like(scores, dtype=torch.bool)
    for *beginning, last in words:
        if len(beginning) <= ids.shape[1]:
            end = ids[:, ids.shape[1] - len(beginning) :]
            wanted = torch.tensor(beginning, dtype=ids.dtype, device=ids.device)
            removed[:, last] |= (end == wanted).all(-1)
    return removed


def min_new_tokens(scores: Tensor, ids: Tensor, length: int, eos_ids: Sequence[int]) -> Tensor:
    """Mask of the `eos_ids` while `ids` (rows, length) has fewer than `length` tokens."""
    removed = torch.zeros_like(scores, dtype=torch.bool)
    if ids.shape[1] < length:
        removed[:, [token for token in eos_ids if token < scores.shape[1]]] = True
    return removed


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


def dynatemp_range(scores: Tensor, extent: float, exponent: float, middle: float) -> Tensor:
    """What scores are multiplied by, (rows, 1), so that dividing by the temperature `middle` comes to
    dividing by one that goes from `extent` below it to `extent` above, with the share that the entropy
    has of the highest possible one, to the power of `exponent`. llama.cpp's dynamic temperature.
    """
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    possible = scores.isfinite().sum(-1, keepdim=True)
    share = torch.where(possible > 1, entropy / possible.log(), 0.0).clamp(0, 1)
    lowest = max(middle - extent, 0.0)
    dynamic = lowest + (middle + extent - lowest) * share**exponent
    return middle / dynamic.clamp(min=_LEAST_DYNAMIC_TEMPERATURE)


def temperature(scores: Tensor, value: float) -> Tensor:
    """Scores divided by the temperature, > 0 (Ackley, Hinton & Sejnowski 1985)."""
    if value < _TINY_TEMPERATURE:
        scores = scores - scores.amax(-1, keepdim=True)
    tempered: Tensor = divide_by_temperature(scores, value)
    return tempered


def top_h(scores: Tensor, share: float) -> Tensor:
    """All but the most probable tokens up to `share` of the entropy of the 100 most probable.

    Potraghloo et al. 2025, "Top-H decoding", arXiv 2509.02510; the limit of 100 is transformers'.
    """
    top, order = scores.topk(min(_TOP_H_TOKENS, scores.shape[-1]), dim=-1)
    likely = torch.distributions.Categorical(logits=top, validate_args=False)
    probabilities = likely.probs
    threshold = (likely.entropy() * share).unsqueeze(-1)
    spent = torch.cumsum(-probabilities * torch.log(probabilities), dim=-1)
    kept = spent <= threshold
    kept[:, 0] = True
    return torch.ones_like(scores, dtype=torch.bool).scatter(1, order, ~kept)


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


def typical_p(scores: Tensor, mass: float, min_tokens_to_keep: int = 1) -> Tensor:
    """All but the tokens whose surprisal is nearest the entropy, up to `mass` (locally typical).

    Meister et al. 2022, arXiv 2202.00666. The most probable token itself may go.
    """
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    distance, order = (-logprobs - entropy).abs().sort(descending=False)
    cumulative = scores.gather(-1, order).softmax(-1).cumsum(-1)
    last = (cumulative < mass).sum(1).clamp(max=scores.shape[-1] - 1)
    removed = distance > distance.gather(1, last.view(-1, 1))
    removed[..., :min_tokens_to_keep] = False
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


def top_a(scores: Tensor, share: float) -> Tensor:
    """Tokens less probable than `share` of the square of the highest probability (KoboldAI)."""
    probabilities = scores.softmax(-1)
    return probabilities < share * probabilities.amax(-1, keepdim=True).square()


def tfs_z(scores: Tensor, z: float) -> Tensor:
    """All from where the absolute second differences of the falling probabilities sum to more than `z`
    of their total.

    Phénix & Egan 2019, "Tail Free Sampling", as llama.cpp had it: at least one token stays.
    """
    falling, order = scores.softmax(-1).sort(descending=True, stable=True)
    if scores.shape[-1] < 3:
        return torch.zeros_like(scores, dtype=torch.bool)
    possible = scores.isfinite().sum(-1, keepdim=True)
    second = falling.diff(dim=-1).diff(dim=-1).abs()
    position = torch.arange(second.shape[-1], device=scores.device)
    second = second.masked_fill(position >= possible - 2, 0.0)
    total = second.sum(-1, keepdim=True)
    even = (position < possible - 2) / (possible - 2).clamp(min=1)
    share = torch.where(total > 1e-6, second / total, even)
    beyond = share.cumsum(-1) > z
    beyond[:, 0] = False
    last = beyond[:, -1:].expand(-1, 2)  # the last two stay or go with the one before
    nothing = torch.zeros_like(scores, dtype=torch.bool)
    return nothing.scatter(1, order, torch.cat((beyond, last), 1))


def xtc_probability(scores: Tensor, excludes: bool, threshold: float) -> Tensor:
    """Where it `excludes`, all tokens of at least `threshold` but the least probable of them.

    text-generation-webui PR 6335, "Exclude top choices".
    """
    probabilities = scores.softmax(-1)
    choices = probabilities >= threshold
    if not excludes:
        return torch.zeros_like(choices)
    # Of equals the last stays, as in a stable sort.
    least = probabilities.where(choices, torch.inf).flip(-1).argmin(-1, keepdim=True)
    kept = scores.shape[-1] - 1 - least
    return choices.scatter(-1, kept, False)


def mirostat(scores: Tensor, max_surprise: float) -> Tensor:
    """Tokens whose surprisal is above `max_surprise` bits, the most probable excepted.

    Basu et al. 2021, "Mirostat", arXiv 2007.14966, version 2; `Chain.advance` moves the limit on.
    """
    logprobs = scores.log_softmax(-1)
    removed = -logprobs > max_surprise * math.log(2)
    return removed.scatter(-1, logprobs.argmax(-1, keepdim=True), False)
