"""A run as a page that answers: choose a token, move the temperature and the filters.

One file, no network. Its numbers at any temperature are of the whole vocabulary (`records.run_curves`);
without scripts it is the page that a notebook shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import replace
from typing import Any

from decodecli.records.run import Run, Step
from decodecli.records.run_curves import BETAS, LISTED, StepCurve
from decodecli.render.escaping import model_title, safe_text, visible
from decodecli.render.html import asset, render
from decodecli.render.html.notebook import rendered, run_page
from decodecli.render.number_format import count
from decodecli.render.plots.figure_file import write_file
from decodecli.render.short_text import run_style
from decodecli.render.terminal.step_table import Style
from decodecli.render.theme import LEGEND, LEVELS, level

_DIGITS = 6


def interactive_page(run: Run) -> str:
    """The page, whole, of a run that has its curves."""
    from markupsafe import Markup

    byte_level = run_style(run.steps, Style(width=10_000)).byte_level
    params, content = run.header.params, run_page(run)
    data = {
        "prompt": safe_text(run.header.prompt),
        "vocabulary": run.header.model.vocab_size,
        **{name: params[name] for name in ("top_p", "top_k", "min_p")},
        "temperature": params["temperature"] or 1.0,
        "betas": BETAS,
        "steps": [_step(step, run.curves[step.index], byte_level) for step in run.steps],
    }
    script = str(asset("run.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        "run.html",
        lang="",
        title=f"{model_title(run.header.model.name)}: {run.header.prompt[:60]}",
        data=Markup(_inert(json.dumps(data, ensure_ascii=False, separators=(",", ":")))),
        script=Markup(script),
        digest=Markup(digest),
        page=content,
        legend=LEGEND,
        levels=LEVELS,
        static=Markup(rendered(replace(content, header=(), facts=()))),
    )


def inline(run: Run) -> str:
    """The page in a frame of its own: what a notebook shows, several in one notebook."""
    from markupsafe import escape

    title = escape(f"How the tokens of {run!r} were drawn")
    return (
        f'<iframe title="{title}" srcdoc="{escape(interactive_page(run))}" sandbox="allow-scripts" '
        'style="width:100%;height:44rem;border:0" loading="lazy"></iframe>'
    )


def write_page(run: Run, path: str) -> None:
    """Write the page of a run.

    Raises:
        WriteError: it cannot be written.
    """
    write_file(path, interactive_page(run).encode())


def _step(step: Step, curve: StepCurve, byte_level: bool) -> dict[str, Any]:
    rows = []
    for number, row in enumerate(curve.tokens):
        entry = {
            "rank": row.rank,
            "token": visible(row.token, byte_level),
            "logit": round(row.logit, _DIGITS),
            "penalised": round(row.penalised, _DIGITS),
        }
        entry |= {"chosen": True} if row.token_id == step.token_id else {}
        entry |= {"behind": True} if number >= LISTED else {}
        rows.append(entry | ({"removed": row.removed_by} if row.removed_by else {}))
    return {
        "text": safe_text(step.text),
        "token": visible(step.token, byte_level),
        "level": level(math.exp(step.logprob)),
        "logprob": round(step.logprob, _DIGITS),
        "rank": step.rank,
        "kept": count(step.kept),
        "rows": rows,
        "whatIf": [
            {
                "settings": other.settings,
                "token": None if other.token is None else visible(other.token, byte_level),
                "same": other.token_id == step.token_id,
                "first": other.first_divergence,
            }
            for other in step.what_if
        ],
        "f": [round(value, 7) for value in curve.values],
        "g": [round(value, 7) for value in curve.slopes],
    }


def _inert(text: str) -> str:
    """JSON that cannot end its script element, whatever a token spells."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
