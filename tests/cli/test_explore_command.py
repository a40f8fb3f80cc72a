"""`explore` as a process: what it refuses, and what is left when it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import time
from fcntl import ioctl
from termios import TIOCSWINSZ

import pytest

from decodecli.explore.session import read_session

EXPLORE = [sys.executable, "-m", "decodecli", "explore"]


def test_without_a_terminal_it_says_so(cli):
    cli("explore").refused(2, "explore needs a terminal")


def test_a_method_of_whole_runs_is_refused(cli):
    cli("explore", "--preset", "mirostat").refused(2, "explore", "mirostat")


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, *arguments, folder=None, columns=100, rows=30, **environment):
        self.fd, other = pty.openpty()
        ioctl(other, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns)} | environment
        self.process = subprocess.Popen(
            [*EXPLORE, *arguments], stdin=other, stdout=other, stderr=other, env=env,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
        os.close(other)
        self.text = ""

    def wait_for(self, words, seconds=60):
        end = time.monotonic() + seconds
        while words not in self.text and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        assert words in self.text
        return self

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        for _ in range(300):
            if self.process.poll() is not None:
                return self.process.returncode
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    time.sleep(0.05)
        self.process.kill()
        raise AssertionError("it does not end")


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor_is_refused(term):
    terminal = Terminal("--logits", "a=1", "b=2", TERM=term)
    assert terminal.end() == 2
    terminal.wait_for("TERM is", 1)


def test_numbers_are_explored_without_torch_models_and_left_by_q():
    terminal = Terminal("--logits", "day=5", "night=4.5")
    terminal.wait_for("day").type("q")
    assert terminal.end() == 0


@pytest.mark.parametrize(
    ("ending", "code"), [(None, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_session_with_a_name_is_kept_however_it_ends(tmp_path, ending, code):
    path = tmp_path / "session.json"
    terminal = Terminal("The capital of Japan is", "--session", str(path))
    terminal.wait_for("Tokyo").type("g")
    terminal.wait_for("not saved")
    if ending is None:
        terminal.type("\x03")
    assert terminal.end(ending) == code
    session = read_session(str(path))
    assert len(session.branch.choices) == 1
    assert session.prompt == "The capital of Japan is"


def test_a_terminal_that_goes_without_a_signal_ends_it_too(tmp_path):
    path = tmp_path / "session.json"
    terminal = Terminal("The capital of Japan is", "--session", str(path))
    terminal.wait_for("Tokyo").type("g")
    terminal.wait_for("not saved")
    os.close(terminal.fd)
    assert terminal.process.wait(30) == 129
    assert len(read_session(str(path)).branch.choices) == 1


def test_a_saved_session_opens_again_and_its_trace_is_replayed(tmp_path, cli):
    path = tmp_path / "story.json"
    terminal = Terminal(
        "Once upon a time,", "--session", path.name, "-t", "1.2", "--top-p", "0.9", folder=tmp_path
    )
    terminal.wait_for("token")
    for _ in range(3):  # what is drawn is not told apart in what a terminal is sent
        terminal.type(" ")
        time.sleep(0.5)
    terminal.type("s")
    terminal.wait_for("story.jsonl").type("q")
    assert terminal.end() == 0
    assert read_session(str(path)).params.top_p == 0.9

    records = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [record["type"] for record in records] == ["run", *["step"] * 3, "summary"]
    generated = cli(
        "generate", "Once upon a time,", "-t", "1.2", "--top-p", "0.9", "--seed", "0", "-n", "3",
        "--format", "jsonl",
    ).succeeded()  # fmt: skip
    steps = [json.loads(line) for line in generated.out.splitlines()][1:-1]
    for ours, theirs in zip(records[1:-1], steps, strict=True):
        for name in ("index", "position", "token_id", "text", "rank", "kept", "token"):
            assert ours[name] == theirs[name]
        for name in ("logprob", "tempered_logprob", "final_logprob", "entropy", "final_entropy"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4)
        assert len(ours["candidates"]) == len(theirs["candidates"])
    cli("replay", str(path.with_suffix(".jsonl")), "--tables", "line").succeeded()

    again = Terminal("--session", str(path))
    again.wait_for("3 tokens").type("q")
    assert again.end() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "b"], "explore reads one prompt"),
        (["--logits", "a"], "is not TOKEN=NUMBER"),
        (["--logits", "a=1", "--session", "x"], "--session goes with a model"),
        (["-t", "-1"], "--temperature must be"),
        (["--session", __file__], "is not valid JSON"),
        (["x", "--session", __file__], "has its own prompt"),
    ],
)
def test_wrong_usage_is_a_line(arguments, words):
    terminal = Terminal(*arguments, columns=300)  # the line is not wrapped, however long the path
    assert terminal.end() == 2
    terminal.wait_for(words, 1)
    assert "Traceback" not in terminal.text
