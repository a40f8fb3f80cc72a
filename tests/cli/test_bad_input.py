"""Every kind of bad value: its exit code, a line or two that say what to do, nothing on stdout."""

from __future__ import annotations

import re

import pytest

# option, value, words of the message
OUT_OF_RANGE = [
    ("--temperature", "-1", "at least 0"),
    ("--temperature", "nan", "finite"),
    ("--temperature", "inf", "finite"),
    ("--temperature", "-inf", "finite"),
    ("--temperature", "1e400", "finite"),
    ("--top-p", "0", "(0, 1]"),
    ("--top-p", "1.5", "(0, 1]"),
    ("--top-p", "-0.1", "(0, 1]"),
    ("--top-p", "nan", "(0, 1]"),
    ("--top-k", "-3", "at least 0"),
    ("--min-p", "2", "[0, 1]"),
    ("--min-p", "-0.5", "[0, 1]"),
    ("--typical-p", "0", "(0, 1]"),
    ("--typical-p", "1.01", "(0, 1]"),
    ("--epsilon-cutoff", "1", "[0, 1)"),
    ("--epsilon-cutoff", "-0.1", "[0, 1)"),
    ("--eta-cutoff", "-1", "[0, 1)"),
    ("--eta-cutoff", "1", "[0, 1)"),
    ("--top-nsigma", "-1", "at least 0"),
    ("--top-nsigma", "nan", "finite"),
    ("--repetition-penalty", "0", "above 0"),
    ("--repetition-penalty", "-1", "above 0"),
    ("--repetition-penalty", "inf", "finite"),
    ("--no-repeat-ngram-size", "-1", "at least 0"),
    ("--top-h", "1.5", "[0, 1]"),
    ("--top-a", "-1", "[0, 1]"),
    ("--tfs-z", "0", "(0, 1]"),
    ("--xtc-probability", "2", "[0, 1]"),
    ("--xtc-threshold", "0", "(0, 1]"),
    ("--mirostat", "1", "0 or 2"),
    ("--mirostat-tau", "0", "above 0"),
    ("--mirostat-eta", "-1", "at least 0"),
    ("--dynatemp-range", "-1", "at least 0"),
    ("--dynatemp-exponent", "0", "above 0"),
    ("--presence-penalty", "inf", "a finite number"),
    ("--frequency-penalty", "nan", "a finite number"),
    ("--penalty-last-n", "-2", "at least -1"),
    ("--dry-multiplier", "-1", "at least 0"),
    ("--dry-base", "0.5", "at least 1"),
    ("--dry-allowed-length", "0", "at least 1"),
    ("--dry-penalty-last-n", "-2", "at least -1"),
    ("--dry-sequence-breakers", "", "empty"),
    ("--min-new-tokens", "-1", "at least 0"),
    ("--logit-bias", "", "empty"),
    ("--logit-bias", "x", "TOKEN=NUMBER"),
    ("--logit-bias", "=2", "TOKEN=NUMBER"),
    ("--logit-bias", "x=inf", "TOKEN=NUMBER"),
    ("--logit-bias", "123456789=1", "not in the vocabulary"),
    ("--bad-words", "", "empty"),
    ("--order", "top_p,top_p", "twice"),
    ("--order", "ollama", "no stage or engine"),
    ("--max-new-tokens", "0", "at least 1"),
    ("--max-new-tokens", "-5", "at least 1"),
    ("--seed", "-1", "4294967295"),
    ("--seed", "4294967296", "4294967295"),
    ("--num-samples", "0", "at least 1"),
    ("--num-samples", "-2", "at least 1"),
    ("--candidates", "0", "at least 1"),
    ("--tables", "maybe", "full, line, none"),
    ("--format", "xml", "text, jsonl"),
    ("--format", "csv", "text, jsonl"),
    ("--stop", "", "empty"),
    ("--device", "tpu", "auto, cuda, cuda:N, mps or cpu"),
    ("--device", "cuda:x", "cuda:N"),
    ("--device", "cuda:-1", "cuda:N"),
    ("--device", "cpu:", "auto, cuda, cuda:N, mps or cpu"),
    ("--device", "auto:", "auto, cuda, cuda:N, mps or cpu"),
    ("--dtype", "int4", "float32"),
    ("--quantize", "q4_k_m", "nf4"),
    ("--model", "", "folder"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value", "words"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_wrong_usage_and_told_with_the_range(cli, option, value, words):
    cli("generate", "Hello", option, value).refused(2, option, words)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "abc"),
        ("--temperature", "1,4"),
        ("--temperature", ""),
        ("--top-k", "2.5"),
        ("--top-p", "90%"),
        ("--max-new-tokens", "forty"),
        ("--seed", "0x10"),
        ("--num-samples", "1e3"),
    ],
)
def test_a_value_that_is_no_number_is_wrong_usage(cli, option, value):
    cli("generate", "Hello", option, value).refused(2, option, "must be", repr(value))


