"""Wrong usage in our own words: what was given, what is allowed, what to do.

The parser is Typer's, whose exceptions are told apart by their fields: Typer brings a click of its own
from 0.26 on, so that no class of click can be named here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_type_hints

from typer.core import TyperCommand, TyperGroup

from decodecli.cli import color
from decodecli.errors import UsageError

_NUMBERS = {float: ("a number", "0.7"), int: ("an integer", "10")}
_QUOTED = {"PROMPT": "prompt", "TEXT": "text"}  # arguments of running words


class _Parser:
    """A command whose wrong usage ends in `UsageError`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        typed, allowed = list(args), ctx.allow_extra_args
        if set(typed) == {"--"} and isinstance(self, TyperGroup):
            raise UsageError("no command was given", f"see {ctx.command_path} --help")
        ctx.allow_extra_args = True  # what is left over is an error below
        try:
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            problem = None if ctx.resilient_parsing else _usage_error(error, ctx, typed)
            if problem is None:
                raise
            raise problem from None
        finally:
            ctx.allow_extra_args = allowed
        if rest and not allowed and not ctx.resilient_parsing:
            raise _left_over(ctx, typed, rest)
        return rest

    def invoke(self, ctx: Any) -> Any:
        if "color" in ctx.params:
            color.choose(ctx.params, ctx.parent.params)
        return super().invoke(ctx)  # type: ignore[misc]


class Command(_Parser, TyperCommand):
    """A command."""


class Group(_Parser, TyperGroup):
    """A command of commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            near = _nearest(name, self.commands)
            hint = f"did you mean {ctx.command_path} {near}?"
            if near is None:
                hint = f"commands: {', '.join(self.commands)}"
            if " " in name:
                hint = (
                    f"to continue a text: {ctx.command_path} generate {_short(shlex.quote(name))}"
                )
            raise UsageError(f"unknown command: {_short(name)}", hint)
        return super().resolve_command(ctx, args)


def _usage_error(error: Exception, ctx: Any, typed: Sequence[str]) -> UsageError | None:
    """The parser's exception as ours; None for one that is not about an option or argument."""
    name, param = getattr(error, "option_name", None), getattr(error, "param", None)
    options = _options(ctx.command, ctx)
    if name in options:
        option = options[name]
        if getattr(option, "is_flag", False):
            return UsageError(f"{name} takes no value", f"write {name} alone")
        aside = "; --quiet has no short form" if name == "-q" else ""
        return UsageError(f"{name} needs a value", f"as in {name} {_example(option, ctx)}{aside}")
    if name is not None:
        return _unknown_option(name, ctx, options)
    if param is None:
        return None
    raw = ctx.command.make_parser(ctx).parse_args(args=list(typed))[0].get(param.name)
    value = raw[-1] if isinstance(raw, list | tuple) and raw else raw
    if not isinstance(value, str):
        usual = f"{ctx.command_path} {_example(param, ctx)}"
        return UsageError(f"{ctx.info_name} needs {_example(param, ctx)}", f"write {usual}")
    return _bad_value(value, param, ctx, typed)


def _options(command: Any, ctx: Any) -> dict[str, Any]:
    """The options of a command by every name they have."""
    return {
        name: param
        for param in command.get_params(ctx)
        if param.param_type_name == "option"
        for name in (*param.opts, *param.secondary_opts)
    }


def _type_of(param: Any, ctx: Any) -> Any:
    """What a value is to be, by the command's own annotation: int, float, or something else."""
    annotation = get_type_hints(ctx.command.callback).get(param.name)
    return next((kind for kind in _NUMBERS if kind in get_args(annotation)), annotation)


def _example(param: Any, ctx: Any) -> str:
    usual = str(param.metavar or param.name.upper())
    return _NUMBERS.get(_type_of(param, ctx), ("", usual))[1]


