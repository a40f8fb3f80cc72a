"""Numbers typed by hand: the essays' tables, and every kind of input that is none."""

from __future__ import annotations

import json
import math

import pytest
import torch

from decodecli.analysis.distribution import pairs_from_text, pairs_from_words, softmax
from decodecli.errors import UsageError
from decodecli.settings import SamplingParams

ITALIAN = {"day": 5.0, "space": 2.2, "furniture": 2.0, "heaven": 4.5, "moon": 3.0, "wood": 2.7}


def probabilities(report, index: int = 0) -> dict[str, float]:
    return {row.token: row.probability[index] for row in report.rows}


def test_the_italian_essays_table():
    expected = [0.512106, 0.031141, 0.025496, 0.310608, 0.069306, 0.051343]
    found = probabilities(softmax(ITALIAN))
    assert [round(found[name], 6) for name in ITALIAN] == expected


@pytest.mark.parametrize("temperature", [1e-10, 1e-3, 1.0, 100.0, 1e10])
def test_no_temperature_overflows(temperature):
    report = softmax([40, 4, 2, 35, 25, 15], [temperature])
    found = [row.probability[0] for row in report.rows]
    assert all(math.isfinite(p) for p in found)
    assert sum(found) == pytest.approx(1)
    if temperature == 1e-10:
        assert found == [1, 0, 0, 0, 0, 0]
    if temperature == 1e10:
        assert found == pytest.approx([1 / 6] * 6, rel=1e-8)


@pytest.mark.parametrize("temperature", [1, 0.5, 0.1])
def test_probabilities_and_cross_entropy_equal_torchs(temperature):
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    report = softmax({"0": 1, "1": 2, "2": 3, "3": 4}, [temperature], target="3")
    expected = torch.softmax(logits / temperature, -1).tolist()
    assert [probabilities(report)[str(i)] for i in range(4)] == pytest.approx(expected, rel=1e-12)
    loss = torch.nn.functional.cross_entropy(logits[None] / temperature, torch.tensor([3]))
    assert report.spreads[0].cross_entropy == pytest.approx(loss.item(), rel=1e-12, abs=1e-15)


def test_a_high_temperature_is_nearly_uniform_and_the_limit_wholly():
    report = softmax(ITALIAN, [100])
    assert max(row.probability[0] for row in report.rows) < 1 / 6 + 0.01
    assert [row.at_infinity for row in report.rows] == pytest.approx([1 / 6] * 6)
    assert report.rows[0].at_zero == 1
    assert softmax(ITALIAN, [0]).rows[0].probability == (1.0,)


def test_probabilities_are_tempered_through_their_logarithms():
    report = softmax({"a": 0.6, "b": 0.3, "c": 0.1}, [1, 0.5], kind="probability")
    assert [row.probability[0] for row in report.rows] == pytest.approx([0.6, 0.3, 0.1])
    squares = [0.36, 0.09, 0.01]
    assert [row.probability[1] for row in report.rows] == pytest.approx([s / 0.46 for s in squares])
    assert [row.score for row in report.rows] == [0.6, 0.3, 0.1]


