"""The model that ships with decodecli; `recipes/builtin_model` in the repository makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def model_path() -> Path:
    """The folder of the built-in model: an ordinary transformers folder with its card."""
    return Path(__file__).parent / "model"


def card() -> dict[str, Any]:
    """The facts of the model card, from `card.json`: parameters, tokens, licence, results."""
    return json.loads((model_path() / "card.json").read_text(encoding="utf-8"))
