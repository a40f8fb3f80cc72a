"""Which models the written-out forward pass computes exactly: an allow-list.

A configuration value that changes the arithmetic, and that is not listed here with a value that
`forward` has, sends the model to its own code. What transformers' shared masks and caches read counts
too, whatever the architecture: a `sliding_window` in GPT-2's configuration shortens its cache.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

LLAMAS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
GPT2 = "GPT2LMHeadModel"

_STEADY_ROPE = ("default", "linear", "llama3", "yarn")  # angles depend on the position alone
# What a configuration class may define: `forward` or `attention_windows` goes by it, the weights' shapes
# follow from it, or it matters in training only.
_UNDERSTOOD = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_parameters", "attention_bias", "mlp_bias",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
    "tie_word_embeddings", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id",
    "initializer_range", "attention_dropout", "pretraining_tp", "n_positions", "n_embd",
    "n_layer", "n_head", "n_inner", "activation_function", "layer_norm_epsilon",
    "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "resid_pdrop", "embd_pdrop",
    "attn_pdrop", "summary_type", "summary_use_proj", "summary_activation",
    "summary_proj_to_labels", "summary_first_dropout",
}  # fmt: skip
# What masks and caches read of any configuration → the one value that `forward` has.
_SHARED = {
    "is_causal": True, "attention_chunk_size": None, "kv_sharing_modes": None,
    "is_heterogeneous": False,
}  # fmt: skip


class UnsupportedModel(Exception):
    """This model is not written out here; the message says why."""


def check_supported(model: Any) -> None:
    """Make sure that a model is one of transformers' own, as it is, and configured in a known way.

    Raises:
        UnsupportedModel: it is not.
    """
    kind = type(model).__name__
    modules = type(model).__module__, type(model).forward.__module__
    if not all(name.startswith("transformers.models.") for name in modules):
        raise UnsupportedModel(f"{kind} is not one of transformers' own models")
    if kind not in (*LLAMAS, GPT2):
        raise UnsupportedModel(f"{kind} is run by its own code")
    if model.training:
        raise UnsupportedModel("the model is in training mode")
    if model.config._attn_implementation != "sdpa":
        raise UnsupportedModel(f"its attention is {model.config._attn_implementation}")
    if len({p.device for p in model.parameters()}) > 1:
        raise UnsupportedModel("it lies on several devices")
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            raise UnsupportedModel("something is hooked into it")
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        raise UnsupportedModel("something is hooked into all modules")
    _check_values(model.config)


def _check_values(config: Any) -> None:
    for name, value in _SHARED.items():
        if getattr(config, name, value) != value:
            raise UnsupportedModel(f"its configuration has {name} = {getattr(config, name)}")
    for name in inspect.get_annotations(type(config)):
        standard = getattr(type(config), name, None)
        if name not in _UNDERSTOOD and getattr(config, name, standard) != standard:
            raise UnsupportedModel(f"its configuration has {name} = {getattr(config, name)}")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in _STEADY_ROPE:
        raise UnsupportedModel(f"its rotary embedding is {rope['rope_type']}")


def attention_windows(model: Any, layers: int) -> tuple[int | None, ...]:
    """How many positions each layer looks back, the token's own among them; None: all.

    Llama and GPT-2 mask no window, Mistral masks one in every layer, Qwen one in the layers that
    `layer_types` names. The cache cuts by `layer_types`, else by `sliding_window`. Only where both
    mean the same is it known what the model computes.

    Raises:
        UnsupportedModel: they do not, or a layer attends in another way.
    """
    config, kind = model.config, type(model).__name__
    width = getattr(config, "sliding_window", None)
    usual = "full_attention" if width is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * layers
    if kind == "MistralForCausalLM":
        masked = [usual] * layers
    elif kind.startswith("Qwen"):
        masked = list(kinds)
    else:
        masked = ["full_attention"] * layers
    if len(kinds) != layers or config.num_hidden_layers != layers:
        raise UnsupportedModel(f"it has {layers} layers, and its configuration another number")
    if list(kinds) != masked or not {"full_attention", "sliding_attention"}.issuperset(kinds):
        raise UnsupportedModel(
            f"its layers attend in an unusual way: {', '.join(sorted(set(kinds)))}"
        )
    # transformers' cache keeps one position less than a window, and all of them for a window of 1.
    if "sliding_attention" in kinds and not (type(width) is int and width >= 2):
        raise UnsupportedModel(f"its sliding window is {width}")
    return tuple(width if kind == "sliding_attention" else None for kind in kinds)
