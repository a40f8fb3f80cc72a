"""A sweep as one HTML file: table, pictures, texts coloured by surprisal, what was asked.

It stands alone: no network, no library, the one small script sorts the table and filters. Everything
that comes from outside is escaped, and a content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

from decodecli.records.sweep import CellRecord, Estimate, SettingSummary, SweepSummary
from decodecli.render.escaping import clip, model_title, one_line, safe_text
from decodecli.render.number_format import count, percent
from decodecli.render.plots.sweep_common import constants, readable
from decodecli.render.plots.sweep_data import (
    Metric,
    axis_name,
    facts,
    frozen,
    group_heading,
    groups,
    layout,
    numeric,
    shown_metrics,
    told_intervals,
    value_name,
)
from decodecli.render.terminal.compare_texts import MARK, Block, blocks, parting, text_facts
from decodecli.render.theme import LEVELS, css, level

CELLS = 400  # texts, shared among the settings
ROWS = 1000  # of the table
TOKENS = 300  # of a text
PROMPTS = 100  # of the list at the top
LONGEST_PROMPT = 300  # cells
_FILTERED = 6  # rows, or texts, from which on a field filters them
_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}


def report_html(
    summary: SweepSummary,
    records: Iterable[CellRecord],
    plots: Sequence[Path | str] = (),
    toml: str = "",
    *,
    most: int = CELLS,
) -> str:
    """The page.

    Args:
        records: finished cells in any order; of each setting the first ones of the grid are shown.
        plots: PNG or SVG files to take in; others are left out.
        toml: what was asked, shown as it is.
        most: texts at most.

    Raises:
        OSError: a plot cannot be read.
    """
    prompts: dict[str, tuple[int, str]] = {}
    shown = chosen(summary, _noted(records, prompts), most)
    summary = readable(summary)
    parts = [
        f"<h1>Sweep of {_text(model_title(summary.name))}</h1>",
        f"<p class=quiet>{_text(' · '.join(facts(summary)[1:]))}</p>",
        *_asked(summary, prompts),
        _section("Numbers", *_table(summary)),
        _pictures([path for path in map(Path, plots) if path.suffix.lower() in _KINDS], summary),
        _section("Texts", *_texts(shown, summary)) if shown else "",
        _section("What was asked", f"<pre>{_text(toml)}</pre>") if toml else "",
    ]
    return _PAGE.format(
        title=_text(f"Sweep of {model_title(summary.name)}"),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src '{_hash(_SCRIPT)}'",
        style=_STYLE,
        body="\n".join(part for part in parts if part),
        script=_SCRIPT,
    )


def _text(text: str) -> str:
    """Text as HTML: escaped, without characters that steer or that no page may hold."""
    return html.escape(safe_text(text), quote=True)


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _noted(
    records: Iterable[CellRecord], prompts: dict[str, tuple[int, str]]
) -> Iterator[CellRecord]:
    """The records; on the way each prompt is noted by its id, with the index of its first cell."""
    for record in records:
        place = prompts.get(record.prompt_id, (record.index, ""))[0]
        prompts[record.prompt_id] = min(place, record.index), record.prompt
        yield record


def _asked(summary: SweepSummary, prompts: dict[str, tuple[int, str]]) -> Iterator[str]:
    """What is the same in all cells, and the prompts."""
    if found := constants(summary.constant):
        yield f"<p>Constant: {_text(' · '.join(found))}</p>"
    ordered = sorted(prompts.items(), key=lambda item: item[1])
    if len(ordered) == 1:
        yield f"<p>Prompt: <q>{_text(_clipped(ordered[0][1][1]))}</q></p>"
    if len(ordered) > 1:
        rows = [
            f"<li><b>{_text(one_line(name))}</b> {_text(_clipped(text))}</li>"
            for name, (_, text) in ordered[:PROMPTS]
        ]
        rows += ["<li>…</li>"] if len(ordered) > PROMPTS else []
        opened = " open" if len(rows) <= 8 else ""
        many = f"<summary>{count(len(ordered))} prompts</summary>"
        yield f"<details class=prompts{opened}>{many}<ul>{''.join(rows)}</ul></details>"


def _clipped(prompt: str) -> str:
    return clip(one_line(prompt), LONGEST_PROMPT) or "(empty)"


def _section(title: str, *parts: str) -> str:
    return "\n".join([f"<section>\n<h2>{title}</h2>", *parts, "</section>"])


def _pictures(paths: Sequence[Path], summary: SweepSummary) -> str:
    found = "\n".join(_picture(path, summary) for path in paths)
    return _section("Pictures", f"<div class=pictures>{found}</div>") if found else ""


def _picture(path: Path, summary: SweepSummary) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    source = f"data:{_KINDS[path.suffix.lower()]};base64,{data}"
    caption, alt = map(_text, _told(path.stem, summary))
    return f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _told(name: str, summary: SweepSummary) -> tuple[str, str]:
    """A picture's caption, and what it says to those who cannot see it."""
    placed = layout(summary)
    across, line = one_line(placed.across or "the settings"), one_line(placed.line or "")
    kind, _, rest = name.partition("-")
    each = f", a line for each {line} ({_span(summary, placed.line)})" if placed.line else ""
    over = f"{across} ({_span(summary, placed.across)})" if placed.across else across
    numbers = "the table above has the numbers"
    if kind == "metrics":
        caption = f"{'More numbers' if rest else 'The numbers'} over {across}, with 95 % intervals"
        return caption, f"Line charts of the numbers over {over}{each}; {numbers}"
    if kind == "heatmap":
        caption = f"The numbers over {across} and {line}" + (f": {rest}" if rest else "")
        down = f"{line} ({_span(summary, placed.line)})"
        return caption, f"Heat maps of the numbers over {over} and {down}; {numbers}"
    if name == "quality-diversity":
        caption = f"Quality against diversity: a point a setting, labelled by {across}"
        return caption, f"Points of quality over diversity, joined along {over}{each}; {numbers}"
    return name, f"{name}; {numbers}"


