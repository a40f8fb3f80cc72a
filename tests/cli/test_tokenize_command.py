"""`decodecli tokenize` as typed, piped and misused."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys

import pytest
from tokenizer_families import make

HOSTILE = "\x1b]0;owned\x07\x9b31m\r\u202eabc\x00"


@pytest.fixture
def folder(tmp_path):
    """`folder(kind)`: a folder with a tokenizer of that family and nothing else."""

    def save(kind, **changes):
        place = tmp_path / kind
        make(kind).save_pretrained(place)
        path = place / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | changes
        path.write_text(json.dumps(config), encoding="utf-8")
        return place

    return save


def test_a_row_a_token_with_counts_and_the_round_trip(cli):
    result = cli("tokenize", "日本 <s>x").succeeded()
    assert result.err == ""
    lines = result.out.splitlines()
    head = next(line for line in lines if line.startswith("#") or line.lstrip().startswith("#"))
    assert head.split() == ["#", "token", "id", "text", "bytes", "kind", "characters"]
    assert re.search(r"^ *0 +<s> +1 +special$", result.out, re.M)
    assert re.search(r"^ *1 +▁ +\d+ +␣ +20 +normal +0–0$", result.out, re.M)
    assert re.search(r"^ *4 +<0xA5> +\d+ +日 +A5 +byte +0–1$", result.out, re.M)
    assert "tokens per character" in result.out
    assert "round trip" in result.out
    assert "\x1b" not in result.out


def test_json_has_the_contracts_keys(cli, strict):
    found = strict(cli("tokenize", "日本 x", "--format", "json").succeeded().out)
    assert {"position", "token_id", "token", "text", "bytes", "kind"} <= set(found["tokens"][0])
    assert [token["position"] for token in found["tokens"]] == list(range(len(found["tokens"])))
    joined = b"".join(bytes.fromhex(token["bytes"]) for token in found["tokens"])
    assert joined.decode() == " 日本 x"
    assert found["counts"]["characters"] == 4
    assert found["round_trip"] == {"same": True, "decoded": "日本 x", "difference": None}


def test_jsonl_and_csv_have_a_record_a_token(cli, strict):
    lines = cli("tokenize", "a, b", "--format", "jsonl").succeeded().out.splitlines()
    rows = list(csv.DictReader(io.StringIO(cli("tokenize", "a, b", "--format", "csv").out)))
    assert [strict(line)["token"] for line in lines] == [row["token"] for row in rows]
    assert rows[1]["start"] == "0"


def test_the_text_comes_from_a_pipe_or_a_file_without_its_last_newline(cli, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one\ntwo\n")
    typed = cli("tokenize", "one\ntwo", "--format", "csv").succeeded().raw
    assert cli("tokenize", "--file", path, "--format", "csv").succeeded().raw == typed
    assert cli("tokenize", "--format", "csv", stdin=b"one\ntwo\n").succeeded().raw == typed
    assert cli("tokenize", "-", "--format", "csv", stdin=b"one\ntwo\n").succeeded().raw == typed


def test_nothing_to_read_takes_the_built_in_prompt_and_says_so(cli):
    result = cli("tokenize").succeeded()
    assert "Once upon a time," in result.err
    assert cli("tokenize", "--quiet").succeeded().err == ""


def test_every_line_may_be_a_text_of_its_own(cli, strict):
    text = "one two\n日本\n\nfour\n".encode()
    out = cli("tokenize", "--lines", stdin=text).succeeded().out
    assert [line.split()[0] for line in out.splitlines()] == ["line", "1", "2", "4", "all"]
    records = cli("tokenize", "--lines", "--format", "jsonl", stdin=text).succeeded().out
    assert {strict(line)["line"] for line in records.splitlines()} == {1, 2, 4}
    found = strict(cli("tokenize", "one", "--lines", "--format", "json").succeeded().out)
    assert [text["line"] for text in found["texts"]] == [1]


def test_bos_may_be_forbidden_and_both_shown_side_by_side(cli, strict):
    def ids(*arguments):
        found = strict(cli("tokenize", "Hi", *arguments, "--format", "json").succeeded().out)
        return [token["token_id"] for token in found["tokens"]]

    assert ids()[0] == 1
    assert ids("--no-bos") == ids()[1:]
    assert ids("--bos") == ids()
    both = strict(cli("tokenize", "Hi", "--compare-bos", "--format", "json").succeeded().out)
    assert both["variants"] == ["bos", "no-bos"]
    assert [len(text["tokens"]) for text in both["texts"]] == [len(ids()), len(ids()) - 1]
    out = cli("tokenize", "Hi", "--compare-bos").succeeded().out
    assert "no-bos" in out
    assert re.search(r"^bos +\d", out, re.M)


def test_tokenizers_are_compared_on_one_text(cli, folder, strict):
    one, two = folder("byte_level"), folder("metaspace_unigram")
    out = cli("tokenize", "Tokyo 日本", "-m", one, "-m", two, "-m", "builtin").succeeded().out
    for word in ("byte_level", "metaspace_unigram", "builtin", "Ġ", "▁", "round trip"):
        assert word in out
    flat = cli("tokenize", "x", "-m", one, "-m", two, "--format", "jsonl").succeeded().out
    assert [strict(line)["model"] for line in flat.splitlines()] == [str(one), str(two), str(two)]
    counts = cli("tokenize", "--lines", "-m", one, "-m", two, stdin=b"a\nb\n").succeeded().out
    assert len(counts.splitlines()) == 4


def test_ids_are_decoded(cli, strict):
    found = strict(cli("tokenize", "--ids", "1,379,233,154,168", "--format", "json").out)
    assert found["text"] == "日"
    assert [token["text"] for token in found["tokens"]] == ["", " ", "", "", "日"]
    assert found["round_trip"]["same"] is True
    assert "position" in cli("tokenize", "--ids", "379 233").succeeded().out


def test_a_chat_template_is_shown_as_applied(cli, folder, strict, tmp_path):
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    place = folder("byte_level", chat_template=template)
    found = strict(cli("tokenize", "Hi", "--chat", "-m", place, "--format", "json").out)
    assert found["text"] == "<s>user: Hi</s>"
    kinds = {token["token"]: token["kind"] for token in found["tokens"]}
    assert (kinds["<s>"], kinds["</s>"]) == ("special", "special")
    talk = tmp_path / "talk.json"
    talk.write_text('[{"role": "system", "content": "A"}, {"role": "user", "content": "B"}]')
    out = cli("tokenize", "--chat", "--file", talk, "-m", place, "--format", "json").succeeded().out
    assert strict(out)["text"] == "<s>system: A</s><s>user: B</s>"
    assert "chat template" in cli("tokenize", "Hi", "--chat", "-m", place).succeeded().out


def test_the_vocabulary_as_lines_has_no_header(cli, strict):
    lines = cli("tokenize", "--vocab", "--format", "jsonl").succeeded().out.splitlines()
    assert len(lines) == 6656
    first = strict(lines[0])
    assert {"token_id", "token", "text", "bytes", "kind"} <= set(first)
    assert first["token_id"] == 0


def test_the_vocabulary_is_searched_and_counted_by_script(cli, strict):
    out = cli("tokenize", "--vocab", "--grep", "^▁the$").succeeded().out
    assert "1 of 6,656 tokens" in out
    assert re.search(r"Latin \d", out)
    found = strict(cli("tokenize", "--vocab", "--script", "bytes", "--format", "json").out)
    assert len(found["tokens"]) == found["scripts"]["Bytes"] == 256
    rows = cli("tokenize", "--vocab", "--longest", "3", "--format", "csv").succeeded().out
    assert len(rows.splitlines()) == 4


def test_a_search_that_finds_nothing_is_no_error(cli):
    assert cli("tokenize", "--vocab", "--grep", "☃☃").succeeded().out.count("\n") < 6
    assert cli("tokenize", "--vocab", "--grep", "☃☃", "--format", "jsonl").succeeded().out == ""
    header = cli("tokenize", "--vocab", "--grep", "☃☃", "--format", "csv").succeeded().out
    some = cli("tokenize", "--vocab", "--longest", "1", "--format", "csv").succeeded().out
    assert header == some.splitlines(keepends=True)[0]


@pytest.mark.parametrize("kind", ["builtin", "byte_level", "metaspace_unigram", "wordpiece"])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_control_character_reaches_the_screen(cli, folder, kind, terminal):
    name = kind if kind == "builtin" else folder(kind)
    several = (
        (),
        ("--compare-bos",),
        ("--lines",),
        *(("--format", f) for f in ("json", "jsonl", "csv")),
    )
    for more in several if terminal else several[:-1]:
        env = {"TERM": "xterm-256color"}
        result = cli(
            "tokenize", HOSTILE.replace("\x00", ""), *more, "-m", name, terminal=terminal, env=env
        )
        plain = re.sub(r"\x1b\[[0-9;]*m", "", result.succeeded().out)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)


def test_a_terminal_gets_colours_and_others_none(cli):
    env = {"TERM": "xterm-256color", "COLORTERM": ""}
    assert "\x1b[" in cli("tokenize", "Hello you", terminal=True, env=env).succeeded().out
    assert "\x1b" not in cli("tokenize", "Hello you", env=env).succeeded().out
    quiet = cli("tokenize", "Hello you", terminal=True, env={**env, "NO_COLOR": "1"}).out
    assert "38;5" not in quiet


def test_another_encoding_gets_what_it_can_say(cli):
    # The bytes are what a stream of that encoding carries.
    result = cli("tokenize", "日本 é", encoding="ascii").succeeded()
    assert result.raw.isascii()
    assert "<U+65E5>" in result.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["", "--no-bos"], 1, "empty"),
        (["x", "--file", "y"], 2, "both"),
        (["--file", "missing.txt"], 2, "missing.txt"),
        (["--file", "."], 2, "folder"),
        (["x", "--format", "xml"], 2, "--format"),
        (["--ids", "1,x"], 2, "must be numbers"),
        (["--ids", ""], 2, "empty"),
        (["--ids", "6656"], 2, "0 to 6655"),
        (["--ids=-1"], 2, "0 to 6655"),
        (["--ids", "99999999999"], 2, "0 to 6655"),
        (["--ids", "99999999999999999999"], 2, "must be numbers"),
        (["x", "--ids", "1"], 2, "--ids"),
        (["--ids", "1", "--chat"], 2, "--ids"),
        (["x", "--chat"], 1, "no chat template"),
        (["x", "--chat", "--bos"], 2, "--chat"),
        (["x", "--chat", "--lines"], 2, "--chat"),
        (["x", "--vocab"], 2, "--vocab"),
        (["--vocab", "-m", "builtin", "-m", "other"], 2, "--model"),
        (["x", "-m", "builtin", "-m", "builtin"], 2, "twice"),
        (["x", "--compare-bos", "--no-bos"], 2, "--compare-bos"),
        (["x", "--grep", "y"], 2, "--vocab"),
        (["x", "--longest", "3"], 2, "--vocab"),
        (["--vocab", "--grep", "("], 2, "regular expression"),
        (["--vocab", "--grep", "(" * 5000], 2, "regular expression"),
        (["--vocab", "--longest", "0"], 2, "at least 1"),
        (["--vocab", "--script", "Klingon"], 2, "Klingon"),
        (["x", "-m", "nowhere/at/all"], 1, "no folder"),
        (["x", "-m", ""], 2, "--model is empty"),
        (["x", "--revision", "main"], 2, "--revision"),
        (["   ", "--lines"], 2, "no line"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(cli, words, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("tokenize", *words).refused(code, said)


def test_folders_and_files_that_are_no_tokenizer_are_refused(cli, tmp_path):
    cli("tokenize", "x", "-m", tmp_path).refused(1, "no tokenizer")
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xff")
    cli("tokenize", "x", "-m", path).refused(1, "is a file")
    cli("tokenize", "--file", path).refused(1, "UTF-8")
    for text in ("{", "{}", "[]", '["x"]', '[{"content": 1}]'):
        talk = tmp_path / "talk.json"
        talk.write_text(text)
        cli("tokenize", "--chat", "--file", talk).refused(2, "--file")


def test_settings_of_files_and_the_environment_count(cli, folder, user_file, strict):
    place = folder("byte_level")
    user_file(f'model = "{place}"\nbos = false')
    found = strict(cli("tokenize", "x", "--format", "json").succeeded().out)
    assert (found["model"], found["bos"]) == (str(place), False)
    found = strict(cli("tokenize", "x", "-m", "builtin", "--bos", "--format", "json").out)
    assert (found["model"], found["bos"]) == ("builtin", True)


def test_it_loads_neither_torch_nor_anything_else_that_is_heavy(environment):
    code = (
        "import sys\nfrom decodecli.cli.app import app\n"
        "try:\n    app(['tokenize', 'Hello'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'jinja2', 'huggingface_hub'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr.strip() == "[]"
