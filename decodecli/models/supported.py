"""Which models the written-out forward pass computes exactly: an allow-list of configuration values.

A value that changes the arithmetic, and that `forward` does not have, sends the model to transformers, as
does a key that is not known here. What transformers' shared masks and caches read counts too, whatever
the architecture: a `sliding_window` in GPT-2's configuration shortens its cache. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

# model_type → the class that runs it.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel",
}  # fmt: skip
ACTIVATIONS = ("silu", "swish", "relu", "gelu", "gelu_new", "gelu_pytorch_tanh")
DTYPES = ("F32", "BF16", "F16")  # of weights, as safetensors spells them

# What a configuration may say: values that are read, with the defaults of transformers' classes …
_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": None,
    "head_dim": None, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False,
    "mlp_bias": False, "tie_word_embeddings": False, "max_position_embeddings": 2048,
    "rope_parameters": None, "sliding_window": None, "layer_types": None,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_QWEN2 = _LLAMA | {
    "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
    "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {
        "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN2,
    "qwen3": _QWEN2 | {"head_dim": 128},
    "gpt2": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
        "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True, "sliding_window": None, "layer_types": None,
        "bos_token_id": 50256, "eos_token_id": 50256,
    },
}  # fmt: skip
# … values that must be these …
_FIXED = {
    "add_cross_attention": False, "attention_chunk_size": None, "chunk_size_feed_forward": 0,
    "is_causal": True, "is_decoder": False, "is_encoder_decoder": False, "kv_sharing_modes": None,
    "num_kv_shared_layers": 0, "output_attentions": False, "output_hidden_states": False,
    "per_layer_config": None, "quantization_config": None, "reorder_and_upcast_attn": False,
    "rope_interleaved": False, "use_mrope": False,
}  # fmt: skip
# … and values that matter in training, for other tasks, or to other programs.
_IGNORED = frozenset((
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures",
    "attention_dropout", "attn_pdrop", "dtype", "embd_pdrop", "finetuning_task", "id2label",
    "initializer_range", "is_llama_config", "label2id", "model_type", "n_ctx", "name_or_path",
    "num_labels", "pad_token_id", "pretraining_tp", "problem_type", "resid_pdrop", "return_dict",
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "task_specific_params", "torch_dtype", "transformers.js_config",
    "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
))  # fmt: skip
# rope_type → the parameters that it takes; the angles of these depend on the position alone.
_ROPE = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
        "mscale", "mscale_all_dim", "truncate",
    ),
}  # fmt: skip
_OPTIONAL = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")


class UnsupportedModel(Exception):
    """This model is not written out here; the message says why."""


@dataclass(frozen=True)
class DecoderConfig:
    """What the forward pass of a decoder goes by.

    context: positions. rope: the rotary embedding's parameters, with `rope_type` and `rope_theta`; None
    where positions are learned. windows: how many positions each layer looks back, the token's own among
    them; None: all. scales: by which each layer's query-key products are multiplied.
    """

    model_type: str
    vocab_size: int
    context: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    activation: str
    norm_eps: float
    tied: bool
    rope: Mapping[str, Any] | None
    windows: tuple[int | None, ...]
    scales: tuple[float, ...]
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DecoderConfig:
        """From the values of a config.json; what it leaves out is transformers' default.

        Raises:
            UnsupportedModel: the architecture or a value is not one that `forward` has.
        """
        kind = values.get("model_type")
        if kind not in DEFAULTS:
            raise UnsupportedModel(f"{kind} is run by its own code")
        wanted, named = ARCHITECTURES[kind], values.get("architectures")
        if named and named != [wanted]:
            raise UnsupportedModel(f"its class is {named}, not {wanted}")
        _check_known(values, kind)
        values = {**DEFAULTS[kind], **values}
        return _gpt2(values) if kind == "gpt2" else _llama(values, kind)

    @property
    def num_layers(self) -> int:
        return len(self.windows)

    def weight_shapes(self) -> dict[str, Shape]:
        """The tensors that the forward pass reads: name → shape. A tied head is the embeddings."""
        return _gpt2_shapes(self) if self.rope is None else _llama_shapes(self)


def _check_known(values: Mapping[str, Any], kind: str) -> None:
    for name, value in values.items():
        legacy = name in ("rope_scaling", "rope_theta", "partial_rotary_factor") and kind != "gpt2"
        if name in DEFAULTS[kind] or name in _IGNORED or legacy:
            continue
        if name not in _FIXED or value != _FIXED[name]:
            raise UnsupportedModel(f"its configuration has {name} = {str(value)[:40]}")


def _llama(values: Mapping[str, Any], kind: str) -> DecoderConfig:
    hidden, heads = _count(values, "hidden_size"), _count(values, "num_attention_heads")
    if values["num_key_value_heads"] is None:
        values = {**values, "num_key_value_heads": heads}
    if values["head_dim"] is None:
        values = {**values, "head_dim": hidden // heads}
    head_dim, kv_heads = _count(values, "head_dim"), _count(values, "num_key_value_heads")
    if hidden % heads or heads % kv_heads or head_dim % 2:
        raise UnsupportedModel(f"it has {heads} heads, {kv_heads} of keys, of {head_dim} values")
    windows = _windows(values, kind, _count(values, "num_hidden_layers"))
    return DecoderConfig(
        model_type=kind,
        vocab_size=_count(values, "vocab_size"),
        context=_count(values, "max_position_embeddings"),
        hidden_size=hidden,
        intermediate_size=_count(values, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        activation=_activation(values["hidden_act"]),
        norm_eps=_number(values, "rms_norm_eps"),
        tied=_flag(values, "tie_word_embeddings"),
        rope=_rope(values),
        windows=windows,
        scales=(head_dim**-0.5,) * len(windows),
        qkv_bias=kind == "qwen2" or (kind != "mistral" and _flag(values, "attention_bias")),
        output_bias=kind in ("llama", "qwen3") and _flag(values, "attention_bias"),
        mlp_bias=kind == "llama" and _flag(values, "mlp_bias"),
    )


def _gpt2(values: Mapping[str, Any]) -> DecoderConfig:
    hidden, heads = _count(values, "n_embd"), _count(values, "n_head")
    if hidden % heads:
        raise UnsupportedModel(f"its width {hidden} is not a multiple of its {heads} heads")
    if values["n_inner"] is None:
        values = {**values, "n_inner": 4 * hidden}
    windows = _windows(values, "gpt2", _count(values, "n_layer"))
    scale = (hidden // heads) ** -0.5 if _flag(values, "scale_attn_weights") else 1.0
    by_depth = _flag(values, "scale_attn_by_inverse_layer_idx")
    return DecoderConfig(
        model_type="gpt2",
        vocab_size=_count(values, "vocab_size"),
        context=_count(values, "n_positions"),
        hidden_size=hidden,
        intermediate_size=_count(values, "n_inner"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        activation=_activation(values["activation_function"]),
        norm_eps=_number(values, "layer_norm_epsilon"),
        tied=_flag(values, "tie_word_embeddings"),
        rope=None,
        windows=windows,
        scales=tuple(scale / (i + 1.0) if by_depth else scale for i in range(len(windows))),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    )


def _windows(values: Mapping[str, Any], kind: str, layers: int) -> tuple[int | None, ...]:
    """Each layer's window.

    Llama and GPT-2 mask no window, Mistral masks one in every layer, Qwen one in the layers that
    `layer_types` names. The cache cuts by `layer_types`, else by `sliding_window`. Only where both
    mean the same is it known what the model computes.
    """
    width = values["sliding_window"]
    if kind.startswith("qwen"):
        width = width if _flag(values, "use_sliding_window") else None
        first = layers if width is None else _count(values, "max_window_layers", least=0)
        usual = ["full_attention" if i < first else "sliding_attention" for i in range(layers)]
    else:
        usual = ["full_attention" if width is None else "sliding_attention"] * layers
    kinds = usual if values["layer_types"] is None else values["layer_types"]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise UnsupportedModel(f"it has {layers} layers, and layer_types of another number")
    masked = usual if kind == "mistral" else ["full_attention"] * layers
    masked = list(kinds) if kind.startswith("qwen") else masked
    if kinds != masked or not {"full_attention", "sliding_attention"}.issuperset(kinds):
        kinds = sorted({*map(str, kinds)})
        raise UnsupportedModel(f"its layers attend in an unusual way: {', '.join(kinds)}")
    # transformers' cache keeps one position less than a window, and all of them for a window of 1.
    if "sliding_attention" in kinds and not (type(width) is int and width >= 2):
        raise UnsupportedModel(f"its sliding window is {width}")
    return tuple(width if kind == "sliding_attention" else None for kind in kinds)


def _rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the rotary embedding, in older spellings too, as transformers reads them."""
    rope = values.get("rope_scaling") or values["rope_parameters"] or {}
    if not isinstance(rope, Mapping):
        raise UnsupportedModel("its rotary embedding is no set of parameters")
    rope = {"rope_theta": values.get("rope_theta", 10_000.0), **rope}
    rope.setdefault("partial_rotary_factor", values.get("partial_rotary_factor"))
    kind = rope.setdefault("rope_type", rope.get("type", "default"))
    if kind not in _ROPE:
        raise UnsupportedModel(f"its rotary embedding is {kind}")
    if rope.pop("partial_rotary_factor") not in (None, 1.0):
        raise UnsupportedModel("its rotary embedding turns a part of each head")
    if "original_max_position_embeddings" in _ROPE[kind]:
        rope.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
    for name in ("rope_theta", *_ROPE[kind]):
        given = rope.get(name)
        if not (given is None and name in _OPTIONAL) and not isinstance(given, int | float):
            raise UnsupportedModel(f"its rotary embedding has {name} = {given}")
    unknown = rope.keys() - {"rope_theta", "rope_type", "type", *_ROPE[kind]}
    if unknown:
        raise UnsupportedModel(f"its rotary embedding has {min(map(str, unknown))}")
    return rope


def _llama_shapes(c: DecoderConfig) -> dict[str, Shape]:
    hidden, wide = c.hidden_size, c.intermediate_size
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    layer: dict[str, Shape] = {"input_layernorm.weight": (hidden,)}
    layer["post_attention_layernorm.weight"] = (hidden,)
    if c.model_type == "qwen3":
        layer |= {f"self_attn.{name}_norm.weight": (c.head_dim,) for name in "qk"}
    for name, rows, columns, bias in (
        ("self_attn.q_proj", queries, hidden, c.qkv_bias),
        ("self_attn.k_proj", keys, hidden, c.qkv_bias),
        ("self_attn.v_proj", keys, hidden, c.qkv_bias),
        ("self_attn.o_proj", hidden, queries, c.output_bias),
        ("mlp.gate_proj", wide, hidden, c.mlp_bias),
        ("mlp.up_proj", wide, hidden, c.mlp_bias),
        ("mlp.down_proj", hidden, wide, c.mlp_bias),
    ):
        layer[f"{name}.weight"] = (rows, columns)
        if bias:
            layer[f"{name}.bias"] = (rows,)
    shapes = {f"model.layers.{i}.{n}": s for i in range(c.num_layers) for n, s in layer.items()}
    shapes |= {"model.embed_tokens.weight": (c.vocab_size, hidden), "model.norm.weight": (hidden,)}
    return shapes if c.tied else shapes | {"lm_head.weight": (c.vocab_size, hidden)}


