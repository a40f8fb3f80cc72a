"""Linear layers: what is packed gives the same numbers, and what it was packed from is let go of."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.nn import functional as F

from decodecli.models.layers import PackedLinear, linear

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs a CPU with AVX512"
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("is_conv1d", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 50])
@torch.inference_mode()
def test_packed_weights_give_the_same_numbers(is_conv1d, has_bias, rows) -> None:
    weight = random(96, 160).T if is_conv1d else random(160, 96)
    bias = random(160, seed=1) if has_bias else None
    layer, x = linear(weight, bias, 2), random(rows, 96, seed=2)
    outputs = [layer(x) for _ in range(4)]
    assert layer._weight.is_mkldnn
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    torch.testing.assert_close(outputs[0], F.linear(x, weight, bias))


@torch.inference_mode()
def test_a_weight_is_let_go_of_when_it_is_packed_after_so_many_calls() -> None:
    weight = random(64, 64)
    layer, alive = PackedLinear(weight, None, 3), weakref.ref(weight)
    del weight
    for _ in range(3):
        layer(random(1, 64))
    assert alive() is not None
    layer(random(1, 64))
    assert alive() is None


def test_a_weight_stays_as_it_is_where_nothing_says_that_it_may_be_packed() -> None:
    assert not isinstance(linear(random(8, 8), None), PackedLinear)
    assert not isinstance(linear(random(8, 8).float(), None, 0), PackedLinear)
