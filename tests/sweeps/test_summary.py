"""From records to numbers: of a cell, of a prompt's seeds, of a setting, each with its interval."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from scipy import stats

from decodecli.analysis.text_metrics import cell_numbers
from decodecli.records.field_checks import build_record
from decodecli.records.metrics import METRICS
from decodecli.records.sweep import CellRecord, Estimate, SweepSummary
from decodecli.sweeps.summary import FEW, summarise

WORDS = ["the", "sun", "sank", "and", "a", "fox", "ran", "over", "hills", "of", "snow", "."]


def record(index: int, prompt: str, ids: tuple[int, ...], **changes: Any) -> CellRecord:
    segments = tuple(f" {WORDS[token]}" for token in ids)
    logprobs = tuple(-0.1 * (token + 1) for token in ids)
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    values: dict[str, Any] = {
        "index": index,
        "prompt_id": prompt,
        "task": "any",
        "prompt": prompt,
        "params": {"temperature": 1.0, "top_p": 1.0, "seed": 0, "bos": None},
        "text": "".join(segments),
        "token_ids": ids,
        "finish_reason": "length",
        "prompt_tokens": 3,
        "new_tokens": len(ids),
        "mean_logprob": mean,
        "perplexity": None if mean is None else math.exp(-mean),
        "mean_entropy": 1.0 + 0.1 * len(set(ids)) if ids else None,
        "correct": None,
        "segments": segments,
        "logprobs": logprobs,
    }
    params = values["params"] | changes.pop("params", {})
    return CellRecord(**(values | cell_numbers(ids) | changes | {"params": params}))


def drawn(
    temperatures: tuple[float, ...] = (0.2, 1.4),
    prompts: tuple[str, ...] = ("p", "q", "r"),
    seeds: int = 4,
    length: int = 15,
) -> list[CellRecord]:
    """A grid's records in grid order; at low temperature seeds mostly agree."""
    found = []
    for prompt in prompts:
        common = random.Random(prompt).choices(range(len(WORDS)), k=length)
        for temperature in temperatures:
            for seed in range(seeds):
                rng = random.Random(f"{prompt} {temperature} {seed}")
                ids = tuple(
                    rng.randrange(len(WORDS)) if rng.random() < temperature / 8 else token
                    for token in common
                )
                found.append(
                    record(
                        len(found),
                        prompt,
                        ids,
                        params={"temperature": temperature, "seed": seed},
                        correct=8 in ids,
                    )
                )
    return found


def summary(records: list[CellRecord], seeds: int = 4, **axes: tuple[Any, ...]) -> SweepSummary:
    axes = axes or {"temperature": (0.2, 1.4)}
    return summarise("model", axes, range(seeds), 3, len(records), iter(records))


def by_prompt(records: list[CellRecord]) -> list[list[CellRecord]]:
    ids = dict.fromkeys(record.prompt_id for record in records)
    return [[record for record in records if record.prompt_id == prompt] for prompt in ids]


def check_mean(found: Estimate, values: list[float], least: float, most: float) -> None:
    assert found.value == pytest.approx(np.mean(values), rel=1e-12)
    assert found.count == len(values)
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    expected = max(low, least), min(high, most)  # cut off where the number cannot be
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_numbers_of_a_cell_are_averaged_over_cells():
    records = drawn()
    found = summary(records).settings[1]
    cells = [record for record in records if record.params["temperature"] == 1.4]
    assert (found.setting, found.task, found.cells) == ({"temperature": 1.4}, None, 12)
    for name, least, most in (
        ("mean_logprob", -math.inf, 0),
        ("mean_entropy", 0, math.inf),
        ("distinct_1", 0, 1),
        ("distinct_2", 0, 1),
    ):
        check_mean(found.numbers[name], [getattr(cell, name) for cell in cells], least, most)


def test_perplexity_is_that_of_the_mean_logprob():
    numbers = summary(drawn()).settings[1].numbers
    logprob, perplexity = numbers["mean_logprob"], numbers["perplexity"]
    assert perplexity == Estimate(
        math.exp(-logprob.value), math.exp(-logprob.high), math.exp(-logprob.low), logprob.count
    )


