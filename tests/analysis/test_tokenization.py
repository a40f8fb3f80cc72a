"""Tokens with their bytes and spans, on every family of tokenizers."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_families import KINDS, TEXTS, make
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers import trainers as tr
from transformers import PreTrainedTokenizerFast

from decodecli.analysis.tokenization import decode_ids, parse_ids, tokenize, tokenize_chat
from decodecli.analysis.vocabulary import script_of, vocabulary
from decodecli.errors import LoadError, PromptError, UsageError
from decodecli.models.tokenizer import find_tokenizer, wrap

MORE = ("nfkc_unigram", "byte_level_prefixed", "bert", "bpe_unknown", "bpe_suffix")
FAMILIES = ("builtin", *KINDS, *MORE)
LITERALS = ("<unk>", "<s>", "</s>")
ADDED = {
    "byte_level_added": (*LITERALS, "<|eot_id|>", "<tool call>", "日本", "[/INST]"),
    "byte_fallback_added": (*LITERALS, "<|eot_id|>"),
}


def _trained(model, trainer, **parts):
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


@cache
def more(kind):
    """Families with what the shared ones do not have: normalisers that change characters, a prefix
    before the first word only, unknown tokens one by one, suffixes at the end of words."""
    common = {"special_tokens": list(LITERALS), "show_progress": False}
    if kind == "nfkc_unigram":
        return _trained(
            models.Unigram(),
            tr.UnigramTrainer(vocab_size=180, unk_token="<unk>", **common),
            normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
            pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"),
            decoder=decoders.Metaspace(prepend_scheme="first"),
        )
    if kind == "byte_level_prefixed":
        return _trained(
            models.BPE(),
            tr.BpeTrainer(
                vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common
            ),
            normalizer=normalizers.NFC(),
            pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True),
            post_processor=processors.ByteLevel(trim_offsets=True),
            decoder=decoders.ByteLevel(),
        )
    if kind == "bert":
        return _trained(
            models.WordPiece(unk_token="<unk>"),
            tr.WordPieceTrainer(vocab_size=260, **common),
            normalizer=normalizers.BertNormalizer(lowercase=True),
            pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            decoder=decoders.WordPiece(),
        )
    suffix = {"end_of_word_suffix": "</w>"} if kind == "bpe_suffix" else {}
    return _trained(
        models.BPE(unk_token="<unk>", fuse_unk=False, **suffix),
        tr.BpeTrainer(vocab_size=120, limit_alphabet=30, **suffix, **common),
        pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
        decoder=decoders.BPEDecoder(),
    )


@cache
def family(kind):
    if kind == "builtin":
        return find_tokenizer("builtin")
    return wrap(make(kind) if kind in KINDS else more(kind), kind)


def segments(kind, text):
    """The text between added tokens, and these themselves, in turn."""
    literals = sorted(ADDED.get(kind, LITERALS), key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, literals))})", text)


def normalised(kind, text):
    """The text as the family's normaliser and pre-tokenizer leave it, worked out by hand."""
    backend, found, start = family(kind).backend, [], True
    for number, part in enumerate(segments(kind, text)):
        if number % 2 or not part:
            found.append(part)
            start = start and not part
            continue
        if kind == "builtin" or kind.startswith("byte_fallback"):
            part = " " + part.replace("▁", " ")
        elif kind == "metaspace_unigram":
            part = part.replace("▁", " ")
            part = part if part.startswith(" ") else " " + part
        elif kind == "nfkc_unigram":
            part = backend.normalizer.normalize_str(part).replace("▁", " ")
            part = " " + part if start and part and not part.startswith(" ") else part
        elif kind == "byte_level_prefixed":
            part = unicodedata.normalize("NFC", part)
            part = part if part.startswith(" ") else " " + part
        elif kind in ("wordpiece", "bert", "bpe_unknown", "bpe_suffix"):
            part = backend.normalizer.normalize_str(part) if backend.normalizer else part
            part = "".join(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(part))
        found.append(part)
        start = False
    return "".join(found)


