"""What docs/tour_text.md says: a function a section checks it, and gives the numbers that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tour import Session

ENGLISH, JAPANESE = "The capital of Japan is", "日本の首都は"
WOLF, STORY = "Once upon a time there was a wolf who had a", "Long, long ago, there was a"
LONG_AGO, ONCE = "Long, long ago,", "Once upon a time,"
Numbers = dict[str, str]


def claim(holds: bool, words: str) -> None:
    """Raises SystemExit where a sentence of the tour is no longer true."""
    if not holds:
        raise SystemExit(f"docs/tour_text.md is no longer true: {words}")


def beginning(session: Session) -> Numbers:
    model = session.json(f'decodecli inspect-logits "{ENGLISH}" -t 0.4,1.0,1.6')["model"]
    return {"parameters": f"{model['parameters'] / 1e6:.1f}"}


def tokens(session: Session) -> Numbers:
    english, japanese = (
        session.json(f'decodecli tokenize "{text}"')["tokens"] for text in (ENGLISH, JAPANESE)
    )
    claim(english[0]["token"] == "<s>", "BOS stands in front")
    pieces = [token["text"] for token in english[1:]]
    claim(pieces == [" " + word for word in ENGLISH.split()], "every word is one piece")
    kinds = [token["kind"] for token in japanese]
    claim(kinds == ["special", "normal"] + ["byte"] * 18, "no piece for the Japanese characters")
    texts = [token["text"] for token in japanese[2:]]
    claim(
        texts == [part for sign in JAPANESE for part in ("", "", sign)],
        "complete with the last byte",
    )
    return {
        "english": str(len(english)),
        "japanese": str(len(japanese)),
        "vocabulary": f"{_size(session):,}",
        "bytes": str(len("日".encode())),
    }


def vectors(session: Session) -> Numbers:
    few = session.json("decodecli embed cat dog Japan France")
    many = session.json("decodecli embed --file categories")
    near = session.json('decodecli embed "king - man + woman" --nearest 10')["nearest"][0]["tokens"]
    of = _cosines(few)
    claim(
        min(of("cat", "dog"), of("Japan", "France")) > 0.5 > 2 * of("cat", "Japan"),
        "words that are alike have vectors that are alike",
    )
    names, silhouettes = [word["word"] for word in many["words"]], many["silhouette"]["words"]
    for group in ("countries", "colours"):
        mine = [k for k, word in enumerate(many["words"]) if word["group"] == group]
        mean = sum(silhouettes[k] for k in mine) / len(mine)
        claim(mean > 0.3, f"{group} keep together")
    claim(silhouettes[names.index("horse")] < 0, "horse is not among the animals")
    of_many = _cosines(many)
    claim(of_many("horse", "Japan") > of_many("horse", "cat"), "horse is nearer to Japan than cat")
    claim(all(token["token"] != "▁queen" for token in near), "queen is not among the ten nearest")
    return {
        "width": str(few["matrix"]["columns"]),
        "cat_dog": f"{of('cat', 'dog'):.2f}",
        "japan_france": f"{of('Japan', 'France'):.2f}",
        "cat_japan": f"{of('cat', 'Japan'):.2f}",
        "kept": _percent(many["pca"]["kept"], 0),
        "horse_japan": f"{of_many('horse', 'Japan'):.2f}",
        "horse_cat": f"{of_many('horse', 'cat'):.2f}",
    }


def next_token(session: Session) -> Numbers:
    answer = session.json(f'decodecli inspect-logits "{ENGLISH}" -t 0.4,1.0,1.6')
    story = session.json(f'decodecli inspect-logits "{STORY}" -t 0.4,1.0,1.6 --top-p 0.9')
    cold, _, hot = (at["tokens"] for at in story["temperatures"])
    claim(cold[0]["token"] == "▁little" and cold[0]["probability"] > 0.9, "T = 0.4 leaves little")
    claim(len(hot) == 10, "ten tokens are in view")
    claim(
        len({tuple(row["token"] for row in at["tokens"]) for at in answer["temperatures"]}) == 1,
        "the order is the same at every temperature",
    )
    name = session.json("decodecli tokenize Tokyo")["tokens"][1:]
    claim([token["text"] for token in name] == [" Tokyo"], "Tokyo is a token")
    first = [at["tokens"][0] for at in answer["temperatures"]]
    claim({row["token"] for row in first} == {"▁Tokyo"}, "Tokyo is ahead")
    return {
        "tokyo_1": _percent(first[1]["probability"]),
        "tokyo_16": _percent(first[2]["probability"]),
        "wrong_16": _percent(1 - first[2]["probability"]),
        "story_entropy": f"{story['temperatures'][1]['entropy']:.2f}",
        "answer_entropy": f"{answer['temperatures'][1]['entropy']:.2f}",
        "story_90": str(story["temperatures"][1]["covering"]["90"]),
        "answer_90": str(answer["temperatures"][1]["covering"]["90"]),
        "little": _percent(cold[0]["probability"]),
        "story_tail": _percent(1 - sum(row["probability"] for row in hot)),
    }


def greedy(session: Session) -> Numbers:
    with_bos, without = (
        session.printed(f'decodecli generate "{WOLF}" --greedy {more}--quiet')
        for more in ("", "--no-bos ")
    )
    claim(with_bos.split()[0] != without.split()[0], "BOS changes greedy's first word")
    report = session.json(f'decodecli inspect-logits "{WOLF}" --compare-bos -c 5')
    tops = [each["temperatures"][0]["tokens"][:2] for each in report["variants"]]
    with_names, without_names = ([row["token"] for row in top] for top in tops)
    claim(with_names == without_names[::-1], "the first two tokens change places")
    gap = tops[0][0]["probability"] - tops[0][1]["probability"]
    claim(0 < gap < 0.01, "the first two are all but level")
    japan, inverter, night = (
        [cell["text"] for cell in session.cells("bos", prompt_id=name)]
        for name in ("japan", "inverter", "night")
    )
    claim(all(text.startswith(" Tokyo.") for text in japan), "Tokyo, twice")
    claim("cities" in japan[0] and "cities" not in japan[1], "<s> makes it go on to other cities")
    claim(
        inverter[0] != inverter[1]
        and all("direct current" in text and "alternating current" in text for text in inverter),
        "two answers about the inverter, both right",
    )
    scared = max(text.count("scared") for text in night)
    claim(scared >= 3, "greedy repeats itself")
    return {
        "tv": f"{report['variants'][1]['total_variation']:.2f}",
        "gap": f"{100 * gap:.1f}",
        "scared": _word(scared),
    }


def nucleus(session: Session) -> Numbers:
    first, second = (
        record
        for record in session.json(
            f'decodecli generate "{STORY}" -t 1.4 --top-p 0.9 --seed 1 -n 2 -c 8'
        )
        if record["type"] == "step"
    )
    claim(first["kept"] > 300 and second["kept"] < 10, "the nucleus follows the model's doubt")
    wide = session.json(f'decodecli inspect-logits "{STORY}" -t 0.4,1.0,1.6 --top-p 0.9')
    kept = [at["kept"] for at in wide["temperatures"]]
    claim(kept == sorted(set(kept)), "a higher temperature widens the nucleus")
    chain = session.json(
        f'decodecli inspect-logits "{STORY}" -t 1.4 --top-k 12 --top-p 0.9 --min-p 0.06 -c 14'
    )
    (at,) = chain["temperatures"]
    removed = [row["removed_by"] for row in at["tokens"]]
    claim(set(removed) == {None, "top_k", "top_p", "min_p"}, "each filter removes a token in view")
    claim(removed[12:] == ["top_k"] * 2 and "top_k" not in removed[:12], "top-k leaves 12")
    claim(removed.count(None) == at["kept"], "what is kept is in view")
    return {
        "kept_first": str(first["kept"]),
        "kept_second": str(second["kept"]),
        "after_top_p": str(removed.count(None) + removed.count("min_p")),
        "after_min_p": str(at["kept"]),
    }


def five_times(session: Session) -> Numbers:
    low, middle, high = session.settings("five-times")
    greedy = session.printed(f'decodecli generate "{LONG_AGO}" --greedy -n 60 --quiet')
    cells = session.cells("five-times", temperature=0.2, top_p=0.2)
    claim(
        {cell["text"].strip() for cell in cells} == {greedy.strip()},
        "at top-p 0.2 and T = 0.2 every run is greedy's",
    )
    claim(middle["identical"] == high["identical"] == 0, "no two runs alike at T = 1.4")
    claim(middle["perplexity"] < 1.2 * low["perplexity"], "a small nucleus tames a temperature")
    claim(high["perplexity"] > 3 * middle["perplexity"], "a large one does not")
    claim(high["self_bleu_4"] < 0.15 < middle["self_bleu_4"], "its runs share next to nothing")
    distinct = [setting["distinct_2"] for setting in (low, middle, high)]
    claim(max(distinct) - min(distinct) < 0.1, "distinct-2 hardly tells them apart")
    return {
        "identical": _percent(low["identical"], 0),
        "perplexity_low": f"{low['perplexity']:.1f}",
        "perplexity_middle": f"{middle['perplexity']:.1f}",
        "perplexity_high": f"{high['perplexity']:.1f}",
        "bleu_middle": f"{middle['self_bleu_4']:.2f}",
        "bleu_high": f"{high['self_bleu_4']:.2f}",
        "distinct": ", ".join(f"{value:.2f}" for value in distinct),
    }


def knowledge_and_stories(session: Session) -> Numbers:
    answers, stories = (session.settings("both", task=task) for task in ("knowledge", "stories"))
    accuracy, bleu, distinct = (
        [setting[name] for setting in settings]
        for settings, name in (
            (answers, "accuracy"),
            (stories, "self_bleu_4"),
            (stories, "distinct_1"),
        )
    )
    claim(_falls(accuracy) and accuracy[-1] < accuracy[0] / 2, "accuracy falls with T")
    claim(_falls(bleu) and distinct[0] < distinct[-1], "stories grow more varied with T")
    claim(stories[0]["temperature"] == 0.2 and stories[-1]["temperature"] == 2, "T from 0.2 to 2")
    (one,) = (k for k, setting in enumerate(answers) if setting["temperature"] == 1)
    claim(accuracy[one] > 0.9 and bleu[one] < 0.2, "T = 1: mostly right, few phrases shared")
    cells = session.cells("both")
    prompts = {cell["prompt_id"]: cell["task"] for cell in cells}
    claim(len({cell["seed"] for cell in cells}) == 5, "five seeds")
    nats = -stories[-1]["mean_logprob"]
    claim(nats > 7 and distinct[-1] > 0.95, "at T = 2 stories mean nothing, and repeat nothing")
    return {
        "knowledge": str(list(prompts.values()).count("knowledge")),
        "stories": _word(list(prompts.values()).count("stories")),
        "cells": f"{len(cells):,}",
        "accuracy_low": _percent(accuracy[0], 0),
        "accuracy_one": _percent(accuracy[one], 0),
        "accuracy_high": _percent(accuracy[-1], 0),
        "story_bleu_low": f"{bleu[0]:.2f}",
        "story_bleu_one": f"{bleu[one]:.2f}",
        "story_distinct_low": f"{distinct[0]:.2f}",
        "story_distinct_high": f"{distinct[-1]:.2f}",
        "nats": f"{nats:.1f}",
    }


def extremes(session: Session) -> Numbers:
    (greedy,) = session.cells("bos", prompt_id="once", bos=True)
    for temperature in (0.001, 0.01):
        for cell in session.cells("extremes", prompt_id="once", temperature=temperature):
            same = greedy["token_ids"][: cell["new_tokens"]] == cell["token_ids"]
            claim(same, f"T = {temperature} is greedy")
    likely = [setting["mean_logprob"] for setting in session.settings("extremes", prompt="once")]
    claim(_falls(likely[1:]) and likely[3] < -4 and likely[4] < -10, "words fall apart at T = 1.8")
    report = session.json(f'decodecli inspect-logits "{ONCE}" -t 0.001,0.01,1,1.8,20 -c 6')
    _, cold, one, _, dice = report["temperatures"]
    size = _size(session)
    claim(math.log(size) - dice["entropy"] < 0.02, "T = 20 is all but uniform")
    names = [row["token"] for row in one["tokens"][:2]]
    claim(names == ["▁there", "▁in"], "there and in are the first tokens")
    ahead = one["tokens"][0]["logit"] - one["tokens"][1]["logit"]
    claim(round(ahead) == 2, "in is two behind")
    return {
        "entropy_20": f"{dice['entropy']:.2f}",
        "vocabulary": f"{size:,}",
        "uniform": f"{math.log(size):.2f}",
        "there_1": _percent(one["tokens"][0]["probability"]),
        "in_001": f"{cold['tokens'][1]['probability']:.0e}",
        "there_20": _percent(dice["tokens"][0]["probability"], 2),
    }


def by_hand(session: Session) -> Numbers:
    logits = {"day": 5.0, "space": 2.2, "furniture": 2.0, "heaven": 4.5}
    line = "decodecli softmax " + " ".join(f"{name}={x}" for name, x in logits.items())
    half, one, two = session.json(f"{line} -t 0.5,1,2")["temperatures"]
    filtered = session.json(f"{line} --top-p 0.8 --target heaven")["temperatures"][0]
    powers = {name: math.exp(x) for name, x in logits.items()}
    mass = powers["day"] / sum(powers.values())
    day, heaven = one["tokens"][:2]
    claim(math.isclose(day["probability"], mass), "softmax is what the hand has")
    ratios = [_ratio(at) for at in (half, one, two)]
    for ratio, temperature in zip(ratios, (0.5, 1, 2), strict=True):
        claim(math.isclose(ratio, math.exp(0.5 / temperature)), "only differences count")
    claim(day["probability"] < 0.8 and filtered["kept"] == 2, "top-p 0.8 takes two")
    cross = filtered["cross_entropy"]
    claim(math.isclose(cross, -math.log(heaven["probability"])), "cross-entropy is −ln p")
    return {
        "day_power": f"{powers['day']:.1f}",
        "powers": f"{sum(powers.values()):.1f}",
        "day_1": _percent(mass),
        "ratio_half": f"{ratios[0]:.2f}",
        "ratio_one": f"{ratios[1]:.2f}",
        "ratio_two": f"{ratios[2]:.2f}",
        "first_two": _percent(day["probability"] + heaven["probability"]),
        "day_final": _percent(filtered["tokens"][0]["final"]),
        "heaven_final": _percent(filtered["tokens"][1]["final"]),
        "cross": f"{cross:.2f}",
        "heaven_1": f"{heaven['probability']:.3f}",
    }


# In the order of the sections: what stands before the first, and so on.
CLAIMS: tuple[Callable[[Session], Numbers], ...] = (
    beginning,
    tokens,
    vectors,
    next_token,
    greedy,
    nucleus,
    five_times,
    knowledge_and_stories,
    extremes,
    by_hand,
    lambda session: {},
)


def _size(session: Session) -> int:
    """Tokens in the vocabulary."""
    return int(session.json(f'decodecli inspect-logits "{ENGLISH}" -t 0.4,1.0,1.6')["size"])


def _cosines(report: dict[str, Any]) -> Callable[[str, str], float]:
    """A function of two words: their cosine similarity in a report of `embed`."""
    names = [word["word"] for word in report["words"]]
    return lambda a, b: float(report["cosine"][names.index(a)][names.index(b)])


def _ratio(at: dict[str, Any]) -> float:
    """How many times as probable `day` is as `heaven`."""
    found = {row["token"]: row["probability"] for row in at["tokens"]}
    return float(found["day"] / found["heaven"])


def _falls(values: Sequence[float]) -> bool:
    """Whether the values never rise, and end below where they began."""
    return all(a >= b for a, b in pairwise(values)) and values[0] > values[-1]


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _word(count: int) -> str:
    """A small number in words."""
    names = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return names[count] if count < len(names) else str(count)
