"""Settings from flags, environment, files and presets, as a run records them."""

from __future__ import annotations

from pathlib import Path

import pytest

PRESETS = (
    "greedy", "precise", "balanced", "creative", "chaotic", "min-p", "mirostat", "top-nsigma"
)  # fmt: skip


@pytest.fixture
def header(cli, scripted):
    """The header of a one-token run with these arguments."""
    folder = scripted(" a", " b", " c")

    def run(*arguments, **more):
        fixed = ("generate", "Hi", "-m", folder, "--format", "jsonl", "-n", "1")
        return cli(*fixed, *arguments, **more).succeeded().header

    return run


def test_each_layer_goes_before_the_next(header, toml, user_file):
    def value(*arguments, **env):
        found = header(*arguments, env=env)
        return found["params"]["top_k"], found["sources"]["top_k"]

    assert value() == (0, "default")
    user_file("top_k = 2")
    assert value() == (2, "user")
    config = ("--config", toml("top_k = 4"))
    assert value(*config) == (4, "config")
    assert value(*config, DECODECLI_TOP_K="5") == (5, "env")
    assert value(*config, "--top-k", "6", DECODECLI_TOP_K="5") == (6, "flag")


def test_a_preset_stands_between_config_and_user_file(header, toml, user_file):
    def value(*arguments):
        found = header(*arguments)
        return found["params"]["top_p"], found["sources"]["top_p"]

    user_file("top_p = 0.5")
    assert value("--preset", "creative") == (0.9, "preset")
    assert value("--preset", "creative", "--config", toml("top_p = 0.7")) == (0.7, "config")
    assert value("--preset", "greedy") == (0.5, "user")


@pytest.mark.parametrize(
    ("option", "lower", "zero"),
    [
        ("top_k", "40", "0"),
        ("min_p", "0.1", "0"),
        ("top_nsigma", "1.5", "0"),
        ("no_repeat_ngram_size", "3", "0"),
        ("seed", "5", "0"),
    ],
)
def test_a_zero_is_a_value_at_every_layer(header, toml, user_file, option, lower, zero):
    flag = "--" + option.replace("_", "-")
    variable = f"DECODECLI_{option.upper()}"

    def value(*arguments, **env):
        found = header(*arguments, env=env)
        return found["params"][option], found["sources"][option]

    user_file(f"{option} = {lower}")
    assert value() == (float(lower), "user")
    config = ("--config", toml(f"{option} = {zero}"))
    assert value(*config) == (0, "config")
    assert value(**{variable: zero}) == (0, "env")
    assert value(flag, zero) == (0, "flag")
    user_file(f"{option} = {zero}")
    assert value() == (0, "user")


@pytest.mark.parametrize("spelling", ["temperature = 0", "temperature = 0.0", "greedy = true"])
def test_greedy_and_temperature_zero_are_one_setting_in_files(header, toml, user_file, spelling):
    user_file("temperature = 1.3")
    found = header("--config", toml(spelling))
    assert found["params"]["temperature"] == 0
    assert found["sources"]["temperature"] == "config"
    assert found["order"] == ["greedy"]
    user_file(spelling)
    found = header()
    assert (found["params"]["temperature"], found["sources"]["temperature"]) == (0, "user")
    assert found["order"] == ["greedy"]


@pytest.mark.parametrize("spelling", [("DECODECLI_GREEDY", "1"), ("DECODECLI_TEMPERATURE", "0")])
def test_greedy_and_temperature_zero_are_one_setting_in_the_environment(header, toml, spelling):
    found = header("--config", toml("temperature = 1.3"), env=dict([spelling]))
    assert (found["params"]["temperature"], found["sources"]["temperature"]) == (0, "env")
    assert found["order"] == ["greedy"]


@pytest.mark.parametrize(
    "spelling", [("--greedy",), ("-t", "0"), ("-t", "0.0"), ("--greedy", "-t", "0")]
)
def test_greedy_and_temperature_zero_are_one_setting_as_flags(header, spelling):
    found = header(*spelling, env={"DECODECLI_TEMPERATURE": "1.3"})
    assert (found["params"]["temperature"], found["sources"]["temperature"]) == (0, "flag")
    assert found["order"] == ["greedy"]


