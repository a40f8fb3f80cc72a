"""stdout carries what was asked for and nothing else; everything else goes to stderr."""

from __future__ import annotations

import errno
import os
import sys
from types import SimpleNamespace

import pytest

from decodecli.cli import streams
from decodecli.cli.loading_line import LoadingLine

SEEDED = ("--seed", "7", "-n", "6")


def test_off_a_terminal_stdout_is_the_text_and_one_newline(cli, scripted, in_order):
    folder = scripted(" Tokyo", " and", " rain")
    result = cli("generate", "Hi", "-m", folder, *in_order, "-n", "3").succeeded()
    assert result.raw == b" Tokyo and rain\n"


def test_a_text_that_ends_in_a_newline_keeps_it_and_gets_one_more(cli, scripted, in_order):
    folder = scripted(" Tokyo", "\n")
    assert cli("generate", "Hi", "-m", folder, *in_order, "-n", "2").raw == b" Tokyo\n\n"


def test_an_empty_text_is_one_newline(cli, scripted):
    folder = scripted("<|end|>", " Tokyo")
    assert cli("generate", "Hi", "-m", folder, "--greedy").succeeded().raw == b"\n"


def test_the_text_is_utf8_whatever_the_locale(cli, scripted, in_order):
    folder = scripted(" 東京", "é")
    result = cli("generate", "Hi", "-m", folder, *in_order, "-n", "2", encoding="ascii")
    assert result.succeeded().raw == " 東京é\n".encode()


def test_off_a_terminal_the_text_is_exact_even_where_it_would_steer_a_terminal(
    cli, scripted, in_order
):
    folder = scripted("\x1b]0;x\x07", "\r", "[bold]", "\u202e")
    result = cli("generate", "Hi", "-m", folder, *in_order, "-n", "4")
    assert result.succeeded().out == "\x1b]0;x\x07\r[bold]\u202e\n"
    assert "\x1b" not in result.err


def test_the_header_goes_to_stderr_off_a_terminal(cli, tiny_folder):
    result = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--top-p", "0.9").succeeded()
    assert "float32" in result.err
    assert "seed 7" in result.err
    assert "0.9" in result.err
    assert len(result.err.splitlines()) <= 3, f"library noise? {result.err}"


def test_nothing_is_coloured_off_a_terminal(cli, tiny_folder):
    result = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--tables", "full").succeeded()
    assert "\x1b" not in result.err


@pytest.mark.parametrize("tables", ["full", "line"])
def test_tables_asked_for_off_a_terminal_go_to_stderr(cli, tiny_folder, tables):
    plain = cli("generate", "Hi", "-m", tiny_folder, *SEEDED).succeeded()
    tabled = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--tables", tables).succeeded()
    assert tabled.raw == plain.raw
    more = len(tabled.err.splitlines()) - len(plain.err.splitlines())
    assert more >= (6 * 8 if tables == "full" else 6)


def test_tables_none_shows_none(cli, tiny_folder):
    plain = cli("generate", "Hi", "-m", tiny_folder, *SEEDED).succeeded()
    none = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--tables", "none").succeeded()
    assert (none.raw, none.err) == (plain.raw, plain.err)


def test_candidates_is_the_number_of_rows(cli, tiny_folder):
    def rows(number: str) -> int:
        tables = ("--tables", "full", "--candidates", number)
        return len(cli("generate", "Hi", "-m", tiny_folder, *SEEDED, *tables).err.splitlines())

    assert rows("9") - rows("5") in range(4 * 4, 4 * 6 + 1)  # less where the drawn token is a row


def test_quiet_leaves_stderr_empty(cli, scripted):
    folder = scripted(template="{{ messages }}", generation={"temperature": 0.6, "do_sample": True})
    loud = cli("generate", "Hi", "-m", folder, *SEEDED, env={"DECODECLI_NONSENSE": "1"})
    assert len(loud.succeeded().err.splitlines()) >= 4
    result = cli(
        "generate", "Hi", "-m", folder, *SEEDED, "--quiet", env={"DECODECLI_NONSENSE": "1"}
    )
    assert result.succeeded().err == ""
    assert result.raw == loud.raw


def test_quiet_does_not_hush_errors(cli):
    cli("generate", "Hi", "--quiet", "-t", "-1").refused(2, "--temperature")


def test_quiet_on_a_terminal_is_the_text_alone_and_harmless(cli, scripted, in_order):
    folder = scripted(" Tokyo", "\x1b]0;x\x07", " rain")
    arguments = ("generate", "Hi", "-m", folder, *in_order, "-n", "3", "--quiet")
    result = cli(*arguments, terminal=True).succeeded()
    assert "\x1b" not in result.out
    assert "\x07" not in result.out
    assert result.out.startswith(" Tokyo")
    assert result.out.endswith(" rain\n")
    assert result.err == ""


