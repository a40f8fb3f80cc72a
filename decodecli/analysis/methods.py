"""One decoding method explained: where engines have it, and what it does to ten tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from decodecli.ranges import flag_name
from decodecli.sampling.chain import Chain, RunContext
from decodecli.settings import SamplingParams
from decodecli.stages import COMPANIONS, ORDERS

_TOKENS = "ABCDEFGHI"
_PROBABILITIES = (0.28, 0.2, 0.15, 0.11, 0.08, 0.06, 0.05, 0.04, 0.02, 0.01)
_TEXT = (0, 1, 2, 0, 1)  # C has followed A B, and the end token is the tenth
_END = 9


def explain(stage: str, described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is told of a stage (`stages.read_methods`), its place in the order of each engine among the
    stages that the engine has, and an example computed by the processors themselves."""
    told = described[stage]
    params = SamplingParams(**told["example"])
    forbidden = torch.tensor([[token not in (1, 3) for token in range(len(_PROBABILITIES))]])
    context = RunContext(len(_TEXT), (_END,), ((2, 1.5),), ((0,),), lambda ids: forbidden)
    chain = Chain(params, context=context)
    logits = torch.tensor([_PROBABILITIES]).log() + 3  # as logits are, of both signs
    with torch.inference_mode():
        processed = chain(logits, torch.tensor([_TEXT]))
    removed = processed.removed_by
    codes = [0] * len(_PROBABILITIES) if removed is None else removed[0].tolist()
    after = processed.scores.double().softmax(-1)[0].tolist()
    names = [*_TOKENS, "end"]
    return {
        "name": stage,
        "title": told["title"],
        "equation": told["equation"],
        "source": told["source"],
        "option": flag_name(stage),
        "default": _default(stage),
        "companions": {flag_name(name): _default(name) for name in COMPANIONS.get(stage, ())},
        "engines": {
            engine: {
                "default": told.get(engine),
                "order": [n for n in order if engine in described[n]] if engine in told else [],
            }
            for engine, order in ORDERS.items()
        },
        "example": {
            "settings": told["example"],
            "text": [names[token] for token in _TEXT],
            "tokens": [
                {
                    "token": names[token],
                    "before": before,
                    "after": after[token],
                    "removed_by": chain.order[codes[token] - 1] if codes[token] else None,
                }
                for token, before in enumerate(_PROBABILITIES)
            ],
        },
    }


def _default(name: str) -> Any:
    value = getattr(SamplingParams, name)
    return list(value) if isinstance(value, tuple) else value
