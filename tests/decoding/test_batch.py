"""Many runs at once give what each gives alone, whatever stands beside them."""

from __future__ import annotations

import random

import pytest
import torch
from conftest import builtin_tokenizer, tiny_network
from known_models import CONFIGS, network

from decodecli.decoding import batch as batch_module
from decodecli.decoding.batch import Batch, Request
from decodecli.decoding.decode import generate
from decodecli.decoding.prompt import prefill
from decodecli.models.loading import LanguageModel, load
from decodecli.settings import SamplingParams

PROMPTS = ("Once upon a time", "The capital of Japan is", "A", "The sky is blue because of a big")


def some_requests(lm, count: int, seed: int) -> list[Request]:
    """Jobs of every kind of setting, lengths and prompts mixed."""
    dice = random.Random(seed)
    prefixes = [prefill(lm, prompt) for prompt in PROMPTS]
    requests = []
    for number in range(count):
        values = {
            "max_new_tokens": dice.choice((1, 4, 8)),
            "temperature": dice.choice((0, 0.001, 0.2, 0.7, 1.0, 1.4, 2.0, 20.0)),
            "seed": dice.randrange(2**32),
        }
        for name, share, choices in (
            ("top_p", 0.5, (0.2, 0.5, 0.9, 0.95)),
            ("top_k", 0.3, (1, 5, 40, 500)),
            ("min_p", 0.2, (0.02, 0.2)),
            ("typical_p", 0.1, (0.5, 0.95)),
            ("eta_cutoff", 0.1, (3e-4,)),
            ("top_nsigma", 0.1, (0.5, 1.5)),
            ("top_h", 0.05, (0.4,)),
            ("tfs_z", 0.05, (0.9,)),
            ("xtc_probability", 0.1, (0.5,)),
            ("mirostat", 0.1, (2,)),
            ("dynatemp_range", 0.05, (0.3,)),
            ("dry_multiplier", 0.05, (0.8,)),
            ("presence_penalty", 0.05, (0.5,)),
            ("min_new_tokens", 0.05, (3,)),
            ("logit_bias", 0.05, (("5=2",),)),
            ("order", 0.1, ("llama.cpp", "mlx")),
            ("repetition_penalty", 0.15, (1.2,)),
            ("no_repeat_ngram_size", 0.15, (2, 3)),
            ("stop", 0.1, ((".",),)),
        ):
            if dice.random() < share:
                values[name] = dice.choice(choices)
        requests.append(Request(number, dice.choice(prefixes), SamplingParams(**values)))
    return requests


def alone(request: Request):
    return generate(request.prompt.lm, list(request.prompt.ids), request.params)


def test_200_runs_are_the_same_whatever_the_order_and_the_number_of_rows(lm) -> None:
    requests = some_requests(lm, 200, seed=1)
    expected = {request.key: alone(request).summary for request in requests}
    for size in (1, 3, 8, 16):
        random.Random(size).shuffle(requests)
        found = {done.request.key: done for done in Batch(lm, size)(requests)}
        assert len(found) == 200
        for key, summary in expected.items():
            ours = found[key].summary
            assert ours.token_ids == summary.token_ids, found[key].request.params
            assert ours.text == summary.text
            assert ours.finish_reason == summary.finish_reason
            assert ours.mean_logprob == pytest.approx(summary.mean_logprob, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_known_architecture_gives_the_same_together(name) -> None:
    model = LanguageModel.wrap(network(CONFIGS[name]), builtin_tokenizer(), name)
    prefixes = [prefill(model, list(range(5, 5 + length))) for length in (1, 4, 30)]
    requests = [
        Request(n, prefixes[n % 3], SamplingParams(seed=n, temperature=0.5 + n / 4, top_p=0.95))
        for n in range(9)
    ]
    batch = Batch(model, 4)
    assert not batch.fallback_reason
    for done in batch(requests):
        assert done.summary.token_ids == alone(done.request).summary.token_ids


@pytest.mark.parametrize("architecture", ["gemma2", "mamba"])
def test_other_architectures_run_a_row_at_a_time_and_say_so(architecture) -> None:
    model = LanguageModel.wrap(tiny_network(architecture), builtin_tokenizer(), architecture)
    prefix = prefill(model, [5, 6, 7])
    requests = [Request(n, prefix, SamplingParams(seed=n, max_new_tokens=5)) for n in range(3)]
    batch = Batch(model, 16)
    assert "its own code" in batch.fallback_reason
    for done in batch(requests):
        assert done.summary.token_ids == alone(done.request).summary.token_ids


def test_records_of_the_steps_are_those_of_a_run_alone(lm) -> None:
    for done in Batch(lm, 5, candidates=3)(some_requests(lm, 12, seed=2)):
        run = alone(done.request)
        assert done.summary.token_ids == run.summary.token_ids
        for ours, theirs in zip(done.steps, run.steps, strict=True):
            assert (ours.index, ours.position, ours.text) == (
                theirs.index, theirs.position, theirs.text
            )  # fmt: skip
            assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-3, abs=1e-4)
            assert len(ours.candidates) in (3, 4)


