"""How fast sweeps were on this machine, for the estimates of `--dry-run`: a small file in the cache."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from decodecli.errors import WriteError
from decodecli.models.cache_files import cache_folder
from decodecli.sweeps.folder import write_whole

_MOST = 100  # entries; the oldest go


def recall(key: str, words: int | None = None) -> float | None:
    """Tokens a second of the last sweep with this key; None where there was none.

    Args:
        words: how many of the key's words must be the same, from the first; None: all.
    """
    wanted = key.split(" ")[:words]
    rates = [rate for name, rate in _read().items() if name.split(" ")[:words] == wanted]
    rate = rates[-1] if rates else None
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def remember(key: str, rate: float) -> None:
    """Keep the rate of a sweep; where that cannot be done, nothing happens."""
    path = _path()
    if path is None:
        return
    rates = {name: old for name, old in _read().items() if name != key}
    rates[key] = round(rate, 1)
    text = json.dumps(dict(list(rates.items())[-_MOST:]), indent=0)
    with contextlib.suppress(OSError, WriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())


def _read() -> dict[str, float]:
    path = _path()
    try:
        rates = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return rates if isinstance(rates, dict) else {}


def _path() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder.parent / "rates.json"
