"""The tree of what a beam search carried on, as a picture and as DOT."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from decodecli.records.beams import FINISHED, PRUNED, BeamRun, Node, beam_tree
from decodecli.render.escaping import clip, model_title, one_line, visible
from decodecli.render.plots.figure_layout import fonts_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS, _ROW, _CHARACTER = 10.0, 0.3, 0.085  # type, inches a row, inches a character
_COLOURS = {FINISHED: "#0b5cad", PRUNED: "#8a939d"}
_INK, _LONGEST = "#1b1f23", 60


def dot(run: BeamRun) -> str:
    """The tree for Graphviz. Ended hypotheses are boxes, pruned beams dashed."""
    lines = ["digraph beams {", "  rankdir=LR; node [shape=plaintext];"]
    numbers = {"next": 1}

    def add(node: Node, name: str) -> None:
        for child in node.children:
            own = f"n{numbers['next']}"
            numbers["next"] += 1
            shape = {FINISHED: ", shape=box", PRUNED: ", style=dashed, shape=box"}.get(
                child.fate, ""
            )
            lines.append(f"  {own} [label={json.dumps(_label(child), ensure_ascii=False)}{shape}];")
            lines.append(f"  {name} -> {own};")
            add(child, own)

    lines.append(f"  n0 [label={json.dumps(_prompt(run), ensure_ascii=False)}];")
    add(beam_tree(run.steps), "n0")
    return "\n".join([*lines, "}", ""])


def _prompt(run: BeamRun) -> str:
    return one_line(run.header.prompt)[-30:] or "(empty prompt)"


def _label(node: Node) -> str:
    text = clip("".join(visible(token) for token in node.tokens), _LONGEST)
    return text if node.children else f"{text}  {node.score:.2f}"


def beam_figure(run: BeamRun) -> Figure:
    """The tree from left to right, a row a leaf, its score at the end."""
    from matplotlib.figure import Figure

    root = beam_tree(run.steps)
    places: list[tuple[Node, float, float, float, float]] = []  # node, x, y, of its parent
    rows = 0

    def place(node: Node, x: float, parent_x: float) -> float:
        nonlocal rows
        own = _prompt(run) if node is root else _label(node)
        end = x + (len(own) + 3) * _CHARACTER
        ys = [place(child, end, x) for child in node.children]
        if not ys:
            rows += 1
        y = sum(ys) / len(ys) if ys else float(rows - 1)
        places.append((node, x, y, end, parent_x))
        return y

    place(root, 0.2, 0.0)
    width = max(end for *_, end, _ in places) + 0.2
    height = max(rows, 1) * _ROW + 0.9
    figure = Figure(figsize=(max(width, 5.0), height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, max(width, 5.0))
    axes.set_ylim(height, 0)
    axes.axis("off")
    fonts = fonts_for([_label(node) for node, *_ in places] + [_prompt(run)])
    top = 0.75
    heights = {id(node): top + y * _ROW for node, _, y, _, _ in places}
    ends = {id(node): end for node, _, _, end, _ in places}
    params = run.header.params
    title = f"{model_title(run.header.model.name)} · {params['num_beams']} beams · "
    title += f"length penalty {params['length_penalty']:g} · boxed: ended · grey: pruned"
    axes.text(
        0.2, 0.3, fonts.spell(title), fontsize=_POINTS, color="#57606a", family=fonts.families
    )
    for node, x, _, _, _ in places:
        y, colour = heights[id(node)], _COLOURS.get(node.fate, _INK)
        box = (
            {"boxstyle": "round,pad=0.25", "fc": "none", "ec": colour}
            if node.fate == FINISHED
            else None
        )
        label = _prompt(run) if node is root else _label(node)
        axes.text(
            x, y, fonts.spell(label), fontsize=_POINTS, va="center", color=colour,
            family=fonts.families, bbox=box,
        )  # fmt: skip
        for child in node.children:
            start, below = ends[id(node)] - 0.2, heights[id(child)]
            axes.plot(
                [start, start + 0.06, ends[id(node)] - 0.06], [y, below, below],
                color="#c3c9d0", linewidth=1,
            )  # fmt: skip
    return figure
