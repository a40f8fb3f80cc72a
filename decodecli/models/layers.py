"""The parts that the layers of `forward` are made of: linear layers, norms, feed-forward layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]


def linear(weight: Tensor, bias: Tensor | None, pack_after: int | None = None) -> Function:
    """A linear layer with `weight` (out, in).

    On a CPU by oneDNN: one token goes through a weight at nearly the speed of reading it, where
    PyTorch's own way in float32 is at half of that, on one thread.

    Args:
        pack_after: calls after which a weight of bfloat16 may be packed (`PackedLinear`); None: never.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return partial(F.linear, weight=weight, bias=bias)
    if weight.dtype == torch.bfloat16 and pack_after is not None:
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return PackedLinear(weight, bias, pack_after)
    elif weight.dtype == torch.float32:
        multiply = torch.ops.mkldnn._linear_pointwise.default
        return lambda x: multiply(x, weight, bias, "none", [], "")
    return partial(F.linear, weight=weight, bias=bias)


class PackedLinear:
    """A linear layer of bfloat16 whose weight comes to lie in oneDNN's own blocks.

    These are read twice as fast as rows, and give the same numbers bit for bit. They are a copy, which
    takes as long as 15 tokens gain; so the first calls, a prompt's, read the weight as it is mapped,
    and it is let go of when it is packed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, pack_after: int) -> None:
        self._weight, self._bias, self._calls_left = weight, bias, pack_after
        self._multiply = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        weight = self._weight  # which another thread may pack meanwhile
        if not weight.is_mkldnn:
            if self._calls_left <= 0:
                weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
                self._weight = weight
            self._calls_left -= 1
        return self._multiply(x, weight, self._bias, "none", [], "")


def norm(weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype) -> Function:
    """LayerNorm, or, without a bias, RMSNorm, of float32, its output of type `dtype`."""
    weight = weight.float()

    def rms_norm(x: Tensor) -> Tensor:  # in fewer calls than `F.rms_norm` takes on a CPU
        return x.mul(x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()).mul_(weight)

    scaled: Function = rms_norm
    if bias is not None:
        scaled = partial(
            F.layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias.float(), eps=eps
        )
    if dtype == torch.float32:
        return scaled
    return lambda x: scaled(x.float()).to(dtype)


def side_by_side(layers: Sequence[Function], x: Tensor) -> Tensor:
    """Several layers' outputs of one input, beside each other."""
    return torch.cat([layer(x) for layer in layers], -1)


def gated_mlp(gate_up: Function, down: Function, act: Function, x: Tensor) -> Tensor:
    """Llama's feed-forward layer."""
    gate, up = gate_up(x).chunk(2, -1)
    return down(act(gate) * up)


def mlp(up: Function, down: Function, act: Function, x: Tensor) -> Tensor:
    """GPT-2's feed-forward layer."""
    return down(act(up(x)))


def _gelu_new(x: Tensor) -> Tensor:
    """GPT-2's GELU, by a tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


ACTIVATIONS: dict[str, Function] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": _gelu_new,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}
