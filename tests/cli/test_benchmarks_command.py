"""`python -m benchmarks` from its command line: one quick real run, and what it refuses."""

from __future__ import annotations

import functools

import pytest

FAST = ("--only", "decode", "--only", "trace", "--only", "bandwidth")


@pytest.fixture
def bench(cli):
    from benchmarks.__main__ import app

    return functools.partial(cli, app=app)


@pytest.fixture
def quick(bench, tiny_folder):
    """A quick real run on the tiny model."""

    def run(*more):
        given = more if "--only" in more else (*FAST, *more)
        return bench("-m", tiny_folder, "--quick", "--device", "cpu", "--threads", "1", *given)

    return run


def test_a_quick_run_gives_every_row_as_json(quick, strict, tiny_folder):
    result = quick("--format", "json").succeeded()
    assert result.err == ""
    found = strict(result.out)
    assert (found["type"], found["schema"]) == ("bench", 1)
    assert [row["section"] for row in found["rows"]] == ["decode"] * 4 + ["trace", "bandwidth"]
    assert all(row["ratio"]["median"] > 0 for row in found["rows"])
    assert all(row["skipped"] is None for row in found["rows"])
    assert found["settings"]["quick"] is True
    assert found["machine"]["versions"]["torch"]
    assert found["command"][:3] == ["python", "-m", "benchmarks"]


def test_a_quick_run_is_a_table_for_people_and_a_page_in_a_file(quick, tmp_path):
    page = tmp_path / "page.md"
    result = quick("--only", "sampler", "--report", page).succeeded()
    assert "128,256 tokens" in result.out
    assert "≤ 0.15" in result.out
    assert "targets hold" in result.out
    assert page.read_text(encoding="utf-8").startswith("# Benchmarks\n")


def test_a_section_that_cannot_be_measured_says_why_and_is_no_failure(quick, strict):
    found = strict(quick("--only", "llama", "--format", "json").succeeded().out)
    [row] = found["rows"]
    assert "--quantize nf4" in row["skipped"]
    assert row["holds"] is None


def test_check_fails_when_a_target_does_not_hold(bench, monkeypatch):
    from benchmarks import run
    from benchmarks.report import Row, at_least
    from decodecli.analysis.timing import Samples

    def rows(self):
        self.report.rows.append(
            Row("start", "", "this", "that", "s", Samples((1.0,)), Samples((2.0,)), at_least(1))
        )
        yield self.report.rows[-1]

    monkeypatch.setattr(run.Bench, "rows", rows)
    assert bench("--only", "start").succeeded()
    result = bench("--only", "start", "--check")
    assert result.code == 1
    assert "start: this" in result.err
    assert "0 of 1 targets hold" in result.out


def test_what_was_measured_before_ctrl_c_is_shown(bench, monkeypatch):
    from benchmarks import run
    from benchmarks.report import Row
    from decodecli.analysis.timing import Samples

    def rows(self):
        self.report.rows.append(Row("start", "", "this", "", "s", Samples((1.0,))))
        yield self.report.rows[-1]
        raise KeyboardInterrupt

    monkeypatch.setattr(run.Bench, "rows", rows)
    result = bench("--only", "start")
    assert result.code == 130
    assert "this" in result.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--shape", "gpt5"), "--shape"),
        (("--shape", "gpt2", "-m", "builtin"), "--model"),
        (("--only", "nothing"), "--only"),
        (("--dtype", "int3"), "--dtype"),
        (("-q", "q4"), "--quantize"),
        (("--device", "tpu"), "--device"),
        (("--tokens", "1"), "--tokens"),
        (("--repeat", "0"), "--repeat"),
        (("--threads", "0"), "--threads"),
        (("--format", "xml"), "--format"),
        (("--report", "page.txt"), "--report"),
        (("--report", "/nowhere/at/all/page.md"), "--report"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(bench, arguments, word):
    bench(*arguments).refused(2, word)


def test_a_shape_larger_than_the_memory_is_refused(bench, monkeypatch):
    from benchmarks import subjects

    monkeypatch.setattr(subjects, "free_memory", lambda device: 10**9)
    result = bench("--shape", "llama-8b", "--device", "cpu", "--only", "decode")
    result.refused(1, "llama-8b", "GiB", "smaller shape")


def test_a_device_that_is_not_there_is_refused(bench):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    bench("--device", "cuda").refused(2, "CUDA")


@pytest.mark.gpu
def test_a_quick_run_on_a_gpu_has_its_two_rows_more(bench, strict, tiny_folder):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    result = bench("-m", tiny_folder, "--quick", "--device", "cuda", *FAST,
                 "--dtype", "bfloat16", "--format", "json").succeeded()  # fmt: skip
    found = strict(result.out)
    assert found["machine"]["gpu"]["name"]
    units = [row["unit"] for row in found["rows"] if row["peer"] is None]
    assert units == ["s", "a step"]
