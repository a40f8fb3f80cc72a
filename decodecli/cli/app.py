"""The app: its commands by name, each imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from decodecli.cli.boundary import Program
from decodecli.cli.streams import write_stdout
from decodecli.cli.usage import Command

# What `--help` says of each command: the first line of its own help.
COMMANDS = {
    "generate": "Generate text, and see at every step which tokens were in play and why one was picked.",
    "explore": "Walk through a model's distributions by hand, on the whole screen.",
    "replay": "Show a recorded run again, or what other settings would have made of it.",
    "inspect-logits": "See the distribution of the next token, at several temperatures side by side.",
    "sweep": "Run every combination of settings, prompts and seeds, and measure what comes of it.",
    "compare": "Show the texts of a sweep side by side, coloured by probability, the place marked where "
    "they part.",
    "softmax": "Softmax by hand: probabilities of any numbers, at any temperatures, with no model.",
    "tokenize": "See the tokens of a text: ids, pieces, bytes, and the characters that each comes from.",
    "embed": "See words as the model does before its first layer: rows of its embedding matrix, "
    "compared.",
    "methods": "List the decoding methods, or explain one: equation, source, engines, and what it does.",
    "presets": "List the presets: what each sets, and what it is for.",
    "info": "Report versions, devices with free memory, folders, and what each auto would become here.",
    "bench": "Measure how fast a model decodes here: with and without the trace, against transformers' "
    "generate.",
    "models": "List the built-in model with its card's facts, and the models in the local hub cache.",
}


class _Commands(Mapping[str, Any]):
    """The commands, each imported when it is asked for."""

    def __init__(self) -> None:
        self._imported: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._imported:
            if name not in COMMANDS:
                raise KeyError(name)
            attribute = name.replace("-", "_")
            module = import_module(f"decodecli.cli.commands.{attribute}")
            program = getattr(module, "app", None)
            if program is None:
                program = typer.Typer(rich_markup_mode="rich", add_completion=False)
                program.command(cls=Command)(getattr(module, attribute))
            self._imported[name] = typer.main.get_command(program)
            self._imported[name].name = name
        return self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Decodecli(Program):
    """All commands; their list is shown without importing them."""

    _listing = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name])
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)
        self._listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._listing = True
        completions = super().shell_complete(ctx, incomplete)
        self._listing = False
        return completions


app = typer.Typer(
    name="decodecli",
    cls=_Decodecli,
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
