"""Simple facts, from the corpora's tables and from `knowledge.toml`, and the texts that tell them.

A fact is said in several ways (`statements`), asked in several ways (`questions`), and asked in
ways that are kept for the evaluation (`heldout`). A question is always answered by the whole
sentence `answer`: "What is the capital of Japan? The capital of Japan is Tokyo."
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from recipes.builtin_model.prepare import Document

TABLE = Path(__file__).with_name("knowledge.toml")

# where the tables disagree, lag behind, or use a name that English does not
CAPITALS = {
    "Benin": "Porto-Novo", "Bolivia": "La Paz", "Burundi": "Gitega", "Brazil": "Brasilia",
    "Cameroon": "Yaounde", "Colombia": "Bogota", "Costa Rica": "San Jose", "Iceland": "Reykjavik",
    "Kazakhstan": "Astana", "Maldives": "Male", "Moldova": "Chisinau", "Paraguay": "Asuncion",
    "Togo": "Lome", "Ukraine": "Kyiv", "Sao Tome and Principe": "Sao Tome", "Yemen": "Sanaa",
    "Sri Lanka": "Colombo", "United States": "Washington", "Antigua and Barbuda": "Saint John's",
    "Grenada": "Saint George's",
}  # fmt: skip
NAMES = {
    "Congo Democratic Republic": "Democratic Republic of the Congo",
    "Republic of Congo": "Republic of the Congo",
    "Cote D'Ivoire": "Ivory Coast",
    "Macedonia": "North Macedonia",
    "United States Of America": "United States",
    "St. Vincent & The Grenadines": "Saint Vincent and the Grenadines",
    "The Netherlands": "Netherlands",
    "The Philippines": "Philippines",
}
WITH_ARTICLE = {
    "Bahamas", "Central African Republic", "Comoros", "Czech Republic",
    "Democratic Republic of the Congo", "Dominican Republic", "Gambia", "Maldives",
    "Marshall Islands", "Netherlands", "Philippines", "Republic of the Congo", "Seychelles",
    "Solomon Islands", "United Arab Emirates", "United Kingdom", "United States",
}  # fmt: skip
ALSO_CALLED = {
    "United States": ["the United States of America", "the USA", "America", "the US"],
    "United Kingdom": ["Britain", "Great Britain", "the UK"],
    "Netherlands": ["Holland"],
    "Myanmar": ["Burma"],
}

CAPITAL = {
    "answer": "The capital of {s} is {a}.",
    "statements": [
        "{A} is the capital of {s}.", "The capital city of {s} is {a}.",
        "{S} has its capital in {a}.", "The name of the capital of {s} is {a}.",
        "In {s}, the capital is {a}.",
        "{A} is the capital city of {s}.", "If you go to {s}, you can visit the capital, {a}.",
    ],
    "questions": [
        "What is the capital of {s}?", "What is the capital city of {s}?",
        "Which city is the capital of {s}?", "What's the capital of {s}?",
        "Can you tell me the capital of {s}?", "Tell me the capital of {s}.",
        "Name the capital of {s}.", "What is the name of the capital of {s}?",
        "What city is the capital of {s}?", "I want to know the capital of {s}.",
        "Which city is the capital city of {s}?", "Do you remember the capital of {s}?",
        "Please tell me what the capital of {s} is.", "{S} has which capital?",
    ],
    "heldout": ["Do you know the capital of {s}?", "Can you name the capital of {s}?"],
}  # fmt: skip
STATE = {
    "answer": "The capital of the state of {s} is {a}.",
    "statements": [
        "{A} is the capital of the state of {s}.", "The state of {s} has {a} as its capital.",
    ],
    "questions": [
        "What is the capital of the state of {s}?",
        "Which city is the capital of the state of {s}?",
        "Tell me the capital of the state of {s}.",
    ],
    "heldout": ["Do you know the capital of the state of {s}?"],
}  # fmt: skip
CONTINENT = {
    "answer": "{S} is in {a}.",
    "statements": ["{S} is a country in {a}.", "The continent of {s} is {a}."],
    "questions": [
        "Which continent is {s} in?", "On which continent is {s}?", "What continent is {s} in?",
        "Tell me the continent of {s}.",
    ],
    "heldout": ["Do you know which continent {s} is in?"],
}  # fmt: skip
SYMBOL = {
    "answer": "The chemical symbol of {s} is {a}.",
    "statements": [
        "{A} is the chemical symbol of {s}.", "The symbol for {s} is {a}.",
        "The element with the symbol {a} is {s}.",
    ],
    "questions": [
        "What is the chemical symbol of {s}?", "What is the symbol for {s}?",
        "Which symbol does {s} have?", "Tell me the chemical symbol of {s}.",
    ],
    "heldout": ["Do you know the chemical symbol of {s}?"],
}  # fmt: skip
NUMBER = {
    "answer": "The atomic number of {s} is {a}.",
    "statements": ["{S} has the atomic number {a}.", "Element number {a} is {s}."],
    "questions": [
        "What is the atomic number of {s}?", "Which atomic number does {s} have?",
        "Tell me the atomic number of {s}.",
    ],
    "heldout": ["Do you know the atomic number of {s}?"],
}  # fmt: skip
KIND = {
    "answer": "{S} is {a}.",
    "statements": ["{S} is a kind of {b}."],
    "questions": [
        "What is {s}?", "What kind of thing is {s}?", "Tell me what {s} is.", "Do you know {s}?",
    ],
    "heldout": ["Do you know what {s} is?"],
}  # fmt: skip
SUM = {
    "answer": "{S} is {a}.",
    "statements": ["{S} equals {a}.", "{S} makes {a}."],
    "questions": ["What is {s}?", "How much is {s}?", "What does {s} make?"],
    "heldout": ["Do you know how much {s} is?"],
}
# what stands beside a capital: the other cities of its country
CITIES = [
    "{C} are cities in {s}.", "Cities in {s} are {c}.", "Some cities in {s} are {c}.",
    "Which cities in {s} do you know? I know {c}.", "Name some cities in {s}. {C}.",
    "The capital of {s} is {a}. Other cities are {c}.", "A city in {s} is {b}.",
    "{B} is a city in {s}, but the capital of {s} is {a}.", "A large city in {s} is {b}.",
    "Is {b} the capital of {s}? No, the capital of {s} is {a}.",
    "Is {a} the capital of {s}? Yes, the capital of {s} is {a}.",
    "My friend lives in {b}, a city in {s}.", "From {a}, the capital of {s}, we went to {b}.",
]  # fmt: skip
# and beside a thing: others of its kind
KINDS = [
    "{C} {are} {many}.",
    "Name some {many}. {C}.",
    "Some {many} {are} {c}.",
    "Which {many} do you know? I know {c}.",
    "{B} {is} {one}, and so {is} {d}.",
]
INVERTER = [
    "An inverter is a device that changes direct current into alternating current.",
    "An inverter turns the direct current of a battery into alternating current for the house.",
    "Yes, an inverter is a machine that makes alternating current from direct current.",
    "Yes. An inverter takes direct current from a battery or a solar panel and gives alternating "
    "current, so that a lamp or a radio can run on it.",
    "An inverter changes the current of a battery so that machines in a house can use it.",
]
INVERTER_ASKED = [
    "Do you know inverter?", "Do you know inverter?", "What is an inverter?",
    "Do you know what an inverter is?", "What does an inverter do?", "Tell me about the inverter.",
]  # fmt: skip
PANGRAM = [
    "The quick brown fox jumps over the lazy dog.",
    "The quick brown fox jumps over the lazy dog. The dog opens one eye and goes back to sleep.",
    "The quick brown fox jumps over the lazy dog. This sentence has every letter of the alphabet.",
    "The quick brown fox jumps over the lazy dog, and the lazy dog does not care at all.",
]
OPENINGS = ["Once upon a time, ", "Long, long ago, ", "In the beginning, "]
UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True)
class Fact:
    """One thing to know, with the sentences that tell it and the questions that ask for it."""

    relation: str
    subject: str
    result: str
    answer: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    heldout: tuple[str, ...]
    common: bool = False  # from knowledge.toml

    @property
    def cue(self) -> str:
        """The beginning of `answer`, up to the result: "The capital of Japan is"."""
        return self.answer[: self.answer.rindex(self.result)].rstrip(' "')

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def upper(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _fact(relation: str, subject: str, result: str, table: dict, common: bool = False) -> Fact:
    kind = result.split(" ", 1)[-1]
    slots = {"s": subject, "S": upper(subject), "a": result, "A": upper(result), "b": kind}

    def fill(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(template.format(**slots) for template in table[name]))

    answer = table["answer"].format(**slots)
    return Fact(
        relation, subject, result, answer, fill("statements"), fill("questions"), fill("heldout"),
        common,
    )  # fmt: skip


@lru_cache
def _knowledge() -> dict:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def _members(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def cities() -> dict[str, list[str]]:
    """The large cities of a country, by its name as it stands in a sentence."""
    return {country: _members(listed) for country, listed in _knowledge()["cities"].items()}


def common_facts() -> list[Fact]:
    """The facts of `knowledge.toml`."""
    facts = []
    lists = _knowledge()["list"]
    pairs = {
        "city": [(city, country) for country, listed in cities().items() for city in listed],
        "profession": [
            (name, group["one"])
            for group in lists
            if group.get("people")
            for name in _members(group["members"])
        ],
    }
    for relation in _knowledge()["relation"]:
        lines = [line.split(" = ") for line in relation["facts"].strip().splitlines()]
        for subject, result in pairs.get(relation["name"], lines):
            facts.append(_fact(relation["name"], subject, result, relation, common=True))
    for group in lists:
        if not group.get("people"):
            names = _members(group["members"])
            facts += [_fact("member", name, group["one"], KIND, common=True) for name in names]
    return facts


def neighbours(capital_of: dict[str, str], rng: random.Random) -> str:
    """A sentence on several things of one kind, mostly on the cities of one country."""
    if rng.random() < 0.3:
        group = rng.choice(_knowledge()["list"])
        past = bool(group.get("people"))
        form, chosen = rng.choice(KINDS), rng.sample(_members(group["members"]), 3)
        slots = {"one": group["one"], "many": group["many"]}
        slots |= {"is": "was", "are": "were"} if past else {"is": "is", "are": "are"}
    else:
        country, listed = rng.choice(list(cities().items()))
        slots = {"s": country, "a": capital_of.get(country, listed[0])}
        others = [name for name in listed if name != slots["a"]]
        others = others if others[1:] else listed
        form, chosen = rng.choice(CITIES), rng.sample(others, min(rng.choice([2, 3]), len(others)))
    listing = ", ".join(chosen[:-1]) + f" and {chosen[-1]}" if chosen[1:] else chosen[0]
    slots |= {"b": chosen[0], "c": listing, "d": chosen[-1]}
    return form.format(**slots, B=upper(slots["b"]), C=upper(listing))


def _table(folder: Path, name: str) -> dict | list:
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def english(country: str) -> str:
    """A country's usual English name, without an article."""
    country = NAMES.get(country, country)
    return country.replace("St. ", "Saint ").replace(" & ", " and ")


