"""Cells from one loaded model: the records of `generate` alone, each prompt prefilled once."""

from __future__ import annotations

import json
import random

import pytest

from decodecli.decoding.decode import generate
from decodecli.settings import SamplingParams
from decodecli.sweeps import run
from decodecli.sweeps.cells import Cell, Prompt
from decodecli.sweeps.run import run_cells

PROMPTS = (
    Prompt("The capital of Japan is", "japan", ("Tokyo",), "knowledge"),
    Prompt("Once upon a time", "once", None, "stories"),
    Prompt("東京は", "tokyo"),
)


def some_cells(count: int) -> list[Cell]:
    """Prompt outermost, as a grid has them."""
    dice = random.Random(7)
    return [
        Cell(
            number,
            PROMPTS[number * len(PROMPTS) // count],
            SamplingParams(
                temperature=dice.choice((0, 0.5, 1.0, 1.6)),
                top_p=dice.choice((0.9, 1.0)),
                max_new_tokens=dice.choice((4, 10)),
                seed=dice.randrange(100),
            ),
            dice.choice((None, True, False)),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("exact", [False, True])
def test_a_cell_has_what_generate_alone_has(lm, exact) -> None:
    cells = some_cells(12)
    found = {o.record.index: o.record for o in run_cells(lm, cells, batch_size=5, exact=exact)}
    for cell in cells:
        record, alone = (
            found[cell.index],
            generate(lm, cell.prompt.text, cell.params, bos=cell.bos).summary,
        )
        assert (record.text, record.token_ids) == (alone.text, alone.token_ids)
        assert record.finish_reason == alone.finish_reason
        assert record.prompt_tokens == alone.prompt_tokens
        assert record.mean_logprob == pytest.approx(alone.mean_logprob, rel=1e-4, abs=1e-5)
        assert "".join(record.segments) == record.text
        assert record.params["seed"] == cell.params.seed
        assert record.params["bos"] is (cell.bos is not False), "as it was effective"
        assert record.correct is cell.prompt.answered_by(record.text)


def test_each_prompt_is_prefilled_once(lm, monkeypatch) -> None:
    prefilled = []
    original = run.prefill

    def counted(model, text, bos, chat):
        prefilled.append((text, bos))
        return original(model, text, bos, chat)

    monkeypatch.setattr(run, "prefill", counted)
    cells = some_cells(30)
    assert len(list(run_cells(lm, cells))) == 30
    assert sorted(map(str, prefilled)) == sorted(
        map(str, {(cell.prompt.text, cell.bos) for cell in cells})
    )


def test_a_prompt_that_the_model_does_not_take_is_an_error_of_its_cells_alone(lm) -> None:
    long = Prompt("word " * 600, "long")
    cells = [
        Cell(0, long, SamplingParams(seed=0)),
        *some_cells(9)[:3],
        Cell(9, long, SamplingParams(seed=1)),
    ]
    found = [outcome.record for outcome in run_cells(lm, cells)]
    assert len(found) == 5
    failed = [record for record in found if record.finish_reason == "error"]
    assert [record.prompt_id for record in failed] == ["long", "long"]
    assert "room for" in (failed[0].error or "")
    assert failed[0].token_ids == ()


def test_traces_are_those_of_a_run(lm) -> None:
    [outcome] = run_cells(
        lm, [Cell(3, PROMPTS[0], SamplingParams(seed=1, max_new_tokens=5), False)],
        traces=True, candidates=4,
    )  # fmt: skip
    assert outcome.trace is not None
    header, *steps, summary = map(json.loads, outcome.trace)
    assert header["type"] == "run"
    assert header["params"]["bos"] is False
    assert header["seed"] == 1
    assert [step["type"] for step in steps] == ["step"] * len(outcome.record.token_ids)
    assert {len(step["candidates"]) for step in steps} <= {4, 5}
    assert summary["token_ids"] == list(outcome.record.token_ids)
    assert summary["seconds"]["decode"] > 0
    without = next(run_cells(lm, [Cell(0, PROMPTS[0], SamplingParams(seed=1))]))
    assert without.trace is None


def test_tokens_are_counted_as_they_come(lm) -> None:
    counts: list[int] = []
    cells = [
        cell for cell in some_cells(16) if cell.params.temperature
    ]  # greedy ones may be copies
    found = list(run_cells(lm, cells, batch_size=4, on_tokens=counts.append))
    assert sum(counts) == sum(outcome.record.new_tokens for outcome in found)
    assert len(counts) > 10


def test_an_end_token_is_no_n_gram(lm) -> None:
    cell = Cell(0, PROMPTS[0], SamplingParams(temperature=0, seed=0, max_new_tokens=30))
    [outcome] = run_cells(lm, [cell])
    ids = outcome.record.token_ids
    if outcome.record.finish_reason == "stop":
        ids = ids[:-1]
    assert outcome.record.distinct_1 == pytest.approx(len(set(ids)) / len(ids))


def test_greedy_cells_that_differ_only_in_seed_or_filters_are_decoded_once(lm, monkeypatch) -> None:
    cells = [
        Cell(
            number,
            PROMPTS[number // 8],
            SamplingParams(
                temperature=(0, 1)[number % 2],
                top_p=(1.0, 0.5)[number // 2 % 2],
                max_new_tokens=6,
                seed=number,
            ),
        )
        for number in range(16)
    ]
    counts: list[int] = []
    found = {
        o.record.index: o.record
        for o in run_cells(lm, cells, batch_size=3, on_tokens=counts.append)
    }
    assert sorted(found) == list(range(16))
    for cell in cells:
        record = found[cell.index]
        assert record.token_ids == generate(lm, cell.prompt.text, cell.params).summary.token_ids
        assert record.params == {**cell.params.as_dict(), "bos": record.params["bos"]}
        assert record.prompt_id == cell.prompt.id
    sampled = sum(found[n].new_tokens for n in range(1, 16, 2))
    assert sum(counts) == sampled + found[0].new_tokens + found[8].new_tokens


def test_greedy_cells_of_a_prompt_that_is_refused_all_fail(lm) -> None:
    long = Prompt("word " * 600, "long")
    cells = [Cell(n, long, SamplingParams(temperature=0, seed=n)) for n in range(3)]
    found = [outcome.record for outcome in run_cells(lm, cells)]
    assert sorted(record.index for record in found) == [0, 1, 2]
    assert {record.finish_reason for record in found} == {"error"}


def test_traces_of_greedy_cells_are_their_own(lm) -> None:
    cells = [
        Cell(n, PROMPTS[0], SamplingParams(temperature=0, seed=n, max_new_tokens=3)) for n in (4, 5)
    ]
    seeds = [
        json.loads((outcome.trace or ("",))[0])["seed"]
        for outcome in run_cells(lm, cells, traces=True)
    ]
    assert sorted(seeds) == [4, 5]


def test_refused_cells_are_handed_over_at_once_and_their_prompt_is_read_once(
    lm, monkeypatch
) -> None:
    reads = []
    original = run.prefill

    def counted(model, text, bos, chat):
        reads.append(text)
        return original(model, text, bos, chat)

    monkeypatch.setattr(run, "prefill", counted)
    long = Prompt("word " * 600, "long")
    taken = 0

    def cells():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield Cell(number, long, SamplingParams(seed=number))

    outcomes = run_cells(lm, cells())
    next(outcomes)
    assert taken <= 2
    assert len(list(outcomes)) == 49
    assert len(reads) == 1


def test_while_no_cell_is_there_those_under_way_go_on(lm) -> None:
    given = some_cells(6)
    found: list[int] = []

    def cells():
        yield from given[:3]
        for _ in range(40):  # nobody has another one yet
            yield None
        assert len(found) >= 2
        yield from given[3:]

    for outcome in run_cells(lm, cells(), batch_size=4):
        found.append(outcome.record.index)  # noqa: PERF401  the cells look at it meanwhile
    assert sorted(found) == [cell.index for cell in given]
