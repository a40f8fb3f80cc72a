"""The next-token distribution of a model, and of every token of a text, laid open and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.analysis.distribution import describe
from decodecli.csv_text import csv_text
from decodecli.decoding.prompt import encode, prefill, run_context
from decodecli.errors import DecodeError, PromptError, UsageError, WriteError
from decodecli.models.detokenize import token_texts
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
from decodecli.settings import SamplingParams
from decodecli.stages import PENALTIES, stage_order

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

    The arguments are those of `decodecli.next_token`, and:

    Args:
        params: penalties and filters (their own temperature is not used).
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
    ids, exact = torch.tensor([prefix.ids]), logits[0].double().numpy()
    context = run_context(lm, params, prefix.ids, params.seed)
    penalties = Chain(params, temperature=0.0, context=context)
    order = stage_order(params, temperature=1.0)

    def apply(temperature: float, tempered: Floats) -> tuple[Floats, Mapping[str, Mask]]:
        """What the chain of `generate` removes, so that the two agree to the last token."""
        chain = Chain(params, temperature, context)
        processed = chain(logits, ids)
        codes = chain.removal_codes(processed)
        if "dynatemp_range" in chain.order:
            scores = processed.penalised[0].double().numpy()
            tempered = log_softmax(scores, chain.temperature)
        removed = {stage: codes == code for code, stage in enumerate(chain.order, start=1)}
        return log_softmax(np.where(codes > 0, -np.inf, tempered)), removed

    report = describe(
        penalties(logits, ids).penalised[0].double().numpy(),
        lm.piece,
        temperatures,
        source="inspect-logits",
        rows=rows,
        extra=extra,
        sort=sort,
        target=target_id,
        apply=apply if set(order) - PENALTIES | {"dynatemp_range"} & set(order) else None,
        ranked_by=exact,
        prompt=prefix.text,
        prompt_ids=prefix.ids,
        model=lm.info,
        order=order,
        params={name: getattr(params, name) for name in order},
        notes=notes,
    )
    return report, exact


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
    # After a line break where the prompt's last token would swallow the text's beginning.
    for before, special in ((prompt, bos is not False), ("\n", False)):
        first, both = (token_ids(lm, part, special) for part in (before, before + text))
        if both[: len(first)] == first:
            ids = both[len(first) :]
            break
    else:
        ids = token_ids(lm, text, special=False)
    if not ids:
        raise UsageError("--token is empty", "give a text or a token id")
    return ids


@torch.inference_mode()
def continuation(
    lm: LanguageModel, prompt: str | Sequence[int], token: str | int, bos: bool | None = None
) -> Continuation:
    """Rank, logit and logprob of each token of a continuation, one after the other."""
    prefix = prefill(lm, prompt, bos)
    ids = continuation_ids(lm, prefix.text, token, bos)
    forward, logits = prefix.runner, prefix.logits
    numbers = []
    for position, token_id in enumerate(ids, start=1):
        row, score = logits[0], float(logits[0, token_id])
        rank = 1 + int((row > score).sum())
        numbers.append((rank, score, float(distribution(row).logprob(score))))
        if position < len(ids):
            logits = forward.step(torch.tensor([[token_id]]))
    ranks, scores, logprobs = zip(*numbers, strict=True)
    return Continuation(
        text=token if isinstance(token, str) else lm.piece(token),
        token_ids=tuple(ids),
        tokens=tuple(lm.piece(token_id) for token_id in ids),
        ranks=ranks,
        logits=scores,
        logprobs=logprobs,
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
    ids = encode(lm, text, bos) if isinstance(text, str) else [int(token) for token in text]
    if not ids:
        raise PromptError("the text has no tokens", "give some text")
    window, stride = text_window(lm, window, stride)
    texts = token_texts(lm.codec, ids)
    positions = [Position(0, ids[0], lm.piece(ids[0]), texts[0])]
    for position, row in text_rows(lm, ids, window, stride) if len(ids) > 1 else ():
        if position == len(ids):
            break
        token_id = ids[position]
        raw, score, best = distribution(row), float(row[token_id]), int(highest_ids(row, 1))
        positions.append(
            Position(
                position=position,
                token_id=token_id,
                token=lm.piece(token_id),
                text=texts[position],
                rank=1 + int((row > score).sum()),
                logprob=float(raw.logprob(score)),
                entropy=raw.entropy,
                favourite=lm.piece(best),
                favourite_probability=float(np.exp(raw.logprob(float(row[best])))),
            )
        )
    characters = len(text) if isinstance(text, str) else len("".join(texts))
    windows = 1 + max(-(-(len(ids) - window) // stride), 0)
    return TextReport(lm.info, tuple(positions), characters, window, stride, windows)


def text_rows(
    lm: LanguageModel, ids: Sequence[int], window: int, stride: int
) -> Iterator[tuple[int, Tensor]]:
    """For each position from 1 to the length, the logits (vocab,) float32 of what follows that many of
    `ids`, read in windows that begin `stride` apart; each token in the first that holds it."""
    position, start, runner = 1, 0, lm.runner()
    while position <= len(ids):
        part = list(ids[start : start + window])
        logits = runner.all_logits(part)
        end = start + len(part)
        while position < end or position == end == len(ids):
            yield position, logits[position - start - 1].float()
            position += 1
        start += stride


def text_window(lm: LanguageModel, window: int | None, stride: int | None) -> tuple[int, int]:
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
    every_row = (row for report, _ in variants.values() for row in report.rows)
    union = list(dict.fromkeys(row.token_id for row in every_row))
    p, differences = log_softmax(logits), []
    for _, other in variants.values():
        q = log_softmax(other)
        differences.append(
            Difference(
                kl=max(0.0, float((np.exp(p) * (p - q)).sum())),
                total_variation=float(np.abs(np.exp(p) - np.exp(q)).sum() / 2),
                ranks_changed=sum(rank_of(logits, i) != rank_of(other, i) for i in listed),
            )
        )
    return ComparisonReport(
        by=by,
        variants=tuple(variants),
        reports=tuple(describe_again(name, union) for name in variants),
        differences=tuple(differences),
        listed=len(listed),
    )


def check_same_vocabulary(first: LanguageModel, other: LanguageModel) -> None:
    """`UsageError` unless both tokenizers spell every id alike."""
    if first.codec.get_vocab() != other.codec.get_vocab():
        raise UsageError(
            f"{first.info.name} and {other.info.name} have different vocabularies",
            "compare models with the same tokenizer",
        )


def save_logits(path: str, lm: LanguageModel, logits: Floats, report: DistributionReport) -> None:
    """Write `logits` (vocab,) and each token's piece, in the format that the suffix names.

    `.safetensors` and `.npz` hold the array `logits` as float32, the tokens as JSON in the metadata or
    as an array of strings; `.csv` has the columns token_id, token, logit, logprob; `.json` an object
    with the prompt, the model and a list of those.

    Raises:
        UsageError: an unknown suffix, or a folder that is not there.
        WriteError: the file cannot be written.
    """
    target, suffixes = Path(path).expanduser(), (".safetensors", ".npz", ".csv", ".json")
    if target.suffix not in suffixes:
        raise UsageError(f"--save {path}: unknown suffix", f"one of {', '.join(suffixes)}")
    if not target.parent.is_dir():
        raise UsageError(f"--save {path}: there is no folder {target.parent}", "make it first")
    to_json = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    tokens = [lm.piece(token_id) for token_id in range(logits.size)]
    origin: dict[str, Any] = {
        "model": None if report.model is None else asdict(report.model),
        "prompt": report.prompt,
        "prompt_ids": list(report.prompt_ids),
    }
    narrow = logits.astype(np.float32)
    columns = ("token_id", "token", "logit", "logprob")
    numbers = (logits.tolist(), log_softmax(logits).tolist())
    rows = zip(range(logits.size), tokens, *numbers, strict=True)
    try:
        if target.suffix == ".npz":
            ids, about = np.array(report.prompt_ids), np.array(to_json(origin))
            np.savez(target, logits=narrow, tokens=np.array(tokens), prompt_ids=ids, about=about)
        elif target.suffix == ".safetensors":
            from safetensors.numpy import save_file

            metadata = {key: to_json(value) for key, value in {**origin, "tokens": tokens}.items()}
            save_file({"logits": narrow}, target, metadata=metadata)
        elif target.suffix == ".csv":
            target.write_text(csv_text([columns, *rows]), encoding="utf-8", newline="")
        else:
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            target.write_text(to_json({**origin, "tokens": records}), encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error