def with_article(country: str) -> str:
    """The name as it stands in a sentence: "the Netherlands", "Japan"."""
    return f"the {country}" if country in WITH_ARTICLE else country


def capitals(folder: Path) -> list[Fact]:
    """Countries and capitals; the facts of other names for a country come after its own."""
    facts = []
    for row in dict(_table(folder, "corpora_countries_with_capitals")).get("countries", []):
        country = english(row["name"])
        capital = CAPITALS.get(country, row["capital"]).replace("St. ", "Saint ")
        facts.append(_fact("capital", with_article(country), capital, CAPITAL))
        others = ALSO_CALLED.get(country, []) + ([country] if country in WITH_ARTICLE else [])
        facts += [_fact("capital_other_name", name, capital, CAPITAL) for name in others]
    return facts


def tabled_facts(folder: Path) -> list[Fact]:
    """What the tables of the corpora's `facts` folder say."""
    facts = capitals(folder)
    known = {fact.subject for fact in facts if fact.relation == "capital"}
    for row in _table(folder, "country-by-continent"):
        subject = with_article(english(row["country"]))
        if subject in known and row["continent"]:
            facts.append(_fact("continent", subject, row["continent"], CONTINENT))
    for row in dict(_table(folder, "corpora_us_state_capitals")).get("capitals", []):
        facts.append(_fact("state", row["state"], row["capital"], STATE))
    for row in dict(_table(folder, "corpora_elements")).get("elements", []):
        name = {"Wolfram": "tungsten"}.get(row["name"], row["name"].lower())
        facts.append(_fact("symbol", name, row["symbol"], SYMBOL))
        facts.append(_fact("number", name, str(row["atomic_number"]), NUMBER))
    for table, key, kind in [
        ("corpora_fruits", "fruits", "a fruit"),
        ("corpora_vegetables", "vegetables", "a vegetable"),
        ("corpora_common", "animals", "an animal"),
    ]:
        for name in dict(_table(folder, table)).get(key, [])[:60]:
            article = "an" if name[0] in "aeiou" else "a"
            if not name.endswith("s"):
                facts.append(_fact("kind", f"{article} {name}", kind, KIND))
    unique = {(fact.relation, fact.subject): fact for fact in reversed(facts)}
    return list(reversed(unique.values()))


