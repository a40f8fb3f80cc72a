"""The one-token forward pass of well-known architectures, written out over a preallocated cache.

When a small model reads one token, `model.forward` spends more time between its operations than in
them: modules calling modules, a mask built for nothing, keys and values copied to append a row. Here
the same operations run on the model's own weights, in the same order, and nothing else. What is not
known exactly goes the model's own way, and `UnsupportedModel` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from decodecli.models.supported import (
    GPT2,
    UnsupportedModel,
    attention_windows,
    check_supported,
    prompt_cache,
)

Map = Callable[[Tensor], Tensor]

_SPARE = 64  # tokens that a new cache has room for


class KeyValues(Protocol):
    """Where the keys and values of a sequence are kept."""

    def attend(
        self, number: int, layer: Layer, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Add one token's key and value, (rows, groups, 1, size), to those of the layer of that
        number; returns what its query (rows, heads, 1, size) gathers from all, of the same shape."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer, as functions on (rows, 1, width)."""

    before: Map
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # each (rows, 1, heads or groups * size)
    query_norm: Map | None
    key_norm: Map | None
    out: Map
    after: Map
    mlp: Map
    heads: int
    groups: int  # heads of keys and values
    size: int  # width of a head
    scale: float
    window: int | None

    def __call__(
        self, x: Tensor, number: int, angles: tuple[Tensor, Tensor] | None, kept: KeyValues
    ) -> Tensor:
        rows = x.shape[0]
        q, k, v = self.qkv(self.before(x))
        q, k = q.view(rows, self.heads, 1, self.size), k.view(rows, self.groups, 1, self.size)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        seen = kept.attend(number, self, q, k, v.view(rows, self.groups, 1, self.size))
        x = x + self.out(seen.view(rows, 1, self.heads * self.size))
        return x + self.mlp(self.after(x))


