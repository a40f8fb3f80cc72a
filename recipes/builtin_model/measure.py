"""Bits per byte, and greedy or sampled texts in batches: what training and evaluation measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM

from recipes.builtin_model.model import CONTEXT
from recipes.builtin_model.tokenizer import EOS_ID


def _windows(ids: list[int]) -> list[tuple[list[int], int]]:
    """Windows of at most `CONTEXT` ids, half overlapping, each with its first id to be counted."""
    found = [(ids[:CONTEXT], 1)]
    start = CONTEXT // 2
    while start + CONTEXT // 2 < len(ids):
        found.append((ids[start : start + CONTEXT], CONTEXT // 2))
        start += CONTEXT // 2
    return found


def bits_per_byte(
    model: LlamaForCausalLM, tokenizer: Tokenizer, texts: Sequence[str], bos: bool = True
) -> float:
    """Bits that the model needs for the texts, each from its own `<s>`, per UTF-8 byte.

    Every token of a text counts (without `bos` all but its first), the end mark does not.
    """
    windows = []
    size = 0
    for text in texts:
        windows += _windows(tokenizer.encode(text).ids if bos else tokenizer.encode(text).ids[1:])
        size += len(text.encode())
    windows.sort(key=lambda window: len(window[0]))
    nats = 0.0
    for first in range(0, len(windows), 16):
        nats += _nats(model, windows[first : first + 16])
    return nats / math.log(2) / max(size, 1)


@torch.no_grad()
def _nats(model: LlamaForCausalLM, windows: Sequence[tuple[list[int], int]]) -> float:
    ids = torch.zeros(len(windows), len(windows[-1][0]), dtype=torch.long)
    targets = torch.full_like(ids, -100)
    for row, (window, counted) in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window)
        targets[row, counted - 1 : len(window) - 1] = torch.tensor(window[counted:])
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.to(model.device).flatten(), reduction="sum"
    )
    return losses.item()


@torch.no_grad()
def write(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    bos: bool = True,
) -> list[str]:
    """What the model adds to each prompt: greedily at temperature 0, else drawn from it all.

    Prompts are padded on the left and run together; a text ends at `</s>` or after `tokens`.
    """
    encoded = [tokenizer.encode(prompt).ids[0 if bos else 1 :] for prompt in prompts]
    longest = max(map(len, encoded))
    ids = torch.tensor([[EOS_ID] * (longest - len(row)) + row for row in encoded])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded])
    chosen: dict[str, Any] = {"do_sample": False}
    if temperature:
        torch.manual_seed(seed)
        chosen = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    out = model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=tokens,
        pad_token_id=EOS_ID,
        **chosen,
    )
    return [
        tokenizer.decode(prompt + row[longest:].tolist())[len(tokenizer.decode(prompt)) :]
        for prompt, row in zip(encoded, out, strict=True)
    ]