def test_energies_follow_boltzmann():
    report = softmax({"low": 1.0, "high": 3.0}, [2.0], kind="energy")
    assert report.rows[0].token == "low"
    assert report.rows[0].probability[0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_filters_say_what_they_remove():
    report = softmax(ITALIAN, [1.0], params=SamplingParams(top_k=4, top_p=0.8))
    names = {row.token: row.removed_by[0] for row in report.rows}
    assert names == {
        "day": None, "heaven": None, "moon": "top_p", "wood": "top_p",
        "space": "top_k", "furniture": "top_k",
    }  # fmt: skip
    assert report.spreads[0].kept == 2
    assert sum(row.final[0] or 0 for row in report.rows) == pytest.approx(1)
    assert all((row.final[0] is None) == (row.removed_by[0] is not None) for row in report.rows)


def test_reports_turn_into_json_rows_and_html():
    report = softmax({"<b>": 1.0, "x": 0.0}, [0.5, 1.0], target="x")
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert [column["temperature"] for column in found["temperatures"]] == [0.5, 1.0]
    first = found["temperatures"][1]
    assert first["tokens"][0]["probability"] == report.rows[0].probability[1]
    assert first["entropy"] == report.spreads[1].entropy
    assert first["cross_entropy"] == report.spreads[1].cross_entropy
    assert len(report.flat()) == 4
    assert "&lt;b&gt;" in report._repr_html_()


def test_a_dataframe_has_a_row_a_token_and_temperature():
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = softmax(ITALIAN, [0.5, 1.0]).to_pandas()
    assert len(frame) == 12
    assert frame[frame.temperature == 1.0].probability.sum() == pytest.approx(1)


def test_input_from_csv_and_json():
    expected = [("a", 1.0), ("b", -2.5)]
    assert pairs_from_text("token,logit\na,1\nb,-2.5\n", "x", "logit") == expected
    assert pairs_from_text("note, logit ,token\nn,1,a\nn,-2.5,b\n", "x", "logit") == expected
    assert pairs_from_text('{"a": 1, "b": -2.5}', "x", "logit") == expected
    objects = '[{"token": "a", "logit": 1}, {"token": "b", "logit": -2.5}]'
    assert pairs_from_text(objects, "x", "logit") == expected
    assert pairs_from_text("[1, -2.5]", "x", "logit") == [("0", 1.0), ("1", -2.5)]
    assert pairs_from_words(["a=b=1"]) == [("a=b", 1.0)]


@pytest.mark.parametrize(
    ("numbers", "more", "message"),
    [
        ({}, {}, "no numbers"),
        ([("a", 1.0), ("a", 2.0)], {}, "given twice"),
        ({"a": math.nan}, {}, "a=nan"),
        ({"a": math.inf, "b": 1.0}, {}, "a=inf"),
        ({"a": -math.inf, "b": -math.inf}, {}, "probability 0"),
        ({"a": "x"}, {}, "not a number"),
        ({"a": 0.5, "b": 0.4}, {"kind": "probability"}, "sum to 0.9"),
        ({"a": 1e308, "b": 1e308}, {"kind": "probability"}, "sum to inf"),
        ({"a": 1.5, "b": -0.5}, {"kind": "probability"}, "below 0"),
        ({"a": 1.0}, {"target": "b"}, "none of the tokens"),
        ({"a": 1.0}, {"temperatures": [-1.0]}, "at least 0"),
        ({"a": 1.0}, {"temperatures": [math.nan]}, "at least 0"),
        ({"a": 1.0}, {"temperatures": []}, "at least one"),
    ],
)
def test_what_is_no_distribution_is_refused(numbers, more, message):
    with pytest.raises(UsageError, match=message):
        softmax(numbers, **more)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("token,value\na,1\n", "no column logit"),
        ("word,logit\na,1\n", "no column token"),
        ("token,logit\na,x\n", "a='x'"),
        ("token,logit\na\n", "a=None"),
        ("{broken", "not valid JSON"),
        ('[{"token": "a"}]', "no logit"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        softmax(pairs_from_text(text, "numbers.csv", "logit"))


def test_one_entry_alone_is_certain_and_noted():
    report = softmax({"a": 3.0}, [0.1, 10])
    assert report.rows[0].probability == (1.0, 1.0)
    assert report.notes


def test_an_impossible_token_stays_impossible():
    report = softmax({"a": 0.0, "b": -math.inf}, [0.5, 5.0], target="b")
    assert probabilities(report) == {"a": 1.0, "b": 0.0}
    assert report.spreads[0].cross_entropy == math.inf
    assert report.as_dict()["temperatures"][0]["cross_entropy"] is None