def _unknown_option(name: str, ctx: Any, options: dict[str, Any]) -> UsageError:
    long = [option for option in options if option[:2] == "--" == name[:2]]
    near = next((option for option in long if option.startswith(name)), None) or _nearest(
        name, long
    )
    root = ctx.find_root()
    others = [
        word
        for word, command in root.command.commands.items()
        if command is not ctx.command and name in _options(command, ctx)
    ]
    if others and ctx is root:
        hint = f"options come after the command: {ctx.command_path} {others[0]} {name} …"
    elif others:
        hint = f"an option of {', '.join(others)}"
        hint += f"; did you mean {near}?" if near else ""
    elif near:
        hint = f"did you mean {near}?"
    else:
        hint = f"see {ctx.command_path} --help"
        hint += "; what begins with - and is no option comes after --" if name[:2] != "--" else ""
    return UsageError(f"unknown option: {_short(name)}", hint)


def _bad_value(value: str, param: Any, ctx: Any, typed: Sequence[str]) -> UsageError:
    long, short = max(param.opts, key=len), min(param.opts, key=len)
    wanted, example = _NUMBERS.get(_type_of(param, ctx), ("a valid value", _example(param, ctx)))
    hint = f"for example {long} {example}"
    one_dash = [word for word in typed if f"-{word}" in _options(ctx.command, ctx)]
    if one_dash:
        hint = f"write -{one_dash[0]}, with two dashes"
    elif value.startswith("="):
        hint = f"write {short} {value[1:]} or {long}={value[1:]}"
    elif "," in value and all(map(_is_number, value.split(","))):
        hint = _several(param, short, value.replace(" ", ""))
        if _type_of(param, ctx) is float and value.count(",") == 1 and "." not in value:
            hint = f"with a decimal point: {value.replace(',', '.')}; {hint}"
    return UsageError(f"{long} must be {wanted}, got {_short(repr(value))}", _short(hint, 120))


def _several(param: Any, option: str, values: str) -> str:
    """What to do with several values: many options of decoding are axes of a sweep."""
    from decodecli.cli.options import OF_CELLS

    if param.name not in OF_CELLS:
        return f"give --{param.name.replace('_', '-')} one value"
    what = "temperatures" if param.name == "temperature" else "values"
    return f"several {what}: decodecli sweep {option} {values} …"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from decodecli.config import nearest

    return nearest(name, known)


def _short(text: str, width: int = 60) -> str:
    from decodecli.render.escaping import clip, spelt_out

    return clip(spelt_out(text), width)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _left_over(ctx: Any, typed: Sequence[str], rest: Sequence[str]) -> UsageError:
    """More words than there are arguments; most often a prompt without quotes."""
    params = [p for p in ctx.command.get_params(ctx) if p.param_type_name == "argument"]
    if not params:
        message = f"{ctx.info_name} takes no argument, got {_short(repr(' '.join(rest)))}"
        return UsageError(message, f"see {ctx.command_path} --help")
    argument = params[-1].metavar
    words = [*(str(ctx.params[p.name]) for p in params), *rest]
    hint = f"see {ctx.command_path} --help"
    if argument in _QUOTED:
        text = shlex.quote(" ".join(words))
        hint = f"put the {_QUOTED[argument]} in quotes: {ctx.command_path} {text}"
        if len(hint) > 120:
            hint = f"put the {_QUOTED[argument]} in quotes"
    for word in words:  # as in -t 0.2 0.7
        position = typed.index(word)
        name, value = typed[max(position - 2, 0)], typed[position - 1]
        option = _options(ctx.command, ctx).get(name) if position > 1 else None
        if option is not None and _is_number(word) and _is_number(value):
            hint = _several(option, name, f"{value},{word}")
    if (
        ctx.info_name == "generate" and " " in words[0]
    ):  # it was in quotes, and so are several prompts
        prompts = " ".join(map(shlex.quote, words))
        hint = f"for several prompts: {ctx.command_path.replace('generate', 'sweep')} {_short(prompts)}"
    message = f"{ctx.info_name} takes one {argument}, but more follows: {_short(' '.join(rest))}"
    return UsageError(message, hint)
