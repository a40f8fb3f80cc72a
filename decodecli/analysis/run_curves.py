"""Every step of a run at every temperature: collected while it decodes, for its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from decodecli.decoding.observers import Observer
from decodecli.records.run import Step
from decodecli.records.run_curves import BETAS, LISTED, ListedToken, StepCurve
from decodecli.sampling.one_position import Distribution
from decodecli.sampling.reference import row_order


def curve(logits: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """log Σ exp(β (l − highest)) and its slope at each of `BETAS`, for logits (vocab,)."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted[np.isfinite(shifted)] - shifted.max()
    values, slopes = [], []
    for beta in BETAS:
        weights = np.exp(beta * shifted)
        mass = float(weights.sum())
        values.append(math.log(mass))
        slopes.append(float(weights @ shifted) / mass)
    return tuple(values), tuple(slopes)


class RunCurves(Observer):
    """`steps` has the curve of each step of the run by its index. piece: spells a token id."""

    def __init__(self, piece: Callable[[int], str] = str) -> None:
        self.piece = piece
        self.steps: dict[int, StepCurve] = {}
        self._position: Distribution

    def observe(self, index: int, position: Distribution) -> Mapping[str, Any]:
        _ = position.removed  # as it is before the draw, from which a chain may learn
        self._position = position
        return {}

    def drawn(self, step: Step) -> Step:
        position = self._position
        listed = row_order(position.penalised)[:LISTED].tolist()
        if step.token_id not in listed:
            listed.append(step.token_id)
        tokens = []
        for token in listed:
            row = position.candidate(token, self.piece(token))
            penalised = float(position.penalised[token])
            tokens.append(
                ListedToken(row.rank, token, row.token, row.logit, penalised, row.removed_by)
            )
        self.steps[step.index] = StepCurve(tuple(tokens), *curve(position.penalised))
        return step
