"""The next-token distribution of a model, and of every token of a text, laid open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from decodecli.analysis.distribution import describe
from decodecli.decoding.prompt import prefill
from decodecli.errors import DecodeError, PromptError, UsageError
from decodecli.models.detokenize import Detokenizer
from decodecli.models.loading import LanguageModel
from decodecli.models.time_limit import token_ids
from decodecli.records.distribution import (
    ComparisonReport,
    Continuation,
    Difference,
    DistributionReport,
    Position,
    TextReport,
)
from decodecli.sampling.chain import Chain
from decodecli.sampling.reference import Floats, Mask, log_softmax, rank_of
from decodecli.sampling.statistics import distribution, highest_ids
from decodecli.settings import SamplingParams, stage_order

DEFAULT_WINDOW = 1024  # tokens; the context when that is shorter


def next_token(
    lm: LanguageModel,
    prompt: str | Sequence[int],
    temperatures: Sequence[float] = (1.0,),
    *,
    params: SamplingParams | None = None,
    rows: int = 10,
    tokens: Sequence[str | int] = (),
    target: str | int | None = None,
    bos: bool | None = None,
    sort: str = "rank",
) -> tuple[DistributionReport, Floats]:
    """The distribution after `prompt`, from one forward pass, and the logits, `(vocab,)` float64.

    Args:
        temperatures: one column each; 0 is the limit.
        params: penalties and filters (their own temperature is not used).
        rows: how many of the highest logits to list.
        tokens: token ids or texts to list in any case, by their first token.
        target: the token whose cross-entropy is wanted.
        sort: "rank", or "given": `tokens` (and the target) alone, in their order.

    Raises:
        PromptError, DecodeError: as `prefill`; logits that are not finite.
        UsageError: a temperature out of range, a token that is not in the vocabulary.
    """
    params = params or SamplingParams()
    prefix = prefill(lm, prompt, bos)
    logits = prefix.logits.cpu()
    if not bool(torch.isfinite(logits).all()):
        raise DecodeError("the logits are not finite (nan or inf)", "try --dtype float32")
    extra = [continuation_ids(lm, prefix.text, token, bos)[0] for token in tokens]
    target_id, notes = None, tuple[str, ...]()
    if target is not None:
        target_ids = continuation_ids(lm, prefix.text, target, bos)
        target_id = target_ids[0]
        extra.append(target_id)
        if len(target_ids) > 1:
            notes = (
                f"{str(target)!r} is {len(target_ids)} tokens; the cross-entropy is of the first, "
                f"{lm.piece(target_id)} (--token scores them all)",
            )
    ids = torch.tensor([prefix.ids])
    penalties = replace(params, temperature=0.0)
    penalised = Chain(penalties)(logits, ids).penalised[0].double().numpy()
    order = stage_order(replace(params, temperature=1.0))

    def apply(temperature: float, tempered: Floats) -> tuple[Floats, Mapping[str, Mask]]:
        return _filtered(Chain(replace(params, temperature=temperature)), logits, ids, tempered)

    exact = logits[0].double().numpy()
    report = describe(
        penalised,
        lm.piece,
        temperatures,
        source="inspect-logits",
        rows=rows,
        extra=extra,
        sort=sort,
        target=target_id,
        apply=apply if set(order) - {"repetition_penalty"} else None,
        ranked_by=exact,
        prompt=prefix.text,
        prompt_ids=prefix.ids,
        model=lm.info,
        order=order,
        params={name: getattr(params, name) for name in order},
        notes=notes,
    )
    return report, exact


def _filtered(
    chain: Chain, logits: Tensor, ids: Tensor, tempered: Floats
) -> tuple[Floats, Mapping[str, Mask]]:
    """What the chain of `generate` removes, so that the two agree to the last token."""
    processed = chain(logits, ids)
    codes = np.zeros(tempered.shape, dtype=np.uint8)
    if processed.removed_by is not None:
        codes = processed.removed_by[0].numpy().copy()
    if chain.greedy:
        others = np.arange(codes.size) != int(processed.scores.argmax())
        codes[others & (codes == 0)] = chain.order.index("greedy") + 1
    removed = {stage: codes == code for code, stage in enumerate(chain.order, start=1)}
    return log_softmax(np.where(codes > 0, -np.inf, tempered)), removed


def continuation_ids(
    lm: LanguageModel, prompt: str, token: str | int, bos: bool | None = None
) -> list[int]:
    """The token ids that a continuation adds to the prompt: an id itself, or a text's tokens.

    Raises:
        UsageError: the id is out of range, or the text has no tokens.
    """
    if isinstance(token, str) and token.isascii() and token.isdecimal():
        token = int(token)
    if isinstance(token, int):
        if not 0 <= token < lm.info.vocab_size:
            raise UsageError(
                f"--token {token} is not in the vocabulary (0 to {lm.info.vocab_size - 1})",
                "give an id in that range, or text:… for digits as text",
            )
        return [token]
    text = token.removeprefix("text:")
    ids = _added(lm, prompt, text, special=bos is not False)
    if ids is None:  # the prompt's last token would swallow the text's beginning
        ids = _added(lm, "\n", text, special=False)
    if ids is None:
        ids = token_ids(lm, text, special=False)
    if not ids:
        raise UsageError("--token is empty", "give a text or a token id")
    return ids


def _added(lm: LanguageModel, before: str, text: str, special: bool) -> list[int] | None:
    """What `text` adds to the tokens of `before`; None when it changes them."""
    first, both = token_ids(lm, before, special), token_ids(lm, before + text, special)
    return both[len(first) :] if both[: len(first)] == first else None


@torch.inference_mode()
def continuation(
    lm: LanguageModel, prompt: str | Sequence[int], token: str | int, bos: bool | None = None
) -> Continuation:
    """Rank, logit and logprob of each token of a continuation, one after the other."""
    prefix = prefill(lm, prompt, bos)
    ids = continuation_ids(lm, prefix.text, token, bos)
    forward, logits = prefix.runner, prefix.logits
    ranks, scores, logprobs = [], [], []
    for position, token_id in enumerate(ids, start=1):
        row = logits[0]
        scores.append(float(row[token_id]))
        ranks.append(1 + int((row > row[token_id]).sum()))
        logprobs.append(distribution(row).logprob(scores[-1]))
        if position < len(ids):
            logits = forward.step(torch.tensor([[token_id]]))
    return Continuation(
        text=token if isinstance(token, str) else lm.piece(token),
        token_ids=tuple(ids),
        tokens=tuple(lm.piece(token_id) for token_id in ids),
        ranks=tuple(ranks),
        logits=tuple(scores),
        logprobs=tuple(logprobs),
    )


@torch.inference_mode()
def all_positions(
    lm: LanguageModel,
    text: str | Sequence[int],
    *,
    window: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
) -> TextReport:
    """A text token by token: rank, logprob, entropy, and what the model would rather have had.

    A text longer than `window` (the context, at most 1024) is read in windows that begin `stride`
    (half the window) apart.

    Raises:
        PromptError: the text has no tokens.
        UsageError: a window longer than the context, or a stride longer than the window.
    """
    from decodecli.decoding.prompt import encode

    ids = encode(lm, text, bos) if isinstance(text, str) else [int(token) for token in text]
    if not ids:
        raise PromptError("the text has no tokens", "give some text")
    window, stride = _window(lm, window, stride)
    detokenizer = Detokenizer(lm.tokenizer)
    texts = [detokenizer.push(token_id) for token_id in ids]
    texts[-1] += detokenizer.flush()
    positions = [Position(0, ids[0], lm.piece(ids[0]), texts[0])]
    start = windows = 0
    while len(positions) < len(ids):
        part = torch.tensor([ids[start : start + window]], device=lm.model.device)
        logits = lm.model(input_ids=part, use_cache=False).logits[0]
        for position in range(len(positions), start + part.shape[1]):
            row = logits[position - start - 1].float()
            positions.append(_position(lm, row, position, ids[position], texts[position]))
        windows, start = windows + 1, start + stride
    characters = len(text) if isinstance(text, str) else len("".join(texts))
    return TextReport(lm.info, tuple(positions), characters, window, stride, max(windows, 1))


def _window(lm: LanguageModel, window: int | None, stride: int | None) -> tuple[int, int]:
    longest = lm.context or DEFAULT_WINDOW
    window = min(longest, DEFAULT_WINDOW) if window is None else window
    if lm.context is not None and window > lm.context:
        raise UsageError(
            f"--window {window} is longer than the context of {lm.info.name} ({lm.context})",
            "leave it out",
        )
    if window < 2:
        raise UsageError(f"--window must be at least 2 tokens, got {window}", "leave it out")
    stride = max(window // 2, 1) if stride is None else stride
    if not 1 <= stride < window:
        raise UsageError(
            f"--stride must be from 1 to {window - 1} (the window less one), got {stride}",
            "half the window is the default",
        )
    return window, stride


def _position(
    lm: LanguageModel, logits: Tensor, position: int, token_id: int, text: str
) -> Position:
    raw = distribution(logits)
    score = float(logits[token_id])
    best = int(highest_ids(logits, 1))
    return Position(
        position=position,
        token_id=token_id,
        token=lm.piece(token_id),
        text=text,
        rank=1 + int((logits > score).sum()),
        logprob=raw.logprob(score),
        entropy=raw.entropy,
        favourite=lm.piece(best),
        favourite_probability=float(np.exp(raw.logprob(float(logits[best])))),
    )


def compare(
    by: str,
    variants: Mapping[str, tuple[DistributionReport, Floats]],
    describe_again: Callable[[str, list[int]], DistributionReport],
) -> ComparisonReport:
    """Put distributions side by side, the first the reference.

    Args:
        by: what differs: prompt, quantize, dtype, bos or model.
        variants: name → its report and its logits, `(vocab,)`.
        describe_again: (name, token ids) → the report that lists these tokens too.

    Raises:
        UsageError: the vocabularies differ in size.
    """
    sizes = {name: logits.size for name, (_, logits) in variants.items()}
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise UsageError(
            f"the vocabularies differ ({listing})", "compare models with the same tokenizer"
        )
    first, logits = next(iter(variants.values()))
    listed = [row.token_id for row in first.rows]
    union = list(
        dict.fromkeys(row.token_id for report, _ in variants.values() for row in report.rows)
    )
    return ComparisonReport(
        by=by,
        variants=tuple(variants),
        reports=tuple(describe_again(name, union) for name in variants),
        differences=tuple(_difference(logits, other, listed) for _, other in variants.values()),
        listed=len(listed),
    )


def _difference(logits: Floats, other: Floats, listed: Sequence[int]) -> Difference:
    p, q = log_softmax(logits), log_softmax(other)
    return Difference(
        kl=max(0.0, float((np.exp(p) * (p - q)).sum())),
        total_variation=float(np.abs(np.exp(p) - np.exp(q)).sum() / 2),
        ranks_changed=sum(rank_of(logits, i) != rank_of(other, i) for i in listed),
    )


def check_same_vocabulary(first: LanguageModel, other: LanguageModel) -> None:
    """`UsageError` unless both tokenizers spell every id alike."""
    if first.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UsageError(
            f"{first.info.name} and {other.info.name} have different vocabularies",
            "compare models with the same tokenizer",
        )
