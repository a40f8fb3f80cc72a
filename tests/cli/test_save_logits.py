"""`--save-logits`: every step's logits in a file that numpy opens as it is."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from decodecli.errors import UsageError
from decodecli.render.run_files import LogitsFile

SHORT = ("--seed", "4", "-n", "5", "--quiet")


def agrees(saved: np.ndarray, steps: list[dict]) -> bool:
    """Whether every candidate's logit in the trace is the number in the file."""
    pairs = [
        (saved[step["index"], row["token_id"]], row["logit"])
        for step in steps
        for row in step["candidates"]
    ]
    return bool(pairs) and all(float(found) == told for found, told in pairs)


def test_the_file_has_a_row_a_step_that_agrees_with_the_trace(cli, tiny_folder, tmp_path):
    file = tmp_path / "logits.npy"
    options = ("-t", "1.4", "--repetition-penalty", "1.3", "--top-p", "0.9", "--format", "jsonl")
    result = cli(
        "generate", "Hi", "-m", tiny_folder, *SHORT, *options, "--save-logits", file
    ).succeeded()
    saved = np.load(file, mmap_mode="r")
    assert saved.shape == (5, result.header["model"]["vocab_size"])
    assert saved.dtype == np.float32
    assert agrees(saved, result.steps)
    chosen = np.log(np.exp(saved.astype(np.float64)).sum(axis=1))
    for step, total in zip(result.steps, chosen, strict=True):
        assert step["logit"] - total == pytest.approx(step["logprob"], rel=1e-4, abs=1e-5)
    assert result.header["sources"]["save_logits"] == "flag"


def test_the_text_is_the_same_with_and_without(cli, tiny_folder, tmp_path):
    run = ("generate", "Hi", "-m", tiny_folder, *SHORT)
    assert cli(*run, "--save-logits", tmp_path / "a.npy").succeeded().raw == cli(*run).raw


def test_each_sample_has_a_file_of_its_own(cli, tiny_folder, tmp_path):
    run = ("generate", "Hi", "-m", tiny_folder, *SHORT, "--format", "jsonl", "--num-samples", "2")
    result = cli(*run, "--save-logits", tmp_path / "of.it.npy").succeeded()
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["of.it-1.npy", "of.it-2.npy"]
    for number in (1, 2):
        steps = result.steps[5 * (number - 1) : 5 * number]
        assert agrees(np.load(tmp_path / f"of.it-{number}.npy"), steps)


def test_what_the_file_held_before_is_gone_with_the_first_row_not_sooner(cli, scripted, tmp_path):
    file = tmp_path / "logits.npy"
    file.write_bytes(b"x" * 10**6)
    cli("generate", "Hi", "-m", tmp_path / "nothing", "--save-logits", file).refused(1)
    assert file.stat().st_size == 10**6
    cli("generate", "Hi", "-m", scripted(), *SHORT, "--save-logits", file).succeeded()
    assert len(np.load(file)) == 5
    assert file.stat().st_size == 128 + np.load(file).nbytes


def test_a_run_without_a_step_leaves_no_new_file(cli, tmp_path):
    run = ("generate", "Hi", "-m", tmp_path / "nothing", "--save-logits", tmp_path / "new.npy")
    cli(*run).refused(1)
    assert not (tmp_path / "new.npy").exists()


def test_a_run_that_fails_keeps_the_rows_before(cli, scripted, in_order, tmp_path):
    folder = scripted(" a", " b", " c", poison=(" b", float("nan")))
    file = tmp_path / "logits.npy"
    run = ("generate", "Hi", "-m", folder, *in_order, "-n", "9", "--save-logits", file)
    assert cli(*run).code == 1
    assert len(np.load(file)) == 2


@pytest.mark.parametrize("name", ["logits.npz", "logits.safetensors", "logits", "-"])
def test_other_formats_are_refused(cli, tmp_path, name):
    cli("generate", "Hi", "--save-logits", name).refused(2, "--save-logits", ".npy")


def test_a_folder_that_is_not_there_is_wrong_usage(cli, tmp_path):
    cli("generate", "Hi", "--save-logits", tmp_path / "no" / "a.npy").refused(2, "folder")


def test_a_folder_of_that_name_is_wrong_usage(cli, tmp_path):
    (tmp_path / "a.npy").mkdir()
    cli("generate", "Hi", "--save-logits", tmp_path / "a.npy").refused(2, "folder")


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_path_without_a_name_is_wrong_usage(name, samples):
    with pytest.raises(UsageError, match="--save-logits"):
        LogitsFile(name, samples)


@pytest.mark.parametrize("trace", ["a.npy", "./x/../a.npy", "link"])
def test_the_traces_own_file_is_refused(cli, tmp_path, trace):
    (tmp_path / "x").mkdir()
    (tmp_path / "a.npy").write_bytes(b"before")
    (tmp_path / "link").symlink_to("a.npy")
    run = ("generate", "Hi", "--save-logits", tmp_path / "a.npy", "--trace", f"{tmp_path}/{trace}")
    cli(*run).refused(2, "--save-logits", "--trace", "one file")
    assert (tmp_path / "a.npy").read_bytes() == b"before"


def test_the_file_of_a_sample_is_not_the_traces(cli, tmp_path):
    run = ("generate", "Hi", "--save-logits", tmp_path / "a.npy", "--num-samples", "2")
    cli(*run, "--trace", tmp_path / "a-2.npy").refused(2, "one file")


def test_it_can_stand_in_a_file_of_options(cli, tiny_folder, toml, tmp_path):
    config = toml(f'save_logits = "{tmp_path / "a.npy"}"')
    cli("generate", "Hi", "-m", tiny_folder, *SHORT, "--config", config).succeeded()
    assert len(np.load(tmp_path / "a.npy")) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are for POSIX systems")
def test_a_full_disk_does_not_stop_the_text_and_is_told(shell, scripted, tmp_path):
    model, run = shlex.quote(str(scripted())), "decodecli generate Hi -n 9 --seed 1 --quiet -m"
    whole = shell(f"{run} {model}").succeeded()
    # 1024-byte blocks: room for the header and two rows of some 270 float32.
    result = shell(f"ulimit -f 3; {run} {model} --save-logits a.npy")
    assert result.code == 1
    assert result.raw == whole.raw
    assert result.err.startswith("Error: cannot write a.npy")
    assert len(result.err.splitlines()) == 2
    saved = np.load(tmp_path / "a.npy")
    assert len(saved) == 2
    assert (tmp_path / "a.npy").stat().st_size == 128 + saved.nbytes


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_an_interrupted_file_has_every_whole_row(environment, scripted, tmp_path, how):
    file = tmp_path / "a.npy"
    words = ["generate", "Hi", "-m", str(scripted(positions=100_000)), "-n", "90000", "--quiet"]
    command = [sys.executable, "-m", "decodecli", *words, "--save-logits", str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    ) as run:
        try:
            end = time.monotonic() + 60
            while not file.exists() or file.stat().st_size < 20_000:
                assert time.monotonic() < end
                time.sleep(0.02)
            run.send_signal(getattr(signal, how))
            run.wait(60)
        finally:
            run.kill()
    saved = np.load(file, mmap_mode="r")
    assert len(saved) >= 10
    assert np.isfinite(saved).all()
    assert np.ptp(saved, axis=1).min() > 5, "every row was written"