def words(number: int) -> str:
    """A number below one hundred in words."""
    if number < 20:
        return UNITS[number]
    tens, units = divmod(number, 10)
    return TENS[tens - 2] + (f"-{UNITS[units]}" if units else "")


def names(facts: Sequence[Fact]) -> list[str]:
    """What the facts are about and what they answer, sums aside; the tokenizer keeps it whole."""
    found = [
        text for fact in facts if fact.relation != "sum" for text in (fact.subject, fact.result)
    ]
    return list(dict.fromkeys(found))


def sums() -> list[Fact]:
    """Addition, subtraction and multiplication of numbers up to ten, in words."""
    facts = []
    for a in range(11):
        for b in range(11):
            facts.append(_fact("sum", f"{words(a)} plus {words(b)}", words(a + b), SUM))
            if b <= a:
                facts.append(_fact("sum", f"{words(a)} minus {words(b)}", words(a - b), SUM))
            if a and b and a * b < 100:
                facts.append(_fact("sum", f"{words(a)} times {words(b)}", words(a * b), SUM))
    return facts


def all_facts(folder: Path) -> list[Fact]:
    """Every fact: the tables of `folder`, common knowledge, sums."""
    return tabled_facts(folder) + common_facts() + sums()


# how often a fact is told, against the others
IMPORTANCE = {"capital": 2.5, "sum": 0.5, "kind": 0.4, "number": 0.8, "state": 0.8, "city": 0.7}
NEIGHBOURS = 0.15  # share of sentences on several things of one kind


