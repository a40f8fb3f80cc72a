"""The model under test: loaded as `decodecli.load` loads it, never ending, with a prompt of token ids."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import shapes
from benchmarks.machine import free_memory
from benchmarks.plan import QUANTIZED, dtype_and_scheme
from decodecli.analysis import speed
from decodecli.analysis.timing import Speed
from decodecli.errors import LoadError
from decodecli.settings import LoadParams, SamplingParams

if TYPE_CHECKING:
    from decodecli.models.loading import LanguageModel

PROMPT_TOKENS = 1  # the prompt is no part of any figure, and 4-bit layers are slow at it
FILTERS = speed.SAMPLING
PLAIN = SamplingParams(seed=0)
FILTERED_WORDS = "T 0.8, top-k 50, top-p 0.9"
_HEADROOM = 1.15  # of the weights: caches, the libraries, what loading takes meanwhile


@dataclass(frozen=True)
class Subject:
    """A loaded model with how it is measured.

    lm: the model; no token ends its text, so that every run has as many tokens as asked for.
    peer: the same as transformers loads it.
    prompt: the ids that every decoding starts from.
    speed: the lengths of the runs that a speed is taken from.
    """

    name: str
    precision: str
    lm: LanguageModel
    peer: Any
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
        lengths = speed.run_lengths(lm, tokens or (8 if quick else None), len(prompt))
        lm, peer = speed.endless(lm)
        yield Subject(name, precision, lm, peer, prompt, lengths)
        del lm, peer
    finally:
        torch.set_num_threads(threads_before)
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def _prompt(vocabulary: int) -> tuple[int, ...]:
    dice = random.Random(0)
    return tuple(dice.randrange(vocabulary // 2, vocabulary) for _ in range(PROMPT_TOKENS))


def is_quantized(precision: str) -> bool:
    """Whether a precision is a scheme of quantization."""
    return precision.partition("/")[0] in QUANTIZED


def traced(subject: Subject, params: SamplingParams, candidates: int = 10) -> Callable[[int], None]:
    """Our decoding of n tokens with every record kept."""
    return partial(speed.traced, subject.lm, subject.prompt, params, candidates=candidates)


def untraced(subject: Subject, params: SamplingParams) -> Callable[[int], None]:
    """Our decoding of n tokens without candidates, each record dropped at once."""
    return partial(speed.untraced, subject.lm, subject.prompt, params)
