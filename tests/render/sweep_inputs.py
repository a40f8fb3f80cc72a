"""Made-up sweeps for the view tests: cells whose numbers follow from a few rules, and summaries."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from decodecli.records.metrics import METRICS
from decodecli.records.sweep import CellRecord, Estimate, SettingSummary, SweepSummary

WORDS = (" Tokyo", ".", " It", " is", " the", " largest", " garden", ",", " blue", " river", "\n")
HOSTILE = (
    "[bold]",
    "\x1b[2J",
    "\x9b31m",
    "<script>alert(1)</script>",
    "\u202e",
    "\r",
    "&amp;",
    "[/]",
)


def record(
    index: int = 0,
    *,
    words: tuple[str, ...] = WORDS[:4],
    logprobs: tuple[float, ...] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    prompt_id: str = "japan",
    **changes: Any,
) -> CellRecord:
    """One finished cell; `words` are its segments."""
    logprobs = tuple(-0.5 * (k % 9) for k in range(len(words))) if logprobs is None else logprobs
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    params = {"temperature": temperature, "top_p": 1.0, "seed": seed, "bos": None}
    values: dict[str, Any] = {
        "index": index,
        "prompt_id": prompt_id,
        "task": None,
        "prompt": "The capital of Japan is",
        "params": params | changes.pop("params", {}),
        "text": "".join(words),
        "token_ids": tuple(sum(map(ord, word)) for word in words),
        "finish_reason": "length",
        "prompt_tokens": 6,
        "new_tokens": len(words),
        "mean_logprob": mean,
        "perplexity": None if mean is None else math.exp(-mean),
        "mean_entropy": 1.5,
        "distinct_1": 0.9,
        "distinct_2": 0.95,
        "distinct_3": 1.0,
        "repeats": False,
        "correct": None,
        "segments": words,
        "logprobs": logprobs,
    }
    return CellRecord(**values | changes)


def records(
    temperatures: tuple[float, ...] = (0.2, 1.0, 1.8),
    top_ps: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    prompts: tuple[str, ...] = ("japan",),
    words: int = 24,
    vocabulary: tuple[str, ...] = WORDS,
) -> list[CellRecord]:
    """A cell for each; the higher the temperature, the earlier and the further they part."""
    found = []
    for prompt, t, p, seed in itertools.product(prompts, temperatures, top_ps, range(seeds)):
        chance, common = random.Random(f"{prompt}{t}{p}{seed}"), random.Random(prompt)
        drawn, logprobs = [], []
        for _ in range(words):
            usual, strays = common.choice(vocabulary), chance.random() < t * p / 8
            drawn.append(chance.choice(vocabulary) if strays else usual)
            logprobs.append(-chance.uniform(1, 7) if strays else -chance.uniform(0, 1))
        found.append(
            record(
                len(found),
                words=tuple(drawn),
                logprobs=tuple(logprobs),
                seed=seed,
                prompt_id=prompt,
                params={"temperature": t, "top_p": p},
            )
        )
    return found


def numbers_at(
    temperature: float, top_p: float = 1.0, task: str | None = None, more: float = 0.0
) -> dict[str, Estimate]:
    """Every metric of a setting, as they go with temperature: plausible, smooth, told apart."""
    heat = (min(temperature, 4.0) + more) * (0.5 + 0.5 * top_p)
    values = {
        "mean_logprob": -0.4 - 1.6 * heat,
        "perplexity": math.exp(0.4 + 1.6 * heat),
        "mean_entropy": 0.6 + 1.2 * heat,
        "distinct_1": 0.4 + 0.35 * math.tanh(heat),
        "distinct_2": 0.5 + 0.45 * math.tanh(heat),
        "distinct_3": 0.6 + 0.39 * math.tanh(heat),
        "self_bleu_4": 0.95 * math.exp(-heat),
        "repetition_rate": 0.5 * math.exp(-3 * heat),
        "zipf": 1.3 - 0.25 * math.tanh(heat),
        "identical": math.exp(-4 * heat),
        "divergence_step": 40 * math.exp(-2 * heat),
        "accuracy": 0.9 * math.exp(-0.5 * heat),
        "new_tokens": 20 + 15 * math.tanh(heat),
        "ended": 0.8 * math.exp(-heat),
    }
    if task == "story":
        del values["accuracy"]
    spread = {"perplexity": 2.0, "divergence_step": 3.0}
    return {
        name: Estimate(value, value - spread.get(name, 0.05), value + spread.get(name, 0.05), 15)
        for name, value in values.items()
    }


def summary(
    axes: dict[str, tuple[Any, ...]] | None = None,
    tasks: tuple[str | None, ...] = (None,),
    without: tuple[str, ...] = (),
    **changes: Any,
) -> SweepSummary:
    """A summary over the product of `axes`, without some of the metrics."""
    axes = {"temperature": (0.2, 0.7, 1.0, 1.4)} if axes is None else axes
    settings = []
    for values in itertools.product(*axes.values()):
        setting = dict(zip(axes, values, strict=True))
        for task in tasks:
            others = (k for k in axes if k not in ("temperature", "top_p"))
            more = 0.1 * sum(axes[k].index(setting[k]) for k in others)
            found = numbers_at(
                setting.get("temperature", 1.0), setting.get("top_p", 1.0), task, more
            )
            kept = {name: found[name] for name in METRICS if name in found and name not in without}
            settings.append(SettingSummary(setting, task, 15, kept))
    given: dict[str, Any] = {
        "name": "builtin",
        "axes": axes,
        "settings": tuple(settings),
        "cells": 15 * len(settings),
        "finished": 15 * len(settings),
        "failed": 0,
        "prompts": 3,
        "seeds": (0, 1, 2, 3, 4),
    }
    return SweepSummary(**given | changes)
