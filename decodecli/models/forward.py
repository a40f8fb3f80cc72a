"""The forward pass of well-known architectures, written out: a prompt or one token, one row or many.

When a small model reads one token, transformers' `model.forward` spends more time between its
operations than in them: modules calling modules, a mask built for nothing, keys and values copied to
append a row. And before it can run at all, seconds go into importing it. Here the same operations run on
the weights, in the same order, and nothing else. The weights are tensors from a file, or the modules of a
transformers model; what is not known exactly is left to its own code, and `UnsupportedModel` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decodecli.models.kv_cache import SPARE_POSITIONS, DynamicKVCache, KVCache
from decodecli.models.rope import CosSin, rope_table, rotate
from decodecli.models.supported import ARCHITECTURES, DecoderConfig, UnsupportedModel

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer, as functions on (rows, length, hidden_size)."""

    input_norm: Function
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # each (rows, length, heads * head_dim)
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
        rows, length = x.shape[0], x.shape[1]
        q, k, v = self.qkv(self.input_norm(x))
        q = q.view(rows, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = k.view(rows, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = v.view(rows, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if cos_sin is not None:
            q, k = rotate(q, *cos_sin), rotate(k, *cos_sin)
        attention = cache.attend(index, q, k, v, self.scale, self.window).transpose(1, 2)
        x = x + self.output(attention.reshape(rows, length, self.num_heads * self.head_dim))
        return x + self.mlp(self.post_attention_norm(x))


class DecoderForward:
    """A decoder, ready to run.

    Args:
        config: its shape.
        embed: token ids (rows, length) and their positions → (rows, length, hidden_size).
        layers, norm, head: the rest of the model, in order.
        embeddings: the matrix of the token embeddings, for its device and number type.
        rope: a number of positions → the cosines and signed sines of the first so many, each
            (positions, head_dim); None without rotary embedding.

    `asks_the_host`: whether a layer reads back from the device what it computed.
    """

    def __init__(
        self,
        config: DecoderConfig,
        embed: Callable[[Tensor, Tensor], Tensor],
        layers: list[DecoderLayer],
        norm: Function,
        head: Function,
        embeddings: Tensor,
        rope: Callable[[int], CosSin] | None = None,
    ) -> None:
        self.config, self.device, self.dtype = config, embeddings.device, embeddings.dtype
        self.asks_the_host = False
        self._embed, self._layers, self._norm, self._head = embed, layers, norm, head
        self._rope = rope
        self._cos_sin: CosSin | None = None

    def __call__(
        self, tokens: Tensor, positions: Tensor, cos_sin: CosSin | None, cache: KVCache
    ) -> Tensor:
        """Logits (rows, vocab) after `tokens` (rows, length) at `positions`, (length,) or a row each."""
        return self._head(self._norm(self._hidden(tokens, positions, cos_sin, cache)[:, -1:]))[:, 0]

    def _hidden(
        self, tokens: Tensor, positions: Tensor, cos_sin: CosSin | None, cache: KVCache
    ) -> Tensor:
        x = self._embed(tokens, positions)
        for index, layer in enumerate(self._layers):
            x = layer(x, index, cos_sin, cache)
        return x

    def prefill(self, tokens: Tensor) -> tuple[Tensor, DynamicKVCache]:
        """Logits (1, vocab), in the model's dtype, after a prompt (1, length), and its cache."""
        cache = self._empty_cache(tokens.shape[1])
        return self.extend(tokens, cache), cache

    def extend(self, tokens: Tensor, cache: DynamicKVCache) -> Tensor:
        """Logits (1, vocab), in the model's dtype, after more `tokens` (1, length) of a sequence."""
        logits = self(tokens, *self._places(cache.length, tokens.shape[1]), cache)
        cache.length += tokens.shape[1]
        return logits

    def all_logits(self, tokens: Tensor) -> Tensor:
        """Logits (length, vocab), in the model's dtype, after each of `tokens` (1, length)."""
        length = tokens.shape[1]
        hidden = self._hidden(tokens, *self._places(0, length), self._empty_cache(length))
        return self._head(self._norm(hidden))[0]

    def _empty_cache(self, length: int) -> DynamicKVCache:
        return DynamicKVCache.empty(self.config, length + SPARE_POSITIONS, self.device, self.dtype)

    def _places(self, start: int, length: int) -> tuple[Tensor, CosSin | None]:
        """`length` positions from `start` on, with their cosines and signed sines."""
        end = start + length
        table = self.rope_cos_sin(end)
        positions = torch.arange(start, end, device=self.device)
        return positions, None if table is None else (table[0][start:end], table[1][start:end])

    def rope_cos_sin(self, length: int) -> CosSin | None:
        """Cosines and signed sines of at least `length` positions, (positions, head_dim) each; None
        without rotary embedding."""
        if self._rope is not None and (self._cos_sin is None or length > len(self._cos_sin[0])):
            self._cos_sin = self._rope(2 * length + SPARE_POSITIONS)
        return self._cos_sin


class Weights(Protocol):
    """Where the parts of a decoder come from; `name` is the module's in transformers."""

    def tensor(self, name: str) -> Tensor: ...
    def linear(self, name: str) -> Function: ...
    def norm(self, name: str, eps: float) -> Function: ...
    def activation(self, name: str, kind: str) -> Function: ...


@dataclass(frozen=True)
class TensorWeights:
    """Weights by name, as a checkpoint has them."""

    tensors: Mapping[str, Tensor]

    def tensor(self, name: str) -> Tensor:
        return self.tensors[f"{name}.weight"]

    def linear(self, name: str) -> Function:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        if bias is not None and name.startswith("transformer."):
            return partial(_conv1d, weight, bias)
        return partial(F.linear, weight=weight, bias=bias)

    def norm(self, name: str, eps: float) -> Function:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        return _rms_norm(weight, eps) if bias is None else _layer_norm(weight, bias, eps)

    def activation(self, name: str, kind: str) -> Function:
        return _ACTIVATIONS[kind]


@dataclass(frozen=True)
class ModuleWeights:
    """The modules of a transformers model; a quantized layer is called as it is."""

    model: Any

    def tensor(self, name: str) -> Tensor:
        weight: Tensor = self.model.get_submodule(name).weight
        return weight

    def linear(self, name: str) -> Function:
        module = self.model.get_submodule(name)
        if type(module) is nn.Linear:
            return partial(F.linear, weight=module.weight, bias=module.bias)
        if type(module).__name__ == "Conv1D":
            return partial(_conv1d, module.weight, module.bias)
        call: Function = module
        return call

    def norm(self, name: str, eps: float) -> Function:
        module = self.model.get_submodule(name)
        if type(module) is nn.LayerNorm:
            return _layer_norm(module.weight, module.bias, module.eps)
        return _rms_norm(module.weight, module.variance_epsilon)

    def activation(self, name: str, kind: str) -> Function:
        call: Function = self.model.get_submodule(name)
        return F.silu if type(call).__name__ == "SiLUActivation" else call


def build_forward(model: Any) -> DecoderForward:
    """The written-out forward pass of a transformers `model`, on its own weights.

    Raises:
        UnsupportedModel: the architecture, or something done to this model, is not known here.
    """
    kind = type(model).__name__
    modules = type(model).__module__, type(model).forward.__module__
    if not all(name.startswith("transformers.models.") for name in modules):
        raise UnsupportedModel(f"{kind} is not one of transformers' own models")
    if kind not in ARCHITECTURES.values():
        raise UnsupportedModel(f"{kind} is run by its own code")
    if model.training:
        raise UnsupportedModel("the model is in training mode")
    if model.config._attn_implementation != "sdpa":
        raise UnsupportedModel(f"its attention is {model.config._attn_implementation}")
    if len({p.device for p in model.parameters()}) > 1:
        raise UnsupportedModel("it lies on several devices")
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise UnsupportedModel("something is hooked into all modules")
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise UnsupportedModel("something is hooked into it")
    defaults = type(model.config)
    values = {
        name: value
        for name, value in model.config.to_dict().items()
        if value != getattr(defaults, name, UnsupportedModel) and name != "quantization_config"
    }
    config = DecoderConfig.of(values | {"model_type": model.config.model_type})
    try:
        layers = model.transformer.h if config.rope is None else model.model.layers
        if len(layers) != config.num_layers:
            raise UnsupportedModel(f"it has {len(layers)} layers, its configuration another number")
        forward = assemble(config, ModuleWeights(model))
    except AttributeError as error:  # a part of it was replaced by another kind
        raise UnsupportedModel(f"its parts are not as expected: {error}") from error
    forward.asks_the_host = any(type(m).__name__ == "Linear8bitLt" for m in model.modules())
    return forward


def assemble(config: DecoderConfig, weights: Weights) -> DecoderForward:
    """A decoder of this shape on these weights."""
    return _gpt2(config, weights) if config.rope is None else _llama(config, weights)


def _llama(config: DecoderConfig, weights: Weights) -> DecoderForward:
    def layer(index: int) -> DecoderLayer:
        name = f"model.layers.{index}"
        q, k, v = (weights.linear(f"{name}.self_attn.{part}_proj") for part in "qkv")
        gate, up, down = (weights.linear(f"{name}.mlp.{p}_proj") for p in ("gate", "up", "down"))
        norms = config.model_type == "qwen3"
        query_norm, key_norm = (
            weights.norm(f"{name}.self_attn.{p}_norm", config.norm_eps) if norms else None
            for p in "qk"
        )
        return DecoderLayer(
            input_norm=weights.norm(f"{name}.input_layernorm", config.norm_eps),
            qkv=partial(split_qkv, q, k, v),
            query_norm=query_norm,
            key_norm=key_norm,
            output=weights.linear(f"{name}.self_attn.o_proj"),
            post_attention_norm=weights.norm(f"{name}.post_attention_layernorm", config.norm_eps),
            mlp=partial(
                gated_mlp, gate, up, down,
                weights.activation(f"{name}.mlp.act_fn", config.activation),
            ),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.scales[index],
            window=config.windows[index],
        )  # fmt: skip

    embeddings = weights.tensor("model.embed_tokens")
    return DecoderForward(
        config,
        embed=lambda tokens, positions: F.embedding(tokens, embeddings),
        layers=[layer(index) for index in range(config.num_layers)],
        norm=weights.norm("model.norm", config.norm_eps),
        head=weights.linear("lm_head"),
        embeddings=embeddings,
        rope=rope_table(config, embeddings),
    )


def _gpt2(config: DecoderConfig, weights: Weights) -> DecoderForward:
    def layer(index: int) -> DecoderLayer:
        name = f"transformer.h.{index}"
        up, down = (weights.linear(f"{name}.mlp.{part}") for part in ("c_fc", "c_proj"))
        activation = weights.activation(f"{name}.mlp.act", config.activation)
        return DecoderLayer(
            input_norm=weights.norm(f"{name}.ln_1", config.norm_eps),
            qkv=partial(fused_qkv, weights.linear(f"{name}.attn.c_attn"), config.hidden_size),
            query_norm=None,
            key_norm=None,
            output=weights.linear(f"{name}.attn.c_proj"),
            post_attention_norm=weights.norm(f"{name}.ln_2", config.norm_eps),
            mlp=partial(mlp, up, down, activation),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.scales[index],
            window=config.windows[index],
        )

    wte, wpe = weights.tensor("transformer.wte"), weights.tensor("transformer.wpe")
    return DecoderForward(
        config,
        embed=lambda tokens, positions: F.embedding(tokens, wte) + F.embedding(positions, wpe),
        layers=[layer(index) for index in range(config.num_layers)],
        norm=weights.norm("transformer.ln_f", config.norm_eps),
        head=weights.linear("lm_head"),
        embeddings=wte,
    )


def _conv1d(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """GPT-2's linear layer with its `weight` (in, out), by the call that transformers makes: `linear` on
    the transposed weight reads some shapes at little more than half the speed."""
    flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
    return flat.view(*x.shape[:-1], weight.shape[1])


def _rms_norm(weight: Tensor, eps: float) -> Function:
    def rms_norm(x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight * wide.to(x.dtype)

    return rms_norm


def _layer_norm(weight: Tensor, bias: Tensor, eps: float) -> Function:
    return partial(F.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=eps)


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


def _gelu_new(x: Tensor) -> Tensor:
    """GPT-2's GELU, by a tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


_ACTIVATIONS: dict[str, Function] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": _gelu_new,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}
