"""The real program in a real shell and a real pseudo-terminal."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="pseudo-terminals are for POSIX systems")


def steps_in(trace: Path) -> int:
    try:
        return trace.read_bytes().count(b'"type":"step"')
    except FileNotFoundError:
        return 0


class Terminal:
    """A child in a session of its own whose controlling terminal is 80 columns wide."""

    def __init__(self, command: list[str], env: dict[str, str], columns: int = 80) -> None:
        import fcntl
        import struct
        import termios

        self.screen = b""
        self.status: int | None = None
        self.child, self.master = pty.fork()
        if self.child == 0:
            try:
                size = struct.pack("HHHH", 40, columns, 0, 0)
                fcntl.ioctl(0, termios.TIOCSWINSZ, size)
                os.execve(command[0], command, env)
            finally:
                os._exit(127)

    def read(self, until=lambda: False, seconds: float = 90) -> None:
        """Read what the child writes until a condition holds or it has ended."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"waited in vain; the screen: {self.screen[-2000:]!r}"
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # how Linux says that the other end is closed
                data = b""
            if not data:
                break
            self.screen += data

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def wait(self) -> int:
        """The exit code, once everything has been read."""
        self.read()
        _, status = os.waitpid(self.child, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def close(self) -> None:
        if self.status is None:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
        os.close(self.master)


@pytest.fixture
def terminal(environment):
    opened = []

    def open_one(
        *arguments: str | Path,
        columns: int = 80,
        program: tuple[str, ...] = (sys.executable, "-m", "decodecli"),
    ) -> Terminal:
        env = {name: value for name, value in environment.items() if name != "COLUMNS"}
        opened.append(Terminal([*program, *map(str, arguments)], env, columns))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def endless(scripted):
    """A model with a very long context; among its likeliest tokens is no end of text."""
    return scripted(positions=200_000)


def test_it_works_as_typed_in_a_script_with_stdin_closed(shell):
    result = shell("decodecli generate --temperature 1.4 --top-p 0.9 -n 8 <&-").succeeded()
    assert result.out.endswith("\n")
    assert "Once upon a time," in result.err
    assert "Once upon a time," not in result.out
    assert len(result.err.strip().splitlines()) <= 3, f"library noise? {result.err}"


def test_a_while_read_loop_keeps_its_standard_input(shell, scripted):
    model = shlex.quote(str(scripted(" Tokyo", " and")))
    run = f'decodecli generate "$line" -m {model} -n 1 --greedy --quiet'
    result = shell(f'printf "one\\ntwo\\nthree\\n" | {{ read -r line; {run}; cat; }}')
    assert result.succeeded().out == " Tokyo\ntwo\nthree\n"


def test_a_reader_that_goes_away_ends_the_run_quietly(shell, scripted):
    model = shlex.quote(str(scripted(" Tokyo", "\n")))
    line = f"decodecli generate Hi -m {model} -n 20000 --seed 0 --quiet | head -1"
    result = shell(f'{line}; echo "${{PIPESTATUS[*]}}"')
    assert result.err == ""
    assert result.out.endswith("\n0 0\n")
    assert result.out.count("\n") == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_under_stdout_is_an_error(shell, scripted):
    model = shlex.quote(str(scripted()))
    result = shell(f"decodecli generate Hi -m {model} -n 4 --quiet > /dev/full")
    assert result.code == 1
    assert result.err.startswith("Error: ")
    assert len(result.err.splitlines()) <= 2
    assert "standard output" in result.err
    assert "No space left" in result.err


def test_an_interrupt_of_a_piped_run_keeps_what_was_said_and_closes_the_trace(
    environment, endless, tmp_path, read_trace
):
    trace = tmp_path / "trace.jsonl"
    arguments = ["generate", "Hi", "-m", str(endless), "-n", "150000", "--trace", str(trace)]
    with subprocess.Popen(
        [sys.executable, "-m", "decodecli", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as run:  # fmt: skip
        try:
            early = os.read(run.stdout.fileno(), 1)
            assert early, "text is sent as it comes, not at the end"
            while steps_in(trace) < 5:
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert b"Traceback" not in err
    records = read_trace(trace)
    assert records[-1]["finish_reason"] == "interrupted"
    assert records[-1]["new_tokens"] == len(records) - 2 >= 5
    assert (early + out).decode() == records[-1]["text"] + "\n"


def test_an_interrupt_before_the_first_token_is_quiet_too(environment, tmp_path):
    fifo = tmp_path / "prompt"
    os.mkfifo(fifo)
    with subprocess.Popen(
        [sys.executable, "-m", "decodecli", "generate", "--file", str(fifo)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as run:  # fmt: skip
        try:
            with fifo.open("wb"):  # opens once the program waits for its prompt
                run.send_signal(signal.SIGINT)
                out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert out == b""
    assert b"Traceback" not in err
    assert len(err.splitlines()) <= 1


def test_control_c_at_a_terminal_ends_with_130_and_a_whole_trace(
    terminal, endless, tmp_path, read_trace
):
    trace = tmp_path / "trace.jsonl"
    run = terminal(
        "generate", "Hi", "-m", endless, "--top-k", "5", "-n", "150000", "--trace", trace
    )
    run.read(until=lambda: steps_in(trace) >= 5)
    run.type(b"\x03")
    assert run.wait() == 130
    records = read_trace(trace)
    assert [record["type"] for record in (records[0], records[-1])] == ["run", "summary"]
    assert records[-1]["finish_reason"] == "interrupted"
    assert records[-1]["new_tokens"] == len(records) - 2 >= 5
    assert records[-1]["text"] == "".join(record["text"] for record in records[1:-1])
    assert b"Traceback" not in run.screen
    shown, hidden = run.screen.rfind(b"\x1b[?25h"), run.screen.rfind(b"\x1b[?25l")
    assert shown > hidden or hidden == -1, "the cursor is given back"
    wrap, no_wrap = run.screen.rfind(b"\x1b[?7h"), run.screen.rfind(b"\x1b[?7l")
    assert wrap > no_wrap or no_wrap == -1, "lines wrap again"


def test_a_terminal_that_takes_nothing_does_not_hold_the_run(
    terminal, endless, tmp_path, read_trace
):
    """Its buffers are full after a few steps; hundreds more come all the same, and all are shown
    when it is read again."""
    trace = tmp_path / "trace.jsonl"
    run = terminal("generate", "Hi", "-m", endless, "--top-k", "5", "-n", "500", "--trace", trace)
    end = time.monotonic() + 60
    while steps_in(trace) < 500:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert run.wait() == 0
    titles = re.findall(rb"(\d+)\x1b\[0m  [^\r\n]*rank \d", run.screen)
    assert titles == [str(number).encode() for number in range(1, 501)]
    updates = run.screen.count(b"\x1b[?25l")
    assert updates < 60, "many steps an update"


def test_a_second_interrupt_ends_a_run_whose_terminal_takes_nothing(
    terminal, endless, tmp_path, read_trace
):
    trace = tmp_path / "trace.jsonl"
    run = terminal(
        "generate", "Hi", "-m", endless, "--top-k", "5", "-n", "150000", "--trace", trace
    )
    end = time.monotonic() + 60
    while steps_in(trace) < 300:
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(run.child, signal.SIGINT)
    while b'"type":"summary"' not in trace.read_bytes()[-3_000_000:]:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(run.child, signal.SIGINT)
    ended = 0
    while not ended:
        assert time.monotonic() < end, "it still hangs on its terminal"
        ended, status = os.waitpid(run.child, os.WNOHANG)
        time.sleep(0.05)
    run.status = os.waitstatus_to_exitcode(status)
    assert run.status == 130
    run.read()
    assert b"Fatal" not in run.screen
    assert b"Traceback" not in run.screen
    assert read_trace(trace)[-1]["finish_reason"] == "interrupted"


def test_a_run_at_a_terminal_shows_prompt_tables_text_and_how_to_repeat_it(
    terminal, scripted, cli, without_styles
):
    says = (" Tokyo", "\x1b]0;pwned\x07", " and", "\x1b[2J", " rain", "\r", " garden")
    folder = scripted(*says)
    run = terminal(
        "generate", "Where is it?", "-m", folder, "--seed", "9", "--top-p", "0.9", "-n", "12"
    )
    assert run.wait() == 0
    screen = run.screen.decode("utf-8")
    for raw in ("\x1b]", "\x07", "\x1b[2J"):
        assert raw not in screen
    plain = without_styles(screen).replace("\r\n", "\n")
    assert "\x1b" not in plain
    assert "Where is it?" in plain
    assert "seed 9" in plain
    assert "top_p" in plain or "top-p" in plain
    assert "perplexity" in plain
    assert sum("Tokyo" in line and "%" in line for line in plain.splitlines()) >= 12, "a row a step"
    rows = re.split(r"[\r\n]", plain[plain.index("Where is it?") :])
    assert max(len(row) for row in rows if "repeat:" not in row) <= 80

    command = re.search(r"repeat:\s+decodecli (.*(?:\n\s+.*)*)", plain)
    assert command is not None
    # A command longer than a row may be continued on the next.
    words = shlex.split(command[1].replace("\\\n", " ").replace("\n", " "))
    repeated = cli(*words, "--format", "jsonl").succeeded()
    original = cli(
        "generate", "Where is it?", "-m", folder, "--seed", "9", "--top-p", "0.9", "-n", "12",
        "--format", "jsonl",
    )  # fmt: skip
    assert repeated.summary["token_ids"] == original.summary["token_ids"]
    assert repeated.header["prompt"] == "Where is it?"


def test_the_program_and_the_module_tell_their_version(shell):
    from decodecli import __version__

    result = shell("decodecli --version").succeeded()
    assert result.out == f"decodecli {__version__}\n"
    assert result.err == ""


def modes(terminal) -> list:
    import termios

    return termios.tcgetattr(terminal.master)


def raw(terminal) -> bool:
    import termios

    return not modes(terminal)[3] & termios.ICANON


@pytest.fixture
def paused(terminal, scripted, in_order, tmp_path):
    """`generate --pause`, its terminal in the hands of the program, after its first token."""

    def start(*options: str) -> Terminal:
        words = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "6", "--tables", "line")
        trace = tmp_path / "run.jsonl"
        opened = terminal(*words, "--trace", str(trace), "--pause", *options)
        opened.before = modes(opened)
        opened.read(lambda: raw(opened) and steps_in(trace) == 1)
        return opened

    return start


def test_pause_shows_a_token_a_key_and_gives_the_terminal_back(paused, tmp_path):
    screen, trace = paused(), tmp_path / "run.jsonl"
    assert "next token" in screen.screen.decode()
    for count, key in ((2, b" "), (3, b"\r")):
        screen.type(b"x" + key)
        screen.read(lambda count=count: steps_in(trace) == count)
    screen.type(b"c")
    assert screen.wait() == 0
    assert steps_in(trace) == 6
    assert modes(screen) == screen.before


def test_keys_typed_while_the_model_is_loaded_count(terminal, scripted, in_order, tmp_path):
    trace = tmp_path / "run.jsonl"
    words = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "6", "--trace", trace, "--pause")
    screen = terminal(*map(str, words))
    screen.type(b" \rq")
    assert screen.wait() == 0
    assert steps_in(trace) == 3


def test_an_omp_num_threads_that_is_no_number_is_told_once(shell):
    result = shell('OMP_NUM_THREADS=nope "$PYTHON" -m decodecli generate Hi -n 1 --tables none')
    assert result.code == 0
    assert result.err.count("OMP_NUM_THREADS=nope is not a number of threads") == 1
    assert "libgomp" not in result.err


def test_q_ends_a_run_that_pauses(paused, read_trace, tmp_path):
    screen = paused("--num-samples", "2")
    screen.type(b"q")
    assert screen.wait() == 0
    _, step, summary = read_trace(tmp_path / "run.jsonl")
    assert (summary["finish_reason"], summary["text"]) == ("interrupted", step["text"])
    assert modes(screen) == screen.before


def test_ctrl_c_while_it_pauses_gives_the_terminal_back(paused):
    screen = paused()
    screen.type(b"\x03")
    assert screen.wait() == 130
    assert modes(screen) == screen.before


def test_ctrl_z_gives_the_terminal_to_the_shell_until_the_run_goes_on(
    terminal, scripted, in_order, tmp_path
):
    trace = tmp_path / "run.jsonl"
    words = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "6", "--trace", trace, "--pause")
    line = shlex.join(map(str, (sys.executable, "-m", "decodecli", *words)))
    screen = terminal(program=("/bin/bash", "--norc", "--noediting", "-i"))
    screen.type(line.encode() + b"\n")
    screen.read(lambda: raw(screen) and steps_in(trace) == 1)
    screen.type(b"\x1a")
    screen.read(lambda: b"Stopped" in screen.screen)
    assert not raw(screen)
    screen.type(b"fg\n")
    screen.read(lambda: raw(screen))
    screen.type(b" ")
    screen.read(lambda: steps_in(trace) == 2)
    screen.type(b"c")
    screen.read(lambda: not raw(screen))
    screen.type(b"exit\n")
    assert screen.wait() == 0
    assert steps_in(trace) == 6


def test_delay_slows_a_run_down_and_an_interrupt_does_not_wait(
    terminal, scripted, in_order, tmp_path
):
    trace = tmp_path / "run.jsonl"
    words = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "6", "--trace", str(trace))
    screen = terminal(*words, "--delay", "1000")
    screen.read(lambda: steps_in(trace) == 1)
    began = time.monotonic()
    os.kill(screen.child, signal.SIGINT)
    assert screen.wait() == 130
    assert time.monotonic() - began < 20
    assert steps_in(trace) == 1


def test_pause_without_a_terminal_is_refused(shell, scripted):
    model = shlex.quote(str(scripted()))
    result = shell(f'setsid -w "$PYTHON" -m decodecli generate Hi -m {model} --pause')
    result.refused(2, "--pause", "terminal")


@pytest.mark.parametrize("delay", ["-1", "nan", "inf", "x"])
def test_a_delay_that_cannot_be_is_refused(shell, delay):
    shell(f"DECODECLI_DELAY={delay} decodecli generate Hi").refused(2, "delay")


def test_a_replay_from_standard_input_takes_its_keys_from_the_terminal(
    terminal, cli, scripted, tmp_path
):
    trace, typed = tmp_path / "run.jsonl", tmp_path / "seen.csv"
    cli("generate", "Hi", "-m", scripted(), "-n", "4", "--seed", "1", "--trace", trace).succeeded()
    line = f"{sys.executable} -m decodecli replay - --pause --format csv <{trace} >{typed}"
    screen = terminal("-c", line, program=("/bin/sh",))
    lines = lambda: typed.read_text().count("\n") if typed.exists() else 0  # noqa: E731
    for count in (2, 3):
        screen.read(lambda count=count: lines() == count)
        screen.type(b" ")
    screen.read(lambda: lines() == 4)
    screen.type(b"q")
    assert screen.wait() == 0
    assert lines() == 4