def _gpt2_shapes(c: DecoderConfig) -> dict[str, Shape]:
    hidden, wide = c.hidden_size, c.intermediate_size
    layer: dict[str, Shape] = {}
    for name, inputs, outputs in (
        ("attn.c_attn", hidden, 3 * hidden),
        ("attn.c_proj", hidden, hidden),
        ("mlp.c_fc", hidden, wide),
        ("mlp.c_proj", wide, hidden),
    ):
        layer |= {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
    for name in ("ln_1", "ln_2"):
        layer |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    shapes = {f"transformer.h.{i}.{n}": s for i in range(c.num_layers) for n, s in layer.items()}
    shapes |= {
        "transformer.wte.weight": (c.vocab_size, hidden),
        "transformer.wpe.weight": (c.context, hidden),
        "transformer.ln_f.weight": (hidden,),
        "transformer.ln_f.bias": (hidden,),
    }
    return shapes if c.tied else shapes | {"lm_head.weight": (c.vocab_size, hidden)}


def _count(values: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = values[name]
    if type(value) is not int or value < least:
        raise UnsupportedModel(f"its configuration has {name} = {value}")
    return value


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values[name]
    if type(value) is not float:
        raise UnsupportedModel(f"its configuration has {name} = {value}")
    return value


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values[name]
    if type(value) is not bool:
        raise UnsupportedModel(f"its configuration has {name} = {value}")
    return value


def _activation(name: Any) -> str:
    if name not in ACTIVATIONS:
        raise UnsupportedModel(f"its activation is {name}")
    return str(name)
