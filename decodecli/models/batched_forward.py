"""One-token forward passes of many sequences at once, whatever their lengths.

A linear layer over sixteen rows takes little longer than over one, because reading its weights is most
of the work. So the rows share every layer and keep their keys and values side by side, each from the
left; what lies to the right of a shorter row is masked. Only architectures that `forward` writes out
can do this; the sums of the shared layers are rounded otherwise than a row's alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from decodecli.models.forward import DecoderForward
from decodecli.models.kv_cache import SPARE_POSITIONS, DynamicKVCache, resized


class BatchedForward:
    """Sequences that take a token each in one forward pass.

    Rows are numbered from 0 without gaps. `add_row` starts a sequence in a row, `remove_row` ends one.

    Args:
        forward: the decoder that the prompts have been through.
        max_rows: how many rows there will be at most.
    """

    def __init__(self, forward: DecoderForward, max_rows: int) -> None:
        self._forward, self._max_rows = forward, max_rows
        self._lengths: list[int] = []
        self._keys: list[Tensor] = []  # (max_rows, num_kv_heads, capacity, head_dim) a layer
        self._values: list[Tensor] = []
        self._rows = self._positions = torch.empty(0)
        self._masks: dict[int | None, Tensor | None] = {}

    @torch.inference_mode()
    def add_row(self, row: int, cache: DynamicKVCache) -> None:
        """Start a sequence in `row`, the first free one or one in use, from its keys and values, which
        are copied."""
        length, (keys, values) = cache.length, cache.tensors()
        if not self._keys:
            self._keys = [self._empty(tensor, length) for tensor in keys]
            self._values = [self._empty(tensor, length) for tensor in values]
        self._reserve(length + 1)
        rows = (*self._keys, *self._values)
        for ours, prompt in zip(rows, (*keys, *values), strict=True):
            # All of the row: what another left may not be a number, and 0 times that is none either.
            ours[row : row + 1] = resized(prompt, length, ours.shape[2])
        self._lengths[row : row + 1] = [length]

    @torch.inference_mode()
    def remove_row(self, row: int) -> None:
        """End the sequence in `row`; the last row moves there."""
        length = self._lengths.pop()
        last = len(self._lengths)
        if row != last:
            for tensor in (*self._keys, *self._values):
                tensor[row] = tensor[last]
            self._lengths[row] = length

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Logits (rows, vocab) float32 after one token a row."""
        device, longest = self._keys[0].device, max(self._lengths) + 1
        self._reserve(longest)
        self._rows = torch.arange(len(self._lengths), device=device)
        self._positions = torch.tensor(self._lengths, device=device)
        self._masks = {}
        cos_sin = self._forward.rope_cos_sin(longest)
        if cos_sin is not None:  # (rows, 1, 1, head_dim) each
            cos, sin = (table[self._positions][:, None, None] for table in cos_sin)
            cos_sin = cos, sin
        ids = torch.as_tensor(tokens, device=device).view(-1, 1)
        logits = self._forward(ids, self._positions[:, None], cos_sin, self)
        self._lengths = [length + 1 for length in self._lengths]
        return logits.to(torch.float32)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """As `KVCache` says, each row's token at its own position."""
        keys, values = self._keys[layer], self._values[layer]
        keys[self._rows, :, self._positions] = key[:, :, 0]
        values[self._rows, :, self._positions] = value[:, :, 0]
        rows, count = len(self._lengths), max(self._lengths) + 1
        return scaled_dot_product_attention(
            query,
            keys[:rows, :, :count],
            values[:rows, :, :count],
            attn_mask=self._mask(window, count),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )

    def _mask(self, window: int | None, count: int) -> Tensor | None:
        """True where a row may look, (rows, 1, 1, count); None where all may look everywhere."""
        if window not in self._masks:
            columns, positions = (
                torch.arange(count, device=self._rows.device),
                self._positions[:, None],
            )
            visible = columns <= positions
            if window is not None:
                visible = visible & (columns > positions - window)
            masked = min(self._lengths) + 1 < count or (window is not None and window < count)
            self._masks[window] = visible[:, None, None] if masked else None
        return self._masks[window]

    def _empty(self, like: Tensor, length: int) -> Tensor:
        _, num_kv_heads, _, head_dim = like.shape
        return like.new_zeros((self._max_rows, num_kv_heads, length + SPARE_POSITIONS, head_dim))

    def _reserve(self, length: int) -> None:
        """Make room for sequences of `length` tokens."""
        capacity = self._keys[0].shape[2]
        if length > capacity:
            larger = max(length, 2 * capacity)
            self._keys = [resized(tensor, capacity, larger) for tensor in self._keys]
            self._values = [resized(tensor, capacity, larger) for tensor in self._values]
