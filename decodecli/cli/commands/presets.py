"""`decodecli presets`: the named settings, listed and explained."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli import options as o
from decodecli.cli import streams


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="Show only this one.")
    ] = None,
    format: o.text_or("text", "json") = None,  # type: ignore[valid-type]
    color: o.Color = None,
    debug: o.Debug = None,
) -> None:
    """List the presets: what each sets, and what it is for.

    [bold]Examples[/bold]

      decodecli presets

      decodecli generate --preset creative
    """
    from decodecli.config import preset_names, read_preset
    from decodecli.settings import check_choice

    chosen = format or "text"
    check_choice("format", chosen, ("text", "json"))
    found = {preset: read_preset(preset) for preset in ([name] if name else preset_names())}
    if chosen == "json":
        import json

        streams.write_stdout(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
        return
    lines: list[str] = []
    for preset, values in found.items():
        settings = " ".join(
            f"{key}={value:g}" for key, value in values.items() if key != "description"
        )
        lines += [f"{preset:<10} {settings}", f"           {values.get('description', '')}"]
    streams.write_stdout("\n".join(lines) + "\n")
