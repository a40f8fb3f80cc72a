"""`--help`: quick, complete, with examples and every default; nothing heavy is imported for it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "accelerate",
    "bitsandbytes",
    "tokenizers",
    "huggingface_hub",
)


def commands() -> dict:
    """Every command by its name."""
    from typer.main import get_command

    from decodecli.cli.app import app

    return get_command(app).commands


@pytest.fixture
def help_of(cli):
    """A command's help on a wide screen, its spaces and box lines joined to one space."""

    def read(*command: str) -> str:
        result = cli(*command, "--help", env={"COLUMNS": "200"})
        assert result.succeeded().err == ""
        assert "\x1b" not in result.out
        return re.sub(r"[\s│╭╮╰╯─]+", " ", result.out)

    return read


def test_every_command_is_listed_and_has_help_with_examples(help_of):
    overview = help_of()
    assert "Examples" in overview
    assert {"generate", "presets", "info"} <= set(commands())
    for command in commands():
        assert f" {command} " in overview
        text = help_of(command)
        assert "Examples" in text
        assert f"decodecli {command}" in text.partition("Examples")[2]


def test_the_list_of_commands_says_what_their_own_help_does():
    from decodecli.cli.app import COMMANDS

    first = {name: command.help.partition("\n\n")[0] for name, command in commands().items()}
    assert {name: " ".join(text.split()) for name, text in first.items()} == COMMANDS


def test_every_option_says_what_it_does_and_the_shared_ones_their_default(help_of):
    for name, command in commands().items():
        shown = rows(help_of(name))
        for param in command.params:
            longest = max(param.opts, key=len)
            if param.param_type_name != "option" or longest == "--help":
                continue
            if longest not in shown:  # `rows` put it to the option that it is the opposite of
                longest = "--" + longest.removeprefix("--no-")
            assert len(shown[longest].split()) > 3, f"{name} {longest}"
            if longest in {*defaults(), *IN_WORDS, "--greedy", "--verbose", "--debug", "--explain"}:
                assert "[default: " in shown[longest], f"{name} {longest}"


def test_the_short_form_of_help_works(cli):
    assert cli("-h").raw == cli("--help").raw
    assert cli("generate", "-h").succeeded().raw == cli("generate", "--help").raw


def test_without_a_command_the_help_is_shown(cli):
    result = cli()
    assert "Usage: decodecli" in result.out + result.err


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_told(cli, flag):
    from decodecli import __version__

    assert cli(flag).succeeded().out == f"decodecli {__version__}\n"


def defaults() -> dict[str, str]:
    """What each option of `generate` falls back to, as the settings have it."""
    from decodecli.settings import BeamParams, LoadParams, OutputParams, SamplingParams

    found = {}
    for owner in (LoadParams, SamplingParams, OutputParams, BeamParams):
        for item in dataclasses.fields(owner):
            if item.default in (None, (), ""):
                continue  # in words, or nothing: below
            text = (
                {True: "on", False: "off"}.get(item.default)
                if isinstance(item.default, bool)
                else None
            )
            found["--" + item.name.replace("_", "-")] = text or str(item.default)
    return found


IN_WORDS = {
    "--tables": "full on a terminal",
    "--bos": "as the tokenizer does",
    "--seed": "drawn",
    "--revision": "main",
    "--max-memory": "all that is free",
    "--threads": "by the model's size",
    "--dry-sequence-breakers": "line break",
    "--stages": "last",
}
WITHOUT = {
    "--constrain",
    "--html",
    "--watch",
    "--what-if",
    "--system",
    "--stop",
    "--logit-bias",
    "--bad-words",
    "--trace",
    "--save-logits",
    "--plot",
    "--file",
    "--preset",
    "--config",
    "--help",
}


def rows(text: str) -> dict[str, str]:
    """Each long option with the words up to the next one."""
    options = re.split(r" (?:Arguments|Options) ", text, maxsplit=1)[1]
    parts = re.split(r" (?=--[a-z][a-z-]+ )", options)
    found = {part.split()[0]: part for part in parts if part.startswith("--")}
    for name in [name for name in found if name.startswith("--no-")]:
        if (other := "--" + name.removeprefix("--no-")) in found:
            found[other] += found.pop(name)
    return found


