"""What `explore` computes: logits after any tokens, a distribution under any settings, a draw from it.

Nothing here knows a screen. A forward pass takes a lock, so that a worker thread can make it while
somebody else reads what is there already.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from decodecli.decoding.prompt import PrefilledPrompt, out_of_memory_guard
from decodecli.errors import DecodeError
from decodecli.models.detokenize import token_texts
from decodecli.sampling.noise import ExponentialNoise

_KEPT_BYTES = 128 << 20  # of logits that undo and branches find again


class Source(Protocol):
    """Where logits come from."""

    vocab_size: int
    eos_ids: frozenset[int]

    def piece(self, token_id: int) -> str:
        """The vocabulary's piece, exactly."""

    def texts(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[str]:
        """What each of `ids` adds to the visible text."""

    def logits(self, ids: tuple[int, ...]) -> Tensor:
        """Logits after `ids`, (1, vocab) float32 on the CPU; a forward pass where they are not kept.

        Raises:
            DecodeError: the model cannot go on from there.
        """

    def ready(self, ids: tuple[int, ...]) -> Tensor | None:
        """The same without a forward pass; None where it takes one."""


class ModelSource:
    """A model, from a prompt that it has read; the cache of keys and values serves all branches."""

    def __init__(self, prefix: PrefilledPrompt) -> None:
        self.prefix, self.lm = prefix, prefix.lm
        self.vocab_size, self.eos_ids = prefix.logits.shape[-1], prefix.lm.eos_ids
        self.context, self.piece = prefix.lm.context, prefix.lm.piece
        self._runner, self._cached = prefix.runner, prefix.ids
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._keep(prefix.ids, prefix.logits)

    def texts(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[str]:
        return token_texts(self.lm.codec, ids, prompt_ids)

    def ready(self, ids: tuple[int, ...]) -> Tensor | None:
        return self._kept.get(ids)

    def logits(self, ids: tuple[int, ...]) -> Tensor:
        with self._lock:
            if ids not in self._kept:
                if self.context is not None and len(ids) >= self.context:
                    raise DecodeError(f"the context of {self.context:,} tokens is full")
                same = zip(ids, self._cached, strict=False)
                shared = next((k for k, (a, b) in enumerate(same) if a != b), None)
                shared = min(len(ids), len(self._cached)) if shared is None else shared
                with out_of_memory_guard(self.lm):
                    if shared == len(self._cached) == len(ids) - 1:
                        logits = self._runner.step(torch.tensor([ids[-1:]]))
                    else:
                        logits = self._runner.resume(list(ids), min(shared, len(ids) - 1))
                self._keep(ids, logits)
                self._cached = ids
            self._kept.move_to_end(ids)
            return self._kept[ids]

    def _keep(self, ids: tuple[int, ...], logits: Tensor) -> None:
        if not bool(torch.isfinite(logits).all()):
            raise DecodeError("the logits are not finite (nan or inf)", "try --dtype float32")
        self._kept[ids] = logits.cpu()
        while len(self._kept) > max(_KEPT_BYTES // (4 * self.vocab_size), 2):
            self._kept.popitem(last=False)


class NumbersSource:
    """Named logits in place of a model: the same distribution at every step."""

    eos_ids: frozenset[int] = frozenset()

    def __init__(self, pairs: Sequence[tuple[str, float]]) -> None:
        self._names = [name for name, _ in pairs]
        self._logits = torch.tensor([[number for _, number in pairs]], dtype=torch.float32)
        self.vocab_size = len(pairs)

    def piece(self, token_id: int) -> str:
        return self._names[token_id]

    def texts(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[str]:
        return [f"{self._names[token]} " for token in ids]

    def logits(self, ids: tuple[int, ...]) -> Tensor:
        return self._logits

    def ready(self, ids: tuple[int, ...]) -> Tensor | None:
        return self._logits


class Noise:
    """The noise of any step of any seed, as a run of `generate` with that seed has it."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size, self._seed, self._next = vocab_size, -1, 0
        self._stream: ExponentialNoise | None = None

    def at(self, seed: int, index: int) -> Tensor:
        """(1, vocab) float32, valid until the next call."""
        if self._stream is None or seed != self._seed or index < self._next:
            self._stream = ExponentialNoise(seed, self._vocab_size, torch.device("cpu"))
            self._seed, self._next = seed, 0
        while True:
            noise = self._stream.full()
            self._next += 1
            if self._next > index:
                return noise
