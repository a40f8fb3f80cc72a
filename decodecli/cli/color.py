"""Whether output is coloured: `--color` first, then FORCE_COLOR and NO_COLOR, then what the stream is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from decodecli.cli.streams import is_terminal
from decodecli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

_LAYERS = ("color", "config", "preset")  # what can say it
_chosen = "auto"


def choose(params: dict[str, Any], of_parent: dict[str, Any]) -> None:
    """Take over a command's `--color`, or what the environment or a file of options says.

    Raises:
        UsageError: it is none of auto, always, never.
    """
    global _chosen
    from decodecli.config import ENVIRONMENT, from_source, resolve
    from decodecli.ranges import check_choice
    from decodecli.settings import COLORS

    _chosen = "auto"
    flags = {name: params.get(name) for name in _LAYERS}
    flags["color"] = flags["color"] or of_parent.get("color")
    variables = [f"{ENVIRONMENT}{name.upper()}" for name in _LAYERS]
    environ = {name: os.environ[name] for name in variables if name in os.environ}
    try:
        effective = resolve(flags, environ)
    except UsageError:
        return  # a command that reads these files says it better
    try:
        check_choice("color", effective.values["color"], COLORS)
    except UsageError as error:
        raise from_source(error, "color", effective.sources["color"]) from None
    _chosen = effective.values["color"]


def console(stream: Any) -> Console:
    """A console that colours as was asked. Without a colour system it has no styles at all."""
    from rich.console import Console

    if _chosen == "never":
        return Console(file=stream, color_system=None)
    if _chosen == "auto":
        return Console(file=stream)
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    if env.get("TERM", "dumb") in ("", "dumb", "unknown") and not is_terminal(stream):
        env["TERM"] = "xterm-256color"
    return Console(file=stream, force_terminal=True, _environ=env)
