"""The app: every command registered, nothing heavy imported."""

from __future__ import annotations

from typing import Annotated

import typer

from decodecli.cli.boundary import Program
from decodecli.cli.commands.bench import bench
from decodecli.cli.commands.compare import compare
from decodecli.cli.commands.embed import embed
from decodecli.cli.commands.generate import generate
from decodecli.cli.commands.info import info
from decodecli.cli.commands.inspect_logits import inspect_logits
from decodecli.cli.commands.models import app as models
from decodecli.cli.commands.presets import presets
from decodecli.cli.commands.replay import replay
from decodecli.cli.commands.softmax import softmax
from decodecli.cli.commands.sweep import sweep
from decodecli.cli.commands.tokenize import tokenize
from decodecli.cli.streams import write_stdout
from decodecli.cli.usage import Command

app = typer.Typer(
    name="decodecli",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        from decodecli import __version__

        write_stdout(f"decodecli {__version__}\n")
        raise typer.Exit


VERSION = typer.Option(
    "--version", "-V", help="Show the version and exit.",
    is_eager=True, callback=_show_version, show_default=False,
)  # fmt: skip


@app.callback()
def decodecli(version: Annotated[bool | None, VERSION] = None) -> None:
    """See how a language model picks its next token: every candidate, every probability, every filter.

    [bold]Examples[/bold]

      decodecli generate --temperature 1.4 --top-p 0.9

      decodecli generate "The capital of Japan is" --greedy

      decodecli presets
    """


for _command in (
    *(generate, replay, inspect_logits, sweep, compare, softmax, tokenize, embed),
    *(presets, info, bench),
):
    app.command(cls=Command)(_command)
app.add_typer(models, name="models")
