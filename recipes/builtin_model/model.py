"""The architecture, its attention for training, and the folder that transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AttentionInterface, GenerationConfig, LlamaConfig, LlamaForCausalLM

from recipes.builtin_model.tokenizer import BOS_ID, EOS_ID, save_tokenizer

BLOCK = 128
CONTEXT = 512


def blocked_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention in blocks of queries that look at no later key.

    `(batch, heads, length, width)` in, `(batch, length, heads, width)` out, as transformers
    expects. Compiled on a CPU it trains faster than the built-in kernel; see the model card.
    """
    del module, attention_mask
    rows = []
    for start in range(0, query.shape[-2], BLOCK):
        stop = min(start + BLOCK, query.shape[-2])
        scores = (query[:, :, start:stop] @ key[:, :, :stop].mT).float() * scaling
        places = torch.arange(stop, device=query.device)
        future = places[None, :] > places[start:, None]
        weights = scores.masked_fill(future, float("-inf")).softmax(-1).to(value.dtype)
        rows.append(weights @ value[:, :, :stop])
    return torch.cat(rows, 2).transpose(1, 2), None


AttentionInterface.register("blocked_causal", blocked_attention)


def new_model(
    vocabulary: int, layers: int, width: int, heads: int, inner: int, attention: str
) -> LlamaForCausalLM:
    """A fresh model; the matrices that write to the residual stream start at zero."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write an ordinary transformers folder in bfloat16; an older one there is replaced whole."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    config = LlamaConfig(**{**model.config.to_dict(), "dtype": "bfloat16"})
    copy = LlamaForCausalLM(config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID)
    copy.save_pretrained(fresh)
    save_tokenizer(tokenizer, fresh, CONTEXT)
    folder.mkdir(parents=True, exist_ok=True)
    for path in fresh.iterdir():
        path.chmod(0o644)
        path.replace(folder / path.name)
    fresh.rmdir()
