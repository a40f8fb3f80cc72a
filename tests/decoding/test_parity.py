"""The tokens are those of transformers' `generate`, the oracle."""

from __future__ import annotations

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, builtin_tokenizer, tiny_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.decoding.decode import generate
from decodecli.decoding.prompt import run_context
from decodecli.explore.engine import Noise
from decodecli.models.runner import ModelRunner
from decodecli.models.supported import DEFAULTS
from decodecli.sampling import reference
from decodecli.sampling.chain import Chain
from decodecli.sampling.one_position import Distribution
from decodecli.settings import SamplingParams

PROMPTS = ("Once upon a time,", "The capital of Japan is", "日本の首都は", "a a a a", "")

SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0, 0, 1e-3, 0.2, 0.7, 1.0, 1.4, 2.0, 20.0, 100.0]),
        "top_k": st.sampled_from([0, 0, 0, 1, 2, 5, 40, 10_000]),
        "top_p": st.sampled_from([1.0, 1.0, 1e-6, 0.2, 0.5, 0.9, 0.999]),
        "min_p": st.sampled_from([0.0, 0.0, 0.01, 0.1, 1.0]),
        "typical_p": st.sampled_from([1.0, 1.0, 0.1, 0.5, 0.95]),
        "epsilon_cutoff": st.sampled_from([0.0, 0.0, 3e-4, 0.05, 0.9]),
        "eta_cutoff": st.sampled_from([0.0, 0.0, 3e-4, 0.05, 0.9]),
        "top_nsigma": st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0]),
        "top_h": st.sampled_from([0.0, 0.0, 0.2, 0.7]),
        "min_new_tokens": st.sampled_from([0, 0, 3, 12]),
        "logit_bias": st.sampled_from([(), (), ("2=3.5",), ("7=6", "300=-2")]),
        "repetition_penalty": st.sampled_from([1.0, 1.0, 1.3, 0.8, 5.0]),
        "no_repeat_ngram_size": st.sampled_from([0, 0, 1, 2, 3]),
        "seed": st.integers(0, 2**32 - 1),
        "max_new_tokens": st.integers(1, 24),
    }
)
EXAMPLES = settings(
    max_examples=45,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class TopNSigma(transformers.LogitsProcessor):
    """What transformers lacks, from the float64 definition; it is run directly before the temperature."""

    def __init__(self, n: float) -> None:
        self.n = n

    def __call__(self, input_ids, scores):
        removed = reference.below_top_nsigma(scores[0].double().cpu().numpy(), self.n)
        return scores.masked_fill(torch.from_numpy(removed).to(scores.device), -torch.inf)


def oracle(model, ids: list[int], values: dict) -> list[int]:
    """`generate`'s new token ids, every value passed explicitly."""
    values = dict(values)
    seed, temperature = values.pop("seed"), values.pop("temperature")
    top_nsigma, biases = (
        values.pop("top_nsigma"),
        dict(b.split("=") for b in values.pop("logit_bias")),
    )
    if biases:
        values["sequence_bias"] = {(int(token),): float(bias) for token, bias in biases.items()}
    values = {name: value for name, value in values.items() if value or name == "top_k"}
    if temperature == 0:
        kept = ("repetition_penalty", "no_repeat_ngram_size", "max_new_tokens", "min_new_tokens")
        arguments = {name: values[name] for name in (*kept, "sequence_bias") if name in values}
        arguments["do_sample"] = False
    else:
        arguments = {"do_sample": True, "temperature": float(temperature), **values}
        if top_nsigma:
            arguments["logits_processor"] = [TopNSigma(top_nsigma)]
    transformers.set_seed(seed)
    device = model.get_input_embeddings().weight.device
    inputs = torch.tensor([ids], device=device)
    output = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), pad_token_id=0, **arguments
    )
    return output[0, len(ids) :].tolist()


