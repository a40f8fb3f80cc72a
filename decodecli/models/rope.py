"""Rotary position embedding: the angles of a configuration, and how they turn queries and keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from decodecli.models.supported import DecoderConfig

CosSin = tuple[Tensor, Tensor]


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) of (rows, heads, length, head_dim).

    The sign that the usual `rotate_half` gives one half of `x` is in the sines instead.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), signed_sin)


def rope_frequencies(config: DecoderConfig) -> tuple[Tensor, float]:
    """Angle per position of each pair of a head's values, (head_dim / 2,) float32, and the factor of
    cosines and sines: transformers' arithmetic, operation for operation."""
    rope, dim = config.rope or {}, config.head_dim
    base, kind = rope["rope_theta"], rope["rope_type"]
    powers = base ** (torch.arange(0, dim, 2, dtype=torch.float) / dim)
    inv_freq = 1.0 / powers
    if kind == "default":
        return inv_freq, 1.0
    factor = rope["factor"]
    if kind == "linear":
        return inv_freq / factor, 1.0
    trained = rope["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        wavelength = 2 * math.pi / inv_freq
        scaled = torch.where(wavelength > trained / low, inv_freq / factor, inv_freq)
        smooth = (trained / wavelength - low) / (high - low)
        smoothed = (1 - smooth) * scaled / factor + smooth * scaled
        between = ~(wavelength < trained / high) * ~(wavelength > trained / low)
        return torch.where(between, smoothed, scaled), 1.0

    # YaRN (Peng et al. 2023, arXiv 2309.00071)
    def mscale(weight: Any = 1) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    def dimension(rotations: float) -> float:
        return (dim * math.log(trained / (rotations * 2 * math.pi))) / (2 * math.log(base))

    scaling, weights = (
        rope.get("attention_factor"),
        (rope.get("mscale"), rope.get("mscale_all_dim")),
    )
    if scaling is None:
        scaling = mscale(weights[0]) / mscale(weights[1]) if all(weights) else mscale()
    low = dimension(rope.get("beta_fast") or 32)
    high = dimension(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0
    ramp = ((torch.arange(dim // 2, dtype=torch.float) - low) / (high - low)).clamp(0, 1)
    keep = 1 - ramp
    return 1.0 / (factor * powers) * (1 - keep) + inv_freq * keep, scaling


def rope_table(config: DecoderConfig, like: Tensor) -> Callable[[int], CosSin]:
    """A number of positions → the cosines and signed sines of the first so many, (positions, head_dim)
    each, on the device and in the number type of `like`."""
    frequencies, scaling = rope_frequencies(config)
    frequencies = frequencies.to(like.device)

    def table(length: int) -> CosSin:
        positions = torch.arange(length, device=like.device)
        angles = positions[:, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = ((f(angles) * scaling).to(like.dtype) for f in (torch.cos, torch.sin))
        sign = torch.ones_like(sin[0])
        sign[: config.head_dim // 2] = -1
        return cos, sin * sign

    return table
