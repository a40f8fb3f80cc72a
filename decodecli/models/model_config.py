"""What config.json and generation_config.json must not say: values on which libraries hang, take all the
memory, or compute nonsense without a word. Everything else is for transformers to refuse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from decodecli.errors import LoadError

# Modules or names that transformers makes one by one.
_COUNTS = re.compile(r"(num|n)_.*(layers?|experts|blocks|stages|groups|heads|labels)|depth")
_LAYERS = re.compile(r"(num|n)_(hidden_|decoder_)?layers?")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_MOST = 10_000  # of anything; the largest models have some hundreds of layers and experts
_HINT = "copy the original model's config.json into the folder"


def check_sizes(config: dict[str, Any], folder: Path, tensors: int | None) -> None:
    """Refuse counts that the weights cannot hold, windows that are none, ids that are none.

    Args:
        tensors: how many tensors the weights have; None where they are pickled and do not tell.

    Raises:
        LoadError: naming the file, the key and its value.
    """
    file = folder / "config.json"
    for part in _parts(config):
        for key, value in part.items():
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            layers = bool(_LAYERS.fullmatch(key))
            most = max(tensors, 100) if layers and tensors is not None else _MOST
            if _COUNTS.fullmatch(key) and not (1 if layers else 0) <= value <= most:
                held = f", with {tensors:,} tensors in the weights" if most != _MOST else ""
                raise LoadError(f"{file} says {key} = {_short(value)}{held}", _HINT)
            if (
                key == "sliding_window"
                and value < 1
                and part.get("use_sliding_window") is not False
            ):
                raise LoadError(f"{file} says {key} = {_short(value)}", _HINT)
        check_ids(part, file)


def check_ids(values: dict[str, Any], file: Path) -> None:
    """Refuse token ids that are no whole numbers.

    Raises:
        LoadError: naming the file, the key and its value.
    """
    for key in _IDS:
        value = values.get(key)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(item) is int and -(2**31) <= item < 2**31 for item in listed):
            raise LoadError(
                f"{file} says {key} = {_short(value)}, not a token's id or a list of them",
                f"copy the original model's {file.name} into the folder",
            )


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = (_parts(value) for value in config.values() if isinstance(value, dict))
    return [config, *(part for parts in inner for part in parts)]


def _short(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{value:.1e}" if abs(value) < 10**300 else "a number of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
