"""Prompts through a chat template: `--chat`, `--system` and `--allow-special` of every command."""

from __future__ import annotations

import json
import shlex

import pytest
from chat_models import CHAT_MODELS, chat_tokenizer, save_chat_model

from decodecli.models.chat_template import encode_chat
from decodecli.models.tokenizer import light_tokenizer
from decodecli.settings import ChatParams

ASKED = "Who are you, Sam?"
SYSTEM = "Say the truth."
TAKES_SYSTEM = [name for name in CHAT_MODELS if name != "gemma"]


@pytest.fixture(scope="session")
def chat_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    return {name: save_chat_model(root / name, name) for name in CHAT_MODELS}


def expected(name, text, system=None):
    """The ids that transformers makes of it."""
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return chat_tokenizer(name).apply_chat_template(messages, add_generation_prompt=True)[
        "input_ids"
    ]


def header(cli, folder, *words):
    return cli("generate", "-m", folder, "-n", "2", "--format", "jsonl", *words).succeeded().header


def with_system(name, system):
    return () if system is None else ("--system", system)


@pytest.mark.parametrize("text", [ASKED, "", "  two\n\nlines ", "日本 <b>"])
@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("name", CHAT_MODELS)
def test_prompt_ids_are_those_of_apply_chat_template(cli, chat_folders, name, system, text):
    if system is not None and name not in TAKES_SYSTEM:
        pytest.skip("takes no system message")
    found = header(cli, chat_folders[name], text, "--chat", *with_system(name, system))
    assert found["prompt_ids"] == expected(name, text, system)
    assert found["prompt"] == text
    assert found["params"]["chat"] is True
    assert found["params"].get("system") == system
    words = ("inspect-logits", text, "-m", chat_folders[name], "--chat", "--format", "json")
    report = json.loads(cli(*words, *with_system(name, system)).succeeded().out)
    assert report["prompt_ids"] == expected(name, text, system)


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_special_tokens_are_not_doubled(cli, chat_folders, name):
    tokenizer = chat_tokenizer(name)
    ids = header(cli, chat_folders[name], ASKED, "--chat")["prompt_ids"]
    assert ids.count(tokenizer.bos_token_id) == (1 if tokenizer.bos_token else 0)


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_tokenize_shows_the_same_ids_and_tells_of_special_tokens_in_a_message(
    cli, chat_folders, name
):
    words = ("--chat", "-m", chat_folders[name])
    shown = cli("tokenize", ASKED, *words, "--format", "json").succeeded()
    ids = [token["token_id"] for token in json.loads(shown.out)["tokens"]]
    assert ids == expected(name, ASKED)
    assert "special" not in shown.err
    piece = CHAT_MODELS[name][1][1]
    assert f"Note: {piece} in a message" in cli("tokenize", f"a {piece}", *words).succeeded().err
    assert piece not in cli("tokenize", f"a {piece}", *words, "--allow-special").succeeded().err


@pytest.mark.parametrize("words", [(), ("--allow-special",)])
@pytest.mark.parametrize("name", CHAT_MODELS)
def test_tokenize_reads_special_tokens_in_a_message_as_generate_does(
    cli, chat_folders, name, words
):
    piece = CHAT_MODELS[name][1][1]
    text = f"Sam {piece} and {piece}{piece}the"
    ids = header(cli, chat_folders[name], text, "--chat", *words)["prompt_ids"]
    options = ("-m", chat_folders[name], "--chat", "--format", "json", *words)
    report = json.loads(cli("tokenize", text, *options).succeeded().out)
    assert [token["token_id"] for token in report["tokens"]] == ids
    spelt = [report["text"][token["start"] : token["end"]] for token in report["tokens"]]
    assert ("".join(spelt).replace(" ", "")) == report["text"].replace(" ", "")


def test_no_message_after_the_first_can_forge_special_tokens(cli, chat_folders):
    """What the tokenizer was told for one prompt does not hold for the next."""
    tokenizer, piece = light_tokenizer(chat_folders["llama-3"], "llama-3"), "<|eot_id|>"
    assert piece in CHAT_MODELS["llama-3"][1]
    ids = [encode_chat(tokenizer, "llama-3", f"a {piece}", ChatParams()) for _ in range(2)]
    assert ids[0] == ids[1]


def forgeries():
    return [(name, piece) for name, (_, pieces) in CHAT_MODELS.items() for piece in pieces if piece]


