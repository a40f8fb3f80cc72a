"""A byte-fallback BPE tokenizer with the habits of Llama's and Mistral's.

Ids 0, 1, 2 are `<unk>`, `<s>`, `</s>`, then come the 256 bytes, then pieces in which `▁` stands for
a space. One `▁` goes before the text and one space is stripped after decoding, so that decoding
gives back what was encoded. Digits stand alone; a character without a piece becomes its bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
BOS_ID, EOS_ID = 1, 2
# a word or mark with the space before it, the ends of "don't" and "it's", one digit, one space
WORDS = r"▁?\p{L}+|'(?:s|t|m|re|ve|ll|d)(?!\p{L})|\p{N}|▁?[^\p{L}\p{N}▁]+|▁"
ALPHABET = [*map(chr, range(0x21, 0x7F)), "▁", *"éèêëáàâäåãçíîïóôöõøúûüñšşă"]


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
    """Learn `vocabulary` pieces (the special ones and bytes included) from `texts`."""
    learner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    _dress(learner)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNKNOWN, BOS, EOS, *BYTES],
        initial_alphabet=ALPHABET,
        limit_alphabet=len(ALPHABET),
        min_frequency=2,
        show_progress=False,
    )
    # a line end is always its byte, so it must not become part of a piece
    learner.train_from_iterator((line for text in texts for line in text.split("\n")), trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    pieces = models.BPE(
        vocab=learned["vocab"], merges=merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(pieces)
    _dress(tokenizer)
    tokenizer.add_special_tokens([UNKNOWN, BOS, EOS])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def with_words(
    tokenizer: Tokenizer, names: Iterable[str], texts: Iterable[str], vocabulary: int
) -> Tokenizer:
    """The tokenizer with whole words behind its pieces, up to `vocabulary`; old ids stay.

    First every word of `names`, then the words that `texts` have most often. A word that is a piece
    is never put together from parts (`ignore_merges`, as in Llama 3), so it needs no merges.
    """
    made = json.loads(tokenizer.to_str())
    pieces: dict[str, int] = made["model"]["vocab"]
    split = _words(tokenizer)
    wanted = dict.fromkeys(word for name in names for word in split(name))
    counted = Counter(word for text in texts for word in split(text))
    wanted |= dict.fromkeys(word for word, _ in counted.most_common())
    for word in wanted:
        if len(pieces) >= vocabulary:
            break
        if re.fullmatch(r"▁[^\W\d_]{2,}", word):
            pieces.setdefault(word, len(pieces))
    made["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(made))


def _words(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """Cut a text where no piece can go across."""
    normalizer, cutter = tokenizer.normalizer, tokenizer.pre_tokenizer
    assert normalizer is not None
    assert cutter is not None
    return lambda text: [
        word for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text))
    ]


def _dress(tokenizer: Tokenizer) -> None:
    """Normalizer, word split and decoder, the same while learning and after."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