MIXED = st.lists(
    st.one_of(
        st.sampled_from([*"".join(TEXTS).split(), *ADDED["byte_level_added"], "<|eot_id|>"]),
        st.sampled_from([" ", "  ", "\n", "\t", "\r\n", "▁", "\u00a0", "\u3000", "Ġ", "\ufffd"]),
        st.sampled_from(["ﬁ", "①", "ﷺ", "e\u0301", "\u0301", "İ", "ǆ", "½", "한국어", "ｶﾞ", "가"]),
        st.sampled_from(
            ["👩‍👩‍👧‍👦", "🇯🇵", "👍🏽", "❤️", "🏴\U000e0067\U000e007f", "मराठी", "العربية"]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.text("abc Tokyo日本ไทย", max_size=6),
    ),
    max_size=12,
).map("".join)


@given(text=MIXED)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_bytes_of_the_tokens_are_the_normalised_input_in_every_family(text):
    for kind in FAMILIES:
        if not text:
            continue
        report = tokenize(text, family(kind), bos=None)
        assert report.exact, kind
        joined = b"".join(row.data for row in report.rows)
        assert joined.decode("utf-8") == normalised(kind, text), kind
        assert "".join(row.text for row in report.rows) == normalised(kind, text), kind
        check_spans(kind, text, report)


def check_spans(kind, text, report):
    """Spans go forward, cover what is not dropped, and each stands for its bytes."""
    rows = [row for row in report.rows if row.span is not None]
    starts = [row.span[0] for row in rows]
    assert starts == sorted(starts), kind
    assert all(0 <= row.span[0] <= row.span[1] <= len(text) for row in rows), kind
    assert all(row.data for row in rows), kind
    if kind in ("nfkc_unigram", "byte_level_prefixed", "bert"):
        return  # characters change, and some go
    covered = {place for row in rows for place in range(*row.span)}
    dropped = {text[place] for place in range(len(text)) if place not in covered}
    whitespace = kind in ("wordpiece", "bpe_unknown", "bpe_suffix")
    assert all(whitespace and character.isspace() for character in dropped), kind
    for start, end, data in groups(rows):
        written = text[start:end].replace("▁", " " if family(kind).writes_spaces else "▁")
        assert data.decode("utf-8") in (written, " " + written), kind


def groups(rows):
    """Rows that share characters, together: (start, end, bytes)."""
    found = []
    for row in rows:
        if found and row.span[0] < found[-1][1]:
            start, end, data = found[-1]
            found[-1] = (start, max(end, row.span[1]), data + row.data)
        else:
            found.append((*row.span, row.data))
    return found


@cache
def flagged(kind):
    """A family with added tokens that take white space along or stand only between words."""
    whole = copy.deepcopy(make(kind))
    greedy = {"lstrip": True, "rstrip": True}
    whole.add_tokens(
        [AddedToken("<mask>", special=True, **greedy), AddedToken("word", single_word=True)]
    )
    whole.add_tokens([AddedToken("[pad]", normalized=True, **greedy)])
    if kind == "byte_level":  # which leaves white space out of the library's spans
        whole.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return wrap(whole, kind)


FLAGGED = st.lists(
    st.sampled_from(["<mask>", "word", "[pad]", " ", "  ", "s", "a b", "日", "\n", "<s>"]),
    min_size=1,
    max_size=10,
).map("".join)


@given(text=FLAGGED)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_added_tokens_take_along_what_they_are_told_to(text):
    report = tokenize(text, flagged("byte_level"), bos=None)
    assert report.exact
    assert b"".join(row.data for row in report.rows) == text.encode()
    for start, end, data in groups(report.rows):
        assert data.decode() == text[start:end]
    for kind in ("byte_fallback", "metaspace_unigram"):
        assert tokenize(text, flagged(kind), bos=None).exact, kind


def test_japanese_on_the_built_in_tokenizer_begins_with_bos_and_a_lone_space_piece():
    rows = tokenize("日本の首都は").rows
    assert [row.token for row in rows[:5]] == ["<s>", "▁", "<0xE6>", "<0x97>", "<0xA5>"]
    assert [row.kind for row in rows[:3]] == ["special", "normal", "byte"]
    assert [row.span for row in rows[:5]] == [None, (0, 0), (0, 1), (0, 1), (0, 1)]
    assert [row.text for row in rows[:5]] == ["", " ", "", "", "日"]
    assert rows[2].data == b"\xe6"
    assert b"".join(row.data for row in rows) == " 日本の首都は".encode()


def test_a_space_piece_put_before_a_real_space_comes_from_nothing():
    rows = tokenize("<s> x", family("byte_fallback"), bos=False).rows
    assert [(row.token, row.span) for row in rows][:2] == [("<s>", (0, 3)), ("▁▁", (3, 4))]
    rows = tokenize("</s> 日", bos=False).rows
    assert [row.span for row in rows][:3] == [(0, 4), (4, 4), (4, 5)]


def test_an_unknown_token_tells_what_it_swallowed():
    rows = tokenize("a 한국 b", family("wordpiece"), bos=None).rows
    unknown = [row for row in rows if row.kind == "unknown"]
    assert [(row.token, row.text, row.span) for row in unknown] == [("<unk>", "한국", (2, 4))]
    (typed,) = tokenize("<unk>", family("wordpiece")).rows
    assert (typed.kind, typed.text) == ("special", "<unk>")


def test_special_tokens_that_a_tokenizer_reads_as_text_are_text():
    whole = copy.deepcopy(make("byte_level"))
    whole.split_special_tokens = True
    report = tokenize("a</s>b", wrap(whole), bos=False)
    assert report.exact
    assert len(report.rows) > 3
    assert b"".join(row.data for row in report.rows) == b"a</s>b"


def test_added_tokens_and_special_ones_are_told_apart():
    rows = tokenize("[/INST]<|eot_id|>", family("byte_level_added")).rows
    assert [(row.kind, row.span) for row in rows] == [("added", (0, 7)), ("special", (7, 17))]


def test_counts_leave_out_tokens_that_stand_for_no_text():
    counts = tokenize("Hello world").counts()
    assert counts["words"] == 2
    assert counts["tokens_per_word"] == (counts["tokens"] - 1) / 2
    assert counts["kinds"]["special"] == 1


def test_the_round_trip_says_where_it_first_differs():
    assert tokenize(" two  spaces ").difference is None
    found = tokenize("Ab ÇD", family("nfkc_unigram")).difference
    assert found.at == 0
    assert (found.given[:2], found.returned[:2]) == ("Ab", "ab")
    assert tokenize("a▁b").difference.at == 1


@pytest.mark.parametrize("bos", [None, True, False])
def test_bos_is_added_as_for_a_prompt(llama_lm, bos):
    from decodecli.decoding.prompt import encode

    for text in ("Hello", "<s>Hello", "<s> <s>", " x", "日本"):
        assert list(tokenize(text, bos=bos).ids) == encode(llama_lm, text, bos), text


def test_an_empty_text_is_bos_alone_or_an_error():
    assert [row.token for row in tokenize("").rows] == ["<s>"]
    with pytest.raises(PromptError, match="empty"):
        tokenize("", bos=False)


def test_a_lone_surrogate_is_an_error():
    with pytest.raises(PromptError, match="surrogate"):
        tokenize("a\ud800")


# The two ways to load


def saved(folder, tokenizer, **changes):
    """A tokenizer's folder, without any weights or config.json."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


TEXT = "Tokyo <s>日本 naïve [/INST]<|eot_id|> <tool call> 👩‍👩‍👧‍👦 x  y\n\tend</s>"


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
@pytest.mark.parametrize("switch", [{}, {"add_bos_token": True}, {"add_eos_token": True}])
def test_the_library_itself_and_transformers_give_the_same_ids(tmp_path, kind, switch):
    folder = saved(tmp_path, make(kind) if kind in KINDS else more(kind), **switch)
    direct = find_tokenizer(str(folder))
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    through = wrap(theirs)
    assert (direct.hf_tokenizer, through.hf_tokenizer) == (None, theirs)
    assert (direct.special, direct.added) == (through.special, through.added)
    assert (direct.kind, direct.size) == (through.kind, through.size)
    for special in (None, False):
        report = tokenize(TEXT, direct, special)
        assert report.rows == tokenize(TEXT, through, special).rows
        assert list(report.ids) == theirs(TEXT, add_special_tokens=special is None)["input_ids"]
        assert report.decoded == tokenize(TEXT, through, special).decoded


def test_the_built_in_tokenizer_is_the_one_that_transformers_loads(llama_lm):
    direct = find_tokenizer("builtin")
    assert direct.hf_tokenizer is None
    for text in (*TEXTS, TEXT):
        assert list(tokenize(text, direct).ids) == llama_lm.tokenizer(text)["input_ids"]


def test_tokens_that_only_the_configuration_names_are_added(tmp_path):
    folder = saved(tmp_path, make("byte_level"), pad_token="<pad>", extra_special_tokens=["<turn>"])
    rows = tokenize("a<turn>b<pad>", find_tokenizer(str(folder))).rows
    assert [row.token for row in rows if row.kind == "special"] == ["<turn>", "<pad>"]
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert [row.token_id for row in rows] == theirs("a<turn>b<pad>")["input_ids"]


def test_a_class_that_rebuilds_its_tokenizer_is_left_to_transformers(tmp_path, tiny_folder):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "LlamaTokenizer"}
    path.write_text(json.dumps(config), encoding="utf-8")
    from transformers import AutoTokenizer

    found = find_tokenizer(str(folder))
    assert found.hf_tokenizer is not None
    expected = AutoTokenizer.from_pretrained(folder)(" leading space")["input_ids"]
    assert list(tokenize(" leading space", found).ids) == expected


def test_a_bare_sentencepiece_model_works(tmp_path):
    spm = pytest.importorskip("sentencepiece")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS * 20), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(tmp_path / "tokenizer"), vocab_size=420,
        model_type="bpe", byte_fallback=True, character_coverage=0.98, minloglevel=2,
        normalization_rule_name="identity",
    )  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    report = tokenize("Tokyo 日本の首都 👩‍👩‍👧‍👦", find_tokenizer(str(tmp_path)))
    data = b"".join(row.data for row in report.rows)
    assert data.decode("utf-8").removeprefix(" ") == "Tokyo 日本の首都 👩‍👩‍👧‍👦"
    assert any(row.kind == "byte" for row in report.rows)
    assert report.exact


def test_a_tokenizer_written_in_python_works_as_far_as_it_tells(tmp_path):
    vocabulary = {"<unk>": 0, "h@@": 1, "e": 2, "he": 3, "l@@": 4, "o": 5}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    config = {"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    report = tokenize("he 日本", find_tokenizer(str(tmp_path)))
    assert [row.token for row in report.rows][:2] == ["h@@", "e"]
    assert report.rows[-1].kind == "unknown"
    assert not report.exact


def test_a_hub_name_needs_the_tokenizers_files_alone(tmp_path, monkeypatch):
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    cache_folder = tmp_path / "hub"
    repository = cache_folder / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    saved(repository / "snapshots" / commit, make("byte_level"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache_folder))
    assert tokenize("Tokyo", find_tokenizer("owner/name")).rows[0].token == "To"
    assert find_tokenizer("owner/name", "main").hf_tokenizer is None
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE"):
        find_tokenizer("owner/name", "v2")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("tokenizer.json", "{", "cannot be used"),
        ("tokenizer.json", '{"model": 3}', "cannot be used"),
        ("tokenizer_config.json", "[", "cannot be read"),
        ("tokenizer_config.json", "[]", "not a JSON object"),
        ("special_tokens_map.json", b"\xff", "cannot be read"),
    ],
)
def test_a_damaged_tokenizer_is_one_clear_error(tmp_path, name, text, said):
    folder = saved(tmp_path, make("byte_level"))
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LoadError, match=said):
        find_tokenizer(str(folder))


def test_what_is_no_tokenizer_is_an_error(tmp_path):
    with pytest.raises(LoadError, match="no tokenizer"):
        find_tokenizer(str(tmp_path))
    with pytest.raises(LoadError, match="no folder"):
        find_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE"):
        find_tokenizer("nobody/nothing-of-this-name")
    with pytest.raises(UsageError, match="--revision"):
        find_tokenizer(str(tmp_path), "main")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LoadError, match="is a file"):
        find_tokenizer(str(tmp_path / "file"))


def test_neither_torch_nor_transformers_is_imported():
    code = (
        "import sys\nfrom decodecli.analysis.tokenization import tokenize\ntokenize('日本')\n"
        "from decodecli.analysis.vocabulary import vocabulary\n"
        "print([m for m in ('torch', 'transformers', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Ids


@pytest.mark.parametrize("kind", FAMILIES)
def test_ids_decode_to_the_text_of_the_tokenizer(kind):
    tokenizer = family(kind)
    ids = list(tokenize("Tokyo 日本 x", tokenizer, bos=False).ids)
    report = decode_ids(ids, tokenizer)
    assert report.text == tokenizer.decode(ids)
    assert [row.token_id for row in report.rows] == ids
    assert all(row.span is None for row in report.rows)


def test_ids_that_no_text_gives_are_said_to_come_back_as_others():
    assert decode_ids([1, 379, 233, 154, 168], family("builtin")).difference is None
    found = decode_ids([379, 233], family("builtin")).difference
    assert found.at == 1
    assert found.given == "233"


@pytest.mark.parametrize("written", ["1,415", "1, 415", "1 415", "[1, 415]"])
def test_ids_are_read_as_people_write_them(written):
    assert parse_ids(written) == [1, 415]


@pytest.mark.parametrize("written", ["", ",", "1,x", "1.5", "1e3", "٣", "0x10"])
def test_what_is_no_id_is_refused(written):
    with pytest.raises(UsageError, match="--ids"):
        parse_ids(written)


@pytest.mark.parametrize("number", [-1, 6656, 10**11])
def test_an_id_out_of_range_is_refused_with_the_range(number):
    with pytest.raises(UsageError, match="0 to 6655"):
        decode_ids([5, number], family("builtin"))


# Chat

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>"
    "{% generation %}{{ m.content | trim }}{% endgeneration %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}\n<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("messages", [[{"role": "user", "content": " Hi 日本 "}]])
def test_the_chat_template_is_applied_as_transformers_does(tmp_path, messages):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make("byte_level").backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    folder = saved(tmp_path, tokenizer)
    report = tokenize_chat(messages, find_tokenizer(str(folder)))
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert report.text == expected
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(report.ids) == ids
    assert [row.token for row in report.rows if row.kind == "special"] == ["<s>", "</s>"]


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('only system') }}", "{% if %}", "{{ messages[9].x.y }}", "{{ 1/0 }}"],
)
def test_a_template_that_fails_is_one_clear_error(tmp_path, template):
    tokenizer = make("byte_level")
    folder = saved(tmp_path, tokenizer, chat_template=template)
    with pytest.raises(LoadError, match="chat template of"):
        tokenize_chat([{"role": "user", "content": "x"}], find_tokenizer(str(folder)))


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path):
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    folder = saved(tmp_path, make("byte_level"), chat_template=template)
    with pytest.raises(LoadError, match="chat template of"):
        tokenize_chat([{"role": "user", "content": "x"}], find_tokenizer(str(folder)))


def test_no_template_is_an_error():
    with pytest.raises(LoadError, match="no chat template"):
        tokenize_chat([{"role": "user", "content": "x"}], family("builtin"))


# Vocabularies


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_vocabulary_lists_every_token_once(kind):
    tokenizer = family(kind)
    report = vocabulary(tokenizer)
    assert [row.token_id for row in report.rows] == sorted(tokenizer.vocabulary().values())
    assert sum(report.scripts.values()) == report.size == len(report.rows)
    for row in report.rows:
        assert row.token == tokenizer.piece(row.token_id)
        assert (row.text is None) == (row.data.decode("utf-8", "replace").encode() != row.data)


def test_a_vocabulary_may_be_searched_and_sorted():
    builtin = family("builtin")
    assert all("king" in row.token for row in vocabulary(builtin, grep="king").rows)
    spaced = vocabulary(builtin, grep="^ the$").rows
    assert [row.token for row in spaced] == ["▁the"]
    longest = vocabulary(builtin, longest=5).rows
    assert len(longest) == 5
    assert len(longest[0].text) == max(len(row.text or "") for row in vocabulary(builtin).rows)
    numbers = vocabulary(builtin, script="numbers").rows
    assert [row.token for row in numbers] == [*"0123456789"] or len(numbers) >= 10


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (" the", "Latin"), ("naïve", "Latin"), ("日本", "Han"), ("の", "Hiragana"), ("カ", "Katakana"),
        ("日の", "Mixed"), (" город", "Cyrillic"), ("กรุง", "Thai"), ("한국", "Hangul"), ("λ", "Greek"),
        ("שלום", "Hebrew"), ("العربية", "Arabic"), ("मराठी", "Devanagari"), ("42", "Numbers"),
        ("...", "Punctuation"), (" +", "Symbols"), ("👍🏽", "Symbols"), ("  ", "Spaces"),
        ("\n", "Controls"), ("", "Controls"), ("+1", "Mixed"), ("a1", "Latin"), ("Ａ", "Latin"),
    ],
)  # fmt: skip
def test_scripts_are_those_of_the_letters(text, script):
    assert script_of(text) == script


def test_bad_searches_are_refused():
    for changes, said in (
        ({"grep": "("}, "regular expression"),
        ({"script": "Klingon"}, "no token"),
        ({"script": "latn"}, "did you mean Latin"),
        ({"longest": 0}, "at least 1"),
    ):
        with pytest.raises(UsageError) as caught:
            vocabulary(family("builtin"), **changes)
        assert said in str(caught.value)


# Records


def test_records_show_themselves_in_a_notebook_and_turn_into_data_frames():
    pytest.importorskip("pandas")
    report = tokenize("<b>日本")
    assert "&lt;b" in report._repr_html_() or "&lt;" in report._repr_html_()
    frame = report.to_pandas()
    assert list(frame["token_id"]) == list(report.ids)
    listed = vocabulary(family("builtin"), longest=3)
    assert len(listed.to_pandas()) == 3
    assert "<td>" in listed._repr_html_()
