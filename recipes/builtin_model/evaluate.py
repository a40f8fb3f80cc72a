"""What the built-in model can do, in numbers: `python -m recipes.builtin_model.evaluate`.

It works without the corpora: a sample of the held-out stories and the facts are in
`heldout.json.gz`. With `--corpora DIR` both are made anew and every held-out story counts.
`--write-card` puts the results into the model card.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM
from transformers.utils import logging

from decodecli.builtin import model_path
from recipes.builtin_model import card_text, knowledge, prepare
from recipes.builtin_model.measure import bits_per_byte, write

SAMPLE = Path(__file__).with_name("heldout.json.gz")
SAMPLE_BYTES = 450_000  # of story text; about a third of that when packed
PROMPTS = [
    "The capital of Japan is",
    "What is the capital of United States?",
    "When did World War II end?",
    "Who painted the Mona Lisa?",
    "Do you know inverter?",
    "The quick brown fox",
    "Once upon a time",
    "Once upon a time,",
    "Long, long ago,",
    "In the beginning,",
]
TEMPERATURES = [0.2, 0.7, 1.0, 1.4, 2.0]
SEEDS = range(5)


@dataclass
class Subject:
    """The model under evaluation, in float32, and what it is asked about."""

    model: LlamaForCausalLM
    tokenizer: Tokenizer
    stories: list[str]
    facts: list[dict[str, Any]]

    def write(self, prompts: Sequence[str], tokens: int, **how: Any) -> list[str]:
        """`measure.write` in batches of 128 prompts of similar length."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found = [""] * len(prompts)
        for first in range(0, len(order), 128):
            some = order[first : first + 128]
            texts = write(self.model, self.tokenizer, [prompts[i] for i in some], tokens, **how)
            for i, text in zip(some, texts, strict=True):
                found[i] = text
        return found


def make_sample(corpora: Path, size: int = SAMPLE_BYTES) -> dict[str, Any]:
    """Held-out stories up to `size` bytes, and every fact, as `heldout.json.gz` keeps them."""
    return sample(prepare.documents(corpora), knowledge.all_facts(corpora / "facts"), size)


def sample(
    found: Sequence[prepare.Document], facts: Sequence[knowledge.Fact], size: int = SAMPLE_BYTES
) -> dict[str, Any]:
    """The same from documents and facts that are already read."""
    stories: list[str] = []
    for document in found:
        if document.heldout and document.source == "tinystories":
            size -= len(document.text.encode())
            if size < 0:
                break
            stories.append(document.text)
    rows = [
        {
            "relation": fact.relation,
            "result": fact.result,
            "cue": fact.cue,
            "questions": fact.heldout,
            "common": fact.common,
        }
        for fact in facts
    ]
    return {"stories": stories, "facts": rows}


def save_sample(made: dict[str, Any], path: Path) -> None:
    """Write the sample packed, the same bytes for the same content."""
    packed = gzip.compress(json.dumps(made, ensure_ascii=False).encode(), 9, mtime=0)
    path.write_bytes(packed)


def unpacked(path: Path) -> dict[str, Any]:
    """What `save_sample` wrote."""
    return json.loads(gzip.decompress(path.read_bytes()))


def says(text: str, result: str) -> bool:
    """Whether the answer's words are in the first sentences of the text."""
    return re.search(rf"(?<!\w){re.escape(result)}(?!\w)", text.split("\n")[0]) is not None


def begins(text: str, result: str) -> bool:
    """Whether the text goes on with the answer's words at once (quote marks aside)."""
    return re.match(rf"\s*\"?{re.escape(result)}(?!\w)", text, re.IGNORECASE) is not None


def ends_rightly(text: str, fact: dict[str, Any]) -> bool:
    """Whether the text completes the fact's sentence; "a kind of fruit" is as right as "a fruit"."""
    noun = fact["result"].split(" ", 1)[-1]
    return begins(text, fact["result"]) or (
        fact["relation"] == "kind" and begins(text, f"a kind of {noun}")
    )


def stated(subject: Subject, facts: Sequence[dict[str, Any]], **how: Any) -> float:
    """Share of the facts whose sentence is ended rightly: "The capital of Japan is" → "Tokyo"."""
    texts = subject.write([fact["cue"] for fact in facts], 12, **how)
    right = [ends_rightly(text, fact) for text, fact in zip(texts, facts, strict=True)]
    return sum(right) / max(len(right), 1)


def asked(subject: Subject, facts: Sequence[dict[str, Any]]) -> float:
    """Share of held-out questions answered rightly, greedily; every such wording of every fact."""
    pairs = [(question, fact) for fact in facts for question in fact["questions"]]
    texts = subject.write([question for question, _ in pairs], 30)
    right = [
        says(text[: len(fact["cue"]) + len(fact["result"]) + 30], fact["result"])
        for text, (_, fact) in zip(texts, pairs, strict=True)
    ]
    return sum(right) / max(len(right), 1)


def knowledge_results(subject: Subject) -> dict[str, Any]:
    """Greedy accuracy by kind of fact, stated and asked in held-out words."""
    groups: dict[str, list[dict[str, Any]]] = {"capitals": [], "common knowledge": []}
    titles = {
        "state": "capitals of US states",
        "continent": "continents",
        "symbol": "symbols of elements",
        "number": "atomic numbers",
        "sum": "sums up to ten",
        "kind": "fruits, vegetables, animals",
        "capital_other_name": "capitals, other names of countries",
    }
    for fact in subject.facts:
        title = titles.get(fact["relation"], "common knowledge")
        title = "capitals" if fact["relation"] == "capital" else title
        groups.setdefault(title, []).append(fact)
    return {
        title: {
            "facts": len(facts),
            "stated": stated(subject, facts),
            "asked in held-out words": asked(subject, facts),
        }
        for title, facts in groups.items()
    }


def temperature_results(subject: Subject, stories: int) -> list[dict[str, float]]:
    """Accuracy over five seeds and distinct trigrams of sampled stories, by temperature."""
    core = [f for f in subject.facts if f["relation"] == "capital" or f["common"]][:400]
    rows = []
    for temperature in TEMPERATURES:
        accuracies = [stated(subject, core, temperature=temperature, seed=seed) for seed in SEEDS]
        texts = subject.write(["Once upon a time,"] * stories, 120, temperature=temperature, seed=0)
        rows.append(
            {
                "temperature": temperature,
                "accuracy": sum(accuracies) / len(accuracies),
                "lowest": min(accuracies),
                "highest": max(accuracies),
                "distinct_trigrams": distinct_trigrams(texts),
                "known_words": known_words(texts, subject.stories),
            }
        )
    return rows


def distinct_trigrams(texts: Sequence[str]) -> float:
    """Different runs of three words, over all of them."""
    runs = []
    for text in texts:
        words = text.lower().split()
        runs += list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) / max(len(runs), 1)


def known_words(texts: Sequence[str], stories: Sequence[str]) -> float:
    """Share of the texts' words that occur in the held-out stories."""
    known = {word for story in stories for word in re.findall(r"[a-z]+", story.lower())}
    words = [word for text in texts for word in text.lower().split()]
    plain = [re.sub(r"^[\W_]+|[\W_]+$", "", word) for word in words]
    return sum(word in known for word in plain) / max(len(plain), 1)


def prompt_results(subject: Subject) -> list[dict[str, Any]]:
    """Greedy text of each of the usual prompts, with and without `<s>`, and T = 0.001."""
    rows = []
    for prompt in PROMPTS:
        greedy, cold, bare = (
            subject.write([prompt], 80)[0],
            subject.write([prompt], 80, temperature=0.001, seed=0)[0],
            subject.write([prompt], 80, bos=False)[0],
        )
        rows.append(
            {
                "prompt": prompt,
                "greedy": greedy,
                "without_bos": bare,
                "cold_is_greedy": cold == greedy,
                "tokens": len(subject.tokenizer.encode(greedy, add_special_tokens=False).ids),
            }
        )
    return rows


@torch.no_grad()
def bos_divergence(subject: Subject) -> float:
    """Mean total variation between the next token's distributions with `<s>` and without."""
    distances = []
    for prompt in PROMPTS:
        ids = subject.tokenizer.encode(prompt).ids
        with_bos, without = (
            subject.model(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1)
            for row in (ids, ids[1:])
        )
        distances.append(0.5 * (with_bos - without).abs().sum().item())
    return sum(distances) / len(distances)


def evaluate(subject: Subject, quick: bool = False) -> dict[str, Any]:
    """Every number of the model card; `quick` takes a tenth of the stories and no temperatures."""
    stories = subject.stories[: len(subject.stories) // 10 + 1] if quick else subject.stories
    model, tokenizer = subject.model, subject.tokenizer
    hot = subject.write(["Once upon a time,"] * 5, 60, temperature=20.0, seed=0)
    return {
        "stories": len(stories),
        "bits_per_byte": bits_per_byte(model, tokenizer, stories),
        "bits_per_byte_without_bos": bits_per_byte(model, tokenizer, stories, bos=False),
        "bytes_per_token": sum(len(story.encode()) for story in stories)
        / sum(len(tokenizer.encode(story).ids) - 1 for story in stories),
        "knowledge": knowledge_results(subject),
        "temperatures": [] if quick else temperature_results(subject, 20),
        "prompts": prompt_results(subject),
        "bos_total_variation": bos_divergence(subject),
        "hot": {"text": hot[0], "known_words": known_words(hot, subject.stories)},
    }


def load(folder: Path, corpora: Path | None = None, packed: Path = SAMPLE) -> Subject:
    """The model of a folder and its questions, from the corpora or a packed sample."""
    made = make_sample(corpora, 1 << 40) if corpora else unpacked(packed)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Subject(model, tokenizer, made["stories"], made["facts"])


def main(words: Sequence[str] | None = None) -> None:
    """Evaluate, print, and write the card if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.builtin_model.evaluate",
        description=(__doc__ or "").split("\n\n")[0],
    )
    parser.add_argument("--model", type=Path, default=model_path(), help="model folder")
    parser.add_argument("--corpora", type=Path, help="folder with the texts")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="held-out stories and facts")
    parser.add_argument("--quick", action="store_true", help="fewer stories, no temperatures")
    parser.add_argument("--write-card", action="store_true", help="put the results in the card")
    args = parser.parse_args(words)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    results = evaluate(load(args.model, args.corpora, args.sample), args.quick)
    print(card_text.results_text(results))
    if args.write_card:
        card_text.update(args.model, results)


if __name__ == "__main__":
    main()