def perplexity_of(*logprobs: float) -> Estimate | None:
    records = [record(i, "p", (1, 2), mean_logprob=value) for i, value in enumerate(logprobs)]
    return summary(records, bos=(None,)).settings[0].numbers.get("perplexity")


def test_perplexity_beyond_a_float_is_absent():
    assert perplexity_of(-800, -801) is None
    found = perplexity_of(-600, -650)  # the value is within, its upper end beyond
    assert found == Estimate(pytest.approx(math.exp(625)), None, None, 2)


def test_shares_of_cells_have_wilsons_interval():
    records = drawn()
    cells = [record for record in records if record.params["temperature"] == 0.2]
    numbers = summary(records).settings[0].numbers
    for name, successes in (
        ("repetition_rate", sum(cell.repeats for cell in cells)),
        ("accuracy", sum(bool(cell.correct) for cell in cells)),
    ):
        test = stats.binomtest(successes, len(cells))
        interval = tuple(test.proportion_ci(method="wilson"))
        found = numbers[name]
        assert (found.value, found.count) == (successes / len(cells), len(cells))
        assert (found.low, found.high) == pytest.approx(interval, rel=1e-12, abs=1e-15)


def test_length_and_the_share_that_ended_are_of_cells():
    reasons = ("stop", "length", "stop", "error")
    cells = [
        record(k, "p", tuple(range(k + 1)), finish_reason=reason, params={"seed": k})
        for k, reason in enumerate(reasons)
    ]
    numbers = summary(cells, bos=(None,)).settings[0].numbers
    assert numbers["new_tokens"].value == 2
    assert numbers["ended"].value == pytest.approx(2 / 3)
    assert numbers["ended"].count == 3


def test_accuracy_counts_only_cells_of_which_an_answer_is_expected():
    answers = [True, False, None, None]
    records = [record(i, f"p{i}", (1, 2), correct=answer) for i, answer in enumerate(answers)]
    found = summary(records, seeds=1, bos=(None,)).settings[0].numbers["accuracy"]
    assert (found.value, found.count) == (0.5, 2)
    records = [replace(one, correct=None) for one in records]
    assert "accuracy" not in summary(records, seeds=1, bos=(None,)).settings[0].numbers


def test_numbers_over_seeds_are_of_a_prompt_then_averaged_over_prompts():
    records = drawn()
    cells = [record for record in records if record.params["temperature"] == 1.4]
    bleus, shares, steps = [], [], []
    for prompt in by_prompt(cells):
        texts = [cell.text for cell in prompt]
        others = [texts[:i] + texts[i + 1 :] for i in range(len(texts))]
        pairs = zip(texts, others, strict=True)
        bleus.append(np.mean([sacrebleu.sentence_bleu(a, b).score / 100 for a, b in pairs]))
        both = [(a.token_ids, b.token_ids) for a in prompt for b in prompt if a.index < b.index]
        shares.append(np.mean([a == b for a, b in both]))
        parting = [[x == y for x, y in zip(a, b, strict=True)] for a, b in both if a != b]
        steps.append(np.mean([same.index(False) for same in parting]))
    numbers = summary(records).settings[1].numbers
    check_mean(numbers["self_bleu_4"], bleus, 0, 1)
    check_mean(numbers["divergence_step"], steps, 0, math.inf)
    assert numbers["identical"].value == pytest.approx(np.mean(shares))


def test_zipf_is_of_all_that_a_setting_drew():
    records = drawn()
    counts = Counter(
        t for cell in records if cell.params["temperature"] == 1.4 for t in cell.token_ids
    )
    heights = np.log(sorted(counts.values(), reverse=True))
    slope = stats.linregress(np.log(np.arange(1, len(heights) + 1)), heights).slope
    found = summary(records).settings[1].numbers["zipf"]
    assert found.value == pytest.approx(-slope, rel=1e-12)
    assert found.low < found.value < found.high
    assert found.count == 12


def test_one_prompt_has_no_interval_of_what_is_over_seeds():
    numbers = summary(drawn(prompts=("p",))).settings[1].numbers
    for name in ("self_bleu_4", "identical", "divergence_step"):
        found = numbers[name]
        assert (found.low, found.high, found.count) == (None, None, 1)
    assert numbers["distinct_1"].low is not None
    assert numbers["zipf"].low is not None


