"""The recipe on a tiny corpus: it runs from end to end, takes up again, and keeps texts apart."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from decodecli.builtin import card, model_path  # noqa: E402
from recipes.builtin_model import evaluate, knowledge, prepare, train  # noqa: E402
from recipes.builtin_model.measure import bits_per_byte  # noqa: E402
from recipes.builtin_model.mixture import Mixture  # noqa: E402
from recipes.builtin_model.muon import orthogonalize  # noqa: E402
from recipes.builtin_model.tokenizer import train_tokenizer, with_words  # noqa: E402

NAMES = ["Lily", "Tom", "Ben", "Mia", "Sam", "Anna", "Max", "Sue", "Tim", "Rose"]
THINGS = ["ball", "kite", "cake", "boat", "drum", "flower", "stone", "book", "shell", "bell", "hat"]
PLACES = ["park", "garden", "forest", "kitchen", "river", "hill", "shop", "beach", "school"]
TINY = [
    *("--layers", "1", "--width", "32", "--heads", "2", "--inner", "64"),
    *("--parts", "500", "--vocabulary", "700"),
    *("--length", "64", "--rows", "4", "--facts", "30"),
    *("--no-compile", "--quick", "--threads", "1"),
]


def story(rng: random.Random) -> str:
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    middle = " ".join(
        f"{rng.choice(NAMES)} took the {rng.choice(THINGS)} to the {rng.choice(PLACES)}."
        for _ in range(8)
    )
    return f"Once upon a time, {name} had a {thing}. {name} went to the {place}.\n{middle}"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(0)
    (folder / "tinystories").mkdir()
    (folder / "facts").mkdir()
    text = "\n<|endoftext|>\n".join(story(rng) for _ in range(300))
    (folder / "tinystories" / "some.txt").write_text(text, encoding="utf-8")
    table = {
        "countries": [{"name": "Japan", "capital": "Tokyo"}, {"name": "Fiji", "capital": "Suva"}]
    }
    path = folder / "facts" / "corpora_countries_with_capitals.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("work")
    common = ["--corpora", str(corpora), "--work", str(work), *TINY]
    train.main([*common, "--tokens", "3000"])
    return work


def test_one_command_makes_a_folder_with_model_tokenizer_cards_and_credits(trained: Path) -> None:
    names = {path.name for path in (trained / "model").iterdir()}
    assert names >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "MODEL_CARD.md", "card.json", "CREDITS.md",
    }  # fmt: skip
    card = json.loads((trained / "model" / "card.json").read_text(encoding="utf-8"))
    assert card["tokens"] >= 3000
    assert card["bits_per_byte"] > 0
    assert "bits per byte" in (trained / "model" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_training_goes_on_where_its_checkpoint_stands(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = train.arguments(["--corpora", str(corpora), "--work", str(tmp_path), *TINY])
    args.tokens = 5120.0
    found = train.gather(args)
    tokenizer = train.tokenizer_for(args, found)
    whole = train.Trainer(args, found, tokenizer)
    for _ in range(20):
        whole._count(0.0)
        whole._step()
    half = train.Trainer(args, found, tokenizer)
    for _ in range(10):
        half._count(0.0)
        half._step()
    half._save()
    again = train.Trainer(args, found, tokenizer)
    assert "taken up again" in capsys.readouterr().out
    assert again.progress.steps == 10
    for _ in range(10):
        again._count(0.0)
        again._step()
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_decay_now_begins_the_decay_of_a_training_taken_up(corpora: Path, tmp_path: Path) -> None:
    common = ["--corpora", str(corpora), "--work", str(tmp_path), "--decay", "0.25", *TINY]
    args = train.arguments([*common, "--tokens", "1e5", "--decay-now"])
    found = train.gather(args)
    trainer = train.Trainer(args, found, train.tokenizer_for(args, found))
    assert trainer.progress.share == 0.75
    trainer._count(0.0)
    assert train.rate(trainer.progress.share, args.decay) < 1.0


def test_a_stopped_training_leaves_its_checkpoint(corpora: Path, tmp_path: Path) -> None:
    args = train.arguments(["--corpora", str(corpora), "--work", str(tmp_path), *TINY])
    found = train.gather(args)
    trainer = train.Trainer(args, found, train.tokenizer_for(args, found))
    trainer._ask_to_stop()
    with pytest.raises(SystemExit, match="goes on from the checkpoint"):
        trainer.run()
    assert trainer.checkpoint.exists()


def test_a_start_with_more_words_keeps_what_it_knew(trained: Path, tmp_path: Path) -> None:
    old = transformers.AutoModelForCausalLM.from_pretrained(trained / "model", dtype=torch.float32)
    pieces = Tokenizer.from_file(str(trained / "model" / "tokenizer.json"))
    assert len(pieces.encode("zebra", add_special_tokens=False).ids) > 1
    more = with_words(pieces, ["zebra"], [], pieces.get_vocab_size() + 1)
    weights = train.grown(old.state_dict(), pieces, more)
    table = weights["model.embed_tokens.weight"]
    parts = pieces.encode("zebra", add_special_tokens=False).ids
    assert torch.equal(table[:-1], old.get_input_embeddings().weight)
    torch.testing.assert_close(table[-1], table[parts].mean(0))
    assert torch.equal(weights["lm_head.weight"], table)


def test_names_are_pieces_first_and_then_the_commonest_words() -> None:
    texts = [story(random.Random(seed)) for seed in range(50)]
    parts = train_tokenizer(texts, 400)
    tokenizer = with_words(parts, ["Ulaanbaatar", "the blue whale"], ["a zither"] * 3, 404)
    added = [tokenizer.id_to_token(i) for i in range(400, 404)]
    assert added == ["▁Ulaanbaatar", "▁blue", "▁whale", "▁zither"]
    text = "In Ulaanbaatar (Ulaanbaatar!) a zither, zithers"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert "▁Ulaanbaatar" in ids.tokens
    assert "▁zither" in ids.tokens
    assert "▁zithers" not in ids.tokens
    assert tokenizer.decode(ids.ids) == text
    assert parts.encode("Tom took the cake").ids == tokenizer.encode("Tom took the cake").ids


def test_every_name_of_a_fact_is_a_word_for_the_tokenizer(corpora: Path) -> None:
    names = knowledge.names(knowledge.all_facts(corpora / "facts"))
    assert {"Tokyo", "Japan", "Kyoto", "soccer", "Claude Monet", "Jupiter"} <= set(names)
    assert "one plus one" not in names


def test_cities_stand_under_one_country_with_its_capital_among_them() -> None:
    listed = [city for members in knowledge.cities().values() for city in members]
    assert len(listed) == len(set(listed)) >= 250
    rng = random.Random(0)
    said = {knowledge.neighbours({"Japan": "Tokyo"}, rng) for _ in range(4000)}
    assert any("the capital of Japan is Tokyo" in text and "Kyoto" in text for text in said)
    assert not any("{" in text for text in said)


def test_a_pause_does_not_eat_the_time_budget() -> None:
    assert train.counted(600.0, [1.0, 1.1, 0.9, 600.0]) < 5.0
    assert train.counted(1.2, [1.0, 1.1, 1.2]) == 1.2


def test_the_learning_rate_climbs_stays_and_falls_to_nothing() -> None:
    assert train.rate(0.0, 0.5) < train.rate(0.005, 0.5) < train.rate(0.01, 0.5) == 1.0
    assert train.rate(0.5, 0.5) == 1.0
    assert train.rate(0.5, 0.65) < 1.0
    assert train.rate(0.99, 0.65) < 0.05
    assert train.rate(1.0, 0.65) == 0.0


def test_the_same_documents_are_held_out_every_time_and_none_is_in_the_training(
    corpora: Path,
) -> None:
    found = prepare.documents(corpora, heldout=0.2)
    assert found == prepare.documents(corpora, heldout=0.2)
    heldout = [d for d in found if d.heldout]
    assert heldout
    training = set().union(*(prepare.grams(d.text) for d in found if not d.heldout))
    for document in heldout:
        own = prepare.grams(document.text)
        assert len(own & training) <= prepare.HELDOUT_SHARE * len(own)


def test_a_story_that_differs_in_case_and_quotes_only_is_a_duplicate(tmp_path: Path) -> None:
    folder = tmp_path / "tinystories"
    folder.mkdir()
    one = story(random.Random(1)) + ' "Hello," he said.'
    other = one.lower().replace('"', "“")
    (folder / "a.txt").write_text(f"{one}<|endoftext|>{other}", encoding="utf-8")
    assert [d.text for d in prepare.documents(tmp_path)] == [one]


def test_text_is_made_plain_and_keeps_its_lines() -> None:
    assert prepare.normalise("“A”  —\u00a0‘b’…\r\n\n\n\nc â€œdâ€\t") == '"A" - \'b\'...\n\nc "d"'


def test_a_book_loses_its_contents_and_headings() -> None:
    prose = "The fox ran over the hill and told everyone about it. " * 6
    text = (
        f"A BOOK\n\nContents\n\n  I. Fox\n  II. Hen\n\nCHAPTER I. THE FOX\n\n{prose}\n\n[Note: x]\n"
    )
    assert prepare.book(text) == prose.strip()


def test_lines_broken_at_seventy_characters_are_joined_and_others_are_not() -> None:
    broken = (
        "The princess was so merry and active, and so full of fun and\nnonsense, that he laughed."
    )
    lines = 'Lily had a ball.\n"Hello," said Tom.\nThey played.'
    assert prepare.unwrapped(broken) == broken.replace("\n", " ")
    assert prepare.unwrapped(lines) == lines


def test_long_tales_are_cut_at_paragraphs_and_know_their_start_and_end() -> None:
    text = "\n\n".join("A long paragraph about a hen. " * 20 for _ in range(20))
    cut = list(prepare.parts("books", text))
    assert len(cut) > 2
    assert [d.start for d in cut] == [True] + [False] * (len(cut) - 1)
    assert [d.end for d in cut] == [False] * (len(cut) - 1) + [True]
    assert "\n\n".join(d.text for d in cut) == text


def test_batches_chain_and_some_documents_go_without_bos() -> None:
    texts = [story(random.Random(seed)) for seed in range(50)]
    tokenizer = train_tokenizer(texts, 400)
    for source, fewest, most in (("tinystories", 0.78, 0.92), ("facts", 0.5, 0.7)):
        found = [prepare.Document(source, text) for text in texts]
        mixture = Mixture(found, tokenizer, seed=0)
        batch = mixture.batch(400, 64, 0.0)
        assert (batch[1:, 0] == batch[:-1, -1]).all()
        assert (mixture.batch(1, 8, 0.0)[0, 0] == batch[-1, -1]).all()
        share = (batch == 1).sum() / (batch == 2).sum()
        assert fewest < share < most


def test_a_story_without_bos_begins_at_a_sentence_in_its_first_half() -> None:
    texts = [story(random.Random(seed)) for seed in range(50)]
    tokenizer = train_tokenizer(texts, 400)
    mixture = Mixture([prepare.Document("tinystories", text) for text in texts], tokenizer, seed=0)
    stream = mixture.batch(1, 60_000, 0.0)[0]
    documents = tokenizer.decode(stream.tolist(), skip_special_tokens=False).split("</s>")[1:-1]
    whole, rest = set(texts), [text for text in documents if not text.startswith("<s>")]
    assert len(rest) > 20
    for text in rest:
        text = text.strip()
        assert text not in whole
        assert any(other.endswith(text) and len(text) > 0.4 * len(other) for other in whole)
        assert text[0].isupper()


def test_muon_steps_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 24, 64)))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_every_fact_can_be_told_asked_and_cued(corpora: Path) -> None:
    facts = knowledge.all_facts(corpora / "facts")
    assert sum(fact.common for fact in facts) >= 250
    for fact in facts:
        assert fact.result in fact.answer
        assert fact.heldout
        assert not set(fact.heldout) & set(fact.questions)
        assert not any("{" in text for text in (*fact.statements, *fact.questions, fact.answer))


def test_held_out_questions_are_never_told(corpora: Path) -> None:
    facts = knowledge.all_facts(corpora / "facts")
    told = " ".join(knowledge.fact_texts(facts, [], [], 3000))
    assert "? The capital of Japan is Tokyo." in told
    assert not any(question in told for fact in facts for question in fact.heldout)


def test_numbers_are_words() -> None:
    assert [knowledge.words(n) for n in (0, 13, 20, 56)] == [
        "zero",
        "thirteen",
        "twenty",
        "fifty-six",
    ]


def test_the_sample_repeats_the_card_s_bits_per_byte() -> None:
    subject = evaluate.load(model_path())
    bits = bits_per_byte(subject.model, subject.tokenizer, subject.stories[:20])
    assert bits == pytest.approx(card()["bits_per_byte"], rel=0.1)
