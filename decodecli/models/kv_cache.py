"""Keys and values of one sequence in preallocated tensors, in which a token appends in place.

transformers' own caches copy all keys and values to append one.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from decodecli.models.supported import UnsupportedModel

SPARE_POSITIONS = 64  # that a new cache has beyond the sequence


class KVCache(Protocol):
    """Where the keys and values of a sequence are kept."""

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Append one token's key and value, (rows, num_kv_heads, 1, head_dim), to a layer's; returns
        the attention of its query, (rows, num_heads, 1, head_dim), over the last `window` positions
        (None: all), in the query's shape."""


def prompt_tensors(
    cache: Any, length: int, windows: tuple[int | None, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values that a prompt of `length` tokens left in transformers' cache, (rows, num_kv_heads,
    length or what the layer's window needs, head_dim) a layer.

    Raises:
        UnsupportedModel: a layer kept less than its window, or all of the prompt, needs.
    """
    layers = getattr(cache, "layers", ())
    if len(layers) != len(windows):
        raise UnsupportedModel("its cache is of an unusual kind")
    for layer, window in zip(layers, windows, strict=True):
        keys, needed = layer.keys, length if window is None else min(length, window - 1)
        if not isinstance(keys, Tensor) or keys.ndim != 4 or keys.shape[2] < needed:
            raise UnsupportedModel("its cache does not keep what its attention needs")
    return [layer.keys for layer in layers], [layer.values for layer in layers]


def resized(tensor: Tensor, length: int, capacity: int) -> Tensor:
    """A copy of (rows, heads, positions, head_dim) with `capacity` positions, zero where unknown.

    `tensor` ends at position `length` of the sequence, and may hold only its last positions, as
    transformers' cache does in layers with a sliding window.
    """
    wide = tensor.new_zeros((*tensor.shape[:2], capacity, tensor.shape[3]))
    held = min(tensor.shape[2], length)
    wide[:, :, length - held : length] = tensor[:, :, tensor.shape[2] - held :]
    return wide


class DynamicKVCache:
    """A cache that doubles when it is full. What it is given is copied."""

    def __init__(self, length: int, keys: list[Tensor], values: list[Tensor]) -> None:
        self.length = length  # also the position of the next token
        self._keys = [resized(tensor, length, length + SPARE_POSITIONS) for tensor in keys]
        self._values = [resized(tensor, length, length + SPARE_POSITIONS) for tensor in values]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """As `KVCache` says."""
        position, keys, values = self.length, self._keys[layer], self._values[layer]
        if position == keys.shape[2]:
            keys = self._keys[layer] = resized(keys, position, 2 * position)
            values = self._values[layer] = resized(values, position, 2 * position)
        keys.narrow(2, position, 1).copy_(key)
        values.narrow(2, position, 1).copy_(value)
        start = 0 if window is None else max(0, position + 1 - window)
        count = position + 1 - start
        return scaled_dot_product_attention(
            query,
            keys.narrow(2, start, count),
            values.narrow(2, start, count),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    def fork(self) -> DynamicKVCache:
        """A copy that goes its own way."""
        keys = [tensor[:, :, : self.length] for tensor in self._keys]
        values = [tensor[:, :, : self.length] for tensor in self._values]
        return DynamicKVCache(self.length, keys, values)


class StaticKVCache:
    """A cache whose position is a tensor, too, so that a CUDA graph can be captured over it."""

    def __init__(
        self, length: int, capacity: int, keys: list[Tensor], values: list[Tensor]
    ) -> None:
        self.position = torch.full((1,), length, device=keys[0].device)
        self._keys, self._values = keys, values
        self.grow(length, capacity)

    def grow(self, length: int, capacity: int) -> None:
        """Copy the first `length` positions into tensors of `capacity`."""
        self.capacity = capacity
        self._positions = torch.arange(capacity, device=self.position.device)
        self._keys = [resized(tensor, length, capacity) for tensor in self._keys]
        self._values = [resized(tensor, length, capacity) for tensor in self._values]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """As `KVCache` says. All positions are read, later ones with weight 0; heads that share keys
        go through them together, so that nothing is read twice."""
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(2, self.position, key)
        values.index_copy_(2, self.position, value)
        grouped = query.view(1, key.shape[1], -1, key.shape[3])
        scores = (grouped @ keys.mT).float() * scale
        masked = self._positions > self.position
        if window is not None:
            masked = masked | (self._positions <= self.position - window)
        weights = scores.masked_fill(masked, -torch.inf).softmax(-1)
        return (weights.to(values.dtype) @ values).view(query.shape)
