"""Random models of many vocabulary sizes, small enough to be made in a blink.

From a character model's 32 tokens to 4,096, on both sides of the sizes at which code changes its way;
byte-level, SentencePiece-style and character tokenizers.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

# name → kind of tokenizer, tokens
TINY_MODELS = {
    "characters-32": ("characters", 32),
    "characters-105": ("characters", 105),
    "sentencepiece-512": ("sentencepiece", 512),
    "bytes-1000": ("byte_level", 1000),
    "bytes-1001": ("byte_level", 1001),
    "sentencepiece-4096": ("sentencepiece", 4096),
}
_SPECIAL = ["<unk>", "<s>", "</s>"]
_LETTERS = " " + string.ascii_lowercase
_PRINTED = [
    *_LETTERS,
    *(c for c in string.printable if c not in _LETTERS),
    "é",
    "ü",
    "ß",
    "€",
]


def save_tiny_model(folder: Path, name: str) -> Path:
    """Write the model of that name to a folder, as `save_pretrained` does."""
    kind, size = TINY_MODELS[name]
    tokenizer = tiny_tokenizer(kind, size)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config: Any = t.LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, **ids,
    )  # fmt: skip
    if kind == "byte_level":
        config = t.GPT2Config(
            vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=256, **ids
        )
    torch.manual_seed(size)
    network = t.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        head = network.get_output_embeddings().weight
        head.copy_(torch.randn(head.shape) * 0.6)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(kind: str, size: int) -> t.PreTrainedTokenizerFast:
    """A tokenizer of exactly `size` tokens."""
    inner = {"characters": _characters, "sentencepiece": _sentencepiece, "byte_level": _bytes}[kind]
    return t.PreTrainedTokenizerFast(
        tokenizer_object=inner(size), bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _filled(pieces: list[str], size: int) -> dict[str, int]:
    """piece → id: these pieces, cut or filled up to `size` with words that text never becomes."""
    pieces = [*pieces, *(f"word{number}" for number in range(size))][:size]
    return {piece: number for number, piece in enumerate(pieces)}


def _characters(size: int) -> Tokenizer:
    inner = Tokenizer(models.BPE(_filled([*_SPECIAL, *_PRINTED], size), [], unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    return inner


def _sentencepiece(size: int) -> Tokenizer:
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a"), ("o", "n")]
    pieces = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *string.ascii_letters]
    vocab = _filled(pieces + [left + right for left, right in merges], size)
    inner = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return inner


def _bytes(size: int) -> Tokenizer:
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    pieces = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(_filled([*pieces, *map("".join, merges)], size), merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner
