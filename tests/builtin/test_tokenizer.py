"""The built-in tokenizer behaves like Llama's: BOS, `▁`, bytes for the rest, nothing lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decodecli.builtin import model_path

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(
    not (model_path() / "tokenizer.json").exists(), reason="no built-in model in this checkout"
)
SPECIAL = ("<s>", "</s>", "<unk>", "▁")


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(model_path())


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(
    lambda text: not any(mark in text for mark in SPECIAL)
)


@settings(deadline=None, max_examples=200)
@given(text=TEXTS)
@example(text="")
@example(text=" leading space")
@example(text="two  spaces and three   spaces ")
@example(text="tab\tand\r\nline ends\n\n")
@example(text="日本の首都は")
@example(text="family 👩‍👩‍👧 and flag 🇮🇹, e\u0301")
@example(text="\ufffd\x00\x1b[0m")
def test_decoding_gives_back_what_was_encoded(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_ids_lie_where_llama_has_them(tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 258]) == [
        "<unk>", "<s>", "</s>", "<0x00>", "<0xFF>",
    ]  # fmt: skip
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert len(tokenizer) == 6656
    assert tokenizer.all_special_ids == [1, 2, 0]


def test_bos_is_added_unless_asked_not_to_and_eos_never(tokenizer) -> None:
    assert tokenizer("Hello").input_ids[0] == 1
    assert tokenizer("Hello").input_ids[-1] != 2
    bare = tokenizer("Hello", add_special_tokens=False).input_ids
    assert tokenizer("Hello").input_ids == [1, *bare]


def test_a_script_without_pieces_is_a_lone_space_mark_and_bytes(tokenizer) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("日本の首都は").input_ids)
    assert pieces[:2] == ["<s>", "▁"]
    assert pieces[2:] == [f"<0x{byte:02X}>" for byte in "日本の首都は".encode()]


def test_digits_stand_alone_and_a_line_end_is_its_byte(tokenizer) -> None:
    assert tokenizer.tokenize("1945\n") == ["▁", "1", "9", "4", "5", "<0x0A>"]


def test_special_text_in_a_prompt_is_one_special_token(tokenizer) -> None:
    assert tokenizer("</s>", add_special_tokens=False).input_ids == [2]


def test_the_settings_say_what_the_files_do() -> None:
    config = json.loads((model_path() / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["clean_up_tokenization_spaces"] is False
    assert config["model_max_length"] == 512
