"""`decodecli presets`: the named settings, listed and explained."""

from __future__ import annotations

from decodecli.cli import options as o
from decodecli.cli.command import Argument, command
from decodecli.cli.output import write_answer


@command(
    Argument("name", "NAME", "Show only this one."), o.format_of("text", "json"), o.COLOR, o.DEBUG
)
def presets(name: str | None = None, format: str = "text") -> None:
    """List the presets: what each sets, and what it is for.

    [bold]Examples[/bold]

      decodecli presets

      decodecli generate --preset creative
    """
    from decodecli.config import preset_names, read_preset

    values = {preset: read_preset(preset) for preset in ([name] if name else preset_names())}
    lines = []
    for preset, options in values.items():
        settings = (f"{key}={value:g}" for key, value in options.items() if key != "description")
        lines += [
            f"{preset:<10} {' '.join(settings)}",
            f"{'':<10} {options.get('description', '')}",
        ]
    write_answer(values, format, lines)
