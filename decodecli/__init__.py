"""decodecli: see how a language model picks its next token.

Importing this package imports neither torch nor transformers: the names below are loaded when they
are first used.

    import decodecli
    lm = decodecli.load("builtin", device="cpu")
    run = decodecli.generate(lm, "The capital of Japan is", temperature=1.4, top_p=0.9, seed=0)
    print(run)
    for step in decodecli.decode(lm, "The capital of Japan is", temperature=1.4, seed=0):
        print(step.token, step.rank, step.logprob)

docs/PYTHON.md has more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decodecli.api import beam_search as beam_search
    from decodecli.api import decode as decode
    from decodecli.api import embed as embed
    from decodecli.api import generate as generate
    from decodecli.api import next_token as next_token
    from decodecli.api import softmax as softmax
    from decodecli.api import sweep as sweep
    from decodecli.api import tokenize as tokenize
    from decodecli.errors import DecodecliError as DecodecliError
    from decodecli.models.loading import LanguageModel as LanguageModel
    from decodecli.models.loading import load as load
    from decodecli.records.run import Candidate as Candidate
    from decodecli.records.run import Run as Run
    from decodecli.records.run import RunHeader as RunHeader
    from decodecli.records.run import RunSummary as RunSummary
    from decodecli.records.run import Step as Step
    from decodecli.settings import LoadParams as LoadParams
    from decodecli.settings import SamplingParams as SamplingParams

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        (
            "beam_search",
            "decode",
            "embed",
            "generate",
            "next_token",
            "softmax",
            "sweep",
            "tokenize",
        ),
        "decodecli.api",
    ),
    "LanguageModel": "decodecli.models.loading",
    "load": "decodecli.models.loading",
    "DecodecliError": "decodecli.errors",
    "Candidate": "decodecli.records.run",
    "Run": "decodecli.records.run",
    "RunHeader": "decodecli.records.run",
    "RunSummary": "decodecli.records.run",
    "Step": "decodecli.records.run",
    "LoadParams": "decodecli.settings",
    "SamplingParams": "decodecli.settings",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'decodecli' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
