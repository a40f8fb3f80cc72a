"""`decodecli models`: the models at hand: the one that ships, and those in the local hub cache."""

from __future__ import annotations

from typing import Any

from decodecli.cli import options as o
from decodecli.cli import streams

FORMATS = ("text", "json")


def models(
    format: o.text_or(*FORMATS) = None,  # type: ignore[valid-type]
    debug: o.Debug = None,
) -> None:
    """List the built-in model with its card's facts, and the models in the local hub cache.

    [bold]Examples[/bold]

      decodecli models

      decodecli models --format json
    """
    import json

    from decodecli.builtin import card, model_path
    from decodecli.settings import check_choice

    chosen = format or "text"
    check_choice("format", chosen, FORMATS)
    facts, folder = card(), model_path()
    cached = _cached()
    if chosen == "json":
        found = {"builtin": {**facts, "folder": str(folder)}, "cached": cached}
        streams.write_stdout(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
        return
    lines = ["builtin", *_facts(facts), f"  {'card':<18}{folder / 'MODEL_CARD.md'}"]
    lines += ["", "in the local hub cache"]
    lines += [f"  {row['name']:<44} {row['bytes'] / 2**30:6.2f} GiB" for row in cached]
    lines += [] if cached else ["  none; name a hub model with -m owner/name to download it"]
    streams.write_stdout(streams.printable("\n".join(lines)) + "\n")


def _facts(facts: dict[str, Any]) -> list[str]:
    """The card's plain facts, a line each."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, str | int | float) and name != "name":
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            lines.append(f"  {name.replace('_', ' '):<18}{shown}")
    return lines


def _cached() -> list[dict[str, Any]]:
    """Model repositories in the hub cache: name and size."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return []
    rows = [{"name": r.repo_id, "bytes": r.size_on_disk} for r in found if r.repo_type == "model"]
    return sorted(rows, key=lambda row: str(row["name"]))