@dataclass(frozen=True)
class Plan:
    """A model's one-token forward pass.

    `embed` takes token ids (rows, 1) and their positions (rows,); `angles` gives the cosines and
    the signed sines of all positions below a number, each (positions, size), or is None.
    """

    embed: Callable[[Tensor, Tensor], Tensor]
    angles: Callable[[int], tuple[Tensor, Tensor]] | None
    layers: tuple[Layer, ...]
    norm: Map
    head: Map

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's sliding window, None without one."""
        return tuple(layer.window for layer in self.layers)

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        kept: KeyValues,
    ) -> Tensor:
        """Logits (rows, vocab) after `tokens` (rows, 1) at `positions` (rows,)."""
        x = self.embed(tokens, positions)
        for number, layer in enumerate(self.layers):
            x = layer(x, number, angles, kept)
        return self.head(self.norm(x))[:, 0]


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of (rows, heads, 1, size).

    The sign that the usual `rotate_half` gives one half of `x` stands in the sines instead.
    """
    return x * cos + x.roll(x.shape[-1] // 2, -1) * signed_sin


def plan(model: Any) -> Plan:
    """The written-out forward pass of `model`.

    Raises:
        UnsupportedModel: the architecture, or something done to this model, is not known here.
    """
    check_supported(model)
    try:
        return _gpt2(model) if type(model).__name__ == GPT2 else _llama(model)
    except AttributeError as error:  # a part of it was replaced by another kind
        raise UnsupportedModel(f"its parts are not as expected: {error}") from error


def _llama(model: Any) -> Plan:
    config, body = model.config, model.model
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    windows = attention_windows(model, len(body.layers))
    if 2 * body.rotary_emb.inv_freq.numel() != size:
        raise UnsupportedModel("its rotary embedding turns a part of each head")

    def layer(number: int, block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        norms = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        return Layer(
            before=_rms_norm(block.input_layernorm),
            qkv=partial(
                _apart, _map(attention.q_proj), _map(attention.k_proj), _map(attention.v_proj)
            ),
            query_norm=norms[0] and _rms_norm(norms[0]),
            key_norm=norms[1] and _rms_norm(norms[1]),
            out=_map(attention.o_proj),
            after=_rms_norm(block.post_attention_layernorm),
            mlp=partial(
                _gated, _map(mlp.gate_proj), _map(mlp.up_proj), _map(mlp.down_proj), mlp.act_fn
            ),
            heads=heads,
            groups=groups,
            size=size,
            scale=attention.scaling,
            window=windows[number],
        )

    def angles(count: int) -> tuple[Tensor, Tensor]:
        embeddings = body.embed_tokens.weight
        cos, sin = body.rotary_emb(
            embeddings.new_empty(0),
            torch.arange(count, device=embeddings.device)[None],
        )
        sign = torch.ones_like(sin[0])
        sign[:, : size // 2] = -1
        return cos[0], sin[0] * sign

    return Plan(
        embed=partial(_look_up, body.embed_tokens.weight),
        angles=angles,
        layers=tuple(layer(number, block) for number, block in enumerate(body.layers)),
        norm=_rms_norm(body.norm),
        head=_map(model.lm_head),
    )


def _gpt2(model: Any) -> Plan:
    config, body = model.config, model.transformer
    attention_windows(model, len(body.h))  # none, or UnsupportedModel
    heads, size = config.n_head, config.n_embd // config.n_head

    def layer(block: Any) -> Layer:
        return Layer(
            before=_layer_norm(block.ln_1),
            qkv=partial(_joined, _map(block.attn.c_attn), config.n_embd),
            query_norm=None,
            key_norm=None,
            out=_map(block.attn.c_proj),
            after=_layer_norm(block.ln_2),
            mlp=partial(_plain, _map(block.mlp.c_fc), _map(block.mlp.c_proj), block.mlp.act),
            heads=heads,
            groups=heads,
            size=size,
            scale=block.attn.scaling,
            window=None,
        )

    return Plan(
        embed=partial(_look_up_both, body.wte.weight, body.wpe.weight),
        angles=None,
        layers=tuple(layer(block) for block in body.h),
        norm=_layer_norm(body.ln_f),
        head=_map(model.lm_head),
    )


def _map(module: Any) -> Map:
    """A linear layer as one call: its weights without the module, where that is all it is."""
    if type(module) is nn.Linear:
        return partial(linear, weight=module.weight, bias=module.bias)
    if type(module).__name__ == "Conv1D":  # GPT-2's linear layer, its weight transposed
        return partial(_conv1d, module.weight, module.bias)
    found: Map = module
    return found


def _conv1d(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """GPT-2's linear layer with its `weight` (in, out), by the call that transformers makes: `linear` on
    the transposed weight reads some shapes at little more than half the speed."""
    flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
    return flat.view(*x.shape[:-1], weight.shape[1])


def _rms_norm(module: Any) -> Map:
    return partial(_normalised, module.weight, module.variance_epsilon)


def _normalised(weight: Tensor, eps: float, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def _layer_norm(module: Any) -> Map:
    return partial(
        layer_norm,
        normalized_shape=module.normalized_shape,
        weight=module.weight,
        bias=module.bias,
        eps=module.eps,
    )


def _apart(query: Map, key: Map, value: Map, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return query(x), key(x), value(x)


def _joined(all_three: Map, width: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = all_three(x).split(width, -1)
    return q, k, v


def _gated(gate: Map, up: Map, down: Map, act: Map, x: Tensor) -> Tensor:
    return down(act(gate(x)) * up(x))


def _plain(wide: Map, narrow: Map, act: Map, x: Tensor) -> Tensor:
    return narrow(act(wide(x)))


def _look_up(weight: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    del positions
    return nn.functional.embedding(tokens, weight)


def _look_up_both(words: Tensor, places: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    return nn.functional.embedding(tokens, words) + nn.functional.embedding(
        positions[:, None], places
    )


class Growing:
    """Keys and values of one sequence, (1, groups, length, size) a layer, with room for more.

    What is given is copied. A full cache doubles.
    """

    def __init__(self, length: int, keys: list[Tensor], values: list[Tensor]) -> None:
        self.length = length
        self._keys = [self._roomy(tensor, length + _SPARE) for tensor in keys]
        self._values = [self._roomy(tensor, length + _SPARE) for tensor in values]

    def _roomy(self, tensor: Tensor, capacity: int) -> Tensor:
        """A tensor of `capacity` places that holds these, which may be the last of the sequence."""
        wide = tensor.new_empty((*tensor.shape[:2], capacity, tensor.shape[3]))
        have = min(tensor.shape[2], self.length)
        wide[:, :, self.length - have : self.length] = tensor[:, :, tensor.shape[2] - have :]
        return wide

    def attend(
        self, number: int, layer: Layer, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """As `KeyValues` says; the token's place is the present `length`."""
        place, keys, values = self.length, self._keys[number], self._values[number]
        if place == keys.shape[2]:
            keys = self._keys[number] = self._roomy(keys, 2 * place)
            values = self._values[number] = self._roomy(values, 2 * place)
        keys.narrow(2, place, 1).copy_(key)
        values.narrow(2, place, 1).copy_(value)
        start = 0 if layer.window is None else max(0, place + 1 - layer.window)
        count = place + 1 - start
        return scaled_dot_product_attention(
            query,
            keys.narrow(2, start, count),
            values.narrow(2, start, count),
            scale=layer.scale,
            enable_gqa=layer.heads != layer.groups,
        )

    def fork(self) -> Growing:
        """A copy that goes its own way."""
        keys = [tensor[:, :, : self.length] for tensor in self._keys]
        values = [tensor[:, :, : self.length] for tensor in self._values]
        return Growing(self.length, keys, values)


class ForwardStep:
    """One sequence that goes on from a prefilled cache of transformers, a token at a time."""

    def __init__(self, made: Plan, cache: Any, length: int) -> None:
        self.plan = made
        self.kept = Growing(length, *prompt_cache(cache, length, made.windows))
        self._angles: tuple[Tensor, Tensor] | None = None

    def __call__(self, token: Tensor) -> Tensor:
        """Logits (1, vocab), in the model's type, after `token` (1, 1)."""
        place = self.kept.length
        positions = torch.full((1,), place, device=token.device)
        logits = self.plan(token, positions, self._angles_at(place), self.kept)
        self.kept.length += 1
        return logits

    def _angles_at(self, place: int) -> tuple[Tensor, Tensor] | None:
        if self.plan.angles is None:
            return None
        if self._angles is None or place >= len(self._angles[0]):
            self._angles = self.plan.angles(2 * place + _SPARE)
        return self._angles[0][place], self._angles[1][place]

    def fork(self) -> ForwardStep:
        """A second sequence that goes on from here; neither disturbs the other."""
        other = object.__new__(ForwardStep)
        other.plan, other._angles, other.kept = self.plan, self._angles, self.kept.fork()
        return other
