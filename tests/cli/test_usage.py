"""Wrong usage is told in our own words, by every command: what was given, and what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

COMMANDS = (
    *("generate", "replay", "inspect-logits", "sweep", "compare", "softmax", "tokenize", "embed"),
    *("presets", "methods", "info", "bench", "models", "models fit", "models cache"),
)

# a command line, and words of the two lines about it
WRONG = [
    ("generate Hi -t hot", ("--temperature must be a number, got 'hot'", "for example")),
    ("generate Hi -t 0,7", ("got '0,7'", "a decimal point: 0.7", "decodecli sweep -t 0,7")),
    ("generate Hi -t=0.7", ("got '=0.7'", "-t 0.7 or --temperature=0.7")),
    ("generate Hi -t 0.2,0.7", ("got '0.2,0.7'", "temperatures: decodecli sweep -t 0.2,0.7")),
    ("generate Hi -t '0.2, 0.7'", ("temperatures: decodecli sweep -t 0.2,0.7",)),
    ("generate Hi -t 0.2 0.7", ("more follows: 0.7", "temperatures: decodecli sweep -t 0.2,0.7")),
    ("generate -t 0.2 0.7 Hi", ("more follows: Hi", "temperatures: decodecli sweep -t 0.2,0.7")),
    (
        "generate 'Hello you' 'Good day'",
        ("for several prompts: decodecli sweep 'Hello you' 'Good day'",),
    ),
    ("generate Hi --top-k 1,5", ("an integer", "values: decodecli sweep --top-k 1,5")),
    ("generate Hi -c 1,5", ("--candidates must be an integer", "give --candidates one value")),
    ("generate Hi -temperature 0.7", ("--temperature", "two dashes")),
    ("generate Hi --temperature", ("--temperature needs a value", "--temperature 0.7")),
    ("generate Hi --model", ("--model needs a value", "NAME_OR_PATH")),
    ("generate Hi --greedy=yes", ("--greedy takes no value", "alone")),
    ("generate The capital of Japan is", ("capital of Japan is", "quotes", "'The capital of Ja")),
    ("tokenize Two words", ("decodecli tokenize 'Two words'",)),
    ("tokenize my text", ("text in quotes: decodecli tokenize 'my text'",)),
    ("generate Hi --temprature 1", ("unknown option: --temprature", "did you mean --temperature?")),
    ("generate Hi --temp 1", ("--temp", "did you mean --temperature?")),
    ("generate Hi --seeds 0,1", ("--seeds", "an option of sweep")),
    ("generate -5 degrees", ("unknown option: -5", "comes after --")),
    ("generat Hi", ("unknown command: generat", "decodecli generate?")),
    ("models fti x", ("unknown command: fti", "decodecli models fit?")),
    ("Hello", ("unknown command: Hello", "generate, explore, replay")),
    ("'Once upon a time'", ("decodecli generate 'Once upon a time'",)),
    ("--temperature 1 generate", ("after the command: decodecli generate --temperature",)),
    ("--", ("no command was given", "--help")),
    ("compare", ("compare needs DIR_OR_FILE", "decodecli compare DIR_OR_FILE")),
    ("compare a b", ("compare takes one DIR_OR_FILE", "b")),
    ("models fit", ("fit needs NAME_OR_PATH",)),
    ("info x", ("info takes no argument", "'x'")),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_usage_says_what_was_given_and_what_to_do(cli, line, words):
    cli(*shlex.split(line)).refused(2, *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_an_unknown_option(cli, command):
    cli(*command.split(), "--colour-of-the-text").refused(2, "unknown option: --colour-of-the-text")


def test_a_word_of_any_length_is_told_in_a_line(cli):
    cli("generate", "Hi", "-t", "9," * 5000).refused(2, "--temperature must be a number")
    cli("generate", "Hi", "x" * 5000).refused(2, "PROMPT")
    cli("generate", "Hi", "--" + "x" * 5000).refused(2, "unknown option")
    cli("g" * 5000).refused(2, "unknown command")
    cli("\u200b" * 5000).refused(2, "unknown command")


HIDDEN = "\u202e\u2066\u2028\u200b\u2060\ufeff\x1b[31m"


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "Hi", "-t", HIDDEN),
        ("generate", "Hi", f"--temp{HIDDEN}"),
        ("generate", "Hi", HIDDEN),
        (f"gen{HIDDEN}",),
        ("generate", "Hi", "--preset", HIDDEN),
        ("generate", "--file", HIDDEN),
        ("generate", "Hi", "--config", HIDDEN),
        ("generate", "Hi", "--dtype", HIDDEN),
        ("generate", "Hi", "--model", f"./{HIDDEN}"),
        ("softmax", HIDDEN),
        ("compare", HIDDEN),
    ],
    ids=" ".join,
)
def test_an_error_shows_what_would_hide_or_turn_around(cli, words):
    result = cli(*words)
    assert result.code in (1, 2)
    assert not set(HIDDEN[:6] + "\x1b") & set(result.err), repr(result.err)
    assert "U+202E" in result.err or "u202e" in result.err, result.err


def test_wrong_usage_of_the_real_program_leaves_standard_output_alone(environment):
    done = subprocess.run(
        [sys.executable, "-m", "decodecli", "generate", "Hi", "-t", "hot"],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 2
