"""Decoding on a GPU without waiting: the device runs ahead while the host reads what it did.

A step, from the token's embedding to the numbers of the next one's table, touches no host value: its
place in the sequence is a tensor, the cache has a fixed size, the drawn token is the next step's input.
So it can be captured once in a CUDA graph and launched again and again. Its numbers are copied to a
small ring of pinned buffers; the host waits for step n only when n + 1 and n + 2 are on their way.
A token that ends the text is thus noticed up to two steps late, and what ran after it is dropped.

The same code runs without a graph, on any device, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.models.forward import Layer, Plan, plan
from decodecli.models.supported import UnsupportedModel, prompt_cache
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.statistics import compute

PIPELINE_DEPTH = 2  # steps under way while the host reads one
_ROOM = 512  # tokens that a new cache has room for; a full one doubles, and is captured anew
_WORTH = 8  # a capture costs some steps; it is not made for fewer than this
_WARM_UP = 2  # runs before the capture, in which libraries make their workspaces


class Fixed:
    """Keys and values of one sequence in tensors of a fixed size; the place is a tensor, too."""

    def __init__(
        self, keys: list[Tensor], values: list[Tensor], length: int, capacity: int
    ) -> None:
        self.place = torch.full((1,), length, device=keys[0].device)
        self._keys, self._values = keys, values
        self.grow(length, capacity)

    def grow(self, length: int, capacity: int) -> None:
        """Move what is known of the `length` first places into tensors of `capacity`."""
        self.capacity = capacity
        self._places = torch.arange(capacity, device=self.place.device)
        self._keys = [self._wide(tensor, length, capacity) for tensor in self._keys]
        self._values = [self._wide(tensor, length, capacity) for tensor in self._values]

    @staticmethod
    def _wide(tensor: Tensor, length: int, capacity: int) -> Tensor:
        wide = tensor.new_zeros((*tensor.shape[:2], capacity, tensor.shape[3]))
        have = min(tensor.shape[2], length)
        wide[:, :, length - have : length] = tensor[:, :, tensor.shape[2] - have :]
        return wide  # of a sliding window transformers keeps the last places only

    def attend(
        self, number: int, layer: Layer, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """As `KeyValues` says. All places are read, those to come with weight 0: heads that share
        keys go through them together, so nothing is read twice."""
        keys, values = self._keys[number], self._values[number]
        keys.index_copy_(2, self.place, key)
        values.index_copy_(2, self.place, value)
        grouped = query.view(1, layer.groups, layer.heads // layer.groups, layer.size)
        scores = (grouped @ keys.mT).float() * layer.scale
        hidden = self._places > self.place
        if layer.window is not None:
            hidden = hidden | (self._places <= self.place - layer.window)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return (weights.to(values.dtype) @ values).view(query.shape)


@dataclass(frozen=True)
class _Slot:
    """One place of the ring: where a step's numbers arrive, and the event that says they have."""

    numbers: Tensor
    event: Any

    def read(self) -> np.ndarray:
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.numpy().copy()


