"""Keys and values of one sequence in preallocated tensors, in which tokens append in place.

transformers' own caches copy all keys and values to append one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from decodecli.models.supported import DecoderConfig

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
        """Append keys and values, (rows, num_kv_heads, length, head_dim), to a layer's; returns the
        attention of their queries, (rows, num_heads, length, head_dim), each over the last `window`
        positions (None: all), in the query's shape."""


def resized(tensor: Tensor, length: int, capacity: int) -> Tensor:
    """A copy of the first `length` positions of (rows, heads, positions, head_dim) with room for
    `capacity`, zero where unknown."""
    larger = tensor.new_zeros((*tensor.shape[:2], capacity, tensor.shape[3]))
    larger[:, :, :length] = tensor[:, :, :length]
    return larger


class DynamicKVCache:
    """A cache that doubles when it is full."""

    def __init__(self, length: int, keys: list[Tensor], values: list[Tensor]) -> None:
        self.length = length  # also the position of the next token
        self._keys, self._values = keys, values

    @classmethod
    def empty(
        cls, config: DecoderConfig, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> DynamicKVCache:
        """A cache of no positions yet, with room for `capacity`."""
        shape = (1, config.num_kv_heads, capacity, config.head_dim)
        keys, values = (
            [torch.empty(shape, device=device, dtype=dtype) for _ in config.windows]
            for _ in range(2)
        )
        return cls(0, keys, values)

    def tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of the sequence so far, (1, num_kv_heads, length, head_dim) a layer."""
        keys, values = (
            [tensor[:, :, : self.length] for tensor in tensors]
            for tensors in (self._keys, self._values)
        )
        return keys, values

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
        keys, values = self._keys[layer], self._values[layer]
        position, new = self.length, key.shape[2]
        end = position + new
        if end > keys.shape[2]:
            keys = self._keys[layer] = resized(keys, position, 2 * end)
            values = self._values[layer] = resized(values, position, 2 * end)
        keys.narrow(2, position, new).copy_(key)
        values.narrow(2, position, new).copy_(value)
        shared = query.shape[1] // key.shape[1]  # query heads to a key head
        if new == 1:
            start = 0 if window is None else max(0, end - window)
            return scaled_dot_product_attention(
                query,
                keys.narrow(2, start, end - start),
                values.narrow(2, start, end - start),
                scale=scale,
                enable_gqa=shared > 1,
            )
        keys, values, mask = keys.narrow(2, 0, end), values.narrow(2, 0, end), None
        if position or (window is not None and window <= end):
            columns = torch.arange(end, device=query.device)
            rows = columns[position:, None]
            mask = columns <= rows
            mask = mask if window is None else mask & (columns > rows - window)
            # GPUs have no fast kernel for a mask and shared heads at once.
            keys, values = (tensor.repeat_interleave(shared, 1) for tensor in (keys, values))
        return scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )

    def select(self, rows: Tensor) -> DynamicKVCache:
        """A copy whose sequences are these rows, (n,), of this one's, in their order."""
        keys = [tensor.index_select(0, rows) for tensor in self._keys]
        values = [tensor.index_select(0, rows) for tensor in self._values]
        return DynamicKVCache(self.length, keys, values)

    def fork(self) -> DynamicKVCache:
        """A copy that goes its own way."""
        capacity = self.length + SPARE_POSITIONS
        keys = [resized(tensor, self.length, capacity) for tensor in self._keys]
        values = [resized(tensor, self.length, capacity) for tensor in self._values]
        return DynamicKVCache(self.length, keys, values)


class StaticKVCache:
    """A cache whose position is a tensor, too, so that a CUDA graph can be captured over it. It takes a
    token at a time."""

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