def test_the_preset_greedy_is_greedy(header):
    found = header("--preset", "greedy")
    assert (found["params"]["temperature"], found["sources"]["temperature"]) == (0, "preset")
    assert found["order"] == ["greedy"]


def test_a_temperature_goes_before_a_greedy_of_a_lower_layer(header, toml, user_file):
    user_file("greedy = true")
    for arguments, env, source in (
        (("-t", "0.7"), {}, "flag"),
        ((), {"DECODECLI_TEMPERATURE": "0.7"}, "env"),
        (("--config", toml("temperature = 0.7")), {}, "config"),
    ):
        found = header(*arguments, env=env)
        assert (found["params"]["temperature"], found["sources"]["temperature"]) == (0.7, source)
        assert "greedy" not in found["order"]


def test_a_greedy_taken_back_by_a_higher_layer_is_not_greedy(header, toml, user_file):
    user_file("greedy = true")
    assert header("--config", toml("greedy = false"))["order"] == []
    assert header(env={"DECODECLI_GREEDY": "0"})["order"] == []


def test_every_option_may_stand_in_a_file(cli, scripted, toml, tmp_path, read_trace):
    folder = scripted(" a", " b", " c")
    trace = tmp_path / "t.jsonl"
    config = toml(
        f'model = "{folder}"\ndevice = "cpu"\ndtype = "float32"\nquantize = "none"\n'
        'max_new_tokens = 3\ntemperature = 0.9\ntop_k = 5\ntop_p = 0.95\nmin_p = 0.01\n'
        'typical_p = 0.99\nepsilon_cutoff = 0.0001\neta_cutoff = 0.0001\ntop_nsigma = 9\n'
        'repetition_penalty = 1.1\nno_repeat_ngram_size = 9\nstop = ["x", "y"]\nseed = 4\n'
        f'num_samples = 2\nbos = false\ncandidates = 3\nformat = "jsonl"\ntrace = "{trace}"\n'
        'tables = "none"\nquiet = true\nverbose = false\n'
    )  # fmt: skip
    result = cli("generate", "Hi", "--config", config).succeeded()
    assert result.err == ""
    assert trace.read_bytes() == result.raw
    header = result.header
    assert header["params"]["stop"] == ["x", "y"]
    assert [r["seed"] for r in result.records if r["type"] == "run"] == [4, 5]
    assert len(result.steps[0]["candidates"]) in (3, 4)
    for name in (
        "model",
        "dtype",
        "top_k",
        "stop",
        "bos",
        "candidates",
        "format",
        "trace",
        "quiet",
    ):
        assert header["sources"][name] == "config", name


def test_every_option_may_stand_in_the_environment(cli, scripted, tmp_path):
    env = {
        "DECODECLI_MODEL": str(scripted(" a", " b", " c")), "DECODECLI_MAX_NEW_TOKENS": "3",
        "DECODECLI_TOP_P": "0.5", "DECODECLI_SEED": "9", "DECODECLI_FORMAT": "jsonl",
        "DECODECLI_STOP": "END", "DECODECLI_QUIET": "1", "DECODECLI_BOS": "false",
        "DECODECLI_CANDIDATES": "2", "DECODECLI_NUM_SAMPLES": "2", "DECODECLI_DEVICE": "cpu",
    }  # fmt: skip
    result = cli("generate", "Hi", env=env).succeeded()
    assert result.err == ""
    params = result.header["params"]
    assert (params["top_p"], params["seed"], params["stop"]) == (0.5, 9, ["END"])
    assert params["max_new_tokens"] == 3
    for name in ("model", "top_p", "stop", "quiet", "bos", "candidates"):
        assert result.header["sources"][name] == "env", name


def test_one_stop_string_may_be_written_without_a_list(header, toml):
    assert header("--config", toml('stop = "END"'))["params"]["stop"] == ["END"]


def test_a_preset_may_be_chosen_in_every_layer(header, toml, user_file):
    def source_of(found):
        return found["params"]["temperature"], found["sources"]["temperature"]

    assert source_of(header(env={"DECODECLI_PRESET": "creative"})) == (1.4, "preset")
    assert source_of(header("--config", toml('preset = "chaotic"'))) == (20, "preset")
    user_file('preset = "precise"')
    assert source_of(header()) == (0.3, "preset")
    assert source_of(header("--preset", "greedy")) == (0, "preset")


