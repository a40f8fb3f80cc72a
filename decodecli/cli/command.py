"""Options as data, and the decorator that gives a command its options.

A command names its options in one list. Typer reads them from the signature that `command` builds; the
function gets those that it names in its own signature, and the others, which files and the environment
can set too, as one: its `settings`, or `effective`, what `config.resolve` makes of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from decodecli.config import Effective
    from decodecli.settings import LoadParams, OutputParams, SamplingParams

MODEL, DECODING, INPUT, OUTPUT, CONFIG = "Model", "Decoding", "Input", "Output", "Settings"


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Every option is None when it was not given: `config.resolve` looks further, and the default that a
    person sees in `--help` is written in `default`.

    name: of the parameter, and of the key in files; the option is spelt like it.
    kind: of a value: int, float, str, or bool for an option without a value.
    flags: the short name, or the spelling of a pair such as "--bos/--no-bos".
    several: whether it can be given several times.
    """

    name: str
    kind: type
    panel: str
    help: str
    metavar: str = ""
    default: str | None = None
    flags: str = ""
    choices: tuple[str, ...] = ()
    complete: Callable[[str], list[str]] | None = None
    several: bool = False

    def but(self, **changes: Any) -> Option:
        """This option with some of its fields changed."""
        return replace(self, **changes)

    def axis(self, panel: str) -> Option:
        """This option as an axis of a sweep, which takes one value or several."""
        return self.but(kind=str, several=True, panel=panel, metavar=f"{self.metavar}…")

    @functools.cached_property
    def parameter(self) -> inspect.Parameter:
        """What Typer reads."""
        long = f"--{self.name.replace('_', '-')}"
        names = (self.flags,) if self.flags.startswith("--") else (long, *self.flags.split())
        default = self.default or ("off" if self.kind is bool else None)
        default_text = rf" [dim]\[default: {default}][/dim]" if default else ""
        choices, complete = self.choices, self.complete
        if choices:

            def complete(incomplete: str) -> list[str]:
                return [choice for choice in choices if choice.startswith(incomplete)]

        option = typer.Option(
            *names,
            help=self.help + default_text,
            metavar=self.metavar or "|".join(self.choices),
            rich_help_panel=self.panel,
            show_default=False,
            autocompletion=complete,
        )
        return _parameter(self.name, list[self.kind] if self.several else self.kind, option)  # type: ignore[name-defined]


@dataclass(frozen=True)
class Argument:
    """An argument of a command, optional unless `required`."""

    name: str
    metavar: str
    help: str
    several: bool = False
    required: bool = False

    def but(self, **changes: Any) -> Argument:
        """This argument with some of its fields changed."""
        return replace(self, **changes)

    @functools.cached_property
    def parameter(self) -> inspect.Parameter:
        """What Typer reads."""
        argument = typer.Argument(metavar=self.metavar, help=self.help, show_default=False)
        kind = list[str] if self.several else str
        return _parameter(self.name, kind, argument, required=self.required)


def _parameter(name: str, kind: Any, info: Any, required: bool = False) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        _KEYWORD,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required else kind | None, info],
    )


@dataclass(frozen=True, eq=False, repr=False)
class Request:
    """What the requests of commands have in common: the settings, by what they are for."""

    effective: Effective

    @functools.cached_property
    def load(self) -> LoadParams:
        return self.effective.load()

    @functools.cached_property
    def sampling(self) -> SamplingParams:
        return self.effective.sampling()

    @functools.cached_property
    def output(self) -> OutputParams:
        return self.effective.output()


def command(
    *declared: Option | Argument, request: type | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function the options of a command, in the order of its help.

    The function, or the `request` that is made for it, takes by name what is for it alone, where given;
    an option of several values as a tuple, a `format` that is one of those it has. The others, None where
    not given, are its `settings`, or, resolved, `effective`.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        named = inspect.signature(request or run).parameters
        several = [option.name for option in declared if option.several]
        formats = next(
            (o.choices for o in declared if isinstance(o, Option) and o.name == "format"), ()
        )

        @functools.wraps(run)
        def wrapped(**values: Any) -> None:
            values.pop("debug", None)  # for the error boundary, which looks for itself
            values |= {name: tuple(values[name] or ()) for name in several}
            by_name = {name: values.pop(name) for name in named if name in values}
            by_name = {name: value for name, value in by_name.items() if value is not None}
            if "format" in by_name:
                from decodecli.ranges import check_choice

                check_choice("format", by_name["format"], formats)
            settings = {name: None if value == () else value for name, value in values.items()}
            if "settings" in named:
                by_name["settings"] = settings
            elif "effective" in named:
                from decodecli.config import resolve

                by_name["effective"] = resolve(settings)
            if request is None:
                run(**by_name)
            else:
                run(request(**by_name))

        parameters = [option.parameter for option in declared]
        if "ctx" in named:
            parameters.append(named["ctx"].replace(kind=_KEYWORD, annotation=typer.Context))
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate
