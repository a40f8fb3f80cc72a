"""Decoding on a GPU without waiting: the device runs ahead while the host reads what it did.

A step, from the token's embedding to the numbers of the next one's table, touches no host value: its
position in the sequence is a tensor, the cache has a fixed size, the drawn token is the next step's
input. So it can be captured once in a CUDA graph and launched again and again. Its numbers are copied
to a small ring of pinned buffers; the host waits for step n only when n + 1 and n + 2 are on their way.
A token that ends the text is thus noticed up to two steps late, and what ran after it is dropped.

The same code runs without a graph, on any device, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.models.forward import DecoderForward
from decodecli.models.kv_cache import DynamicKVCache, StaticKVCache
from decodecli.models.model_files import first_line
from decodecli.models.supported import UnsupportedModel
from decodecli.sampling.chain import Chain, draw
from decodecli.sampling.statistics import compute
from decodecli.stages import STATEFUL

PIPELINE_DEPTH = 2  # steps under way while the host reads one
INITIAL_CAPACITY = (
    512  # new tokens that a cache has room for; a full one doubles, and is captured anew
)
MIN_STEPS_TO_CAPTURE = 8  # a capture costs some steps; it is not made for fewer than this
_WARM_UP_STEPS = 2  # before the capture; in them libraries allocate their workspaces


class CudaGraphDecoder:
    """A run that goes on from a prefilled cache, `PIPELINE_DEPTH` steps ahead of its reader.

    Args:
        forward, cache, logits: the decoder, and what the prompt left: its keys and values, and the
            logits (1, vocab), float32, after it.
        chain: the stages; none may need the sequence's tokens.
        count: rows that a step lists.
        seed: of the noise.
        steps: how many tokens at most.
        capture: whether to capture a graph; by default on CUDA.

    `backend` says how the steps are run.

    Raises:
        UnsupportedModel: the chain or the weights cannot be run this way.
    """

    @torch.inference_mode()
    def __init__(
        self,
        forward: DecoderForward,
        cache: DynamicKVCache,
        logits: Tensor,
        chain: Chain,
        count: int,
        seed: int,
        steps: int,
        capture: bool | None = None,
    ) -> None:
        if chain.needs_history:
            stage = next(name for name in chain.order if name in STATEFUL)
            raise UnsupportedModel(f"{stage} depends on the steps before")
        if forward.asks_the_host:
            raise UnsupportedModel("int8 layers ask the host about their outliers")
        self._forward, self._length = forward, cache.length
        self._chain, self._count, self._steps = chain, count, steps
        self._device = device = logits.device
        capacity = cache.length + min(steps, INITIAL_CAPACITY)
        self._cache = StaticKVCache(cache.length, capacity, *cache.tensors())
        self._noise = None if chain.greedy else torch.Generator(device=device).manual_seed(seed)
        self._token = torch.zeros((1, 1), dtype=torch.long, device=device)
        self._first = self._sample(logits, self._noise)
        self._ring = [_PinnedBuffer(self._first) for _ in range(PIPELINE_DEPTH + 2)]
        on_cuda = device.type == "cuda"
        self._capture = on_cuda and steps > MIN_STEPS_TO_CAPTURE if capture is None else capture
        self.backend = "a step at a time"
        with self._on_device():
            self._prepare()

    def __iter__(self) -> Iterator[np.ndarray]:
        """What `compute` gave for each step, on the host; at most `steps` of them."""
        self._ring[0].fill(self._first)
        launched = 1
        for index in range(self._steps):
            while launched <= min(index + PIPELINE_DEPTH, self._steps - 1):
                self._launch(launched)
                launched += 1
            yield self._ring[index % len(self._ring)].read()

    @torch.inference_mode()
    def _launch(self, index: int) -> None:
        """Start the forward pass after which step `index` is drawn."""
        position = self._length + index - 1
        with self._on_device():
            if position == self._cache.capacity:
                self._cache.grow(position, 2 * position)
                self._prepare()
            self._ring[index % len(self._ring)].fill(self._run())

    def _on_device(self) -> AbstractContextManager[Any]:
        """Streams, events and captures are of the current device: make it this one."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _sample(self, logits: Tensor, noise: torch.Generator | None) -> Tensor:
        """Draw the next input from float32 `logits`; returns the step's numbers."""
        processed = self._chain(logits, None)
        exponential = None
        if noise is not None:
            exponential = torch.empty_like(processed.scores).exponential_(1, generator=noise)
        self._token.copy_(draw(processed.scores, exponential))
        return compute(logits, processed, self._chain, self._token, self._count)

    def _step(self, noise: torch.Generator | None = None) -> Tensor:
        """One step, no host value in it."""
        position, cos_sin = self._cache.position, self._cos_sin
        if cos_sin is not None:
            cos, sin = (table.index_select(0, position) for table in cos_sin)
            cos_sin = cos, sin
        logits = self._forward(self._token, position, cos_sin, self._cache).float()
        numbers = self._sample(logits, noise or self._noise)
        position.add_(1)
        return numbers

    def _prepare(self) -> None:
        """Capture the step in a CUDA graph, or leave it as it is and say why."""
        self._run: Callable[[], Tensor] = self._step
        self._cos_sin = self._forward.rope_cos_sin(self._cache.capacity)
        if not self._capture:
            return
        token, position = self._token.clone(), self._cache.position.clone()
        stream = torch.cuda.current_stream()
        noise_state = None if self._noise is None else self._noise.get_state()
        try:
            self._run, self.backend = self._captured(position), "in a CUDA graph"
        except RuntimeError as error:  # an operation that cannot be captured
            self._recover(stream, noise_state)
            self._capture = False
            self.backend = f"a step at a time: {first_line(error)}"
        self._token.copy_(token)
        self._cache.position.copy_(position)

    def _captured(self, position: Tensor) -> Callable[[], Tensor]:
        warm_up_noise = None
        if self._noise is not None:  # the run's own noise is not spent on warming up
            warm_up_noise = torch.Generator(device=self._device).manual_seed(0)
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(_WARM_UP_STEPS):
                self._step(warm_up_noise)
                self._cache.position.copy_(position)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        if self._noise is not None:
            graph.register_generator_state(self._noise)
        # A stream of its own: the one that `torch.cuda.graph` keeps belongs to the first device.
        with torch.cuda.graph(graph, stream=side_stream, capture_error_mode="thread_local"):
            numbers = self._step()

        def replay() -> Tensor:
            graph.replay()
            return numbers

        return replay

    def _recover(self, stream: Any, noise_state: Tensor | None) -> None:
        """After a failed capture, which leaves its stream current and its generators capturing."""
        torch.cuda.set_stream(stream)
        torch.cuda.synchronize()
        if noise_state is not None:
            self._noise = torch.Generator(device=self._device)
            self._noise.set_state(noise_state)
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        fresh = torch.Generator(device=self._device).manual_seed(default.initial_seed())
        default.graphsafe_set_state(fresh.graphsafe_get_state())


class _PinnedBuffer:
    """Where a step's numbers arrive on the host, and the event that says they have."""

    def __init__(self, like: Tensor) -> None:
        self._event: Any = None
        self._device = like.device
        if like.device.type != "cuda":
            self._numbers = torch.empty_like(like)
            return
        with torch.cuda.device(like.device):
            self._numbers = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            self._event = torch.cuda.Event()

    @torch.inference_mode()
    def fill(self, numbers: Tensor) -> None:
        """Start the copy."""
        self._numbers.copy_(numbers, non_blocking=True)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def read(self) -> np.ndarray:
        """Wait for the copy."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.numpy().copy()
