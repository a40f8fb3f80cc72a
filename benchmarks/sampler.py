"""From logits to a drawn token with its table, against transformers' processors and draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmarks.report import Row, at_most, compared
from benchmarks.subjects import FILTERED_WORDS, FILTERS, threads_in_words
from decodecli.analysis.speed import stopwatch
from decodecli.analysis.timing import alternate

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 128_256
_ROWS = 8  # different logits, taken in turn
_OURS = "filters, draw, and everything that a step shows"
_PEER = "transformers' processors, softmax and multinomial"


def sampler_rows(
    device: str, repeat: int, quick: bool, vocabulary: int = VOCABULARY
) -> Iterator[Row]:
    """Milliseconds a step on random logits of `vocabulary` entries."""
    import torch

    source = torch.Generator().manual_seed(0)
    rows = [(torch.randn(1, vocabulary, generator=source) * 3).to(device) for _ in range(_ROWS)]
    calls = 2 if quick else 50
    watch = stopwatch(device)
    one_run, one_call = ours(rows, calls), theirs(rows)
    sides = {
        _OURS: lambda: 1000 * watch.seconds(one_run) / calls,
        _PEER: lambda: 1000 * watch.per_call(one_call, calls),
    }
    found = alternate(sides, repeat)
    subject = f"{vocabulary:,} tokens · {device.partition(':')[0]}"
    how = "GPU" if device.startswith("cuda") else threads_in_words()
    note = f"{FILTERED_WORDS}; {calls} steps a repetition; {how}"
    yield from compared("sampler", subject, _OURS, found, "ms", {_PEER: at_most(0.15)}, note)


@dataclass
class _Fixed:
    """In the place of a model's forward pass: one after the other of these logits, each (1, vocab)."""

    rows: Iterator[Tensor]
    backend: str = ""

    def step(self, token: Tensor) -> Tensor:
        return next(self.rows)


def ours(rows: Sequence[Tensor], steps: int) -> Callable[[], list[int]]:
    """A run of our decode loop with 10 candidates in which the forward pass costs nothing, so that
    what is left is the stages, the draw and the records; it returns the tokens."""
    from benchmarks.shapes import made_up_tokenizer
    from decodecli.decoding.decode import Decoding
    from decodecli.decoding.prompt import PrefilledPrompt
    from decodecli.models.loading import LanguageModel, Parts
    from decodecli.records.run import ModelInfo

    vocabulary = rows[0].shape[-1]
    tokenizer = made_up_tokenizer(vocabulary)
    info = ModelInfo("fixed logits", None, 0, vocabulary, "float32", str(rows[0].device), "none")
    lm = LanguageModel(Parts(None, tokenizer), info, None, frozenset(), 0)
    params = replace(FILTERS, max_new_tokens=steps)

    def run() -> list[int]:
        fixed: Any = _Fixed(cycle(rows))
        start = PrefilledPrompt(lm, "", (0,), rows[-1], fixed, 0.0)
        return [step.token_id for step in Decoding(start, params, candidates=10, shared=False)]

    return run


def theirs(rows: Sequence[Tensor]) -> Callable[[], int]:
    """The same filters as transformers' `generate` runs them, and its draw; nothing is recorded."""
    import torch
    from transformers.generation import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList(
        [
            TemperatureLogitsWarper(FILTERS.temperature),
            TopKLogitsWarper(FILTERS.top_k),
            TopPLogitsWarper(FILTERS.top_p),
        ]
    )
    ids = torch.zeros((1, 1), dtype=torch.long, device=rows[0].device)
    endless = cycle(rows)

    @torch.inference_mode()
    def run() -> int:
        scores = processors(ids, next(endless))
        return int(torch.multinomial(scores.softmax(-1), num_samples=1))

    return run
