"""One-token forward passes of many sequences at once, whatever their lengths.

A linear layer over sixteen rows takes little longer than over one, because reading its weights is most
of the work. So the rows share every layer and keep their keys and values side by side, each from the
left; what lies to the right of a shorter row is masked. Only architectures that `direct` writes out
can do this; the sums of the shared layers are rounded otherwise than a row's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from decodecli.models.forward import Layer, plan
from decodecli.models.supported import prompt_cache

_SPARE = 64  # places that are added when a row outgrows the rest


class BatchedForward:
    """Sequences that take a token each in one forward pass.

    Rows are numbered from 0 without gaps. `put` starts a sequence in a row, `drop` ends one.

    Args:
        model: a causal language model of transformers.
        size: how many rows there will be at most.

    Raises:
        UnsupportedModel: the model is not one that `direct` writes out.
    """

    def __init__(self, model: Any, size: int) -> None:
        self.plan = plan(model)
        self.size = size
        self.lengths: list[int] = []
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._angles: tuple[Tensor, Tensor] | None = None
        self._rows = self._places = torch.empty(0)
        self._masks: dict[int | None, Tensor | None] = {}

    @torch.inference_mode()
    def put(self, row: int, cache: Any, length: int) -> None:
        """Start a sequence of `length` tokens in `row`, the first free one or one in use, from the
        cache that transformers left of them; it is copied.

        Raises:
            UnsupportedModel: the cache lacks some of them.
        """
        keys, values = prompt_cache(cache, length, self.plan.windows)
        if not self._keys:
            self._keys = [self._room(tensor, length) for tensor in keys]
            self._values = [self._room(tensor, length) for tensor in values]
        self._grow(length + 1)
        for number in range(len(keys)):
            # A sliding window's cache has only the last of the tokens.
            have = min(keys[number].shape[2], length)
            for ours, given in ((self._keys, keys[number]), (self._values, values[number])):
                ours[number][row, :, length - have : length] = given[0, :, given.shape[2] - have :]
                # What another row left may not be a number, and masked places count 0 times.
                ours[number][row, :, : length - have] = 0
                ours[number][row, :, length:] = 0
        self.lengths[row : row + 1] = [length]

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """End the sequence in `row`; the last row moves there."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for tensor in (*self._keys, *self._values):
                tensor[row] = tensor[last]
            self.lengths[row] = length
        del self.lengths[last]

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Logits (rows, vocab) float32 after one token a row."""
        device = self._keys[0].device
        self._grow(max(self.lengths) + 1)
        self._rows = torch.arange(len(self.lengths), device=device)
        self._places = torch.tensor(self.lengths, device=device)
        self._masks = {}
        given = torch.as_tensor(tokens, device=device).view(-1, 1)
        logits = self.plan(given, self._places, self._turned(), self)
        self.lengths = [length + 1 for length in self.lengths]
        return logits.to(torch.float32)

    def attend(
        self, number: int, layer: Layer, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """As `direct.KeyValues` says, each row's token at its own place."""
        keys, values = self._keys[number], self._values[number]
        keys[self._rows, :, self._places] = key[:, :, 0]
        values[self._rows, :, self._places] = value[:, :, 0]
        rows, count = len(self.lengths), max(self.lengths) + 1
        return scaled_dot_product_attention(
            query,
            keys[:rows, :, :count],
            values[:rows, :, :count],
            attn_mask=self._mask(layer.window, count),
            scale=layer.scale,
            enable_gqa=layer.heads != layer.groups,
        )

    def _mask(self, window: int | None, count: int) -> Tensor | None:
        """True where a row may look, (rows, 1, 1, count); None where all may look everywhere."""
        if window not in self._masks:
            place = torch.arange(count, device=self._places.device)
            seen = place <= self._places[:, None]
            if window is not None:
                seen = seen & (place > self._places[:, None] - window)
            short = min(self.lengths) + 1 < count or (window is not None and window < count)
            self._masks[window] = seen[:, None, None] if short else None
        return self._masks[window]

    def _turned(self) -> tuple[Tensor, Tensor] | None:
        """The rotary angles at each row's place, (rows, 1, 1, size) each."""
        if self.plan.angles is None:
            return None
        if self._angles is None or max(self.lengths) >= len(self._angles[0]):
            self._angles = self.plan.angles(2 * max(self.lengths) + _SPARE)
        cos, sin = self._angles
        return cos[self._places][:, None, None], sin[self._places][:, None, None]

    def _room(self, like: Tensor, length: int) -> Tensor:
        groups, size = like.shape[1], like.shape[3]
        return like.new_zeros((self.size, groups, length + _SPARE, size))

    def _grow(self, least: int) -> None:
        """Room for sequences of at least `least` tokens."""
        have = self._keys[0].shape[2]
        if least <= have:
            return
        for tensors in (self._keys, self._values):
            for number, tensor in enumerate(tensors):
                wide = tensor.new_zeros((*tensor.shape[:2], max(least, 2 * have), tensor.shape[3]))
                wide[:, :, :have] = tensor
                tensors[number] = wide