class CudaGraphDecoder:
    """A run that goes on from a prefilled cache, `PIPELINE_DEPTH` steps ahead of its reader.

    Args:
        model, cache, logits, length: the model, and what the prompt of `length` tokens left: its
            cache and the logits (1, vocab), float32, after it.
        chain: the stages; none may need the sequence's tokens.
        count: rows that a step lists.
        seed: of the noise.
        steps: how many tokens at most.
        capture: whether to capture a graph; by default on CUDA.

    `how` says how the steps are run.

    Raises:
        UnsupportedModel: the model or the chain cannot be run this way.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Any,
        cache: Any,
        logits: Tensor,
        length: int,
        chain: Chain,
        count: int,
        seed: int,
        steps: int,
        capture: bool | None = None,
    ) -> None:
        if chain.needs_history:
            raise UnsupportedModel(f"{chain.order[0]} looks back at the tokens")
        if any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
            raise UnsupportedModel("int8 layers ask the host about their outliers")
        self._plan: Plan = plan(model)
        self._chain, self._count, self._steps = chain, count, steps
        self._device = device = logits.device
        self._length = length
        kept = prompt_cache(cache, length, self._plan.windows)
        self._kept = Fixed(*kept, length, length + min(steps, _ROOM))
        self._angles = self._plan.angles and self._plan.angles(self._kept.capacity)
        self._noise = None if chain.greedy else torch.Generator(device=device).manual_seed(seed)
        self._token = torch.zeros((1, 1), dtype=torch.long, device=device)
        self._first = self._choose(logits, self._noise)
        self._ring = [_slot(self._first) for _ in range(PIPELINE_DEPTH + 2)]
        self._capture = device.type == "cuda" and steps > _WORTH if capture is None else capture
        self.how = "a step at a time"
        self._run: Callable[[], Tensor] = self._one
        with self._here():
            self._prepare()

    def __iter__(self) -> Iterator[np.ndarray]:
        """What `compute` gave for each step, on the host; at most `steps` of them."""
        self._send(0, self._first)
        launched = 1
        for number in range(self._steps):
            while launched <= min(number + PIPELINE_DEPTH, self._steps - 1):
                self._launch(launched)
                launched += 1
            yield self._ring[number % len(self._ring)].read()

    @torch.inference_mode()
    def _launch(self, number: int) -> None:
        """Start the forward pass after which step `number` is drawn."""
        place = self._length + number - 1
        with self._here():
            if place == self._kept.capacity:
                capacity = 2 * place
                self._kept.grow(place, capacity)
                self._angles = self._plan.angles and self._plan.angles(capacity)
                self._prepare()
            numbers = self._run()
        self._send(number, numbers)

    def _here(self) -> AbstractContextManager[Any]:
        """Streams, events and captures are of the current device: make it this one."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _choose(self, logits: Tensor, noise: torch.Generator | None) -> Tensor:
        """Draw the next token from float32 `logits`; keeps it as the next input, measures the step."""
        processed = self._chain(logits, None)
        exponential = None
        if noise is not None:
            exponential = torch.empty_like(processed.scores).exponential_(1, generator=noise)
        chosen = draw(processed.scores, exponential)
        self._token.copy_(chosen)
        return compute(logits, processed, self._chain, chosen, self._count)

    def _one(self, noise: torch.Generator | None = None) -> Tensor:
        """One step, no host value in it."""
        place, angles = self._kept.place, self._angles
        here = None
        if angles is not None:
            here = angles[0].index_select(0, place), angles[1].index_select(0, place)
        logits = self._plan(self._token, place, here, self._kept).float()
        numbers = self._choose(logits, noise or self._noise)
        place.add_(1)
        return numbers

    def _prepare(self) -> None:
        """Capture the step in a CUDA graph, or leave it as it is and say why."""
        if not self._capture:
            return
        token, place = self._token.clone(), self._kept.place.clone()
        stream = torch.cuda.current_stream()
        spent = None if self._noise is None else self._noise.get_state()
        try:
            self._run, self.how = self._captured(place), "in a CUDA graph"
        except RuntimeError as error:  # an operation that cannot be captured
            self._recover(stream, spent)
            self._run, self._capture = self._one, False
            self.how = f"a step at a time: {str(error).strip().splitlines()[0][:120]}"
        self._token.copy_(token)
        self._kept.place.copy_(place)

    def _captured(self, place: Tensor) -> Callable[[], Tensor]:
        other = None
        if self._noise is not None:  # the run's own noise is not spent on warming up
            other = torch.Generator(device=self._device).manual_seed(0)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._one(other)
                self._kept.place.copy_(place)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        if self._noise is not None:
            graph.register_generator_state(self._noise)
        # A stream of its own: the one that `torch.cuda.graph` keeps belongs to the first device.
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            numbers = self._one()

        def replayed() -> Tensor:
            graph.replay()
            return numbers

        return replayed

    def _recover(self, stream: Any, spent: Tensor | None) -> None:
        """After a failed capture, which leaves its stream current and its generators capturing."""
        torch.cuda.set_stream(stream)
        torch.cuda.synchronize()
        if spent is not None:
            self._noise = torch.Generator(device=self._device)
            self._noise.set_state(spent)
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        fresh = torch.Generator(device=self._device).manual_seed(default.initial_seed())
        default.graphsafe_set_state(fresh.graphsafe_get_state())

    @torch.inference_mode()
    def _send(self, number: int, numbers: Tensor) -> None:
        """Start the copy of a step's numbers to the host."""
        slot = self._ring[number % len(self._ring)]
        slot.numbers.copy_(numbers, non_blocking=True)
        if slot.event is not None:
            slot.event.record(torch.cuda.current_stream(self._device))


def _slot(like: Tensor) -> _Slot:
    if like.device.type != "cuda":
        return _Slot(torch.empty_like(like), None)
    with torch.cuda.device(like.device):
        pinned = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
        return _Slot(pinned, torch.cuda.Event())
