"""The names of a sweep's numbers, apart from its records: `decodecli --help` lists them."""

from __future__ import annotations

# The numbers of a setting, in the order in which they are shown.
METRICS = (
    "mean_logprob",
    "perplexity",
    "mean_entropy",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "self_bleu_4",
    "repetition_rate",
    "zipf",
    "identical",
    "divergence_step",
    "accuracy",
    "new_tokens",
    "ended",
)
