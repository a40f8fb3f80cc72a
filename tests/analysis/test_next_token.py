"""A model's next token, a text under a model, and variants side by side."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import builtin_tokenizer, tiny_network

from decodecli.analysis.distribution import softmax
from decodecli.analysis.next_token import (
    all_positions,
    check_same_vocabulary,
    compare,
    continuation,
    continuation_ids,
    next_token,
    save_logits,
)
from decodecli.csv_text import without_apostrophe
from decodecli.decoding.decode import generate
from decodecli.errors import UsageError
from decodecli.models.loading import LanguageModel
from decodecli.sampling import reference as d
from decodecli.settings import SamplingParams

PROMPT = "The capital of Japan is"


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 1.0},
        {"temperature": 1.4, "top_p": 0.9},
        {"temperature": 0.7, "top_k": 5, "min_p": 0.1},
        {"temperature": 1.3, "typical_p": 0.6, "repetition_penalty": 1.5},
        {"temperature": 0.0},
        {"temperature": 1.0, "no_repeat_ngram_size": 1, "eta_cutoff": 0.01},
        {"temperature": 2.0, "repetition_penalty": 1.5, "top_nsigma": 1.0},
    ],
)
def test_it_agrees_with_the_first_step_of_generate(tiny_lm, values):
    params = SamplingParams(seed=0, max_new_tokens=1, **values)
    step = generate(tiny_lm, PROMPT, params, candidates=20).steps[0]
    report, _ = next_token(tiny_lm, PROMPT, [params.temperature], params=params, rows=20)
    spread = report.spreads[0]
    if params.temperature:
        assert spread.kept == step.kept
        assert spread.final_entropy == pytest.approx(step.final_entropy, rel=1e-4, abs=1e-5)
    for row, expected in zip(report.rows, step.candidates, strict=False):
        assert (row.token_id, row.rank, row.score) == (
            expected.token_id,
            expected.rank,
            expected.logit,
        )
        if params.temperature:
            probability = math.exp(expected.tempered_logprob)
            assert row.probability[0] == pytest.approx(probability, rel=1e-4, abs=1e-5)
        if row.removed_by:
            assert row.removed_by[0] == expected.removed_by
            if expected.final_logprob is not None:
                final = math.exp(expected.final_logprob)
                assert row.final[0] == pytest.approx(final, rel=1e-4, abs=1e-5)


def test_softmax_and_inspect_logits_agree_on_the_same_numbers(lm):
    filters = SamplingParams(top_nsigma=2, top_p=0.8, top_k=50)
    report, logits = next_token(lm, PROMPT, [0.5, 1.0, 2.0], params=filters, rows=30)
    by_hand = softmax([float(value) for value in logits], [0.5, 1.0, 2.0], params=filters)
    for row in report.rows:
        same = by_hand.rows[report.rows.index(row)]
        assert int(same.token) == row.token_id
        assert same.probability == pytest.approx(row.probability, rel=1e-9)
        assert same.removed_by == row.removed_by
    assert [s.entropy for s in report.spreads] == pytest.approx(
        [s.entropy for s in by_hand.spreads]
    )


def test_numbers_cover_the_full_vocabulary(lm):
    report, logits = next_token(lm, PROMPT, [0.4, 1.6], rows=3)
    for index, temperature in enumerate((0.4, 1.6)):
        exact = np.exp(d.log_softmax(logits, temperature))
        assert report.rows[0].probability[index] == pytest.approx(exact.max())
        half = np.sort(exact)[::-1].cumsum()
        assert report.spreads[index].covering[1] == int((half < 0.9).sum()) + 1
    assert report.limits[1].entropy == pytest.approx(math.log(lm.info.vocab_size))


def test_a_continuation_of_several_tokens_is_a_chain_of_conditionals(lm):
    text = " Tokyo, she said"
    chain = continuation(lm, PROMPT, text)
    prompt = builtin_tokenizer()(PROMPT)["input_ids"]
    ids = prompt + list(chain.token_ids)
    with torch.inference_mode():
        logprobs = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    expected = [
        logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(chain.token_ids)
    ]
    assert len(expected) > 1
    assert chain.logprobs == pytest.approx(expected, abs=1e-4)
    assert chain.logprob == pytest.approx(sum(expected), abs=1e-3)
    assert builtin_tokenizer().decode(ids, skip_special_tokens=True) == PROMPT + text


def test_a_token_is_asked_for_by_id_or_by_text(lm):
    assert continuation_ids(lm, PROMPT, "300") == continuation_ids(lm, PROMPT, 300) == [300]
    digits = continuation_ids(lm, PROMPT, "text:300")
    assert digits != [300]
    report, _ = next_token(lm, PROMPT, rows=2, tokens=[4000])
    assert [row.token_id for row in report.rows][2:] == [4000]
    with pytest.raises(UsageError, match="6656"):
        continuation_ids(lm, PROMPT, "6656")
    with pytest.raises(UsageError, match="empty"):
        continuation_ids(lm, PROMPT, "")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba", "builtin"])
def test_perplexity_equals_the_models_own_loss(architecture, lm):
    model = (
        lm
        if architecture == "builtin"
        else LanguageModel.wrap(tiny_network(architecture), builtin_tokenizer())
    )
    text = "Once upon a time there was a little girl. She liked to play in the park with her dog."
    report = all_positions(model, text)
    ids = torch.tensor([builtin_tokenizer()(text)["input_ids"]])
    with torch.inference_mode():
        loss = model.model(ids, labels=ids).loss.item()
    assert report.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert report.positions[0].logprob is None
    assert report.scored == ids.shape[1] - 1


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, 15), (10, 3), (64, 1)])
def test_windows_agree_with_a_naive_recomputation(llama_lm, window, stride):
    ids = [1, *np.random.default_rng(0).integers(3, 4000, 69).tolist()]
    report = all_positions(llama_lm, ids, window=window, stride=stride)
    assert [position.token_id for position in report.positions] == ids
    starts = list(range(0, len(ids), stride))
    for position in report.positions[1:]:
        at = position.position
        start = next(s for s in starts if s + window > at)
        with torch.inference_mode():
            logits = llama_lm.model(torch.tensor([ids[start:at]])).logits[0, -1].double()
        assert position.logprob == pytest.approx(logits.log_softmax(-1)[ids[at]].item(), abs=1e-4)
        assert position.rank == 1 + int((logits > logits[ids[at]]).sum())
    assert "".join(p.text for p in report.positions) == builtin_tokenizer().decode(
        ids, skip_special_tokens=True
    )


def test_windows_that_cannot_be_are_refused(llama_lm):
    for values in ({"window": 1000}, {"window": 1}, {"window": 10, "stride": 10}, {"stride": 0}):
        with pytest.raises(UsageError, match=r"--(window|stride)"):
            all_positions(llama_lm, [1, 2, 3], **values)


def test_a_comparison_measures_the_distance_from_the_first(llama_lm):
    found = {
        name: next_token(llama_lm, text, rows=5) for name, text in (("a", PROMPT), ("b", "Once"))
    }

    def again(name, tokens):
        return next_token(llama_lm, PROMPT if name == "a" else "Once", rows=5, tokens=tokens)[0]

    report = compare("prompt", found, again)
    p, q = (np.exp(d.log_softmax(logits)) for _, logits in found.values())
    assert report.differences[0].kl == 0
    assert report.differences[1].kl == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9)
    assert report.differences[1].total_variation == pytest.approx(float(abs(p - q).sum() / 2))
    tokens = [{row.token_id for row in variant.rows} for variant in report.reports]
    assert tokens[0] == tokens[1]
    assert len(report.flat()) == 2 * len(tokens[0])
    json.dumps(report.as_dict(), allow_nan=False)


def test_models_with_other_vocabularies_are_not_compared(llama_lm):
    from tokenizer_families import make

    other = LanguageModel.wrap(tiny_network("llama"), make("byte_level"), "other")
    with pytest.raises(UsageError, match="different vocabularies"):
        check_same_vocabulary(llama_lm, other)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".csv", ".json"])
def test_saved_logits_are_read_back_with_their_tokens(suffix, lm, tmp_path):
    report, logits = next_token(lm, PROMPT)
    path = tmp_path / f"logits{suffix}"
    save_logits(str(path), lm, logits, report)
    if suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            found, tokens = file.get_tensor("logits"), json.loads(file.metadata()["tokens"])
    elif suffix == ".npz":
        saved = np.load(path)
        found, tokens = saved["logits"], list(saved["tokens"])
    elif suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found, tokens = (
            np.array([float(row["logit"]) for row in rows]),
            [without_apostrophe(row["token"]) for row in rows],
        )
        assert not any(row["token"].startswith(("=", "+", "-", "@")) for row in rows)
    else:
        rows = json.loads(path.read_text(encoding="utf-8"))["tokens"]
        found, tokens = np.array([row["logit"] for row in rows]), [row["token"] for row in rows]
    assert np.array_equal(found.astype(np.float64), logits)
    assert tokens == [lm.piece(i) for i in range(lm.info.vocab_size)]


def test_logits_are_not_saved_where_they_cannot_be(lm, tmp_path):
    report, logits = next_token(lm, PROMPT)
    with pytest.raises(UsageError, match="suffix"):
        save_logits(str(tmp_path / "x.txt"), lm, logits, report)
    with pytest.raises(UsageError, match="no folder"):
        save_logits(str(tmp_path / "none" / "x.npz"), lm, logits, report)


def test_a_notebook_shows_texts_and_comparisons_harmlessly(llama_lm):
    text = all_positions(llama_lm, "a <b> c")._repr_html_()
    assert "<b>" not in text
    assert text.count("<span") >= 2
    found = {name: next_token(llama_lm, "x", [0.5, 1.0], rows=2) for name in ("one", "two")}
    report = compare("model", found, lambda name, tokens: found[name][0])
    html = report._repr_html_()
    assert html.count("<th") - html.count("<thead") == 5
    assert "KL" in html


def test_a_run_in_a_notebook_is_shaded_text_and_a_table_a_step(llama_lm):
    pytest.importorskip("pandas", reason="pandas is not installed")
    run = generate(llama_lm, "<i>x", SamplingParams(max_new_tokens=3, seed=0))
    assert "<i>" not in run._repr_html_()
    assert run.steps[0]._repr_html_().count("<tr") == 1 + len(run.steps[0].candidates)
    assert len(run.to_pandas()) == 3
    assert list(run.steps[0].to_pandas().token_id) == [c.token_id for c in run.steps[0].candidates]
