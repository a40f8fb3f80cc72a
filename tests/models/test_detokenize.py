"""Joined, the segments are what decoding prompt and tokens adds to decoding the prompt."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_families import KINDS, TEXTS, make

from decodecli.models.detokenize import Detokenizer, TextStream, tokenizer_kind

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def full_text(tokenizer, prompt: list[int], tokens: list[int]) -> str:
    """What the tokens add, by the tokenizer's own decoding of the whole."""
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    whole = tokenizer.decode(prompt + tokens, skip_special_tokens=True)
    same = next(
        (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b),
        min(len(before), len(whole)),
    )
    return whole[same:]


def streamed(tokenizer, prompt: list[int], tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    segments = [detokenizer.push(token) for token in tokens]
    return [*segments, detokenizer.flush()]


@pytest.fixture(params=[*KINDS, "builtin"])
def tokenizer(request):
    if request.param == "builtin":
        return request.getfixturevalue("builtin")
    return make(request.param)


@pytest.fixture(scope="session")
def builtin():
    from transformers import AutoTokenizer

    from decodecli.builtin import model_path

    return AutoTokenizer.from_pretrained(model_path(), local_files_only=True)


@EXAMPLES
@given(data=st.data())
def test_segments_of_random_ids_join_to_the_full_decode(tokenizer, data):
    # Logits may be wider than the tokenizer's vocabulary.
    ids = st.lists(st.integers(0, len(tokenizer) + 9), max_size=40)
    prompt, tokens = data.draw(ids.filter(bool)), data.draw(ids)
    assert "".join(streamed(tokenizer, prompt, tokens)) == full_text(tokenizer, prompt, tokens)


@EXAMPLES
@given(
    prompt=st.sampled_from([*TEXTS, "a", " ", "The capital of Japan is"]),
    text=st.one_of(st.text(max_size=60), st.sampled_from(TEXTS)),
)
def test_segments_of_any_text_join_to_the_full_decode(tokenizer, prompt, text):
    start = tokenizer(prompt)["input_ids"]
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(streamed(tokenizer, start, tokens)) == full_text(tokenizer, start, tokens)


@pytest.mark.parametrize("text", TEXTS)
def test_no_segment_holds_a_broken_character(tokenizer, text):
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    if "\ufffd" in tokenizer.decode(tokens):
        pytest.fail("the tokenizer itself cannot spell this text")
    assert not any("\ufffd" in segment for segment in streamed(tokenizer, [1], tokens))


@pytest.mark.parametrize("text", ["a\ufffdb\ufffd\ufffdc", "\ufffd", "x \ufffd y"])
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_a_literal_replacement_character_does_not_stall_the_stream(kind, text):
    tokenizer = make(kind)
    tokens = tokenizer(text + "the end", add_special_tokens=False)["input_ids"]
    segments = streamed(tokenizer, tokenizer("the")["input_ids"], tokens)
    assert "".join(segments) == full_text(tokenizer, tokenizer("the")["input_ids"], tokens)
    assert segments[-1] == ""  # nothing was left over for the end
    shown_early = "".join(segments[: len(segments) // 2])
    assert shown_early


def test_a_byte_level_character_appears_with_its_last_byte():
    tokenizer = make("byte_level")
    tokens = tokenizer("日a", add_special_tokens=False)["input_ids"]
    segments = streamed(tokenizer, [1], tokens)
    assert "".join(segments) == "日a"
    assert "日" in segments


def test_a_character_incomplete_at_the_end_is_flushed_as_a_replacement():
    tokenizer = make("byte_fallback")
    first_bytes = [tokenizer.convert_tokens_to_ids(piece) for piece in ("<0xE6>", "<0x97>")]
    segments = streamed(tokenizer, tokenizer("the")["input_ids"], first_bytes)
    assert segments[:-1] == ["", ""]
    assert set(segments[-1]) == {"\ufffd"}


def test_the_leading_space_of_a_sentencepiece_model_is_kept():
    tokenizer = make("byte_fallback")
    prompt = tokenizer("hello")["input_ids"]
    tokens = tokenizer(" the end", add_special_tokens=False)["input_ids"][1:]
    assert "".join(streamed(tokenizer, prompt, tokens)).startswith(" the")


def test_special_tokens_are_not_shown():
    tokenizer = make("byte_level")
    tokens = [*tokenizer("one", add_special_tokens=False)["input_ids"], 2, 1]
    assert "".join(streamed(tokenizer, [1], tokens)) == "one"


@pytest.mark.parametrize("kind", ["byte_fallback_added", "byte_level_added"])
@pytest.mark.parametrize("between", ["<|eot_id|>", None])
def test_a_token_that_is_not_shown_does_not_break_a_character(kind, between):
    tokenizer = make(kind)
    start = tokenizer("the", add_special_tokens=False)["input_ids"]
    spelt = {
        "byte_fallback_added": ["<0xE6>", "<0x97>", "<0xA5>"],
        "byte_level_added": ["æ", "Ĺ", "¥"],
    }
    pieces = spelt[kind]
    first, *rest = (tokenizer.convert_tokens_to_ids(piece) for piece in pieces)
    hidden = len(tokenizer) + 5 if between is None else tokenizer.convert_tokens_to_ids(between)
    segments = streamed(tokenizer, start, [first, hidden, *rest])
    assert "".join(segments) == "日"
    assert not any("\ufffd" in segment for segment in segments)


def test_the_families_are_told_apart():
    kinds = {kind: tokenizer_kind(make(kind)) for kind in KINDS}
    assert kinds == {
        "byte_fallback": "byte_fallback",
        "byte_fallback_added": "byte_fallback",
        "byte_level": "byte_level",
        "byte_level_added": "byte_level",
        "metaspace_unigram": "other",
        "wordpiece": "other",
    }


def stopped(tokenizer, text: str, stop: tuple[str, ...]) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, tokenizer("the")["input_ids"], stop)
    segments = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        segments.append(stream.push(token))
        if stream.stopped:
            return segments, True
    return [*segments, stream.finish()], False


@EXAMPLES
@given(text=st.text(alphabet="abcde \n日é", max_size=30), stop=st.lists(
    st.text(alphabet="abc \n日", min_size=1, max_size=4), min_size=1, max_size=3))  # fmt: skip
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_text_ends_before_the_first_stop_string(kind, text, stop):
    tokenizer = make(kind)
    segments, found = stopped(tokenizer, text, tuple(stop))
    start = tokenizer("the")["input_ids"]
    whole = full_text(tokenizer, start, tokenizer(text, add_special_tokens=False)["input_ids"])
    places = [whole.find(word) for word in stop if word in whole]
    assert found == bool(places)
    joined = "".join(segments)
    assert whole.startswith(joined)
    if places:
        assert not any(word in joined for word in stop)
    else:
        assert joined == whole


def test_a_stop_string_of_one_byte_token_ends_the_text_at_once():
    tokenizer = make("byte_fallback")
    segments, found = stopped(tokenizer, "he\nhe", ("\n",))
    assert found
    assert "".join(segments).strip() == "he"
    assert len(segments) < len(tokenizer("he\nhe", add_special_tokens=False)["input_ids"])
