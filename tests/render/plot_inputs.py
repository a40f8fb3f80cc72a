"""Distributions for the plot tests: tokens of every awkward sort, over a vocabulary with a tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decodecli.analysis.distribution import describe
from decodecli.records.distribution import DistributionReport
from decodecli.records.run import ModelInfo
from decodecli.sampling import reference as d

MODEL = ModelInfo("builtin", None, 8_421_376, 4096, "float32", "cpu", "none")
PIECES = (
    *("▁Tokyo", "▁a", "▁the", "\n", "日本", "▁東京", "Москва", "กรุงเทพ", "😀", "<0xE6>"),
    *("▁", "▁Japan", "$x$", "_under", "▁located", "\t", "한국", "नमस्ते", "ع", "\u200b"),
    *("▁internationalization", "%s", "\\alpha", "▁very", "▁home", "{}", "^2", "▁city", "▁an", "."),
    *("▁now", "▁called", "▁Kyoto", "▁capital", "▁not", ",", "▁famous", "▁Osaka", "▁still", "▁this"),
)
ESSAY = {"day": 5.0, "space": 2.2, "furniture": 2.0, "night": 4.5, "sun": 3.0, "home": 2.7}


def report(
    rows: int = 10,
    temperatures: Sequence[float] = (0.4, 1.0, 1.6),
    *,
    top_p: float | None = None,
    target: int | None = None,
    vocab: int = 4096,
) -> tuple[DistributionReport, Any]:
    """A report on the first `rows` tokens, and the scores of all of them."""
    noise = np.random.default_rng(0)
    scores = noise.normal(-2, 1, vocab)
    scores[: len(PIECES)] = np.linspace(6, 1.5, len(PIECES))
    more: dict[str, Any] = {}
    if top_p is not None:
        more["apply"] = lambda t, _: d.filter_in_order(scores, t, {"top_p": top_p})
        more["order"] = ("temperature", "top_p")
        more["params"] = {"temperature": 1.0, "top_p": top_p}
    made = describe(
        scores,
        lambda index: PIECES[index] if index < len(PIECES) else f"w{index}",
        temperatures,
        source="inspect-logits",
        rows=rows,
        target=target,
        extra=() if target is None else (target,),
        prompt="A long prompt about many things that nobody wants to read. The capital of Japan is",
        model=MODEL,
        **more,
    )
    return made, scores


def by_hand(values: dict[str, float], temperatures: Sequence[float] = (1.0,)) -> DistributionReport:
    """What `softmax` makes of tokens typed with their logits."""
    names = list(values)
    return describe(list(values.values()), names.__getitem__, temperatures, source="softmax")
