"""The model under test: loaded as `decodecli.load` loads it, never ending, with a prompt of token ids."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from decodecli.bench import shapes
from decodecli.bench.machine import free_memory
from decodecli.bench.measure import Speed, Stopwatch
from decodecli.bench.plan import QUANTIZED, dtype_and_scheme
from decodecli.errors import LoadError
from decodecli.settings import LoadParams, SamplingParams

if TYPE_CHECKING:
    from decodecli.engine.loading import LanguageModel

PROMPT_TOKENS = 1  # the prompt is no part of any figure, and 4-bit layers are slow at it
FILTERS = SamplingParams(temperature=0.8, top_k=50, top_p=0.9, seed=0)
PLAIN = SamplingParams(seed=0)
FILTERED_WORDS = "T 0.8, top-k 50, top-p 0.9"
_HEADROOM = 1.15  # of the weights: caches, the libraries, what loading takes meanwhile


@dataclass(frozen=True)
class Subject:
    """A loaded model with how it is measured.

    lm: the model; no token ends its text, so that every run has as many tokens as asked for.
    prompt: the ids that every decoding starts from.
    speed: the lengths of the runs that a speed is taken from.
    """

    name: str
    precision: str
    lm: LanguageModel
    prompt: tuple[int, ...]
    speed: Speed

    @property
    def label(self) -> str:
        """As rows name it."""
        return f"{self.name} · {self.precision}"

    @property
    def how(self) -> str:
        """On what, for the notes: the GPU, or how many threads of the CPU."""
        return "GPU" if self.on_gpu else threads_in_words()

    @property
    def on_gpu(self) -> bool:
        return str(self.lm.info.device).startswith("cuda")


def threads_in_words() -> str:
    """How many threads PyTorch works with now: "2 threads"."""
    import torch

    count = torch.get_num_threads()
    return f"{count} thread" + ("s" if count != 1 else "")


def stopwatch(device: str) -> Stopwatch:
    """A stopwatch that waits for the device."""
    if not device.startswith("cuda"):
        return Stopwatch()
    import torch

    return Stopwatch(settle=lambda: torch.cuda.synchronize(device))


def load_params(
    source: str, precision: str, device: str, threads: int | None, revision: str | None = None
) -> LoadParams:
    """`LoadParams` for a folder, a hub name or builtin, held in a precision."""
    dtype, scheme = dtype_and_scheme(precision)
    return LoadParams(
        model=source,
        revision=revision,
        device=device,
        dtype=dtype,
        quantize=scheme,
        threads=threads,
    )


def lacking(name: str, precision: str, device: str, free: int | None) -> str:
    """Why a shape does not fit in the memory that is free, or "" when it does or nothing tells."""
    shape = shapes.SHAPES.get(name)
    if shape is None or free is None:
        return ""
    needed = shape.bytes_needed(precision.partition("/")[0]) * _HEADROOM
    if needed <= free:
        return ""
    return (
        f"{name} in {precision} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
        f"are free on {device}"
    )


def fitting(
    name: str, precisions: tuple[str, ...], device: str, free: int | None = None
) -> dict[str, str]:
    """Each precision with why it does not fit, "" for those that do.

    Args:
        free: bytes of memory; None asks the machine.

    Raises:
        LoadError: none fits.
    """
    free = free_memory(device) if free is None else free
    found = {precision: lacking(name, precision, device, free) for precision in precisions}
    if all(found.values()):
        raise LoadError(
            min(found.values(), key=len), "choose a smaller shape, another --dtype or --quantize"
        )
    return found


@contextmanager
def loaded(
    name: str,
    source: str,
    precision: str,
    device: str,
    threads: int | None = None,
    tokens: int | None = None,
    quick: bool = False,
    revision: str | None = None,
) -> Iterator[Subject]:
    """Load a model for measuring, and free its memory after.

    Args:
        name: what rows call it.
        source: a folder, a hub name, or builtin.
    """
    import gc

    import torch

    import decodecli

    threads_before = torch.get_num_threads()
    params = load_params(source, precision, device, threads, revision)
    try:
        lm = decodecli.load(params, auto_threads=True)  # as the commands do
        prompt = _prompt(lm.info.vocab_size)
        speed = lengths(tokens, quick, lm, len(prompt), device)
        yield Subject(name, precision, _endless(lm), prompt, speed)
        del lm
    finally:
        torch.set_num_threads(threads_before)
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def lengths(tokens: int | None, quick: bool, lm: Any, prompt_tokens: int, device: str) -> Speed:
    """How many tokens the long and the short run take, by the model's size where none are given."""
    long = tokens or (8 if quick else _usual(lm.info.parameters, device))
    if lm.context is not None:
        long = max(min(long, lm.context - prompt_tokens), 4)
    return Speed(stopwatch(device), max(long // 8, 2), long)


def _usual(parameters: int, device: str) -> int:
    if device.startswith("cuda") or parameters < 50_000_000:
        return 160
    return 64 if parameters < 500_000_000 else 16


def _prompt(vocabulary: int) -> tuple[int, ...]:
    dice = random.Random(0)
    return tuple(dice.randrange(vocabulary // 2, vocabulary) for _ in range(PROMPT_TOKENS))


def _endless(lm: LanguageModel) -> LanguageModel:
    """The same model, whose text no token ends, here or in transformers' `generate`."""
    from transformers import GenerationConfig

    lm.model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=None)
    return replace(lm, eos_ids=frozenset())


def is_quantized(precision: str) -> bool:
    """Whether a precision is a scheme of quantization."""
    return precision.partition("/")[0] in QUANTIZED


def traced(subject: Subject, params: SamplingParams, candidates: int = 10) -> Callable[[int], None]:
    """Our decoding of n tokens with every record kept."""
    import decodecli

    def run(count: int) -> None:
        wanted = replace(params, max_new_tokens=count)
        found = decodecli.generate(subject.lm, subject.prompt, wanted, candidates=candidates)
        assert found.summary.new_tokens == count, "another number of tokens than asked for"

    return run


def untraced(subject: Subject, params: SamplingParams) -> Callable[[int], None]:
    """Our decoding of n tokens without candidates, each record dropped at once."""
    import decodecli

    def run(count: int) -> None:
        wanted = replace(params, max_new_tokens=count)
        steps = decodecli.decode(subject.lm, subject.prompt, wanted, candidates=0)
        assert sum(1 for _ in steps) == count, "another number of tokens than asked for"

    return run