def _span(summary: SweepSummary, axis: str | None) -> str:
    """An axis' values: all where they are few, else the first and the last."""
    names = [value_name(value) for value in summary.axes.get(axis or "", ())]
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} to {names[-1]}"


def _filter(what: str, rows: int, example: str) -> str:
    """A field that hides those `what`, a selector, without the words in it."""
    if rows < _FILTERED:
        return ""
    told = _text(f"show only those with … ({example})")
    return f'<input type=search data-rows="{what}" placeholder="{told}" aria-label="{told}">'


def _table(summary: SweepSummary) -> Iterator[str]:
    """Every number with its interval, a row a setting and task; a button in each heading sorts."""
    told, same = told_intervals(summary), _same_everywhere(summary)
    metrics = [metric for metric in shown_metrics(summary) if metric.name not in same]
    named = bool(groups(summary))
    left = [*map(axis_name, summary.axes), *([group_heading(summary)] if named else []), "cells"]
    headings = [(name, "") for name in left] + [(m.heading, m.title) for m in metrics]
    words = [not numeric(s.setting.get(a) for s in summary.settings) for a in summary.axes]
    words += [True] if named else []  # columns of text
    axis = next(iter(summary.axes), "")
    example = value_name(summary.axes[axis][0]) if axis else "a value"
    yield _filter("tbody tr", len(summary.settings), f"{axis_name(axis)} {example}".strip())
    yield '<div class=wide tabindex=0 role=region aria-label="Numbers of each setting">'
    yield "<table><thead><tr>"
    for place, (name, title) in enumerate(headings):
        about = f' title="{_text(title)}"' if title else ""
        about += " class=word" if place < len(words) and words[place] else ""
        yield f"<th scope=col{about}><button type=button>{_text(name)}</button></th>"
    yield "</tr></thead><tbody>"
    for setting in summary.settings[:ROWS]:
        yield _row(summary, setting, metrics, named, told)
    yield "</tbody></table></div>"
    note = (
        "In small type: the 95 % interval, of shares in per cent. A heading sorts. "
        "docs/METRICS.md defines the numbers."
    )
    if same:
        yield f"<p>The same at every setting: {_text(', '.join(same.values()))}</p>"
    more = len(summary.settings) - ROWS
    yield f"<p class=quiet>{note}{f' {count(more)} rows more: summary.csv.' if more > 0 else ''}</p>"


def _same_everywhere(summary: SweepSummary) -> dict[str, str]:
    """The numbers that need no column, by name: `repetition 0.0%`."""
    found = {}
    for metric in shown_metrics(summary):
        values = {
            s.numbers[metric.name].value for s in summary.settings if metric.name in s.numbers
        }
        whole = all(metric.name in setting.numbers for setting in summary.settings)
        if whole and len(values) == 1 and len(summary.settings) > 1:
            found[metric.name] = f"{metric.heading} {metric.text(values.pop())}"
    return found


