"""What the page of a run needs of every step's logits to answer at any temperature."""

from __future__ import annotations

from dataclasses import dataclass

# Values of 1 / T, evenly in the logarithm, from T = 11 to T = 0.048.
BETAS = tuple(0.09 * (21.0 / 0.09) ** (k / 96) for k in range(97))
LISTED = 60  # tokens of a step


@dataclass(frozen=True, slots=True)
class ListedToken:
    """A token with its logit, raw and after the penalties, and the stage that removed it."""

    rank: int
    token_id: int
    token: str
    logit: float
    penalised: float
    removed_by: str | None


@dataclass(frozen=True, slots=True)
class StepCurve:
    """A step's highest logits after the penalties, and the chosen token's; and of all of them log Σ exp(β
    (l − highest)) with its slope, at each of `BETAS`."""

    tokens: tuple[ListedToken, ...]
    values: tuple[float, ...]
    slopes: tuple[float, ...]