def test_the_short_options_are_told_by_their_long_names(cli):
    cli("generate", "Hello", "-t", "-1").refused(2, "--temperature")
    cli("generate", "Hello", "-n", "-5").refused(2, "--max-new-tokens")


def test_seeds_of_all_samples_must_fit(cli):
    result = cli("generate", "Hi", "--seed", "4294967295", "--num-samples", "2")
    result.refused(2, "--seed", "--num-samples")


def test_more_samples_than_there_are_seeds_are_refused(cli):
    result = cli("generate", "Hi", "--num-samples", str(2**33), "-n", "1")
    result.refused(2, "--num-samples")


def test_greedy_and_a_temperature_contradict_each_other(cli):
    result = cli("generate", "Hi", "--greedy", "--temperature", "0.7")
    result.refused(2, "--greedy", "--temperature", "0.7", "one of them")


def test_an_unknown_preset_names_the_nearest_and_all_there_are(cli):
    result = cli("generate", "Hi", "--preset", "creativ")
    result.refused(2, "preset", "creativ", "did you mean creative")
    for name in ("greedy", "precise", "balanced", "creative", "chaotic"):
        assert name in result.err


def test_an_unknown_preset_far_from_all_still_lists_them(cli):
    cli("generate", "Hi", "--preset", "zzzz").refused(2, "zzzz", "balanced")


def test_a_preset_is_a_name_not_a_path(cli, toml):
    path = toml("top_k = 3")
    cli("generate", "Hi", "--preset", str(path)).refused(2, "preset")
    cli("generate", "Hi", "--preset", "../presets/greedy").refused(2, "preset")


def test_presets_of_an_unknown_name_are_refused(cli):
    cli("presets", "creativ").refused(2, "creativ", "creative")


@pytest.mark.parametrize("command", [("presets",), ("info",)])
def test_the_other_commands_refuse_an_unknown_format(cli, command):
    cli(*command, "--format", "xml").refused(2, "--format", "json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("temprature = 1.0", ("temprature", "did you mean temperature")),
        ("top-p = 0.9", ("top-p", "did you mean top_p")),
        ("topp = 0.9", ("topp", "top_p")),
        ("zzzzzz = 1", ("zzzzzz", "key")),
        ("[sampling]\ntemperature = 1.0", ("sampling", "key")),
        ("prompt = 'Hello'", ("prompt", "key")),
        ("temperature = \n", ("TOML", "line 1")),
        ("temperature: 1.0", ("TOML",)),
        ("top_k = 1\ntop_k = 2", ("TOML",)),
        ("temperature = 'hot'", ("temperature", "number", "hot")),
        ("temperature = true", ("temperature", "number")),
        ("top_k = 1.5", ("top_k", "integer", "1.5")),
        ("top_k = false", ("top_k", "integer")),
        ("greedy = 1", ("greedy", "true or false")),
        ("greedy = 'yes'", ("greedy", "true or false")),
        ("stop = [1, 2]", ("stop", "string")),
        ("stop = ['']", ("stop", "empty")),
        ("model = 3", ("model", "string")),
        ("tables = 'maybe'", ("tables", "full, line, none")),
        ("temperature = nan", ("temperature", "finite")),
        ("temperature = -1", ("temperature", "at least 0")),
        ("top_p = 0.0", ("top-p", "(0, 1]")),
        ("seed = 4294967296", ("seed", "4294967295")),
        ("candidates = 0", ("candidates", "at least 1")),
        ("greedy = true\ntemperature = 0.7", ("greedy", "temperature", "0.7")),
        ("preset = 'creativ'", ("preset", "creativ", "creative")),
    ],
)
def test_a_bad_configuration_file_is_wrong_usage_and_named(cli, toml, text, words):
    result = cli("generate", "Hi", "--config", toml(text))
    result.refused(2, *words)


