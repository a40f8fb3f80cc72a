"""Running ahead gives what waiting gives: the same tokens, the same numbers, nothing after the end."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from known_models import CONFIGS, network

from decodecli.decoding.cuda_graph import PIPELINE_DEPTH, CudaGraphDecoder
from decodecli.decoding.decode import Decoding, generate
from decodecli.decoding.prompt import PrefilledPrompt, prefill
from decodecli.models.loading import LanguageModel
from decodecli.models.runner import ModelRunner
from decodecli.models.supported import UnsupportedModel
from decodecli.sampling.chain import Chain
from decodecli.sampling.sampler import Sampler
from decodecli.sampling.statistics import unpack
from decodecli.settings import SamplingParams

PROMPT = list(range(3, 23))


def waiting(model, params: SamplingParams, steps: int) -> list:
    forward, sample = ModelRunner(model), Sampler(Chain(params), 5, str, 7)
    logits, seen = forward.prefill(PROMPT), []
    for number in range(steps):
        chosen, observation = sample(logits, None, number)
        seen.append(observation)
        logits = forward.step(chosen)
    return seen


def ahead(model, params: SamplingParams, steps: int) -> CudaGraphDecoder:
    forward = ModelRunner(model)
    logits = forward.prefill(PROMPT)
    return CudaGraphDecoder(*forward.written_out(), logits, Chain(params), 5, 7, steps)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("values", [{"temperature": 0}, {"temperature": 1.3, "top_p": 0.8}])
def test_the_steps_are_those_of_waiting(name: str, values: dict) -> None:
    model, params = network(CONFIGS[name]), SamplingParams(**values)
    run = ahead(model, params, 60)
    found = [unpack(x, Chain(params), 5, 300, str) for x in run]
    expected = waiting(model, params, 60)
    assert [x.token_id for x in found] == [x.token_id for x in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.kept == theirs.kept
        for mine, other in zip(ours.candidates, theirs.candidates, strict=True):
            assert (mine.token_id, mine.removed_by) == (other.token_id, other.removed_by)
            assert math.isclose(mine.logprob, other.logprob, rel_tol=1e-4, abs_tol=1e-4)


def test_a_full_cache_grows(monkeypatch) -> None:
    from decodecli.decoding import cuda_graph as module

    model, params = network(CONFIGS["mistral, window of 8"]), SamplingParams(seed=1)
    expected = [unpack(x, Chain(params), 5, 300, str) for x in ahead(model, params, 70)]
    monkeypatch.setattr(module, "INITIAL_CAPACITY", 3)
    found = [unpack(x, Chain(params), 5, 300, str) for x in ahead(model, params, 70)]
    assert [x.token_id for x in found] == [x.token_id for x in expected]


def test_the_device_is_two_steps_ahead_and_never_past_the_last(monkeypatch) -> None:
    model, launched = network(CONFIGS["llama"]), []
    launch = CudaGraphDecoder._launch
    monkeypatch.setattr(
        CudaGraphDecoder, "_launch", lambda *call: (launched.append(call[1]), launch(*call))
    )
    run = ahead(model, SamplingParams(), 6)
    seen = [max(launched, default=0) for _ in run]
    assert PIPELINE_DEPTH == 2
    assert seen == [2, 3, 4, 5, 5, 5]
    assert launched == [1, 2, 3, 4, 5]


def test_what_looks_back_or_is_unknown_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="repetition_penalty"):
        ahead(network(CONFIGS["llama"]), SamplingParams(repetition_penalty=1.2), 5)
    with pytest.raises(UnsupportedModel, match="training"):
        ahead(network(CONFIGS["llama"]).train(), SamplingParams(), 5)


def test_a_decoding_that_runs_ahead_ends_at_the_same_eos(lm, monkeypatch) -> None:
    """The whole of a run, as on a GPU but without the graph."""
    params = SamplingParams(max_new_tokens=60, temperature=0)
    expected = generate(lm, "The capital of Japan is", params)
    assert expected.summary.finish_reason == "stop"

    def always(self):
        return CudaGraphDecoder(
            *self.prompt.runner.written_out(), self.prompt.logits, self.chain, self.candidates,
            self.seed, self.params.max_new_tokens, capture=False,
        )  # fmt: skip

    monkeypatch.setattr(Decoding, "_cuda_graph", always)
    prefix: PrefilledPrompt = prefill(lm, "The capital of Japan is")
    for _ in range(2):  # the prefix can be used again
        decoding = Decoding(prefix, params)
        steps = list(decoding)
        assert [s.token_id for s in steps] == list(expected.summary.token_ids)
        assert decoding.summary().text == expected.summary.text
        assert [dataclasses.replace(s, candidates=()).text for s in steps] == [
            s.text for s in expected.steps
        ]


def test_int8_layers_are_refused() -> None:
    class Linear8bitLt(torch.nn.Linear):
        pass

    model = network(CONFIGS["llama"])
    model.model.layers[0].mlp.up_proj = Linear8bitLt(64, 96, bias=False)
    with pytest.raises(UnsupportedModel, match="int8"):
        ahead(model, SamplingParams(), 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_failed_capture_leaves_single_steps_and_healthy_generators(monkeypatch) -> None:
    model, params = network(CONFIGS["llama"]).cuda(), SamplingParams(temperature=1.3)
    forward = ModelRunner(model)
    logits = forward.prefill(PROMPT)
    expected = [
        x[0]
        for x in CudaGraphDecoder(
            *forward.written_out(), logits, Chain(params), 5, 7, 30, capture=False
        )
    ]
    choose = CudaGraphDecoder._sample

    def looking(self, logits, noise):
        if torch.cuda.is_current_stream_capturing():
            float(logits.sum())  # no capture survives this
        return choose(self, logits, noise)

    monkeypatch.setattr(CudaGraphDecoder, "_sample", looking)
    run = CudaGraphDecoder(*forward.written_out(), logits, Chain(params), 5, 7, 30)
    assert run.backend.startswith("a step at a time: ")
    assert [x[0] for x in run] == expected
    torch.rand(3, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["llama", "qwen3, wide heads", "mistral, window of 8", "gpt2"])
@pytest.mark.parametrize("values", [{"temperature": 0}, {"temperature": 1.3, "top_p": 0.8}])
def test_a_graph_gives_what_single_steps_give(name: str, values: dict) -> None:
    model, params = network(CONFIGS[name]).cuda(), SamplingParams(**values)
    forward = ModelRunner(model)
    logits = forward.prefill(PROMPT)
    runs = [
        CudaGraphDecoder(*forward.written_out(), logits, Chain(params), 5, 7, 600, capture=capture)
        for capture in (True, False)
    ]
    assert runs[0].backend == "in a CUDA graph"
    assert runs[1].backend == "a step at a time"
    graphed, single = ([x[0] for x in run] for run in runs)
    assert graphed == single


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_is_captured_and_says_so() -> None:
    from conftest import builtin_tokenizer, tiny_network

    lm = LanguageModel.wrap(tiny_network("llama").cuda(), builtin_tokenizer(), "llama")
    decoding = Decoding(prefill(lm, "Once upon a time"), SamplingParams(seed=0))
    list(decoding)
    assert decoding.backend == "in a CUDA graph"
    tiny_network("llama").cpu()