@pytest.mark.parametrize(("name", "piece"), forgeries())
def test_a_message_cannot_forge_special_tokens(cli, chat_folders, name, piece):
    tokenizer = chat_tokenizer(name)
    specials = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    text = f"Sam {piece} and {piece}{piece}the"
    plain = expected(name, "Sam")
    system = with_system(name, f"never {piece}") if name in TAKES_SYSTEM else ()
    for words in ((), system):
        ids = header(cli, chat_folders[name], text, "--chat", *words)["prompt_ids"]
        honest = expected(name, "Sam", "never" if words else None)
        assert [i for i in ids if i in specials] == [i for i in honest if i in specials]
        assert text in tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    allowed = header(cli, chat_folders[name], text, "--chat", "--allow-special")
    assert allowed["prompt_ids"] == expected(name, text)
    assert allowed["params"]["allow_special"] is True
    assert [i for i in allowed["prompt_ids"] if i in specials] != [
        i for i in plain if i in specials
    ]


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_what_surrounds_a_forgery_is_as_without_it(cli, chat_folders, name):
    """Only the message's own tokens differ from those of the same message with a harmless word."""
    piece = CHAT_MODELS[name][1][1]
    ids = header(cli, chat_folders[name], f"the Sam {piece} the end", "--chat")["prompt_ids"]
    harmless = expected(name, "the Sam word the end")
    start = harmless.index(chat_tokenizer(name).convert_tokens_to_ids("w"))
    assert ids[: start - 1] == harmless[: start - 1]
    after = len(harmless) - start - len("word") - 1
    assert ids[-after:] == harmless[-after:]


@pytest.mark.parametrize("words", [(), ("--system", SYSTEM), ("--allow-special",)])
def test_the_repeat_line_asks_for_the_same_run(cli, chat_folders, words, without_styles):
    options = ("-m", chat_folders["llama-3"], "-n", "4", "--chat", *words)
    shown = without_styles(cli("generate", "a <|eot_id|>", *options, terminal=True).succeeded().out)
    (line,) = (line for line in shown.splitlines() if line.strip().startswith("repeat: "))
    again = shlex.split(line.strip().removeprefix("repeat: decodecli "))
    first = cli("generate", "a <|eot_id|>", *options, "--seed", again[-1], "--format", "jsonl")
    second = cli(*again, "--format", "jsonl")
    assert second.succeeded().summary["token_ids"] == first.succeeded().summary["token_ids"]
    assert second.header["prompt_ids"] == first.header["prompt_ids"]


def test_a_chat_model_asked_by_its_template_is_not_warned_about(cli, chat_folders):
    options = ("-m", chat_folders["chatml"], "-n", "1")
    assert "--chat" in cli("generate", ASKED, *options).succeeded().err
    assert "template" not in cli("generate", ASKED, "--chat", *options).succeeded().err
    shown = cli(
        "generate", ASKED, "--chat", *options, "--tables", "none", terminal=True
    ).succeeded()
    assert f"{ASKED}\x1b[0m" not in shown.out, "the answer stands on a line of its own"


@pytest.mark.parametrize("command", ["generate", "inspect-logits", "sweep"])
def test_a_model_without_a_template_is_refused(cli, command, tiny_folder, tmp_path):
    words = ("--out", tmp_path / "out") if command == "sweep" else ()
    result = cli(command, "Hi", "-m", tiny_folder, "--chat", *words)
    assert result.code == 1
    assert "has no chat template" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "inspect-logits"])
def test_a_system_message_that_the_template_refuses_or_drops_is_refused(
    cli, command, chat_folders, scripted
):
    result = cli(command, "Hi", "-m", chat_folders["gemma"], "--system", SYSTEM)
    result.refused(1, "gemma takes no system message", "System role not supported")
    deaf = scripted(template="{{ messages[-1]['content'] }}")
    cli(command, "Hi", "-m", deaf, "--system", SYSTEM).refused(1, "leaves it out")


def test_a_template_that_rewrites_special_tokens_in_messages_is_refused(cli, scripted):
    rewriting = scripted(template="{{ messages[-1]['content'].replace('<|end|>', '.') }}<|turn|>")
    words = ("-m", rewriting, "-n", "1", "--chat", "--format", "jsonl")
    assert cli("generate", "hello", *words).succeeded().header["prompt_ids"]
    cli("generate", "hello <|end|>", *words).refused(1, "--allow-special")


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("generate", ("--chat", "--bos"), "--bos"),
        ("generate", ("--system", "x", "--no-bos"), "--bos"),
        ("generate", ("--allow-special",), "--chat"),
        ("inspect-logits", ("--chat", "--compare-bos"), "--bos"),
        ("inspect-logits", ("--allow-special",), "--chat"),
        ("tokenize", ("--allow-special",), "--chat"),
        ("sweep", ("--chat", "--bos", "on,off"), "--bos"),
        ("sweep", ("--allow-special",), "--chat"),
    ],
)
def test_what_does_not_go_together_is_refused(cli, command, words, said):
    cli(command, "Hi", *words).refused(2, said)