def _row(
    summary: SweepSummary,
    setting: SettingSummary,
    metrics: Sequence[Metric],
    named: bool,
    told: Collection[str],
) -> str:
    values = [setting.setting.get(axis) for axis in summary.axes]
    cells = [
        _cell(value_name(value), value if numeric([value]) else value_name(value))
        for value in values
    ]
    cells += [_cell(one_line(setting.group or ""), setting.group or "")] if named else []
    cells.append(_cell(count(setting.cells), setting.cells))
    cells += [_number(m, setting.numbers.get(m.name), m.name in told) for m in metrics]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, value: Any, more: str = "") -> str:
    if numeric([value]):
        return f'<td data-v="{float(value)!r}">{_text(text)}{more}</td>'
    return f'<td class=word data-v="{_text(one_line(str(value)))}">{_text(text)}</td>'


def _number(metric: Metric, found: Estimate | None, told: bool) -> str:
    if found is None:
        return "<td></td>"
    value = metric.text(found.value)
    if not told or found.low is None or found.high is None:
        return _cell(value, found.value)
    if metric.text(found.low) == value == metric.text(found.high):
        return _cell(value, found.value)
    ends = f"{_end(metric, found.low)}…{_end(metric, found.high)}"
    return _cell(value, found.value, f"<small>{ends}</small>")


def _end(metric: Metric, value: float) -> str:
    """An interval's end, in a digit less than the number where that has three."""
    if metric.share:
        return f"{100 * value:.0f}"
    return f"{value:.2f}" if metric.decimals == 3 else metric.text(value)