def test_on_a_terminal_the_prompt_the_tables_and_the_summary_are_on_stdout(
    cli, scripted, in_order, without_styles
):
    folder = scripted(" Tokyo", " and", " rain")
    arguments = ("generate", "Where?", "-m", folder, *in_order, "-n", "3", "--seed", "5")
    result = cli(*arguments, terminal=True, env={"TERM": "xterm-256color"}).succeeded()
    screen = without_styles(result.out)
    assert result.err == ""
    assert "Where?" in screen
    assert "Where? Tokyo and rain" in screen
    assert "repeat:" in screen
    assert "perplexity" in screen
    for word in ("Tokyo", "and", "rain"):
        assert any(word in line and "%" in line for line in screen.splitlines())


def test_tables_none_on_a_terminal_shows_the_text_without_tables(
    cli, scripted, in_order, without_styles
):
    folder = scripted(" Tokyo", " and", " rain")
    arguments = ("generate", "Where?", "-m", folder, *in_order, "-n", "3", "--tables", "none")
    result = cli(*arguments, terminal=True, env={"TERM": "xterm-256color"}).succeeded()
    screen = without_styles(result.out)
    assert "Where? Tokyo and rain\n" in screen
    assert len(screen.splitlines()) <= 14


@pytest.mark.parametrize("tables", ["full", "line", "none"])
@pytest.mark.parametrize("terminal", [True, False])
def test_tokens_that_would_steer_the_terminal_are_harmless_in_every_view(
    cli, scripted, in_order, without_styles, tables, terminal
):
    says = (
        "[/INST]",
        "[bold]",
        "\x1b]0;x\x07",
        "\x1b[2J",
        "\x9b31m",
        "\r",
        "\u202e",
        "\x00",
        "end",
    )
    folder = scripted(*says)
    arguments = (
        "generate",
        "a\x1b[31mb\rc",
        "-m",
        folder,
        *in_order,
        "-n",
        "9",
        "--tables",
        tables,
    )
    result = cli(*arguments, terminal=terminal, env={"TERM": "xterm-256color"}).succeeded()
    screen = result.out if terminal else result.err
    # The view's own movements are known; of the tokens nothing may come through.
    for raw in ("\x1b]", "\x07", "\x1b[2J", "\x9b", "\u202e", "\x00", "\x1b[31mb"):
        assert raw not in screen
    plain = without_styles(screen).replace("\r\n", "\n")
    assert "\x1b" not in plain
    if not terminal:
        assert "\r" not in plain
    if tables != "none" or terminal:
        for shown in ("[/INST]", "[bold]", "end"):
            assert shown in plain


def test_a_model_folder_with_a_dangerous_name_is_harmless(cli, scripted):
    folder = scripted(" Tokyo", name="we[bold]ird\x1b[31m")
    result = cli("generate", "Hi", "-m", folder, "-n", "1", "--tables", "full").succeeded()
    assert "\x1b" not in result.err
    assert "we[bold]ird" in result.err


def test_text_arrives_step_by_step(cli, scripted, in_order, misbehaving):
    folder = scripted(" Tokyo", " and", " rain")
    stdout = misbehaving()
    cli("generate", "Hi", "-m", folder, *in_order, "-n", "3", stdout=stdout).succeeded()
    assert stdout.writes >= 3


def test_samples_follow_one_another_each_with_its_newline(cli, tiny_folder):
    together = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--num-samples", "3").succeeded()
    single = [
        cli("generate", "Hi", "-m", tiny_folder, "-n", "6", "--seed", str(seed)).raw
        for seed in (7, 8, 9)
    ]
    assert together.raw == b"".join(single)
    assert len(set(single)) == 3


def _closed() -> None:
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_a_reader_that_goes_away_ends_the_run_quietly(
    cli, scripted, in_order, misbehaving, read_trace, tmp_path, form
):
    folder, trace = scripted(), tmp_path / "trace.jsonl"
    arguments = ("generate", "Hi", "-m", folder, *in_order, "-n", "9", "--quiet")
    stdout = misbehaving(_closed, after=2)
    result = cli(*arguments, "--format", form, "--trace", trace, stdout=stdout)
    assert result.code == 0
    assert result.err == ""
    records = read_trace(trace)
    assert records[-1]["type"] == "summary"
    assert records[-1]["new_tokens"] == len(records) - 2 < 9


