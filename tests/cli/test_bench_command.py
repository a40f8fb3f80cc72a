"""`decodecli bench`: a model's speed here, with its peer."""

from __future__ import annotations

import pytest


@pytest.fixture
def bench(cli, tiny_folder):
    def run(*more):
        return cli(
            "bench", "-m", tiny_folder, "--device", "cpu", "--tokens", "8", "--repeat", "1", *more
        )

    return run


@pytest.fixture(autouse=True)
def _read_little(monkeypatch):
    from decodecli.analysis import speed

    monkeypatch.setattr(speed, "_READ", 2**22)


def test_every_side_and_the_bandwidth_are_measured(bench, strict):
    report = strict(bench("--format", "json").succeeded().out)
    assert list(report["tokens_per_second"]) == ["full trace", "no trace", "transformers generate"]
    assert all(side["median"] > 0 for side in report["tokens_per_second"].values())
    assert report["model"]["dtype"] == "float32"
    assert report["megabytes_per_token"] > 0
    read = report["memory_gb_per_second"]["median"]
    traced = report["tokens_per_second"]["full trace"]["median"]
    expected = traced * report["megabytes_per_token"] / 1e3 / read
    assert report["bandwidth_share"] == pytest.approx(expected)


def test_a_person_reads_a_line_a_side(bench):
    out = bench().succeeded().out
    assert "full trace" in out
    assert "x generate" in out
    assert "of it is used" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--tokens", "1"), "--tokens"),
        (("--repeat", "0"), "--repeat"),
        (("--format", "xml"), "--format"),
        (("--dtype", "int3"), "--dtype"),
        (("-q", "q4"), "--quantize"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(cli, arguments, word):
    cli("bench", *arguments).refused(2, word)
