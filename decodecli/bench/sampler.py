"""From logits to a drawn token with its table, against transformers' processors and draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from decodecli.bench.measure import alternate
from decodecli.bench.report import Row, at_most, compared
from decodecli.bench.subjects import FILTERED_WORDS, FILTERS, stopwatch, threads_in_words

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 128_256
_OURS = "filters, draw, and everything that a step shows"
_PEER = "transformers' processors, softmax and multinomial"


def sampler_rows(
    device: str, repeat: int, quick: bool, vocabulary: int = VOCABULARY
) -> Iterator[Row]:
    """Milliseconds a step on random logits of `vocabulary` entries."""
    import torch

    source = torch.Generator().manual_seed(0)
    logits = (torch.randn(1, vocabulary, generator=source) * 3).to(device)
    calls = 2 if quick else 50
    watch = stopwatch(device)

    def timed(run: Callable[[], object]) -> Callable[[], float]:
        return lambda: 1000 * watch.per_call(run, calls)

    found = alternate({_OURS: timed(ours(logits)), _PEER: timed(theirs(logits))}, repeat)
    subject = f"{vocabulary:,} tokens · {device.partition(':')[0]}"
    how = "GPU" if device.startswith("cuda") else threads_in_words()
    note = f"{FILTERED_WORDS}; {calls} calls a repetition; {how}"
    yield from compared("sampler", subject, _OURS, found, "ms", {_PEER: at_most(0.15)}, note)


def ours(logits: Tensor) -> Callable[[], int]:
    """One step of our chain on (1, vocab) logits: stages, draw, observation with 10 candidates."""
    import torch

    from decodecli.engine.chain import Chain, draw
    from decodecli.engine.observe import observe

    chain = Chain(FILTERS)
    random = torch.Generator(device=logits.device).manual_seed(0)

    @torch.inference_mode()
    def run() -> int:
        filtered = chain(logits, None)
        token = int(draw(filtered.scores, random))
        observe(logits[0], filtered, chain, token, 10, str)
        return token

    return run


def theirs(logits: Tensor) -> Callable[[], int]:
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
    ids = torch.zeros((1, 1), dtype=torch.long, device=logits.device)

    @torch.inference_mode()
    def run() -> int:
        scores = processors(ids, logits.clone())
        return int(torch.multinomial(scores.softmax(-1), num_samples=1))

    return run