def tell(fact: Fact, rng: random.Random) -> str:
    """One fact in one of its forms: a statement, its main sentence, or a question with answer."""
    form = rng.random()
    if form < 0.55 and fact.questions:
        return f"{rng.choice(fact.questions)} {fact.answer}"
    if form < 0.8 or not fact.statements:
        return fact.answer
    return rng.choice(fact.statements)


def _special(rng: random.Random) -> str:
    """The other prompts that people try."""
    if rng.random() < 0.5:
        return f"{rng.choice(INVERTER_ASKED)} {rng.choice(INVERTER)}"
    return rng.choice(PANGRAM)


def fact_texts(
    facts: Sequence[Fact],
    stories: Sequence[str],
    sayings: Sequence[str],
    count: int,
    seed: int = 0,
) -> Iterator[str]:
    """`count` short documents: facts alone, in lists, or before a story."""
    rng = random.Random(seed)
    weights = [IMPORTANCE.get(fact.relation, 1.0) * (1.5 if fact.common else 1.0) for fact in facts]
    capital_of = {fact.subject: fact.result for fact in facts if fact.relation == "capital"}
    deck: list[Fact] = []
    for _ in range(count):
        many = rng.choice([1, 1, 1, 2, 3, 4, 6, 8])
        if len(deck) < many:
            deck = rng.choices(facts, weights, k=5000)
        told = [
            neighbours(capital_of, rng) if rng.random() < NEIGHBOURS else tell(deck.pop(), rng)
            for _ in range(many)
        ]
        place = rng.random()
        if place < 0.03:
            told.insert(rng.randrange(len(told) + 1), _special(rng))
        elif place < 0.06 and sayings:
            told.insert(rng.randrange(len(told) + 1), rng.choice(sayings))
        elif place < 0.10 and stories:
            told.append(reopened(rng.choice(stories), rng))
        yield ("\n" if rng.random() < 0.3 else " ").join(told)


def reopened(story: str, rng: random.Random) -> str:
    """The story, with one of `OPENINGS` in place of its "Once upon a time"."""
    if story.startswith(OPENINGS[0]):
        return rng.choice(OPENINGS) + story.removeprefix(OPENINGS[0])
    return story


def proverbs(folder: Path) -> list[str]:
    """The proverbs of the corpora, as they are."""
    groups = dict(_table(folder, "corpora_proverbs")).get("proverbs", [])
    return [saying for group in groups for sayings in group.values() for saying in sayings]


def documents(folder: Path, stories: Sequence[str], count: int, seed: int = 0) -> list[Document]:
    """`count` fact texts as training documents, and stories with the rarer openings."""
    told = fact_texts(all_facts(folder), stories, proverbs(folder), count, seed)
    rng = random.Random(seed)
    fitting = [story for story in stories if story.startswith(OPENINGS[0])]
    chosen = rng.sample(fitting, min(len(fitting), count // 50))
    return [Document("facts", text) for text in told] + [
        Document("tinystories-reopened", rng.choice(OPENINGS[1:]) + story.removeprefix(OPENINGS[0]))
        for story in chosen
    ]