@pytest.mark.parametrize(
    "text", ["temprature = 1", "temperature = 'hot'", "temperature =", "top_p = 1.5"]
)
def test_what_is_wrong_in_the_users_own_file_says_so(cli, user_file, text):
    user_file(text)
    result = cli("generate", "Hi").refused(2)
    assert re.search(r"config\.toml|user", result.err)


def test_a_bad_value_of_a_file_is_not_blamed_on_a_flag_alone(cli, toml):
    result = cli("generate", "Hi", "--config", toml("top_p = 1.5")).refused(2)
    assert "config" in result.err


def test_a_missing_configuration_file_is_wrong_usage(cli, tmp_path):
    result = cli("generate", "Hi", "--config", tmp_path / "nowhere.toml")
    result.refused(2, "--config", "nowhere.toml", "no such file")


def test_a_folder_is_no_configuration_file(cli, tmp_path):
    cli("generate", "Hi", "--config", tmp_path).refused(2, "--config")


def test_a_configuration_file_that_is_not_utf8_is_refused(cli, tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes(b"stop = 'caf\xe9'")
    cli("generate", "Hi", "--config", path).refused(2, "latin.toml")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DECODECLI_TOP_K", "abc", "integer"),
        ("DECODECLI_TEMPERATURE", "hot", "number"),
        ("DECODECLI_TEMPERATURE", "nan", "finite"),
        ("DECODECLI_TOP_P", "1.5", "(0, 1]"),
        ("DECODECLI_GREEDY", "maybe", "1 or 0"),
        ("DECODECLI_TABLES", "maybe", "full, line, none"),
        ("DECODECLI_DEVICE", "tpu", "cpu"),
        ("DECODECLI_SEED", "-1", "4294967295"),
        ("DECODECLI_PRESET", "creativ", "creative"),
        ("DECODECLI_NUM_SAMPLES", "0", "at least 1"),
        ("DECODECLI_FORMAT", "xml", "text, jsonl"),
    ],
)
def test_a_bad_value_of_the_environment_is_wrong_usage(cli, variable, value, words):
    result = cli("generate", "Hi", env={variable: value})
    option = variable.removeprefix("DECODECLI_").lower().replace("_", "-")
    result.refused(2, words)
    assert variable in result.err or option in result.err


@pytest.mark.parametrize("variable", ["DECODECLI_TOP_P", "DECODECLI_NUM_SAMPLES", "DECODECLI_SEED"])
def test_a_bad_value_of_the_environment_names_its_variable(cli, variable):
    assert variable in cli("generate", "Hi", env={variable: "-7"}).refused(2).err


def test_debug_shows_a_traceback_and_keeps_the_exit_code(shell):
    plain = shell("decodecli generate Hi -t -1")
    assert "Traceback" not in plain.err
    for line, more in (("--debug", {}), ("", {"DECODECLI_DEBUG": "1"})):
        result = shell(f"decodecli generate Hi -t -1 {line}", **more)
        assert "Traceback" in result.err
        assert "--temperature" in result.err
        assert result.code == plain.code == 2


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "long" * 80], ids=["home", "long"])
@pytest.mark.parametrize("option", ["--model", "--file", "--config", "--trace"])
def test_an_odd_path_is_refused_like_any_that_is_not_there(cli, option, path):
    prompt = () if option == "--file" else ("Hi",)
    result = cli("generate", *prompt, option, path)
    assert result.code in (1, 2)
    assert result.raw == b""
    assert result.err.startswith("Error: ")
    assert "unexpected" not in result.err
    assert path in result.err
    assert len(result.err.splitlines()) == 2
