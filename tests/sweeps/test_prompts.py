"""Prompts of a sweep: typed, from text files, from JSONL."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodecli.errors import PromptError, UsageError
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.prompts import gather_prompts, parse_prompts, read_prompts


def refused(data: bytes, name: str, *words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_prompts(data, name)
    assert error.value.message.startswith(name)
    for word in words:
        assert word in str(error.value), str(error.value)
    assert error.value.hint
    assert len(error.value.message) <= 160


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfOne\r\n\r\n  two \n \t\n\xe6\x9d\xb1\xe4\xba\xac")
    assert read_prompts(path) == (Prompt("One", "p0"), Prompt("  two ", "p1"), Prompt("東京", "p2"))


def test_only_a_newline_ends_a_line():
    text = "a\u2028b\x0bc\x85d\re"
    assert parse_prompts((text + "\nnext\n").encode(), "p.txt")[0].text == text


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0\ufeff")), min_size=1)
)
def test_any_lines_come_back_as_they_are(lines):
    wanted = list(dict.fromkeys(line for line in lines if line.strip()))
    if wanted:
        found = parse_prompts("\n\n".join(wanted).encode(), "p.txt")
        assert [prompt.text for prompt in found] == wanted


def test_a_jsonl_file_has_prompts_with_what_is_expected(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"prompt": "The capital of Japan is", "id": "japan", "expect": "Tokyo", "task": "facts"}\n'
        '\n{"prompt": "Big?", "expect": ["large", "great"]}\r\n'
        '{"prompt": "Which?", "expect": {"regex": "\\\\b8\\\\b"}, "id": null, "task": null}\n'
        '{"prompt": ""}\n'
    )
    japan, big, which, empty = read_prompts(path)
    assert japan == Prompt("The capital of Japan is", "japan", ("Tokyo",), "facts")
    assert japan.answered_by(" Tokyo.")
    assert japan.answered_by(" tokyo.") is False
    assert (big.id, big.expect) == ("p1", ("large", "great"))
    assert big.answered_by("so great")
    assert which.answered_by("is 8.")
    assert not which.answered_by("is 18.")
    assert empty == Prompt("", "p3")
    assert empty.answered_by("Tokyo") is None


def test_a_string_between_slashes_is_a_string_like_any_other():
    (prompt,) = parse_prompts(b'{"prompt": "p", "expect": "/usr.bin/"}', "p.jsonl")
    assert prompt.answered_by("in /usr.bin/ it is")
    assert not prompt.answered_by("usr_bin")


@pytest.mark.parametrize(
    ("name", "data", "is_json"),
    [
        ("p.jsonl", b'{"prompt": "x"}', True),
        ("p.NDJSON", b'{"prompt": "x"}', True),
        ("63", b'\n  { "prompt": "x"}\n', True),
        ("p.md", b"{ int x = 1; }", False),
        ("p.txt", b'{"prompt": "x"}', False),
        ("p", b"x", False),
    ],
)
def test_suffix_or_first_line_say_whether_it_is_jsonl(name, data, is_json):
    (prompt,) = parse_prompts(data, name)
    assert (prompt.text == "x") is (is_json or data == b"x")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": }', ("JSON",)),
        ("The capital", ("JSON",)),
        ('["x"]', ("object",)),
        ('"x"', ("object",)),
        ("{}", ("no prompt",)),
        ('{"prompt": null}', ("no prompt",)),
        ('{"prompt": 3}', ("prompt", "string")),
        ('{"prompt": "x", "promt": "y"}', ("promt", "did you mean prompt")),
        ('{"text": "y"}', ("has no prompt but an unknown key", '"text"', "write lines like")),
        ('{"promt": "y", "id": "z"}', ("no prompt but", "promt", "write lines like")),
        ('{"prompt": "x", "zzz": "y"}', ("zzz", "prompt, id, expect, task")),
        ('{"prompt": "x", "prompt": "y"}', ("twice",)),
        ('{"prompt": "x", "id": 3}', ("id", "string")),
        ('{"prompt": "x", "id": ""}', ("id", "empty")),
        ('{"prompt": "x", "task": []}', ("task", "string")),
        ('{"prompt": "x", "expect": ""}', ("expect", "empty")),
        ('{"prompt": "x", "expect": []}', ("expect",)),
        ('{"prompt": "x", "expect": ["a", 3]}', ("expect",)),
        ('{"prompt": "x", "expect": ["a", ""]}', ("expect", "empty")),
        ('{"prompt": "x", "expect": true}', ("expect",)),
        ('{"prompt": "x", "expect": {"regexp": "a"}}', ("regex",)),
        ('{"prompt": "x", "expect": {"regex": "("}}', ("regular expression", "(")),
        ('{"prompt": "x", "expect": {"regex": "a{99999999999999999999}"}}', ("regular expression",)),
        ('{"prompt": "x", "expect": {"regex": 3}}', ("regex", "string")),
        ('{"prompt": "\\ud800"}', ("character",)),
        ("[" * 100_000, ("JSON",)),
        ('{"prompt": "x", "id": ' + "9" * 10_000 + "}", ("JSON",)),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_by_file_and_line(line, words):
    refused(f'{{"prompt": "fine"}}\n\n{line}\n'.encode(), "some.jsonl", "line 3", *words)


def test_what_is_no_text_is_refused_by_line():
    refused(b"one\ntwo\n\xff\xfe\n", "p.txt", "line 3", "UTF-8")
    refused("one\ntwo".encode("utf-16"), "p.txt", "line 1", "UTF-8")
    refused("one\ntwo".encode("utf-16-le"), "p.txt", "line 1", "NUL")


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_a_file_without_prompts_is_refused(data):
    refused(data, "p.txt", "no prompts")
    refused(data, "p.jsonl", "no prompts")


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path):
    for path, why in (
        (tmp_path / "none.txt", "no such file"),
        (tmp_path, "folder"),
        ("a\0b", "read"),
    ):
        with pytest.raises(UsageError, match=f"the prompt file.*{why}"):
            read_prompts(path)


def test_the_same_prompt_twice_is_refused_with_both_places():
    refused(b"one\ntwo\none\n", "p.txt", "line 3", "line 1", '"one"')
    with pytest.raises(UsageError, match=r"prompt 2.*prompt 1"):
        gather_prompts(["x", "x"])


def test_one_text_may_stand_under_several_ids_of_its_own():
    lines = [{"prompt": "x", "id": "a", "expect": "1"}, {"prompt": "x", "id": "b", "expect": "2"}]
    data = "\n".join(map(json.dumps, lines)).encode()
    assert [prompt.id for prompt in parse_prompts(data, "p.jsonl")] == ["a", "b"]


def test_an_id_twice_is_refused_with_both_places():
    data = b'{"prompt": "x", "id": "a"}\n{"prompt": "y", "id": "a"}'
    refused(data, "p.jsonl", "line 2", "line 1", '"a"')


def test_a_given_id_never_meets_a_made_one():
    data = b'{"prompt": "x"}\n{"prompt": "y", "id": "p0"}\n{"prompt": "z"}'
    ids = [prompt.id for prompt in parse_prompts(data, "p.jsonl")]
    assert len(set(ids)) == 3
    assert ids[1:] == ["p0", "p2"]


def test_typed_prompts_come_before_those_of_a_file_and_are_counted_with_them(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("three\n")
    found = gather_prompts(["one", ""], path)
    assert found == (Prompt("one", "p0"), Prompt("", "p1"), Prompt("three", "p2"))
    assert gather_prompts() == ()
    path.write_text("one\n")
    with pytest.raises(UsageError, match=r"p\.txt, line 1.*prompt 1"):
        gather_prompts(["one"], path)


def test_an_argument_that_is_not_utf8_is_a_prompt_error():
    with pytest.raises(PromptError, match="prompt 2"):
        gather_prompts(["x", "\udcff"])


def test_the_longest_messages_are_shortened():
    with pytest.raises(UsageError) as error:
        gather_prompts(["word " * 1000] * 2)
    assert len(error.value.message) < 120
    assert re.search("word word", error.value.message)


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.TSV", "prompts.xlsx"])
def test_a_table_is_refused(tmp_path, name):
    (tmp_path / name).write_text("id,prompt\n1,Once\n")
    with pytest.raises(UsageError, match=f"{name} is a table"):
        read_prompts(tmp_path / name)
