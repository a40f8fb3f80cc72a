"""`decodecli methods`: the decoding methods, listed, and one explained."""

from __future__ import annotations

from typing import Any

from decodecli.cli import options as o
from decodecli.cli.command import Argument, command
from decodecli.cli.output import write_answer
from decodecli.errors import UsageError


@command(
    Argument("name", "NAME", "Explain this one."), o.format_of("text", "json"), o.COLOR, o.DEBUG
)
def methods(name: str | None = None, format: str = "text") -> None:
    """List the decoding methods, or explain one: equation, source, engines, and what it does.

    [bold]Examples[/bold]

      decodecli methods

      decodecli methods top-p
    """
    from decodecli.config import nearest
    from decodecli.ranges import flag_name
    from decodecli.stages import ORDER, read_methods

    described = read_methods()
    if name is None:
        answer = {stage: described[stage] | {"option": flag_name(stage)} for stage in ORDER}
        rows = ((flag_name(stage), described[stage]["title"]) for stage in ORDER)
        lines = [f"{flag:<23} {title}" for flag, title in rows]
        write_answer(answer, format, [*lines, "", "decodecli methods NAME explains one."])
        return
    stage = name.removeprefix("--").replace("-", "_")
    if stage not in described:
        near = nearest(stage, ORDER)
        hint = f"did you mean {near}?" if near else "decodecli methods lists them"
        raise UsageError(f"there is no method {name!r}", hint)
    from decodecli.analysis.methods import explain

    explained = explain(stage, described)
    write_answer(explained, format, _lines(explained))


def _lines(method: dict[str, Any]) -> list[str]:
    import sys

    from decodecli.cli.output import style_of
    from decodecli.render.number_format import bar, percent_cell
    from decodecli.render.terminal.step_table import stage_name
    from decodecli.render.terminal.wrap import wrap_parts

    style = style_of(sys.stdout)

    def paragraph(text: str, indent: str = "  ") -> list[str]:
        return wrap_parts(text.split(" "), style.width, " ", indent)

    lines = [
        *paragraph(f"{method['title']}: {method['equation']}"),
        *paragraph(method["source"]),
        "",
    ]
    lines += paragraph(f"{method['option']}, here {method['default']} unless told otherwise")
    for flag, value in method["companions"].items():
        lines += paragraph(f"  {flag} {value}", "    ")
    lines.append("")
    for engine, told in method["engines"].items():
        lines += paragraph(f"{engine}: {told['default'] or 'has none'}")
        if told["order"]:
            names = (f"[{n}]" if n == method["name"] else n for n in told["order"])
            lines += paragraph(f"  {' → '.join(names)}", "    ")
    example = method["example"]
    settings = " ".join(f"{key} {value}" for key, value in example["settings"].items())
    lines += ["", *paragraph(f"Ten tokens after {' '.join(example['text'])}, with {settings}:"), ""]
    width = max(4, min(24, (style.width - 30) // 2))
    lines.append(style.dim(f"  {'':4}{'before':<{width + 9}}{'after'}"))
    highest = max(max(row["before"], row["after"]) for row in example["tokens"])
    for row in example["tokens"]:
        before, after = (
            bar(row[when] / highest, width, style.ascii_only) for when in ("before", "after")
        )
        end = (
            stage_name(row["removed_by"], style.width - width - 23) if row["removed_by"] else after
        )
        cells = (
            f"{percent_cell(row['before'])} {before:<{width}} {percent_cell(row['after'])} {end}"
        )
        lines.append(f"  {row['token']:<3} {cells}".rstrip())
    return lines