def chosen(summary: SweepSummary, records: Iterable[CellRecord], most: int) -> list[CellRecord]:
    """The first cells of each setting in grid order, as many of each as `most` allows."""
    settings = list(dict.fromkeys(frozen(setting.setting) for setting in summary.settings))
    settings = settings[:most]
    each = max(most // max(len(settings), 1), 1)
    kept: dict[Any, list[tuple[int, CellRecord]]] = {setting: [] for setting in settings}
    for record in records:
        found = kept.get(frozen({axis: record.params.get(axis) for axis in summary.axes}))
        if found is None:
            continue
        # A heap with the latest cell on top, which an earlier one drives out.
        if len(found) < each:
            heappush(found, (-record.index, record))
        elif -record.index > found[0][0]:
            heappushpop(found, (-record.index, record))
    return sorted((record for found in kept.values() for _, record in found), key=lambda r: r.index)


def _texts(shown: Sequence[CellRecord], summary: SweepSummary) -> Iterator[str]:
    """The texts by prompt and seed, a card a setting."""
    yield _legend()
    if len(shown) < summary.finished:
        yield (
            f"<p class=quiet>{count(len(shown))} of {count(summary.finished)} texts: the first of each "
            "setting; runs.jsonl has all.</p>"
        )
    found = blocks(shown)
    yield _filter("article", len(shown), f"{found[0].labels[0]}, seed 1, or a word")
    prompt = None
    seen: dict[Any, str] = {}
    for block in found:
        first = block.records[0]
        if first.prompt_id != prompt:
            yield "" if prompt is None else "</details>"
            opened = " open" if prompt is None or len(found) <= 12 else ""
            prompt = first.prompt_id
            name = f"<b>{_text(one_line(prompt))}</b> {_text(one_line(first.prompt))}"
            yield f"<details{opened}><summary>{name}</summary>"
        yield _block(block, summary, seen)
    yield "</details>"


def _legend() -> str:
    names = "".join(f"<span class=p{k}>{_text(name)}</span> " for k, name in enumerate(LEVELS))
    return (
        f"<p class=legend>Probability of a token at temperature 1: {names}· the number itself under the "
        f"pointer · <b class=mark>{MARK}</b> the first token unlike the first text’s</p>"
    )


def _block(block: Block, summary: SweepSummary, seen: dict[Any, str]) -> str:
    """The block's cards. `seen` knows the seed of each text that a setting gave before, and goes on to:
    such a text, as a greedy one, is not shown again."""
    cards = []
    for record, label in zip(block.records, block.labels, strict=True):
        setting = frozen({axis: record.params.get(axis) for axis in summary.axes})
        seed = f"seed {record.params.get('seed')}"
        key = (record.prompt_id, setting, record.token_ids, record.error)
        before = seen.setdefault(key, seed)
        cards.append(_card(block.records[0], record, label, "" if before == seed else before))
    return f"<div class=block><h3>{_text(block.name)}</h3><div class=cards>{''.join(cards)}</div></div>"


def _card(first: CellRecord, record: CellRecord, label: str, before: str = "") -> str:
    """A text with its facts; of one that seed `before` gave already only that."""
    if before:
        return (
            f"<article class=again><h4>{_text(label)}</h4>"
            f"<p class=quiet>the same text as with {_text(before)}</p></article>"
        )
    told = " · ".join(text_facts(first, record))
    return (
        f"<article><h4>{_text(label)}</h4><p class=quiet>{_text(told)}</p>"
        f"<p class=text>{''.join(_tokens(first, record))}</p></article>"
    )


def _tokens(first: CellRecord, record: CellRecord) -> Iterator[str]:
    """The tokens in their colours, the mark where the text parts from the first one."""
    place = None if record is first else parting(first, record)
    mark = f'<b class=mark title="the first token unlike the first text\'s">{MARK}</b>'
    tokens = list(zip(record.segments, record.logprobs, strict=False))
    for step, (text, logprob) in enumerate(tokens[:TOKENS]):
        if step == place:
            yield mark
        if text:
            probability = math.exp(logprob)
            yield f'<span class=p{level(probability)} title="{percent(probability)}">{_text(text)}</span>'
    if len(tokens) > TOKENS:
        yield f"<span class=quiet> … {count(len(tokens) - TOKENS)} tokens more</span>"
    elif place is not None and place >= len(tokens):
        yield mark
    if record.error is not None:
        yield f"<span class=quiet>{_text(record.error)}</span>"


_PAGE = """<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f23; --quiet: #57606a; --paper: #fff; --card: #f6f8fa;
  --rule: #d0d7de; --mark: #b0156b; --blue: 0 114 178; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --paper: #0d1117;
  --card: #161b22; --rule: #30363d; --mark: #ff7ac0; --blue: 50 150 230; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "Hiragino Sans", sans-serif; }
main { max-width: 100rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: .95rem; margin: 1rem 0 .4rem; } h4 { font-size: .9rem; margin: 0; }
p { margin: .3rem 0; } .quiet, figcaption, small { color: var(--quiet); font-size: .85rem; }
.wide { overflow: auto; max-height: 92vh; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
th { vertical-align: bottom; position: sticky; top: 0; background: var(--card); text-align: right; }
th button { all: unset; cursor: pointer; padding: .4rem .28rem; font-weight: 600; font-size: .72rem;
  line-height: 1.2; overflow-wrap: normal; }
th button:focus-visible, .wide:focus-visible { outline: 2px solid rgb(var(--blue)); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td { padding: .2rem .28rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
.word { text-align: left; }
td small { display: block; font-size: .66rem; letter-spacing: -.01em; }
tbody tr:hover { background: var(--card); }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: 0; } figure img { max-width: 100%; background: #fff; border-radius: 6px; }
details { border-top: 1px solid var(--rule); padding: .5rem 0; } summary { cursor: pointer; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .7rem; }
article { background: var(--card); border-radius: 6px; padding: .6rem .8rem; min-width: 0; }
.again { align-self: start; }
.prompts ul { margin: .3rem 0; padding-left: 1.2rem; } [hidden] { display: none !important; }
input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; padding: .3rem .6rem; margin: .3rem 0 .6rem; width: min(30rem, 100%); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin-top: .3rem; }
.text span, .legend span { border-radius: 2px; }
.mark { color: var(--mark); }
pre { overflow: auto; background: var(--card); padding: .8rem; border-radius: 6px; }
@media print { .wide { max-height: none; } .text { print-color-adjust: exact; } }
""" + css()

_SCRIPT = """
const table = document.querySelector("table"), body = table.tBodies[0];
table.tHead.addEventListener("click", event => {
  const head = event.target.closest("th");
  if (!head) return;
  const down = head.ariaSort === "ascending", at = head.cellIndex;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[at].dataset.v;
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
});
for (const field of document.querySelectorAll("input[data-rows]"))
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const whole = /[0-9]$/.test(wanted) ? wanted + " " : wanted;  // 0 is not the start of 0.7
    for (const row of document.querySelectorAll(field.dataset.rows)) {
      const heads = row.cells ? table.tHead.rows[0].cells : [];
      const parts = [...row.children].map((part, k) => row.cells
        ? `${heads[k].textContent} ${part.firstChild?.textContent}` : part.textContent);
      const name = row.closest(".block")?.firstChild.textContent ?? "";
      row.hidden = !`${name} ${parts.join(" ")} `.toLowerCase().includes(whole);
    }
    if (field.dataset.rows !== "article") return;
    for (const part of document.querySelectorAll(".block, section > details:has(article)")) {
      part.hidden = !part.querySelector("article:not([hidden])");
      if (wanted && part.open === false) part.open = true;
    }
  });
"""
