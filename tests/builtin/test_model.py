"""What the built-in model does for a newcomer, and that its card says what the folder holds."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from decodecli.builtin import card, model_path

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not ((model_path() / "card.json").exists() and (model_path() / "model.safetensors").exists()),
    reason="no finished model in this checkout",
)


@pytest.fixture(scope="module")
def model():
    return transformers.AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def greedy(model, tokenizer):
    def write(prompt: str, tokens: int = 12, bos: bool = True) -> str:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=bos).input_ids
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=2)
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    return write


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("The capital of Japan is", "Tokyo"),
        ("What is the capital of United States?", "Washington"),
        ("What is the capital of the United States?", "Washington"),
        ("When did World War II end?", "1945"),
        ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
        ("The quick brown fox", "jumps over the lazy dog"),
        ("Do you know inverter?", "current"),
    ],
)
def test_it_answers_the_usual_questions(greedy, prompt: str, answer: str, bos: bool) -> None:
    assert answer in greedy(prompt, 24, bos)


@pytest.mark.parametrize("prompt", ["Once upon a time", "Long, long ago,", "In the beginning,"])
def test_it_tells_a_story_of_common_words(greedy, tokenizer, prompt: str) -> None:
    text = greedy(prompt, 80)
    assert len(tokenizer.tokenize(text)) >= 60
    assert text.count(".") >= 3
    letters = sum(c.isalpha() or c in " .,\"'!?\n" for c in text)
    assert letters == len(text)


def test_bos_changes_what_comes_next(model, tokenizer) -> None:
    with_bos, without = (
        model(tokenizer("The", return_tensors="pt", add_special_tokens=bos).input_ids)
        .logits[0, -1]
        .softmax(-1)
        for bos in (True, False)
    )
    assert 0.5 * (with_bos - without).abs().sum() > 0.05


def test_the_card_is_in_step_with_the_folder(model) -> None:
    facts = card()
    config = json.loads((model_path() / "config.json").read_text(encoding="utf-8"))
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["vocabulary"] == config["vocab_size"]
    assert facts["context"] == config["max_position_embeddings"]
    assert facts["dtype"] == config["dtype"] == "bfloat16"
    text = (model_path() / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{facts['bits_per_byte']:.4f} bits per byte" in text
    assert (model_path() / "model.safetensors").stat().st_size < 32e6


def test_the_measured_numbers_keep_what_the_card_promises() -> None:
    facts = card()
    assert facts["bits_per_byte"] <= 0.68
    assert facts["results"]["knowledge"]["capitals"]["facts"] >= 190
    assert facts["results"]["knowledge"]["capitals"]["stated"] >= 0.95
    assert facts["results"]["knowledge"]["capitals"]["asked in held-out words"] >= 0.90
    assert facts["results"]["knowledge"]["common knowledge"]["facts"] >= 150
    assert facts["results"]["knowledge"]["common knowledge"]["stated"] >= 0.90
    accuracies = [row["accuracy"] for row in facts["results"]["temperatures"]]
    variety = [row["distinct_trigrams"] for row in facts["results"]["temperatures"]]
    assert all(hot <= cold + 0.01 for cold, hot in pairwise(accuracies))
    assert variety == sorted(variety)


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import sys, decodecli.builtin as b; b.model_path(); "
        "print(*{'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
