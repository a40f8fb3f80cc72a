"""Where the prompt comes from, and what is done to it: nothing but one trailing newline."""

from __future__ import annotations

import pytest

BUILTIN = "Once upon a time,"


@pytest.fixture
def ask(cli, tiny_folder):
    """The run's records for a prompt given some way, on a model with BOS."""

    def run(*arguments, model=tiny_folder, **streams):
        fixed = ("-m", model, "-n", "1", "--seed", "0", "--format", "jsonl")
        return cli("generate", *fixed, *arguments, **streams).succeeded()

    return run


class Untouchable:
    """A stdin that fails whatever is done with it but asking whether it is a terminal."""

    def __getattr__(self, name):
        raise AssertionError(f"stdin.{name} was used")

    def isatty(self):
        return False


def test_the_argument_is_the_prompt_and_stdin_is_not_touched(ask):
    assert ask("Hello there", stdin=Untouchable()).header["prompt"] == "Hello there"


def test_with_a_file_stdin_is_not_touched(ask, tmp_path):
    (tmp_path / "p.txt").write_text("from the file")
    result = ask("--file", tmp_path / "p.txt", stdin=Untouchable())
    assert result.header["prompt"] == "from the file"


def test_standard_input_is_the_prompt_when_it_is_no_terminal(ask):
    assert ask(stdin=b"from a pipe").header["prompt"] == "from a pipe"


def test_a_dash_asks_for_standard_input(ask):
    assert ask("-", stdin=b"from a pipe\n").header["prompt"] == "from a pipe"


def test_a_dash_reads_a_terminal_too(ask, as_stream):
    import io

    typed = as_stream(io.BytesIO(b"typed by hand\n"), terminal=True)
    assert ask("-", stdin=typed).header["prompt"] == "typed by hand"


@pytest.mark.parametrize("way", ["stdin", "file"])
@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("one\n", "one"),
        ("one", "one"),
        ("one\n\n", "one\n"),
        ("one\r\n", "one"),
        ("one\r\n\r\n", "one\n"),
        ("one\ntwo\n", "one\ntwo"),
        ("  one \n", "  one "),
        ("one\r", "one\r"),
        ("日本の首都は\n", "日本の首都は"),
    ],
)
def test_one_trailing_newline_is_taken_off_stdin_and_files(ask, tmp_path, way, given, taken):
    if way == "stdin":
        result = ask(stdin=given.encode())
    else:
        (tmp_path / "p.txt").write_bytes(given.encode())
        result = ask("-f", tmp_path / "p.txt")
    assert result.header["prompt"] == taken


@pytest.mark.parametrize("text", ["one\n", "one\r\n", "one\n\n", "\n"])
def test_nothing_is_taken_off_an_argument(ask, text):
    assert ask(text).header["prompt"] == text


@pytest.mark.parametrize("stdin", [b"", None], ids=["empty", "closed"])
def test_with_nothing_the_builtin_prompt_is_used_and_named_on_stderr(ask, stdin):
    result = ask(stdin=stdin)
    assert result.header["prompt"] == BUILTIN
    assert BUILTIN in result.err


def test_at_a_terminal_without_a_prompt_nothing_is_read(ask):
    result = ask()  # stdin fails when it is read
    assert result.header["prompt"] == BUILTIN
    assert BUILTIN in result.err


def test_a_given_prompt_is_not_announced(ask):
    assert "prompt" not in ask("Hello").err


def test_an_explicitly_empty_prompt_is_the_bos_token(ask):
    result = ask("")
    assert result.header["prompt"] == ""
    assert result.header["prompt_ids"] == [1]
    assert BUILTIN not in result.err


def test_a_file_with_a_bare_newline_is_an_empty_prompt(ask, tmp_path):
    (tmp_path / "p.txt").write_text("\n")
    assert ask("-f", tmp_path / "p.txt").header["prompt_ids"] == [1]


def test_an_empty_file_is_an_explicitly_empty_prompt(ask, tmp_path):
    (tmp_path / "p.txt").write_text("")
    assert ask("-f", tmp_path / "p.txt").header["prompt"] == ""


def test_an_empty_prompt_is_refused_by_a_model_without_bos(cli, scripted):
    result = cli("generate", "", "-m", scripted(bos=False))
    result.refused(1, "prompt is empty", "BOS", "give a prompt")


def test_an_empty_prompt_is_refused_with_no_bos(cli, tiny_folder):
    result = cli("generate", "", "-m", tiny_folder, "--no-bos")
    result.refused(1, "prompt is empty", "--no-bos")


def test_the_tokenizer_decides_about_bos(ask, scripted):
    assert ask("Hi").header["prompt_ids"][0] == 1
    assert 1 not in ask("Hi").header["prompt_ids"][1:]
    without = scripted(bos=False)
    assert len(ask("Hi", model=without).header["prompt_ids"]) == 2


def test_no_bos_leaves_it_out(ask):
    with_bos, without = ask("Hi").header, ask("Hi", "--no-bos").header
    assert [1, *without["prompt_ids"]] == with_bos["prompt_ids"]
    assert without["params"]["bos"] is False
    assert without["sources"]["bos"] == "flag"
    assert with_bos["sources"]["bos"] == "default"


