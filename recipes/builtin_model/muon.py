"""Muon: momentum whose step is made orthogonal, for the hidden matrices of a transformer.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. Equal-shaped matrices are
orthogonalised in one batch, which is what makes it cheap on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Push every singular value of `(batch, rows, columns)` towards 1 by Newton–Schulz in bfloat16.

    The result is float32. Singular values land roughly between 0.7 and 1.2, which is enough.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay; two-dimensional weights only.

    `lr` is the size of a step in spectral norm for a square matrix; a tall one gets
    `sqrt(rows / columns)` times as much.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients in `.grad`."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                update = orthogonalize(torch.stack([self._direction(p, group) for p in parameters]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, direction in zip(parameters, update, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction, alpha=-group["lr"] * scale)

    def _direction(self, parameter: torch.nn.Parameter, group: dict) -> torch.Tensor:
        """Nesterov momentum of one parameter; updates its buffer."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer, gradient = state["momentum"], parameter.grad
        assert gradient is not None
        buffer.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(buffer, group["momentum"])
