"""A recorded run under other settings: exact from its logits, sound from its candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decodecli.analysis.other_settings import OtherSettings
from decodecli.decoding.decode import Decoding
from decodecli.decoding.prompt import prefill
from decodecli.errors import UsageError
from decodecli.settings import SamplingParams

SETTINGS = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0, 1.5, 4.0])},
    optional={
        "top_k": st.sampled_from([1, 2, 5, 8, 30]),
        "top_p": st.sampled_from([0.05, 0.3, 0.8, 0.99]),
        "min_p": st.sampled_from([0.02, 0.3]),
    },
)
ALSO = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.sampled_from([1.3]),
        "typical_p": st.sampled_from([0.7]),
        "no_repeat_ngram_size": st.sampled_from([1]),
        "xtc_probability": st.sampled_from([0.5]),
        "mirostat": st.sampled_from([2]),
        "order": st.sampled_from(["llama.cpp"]),
        "seed": st.sampled_from([7]),
    },
)


def made(*values) -> SamplingParams | None:
    """Settings; None where they contradict each other."""
    try:
        return SamplingParams(
            max_new_tokens=7, **{k: v for part in values for k, v in part.items()}
        )
    except UsageError:
        return None


def recorded(lm, params, seed, candidates=5, prompt=(1, 5, 6, 5)):
    """Header, steps and logits of a run."""
    logits: list[np.ndarray] = []
    decoding = Decoding(
        prefill(lm, list(prompt)), params, seed=seed, candidates=candidates,
        on_logits=lambda row: logits.append(row.numpy().copy()),
    )  # fmt: skip
    steps = list(decoding)
    return decoding.header, steps, np.stack(logits)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=SETTINGS, second=SETTINGS, also=ALSO, seed=st.integers(0, 2**32 - 1))
def test_with_logits_it_is_the_other_run_up_to_the_first_divergence(
    tiny_lm, first, second, also, seed
):
    params, others = made(first), made(second, also)
    if params is None or others is None:
        return
    header, steps, logits = recorded(tiny_lm, params, seed)
    other_seed = seed if others.seed is None else others.seed
    real = list(Decoding(prefill(tiny_lm, [1, 5, 6, 5]), others, seed=other_seed, candidates=5))
    other = OtherSettings(header, "others", others, logits, tiny_lm.piece, 5)
    for step, theirs in zip(steps, real, strict=False):
        shown = other(step)
        (row,) = shown.what_if
        assert row.token_id == theirs.token_id
        assert row.final_logprob == pytest.approx(theirs.final_logprob, abs=1e-4)
        assert shown.kept == theirs.kept
        assert shown.final_entropy == pytest.approx(theirs.final_entropy, abs=1e-4)
        assert (shown.token_id, shown.text) == (step.token_id, step.text)
        assert row.first_divergence == (row.token_id != step.token_id)
        if row.first_divergence:
            break


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    first=SETTINGS, second=SETTINGS, seed=st.integers(0, 2**32 - 1), candidates=st.integers(1, 12)
)
def test_from_candidates_nothing_is_said_that_the_logits_do_not_bear_out(
    llama_lm, first, second, seed, candidates
):
    params, others = made(first), made(second)
    if params is None or others is None:
        return
    header, steps, logits = recorded(llama_lm, params, seed, candidates)
    exact = OtherSettings(header, "x", others, logits, llama_lm.piece, candidates)
    bounded = OtherSettings(header, "x", others, None, llama_lm.piece, candidates)
    for step in steps:
        (known,) = exact(step).what_if
        shown = bounded(step)
        (row,) = shown.what_if
        assert replace(shown, what_if=()) == step  # as it was recorded
        if row.token_id is not None:
            assert row.token_id == known.token_id
            assert (row.rank, row.token) == (known.rank, known.token)
        if row.final_logprob is not None:
            assert row.final_logprob == pytest.approx(known.final_logprob, abs=2e-3)
        if row.kept is not None:
            assert row.kept == known.kept


def test_a_filter_that_keeps_only_listed_tokens_is_known_wholly(lm):
    prompt = lm.codec("The capital of Japan is")["input_ids"]
    header, steps, _ = recorded(lm, SamplingParams(max_new_tokens=20), 1, 30, prompt)
    other = OtherSettings(header, "x", SamplingParams(temperature=3, top_k=8), None, lm.piece, 30)
    assert all(other(step).what_if[0].kept == 8 for step in steps)
    other = OtherSettings(header, "x", SamplingParams(temperature=0.4), None, lm.piece, 30)
    assert sum(other(step).what_if[0].token_id is not None for step in steps) > 15


def test_a_trace_that_lists_everything_needs_no_logits(llama_lm):
    params = SamplingParams(max_new_tokens=5)
    header, steps, logits = recorded(llama_lm, params, 3, llama_lm.info.vocab_size)
    others = SamplingParams(temperature=2.0, typical_p=0.8)
    listed = OtherSettings(header, "x", others, None, llama_lm.piece, 5)
    saved = OtherSettings(header, "x", others, logits, llama_lm.piece, 5)
    assert [listed(step) for step in steps] == [saved(step) for step in steps]


def test_a_run_of_a_gpu_has_noise_that_cannot_be_made_here(llama_lm):
    header, steps, logits = recorded(llama_lm, SamplingParams(max_new_tokens=2), 3)
    header = replace(header, model=replace(header.model, device="cuda:0"))
    params = SamplingParams(top_k=3)
    (row,) = OtherSettings(header, "x", params, logits, llama_lm.piece, 5)(steps[0]).what_if
    assert (row.token_id, row.kept) == (None, 3)
    greedy = OtherSettings(header, "x", SamplingParams(temperature=0), logits, llama_lm.piece, 5)
    assert greedy(steps[0]).what_if[0].rank == 1


def test_logits_of_another_run_are_refused(llama_lm):
    header, steps, logits = recorded(llama_lm, SamplingParams(max_new_tokens=3), 3)
    params = SamplingParams(top_k=3)
    with pytest.raises(UsageError, match="not those of this run"):
        OtherSettings(header, "x", params, logits + 1, llama_lm.piece, 5)(steps[0])
    with pytest.raises(UsageError, match="shape"):
        OtherSettings(header, "x", params, logits[:, :-1], llama_lm.piece, 5)
    short = OtherSettings(header, "x", params, logits[:1], llama_lm.piece, 5)
    short(steps[0])
    with pytest.raises(UsageError, match="end at step 1"):
        short(steps[1])
    with pytest.raises(UsageError, match="lacks step 1"):
        OtherSettings(header, "x", params, logits, llama_lm.piece, 5)(steps[1])
    with pytest.raises(UsageError, match="tokenizer"):
        OtherSettings(header, "x", SamplingParams(bad_words=("a",)), logits, llama_lm.piece, 5)