def test_bos_is_not_doubled_where_the_tokenizer_adds_it(ask):
    assert ask("Hi", "--bos").header["prompt_ids"] == ask("Hi").header["prompt_ids"]


@pytest.mark.parametrize("flags", [(), ("--bos",), ("--no-bos",)])
def test_a_bos_typed_by_hand_is_parsed_and_not_added_again(ask, flags):
    ids = ask("<s>Hi", *flags).header["prompt_ids"]
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert len(ids) > 1


def test_two_bos_typed_by_hand_both_stay(ask):
    ids = ask("<s><s>Hi").header["prompt_ids"]
    assert ids[:2] == [1, 1]
    assert ids.count(1) == 2, "what was typed is the user's; only the added one is spared"


def test_bos_on_a_model_without_one_does_not_crash(cli, scripted):
    result = cli("generate", "Hi", "-m", scripted(bos=False), "--bos", "-n", "1")
    assert result.code in (0, 1)
    assert "unexpected" not in result.err


def test_special_token_text_in_a_prompt_is_parsed_as_such(ask, scripted):
    ids = ask("a<|turn|>b", model=scripted()).header["prompt_ids"]
    assert len(ids) == 3


def test_a_prompt_with_every_awkward_character_reaches_the_record(ask):
    text = 'é e\u0301 👩‍👩‍👧 日本 \u202e \u2028 \x00 \x1b[0m "quoted" \\ tab\tend'
    assert ask(stdin=text.encode()).header["prompt"] == text


def test_a_prompt_that_looks_like_an_option_goes_behind_two_dashes(cli, tiny_folder):
    result = cli("generate", "-m", tiny_folder, "-n", "1", "--format", "jsonl", "--", "--help")
    assert result.succeeded().header["prompt"] == "--help"


# What is refused


def test_standard_input_that_is_not_utf8_is_refused(cli, tiny_folder):
    result = cli("generate", "-m", tiny_folder, stdin=b"caf\xe9")
    result.refused(1, "standard input", "UTF-8", "iconv")


def test_a_file_that_is_not_utf8_is_refused(cli, tiny_folder, tmp_path):
    (tmp_path / "p.txt").write_bytes("naïve".encode("utf-16"))
    result = cli("generate", "-m", tiny_folder, "--file", tmp_path / "p.txt")
    result.refused(1, "p.txt", "UTF-8")


def test_an_argument_that_is_not_utf8_is_refused(cli, tiny_folder):
    result = cli("generate", "caf\udce9", "-m", tiny_folder)
    result.refused(1, "prompt", "UTF-8")


def test_a_missing_file_is_wrong_usage(cli, tmp_path):
    result = cli("generate", "--file", tmp_path / "nowhere.txt")
    result.refused(2, "--file", "nowhere.txt", "no such file")


def test_a_folder_is_no_prompt_file(cli, tmp_path):
    cli("generate", "--file", tmp_path).refused(2, "--file", str(tmp_path))


def test_an_argument_and_a_file_contradict_each_other(cli, tmp_path):
    (tmp_path / "p.txt").write_text("x")
    cli("generate", "Hello", "--file", tmp_path / "p.txt").refused(2, "prompt", "--file")


def test_two_prompts_are_wrong_usage(cli):
    result = cli("generate", "Hello", "there")
    assert result.code == 2
    assert result.raw == b""
    assert "there" in result.err


def test_a_prompt_longer_than_the_context_is_refused(cli, scripted):
    folder = scripted(positions=16)
    cli("generate", "x" * 40, "-m", folder).refused(1, "prompt", "40", "16", "shorten")


def test_a_prompt_that_fills_the_context_is_refused(cli, scripted):
    cli("generate", "x" * 16, "-m", scripted(positions=16)).refused(1, "16")


def test_one_token_less_than_the_context_leaves_room_for_one(cli, scripted):
    folder = scripted(" a", " b", positions=16)
    result = cli("generate", "x" * 15, "-m", folder, "--format", "jsonl").succeeded()
    assert result.summary["new_tokens"] >= 1
    assert result.summary["finish_reason"] == "length"


def test_where_the_context_ends_the_run_ends_with_a_notice(cli, scripted):
    folder = scripted(" a", " b", " c", positions=16)
    result = cli("generate", "x" * 10, "-m", folder, "-n", "99", "--format", "jsonl").succeeded()
    assert result.summary["finish_reason"] == "length"
    assert 16 <= result.summary["prompt_tokens"] + result.summary["new_tokens"] <= 17
    assert "context" in result.err


def test_a_run_that_ends_before_the_context_does_has_no_notice(cli, scripted):
    folder = scripted(" a", " b", " c", positions=16)
    result = cli("generate", "x" * 10, "-m", folder, "-n", "3").succeeded()
    assert "context" not in result.err


def test_a_tokenizer_of_another_model_is_refused(cli, scripted, edit_json):
    from safetensors.torch import load_file, save_file

    folder = scripted()
    weights = load_file(folder / "model.safetensors")
    for name in ("transformer.wte.weight", "lm_head.weight"):
        weights[name] = weights[name][:40].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", vocab_size=40)
    result = cli("generate", "zzz", "-m", folder)
    result.refused(1, "vocabulary", "tokenizer")
