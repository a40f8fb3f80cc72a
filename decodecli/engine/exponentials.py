"""Exponential noise for the draw: the very numbers of torch's seeded generator, only those needed.

A draw is argmax(p / e) with one e for every token of the vocabulary. With a filter on, few tokens
still have a p, and most of the time of a draw from 128,000 would go into logarithms for the others.
On a CPU torch makes each e from 64 bits of its generator; so the bits are taken for all, which is
quick, and made into noise where it is wanted. Whether that gives what `Tensor.exponential_` gives on
this machine is tried once; where it does not, and on other devices, torch makes all of it. The bits
of a large vocabulary's next step are taken aside while the model runs.
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
_LARGE = 65_536  # from here on, taking the bits aside is worth a thread


class Exponentials:
    """The noise of one seeded run on `device`, `vocab` numbers a step, as `torch.Generator` has it."""

    @torch.inference_mode()
    def __init__(self, seed: int, vocab: int, device: torch.device) -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._noise = torch.empty((1, vocab), device=device)
        self._bits: Tensor | None = None
        if device.type == "cpu" and _bits_give_it():
            self._bits = torch.empty(vocab, dtype=torch.int64)
        self._next: Future[Tensor] | None = None
        if self._bits is not None and vocab >= _LARGE:
            self._spare = torch.empty_like(self._bits)
            self._aside, self._process = ThreadPoolExecutor(1, "noise"), os.getpid()
            self._take_aside()

    @torch.inference_mode()
    def all(self) -> Tensor:
        """The step's noise, (1, vocab) float32; valid until the next step's."""
        if self._bits is not None:
            return exponential(self._step_bits())[None]
        return self._noise.exponential_(1, generator=self._generator)

    @torch.inference_mode()
    def at(self, ids: np.ndarray) -> np.ndarray:
        """The step's noise of the tokens `ids`, float32, and of no others."""
        if self._bits is not None:
            return exponential(self._step_bits()[torch.from_numpy(ids)]).numpy()
        found: np.ndarray = self.all()[0].cpu().numpy()[ids]
        return found

    @property
    def has_bits(self) -> bool:
        """Whether a step's noise can be had as bits."""
        return self._bits is not None

    @torch.inference_mode()
    def bits(self) -> np.ndarray:
        """The step's bits, (vocab,) int64, until the next step's; `exponential` makes noise of them."""
        found: np.ndarray = self._step_bits().numpy()
        return found

    def _step_bits(self) -> Tensor:
        """The bits of this step; those of the next may already be on their way into the spare."""
        assert self._bits is not None
        if self._next is None:
            return _drawn(self._bits, self._generator)
        if self._process != os.getpid():  # a fork has the bits if they were ready, but no thread
            raise DecodeError(
                "a run was gone on with in a forked process",
                "start it there, or use multiprocessing's start method spawn",
            )
        self._bits, self._spare = self._next.result(), self._bits
        self._take_aside()
        return self._bits

    def _take_aside(self) -> None:
        self._next = self._aside.submit(_drawn, self._spare, self._generator)


@torch.inference_mode()
def _drawn(bits: Tensor, generator: torch.Generator) -> Tensor:
    return bits.random_(-(2**63), None, generator=generator)


def uniform(bits: np.ndarray) -> np.ndarray:
    """What `exponential` takes the logarithm of: float64 in [0, 1), the same or less."""
    found: np.ndarray = (bits & _MANTISSA) * 2.0**-53
    return found


def exponential(bits: Tensor) -> Tensor:
    """float32 exponentials of 64 bits each, 53 of which make a uniform in [0, 1)."""
    return (bits & _MANTISSA).double().mul_(-(2.0**-53)).log1p_().neg_().float()


@cache
def _bits_give_it() -> bool:
    """Whether the noise made of bits is torch's own, to the last one."""
    expected = torch.empty(256).exponential_(1, generator=torch.Generator().manual_seed(7))
    bits = _drawn(torch.empty(256, dtype=torch.int64), torch.Generator().manual_seed(7))
    return torch.equal(exponential(bits), expected)
