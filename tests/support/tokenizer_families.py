"""Small tokenizers of every family, trained on the spot."""

from __future__ import annotations

from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXTS = (
    "Once upon a time there was a little girl. She said, “Hello!”",
    "The capital of Japan is Tokyo. 日本の首都は東京です。中国的首都是北京。",
    "Столица России — Москва. Это большой город.",
    "La capitale d'Italia è Roma; perché no? Così è più bello.",
    "เมืองหลวงของไทยคือกรุงเทพ",
    "👩‍👩‍👧‍👦 family, 🇯🇵 flag, 👍🏽 thumb, e\u0301 combining, 👨‍🚀",
    "def f(x):\n\treturn x  +  1\n\n[/INST] [bold] </b>",
)
KINDS = (
    "byte_fallback",
    "byte_fallback_added",
    "byte_level",
    "byte_level_added",
    "metaspace_unigram",
    "wordpiece",
)


@cache
def make(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of that family, as transformers wraps it."""
    tokenizer = {
        "byte_fallback": _byte_fallback,
        "byte_fallback_added": _byte_fallback,
        "byte_level": _byte_level,
        "byte_level_added": _byte_level,
        "metaspace_unigram": _unigram,
        "wordpiece": _wordpiece,
    }[kind]()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )
    if kind == "byte_level_added":
        wrapped.add_tokens([AddedToken("<tool call>"), AddedToken("日本"), AddedToken("[/INST]")])
    if kind in ("byte_level_added", "byte_fallback_added"):
        # Special without a role of its own, as chat models' end-of-turn tokens are.
        wrapped.add_tokens([AddedToken("<|eot_id|>", special=True)])
    return wrapped


def _byte_fallback() -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    characters = sorted(set("".join(TEXTS[:1])) - {" "})
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "▁", *characters])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("▁", "▁")]
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer
