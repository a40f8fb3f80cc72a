"""Whatever is called, and wherever its output goes, the program ends with a line and an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
HELPS = ["--help", "--version", "generate --help", "models fit --help", "no arguments"]


@pytest.fixture(params=HELPS)
def told(request) -> str:
    return request.param.replace("no arguments", "")


def test_help_into_a_pipe_that_nobody_reads_is_quiet(shell, told):
    result = shell(f"decodecli {told} | sleep 0; echo ${{PIPESTATUS[0]}}")
    # Without arguments that is wrong usage, if it is written before the reader goes.
    assert result.out in (["0\n"] if told else ["0\n", "2\n"])
    assert result.err == ""


@full
def test_help_onto_a_full_disk_says_so(shell, told):
    result = shell(f"decodecli {told} > /dev/full")
    assert result.code == 1
    assert result.err.startswith("Error: cannot write to standard output: No space left")
    assert "bug" not in result.err


def test_help_can_be_read_where_the_locale_knows_ascii_only(cli, told):
    result = cli(*told.split(), encoding="ascii")
    assert result.code == (0 if told else 2)
    assert result.raw.isascii()
    assert "decodecli" in result.out


def test_help_in_the_c_locale_without_utf8_mode(shell):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = shell("decodecli sweep --help", **env).succeeded()
    assert result.err == ""
    assert "log:0.1:10:5" in result.out


def run_until_steps(environment, trace, *before: str, **more) -> subprocess.Popen[bytes]:
    """`generate` in a process of its own, some steps along."""
    words = ["generate", "Hi", "-n", "100000", "-m", more.pop("model"), "--trace", str(trace)]
    run = subprocess.Popen(
        [*before, sys.executable, "-m", "decodecli", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        **more,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not trace.exists() or trace.read_bytes().count(b'"type":"step"') < 5:
        assert time.monotonic() < end
        time.sleep(0.02)
    return run


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_run_as_ctrl_c_does(
    environment, scripted, tmp_path, read_trace, name, code
):
    trace = tmp_path / "trace.jsonl"
    with run_until_steps(environment, trace, model=str(scripted(positions=200_000))) as run:
        run.send_signal(getattr(signal, name))
        out, err = run.communicate(timeout=60)
    assert run.returncode == code
    assert err.splitlines()[-1] == {143: b"Terminated.", 129: b"Hung up."}[code]
    records = read_trace(trace)
    assert records[-1]["finish_reason"] == "interrupted"
    assert records[-1]["new_tokens"] == len(records) - 2 >= 5
    assert out.decode() == records[-1]["text"] + "\n"


def test_under_nohup_a_hangup_is_ignored_and_a_termination_is_not(
    environment, scripted, tmp_path, read_trace
):
    trace = tmp_path / "trace.jsonl"
    model = str(scripted(positions=200_000))
    with run_until_steps(environment, trace, "nohup", model=model) as run:
        run.send_signal(signal.SIGHUP)
        steps = trace.read_bytes().count(b"\n")
        while trace.read_bytes().count(b"\n") < steps + 5:
            time.sleep(0.02)
            assert run.poll() is None
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 143
    assert read_trace(trace)[-1]["finish_reason"] == "interrupted"


def test_in_the_background_a_termination_closes_the_trace(
    environment, scripted, tmp_path, read_trace
):
    """There Ctrl-C is ignored."""
    trace = tmp_path / "trace.jsonl"
    model = str(scripted(positions=200_000))
    ignoring = ("env", "--ignore-signal=INT") if _env_can_ignore() else ()
    with run_until_steps(environment, trace, *ignoring, model=model) as run:
        if ignoring:
            run.send_signal(signal.SIGINT)
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 143
    assert read_trace(trace)[-1]["finish_reason"] == "interrupted"


def _env_can_ignore() -> bool:
    done = subprocess.run(["env", "--ignore-signal=INT", "true"], capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_keeps_a_sweeps_finished_cells(cli, tmp_path, monkeypatch, name, code):
    from decodecli.sweeps import run

    real = run.run_cells

    def interrupted(*args, **more):
        for number, outcome in enumerate(real(*args, **more)):
            yield outcome
            if number == 2:
                os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr(run, "run_cells", interrupted)
    monkeypatch.chdir(tmp_path)
    result = cli(
        "sweep", "Once", "--seeds", "0..7", "-n", "2", "-b", "1", "--no-plots", "-o", "out"
    )
    assert result.code == code
    assert "3 of 8 cells are kept; to go on: decodecli sweep --out out" in result.err
    assert (tmp_path / "out" / "runs.jsonl").read_text().count("\n") == 3


def test_the_handlers_of_before_are_put_back(cli):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cli("presets").succeeded()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_while_the_program_is_imported_is_a_line_and_no_traceback():
    code = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "decodecli.cli.app":
            raise KeyboardInterrupt

from decodecli import __main__ as program
sys.meta_path.insert(0, Interrupt())
program.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_models_fit_lets_no_line_of_a_library_through(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["bos_token_id"] = 10**6
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "decodecli", "models", "fit", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "[transformers]" not in done.stderr
