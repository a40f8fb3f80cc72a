"""The loop: how often the model runs, where a run ends, and what it leaves behind."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace

import pytest
import torch

import decodecli
from decodecli.decoding.decode import Decoding, decode, generate
from decodecli.decoding.prompt import encode, prefill
from decodecli.errors import DecodeError, PromptError
from decodecli.models.loading import LanguageModel
from decodecli.models.runner import ModelRunner
from decodecli.settings import SamplingParams


@pytest.fixture
def forwards(monkeypatch):
    """How many tokens each forward pass was given."""
    seen: list[int] = []
    prefill, step = ModelRunner.prefill, ModelRunner.step

    def counted_prefill(self, ids):
        seen.append(len(ids))
        return prefill(self, ids)

    def counted_step(self, token):
        seen.append(token.shape[1])
        return step(self, token)

    monkeypatch.setattr(ModelRunner, "prefill", counted_prefill)
    monkeypatch.setattr(ModelRunner, "step", counted_step)
    return seen


def test_one_forward_for_the_prompt_one_a_token_and_none_after_the_last(llama_lm, forwards):
    run = generate(llama_lm, [1, 5, 6, 7], SamplingParams(max_new_tokens=5, temperature=0))
    assert run.summary.new_tokens == 5
    assert forwards == [4, 1, 1, 1, 1]


def test_samples_share_one_prefill_and_do_not_disturb_each_other(llama_lm, forwards):
    prefix = prefill(llama_lm, [1, 5, 6, 7])
    runs = []
    for seed in range(3):
        decoding = Decoding(prefix, SamplingParams(max_new_tokens=6, seed=seed))
        list(decoding)
        runs.append(decoding.summary().token_ids)
    assert forwards.count(4) == 1
    alone = [
        generate(llama_lm, [1, 5, 6, 7], SamplingParams(max_new_tokens=6, seed=s)) for s in range(3)
    ]
    assert runs == [run.summary.token_ids for run in alone]
    assert len(set(runs)) == 3


def test_samples_of_every_architecture_equal_single_runs(tiny_lm):
    prefix = prefill(tiny_lm, "Once upon a time")
    for seed in (0, 1):
        decoding = Decoding(prefix, SamplingParams(max_new_tokens=8, seed=seed))
        list(decoding)
        alone = generate(tiny_lm, "Once upon a time", SamplingParams(max_new_tokens=8, seed=seed))
        assert decoding.summary().token_ids == alone.summary.token_ids


def test_a_model_without_a_cache_is_run_over_the_whole_sequence(llama_lm, monkeypatch):
    expected = generate(llama_lm, "hello", SamplingParams(max_new_tokens=6, temperature=0))
    run = llama_lm.model.forward

    def forgetful(*args, **kwargs):
        output = run(*args, **{**kwargs, "use_cache": False})
        output["past_key_values"] = None
        return output

    monkeypatch.setattr(llama_lm.model, "forward", forgetful)
    found = generate(llama_lm, "hello", SamplingParams(max_new_tokens=6, temperature=0))
    assert found.summary.token_ids == expected.summary.token_ids


def test_closing_the_iterator_early_frees_what_it_holds(llama_lm):
    steps = decode(llama_lm, "hello", SamplingParams(max_new_tokens=50, seed=0))
    next(steps)
    runners = [found for found in gc.get_objects() if type(found) is ModelRunner]
    held = weakref.ref(runners[-1])
    assert held() is not None
    del runners
    steps.close()
    del steps
    gc.collect()
    assert held() is None


def test_a_run_repeats_with_its_recorded_seed(llama_lm):
    first = generate(llama_lm, "hello", SamplingParams(max_new_tokens=10))
    assert 0 <= first.header.seed < 2**32
    again = generate(llama_lm, "hello", SamplingParams(max_new_tokens=10, seed=first.header.seed))
    assert again.summary.token_ids == first.summary.token_ids
    assert first.header.params["seed"] == first.header.seed


def test_positions_indexes_and_texts_line_up(lm):
    run = generate(lm, "Once upon a time", SamplingParams(max_new_tokens=12, seed=4))
    start = len(run.header.prompt_ids)
    assert [step.index for step in run.steps] == list(range(len(run.steps)))
    assert [step.position for step in run.steps] == [start + i for i in range(len(run.steps))]
    assert "".join(step.text for step in run.steps) == run.summary.text == run.text
    assert [step.token_id for step in run.steps] == list(run.summary.token_ids)
    assert [lm.tokenizer.convert_ids_to_tokens(s.token_id) for s in run.steps] == [
        s.token for s in run.steps
    ]
    mean = sum(step.logprob for step in run.steps) / len(run.steps)
    assert run.summary.mean_logprob == pytest.approx(mean)
    assert run.summary.perplexity == pytest.approx(math.exp(-mean))


def test_recorded_logits_are_those_of_one_full_forward(tiny_lm):
    run = generate(
        tiny_lm, "Once upon a time", SamplingParams(max_new_tokens=6, seed=3), candidates=50
    )
    ids = [*run.header.prompt_ids, *run.summary.token_ids]
    with torch.inference_mode():
        full = tiny_lm.model(torch.tensor([ids])).logits[0].float()
    for step in run.steps:
        for row in step.candidates:
            assert row.logit == pytest.approx(
                full[step.position - 1, row.token_id].item(), abs=1e-4
            )


def with_eos(lm: LanguageModel, ids: set[int]) -> LanguageModel:
    return replace(lm, eos_ids=frozenset(ids))


def test_any_of_several_end_tokens_ends_the_run_and_is_recorded(llama_lm):
    free = generate(llama_lm, "hello", SamplingParams(max_new_tokens=12, seed=0)).summary.token_ids
    third = free[2]
    found = generate(
        with_eos(llama_lm, {4095, third}), "hello", SamplingParams(max_new_tokens=12, seed=0)
    )
    assert found.summary.token_ids == free[: free.index(third) + 1]
    assert found.summary.finish_reason == "stop"


def test_a_stop_string_over_several_tokens_ends_the_text_before_it(llama_lm):
    free = generate(llama_lm, "hello", SamplingParams(max_new_tokens=20, seed=7))
    text = free.summary.text
    middle = text[len(text) // 2 - 3 : len(text) // 2 + 3]
    found = generate(llama_lm, "hello", SamplingParams(max_new_tokens=20, seed=7, stop=(middle,)))
    assert found.summary.finish_reason == "stop"
    assert found.summary.text == text[: text.index(middle)]
    assert found.summary.new_tokens < 20
    assert found.summary.token_ids == free.summary.token_ids[: found.summary.new_tokens]


def test_the_context_limit_ends_a_run_with_a_notice(llama_lm):
    prompt = [1, *range(300, 420)]
    decoding = Decoding(prefill(llama_lm, prompt), SamplingParams(max_new_tokens=100, seed=0))
    steps = list(decoding)
    assert len(prompt) + len(steps) == llama_lm.context == 128
    assert decoding.summary().finish_reason == "length"
    assert any("context" in notice for notice in decoding.notices)


def test_an_interrupted_run_ends_with_the_step_under_way_and_loses_no_text(lm):
    decoding = Decoding(prefill(lm, "Once upon a time"), SamplingParams(max_new_tokens=30, seed=0))
    steps = []
    for step in decoding:
        steps.append(step)
        if len(steps) == 5:
            decoding.interrupt()
    summary = decoding.summary()
    assert summary.finish_reason == "interrupted"
    assert len(steps) == 6
    assert summary.text == "".join(step.text for step in steps)


def test_logits_that_are_not_finite_are_an_error_that_names_the_step(llama_lm, monkeypatch):
    run, calls = llama_lm.model.forward, []

    def broken(*args, **kwargs):
        output = run(*args, **kwargs)
        calls.append(1)
        if len(calls) == 3:
            output["logits"] = output["logits"] * math.nan
        return output

    monkeypatch.setattr(llama_lm.model, "forward", broken)
    decoding = Decoding(prefill(llama_lm, "hello"), SamplingParams(max_new_tokens=9, seed=0))
    with pytest.raises(DecodeError, match="step 2"):
        list(decoding)
    assert decoding.summary().finish_reason == "error"
    assert decoding.summary().new_tokens == 2


def test_a_prompt_that_cannot_be_used_is_refused(llama_lm):
    with pytest.raises(PromptError, match="128"):
        prefill(llama_lm, list(range(128)))
    with pytest.raises(PromptError, match=f"{llama_lm.info.vocab_size}"):
        prefill(llama_lm, [1, llama_lm.info.vocab_size])
    with pytest.raises(PromptError, match="no tokens"):
        prefill(llama_lm, [])


def test_special_tokens_of_the_prompt(lm):
    hello = encode(lm, "hello", bos=False)
    assert lm.bos_id not in hello
    assert encode(lm, "hello") == encode(lm, "hello", bos=True) == [lm.bos_id, *hello]
    assert encode(lm, "") == [lm.bos_id]
    typed = encode(lm, "<s>hello")
    assert typed.count(lm.bos_id) == 1
    assert typed[0] == lm.bos_id
    with pytest.raises(PromptError, match="empty"):
        encode(lm, "", bos=False)


def test_a_filter_that_greedy_ignores_is_noticed(llama_lm):
    run = generate(llama_lm, "hello", SamplingParams(temperature=0, top_p=0.5, max_new_tokens=1))
    assert any("top_p" in notice for notice in run.notices)
    assert run.header.order == ("greedy",)


def test_greedy_is_recorded_as_certain(llama_lm):
    run = generate(llama_lm, "hello", SamplingParams(temperature=0, max_new_tokens=4))
    for step in run.steps:
        assert (step.rank, step.final_logprob, step.final_entropy, step.kept) == (1, 0.0, 0.0, 1)
        assert all(
            row.removed_by == "greedy" for row in step.candidates if row.token_id != step.token_id
        )


def test_the_package_gives_the_contracts_names():
    for name in [
        "load",
        "decode",
        "generate",
        "next_token",
        "tokenize",
        "embed",
        "softmax",
        "sweep",
    ]:
        assert callable(getattr(decodecli, name)), name
    assert decodecli.SamplingParams is SamplingParams
    with pytest.raises(AttributeError):
        _ = decodecli.nothing


def test_runs_steps_and_models_print_briefly(llama_lm):
    run = generate(llama_lm, "hello", SamplingParams(max_new_tokens=30, seed=0))
    for found in (run, run.steps[0], llama_lm):
        assert len(repr(found)) < 200
    assert "seed 0" in repr(run)
    assert "rank" in repr(run.steps[0])
