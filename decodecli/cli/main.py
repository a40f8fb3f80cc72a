"""The app: every command registered, nothing heavy imported."""

from __future__ import annotations

import typer

from decodecli.cli.bench import bench
from decodecli.cli.boundary import Program
from decodecli.cli.compare import compare
from decodecli.cli.embed import embed
from decodecli.cli.generate import generate
from decodecli.cli.info import info
from decodecli.cli.inspect_logits import inspect_logits
from decodecli.cli.models import app as models
from decodecli.cli.options import Version
from decodecli.cli.presets import presets
from decodecli.cli.replay import replay
from decodecli.cli.softmax import softmax
from decodecli.cli.sweep import sweep
from decodecli.cli.tokenize import tokenize
from decodecli.cli.usage import Command

app = typer.Typer(
    name="decodecli",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def decodecli(version: Version = None) -> None:
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
