"""A made-up run for the view tests: every number follows from a few logits."""

from __future__ import annotations

import math
from typing import Any

from decodecli.records.run import Candidate, ModelInfo, RunHeader, RunSummary, Step, perplexity


def header(**changes: Any) -> RunHeader:
    """A run at temperature 1.4 with top-p 0.9; `params`, `name`, `prompt` … replace."""
    params = {"max_new_tokens": 40, "temperature": 1.4, "top_p": 0.9, "stop": [], "greedy": False}
    params |= changes.pop("params", {})
    model = ModelInfo(
        name=changes.pop("name", "builtin"),
        revision=changes.pop("revision", None),
        parameters=8_421_376,
        vocab_size=changes.pop("vocab_size", 4096),
        dtype="float32",
        device="cpu",
        quantize=changes.pop("quantize", "none"),
    )
    values: dict[str, Any] = {
        "decodecli": "0.1.0",
        "versions": {},
        "model": model,
        "prompt": "The capital of Japan is",
        "prompt_ids": (1, 2, 3),
        "params": params,
        "sources": {},
        "order": ("temperature", "top_p"),
        "seed": 42,
    }
    return RunHeader(**values | changes)


def step(
    tokens: list[tuple[str, float]],
    *,
    index: int = 0,
    chosen: int = 0,
    text: str | None = None,
    temperature: float = 1.4,
    top_p: float = 0.9,
    show: int = 10,
    greedy: bool = False,
    vocab_size: int = 4096,
) -> Step:
    """A step over `tokens` (piece, logit; the highest first) and a flat tail up to `vocab_size`."""
    tail = tokens[-1][1] - 4.0
    logits = [logit for _, logit in tokens] + [tail] * (vocab_size - len(tokens))
    at_one, tempered = _log_softmax(logits), _log_softmax([x / temperature for x in logits])
    kept, mass = 0, 0.0
    while kept < len(logits) and mass < top_p and not greedy:
        mass += math.exp(tempered[kept])
        kept += 1
    final = [0.0 if greedy else value - math.log(mass) for value in tempered]
    kept = 1 if greedy else kept
    rows, cumulative = [], 0.0
    for place, (piece, logit) in enumerate(tokens):
        cumulative += math.exp(tempered[place])
        stays = place == chosen if greedy else place < kept
        rows.append(
            Candidate(
                rank=place + 1,
                token_id=100 + 37 * place,
                token=piece,
                logit=logit,
                logprob=at_one[place],
                tempered_logprob=tempered[place],
                cumulative=cumulative,
                final_logprob=final[place] if stays else None,
                removed_by=None if stays else "greedy" if greedy else "top_p",
            )
        )
    row = rows[chosen]
    piece = tokens[chosen][0]
    return Step(
        index=index,
        position=3 + index,
        token_id=row.token_id,
        token=piece,
        text=piece.replace("▁", " ") if text is None else text,
        rank=row.rank,
        logit=row.logit,
        logprob=row.logprob,
        tempered_logprob=row.tempered_logprob,
        final_logprob=row.final_logprob or 0.0,
        entropy=_entropy(at_one),
        final_entropy=0.0 if greedy else _entropy(final[:kept]),
        kept=kept,
        candidates=tuple(rows[:show] + ([row] if chosen >= show else [])),
    )


def summary(steps: list[Step], reason: str = "length") -> RunSummary:
    """The summary of `steps`, as if they took 0.11 s."""
    mean = sum(s.logprob for s in steps) / len(steps) if steps else None
    return RunSummary(
        text="".join(s.text for s in steps),
        token_ids=tuple(s.token_id for s in steps),
        finish_reason=reason,
        prompt_tokens=3,
        new_tokens=len(steps),
        mean_logprob=mean,
        perplexity=perplexity(mean),
        seconds={"load": 0.5, "prefill": 0.01, "decode": 0.1},
        tokens_per_second=len(steps) / 0.11 if steps else None,
    )


TOKYO = [
    ("▁Tokyo", 14.21),
    ("▁a", 9.8),
    ("▁the", 9.61),
    ("▁one", 9.2),
    ("▁in", 8.4),
    ("<0xE6>", 7.9),
    ("東京", 7.5),
    ("<0x0A>", 7.31),
    ("▁an", 7.11),
    ("▁unbelievably▁long", 7.0),
    (".", 6.2),
    ("▁garden", 5.0),
]


def _log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    total = top + math.log(sum(math.exp(x - top) for x in logits))
    return [x - total for x in logits]


def _entropy(logprobs: list[float]) -> float:
    return -sum(math.exp(x) * x for x in logprobs)
