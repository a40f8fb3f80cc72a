"""What the built-in model thinks of first is a name, and the notebook's words are tokens of it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from decodecli.builtin import model_path  # noqa: E402
from recipes.builtin_model import evaluate, knowledge  # noqa: E402

CAPITALS = {
    "Japan": "Tokyo", "France": "Paris", "Italy": "Rome", "Egypt": "Cairo", "Germany": "Berlin",
    "Spain": "Madrid", "Portugal": "Lisbon", "Greece": "Athens", "Russia": "Moscow",
    "China": "Beijing", "India": "New", "Turkey": "Ankara", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Austria": "Vienna", "Hungary": "Budapest", "Ireland": "Dublin", "Kenya": "Nairobi",
    "Cuba": "Havana", "Peru": "Lima", "Canada": "Ottawa", "Australia": "Canberra",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Iran": "Tehran",
}  # fmt: skip
NOTEBOOK = (
    "king queen prince princess baseball soccer tennis basketball man boy woman lady "
    "dog cat cow fish table idea character sea"
)


@pytest.fixture(scope="module")
def subject():
    return evaluate.load(model_path())


@pytest.fixture(scope="module")
def cities(subject) -> set[str]:
    """The first word of every capital and city of the facts."""
    names = [city for listed in knowledge.cities().values() for city in listed]
    names += [fact["result"] for fact in subject.facts if fact["relation"] in ("capital", "state")]
    return {f"▁{name.split()[0]}" for name in names}


@pytest.fixture(scope="module")
def likeliest(subject) -> dict[str, list[str]]:
    """The ten likeliest pieces after "The capital of X is", by country."""
    prompts = {country: f"The capital of {country} is" for country in CAPITALS}
    with torch.no_grad():
        return {
            country: [
                subject.tokenizer.id_to_token(token)
                for token in subject.model(torch.tensor([subject.tokenizer.encode(prompt).ids]))
                .logits[0, -1]
                .topk(10)
                .indices.tolist()
            ]
            for country, prompt in prompts.items()
        }


@pytest.mark.parametrize(("country", "capital"), CAPITALS.items())
def test_the_capital_comes_first_and_whole(likeliest, country: str, capital: str) -> None:
    assert likeliest[country][0] == f"▁{capital}"


def test_half_of_the_ten_likeliest_are_cities(likeliest, cities: set[str]) -> None:
    """After the first four countries, and 20 of the others."""
    full = [c for c, pieces in likeliest.items() if sum(piece in cities for piece in pieces) >= 5]
    assert full[:4] == list(CAPITALS)[:4]
    assert len(full) >= 24


@pytest.mark.parametrize("word", NOTEBOOK.split())
def test_a_word_of_the_notebook_is_one_piece(subject, word: str) -> None:
    assert subject.tokenizer.encode(word, add_special_tokens=False).tokens == [f"▁{word}"]


def test_every_name_of_a_fact_is_one_piece_a_word(subject) -> None:
    pieces = subject.tokenizer.get_vocab()
    names = [name for fact in knowledge.common_facts() for name in (fact.subject, fact.result)]
    words = {word for name in names for word in name.split() if word.isalpha() and len(word) > 1}
    assert not [word for word in words if f"▁{word}" not in pieces]
