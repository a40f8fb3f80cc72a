"""The written-out forward pass gives what the model's own gives, token for token."""

from __future__ import annotations

import pytest
import torch
import transformers as t
from conftest import tiny_network
from known_models import CONFIGS, SIZES, network

from decodecli.models.forward import build_forward
from decodecli.models.runner import ModelRunner
from decodecli.models.supported import UnsupportedModel


def both_ways(model, prompt: list[int], steps: int):
    """The logits after each of `steps` greedy tokens, directly and by the model's own code."""
    ours, theirs = ModelRunner(model), ModelRunner(model, fallback_reason="asked for")
    pairs = [(ours.prefill(prompt), theirs.prefill(prompt))]
    for _ in range(steps):
        token = pairs[-1][1].argmax(-1, keepdim=True)
        pairs.append((ours.step(token), theirs.step(token)))
    assert ours.fallback_reason is None
    return pairs


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [1, 5, 30])
def test_logits_are_the_models_own(name: str, length: int) -> None:
    prompt = torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    for ours, theirs in both_ways(network(CONFIGS[name]), prompt, 90):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3, wide heads", "gpt2"])
def test_bfloat16_logits_are_the_models_own(name: str) -> None:
    for ours, theirs in both_ways(network(CONFIGS[name], torch.bfloat16), [5, 6, 7], 20):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_forks_do_not_disturb_each_other() -> None:
    model = network(CONFIGS["mistral, window of 8"])
    first = ModelRunner(model)
    first.prefill(list(range(3, 23)))
    second, token = first.fork(), torch.tensor([[9]])
    for _ in range(70):  # past the room of a new cache
        second.step(token)
    third = second.fork()
    for forward, length in ((first, 20), (second, 90), (third, 90)):
        prompt = [*range(3, 23), *[9] * (length - 20)]
        expected = ModelRunner(model, fallback_reason="asked for").prefill([*prompt, 9])
        torch.testing.assert_close(forward.step(token), expected, rtol=1e-4, atol=1e-4)


def test_changed_weights_are_seen() -> None:
    model = network(CONFIGS["llama"])
    forward = ModelRunner(model)
    before = forward.prefill([4, 5])
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    after = forward.step(before.argmax(-1, keepdim=True))
    torch.testing.assert_close(after, ModelRunner(model).prefill([4, 5, int(before.argmax())]))


def test_what_is_not_known_goes_its_own_way_and_says_why() -> None:
    def reason(model) -> str:
        forward = ModelRunner(model)
        forward.step(forward.prefill([4, 5]).argmax(-1, keepdim=True))
        assert forward.fallback_reason is not None
        return forward.fallback_reason

    assert "Gemma2ForCausalLM" in reason(tiny_network("gemma2"))
    assert "MambaForCausalLM" in reason(tiny_network("mamba"))
    hooked = network(CONFIGS["llama"])
    seen = []
    hooked.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    assert "hook" in reason(hooked)
    assert len(seen) == 2  # the hook ran for the prompt and for the token
    eager = network(CONFIGS["llama"])
    eager.set_attn_implementation("eager")
    assert "eager" in reason(eager)
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert "dynamic" in reason(network(t.LlamaConfig(**SIZES, rope_parameters=dynamic)))


def test_a_model_in_training_mode_or_of_another_library_is_not_known() -> None:
    with pytest.raises(UnsupportedModel, match="training"):
        build_forward(network(CONFIGS["llama"]).train())

    class OwnForCausalLM(t.LlamaForCausalLM):
        pass

    with pytest.raises(UnsupportedModel, match="OwnForCausalLM"):
        build_forward(OwnForCausalLM(CONFIGS["llama"]).eval())


def test_a_model_with_a_part_replaced_or_hooks_everywhere_goes_its_own_way() -> None:
    model = network(CONFIGS["llama"])
    model.model.norm = torch.nn.RMSNorm(64)
    with pytest.raises(UnsupportedModel, match="variance_epsilon"):
        build_forward(model)
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(UnsupportedModel, match="all modules"):
            build_forward(network(CONFIGS["llama"]))
    finally:
        hook.remove()
