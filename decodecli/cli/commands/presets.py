"""`decodecli presets`: the named settings, listed and explained."""

from __future__ import annotations

from decodecli.cli import options as o
from decodecli.cli import streams
from decodecli.cli.command import Argument, command
from decodecli.cli.output import write_indented
from decodecli.settings import check_choice

FORMATS = ("text", "json")


@command(Argument("name", "NAME", "Show only this one."), o.format_of(*FORMATS), o.COLOR, o.DEBUG)
def presets(name: str | None = None, format: str = "text") -> None:
    """List the presets: what each sets, and what it is for.

    [bold]Examples[/bold]

      decodecli presets

      decodecli generate --preset creative
    """
    from decodecli.config import preset_names, read_preset

    check_choice("format", format, FORMATS)
    values = {preset: read_preset(preset) for preset in ([name] if name else preset_names())}
    if format == "json":
        write_indented(values)
        return
    lines = []
    for preset, options in values.items():
        description = options.pop("description", "")
        settings = " ".join(f"{key}={value:g}" for key, value in options.items())
        lines.append(f"{preset:<10} {settings}\n           {description}\n")
    streams.write_stdout("".join(lines))