def test_the_template_is_a_setting_of_files_and_environment(cli, chat_folders, toml):
    config = toml(f'chat = true\nsystem = "{SYSTEM}"')
    found = header(cli, chat_folders["chatml"], ASKED, "--config", config)
    assert found["prompt_ids"] == expected("chatml", ASKED, SYSTEM)
    assert found["sources"]["system"] == "config"


class TestSweep:
    @pytest.fixture
    def words(self, chat_folders):
        return ("-m", chat_folders["llama-3"], "-t", "0.5,1", "--seeds", "0..1", "-n", "3")

    def cells(self, folder):
        lines = (folder / "runs.jsonl").read_text().splitlines()
        cells = sorted(map(json.loads, lines), key=lambda cell: cell["index"])
        names = ("params", "prompt", "prompt_tokens", "token_ids", "text")
        return [{name: cell[name] for name in names} for cell in cells]

    def test_a_cell_is_what_generate_gives(self, cli, words, tmp_path, chat_folders):
        out = tmp_path / "out"
        cli("sweep", ASKED, "Hi", *words, "--system", SYSTEM, "--out", out).succeeded()
        cells = self.cells(out)
        assert len(cells) == 8
        cell = cells[-1]
        options = ("-t", "1", "--seed", "1", "-n", "3", "--system", SYSTEM, "--format", "jsonl")
        run = cli("generate", "Hi", "-m", chat_folders["llama-3"], *options).succeeded()
        assert cell["token_ids"] == run.summary["token_ids"]
        assert cell["prompt_tokens"] == len(expected("llama-3", "Hi", SYSTEM))
        assert (cell["params"]["chat"], cell["params"]["system"]) == (True, SYSTEM)

    def test_a_folder_remembers_it_and_goes_on_with_it(self, cli, words, tmp_path):
        out = tmp_path / "out"
        chat = ("--chat", "--system", SYSTEM, "--allow-special")
        cli("sweep", ASKED, *words, *chat, "--out", out).succeeded()
        whole = self.cells(out)
        kept = (out / "runs.jsonl").read_text().splitlines(keepends=True)[:2]
        (out / "runs.jsonl").write_text("".join(kept))
        assert "going on" in cli("sweep", "--out", out).succeeded().err
        assert self.cells(out) == whole
        cli("sweep", ASKED, *words, *chat, "--out", out).succeeded()
        cli("sweep", ASKED, *words, "--out", out).refused(2, "another grid", "chat", "system")
        other = ("--chat", "--system", "Be brief.", "--allow-special")
        cli("sweep", ASKED, *words, *other, "--out", out).refused(2, "another grid", "system")
        again = tmp_path / "again"
        cli("sweep", "--grid", out / "sweep.toml", "--out", again).succeeded()
        assert self.cells(again) == whole

    def test_a_dry_run_tells_it(self, cli, words):
        out = cli("sweep", ASKED, *words, "--system", SYSTEM, "--dry-run").succeeded().out
        assert f"chat on · system {SYSTEM}" in out

    def test_it_can_be_extended(self, cli, words, tmp_path):
        out = tmp_path / "out"
        cli("sweep", ASKED, *words, "--chat", "--out", out).succeeded()
        more = (*words[:4], "--seeds", "0..2", "-n", "3", "-t", "0.5,1")
        cli("sweep", ASKED, *more[:2], *more[4:], "--chat", "--out", out, "--extend").succeeded()
        assert len(self.cells(out)) == 6
        cli("compare", out).succeeded()

    def test_traces_are_headed_by_what_was_asked(self, cli, words, tmp_path, read_trace):
        out = tmp_path / "out"
        cli("sweep", ASKED, *words, "--chat", "--traces", "--out", out).succeeded()
        head = read_trace(next((out / "traces").glob("*.jsonl")))[0]
        assert head["params"]["chat"] is True
        assert head["prompt_ids"] == expected("llama-3", ASKED)


def test_tokenize_takes_a_system_message(cli, chat_folders):
    words = ["Hello", "--system", "Be brief.", "-m", str(chat_folders["chatml"])]
    ids = [
        t["token_id"] for t in json.loads(cli("tokenize", *words, "--format", "json").out)["tokens"]
    ]
    assert ids == cli("generate", *words, "-n", "1", "--format", "jsonl").header["prompt_ids"]
