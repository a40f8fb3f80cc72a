"""What is named by an option is a file, a pipe or a terminal, of a size that can be read."""

from __future__ import annotations

import os
import socket
import time

import pytest

from decodecli.text_files import MAX_DATA_BYTES, MAX_PROMPT_BYTES

READERS = (
    "generate --file", "inspect-logits --file", "sweep --file", "sweep --prompts",
    "sweep --grid", "generate --config", "tokenize --file", "softmax --file", "embed --file",
)  # fmt: skip
SPECIAL = ("/dev/zero", "/dev/full", "/dev/urandom")


def words(reader: str) -> list[str]:
    command, option = reader.split()
    return [command, *(["Hi"] if option == "--config" else []), option]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", SPECIAL)
def test_a_device_is_refused_at_once(cli, reader, name):
    start = time.monotonic()
    cli(*words(reader), name).refused(2, name.removeprefix("/dev/"), "not a file")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("reader", READERS)
def test_a_socket_is_refused(cli, reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("here.sock")
        cli(*words(reader), "./here.sock").refused(2, "here.sock", "not a file")


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_is_refused(cli, reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    cli(*words(reader), "folder.toml").refused(2, "folder.toml")


@pytest.mark.parametrize("reader", READERS)
def test_what_is_larger_than_the_stated_size_is_refused_unread(cli, reader, tmp_path):
    file = tmp_path / "large.toml"
    with file.open("wb") as opened:
        opened.truncate(MAX_DATA_BYTES + 1)  # a hole: no disk is used
    result = cli(*words(reader), file)
    prompt = reader.endswith("--file") and reader.split()[0] not in ("softmax", "embed")
    limit = MAX_PROMPT_BYTES if prompt else MAX_DATA_BYTES
    result.refused(1, "large.toml", f"larger than {limit >> 20} MiB")


class Endless:
    """A standard input without an end, which counts what is taken."""

    taken = 0

    def __init__(self):
        self.buffer = self

    def isatty(self):
        return False

    def read(self, size=-1):
        assert size >= 0, "read without a bound"
        self.taken += size
        return bytes(size)


@pytest.mark.parametrize("command", ["generate", "inspect-logits", "sweep", "tokenize", "softmax"])
def test_an_endless_standard_input_is_refused(cli, command):
    stdin = Endless()
    cli(command, stdin=stdin).refused(1, "standard input is larger than")
    assert stdin.taken <= MAX_DATA_BYTES + 1


def test_a_prompt_of_100_megabytes_is_refused_before_anything_is_loaded(cli, monkeypatch):
    text = "word " * (20 << 20)
    cli("generate", text, "-m", "./not-there").refused(1, "the prompt is larger than 8 MiB")
    cli("tokenize", text, "-m", "./not-there").refused(1, "the prompt is larger than 8 MiB")


def test_a_pipe_is_read(shell):
    run = shell("decodecli generate --file <(printf 'from a pipe') -n 1 --format jsonl")
    assert run.succeeded().header["prompt"] == "from a pipe"
    run = shell("decodecli softmax --file <(printf 'token,logit\\na,1\\nb,2\\n') --format csv")
    assert run.succeeded().out.count("\n") == 3


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("reader", "name", "text"),
    [
        ("softmax --file", "x.json", DEEP),
        ("softmax --file", "x.json", '{"a": ' + DEEP),
        ("tokenize --chat --file", "x.json", DEEP),
        ("embed --file", "x.toml", "a = " + DEEP),
        ("generate Hi --config", "x.toml", "a = " + DEEP),
        ("sweep --grid", "x.toml", "a = " + DEEP),
        ("sweep --prompts", "x.jsonl", '{"prompt": ' + DEEP),
    ],
)
def test_data_nested_deep_is_refused_in_a_line(cli, tmp_path, reader, name, text):
    (tmp_path / name).write_text(text)
    cli(*reader.split(), tmp_path / name).refused(2, name if "chat" not in reader else "--file")


@pytest.mark.parametrize("depth", [500, 800, 900, 950, 980])
def test_values_nested_almost_too_deep_are_refused_in_a_line(cli, tmp_path, depth):
    nested = "[" * depth + "]" * depth
    (tmp_path / "x.json").write_text('{"a": ' + nested + "}")
    cli("softmax", "--file", tmp_path / "x.json").refused(2)
    (tmp_path / "x.json").write_text('[{"token": ' + nested + ', "logit": 1}, 2]')
    assert cli("softmax", "--file", tmp_path / "x.json").code in (0, 2)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "expect": ' + nested + "}\n")
    cli("sweep", "--prompts", tmp_path / "p.jsonl").refused(2)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1' + "0" * 400 + "}",
        "token,logit\n" + "a" * 200_000 + ",1\n",
        '{"a": "' + "x" * 9999 + '"}',
    ],
)
def test_numbers_and_fields_of_any_length_are_refused_in_a_line(cli, tmp_path, text):
    (tmp_path / "x").write_text(text)
    cli("softmax", "--file", tmp_path / "x").refused(2)


@pytest.mark.parametrize("command", ["generate", "inspect-logits", "tokenize", "sweep"])
def test_the_name_of_a_file_as_a_prompt_is_pointed_out(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my notes.txt").write_text("Once")
    short = ["-n", "1", "--format", "jsonl"] if command in ("generate", "sweep") else []
    result = cli(command, "my notes.txt", *short).succeeded()
    assert "there is a file of that name; did you mean --file 'my notes.txt'?" in result.err
    assert "a file of that name" not in cli(command, "my notes", *short).succeeded().err
    assert "a file of that name" not in cli(command, "my notes.txt", *short, "--quiet").err


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_windows_line_ends_are_read_as_newlines_with_a_notice(cli, tmp_path, way):
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")

    def ask(*more):
        if way == "file":
            return cli(
                "generate", "-n", "1", "--format", "jsonl", *more, "-f", tmp_path / "dos.txt"
            )
        data = (tmp_path / "dos.txt").read_bytes()
        return cli("generate", "-n", "1", "--format", "jsonl", *more, stdin=data)

    result = ask().succeeded()
    assert result.header["prompt"] == "one\ntwo\nthree"
    assert result.err.count("Windows line ends") == 1
    assert "Windows" not in ask("--quiet").succeeded().err


def test_windows_line_ends_of_an_argument_are_kept(cli):
    result = cli("generate", "one\r\ntwo", "-n", "1", "--format", "jsonl").succeeded()
    assert result.header["prompt"] == "one\r\ntwo"
    assert "Windows" not in result.err


def test_a_line_end_after_the_last_line_alone_is_no_news(cli):
    result = cli("generate", "-n", "1", "--format", "jsonl", stdin=b"one\r\n").succeeded()
    assert result.header["prompt"] == "one"
    assert "Windows" not in result.err


def test_windows_line_ends_of_json_are_no_news(cli, tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": 1,\r\n"b": 2}\r\n')
    assert "Windows" not in cli("softmax", "-f", tmp_path / "x.json").succeeded().err


def test_a_file_without_permission_is_refused(cli, tmp_path):
    (tmp_path / "x.txt").write_text("a")
    (tmp_path / "x.txt").chmod(0)
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    cli("generate", "-f", tmp_path / "x.txt").refused(2, "x.txt", "cannot be read")