def check_ids(lm, model, prompt: str, values: dict) -> None:
    """The ids of a run are those of `generate`.

    Or, where they part, logits that differ by rounding alone were drawn from: from the oracle's own
    logits the same sampler draws the oracle's token. (At T = 100 all probabilities are nearly equal, and
    which are nearest to the entropy is a matter of the last bit.)
    """
    params = SamplingParams(**values)
    run = generate(lm, prompt, params, candidates=2)
    ids, prompt_ids = list(run.summary.token_ids), run.header.prompt_ids
    expected = oracle(model, list(prompt_ids), values)
    if ids == expected:
        return
    at = next(k for k, pair in enumerate(zip(ids, expected, strict=False)) if pair[0] != pair[1])
    before = (*prompt_ids, *ids[:at])
    both = []
    for runner in (lm.runner(), ModelRunner(model, fallback_reason="the oracle's own code")):
        logits = runner.prefill(list(prompt_ids))
        for token in ids[:at]:
            logits = runner.step(torch.tensor([[token]]))
        both.append(logits)
    ours, theirs = both
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-6)
    noise = None if params.greedy else Noise(ours.shape[-1]).at(values["seed"], at)
    chain = Chain(params, context=run_context(lm, params, prompt_ids, params.seed))
    drawn = [Distribution(logits, before, params, chain).draw(noise) for logits in (ours, theirs)]
    assert drawn == [ids[at], expected[at]]


def test_where_the_last_bit_decides_the_rest_of_a_run_still_counts(tiny_lm):
    """Here the ids part by rounding (GPT-2), and what they are checked with must know of the minimum."""
    values = dict.fromkeys(("top_k", "min_p", "eta_cutoff", "top_nsigma", "top_h"), 0)
    values |= {"temperature": 100.0, "top_p": 0.5, "typical_p": 0.5, "epsilon_cutoff": 0.05}
    values |= {"repetition_penalty": 1.3, "no_repeat_ngram_size": 0, "logit_bias": ()}
    values |= {"min_new_tokens": 3, "max_new_tokens": 3, "seed": 0}
    check_ids(tiny_lm, tiny_lm.model, "日本の首都は", values)


@EXAMPLES
@given(values=SETTINGS, prompt=st.sampled_from(PROMPTS))
def test_tokens_equal_those_of_generate_on_every_architecture(tiny_lm, values, prompt):
    check_ids(tiny_lm, tiny_lm.model, prompt, values)


@pytest.fixture(scope="module", params=[name for name in ARCHITECTURES if name in DEFAULTS])
def native_lm(request, tmp_path_factory):
    """A known architecture without transformers, and the model that it was saved from."""
    folder, model = tmp_path_factory.mktemp(request.param), tiny_network(request.param)
    model.save_pretrained(folder)
    builtin_tokenizer().save_pretrained(folder)
    lm = decodecli.load(str(folder), device="cpu", dtype="float32")
    assert lm.loader.startswith("native")
    return lm, model


@EXAMPLES
@given(values=SETTINGS, prompt=st.sampled_from(PROMPTS))
def test_tokens_equal_those_of_generate_without_transformers(native_lm, values, prompt):
    check_ids(*native_lm, prompt, values)


@pytest.fixture(scope="module")
def builtin_network():
    return decodecli.load("builtin", device="cpu", dtype="float32", loader="transformers").model


@pytest.fixture(scope="module", params=["auto", "transformers"])
def builtin_lm(request):
    return decodecli.load("builtin", device="cpu", dtype="float32", loader=request.param)


@EXAMPLES
@given(values=SETTINGS, prompt=st.sampled_from(PROMPTS))
def test_tokens_equal_those_of_generate_on_the_built_in_model(
    builtin_lm, builtin_network, values, prompt
):
    check_ids(builtin_lm, builtin_network, prompt, values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@EXAMPLES
@given(values=SETTINGS, prompt=st.sampled_from(PROMPTS))
def test_tokens_equal_those_of_generate_on_cuda(values, prompt):
    lm = decodecli.load("builtin", device="cuda", dtype="float32", quantize="none")
    run = generate(lm, prompt, SamplingParams(**values), candidates=2)
    assert list(run.summary.token_ids) == oracle(lm.model, list(run.header.prompt_ids), values)
