"""The forward pass of well-known architectures, written out: a prompt or one token, one row or many.

When a small model reads one token, transformers' `model.forward` spends more time between its
operations than in them: modules calling modules, a mask built for nothing, keys and values copied to
append a row. And before it can run at all, seconds go into importing it. Here the same operations run on
the weights, in the same order, and nothing else. The weights are tensors from a file, or the modules of a
transformers model; what is not known exactly is left to its own code, and `UnsupportedModel` says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decodecli.models.kv_cache import SPARE_POSITIONS, DynamicKVCache, KVCache
from decodecli.models.layers import (
    ACTIVATIONS,
    Function,
    gated_mlp,
    linear,
    mlp,
    norm,
    side_by_side,
)
from decodecli.models.rope import CosSin, rope_table, rotate
from decodecli.models.supported import ARCHITECTURES, DecoderConfig, UnsupportedModel

_PACKING_CALLS = 16


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer, as functions on (tokens, hidden_size), the rows' tokens one after the other.

    What the layers add to is float32 whatever the model's number type: 16 bits would round it at every
    layer. Norms give that type, in which all the rest is.

    qkv: queries, keys and values beside each other, (tokens, (num_heads + 2 · num_kv_heads) · head_dim).
    head_norm: on (rows, num_heads + num_kv_heads, length, head_dim), queries before keys.
    """

    input_norm: Function
    qkv: Function
    head_norm: Function | None
    output: Function
    post_attention_norm: Function
    mlp: Function
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None

    def __call__(
        self, x: Tensor, rows: int, index: int, cos_sin: CosSin | None, cache: KVCache
    ) -> Tensor:
        heads = self.qkv(self.input_norm(x)).view(rows, x.shape[0] // rows, -1, self.head_dim)
        query_key, value = heads.transpose(1, 2).split(
            (self.num_heads + self.num_kv_heads, self.num_kv_heads), 1
        )
        if self.head_norm is not None:
            query_key = self.head_norm(query_key)
        if cos_sin is not None:
            query_key = rotate(query_key, *cos_sin)
        query, key = query_key.split((self.num_heads, self.num_kv_heads), 1)
        attention = cache.attend(index, query, key, value, self.scale, self.window).transpose(1, 2)
        x = x + self.output(attention.reshape(x.shape[0], self.num_heads * self.head_dim))
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
        x = self._hidden(tokens, positions, cos_sin, cache)
        if tokens.shape[1] > 1:
            x = x.view(*tokens.shape, -1)[:, -1]
        return self._head(self._norm(x))

    def _hidden(
        self, tokens: Tensor, positions: Tensor, cos_sin: CosSin | None, cache: KVCache
    ) -> Tensor:
        """(tokens, hidden_size), those of one row after the other."""
        x = self._embed(tokens, positions).flatten(0, 1)
        for index, layer in enumerate(self._layers):
            x = layer(x, tokens.shape[0], index, cos_sin, cache)
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
        return self._head(self._norm(hidden))

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
    def fused(self, names: Sequence[str]) -> Function:
        """Linear layers of one input, their outputs beside each other."""

    def norm(self, name: str, eps: float, dtype: torch.dtype) -> Function:
        """A norm of float32 whose output is of type `dtype`."""

    def activation(self, name: str, kind: str) -> Function: ...


@dataclass(frozen=True)
class TensorWeights:
    """Weights by name, as a checkpoint has them.

    copies: whether weights may be copied as the model is loaded, into what is quicker to read: layers of
        one input into one, bfloat16 packed. If not, bfloat16 is packed as decoding goes on, a part of
        the layers at each of `_PACKING_CALLS` calls, so that no token waits for all of them.
    """

    tensors: Mapping[str, Tensor]
    copies: bool = False
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def tensor(self, name: str) -> Tensor:
        return self.tensors[f"{name}.weight"]

    def linear(self, name: str) -> Function:
        weight = self.tensor(name)
        is_conv1d = name.startswith("transformer.")  # GPT-2's layers are (in, out)
        bias = self.tensors.get(f"{name}.bias")
        return linear(weight.T if is_conv1d else weight, bias, self._pack_after())

    def fused(self, names: Sequence[str]) -> Function:
        biases = [bias for name in names if (bias := self.tensors.get(f"{name}.bias")) is not None]
        if not self.copies or len(biases) not in (0, len(names)):
            return partial(side_by_side, [self.linear(name) for name in names])
        weight = torch.cat([self.tensor(name) for name in names])
        return linear(weight, torch.cat(biases) if biases else None, self._pack_after())

    def _pack_after(self) -> int:
        return 0 if self.copies else 1 + next(self._numbers) % _PACKING_CALLS

    def norm(self, name: str, eps: float, dtype: torch.dtype) -> Function:
        return norm(self.tensor(name), self.tensors.get(f"{name}.bias"), eps, dtype)

    def activation(self, name: str, kind: str) -> Function:
        return ACTIVATIONS[kind]


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
            return linear(module.weight, module.bias)
        if type(module).__name__ == "Conv1D":
            return linear(module.weight.T, module.bias)
        call: Function = module
        return call

    def fused(self, names: Sequence[str]) -> Function:
        return partial(side_by_side, [self.linear(name) for name in names])

    def norm(self, name: str, eps: float, dtype: torch.dtype) -> Function:
        module = self.model.get_submodule(name)
        if type(module) is nn.LayerNorm:
            return norm(module.weight, module.bias, module.eps, dtype)
        return norm(module.weight, None, module.variance_epsilon, dtype)

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
    embeddings = weights.tensor("model.embed_tokens")
    dtype, has_head_norm = embeddings.dtype, config.model_type == "qwen3"

    def layer(index: int) -> DecoderLayer:
        name = f"model.layers.{index}"
        projections = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        return DecoderLayer(
            input_norm=weights.norm(f"{name}.input_layernorm", config.norm_eps, dtype),
            qkv=weights.fused(projections),
            head_norm=_head_norm(config, weights, name, dtype) if has_head_norm else None,
            output=weights.linear(f"{name}.self_attn.o_proj"),
            post_attention_norm=weights.norm(
                f"{name}.post_attention_layernorm", config.norm_eps, dtype
            ),
            mlp=partial(
                gated_mlp,
                weights.fused([f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"]),
                weights.linear(f"{name}.mlp.down_proj"),
                weights.activation(f"{name}.mlp.act_fn", config.activation),
            ),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.scales[index],
            window=config.windows[index],
        )

    return DecoderForward(
        config,
        embed=lambda tokens, positions: F.embedding(tokens, embeddings).float(),
        layers=[layer(index) for index in range(config.num_layers)],
        norm=weights.norm("model.norm", config.norm_eps, dtype),
        head=weights.linear("lm_head"),
        embeddings=embeddings,
        rope=rope_table(config, embeddings),
    )


def _head_norm(config: DecoderConfig, weights: Weights, name: str, dtype: torch.dtype) -> Function:
    """Qwen 3 normalises queries and keys, each by weights of its own."""
    query, key = (weights.norm(f"{name}.self_attn.{p}_norm", config.norm_eps, dtype) for p in "qk")
    sizes = config.num_heads, config.num_kv_heads

    def head_norm(query_key: Tensor) -> Tensor:
        queries, keys = query_key.split(sizes, 1)
        return torch.cat((query(queries), key(keys)), 1)

    return head_norm


def _gpt2(config: DecoderConfig, weights: Weights) -> DecoderForward:
    wte, wpe = weights.tensor("transformer.wte"), weights.tensor("transformer.wpe")
    dtype = wte.dtype

    def layer(index: int) -> DecoderLayer:
        name = f"transformer.h.{index}"
        up, down = (weights.linear(f"{name}.mlp.{part}") for part in ("c_fc", "c_proj"))
        activation = weights.activation(f"{name}.mlp.act", config.activation)
        return DecoderLayer(
            input_norm=weights.norm(f"{name}.ln_1", config.norm_eps, dtype),
            qkv=weights.linear(f"{name}.attn.c_attn"),
            head_norm=None,
            output=weights.linear(f"{name}.attn.c_proj"),
            post_attention_norm=weights.norm(f"{name}.ln_2", config.norm_eps, dtype),
            mlp=partial(mlp, up, down, activation),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.scales[index],
            window=config.windows[index],
        )

    return DecoderForward(
        config,
        embed=lambda tokens, positions: (
            F.embedding(tokens, wte) + F.embedding(positions, wpe)
        ).float(),
        layers=[layer(index) for index in range(config.num_layers)],
        norm=weights.norm("transformer.ln_f", config.norm_eps, dtype),
        head=weights.linear("lm_head"),
        embeddings=wte,
    )
