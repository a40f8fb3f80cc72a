"""Whose texts the model learned from: the attribution that goes with the weights."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from recipes.builtin_model.prepare import normalise

_SOURCES = """\
# Credits

The built-in model learned from these texts. Thanks to everyone who wrote, translated, collected
and shared them.

| source | what was used | licence |
|---|---|---|
| TinyStories, Ronen Eldan and Yuanzhi Li, 2023, arXiv 2305.07759 | about 23,000 short stories, \
found in public repositories; a sample of held-out ones is in \
`recipes/builtin_model/heldout.json.gz` | CDLA-Sharing-1.0 |
| FairytaleQA, github.com/uci-soe/FairytaleQAData | 262 old fairy tales from Project Gutenberg | \
public domain in the USA; the collection Apache-2.0 |
| Project Gutenberg, by way of github.com/GITenberg | 28 books for children | public domain in the \
USA |
| Standard Ebooks | Aesop's fables (V. S. Vernon Jones), The Wonderful Wizard of Oz, Alice's \
Adventures in Wonderland | public domain in the USA; editions CC0-1.0 |
| African Storybook, github.com/global-asp/asp-source | the stories listed below | CC-BY (see each \
story's page) |
| Pratham Books StoryWeaver, github.com/global-asp/pb-source | the stories listed below | CC-BY, one \
in the public domain |
| TinyFabulist, github.com/klusai/tinyfabulist | machine-written fables (Mistral-7B-Instruct-v0.3, \
Qwen2.5-7B, SmolLM2-1.7B-Instruct, Phi-3-mini-4k-instruct) | MIT |
| github.com/samayo/country-json | countries and continents | MIT |
| github.com/dariusk/corpora | capitals, US state capitals, elements, fruits, vegetables, animals, \
proverbs | CC0-1.0 |
| `knowledge.toml` | common knowledge, written for this project | MIT, as the project |

All texts were changed: quotes and spaces made plain, duplicates left out, long ones cut. The
CDLA-Sharing-1.0 agreement of TinyStories is at https://cdla.dev/sharing-1-0/; the sample in
`heldout.json.gz` is data under that agreement and stays under it.
"""


def credits_text(corpora: Path) -> str:
    """`CREDITS.md`: the sources, then author, title and translator of every storybook."""
    lines = [_SOURCES]
    names = {
        "african-storybook": "African Storybook",
        "pratham-books": "Pratham Books StoryWeaver",
    }
    for path in sorted((corpora / "storybooks-cc-by").glob("*.jsonl")):
        lines.append(f"\n## {names.get(path.stem, path.stem)}\n")
        by_author: dict[str, list[str]] = defaultdict(list)
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                book = json.loads(line)
                title = normalise(book["title"]).replace("\n", " ")
                if book.get("translation"):
                    title += f" (translated by {book['translation']})"
                by_author[book["author"].strip() or "unknown author"].append(title)
        lines += [
            f"- {author}: {'; '.join(titles)}" for author, titles in sorted(by_author.items())
        ]
    return "\n".join(lines) + "\n"
