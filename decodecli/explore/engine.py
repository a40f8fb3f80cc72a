"""What `explore` computes: logits after any tokens, a distribution under any settings, a draw from it.

Nothing here knows a screen. A forward pass takes a lock, so that a worker thread can make it while
somebody else reads what is there already.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from decodecli.decoding.prompt import PrefilledPrompt, out_of_memory_guard
from decodecli.errors import DecodeError
from decodecli.models.detokenize import Detokenizer
from decodecli.records.run import Candidate
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.noise import ExponentialNoise
from decodecli.sampling.reference import entropy, log_softmax, row_order
from decodecli.settings import SamplingParams

_KEPT_BYTES = 128 << 20  # of logits that undo and branches find again
# Over which the entropy is drawn, evenly in the logarithm.
CURVE = tuple(float(t) for t in np.geomspace(0.1, 10.0, 41))


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
        stream = Detokenizer(self.lm.codec, prompt_ids)
        texts = [stream.push(token) for token in ids]
        if texts:
            texts[-1] += stream.flush()
        return texts

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


@dataclass(frozen=True)
class Distribution:
    """One position's logits under some settings; numbers in float64, masks as `generate` makes them.

    logits: (1, vocab) float32, as the model gave them. ids: the tokens before.
    """

    logits: Tensor
    ids: tuple[int, ...]
    params: SamplingParams

    @cached_property
    def chain(self) -> Chain:
        return Chain(self.params)

    @cached_property
    def _processed(self) -> Any:
        with torch.inference_mode():
            return self.chain(self.logits, torch.tensor([self.ids], dtype=torch.long))

    @cached_property
    def _raw(self) -> Any:
        return self.logits[0].double().numpy()

    @cached_property
    def logprobs(self) -> Any:
        """(vocab,): at temperature 1, before everything."""
        return log_softmax(self._raw)

    @cached_property
    def penalised(self) -> Any:
        """(vocab,): the logits after the penalties."""
        return self._processed.penalised[0].double().numpy()

    @cached_property
    def tempered(self) -> Any:
        """(vocab,): log probabilities after penalties and temperature."""
        return log_softmax(self.penalised, self.chain.temperature)

    @cached_property
    def removed(self) -> Any:
        """(vocab,): `Chain.removal_codes`."""
        return self.chain.removal_codes(self._processed)

    @cached_property
    def final(self) -> Any:
        """(vocab,): log probabilities of the distribution that is drawn from; −inf where removed."""
        return log_softmax(np.where(self.removed > 0, -np.inf, self.tempered))

    @property
    def greedy(self) -> int:
        """The token of the highest score."""
        return int(self._processed.scores.argmax())

    @cached_property
    def order(self) -> Any:
        """Token ids by logit, highest first."""
        return row_order(self._raw)

    @cached_property
    def kept(self) -> int:
        return int((self.removed == 0).sum())

    @cached_property
    def entropies(self) -> tuple[float, float]:
        """Nats, at temperature 1 and of the final distribution."""
        return entropy(self.logprobs), entropy(self.final)

    def entropy_curve(self) -> list[float]:
        """Nats at each temperature of `CURVE`, after the penalties and before the filters."""
        return [entropy(log_softmax(self.penalised, temperature)) for temperature in CURVE]

    @cached_property
    def _cumulative(self) -> Any:
        return np.minimum(np.cumsum(np.exp(self.tempered[self.order])), 1.0)

    @cached_property
    def _positions(self) -> Any:
        positions = np.empty_like(self.order)
        positions[self.order] = np.arange(self.order.size)
        return positions

    def candidate(self, token_id: int, piece: str) -> Candidate:
        """A token with its numbers."""
        code = int(self.removed[token_id])
        return Candidate(
            rank=1 + int((self._raw > self._raw[token_id]).sum()),
            token_id=token_id,
            token=piece,
            logit=float(self._raw[token_id]),
            logprob=float(self.logprobs[token_id]),
            tempered_logprob=max(float(self.tempered[token_id]), -1e308),
            cumulative=float(self._cumulative[self._positions[token_id]]),
            final_logprob=None if code else max(float(self.final[token_id]), -1e308),
            removed_by=self.chain.order[code - 1] if code else None,
        )

    @torch.inference_mode()
    def draw(self, noise: Tensor | None) -> int:
        """A token drawn with a step's noise (1, vocab), as `generate` draws it."""
        return int(draw(self._processed.scores, None if self.chain.greedy else noise))

    def under(self, params: SamplingParams) -> Distribution:
        """The same logits under other settings."""
        return replace(self, params=params)


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
