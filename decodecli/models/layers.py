"""The parts that the layers of `forward` are made of: linear layers, norms, feed-forward layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]


def linear(weight: Tensor, bias: Tensor | None, copies: bool = False) -> Function:
    """A linear layer with `weight` (out, in).

    On a CPU by oneDNN: one token goes through a weight at nearly the speed of reading it, where
    PyTorch's own way in float32 is at half of that, on one thread. bfloat16 takes weights in oneDNN's
    own blocks for it, which are a copy.
    """
    multiply = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if weight.device.type != "cpu" or multiply is None or not torch.backends.mkldnn.is_available():
        return partial(F.linear, weight=weight, bias=bias)
    if weight.dtype == torch.bfloat16 and copies:
        weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
    elif weight.dtype != torch.float32:
        return partial(F.linear, weight=weight, bias=bias)
    call = multiply.default
    return lambda x: call(x, weight, bias, "none", [], "")


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
