"""Reports of `embed` made up of random vectors, for the views' tests."""

from __future__ import annotations

import numpy as np

from decodecli.analysis.embedding import cosine_rows, plane, separation
from decodecli.records.embedding import EmbedReport, MatrixInfo, Neighbour, WordVector

MATRIX = MatrixInfo(
    name="model.embed_tokens.weight",
    file="model.safetensors",
    kind="input",
    tied=True,
    rows=32_000,
    columns=64,
    dtype="bfloat16",
    norms={"mean": 1.25, "sd": 0.25, "min": 0.0, "max": 2.5},
    shortest=(0, "<unk>"),
    longest=(1234, "▁longest"),
)


def report(names: list[str], groups: int = 0, seed: int = 0, nearest: int = 0) -> EmbedReport:
    """Random vectors around a centre for each group; the groups take turns in order."""
    random = np.random.default_rng(seed)
    group_names = [
        f"group {k * groups // len(names)}" if groups else None for k in range(len(names))
    ]
    centres = {name: random.standard_normal(64) for name in dict.fromkeys(group_names)}
    vectors = np.array([centres[name] + 0.8 * random.standard_normal(64) for name in group_names])
    near = tuple(Neighbour(k + 1, 10 * k, f"▁near{k}", 0.9 - 0.2 * k) for k in range(nearest))
    return EmbedReport(
        model="made-up",
        revision=None,
        matrix=MATRIX,
        words=tuple(
            WordVector(name, "word", group, (k, k + 1), (f"▁{name[:2]}", name[2:]), 1.5)
            for k, (name, group) in enumerate(zip(names, group_names, strict=True))
        ),
        cosine=cosine_rows(vectors),
        plane=plane(vectors) if len(names) > 1 else None,
        separation=separation(group_names, vectors),
        nearest=(near,) * len(names) if nearest else (),
    )


def words(count: int) -> list[str]:
    """Names of different lengths and scripts."""
    some = ["cat", "Japan", "yellow", "to", "mountain", "日本", "Москва", "[/INST]", "$x_1$", "été"]
    return [name if k < len(some) else f"{name}{k}" for k, name in enumerate(some * count)][:count]