def test_every_default_is_shown_and_is_the_one_that_applies(help_of):
    shown = rows(help_of("generate"))
    expected = defaults() | IN_WORDS
    for option, default in expected.items():
        match = re.search(r"\[default: ([^\]]*)\]", shown[option])
        assert match, f"{option} shows no default: {shown[option]}"
        number = re.match(r"[\d.]+", match[1])
        if re.fullmatch(r"[\d.]+", default) and number:
            assert float(number[0]) == float(default), option
        else:
            assert match[1].startswith(default), option
    known = set(expected) | WITHOUT | {"--greedy", "--verbose", "--debug", "--explain"}
    assert set(shown) <= known, "an option without a default to check"


def test_the_default_prompt_is_shown(help_of):
    assert "[default: Once upon a time,]" in help_of("generate")


def test_every_option_of_the_contract_is_there(help_of):
    text = help_of("generate")
    for option in (
        "--model -m", "--revision", "--device auto|cuda|cuda:N|mps|cpu",
        "--dtype auto|float32|bfloat16|float16", "--quantize -q auto|none|nf4|fp4|int8",
        "--max-new-tokens -n", "--temperature -t", "--top-k", "--top-p", "--min-p", "--typical-p",
        "--epsilon-cutoff", "--eta-cutoff", "--repetition-penalty", "--no-repeat-ngram-size",
        "--stop", "--seed", "--num-samples", "--greedy", "--bos", "--no-bos", "--candidates",
        "--format text|jsonl", "--trace", "--tables full|line|none", "--quiet", "--file -f",
        "--config", "--preset", "--verbose", "--debug",
    ):  # fmt: skip
        assert option in text, option


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_keeps_within_the_screen(cli, columns):
    result = cli("generate", "--help", env={"COLUMNS": columns}).succeeded()
    assert max(map(len, result.out.splitlines())) <= int(columns)


def imported(*command: str) -> set[str]:
    """The top-level modules that a fresh interpreter imports for this."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    assert "site" in names, "the list of imports was not understood"
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import decodecli"),
        ("-c", "import decodecli; decodecli.SamplingParams; decodecli.Step"),
        ("-c", "import decodecli.cli.app"),
        ("-m", "decodecli", "--help"),
        ("-m", "decodecli", "generate", "--help"),
        ("-m", "decodecli", "presets"),
    ],
    ids=lambda command: " ".join(command[1:]),
)
def test_nothing_heavy_is_imported(command):
    assert not imported(*command).intersection(HEAVY)


BAD_VALUES = [
    ("generate", "--threads", "0"),
    ("generate", "--max-memory", "lots"),
    ("generate", "--device", "tpu"),
    ("generate", "--quantize", "nf3"),
    ("generate", "--top-p", "7"),
    ("inspect-logits", "--threads", "-1"),
    ("models", "fit", "builtin", "--context", "0"),
]


@pytest.mark.parametrize("words", BAD_VALUES, ids=lambda words: " ".join(words))
def test_a_bad_value_is_refused_before_anything_heavy_is_imported(words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "decodecli", *words],
        capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-500:]
    assert "Error: " in done.stderr
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    assert "site" in names, "the list of imports was not understood"
    assert not {name.partition(".")[0] for name in names}.intersection(HEAVY)


ENTRY = """
import os, sys
from decodecli.__main__ import main
sys.argv = ["decodecli", "--version"]
try:
    main()
except SystemExit:
    pass
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_installed_program_sets_the_wait_policy_before_torch(before, after):
    import importlib.metadata

    (program,) = importlib.metadata.entry_points(group="console_scripts", name="decodecli")
    assert program.value == "decodecli.__main__:main"
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", ENTRY],
        env=kept | ({"OMP_WAIT_POLICY": before} if before else {}),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"{after} False"
