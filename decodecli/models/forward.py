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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, layer_norm, linear

from decodecli.models.kv_cache import SPARE_POSITIONS, DynamicKVCache, KVCache
from decodecli.models.supported import GPT2, UnsupportedModel, attention_windows, check_supported

Function = Callable[[Tensor], Tensor]
CosSin = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer, as functions on (rows, 1, hidden_size)."""

    input_norm: Function
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # each (rows, 1, heads * head_dim)
    query_norm: Function | None
    key_norm: Function | None
    output: Function
    post_attention_norm: Function
    mlp: Function
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None

    def __call__(self, x: Tensor, index: int, cos_sin: CosSin | None, cache: KVCache) -> Tensor:
        rows = x.shape[0]
        q, k, v = self.qkv(self.input_norm(x))
        q = q.view(rows, self.num_heads, 1, self.head_dim)
        k = k.view(rows, self.num_kv_heads, 1, self.head_dim)
        v = v.view(rows, self.num_kv_heads, 1, self.head_dim)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if cos_sin is not None:
            q, k = rotate(q, *cos_sin), rotate(k, *cos_sin)
        attention = cache.attend(index, q, k, v, self.scale, self.window)
        x = x + self.output(attention.view(rows, 1, self.num_heads * self.head_dim))
        return x + self.mlp(self.post_attention_norm(x))


class DecoderForward:
    """A model's one-token forward pass.

    Args:
        embed: token ids (rows, 1) and their positions (rows,) → (rows, 1, hidden_size).
        layers, norm, head: the rest of the model, in order.
        rope: a number of positions → the cosines and signed sines of the first so many, each
            (positions, head_dim); None without rotary embedding.
    """

    def __init__(
        self,
        embed: Callable[[Tensor, Tensor], Tensor],
        layers: list[DecoderLayer],
        norm: Function,
        head: Function,
        rope: Callable[[int], CosSin] | None = None,
    ) -> None:
        self._embed, self._layers, self._norm, self._head = embed, layers, norm, head
        self._rope = rope
        self._cos_sin: CosSin | None = None
        self.windows = tuple(layer.window for layer in layers)  # sliding ones, None without

    def __call__(
        self, tokens: Tensor, positions: Tensor, cos_sin: CosSin | None, cache: KVCache
    ) -> Tensor:
        """Logits (rows, vocab) after `tokens` (rows, 1) at `positions` (rows,)."""
        x = self._embed(tokens, positions)
        for index, layer in enumerate(self._layers):
            x = layer(x, index, cos_sin, cache)
        return self._head(self._norm(x))[:, 0]

    def step(self, token: Tensor, cache: DynamicKVCache) -> Tensor:
        """Logits (1, vocab), in the model's dtype, after one more `token` (1, 1) of a sequence."""
        position = cache.length
        table = self.rope_cos_sin(position + 1)
        cos_sin = None if table is None else (table[0][position], table[1][position])
        logits = self(token, torch.full((1,), position, device=token.device), cos_sin, cache)
        cache.length += 1
        return logits

    def rope_cos_sin(self, length: int) -> CosSin | None:
        """Cosines and signed sines of at least `length` positions, (positions, head_dim) each; None
        without rotary embedding."""
        if self._rope is not None and (self._cos_sin is None or length > len(self._cos_sin[0])):
            self._cos_sin = self._rope(2 * length + SPARE_POSITIONS)
        return self._cos_sin


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of (rows, heads, 1, head_dim).

    The sign that the usual `rotate_half` gives one half of `x` is in the sines instead.
    """
    return x * cos + x.roll(x.shape[-1] // 2, -1) * signed_sin


def build_forward(model: Any) -> DecoderForward:
    """The written-out forward pass of `model`.

    Raises:
        UnsupportedModel: the architecture, or something done to this model, is not known here.
    """
    check_supported(model)
    try:
        return _gpt2(model) if type(model).__name__ == GPT2 else _llama(model)
    except AttributeError as error:  # a part of it was replaced by another kind
        raise UnsupportedModel(f"its parts are not as expected: {error}") from error


def _llama(model: Any) -> DecoderForward:
    config, body = model.config, model.model
    windows = attention_windows(model, len(body.layers))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if 2 * body.rotary_emb.inv_freq.numel() != head_dim:
        raise UnsupportedModel("its rotary embedding turns a part of each head")

    def layer(block: Any, window: int | None) -> DecoderLayer:
        attention, mlp = block.self_attn, block.mlp
        query_norm, key_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        q, k, v = map(as_linear, (attention.q_proj, attention.k_proj, attention.v_proj))
        gate, up, down = map(as_linear, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        return DecoderLayer(
            input_norm=_rms_norm(block.input_layernorm),
            qkv=partial(split_qkv, q, k, v),
            query_norm=query_norm and _rms_norm(query_norm),
            key_norm=key_norm and _rms_norm(key_norm),
            output=as_linear(attention.o_proj),
            post_attention_norm=_rms_norm(block.post_attention_layernorm),
            mlp=partial(gated_mlp, gate, up, down, mlp.act_fn),
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=head_dim,
            scale=attention.scaling,
            window=window,
        )

    def rope(length: int) -> CosSin:
        weight = body.embed_tokens.weight
        cos, sin = body.rotary_emb(
            weight.new_empty(0), torch.arange(length, device=weight.device)[None]
        )
        sign = torch.ones_like(sin[0])
        sign[:, : head_dim // 2] = -1
        return cos[0], sin[0] * sign

    weight = body.embed_tokens.weight
    return DecoderForward(
        embed=lambda tokens, positions: embedding(tokens, weight),
        layers=[layer(block, window) for block, window in zip(body.layers, windows, strict=True)],
        norm=_rms_norm(body.norm),
        head=as_linear(model.lm_head),
        rope=rope,
    )


def _gpt2(model: Any) -> DecoderForward:
    config, body = model.config, model.transformer
    attention_windows(model, len(body.h))  # none, or UnsupportedModel

    def layer(block: Any) -> DecoderLayer:
        return DecoderLayer(
            input_norm=_layer_norm(block.ln_1),
            qkv=partial(fused_qkv, as_linear(block.attn.c_attn), config.n_embd),
            query_norm=None,
            key_norm=None,
            output=as_linear(block.attn.c_proj),
            post_attention_norm=_layer_norm(block.ln_2),
            mlp=partial(mlp, as_linear(block.mlp.c_fc), as_linear(block.mlp.c_proj), block.mlp.act),
            num_heads=config.n_head,
            num_kv_heads=config.n_head,
            head_dim=config.n_embd // config.n_head,
            scale=block.attn.scaling,
            window=None,
        )

    def embed(tokens: Tensor, positions: Tensor) -> Tensor:
        return embedding(tokens, wte) + embedding(positions[:, None], wpe)

    wte, wpe = body.wte.weight, body.wpe.weight
    return DecoderForward(
        embed=embed,
        layers=[layer(block) for block in body.h],
        norm=_layer_norm(body.ln_f),
        head=as_linear(model.lm_head),
    )


def as_linear(module: Any) -> Function:
    """A linear layer as one call: its weights without the module, where that is all it is."""
    if type(module) is nn.Linear:
        return partial(linear, weight=module.weight, bias=module.bias)
    if type(module).__name__ == "Conv1D":  # GPT-2's linear layer, its weight transposed
        return partial(_conv1d, module.weight, module.bias)
    call: Function = module
    return call


def _conv1d(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """GPT-2's linear layer with its `weight` (in, out), by the call that transformers makes: `linear` on
    the transposed weight reads some shapes at little more than half the speed."""
    flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
    return flat.view(*x.shape[:-1], weight.shape[1])


def _rms_norm(module: Any) -> Function:
    weight, eps = module.weight, module.variance_epsilon

    def rms_norm(x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight * wide.to(x.dtype)

    return rms_norm


def _layer_norm(module: Any) -> Function:
    return partial(
        layer_norm,
        normalized_shape=module.normalized_shape,
        weight=module.weight,
        bias=module.bias,
        eps=module.eps,
    )


def split_qkv(q: Function, k: Function, v: Function, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values from a projection each."""
    return q(x), k(x), v(x)


def fused_qkv(qkv: Function, width: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values from one projection."""
    q, k, v = qkv(x).split(width, -1)
    return q, k, v


def gated_mlp(gate: Function, up: Function, down: Function, act: Function, x: Tensor) -> Tensor:
    """Llama's feed-forward layer."""
    return down(act(gate(x)) * up(x))


def mlp(up: Function, down: Function, act: Function, x: Tensor) -> Tensor:
    """GPT-2's feed-forward layer."""
    return down(act(up(x)))
