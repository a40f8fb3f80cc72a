"""`--color` and `--quiet` mean one thing everywhere; stdout and stderr in one place are one stream."""

from __future__ import annotations

import re

import pytest

SGR = re.compile(r"\x1b\[[0-9;]*m")
SHORT = ("-n", "3", "--seed", "7")


def commands() -> dict:
    """Every command by its words, those of `models` too."""
    from typer.main import get_command

    from decodecli.cli.app import app

    found = dict(get_command(app).commands)
    for name, command in get_command(app).commands["models"].commands.items():
        found[f"models {name}"] = command
    return found


def options(command) -> dict:
    return {name: param for param in command.params for name in param.opts}


def test_every_command_takes_color():
    for name, command in commands().items():
        assert "--color" in options(command), name
        assert options(command)["--color"].metavar == "auto|always|never", name


def test_quiet_is_told_in_the_same_words_everywhere():
    told = {
        name: options(command)["--quiet"].help.partition(" [dim]")[0]
        for name, command in commands().items()
        if "--quiet" in options(command)
    }
    assert {"generate", "inspect-logits", "softmax", "tokenize", "embed", "sweep"} <= set(told)
    texts = {told.pop(name) for name in ("generate", "replay") if name in told}
    assert texts == {"Only the text: no notices, no progress, no tables but those of --tables."}
    assert set(told.values()) == {"Only the result: no notices and no progress."}


@pytest.mark.parametrize("words", [(), ("--temperature", "0.5,1.5"), ("--plot", "-")])
def test_always_colours_a_pipe_and_never_leaves_a_terminal_plain(cli, words):
    given = ("softmax", "a=1", "b=2", *words)
    term = {"TERM": "xterm-256color"}
    plain = cli(*given).succeeded()
    coloured = cli(*given, "--color", "always").succeeded()
    assert SGR.search(coloured.out)
    assert SGR.sub("", coloured.out) == plain.out
    assert SGR.search(cli(*given, terminal=True, env=term).out)
    assert cli(*given, "--color", "never", terminal=True, env=term).out == plain.out


def test_the_option_goes_before_the_variables_and_those_before_the_stream(cli):
    given = ("softmax", "a=1", "b=2")

    def coloured(*words: str, terminal: bool = False, **env: str) -> bool:
        env = {"TERM": "xterm-256color", **env}
        return "\x1b[3" in cli(*given, *words, terminal=terminal, env=env).succeeded().out

    assert coloured(FORCE_COLOR="1")
    assert not coloured("--color", "never", FORCE_COLOR="1")
    assert not coloured(terminal=True, NO_COLOR="1")
    assert coloured("--color", "always", NO_COLOR="1", TERM="dumb")
    assert coloured(DECODECLI_COLOR="always")
    assert not coloured("--color", "auto", DECODECLI_COLOR="always")


def test_a_file_of_options_can_say_it(cli, tmp_path):
    (tmp_path / "own.toml").write_text('color = "always"\n')
    result = cli("softmax", "a=1", "b=2", "--config", tmp_path / "own.toml").succeeded()
    assert SGR.search(result.out)


@pytest.mark.parametrize("words", [("presets",), ("models", "cache"), ("softmax", "a=1")])
def test_another_colour_word_is_refused(cli, words):
    cli(*words, "--color", "red").refused(2, "--color", "auto, always, never", "red")
    cli(*words, env={"DECODECLI_COLOR": "red"}).refused(2, "red", "DECODECLI_COLOR")


def test_the_text_and_the_records_are_never_coloured_in_a_pipe(cli, tiny_folder):
    run = ("generate", "Hi", "-m", tiny_folder, *SHORT)
    plain = cli(*run).succeeded()
    assert cli(*run, "--color", "always").raw == plain.raw
    assert cli(*run, env={"FORCE_COLOR": "1"}).raw == plain.raw
    assert "\x1b" not in cli(*run, "--color", "always", "--format", "jsonl").out
    assert SGR.search(cli(*run, "--color", "always", "--tables", "full").err)


@pytest.mark.parametrize("tables", ["full", "line"])
def test_where_stdout_and_stderr_are_one_the_text_stands_once_behind_the_tables(
    shell, tiny_folder, tmp_path, tables
):
    run = f"decodecli generate Hello -m {tiny_folder} -n 5 --seed 7 --tables {tables}"
    text = shell(f"{run} 2>/dev/null").succeeded().out.strip()
    piped = shell(f"{run} 2>&1 | cat").succeeded().out
    (tmp_path / "log").write_text(shell(f"{run} > both 2>&1; cat both").succeeded().out)
    for out in (piped, (tmp_path / "log").read_text()):
        assert out.count(text) == 1 + (text in out.partition("repeat:")[2])
        steps = [line for line in out.splitlines() if re.match(r" *#?\d+ +\S", line)]
        assert len(steps) >= 5
        assert out.index(text) > max(out.index(line) for line in steps[:5])


def test_two_places_are_two_streams(shell, tiny_folder):
    run = f"decodecli generate Hi -m {tiny_folder} -n 5 --seed 7"
    alone = shell(f"{run} 2>/dev/null").succeeded()
    both = shell(f"{run} --tables full").succeeded()
    assert both.out == alone.out
    assert len(both.err.splitlines()) > 20


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_that_are_asked_for_are_shown_under_quiet(cli, tiny_folder, terminal):
    run = ("generate", "Hi", "-m", tiny_folder, *SHORT, "--quiet")
    bare = cli(*run, terminal=terminal).succeeded()
    assert bare.err == ""
    assert bare.out.count("\n") == 1 + bare.out.rstrip("\n").count("\n")
    tabled = cli(*run, "--tables", "full", terminal=terminal).succeeded()
    shown = tabled.out if terminal else tabled.err
    assert "rank" in shown
    assert len(shown.splitlines()) > 20
    assert "Note:" not in tabled.err
    none = cli(*run, "--tables", "none", terminal=terminal).succeeded()
    assert (none.out, none.err) == (bare.out, bare.err)


def test_of_quiet_and_tables_the_one_said_nearer_to_the_command_counts(cli, tiny_folder):
    run = ("generate", "Hi", "-m", tiny_folder, *SHORT)
    assert cli(*run, "--quiet", env={"DECODECLI_TABLES": "full"}).succeeded().err == ""
    assert "rank" in cli(*run, "--tables", "full", env={"DECODECLI_QUIET": "1"}).succeeded().err


def test_quiet_keeps_the_result_and_drops_the_notices(cli, tiny_folder):
    for words in (
        ("inspect-logits", "-m", tiny_folder),
        ("tokenize", "-m", tiny_folder),
        ("softmax", "a=1", "b=2"),
    ):
        told, quiet = cli(*words).succeeded(), cli(*words, "--quiet").succeeded()
        assert quiet.out == told.out != ""
        assert quiet.err == ""
