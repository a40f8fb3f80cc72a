"""Whatever a configuration says, the ids and logits are those of the model's own code."""

from __future__ import annotations

import pytest
import torch
import transformers as t
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from known_models import CONFIGS, SIZES, network

from decodecli.models.batched_forward import BatchedForward
from decodecli.models.forward import build_forward
from decodecli.models.runner import ModelRunner
from decodecli.models.supported import UnsupportedModel

SMALL = {**SIZES, "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
CLASSES = {"llama": t.LlamaConfig, "mistral": t.MistralConfig, "qwen2": t.Qwen2Config,
           "qwen3": t.Qwen3Config, "gpt2": t.GPT2Config}  # fmt: skip
KINDS = st.sampled_from(("full_attention", "sliding_attention", "chunked_attention"))
# What any configuration may say, and what those of one family may.
SHARED = {
    "sliding_window": st.sampled_from((None, 1, 2, 3, 8, 100)),
    "layer_types": st.lists(KINDS, min_size=2, max_size=2),
    "attention_chunk_size": st.sampled_from((None, 1, 4, 16)),
    "is_causal": st.booleans(),
    "num_kv_shared_layers": st.sampled_from((0, 1)),
    "tie_word_embeddings": st.booleans(),
    "use_cache": st.booleans(),
    "logit_scale": st.just(0.5),
    "final_logit_softcapping": st.just(5.0),
}
ROPE = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(("default", "linear", "dynamic", "yarn")),
     "rope_theta": st.sampled_from((100.0, 10000.0)), "factor": st.sampled_from((1.0, 3.0))},
    optional={"partial_rotary_factor": st.just(0.5)},
)  # fmt: skip
LLAMA = {
    "rope_parameters": ROPE,
    "head_dim": st.sampled_from((4, 8, 16)),
    "num_key_value_heads": st.sampled_from((1, 2, 4)),
    "hidden_act": st.sampled_from(("silu", "gelu", "relu")),
    "attention_bias": st.booleans(),
    "mlp_bias": st.booleans(),
    "rms_norm_eps": st.sampled_from((1e-6, 0.1)),
    "max_position_embeddings": st.sampled_from((16, 512)),
    "pretraining_tp": st.sampled_from((1, 2)),
    "use_sliding_window": st.booleans(),
    "max_window_layers": st.integers(0, 3),
}
GPT2 = {
    "scale_attn_weights": st.booleans(),
    "scale_attn_by_inverse_layer_idx": st.booleans(),
    "reorder_and_upcast_attn": st.booleans(),
    "add_cross_attention": st.booleans(),
    "n_inner": st.sampled_from((None, 24)),
    "activation_function": st.sampled_from(("gelu_new", "relu", "gelu")),
    "layer_norm_epsilon": st.sampled_from((1e-5, 0.1)),
}


@st.composite
def configurations(draw):
    kind = draw(st.sampled_from(sorted(CLASSES)))
    known = SHARED | (GPT2 if kind == "gpt2" else LLAMA)
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    sizes = SMALL
    if kind == "gpt2":
        sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return CLASSES[kind], {**sizes, **{name: draw(known[name]) for name in names}}


def logits_or_error(forward: ModelRunner, prompt: list[int], tokens: list[int]):
    """The logits after the prompt and each token; None where the model cannot run at all."""
    try:
        found = [forward.prefill(prompt)]
        found += [forward.step(torch.tensor([[token]])) for token in tokens]
    except Exception:  # the libraries have one of their own for every broken configuration
        return None
    return torch.cat(found)


def check(made, values: dict, prompt: list[int], tokens: list[int]) -> None:
    try:
        model = network(made(**values))
    except Exception:  # transformers refuses this configuration
        assume(False)
    expected = logits_or_error(ModelRunner(model, fallback_reason="asked for"), prompt, tokens)
    found = logits_or_error(ModelRunner(model), prompt, tokens)
    assert (found is None) == (expected is None)
    assume(expected is not None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.argmax(-1).tolist() == expected.argmax(-1).tolist()
    runner = ModelRunner(model)
    if runner.forward is None:
        return
    runner.prefill(prompt)
    together = BatchedForward(runner.forward, 1)
    together.add_row(0, runner.written_out()[1])
    rows = torch.cat([together([token]) for token in tokens])
    torch.testing.assert_close(rows, expected[1:], rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(configurations(), st.lists(st.integers(3, 60), min_size=1, max_size=24))
def test_random_configurations_give_the_logits_of_the_models_own_code(configuration, prompt):
    check(*configuration, prompt, [7, 9, 11, 3, 20, 41])


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(configurations(), st.lists(st.integers(3, 60), min_size=1, max_size=24))
def test_many_random_configurations_give_the_logits_of_the_models_own_code(configuration, prompt):
    check(*configuration, prompt, [7, 9, 11, 3, 20, 41])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_usual_configurations_are_written_out(name: str) -> None:
    build_forward(network(CONFIGS[name]))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (t.MistralConfig(**SMALL, sliding_window=1), "sliding window is 1"),
        (t.LlamaConfig(**SMALL, layer_types=["chunked_attention"] * 2), "chunked_attention"),
        (t.MistralConfig(**SMALL, layer_types=["chunked_attention"] * 2), "chunked_attention"),
        (t.LlamaConfig(**SMALL, sliding_window=8), "sliding_attention"),
        (t.GPT2Config(n_embd=32, n_layer=2, n_head=4, sliding_window=8), "sliding_attention"),
        (t.GPT2Config(n_embd=32, n_layer=2, n_head=4, is_causal=False), "is_causal = False"),
        (t.GPT2Config(n_embd=32, n_layer=2, n_head=4, add_cross_attention=True), "cross"),
    ],
)
def test_a_value_that_is_not_understood_sends_the_model_to_its_own_code(config, words) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        build_forward(network(config))


def test_a_field_of_a_newer_transformers_sends_the_model_to_its_own_code() -> None:
    class Newer(t.LlamaConfig):
        residual_scale: float = 1.0

    model = network(t.LlamaConfig(**SMALL))
    model.config = Newer(**SMALL)
    model.config._attn_implementation = "sdpa"
    build_forward(model)
    model.config.residual_scale = 0.5
    with pytest.raises(UnsupportedModel, match=r"residual_scale = 0\.5"):
        build_forward(model)
