"""Exponential noise for the draw: the very numbers of torch's seeded generator, only those needed.

A draw is argmax(p / e) with one e for every token of the vocabulary. With a filter on, few tokens
still have a p, and most of the time of a draw from 128,000 tokens would go into noise for the others.
On a CPU torch makes its noise from the Mersenne Twister that numpy has too, so the e of a single token
can be computed alone. Whether the two agree on this machine is tried once; where they do not, and on
other devices, torch makes all of it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

_LARGE = 16_384  # below, making all the noise is quicker than choosing


class Exponentials:
    """The noise of one seeded run on `device`, `vocab` numbers a step, as `torch.Generator` has it."""

    def __init__(self, seed: int, vocab: int, device: torch.device) -> None:
        self._vocab, self._device = vocab, device
        self._twister: np.random.MT19937 | None = None
        if device.type == "cpu" and vocab >= _LARGE and _numpy_agrees():
            self._twister = _twister(seed)
        else:
            self._generator = torch.Generator(device=device).manual_seed(seed)

    def all(self) -> Tensor:
        """The step's noise, (1, vocab) float32."""
        if self._twister is not None:
            return torch.from_numpy(_exponential(self._words()))[None]
        noise = torch.empty((1, self._vocab), device=self._device)
        return noise.exponential_(1, generator=self._generator)

    def at(self, ids: np.ndarray) -> np.ndarray:
        """The step's noise of the tokens `ids`, float32, and of no others."""
        if self._twister is not None:
            return _exponential(self._words()[ids])
        found: np.ndarray = self.all()[0].cpu().numpy()[ids]
        return found

    def _words(self) -> np.ndarray:
        assert self._twister is not None
        return self._twister.random_raw(2 * self._vocab).reshape(-1, 2)


def _twister(seed: int) -> np.random.MT19937:
    twister = np.random.MT19937()
    twister._legacy_seeding(seed)  # Knuth's, as torch's
    return twister


def _exponential(words: np.ndarray) -> np.ndarray:
    """float32 exponentials of pairs of 32-bit words, (n, 2): 53 bits of them make the uniform."""
    bits = ((words[:, 0] << np.uint64(32)) | words[:, 1]) & np.uint64((1 << 53) - 1)
    noise: np.ndarray = (-np.log1p(-(bits * 2.0**-53))).astype(np.float32)
    return noise


@cache
def _numpy_agrees() -> bool:
    """Whether torch's exponentials are those of numpy's generator, to the last bit."""
    try:
        expected = torch.empty(256).exponential_(1, generator=torch.Generator().manual_seed(7))
        words = _twister(7).random_raw(512).reshape(-1, 2)
        return bool((expected.numpy() == _exponential(words)).all())
    except (AttributeError, TypeError):  # numpy without the seeding that torch uses
        return False