def test_a_full_disk_under_stdout_is_a_clear_error(cli, scripted, in_order, misbehaving):
    stdout = misbehaving(_full, after=1)
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "9", "--quiet")
    result = cli(*arguments, stdout=stdout)
    assert result.code == 1
    lines = result.err.splitlines()
    assert len(lines) <= 2
    assert lines[0].startswith("Error: ")
    assert "No space left" in result.err
    assert "standard output" in result.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_a_full_disk_under_the_trace_does_not_stop_the_text(cli, scripted, in_order, form):
    arguments = ("generate", "Hi", "-m", scripted(), *in_order, "-n", "5", "--format", form)
    whole = cli(*arguments)
    result = cli(*arguments, "--trace", "/dev/full")
    assert result.code == 1
    if form == "text":
        assert result.raw == whole.raw
    else:
        assert result.summary["text"] == whole.summary["text"]
        assert len(result.steps) == 5
    errors = [line for line in result.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "/dev/full" in errors[0]
    assert "No space left" in errors[0]
    assert "Traceback" not in result.err


def test_verbose_and_plain_runs_say_the_same_text(cli, tiny_folder):
    plain = cli("generate", "Hi", "-m", tiny_folder, *SEEDED).succeeded()
    assert cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--verbose").raw == plain.raw


def test_the_prompt_is_run_once_for_all_samples_and_a_token_a_pass_after(
    cli, scripted, monkeypatch
):
    from decodecli.models.forward import DecoderForward

    lengths, forward = [], DecoderForward.__call__

    def counted(self, tokens, *more):
        lengths.append(tokens.shape[1])
        return forward(self, tokens, *more)

    monkeypatch.setattr(DecoderForward, "__call__", counted)
    folder = scripted(" Tokyo", " and", " rain")
    cli(
        "generate", "Hello", "-m", folder, "-n", "4", "--num-samples", "3", "--seed", "0"
    ).succeeded()
    assert lengths == [5] + [1] * (3 * (4 - 1))


def test_jsonl_on_a_terminal_cannot_steer_it(cli, scripted, in_order):
    says = ("\x9b31m", "\u202e", "\x7f", "\x1b[2J")
    arguments = (
        "generate",
        "a\x9bb",
        "-m",
        scripted(*says),
        *in_order,
        "-n",
        "4",
        "--format",
        "jsonl",
    )
    result = cli(*arguments, "--quiet", terminal=True).succeeded()
    assert result.summary["text"] == "".join(says)
    assert result.header["prompt"] == "a\x9bb"
    for raw in ("\x9b", "\u202e", "\x7f", "\x1b"):
        assert raw not in result.out, "JSON can write it as an escape"


def test_with_stderr_closed_stdout_is_still_the_text_alone(shell, scripted):
    folder = scripted(" Tokyo", " and", " rain")
    order = "--greedy --no-repeat-ngram-size 1"
    result = shell(f"decodecli generate Hi -m '{folder}' {order} -n 3 --tables full 2>&-")
    assert result.raw == b" Tokyo and rain\n"
    assert result.code == 0


@pytest.mark.parametrize("trouble", [_full, _closed])
def test_a_stderr_that_fails_does_not_cost_the_text(cli, scripted, in_order, misbehaving, trouble):
    folder = scripted(" Tokyo", " and", " rain")
    arguments = ("generate", "Hi", "-m", folder, *in_order, "-n", "3", "--tables", "full")
    result = cli(*arguments, stderr=misbehaving(trouble, after=2))
    assert result.raw == b" Tokyo and rain\n"


def test_verbose_says_how_the_steps_were_run(cli, tiny_folder):
    run = cli("generate", "Hi", "-m", tiny_folder, *SEEDED, "--verbose").succeeded()
    assert "Note: the steps were run directly, on the model's weights" in run.err
    assert "steps were run" not in cli("generate", "Hi", "-m", tiny_folder, *SEEDED).err


# ── Long lines on a terminal ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Note: short", "Note: short"),
        ("Note: one two three four", "Note: one two\n       three four"),
        ("Note: 日本語 日本語", "Note: 日本語\n       日本語"),
        ("Error: no\n       one two three", "Error: no\n       one two\n       three"),
        ("Note: a-word-of-many-letters so", "Note:\n       a-word-of-many-letters\n       so"),
        (
            "Note: kept; to go on: decodecli sweep --out runs",
            "Note: kept; to go\n       on:\n       decodecli sweep --out runs",
        ),
        ("Error: no\n       pip install 'decode[ray]'", "Error: no\n       pip install 'decode[ray]'"),
        ("Note: try: decodecli -", "Note: try:\n       decodecli -"),
        ("", ""),
    ],
)  # fmt: skip
def test_lines_are_broken_between_words_and_never_within_a_command(text, found):
    assert streams._wrapped(text, 17) == found
    assert streams._wrapped(text, None) == text
    assert streams._wrapped(text, 200) == text


# ── While a model loads ────────────────────────────────────────────────────────────────────────


def test_the_loading_line_names_the_library_that_comes_first(monkeypatch):
    line = LoadingLine("loading ./model", libraries=True)
    bare = LoadingLine("loading ./model", libraries=False)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "decodecli.models.loading", raising=False)
        assert str(line.__rich__()) == "loading PyTorch"
        assert str(bare.__rich__()) == "loading ./model"
        patch.setitem(sys.modules, "decodecli.models.loading", SimpleNamespace(load=None))
        patch.setitem(sys.modules, "transformers", SimpleNamespace())
        patch.setitem(sys.modules, "transformers.modeling_utils", SimpleNamespace())
        assert str(line.__rich__()) == "loading Transformers"
        line.say("downloading model")
        assert str(line.__rich__()) == "downloading model"
        line.say("loading ./mo\x1bdel")
        whole = SimpleNamespace(PreTrainedModel=None)
        patch.setitem(sys.modules, "transformers.modeling_utils", whole)
        assert "\x1b" not in str(line.__rich__())
        assert str(line.__rich__()).startswith("loading ./mo")