def test_one_seed_has_no_number_over_seeds():
    numbers = summary(drawn(seeds=1), seeds=1).settings[0].numbers
    assert not {"self_bleu_4", "identical", "divergence_step"} & set(numbers)
    assert numbers["mean_logprob"].count == 3


def test_one_cell_has_numbers_without_intervals_but_for_shares():
    numbers = summary(drawn((0.2,), ("p",), 1), 1, temperature=(0.2,)).settings[0].numbers
    with_interval = {name for name, found in numbers.items() if found.low is not None}
    assert with_interval == {"repetition_rate", "accuracy", "ended"}


def test_seeds_that_all_agree_never_diverge():
    records = [record(i, "p", (1, 2, 3), params={"seed": i}) for i in range(4)]
    numbers = summary(records, bos=(None,)).settings[0].numbers
    assert numbers["identical"].value == 1
    assert numbers["self_bleu_4"].value == 1
    assert "divergence_step" not in numbers
    mean = numbers["mean_logprob"]
    assert mean.low == mean.value == mean.high


def test_failed_cells_are_counted_and_left_out():
    records = drawn()
    broken = replace(records[0], finish_reason="error", error="no", mean_logprob=-1e9, repeats=True)
    without = summary(records[1:])
    found = summary([broken, *records[1:]])
    assert (found.cells, found.finished, found.failed) == (24, 23, 1)
    assert (without.finished, without.failed) == (23, 0)
    assert found.settings == without.settings
    assert found.settings[0].cells == 11
    assert found.settings[0].numbers["self_bleu_4"].count == 3


def test_a_setting_of_failed_cells_alone_is_not_there():
    records = drawn()
    records[:4] = [replace(one, finish_reason="error") for one in records[:4]]
    found = summary(records[:8])
    assert [one.setting for one in found.settings] == [{"temperature": 1.4}]
    assert found.failed == 4


def test_nothing_done_yet_gives_no_settings():
    found = summarise("model", {}, (0, 1), 2, 4, [])
    assert (found.settings, found.cells, found.finished, found.failed) == ((), 4, 0, 0)
    assert (found.prompts, found.seeds) == (2, (0, 1))


def test_the_order_of_records_changes_no_digit():
    records = drawn(prompts=tuple("pqrstu"), seeds=5)
    expected = summary(records, 5)
    for seed in range(5):
        shuffled = random.Random(seed).sample(records, len(records))
        assert summary(shuffled, 5) == expected


def test_records_read_back_from_json_give_the_same():
    records = drawn()
    lines = [json.dumps(record.as_dict()) for record in records]
    read = [build_record(CellRecord, json.loads(line)) for line in lines]
    assert summary(read) == summary(records)


def test_settings_stand_in_grid_order_and_lists_are_known_again():
    axes = {"temperature": (1.4, 0.2), "stop": ((), ("a", "b")), "bos": (None, True, False)}
    records = [
        record(0, "p", (1, 2), params={"temperature": t, "stop": list(stop), "bos": bos})
        for t in (0.2, 1.4)
        for stop in axes["stop"]
        for bos in axes["bos"]
    ]
    records = [replace(one, index=i) for i, one in enumerate(records)]
    found = summary(records, seeds=1, **axes)
    expected = [
        {"temperature": t, "stop": stop, "bos": bos}
        for t in axes["temperature"]
        for stop in axes["stop"]
        for bos in axes["bos"]
    ]
    assert [one.setting for one in found.settings] == expected
    assert found.axes == axes


def test_a_value_that_no_axis_lists_comes_last():
    records = [
        record(i, "p", (1, 2), params={"temperature": t}) for i, t in enumerate((9.0, 1.4, 0.2))
    ]
    assert [one.setting["temperature"] for one in summary(records, 1).settings] == [0.2, 1.4, 9.0]


def test_a_record_without_an_axis_is_refused():
    with pytest.raises(KeyError, match="top_z"):
        summary(drawn(), top_z=(0.1, 0.2))


