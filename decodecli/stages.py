"""The stages of the sampler chain by name: in which orders they apply, and what kind each one is.

A stage has the name of the option that turns it on. Standard library only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodecli.errors import UsageError

if TYPE_CHECKING:
    from decodecli.settings import SamplingParams

# transformers' order, and behind its own stages of each kind those that it lacks; top_nsigma stands where
# a processor of one's own runs.
ORDER = (
    "logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier",
    "constraint", "no_repeat_ngram_size", "bad_words", "min_new_tokens", "top_nsigma",
    "dynatemp_range", "temperature", "top_h", "top_k", "top_p", "min_p", "typical_p",
    "epsilon_cutoff", "eta_cutoff", "top_a", "tfs_z", "xtc_probability", "mirostat",
)  # fmt: skip
# The default orders of engines; what one lacks stands where its like stands there.
ORDERS: dict[str, tuple[str, ...]] = {
    "transformers": ORDER,
    "llama.cpp": (
        "logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty",
        "constraint", "no_repeat_ngram_size", "bad_words", "min_new_tokens", "dry_multiplier",
        "top_nsigma", "top_k",
        "tfs_z", "typical_p", "top_p", "min_p", "top_h", "epsilon_cutoff", "eta_cutoff", "top_a",
        "xtc_probability", "dynatemp_range", "temperature", "mirostat",
    ),
    "vllm": (
        "constraint", "bad_words", "min_new_tokens", "logit_bias", "repetition_penalty",
        "frequency_penalty",
        "presence_penalty", "dry_multiplier", "no_repeat_ngram_size", "top_nsigma", "dynatemp_range",
        "temperature", "min_p", "top_k", "top_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
        "top_a", "tfs_z", "xtc_probability", "mirostat",
    ),
    "mlx": (
        "logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier",
        "constraint", "no_repeat_ngram_size", "bad_words", "min_new_tokens", "top_nsigma", "top_p",
        "min_p",
        "xtc_probability", "top_k", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_a",
        "tfs_z", "dynatemp_range", "temperature", "mirostat",
    ),
}  # fmt: skip
# Run under greedy too: they look at the tokens so far, or are about certain tokens.
WITH_HISTORY = frozenset(
    (
        "logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier",
        "constraint", "no_repeat_ngram_size", "bad_words", "min_new_tokens",
    )
)  # fmt: skip
PENALTIES = frozenset(
    (
        "logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier",
        "dynatemp_range",
    )
)  # fmt: skip
RESCORING = PENALTIES | {"temperature"}  # give new scores; the others filter
# What a step depends on besides its logits: the tokens, the seed and the position, the steps before.
STATEFUL = WITH_HISTORY | {"xtc_probability", "mirostat"}
# Filters that look at nothing but the scores: a list of numbers is enough for them.
OF_SCORES_ALONE = tuple(name for name in ORDER if name not in RESCORING | STATEFUL)
# What a step depends on besides its logits and the tokens so far: the model's tokens, the run, its seed.
OF_A_RUN = frozenset(
    (
        "logit_bias", "dry_multiplier", "constraint", "bad_words", "min_new_tokens", "xtc_probability",
        "mirostat",
    )
)  # fmt: skip
# What else a stage is told by options that do nothing without it.
COMPANIONS = {
    "repetition_penalty": ("penalty_last_n",),
    "presence_penalty": ("penalty_last_n",),
    "frequency_penalty": ("penalty_last_n",),
    "dry_multiplier": ("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
    "dynatemp_range": ("dynatemp_exponent",),
    "xtc_probability": ("xtc_threshold",),
    "mirostat": ("mirostat_tau", "mirostat_eta"),
}  # fmt: skip


def parse_order(text: str) -> tuple[str, ...]:
    """The stages of `text`, an engine's name or stages joined by commas.

    Raises:
        UsageError: a stage is unknown or stands twice.
    """
    if text in ORDERS:
        return ORDERS[text]
    names = tuple(name.strip().replace("-", "_") for name in text.split(","))
    for name in names:
        if name not in ORDER:
            hint = f"engines are {', '.join(ORDERS)}; decodecli methods lists the stages"
            raise UsageError(f"--order has no stage or engine {name!r}", hint, "order")
        if names.count(name) > 1:
            raise UsageError(f"--order names {name} twice", "a stage applies once", "order")
    return names


def stage_order(params: SamplingParams, temperature: float | None = None) -> tuple[str, ...]:
    """The names of the active stages, in the order in which they apply; `temperature`, where it is
    given, stands in place of that of `params`.

    A stage at its neutral value is left out. Greedy decoding keeps the stages of `WITH_HISTORY` and then
    takes the highest score: temperature and filters do nothing.

    Raises:
        UsageError: the order leaves out a stage that is on.
    """
    values = vars(params) | ({} if temperature is None else {"temperature": temperature})
    order, greedy = parse_order(params.order), values["temperature"] == 0
    active = {name for name in ORDER if values[name] != getattr(type(params), name)}
    for name in ORDER if len(order) < len(ORDER) else ():
        if name in active and name not in order and not (greedy and name == "temperature"):
            hint = "name it in the order, or leave it at its default"
            raise UsageError(f"--order leaves out {name}, which is on", hint, "order")
    if greedy:
        return (*(name for name in order if name in active & WITH_HISTORY), "greedy")
    return tuple(name for name in order if name in active)


def ignored_under_greedy(params: SamplingParams) -> tuple[str, ...]:
    """Filters that are set but do nothing because decoding is greedy."""
    active = stage_order(params, temperature=1.0) if params.greedy else ()
    return tuple(name for name in active if name not in WITH_HISTORY)


def read_methods() -> dict[str, dict[str, Any]]:
    """What methods.toml tells of each stage: title, equation, source, example, and by engine its option
    and default."""
    text = (Path(__file__).parent / "methods.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
