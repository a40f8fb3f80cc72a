"""decodecli: see how a language model picks its next token.

Importing this package imports neither torch nor transformers: the names below are loaded when they
are first used.

    import decodecli
    lm = decodecli.load("builtin", device="cpu")
    params = decodecli.SamplingParams(max_new_tokens=20, temperature=1.4, top_p=0.9, seed=0)
    for step in decodecli.decode(lm, "The capital of Japan is", params, candidates=10):
        print(step.token, step.rank, step.logprob)
    run = decodecli.generate(lm, "The capital of Japan is", params)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decodecli.engine.decode import decode as decode
    from decodecli.engine.decode import generate as generate
    from decodecli.engine.loading import LanguageModel as LanguageModel
    from decodecli.engine.loading import load as load
    from decodecli.errors import DecodecliError as DecodecliError
    from decodecli.records import Candidate as Candidate
    from decodecli.records import Run as Run
    from decodecli.records import RunHeader as RunHeader
    from decodecli.records import RunSummary as RunSummary
    from decodecli.records import Step as Step
    from decodecli.settings import LoadParams as LoadParams
    from decodecli.settings import SamplingParams as SamplingParams

__version__ = "0.1.0"

_HOMES = {
    "decode": "decodecli.engine.decode",
    "generate": "decodecli.engine.decode",
    "LanguageModel": "decodecli.engine.loading",
    "load": "decodecli.engine.loading",
    "DecodecliError": "decodecli.errors",
    "Candidate": "decodecli.records",
    "Run": "decodecli.records",
    "RunHeader": "decodecli.records",
    "RunSummary": "decodecli.records",
    "Step": "decodecli.records",
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
