"""The command that repeats a run."""

from __future__ import annotations

import os
import shlex
import subprocess

import made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodecli.render.repro_command import quoted, repeat_command
from decodecli.settings import SamplingParams


def test_only_what_differs_from_the_defaults_is_named_and_the_seed() -> None:
    assert repeat_command(made_up.header()) == (
        'decodecli generate "The capital of Japan is" -t 1.4 --top-p 0.9 --seed 42'
    )


def test_a_run_with_defaults_names_prompt_and_seed() -> None:
    header = made_up.header(params=SamplingParams().as_dict(), order=())
    assert repeat_command(header) == 'decodecli generate "The capital of Japan is" --seed 42'


def test_temperature_zero_is_spelt_greedy_and_has_no_seed() -> None:
    params = {"temperature": 0.0, "top_p": 1.0, "greedy": True}
    command = repeat_command(made_up.header(params=params))
    assert command == 'decodecli generate "The capital of Japan is" --greedy'


def test_every_option_comes_back() -> None:
    params = SamplingParams(
        max_new_tokens=60,
        temperature=2,
        top_k=40,
        top_p=0.95,
        min_p=0.05,
        typical_p=0.9,
        epsilon_cutoff=3e-4,
        eta_cutoff=0.001,
        top_nsigma=1.5,
        repetition_penalty=1.1,
        no_repeat_ngram_size=3,
        stop=("\n\n", "the end"),
    ).as_dict() | {"bos": False}
    sources = {"device": "flag", "dtype": "env", "quantize": "default", "revision": "flag"}
    header = made_up.header(
        params=params, sources=sources, name="org/model", revision="abc", quantize="nf4"
    )
    words = shlex.split(repeat_command(header).replace("$'\\n\\n'", "NN"))
    assert words == [
        *("decodecli", "generate", "The capital of Japan is", "--model", "org/model"),
        *("--revision", "abc", "--device", "cpu", "--dtype", "float32", "--no-bos", "-n", "60"),
        *("-t", "2", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.05", "--typical-p", "0.9"),
        *("--epsilon-cutoff", "0.0003", "--eta-cutoff", "0.001", "--top-nsigma", "1.5"),
        *(
            "--repetition-penalty",
            "1.1",
            "--no-repeat-ngram-size",
            "3",
            "--stop",
            "NN",
            "--stop",
            "the end",
            "--seed",
            "42",
        ),
    ]


def test_a_default_typed_as_a_flag_is_kept_because_it_may_outrank_a_file() -> None:
    header = made_up.header(params={"temperature": 1.0}, sources={"temperature": "flag"})
    assert "-t 1 " in repeat_command(header)


def test_a_long_prompt_is_left_to_a_file() -> None:
    command = repeat_command(made_up.header(prompt="word " * 100))
    assert command.startswith("decodecli generate --file PROMPT.txt -t 1.4")
    assert command.endswith("# PROMPT.txt: the prompt, 500 characters")


@pytest.mark.parametrize("prompt", ["-", "a\x00b", "\ud800"])
def test_a_prompt_that_no_argument_can_hold_is_left_to_a_file(prompt: str) -> None:
    assert "--file PROMPT.txt" in repeat_command(made_up.header(prompt=prompt))


def test_a_prompt_like_an_option_stands_behind_two_dashes() -> None:
    assert repeat_command(made_up.header(prompt="--help me")).endswith('-- "--help me"')


def test_an_empty_prompt_is_written_out() -> None:
    assert repeat_command(made_up.header(prompt="")).startswith('decodecli generate "" -t')


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_a_quoted_text_is_printable(text: str) -> None:
    assert quoted(text).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        *(
            "plain",
            "two words",
            "it's",
            'say "hi"',
            "$HOME `x` \\ !",
            "line\nline\ttab\r",
            "\x1b[31mf",
        ),
        *(
            "\u202eabc",
            "日本語",
            "\x9bff",
            "''\n\\'",
            "",
            "#no",
            "~",
            "*",
            "a\u200db",
            "\U000e0041z",
        ),
    ],
)
def test_a_shell_reads_a_quoted_text_back(text: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(text)}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert done.stdout.decode() == text