def test_a_configuration_file_may_be_named_in_the_environment(header, toml):
    found = header(env={"DECODECLI_CONFIG": str(toml("top_k = 7"))})
    assert (found["params"]["top_k"], found["sources"]["top_k"]) == (7, "config")


def test_an_unknown_variable_brings_a_notice_and_the_nearest_name(cli, scripted):
    folder = scripted(" a")
    result = cli("generate", "Hi", "-m", folder, "-n", "1", env={"DECODECLI_TEMPRATURE": "1"})
    assert "DECODECLI_TEMPRATURE" in result.succeeded().err
    assert "DECODECLI_TEMPERATURE" in result.err
    assert result.out.count("\n") == 1


def test_the_debug_variable_is_no_unknown_one(cli, scripted):
    result = cli("generate", "Hi", "-m", scripted(" a"), "-n", "1", env={"DECODECLI_DEBUG": "1"})
    assert "DECODECLI" not in result.succeeded().err


# decodecli presets


def test_presets_are_listed_and_explained(cli):
    result = cli("presets").succeeded()
    assert result.err == ""
    for name in PRESETS:
        assert name in result.out
    assert "T = 20" in result.out or "temperature=20" in result.out
    assert len(result.out.splitlines()) >= 2 * len(PRESETS)


def test_presets_as_json_give_every_value(cli, strict):
    found = strict(cli("presets", "--format", "json").succeeded().out)
    assert list(found) == list(PRESETS)
    assert all(preset["description"] for preset in found.values())
    assert found["chaotic"]["temperature"] == 20
    assert found["greedy"]["temperature"] == 0


def test_one_preset_may_be_asked_for(cli, strict):
    assert list(strict(cli("presets", "creative", "--format", "json").succeeded().out)) == [
        "creative"
    ]
    text = cli("presets", "creative").succeeded().out
    assert "creative" in text
    assert "chaotic" not in text


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_its_values_are_recorded(cli, header, strict, preset):
    values = strict(cli("presets", preset, "--format", "json").out)[preset]
    found = header("--preset", preset)
    for name, value in values.items():
        if name != "description":
            assert found["params"][name] == value
            assert found["sources"][name] == "preset"


# decodecli info


def test_info_as_json_is_strict_and_complete(cli, strict):
    result = cli("info", "--format", "json").succeeded()
    found = strict(result.out)
    assert result.err == ""
    assert {"decodecli", "python", "torch", "transformers"} <= set(found["versions"])
    devices = [device["device"] for device in found["devices"]]
    assert "cpu" in devices
    for device in found["devices"]:
        assert device["free_bytes"] is None or 0 < device["free_bytes"] <= device["total_bytes"]
    assert found["folders"]["user config"].endswith("config.toml")
    assert (Path(found["folders"]["package"]) / "cli/commands/info.py").is_file()
    assert {"device", "dtype", "quantize"} <= set(found["auto"])
    assert "auto" not in found["auto"].values()


def test_info_tells_the_same_to_people(cli):
    text = cli("info").succeeded().out
    for word in ("decodecli", "torch", "cpu", "GiB", "config.toml", "dtype", "quantize", "float32"):
        assert word in text


def test_info_says_what_auto_becomes_for_a_model(cli, strict, copied, edit_json):
    folder = copied("mine")
    found = strict(cli("info", "--model", folder, "--format", "json").succeeded().out)
    assert "mine" in found["auto"]["model"]
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    found = strict(cli("info", "-m", folder, "--format", "json").succeeded().out)
    assert found["auto"]["quantize"] == "gptq"


def test_info_of_a_model_that_is_not_there_says_so_and_fails(cli, tmp_path):
    result = cli("info", "--model", tmp_path / "nowhere")
    assert result.code == 1  # whatever else of the report is given
    assert "nowhere" in result.out + result.err
    assert "unexpected" not in result.err


def test_info_works_where_the_users_file_sets_a_model_that_is_gone(cli, user_file, tmp_path):
    # The command that one runs when something is wrong had better say what it can.
    user_file('model = "/nowhere/at/all"')
    result = cli("info")
    assert result.code in (0, 1)
    assert "/nowhere/at/all" in result.out + result.err
    assert "unexpected" not in result.err
