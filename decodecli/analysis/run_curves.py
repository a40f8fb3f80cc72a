"""Every step of a run at every temperature: collected while it decodes, for its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decodecli.records.run import Step
from decodecli.records.run_curves import BETAS, LISTED, ListedToken, StepCurve
from decodecli.sampling.chain import Chain
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


class RunCurves:
    """Observes a run (`decoding.observers.Observer`); `steps` has the curve of each step by its index."""

    def __init__(self, piece: Callable[[int], str]) -> None:
        self._piece = piece
        self.steps: dict[int, StepCurve] = {}
        self._row: tuple[Any, Any, Any, tuple[str, ...]]

    @torch.inference_mode()
    def __call__(self, index: int, chain: Chain, logits: Tensor, ids: Tensor) -> Mapping[str, Any]:
        processed = chain(logits.cpu(), ids.cpu())
        raw, penalised = (t[0].double().cpu().numpy() for t in (logits, processed.penalised))
        self._row = raw, penalised, chain.removal_codes(processed), chain.order
        return {}

    def drawn(self, step: Step) -> Step:
        raw, penalised, codes, order = self._row
        listed = row_order(penalised)[:LISTED].tolist()
        if step.token_id not in listed:
            listed.append(step.token_id)
        tokens = tuple(
            ListedToken(
                rank=1 + int((raw > raw[token]).sum()),
                token_id=token,
                token=self._piece(token),
                logit=float(raw[token]),
                penalised=float(penalised[token]),
                removed_by=order[codes[token] - 1] if codes[token] else None,
            )
            for token in listed
        )
        self.steps[step.index] = StepCurve(tokens, *curve(penalised))
        return step