def test_segments_logprobs_and_entropies_go_with_the_tokens(lm) -> None:
    for done in Batch(lm, 4)(some_requests(lm, 8, seed=3)):
        run = alone(done.request)
        assert "".join(done.segments) == done.summary.text
        assert len(done.segments) == len(done.logprobs) == len(done.entropies)
        assert len(done.logprobs) == done.summary.new_tokens
        expected = [step.entropy for step in run.steps]
        assert done.entropies == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_finished_row_is_replaced_at_once(lm, monkeypatch) -> None:
    passes = []
    forward = batch_module.BatchedForward.__call__

    def counted(self, tokens):
        passes.append(len(tokens))
        return forward(self, tokens)

    monkeypatch.setattr(batch_module.BatchedForward, "__call__", counted)
    prefix = prefill(lm, "Once")
    # Lengths 1, 2, 3, … : 36 passes for one row after the other.
    requests = [
        Request(n, prefix, SamplingParams(max_new_tokens=n + 1, temperature=20, seed=n))
        for n in range(9)
    ]
    done = list(Batch(lm, 3)(requests))
    assert sum(passes) == sum(len(d.logprobs) - 1 for d in done)
    assert passes.count(3) >= 9  # of 36 row passes in all, less those that end early


def test_a_doubtful_draw_has_its_job_run_again_alone(lm, monkeypatch) -> None:
    monkeypatch.setattr(batch_module, "TOLERANCE", 0.5)  # nearly everything is doubtful
    counts: list[int] = []
    batch = Batch(lm, 4, on_tokens=counts.append)
    requests = some_requests(lm, 10, seed=4)
    found = list(batch(requests))
    assert batch.reruns > 3
    for done in found:
        assert done.summary.token_ids == alone(done.request).summary.token_ids
    assert sum(counts) == sum(len(done.logprobs) for done in found)


def test_exact_runs_every_job_alone(lm, monkeypatch) -> None:
    monkeypatch.setattr(batch_module, "BatchedForward", None)
    batch = Batch(lm, 16, exact=True)
    assert batch.fallback_reason == "asked for"
    for done in batch(some_requests(lm, 5, seed=5)):
        assert done.summary.token_ids == alone(done.request).summary.token_ids


@pytest.mark.parametrize("size", [1, 3])
def test_a_job_that_fails_does_not_stop_the_others(size) -> None:
    model = LanguageModel.wrap(network(CONFIGS["llama"]), builtin_tokenizer(), "poisoned")
    with torch.no_grad():
        poison = int(alone_token(model))
        model.model.model.embed_tokens.weight[poison] = torch.nan
    try:
        good, bad = prefill(model, [5, 6]), prefill(model, [7])
        requests = [
            Request("bad", bad, SamplingParams(temperature=0, seed=0, max_new_tokens=8)),
            *(
                Request(n, good, SamplingParams(seed=n, top_k=2, max_new_tokens=8))
                for n in range(4)
            ),
        ]
        found = {done.request.key: done for done in Batch(model, size)(requests)}
    finally:
        with torch.no_grad():
            model.model.model.embed_tokens.weight[poison] = 0
    assert found["bad"].summary.finish_reason == "error"
    assert "not finite" in str(found["bad"].error)
    assert len(found["bad"].logprobs) == 1
    assert sum(done.error is None for done in found.values()) >= 1


def alone_token(model) -> int:
    """The token that follows [7]: the one that the bad request draws first."""
    return int(prefill(model, [7]).logits.argmax())


def test_bfloat16_runs_together_without_doubts(lm) -> None:
    half = LanguageModel.wrap(
        network(CONFIGS["llama"], torch.bfloat16), builtin_tokenizer(), "half"
    )
    batch = Batch(half, 4)
    prefix = prefill(half, [5, 6])
    requests = [Request(n, prefix, SamplingParams(seed=n, max_new_tokens=6)) for n in range(6)]
    assert {len(done.logprobs) for done in batch(requests)} <= set(range(1, 7))
    assert batch.reruns == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
def test_on_a_gpu_rows_run_together() -> None:
    gpu_lm = load("builtin", device="cuda", dtype="float32", quantize="none")
    requests = some_requests(gpu_lm, 24, seed=6)
    found = {done.request.key: done for done in Batch(gpu_lm, 8)(requests)}
    same = sum(
        found[request.key].summary.token_ids == alone(request).summary.token_ids
        for request in requests
    )
    assert len(found) == 24
    assert same >= 22  # another rounding may turn over a close draw
