"""Small random models of the architectures whose one-token pass is written out."""

from __future__ import annotations

import copy

import torch
import transformers as t

SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
        "original_max_position_embeddings": 128}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
CONFIGS = {
    "llama": t.LlamaConfig(**SIZES),
    "llama, biases": t.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama, rotary embedding of Llama 3": t.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "llama, yarn": t.LlamaConfig(**SIZES, rope_parameters=YARN),
    "llama, one key head a query head": t.LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "mistral, window of 8": t.MistralConfig(**SIZES, sliding_window=8),
    "mistral, no window": t.MistralConfig(**SIZES, sliding_window=None),
    "qwen2": t.Qwen2Config(**SIZES),
    "qwen2, a window in the upper layers": t.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen3, wide heads": t.Qwen3Config(**SIZES, head_dim=32),
    "gpt2": t.GPT2Config(vocab_size=300, n_embd=64, n_layer=3, n_head=4, n_positions=512),
    "gpt2, scaled by depth": t.GPT2Config(
        vocab_size=300, n_embd=64, n_layer=3, n_head=4, scale_attn_by_inverse_layer_idx=True
    ),
}


def network(config: t.PretrainedConfig, dtype: torch.dtype = torch.float32):
    torch.manual_seed(3)
    model = t.AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # larger than at the start of a training, so that errors show
                parameter.mul_(3)
    return model
