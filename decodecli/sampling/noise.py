"""Exponential noise for the draw: the numbers of torch's seeded generator, and only those needed.

A draw is argmax(p / e) with one e for every token of the vocabulary. With a filter on, few tokens
still have a p, and most of the time of a draw from 128,000 would go into logarithms for the others.
On a CPU torch makes each e from 64 bits of its generator; so the bits are generated for all, which is
quick, and turned into noise where it is needed. Whether that gives what `Tensor.exponential_` gives on
this machine is tried once; where it does not, and on other devices, torch makes all of it. For a large
vocabulary a thread generates the next step's bits while the model runs.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from decodecli.errors import DecodeError

_MANTISSA = (1 << 53) - 1
_LARGE = 65_536  # from here on, generating the bits ahead is worth a thread


class ExponentialNoise:
    """The noise of one seeded run on `device`, `vocab` numbers a step, as `torch.Generator` gives it."""

    @torch.inference_mode()
    def __init__(self, seed: int, vocab: int, device: torch.device) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self.has_bits = device.type == "cpu" and _bits_match_torch()
        self._next: Future[Tensor] | None = None
        if not self.has_bits:
            self._noise = torch.empty((1, vocab), device=device)
            return
        self._bits = torch.empty(vocab, dtype=torch.int64)
        if vocab >= _LARGE:
            self._spare = torch.empty_like(self._bits)
            self._worker, self._process = ThreadPoolExecutor(1, "noise"), os.getpid()
            self._prefetch()

    @torch.inference_mode()
    def full(self) -> Tensor:
        """The step's noise, (1, vocab) float32; valid until the next step's."""
        if self.has_bits:
            return exponential(self.bits())[None]
        return self._noise.exponential_(1, generator=self._generator)

    @torch.inference_mode()
    def gather(self, ids: np.ndarray) -> np.ndarray:
        """The step's noise of the tokens `ids` alone, float32."""
        if self.has_bits:
            return exponential(self.bits()[torch.from_numpy(ids)]).numpy()
        selected: np.ndarray = self.full()[0].cpu().numpy()[ids]
        return selected

    def bits(self) -> Tensor:
        """The step's bits where it `has_bits`, (vocab,) int64, valid until the next step's; `exponential`
        makes noise of them. The next step's may be under way into the spare buffer."""
        if self._next is None:
            return _random_bits(self._bits, self._generator)
        if self._process != os.getpid():  # a fork has the bits if they were ready, but no thread
            raise DecodeError(
                "a run was continued in a forked process",
                "start it there, or use multiprocessing's start method spawn",
            )
        self._bits, self._spare = self._next.result(), self._bits
        self._prefetch()
        return self._bits

    def _prefetch(self) -> None:
        self._next = self._worker.submit(_random_bits, self._spare, self._generator)


@torch.inference_mode()
def _random_bits(bits: Tensor, generator: torch.Generator) -> Tensor:
    return bits.random_(-(2**63), None, generator=generator)


def uniform(bits: np.ndarray) -> np.ndarray:
    """The u of `exponential` = −log(1 − u), float64 in [0, 1)."""
    numbers: np.ndarray = (bits & _MANTISSA) * 2.0**-53
    return numbers


def exponential(bits: Tensor) -> Tensor:
    """float32 exponentials of 64 bits each, 53 of which make a uniform in [0, 1)."""
    return (bits & _MANTISSA).double().mul_(-(2.0**-53)).log1p_().neg_().float()


@cache
def _bits_match_torch() -> bool:
    """Whether noise made of bits equals torch's own, to the last bit."""
    expected = torch.empty(256).exponential_(1, generator=torch.Generator().manual_seed(7))
    bits = _random_bits(torch.empty(256, dtype=torch.int64), torch.Generator().manual_seed(7))
    return torch.equal(exponential(bits), expected)