def test_several_tasks_stand_apart_in_the_order_of_their_prompts():
    tasks = {"p": "stories", "q": "knowledge", "r": "stories"}
    records = [replace(one, task=tasks[one.prompt_id]) for one in drawn()]
    found = summary(records[::-1])
    assert [(one.setting["temperature"], one.task, one.cells) for one in found.settings] == [
        (0.2, "stories", 8),
        (0.2, "knowledge", 4),
        (1.4, "stories", 8),
        (1.4, "knowledge", 4),
    ]
    assert found.settings[0].numbers["self_bleu_4"].count == 2


def test_a_single_task_is_not_named():
    records = [replace(one, task="stories") for one in drawn()]
    assert summary(records).settings == summary(drawn()).settings


def test_numbers_stand_in_their_order_and_intervals_within_their_range():
    records = drawn(temperatures=(0.2, 8.0), seeds=3)
    for setting in summary(records, 3, temperature=(0.2, 8.0)).settings:
        assert list(setting.numbers) == [name for name in METRICS if name in setting.numbers]
        for name, found in setting.numbers.items():
            if found.low is None:
                continue
            assert found.low <= found.value <= found.high
            if name == "mean_logprob":
                assert found.high <= 0
            else:
                assert found.low >= 0
            if name not in ("perplexity", "mean_logprob", "mean_entropy", "zipf"):
                assert found.high <= 1 or name in ("divergence_step", "new_tokens")


def test_cells_without_tokens_count_but_have_few_numbers():
    records = [record(i, "p", ()) for i in range(2)]
    numbers = summary(records, 2, bos=(None,)).settings[0].numbers
    assert set(numbers) == {"self_bleu_4", "repetition_rate", "identical", "new_tokens", "ended"}
    assert numbers["self_bleu_4"].value == 0
    assert numbers["identical"].value == 1


def test_every_number_is_defined_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "METRICS.md").read_text(encoding="utf-8")
    table, rest = text.split("## Likelihood")
    for name in METRICS:
        assert f"`{name}`" in table
        assert f"**`{name}`" in rest or name in ("distinct_2", "distinct_3")


def test_the_summary_is_strict_json():
    found = json.loads(json.dumps(summary(drawn()).as_dict(), allow_nan=False))
    assert found["settings"][0]["numbers"]["mean_logprob"]["count"] == 12


def test_what_all_cells_have_in_common_is_told_and_the_only_prompt():
    more = {"top_k": 40, "stop": ["a"], "greedy": False}
    cells = [
        record(k, "p", (1, 2), params={"temperature": t, **more}) for k, t in enumerate((1, 2))
    ]
    found = summarise("model", {"temperature": (1, 2)}, (0,), 1, 2, cells)
    assert found.constant == {"top_p": 1.0, "bos": None, "top_k": 40, "stop": ("a",)}
    assert found.prompt == "p"
    assert summary(drawn()).prompt is None
    assert summary([]).constant == {}


def test_few_prompts_without_a_task_have_a_row_each():
    records = [replace(one, task=None) for one in drawn()]
    found = summary(records)
    prompts = list(dict.fromkeys(one.prompt_id for one in records))
    assert [(one.setting["temperature"], one.prompt) for one in found.settings] == [
        (temperature, prompt) for temperature in found.axes["temperature"] for prompt in prompts
    ]
    assert {one.task for one in found.settings} == {None}
    assert found.prompt_texts == {prompt: prompt for prompt in prompts}
    assert sum(one.cells for one in found.settings) == len(records)


def test_many_prompts_without_a_task_are_pooled():
    records = [replace(one, task=None) for one in drawn()]
    found = summarise(
        "model", {"temperature": (0.2, 1.4)}, range(4), FEW + 1, len(records), records
    )
    assert all(one.prompt is None and one.task is None for one in found.settings)
    assert found.prompt_texts == {}
    assert len(found.settings) == len(found.axes["temperature"])


def test_prompts_of_a_task_are_pooled_and_the_others_stand_apart():
    tasks = {"p": "stories", "q": None, "r": "stories"}
    records = [replace(one, task=tasks[one.prompt_id]) for one in drawn()]
    rows = [(one.task, one.prompt) for one in summary(records).settings]
    assert set(rows) == {("stories", None), (None, "q")}
