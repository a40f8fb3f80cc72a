"""A broken or hostile model folder is told in a line, at once: no bug, no traceback, nothing hangs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RUN = ("-n", "2", "--seed", "0")
COMMANDS = {
    "generate": ("generate", "Hi there", "-m", ..., *RUN),
    "transformers": ("generate", "Hi there", "-m", ..., *RUN, "--loader", "transformers"),
    "inspect": ("inspect-logits", "Hi there", "-m", ...),
    "tokenize": ("tokenize", "Hi there", "-m", ...),
    "chat": ("tokenize", "Hi there", "--chat", "-m", ...),
    "embed": ("embed", "cat", "dog", "-m", ...),
    "say": ("generate", "Hi there", "--chat", "-m", ..., *RUN),
    "fit": ("models", "fit", ..., "--device", "cpu"),
}
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = str(10**21)


class TooLong(BaseException):
    """A command that did not end in time."""


@contextlib.contextmanager
def at_once(seconds: int = 20):
    """The time that a refusal may take at most, on a busy machine with two cores."""

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_value(path: Path, keys: tuple[str, ...], text: str | None) -> None:
    """Set a key of a JSON file, whatever depth it is at, to a value given as JSON text; None: out."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    inner = found
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            return
    inner.pop(keys[-1], None)
    if text is not None:
        inner[keys[-1]] = "@value@"
    path.write_text(json.dumps(found).replace('"@value@"', text or ""), encoding="utf-8")


@pytest.fixture
def run(cli):
    def call(name: str, folder: Path, text: str = "Hi there"):
        words = {...: folder, "Hi there": text}
        with at_once():
            return cli(*(words.get(word, word) for word in COMMANDS[name]))

    return call


REFUSED = [
    # command, file, keys, value as JSON text, words of the message
    ("generate", "config.json", ("x",), DEEP, "nested too deep"),
    ("generate", "generation_config.json", ("x",), DEEP, "nested too deep"),
    ("generate", "tokenizer_config.json", ("x",), DEEP, "nested too deep"),
    ("tokenize", "tokenizer_config.json", ("x",), DEEP, "nested too deep"),
    ("fit", "config.json", ("x",), DEEP, "nested too deep"),
    ("generate", "config.json", ("num_hidden_layers",), "-1", "num_hidden_layers = -1"),
    ("generate", "config.json", ("num_hidden_layers",), "1000000000", "tensors in the weights"),
    ("generate", "config.json", ("num_hidden_layers",), HUGE, "num_hidden_layers = 1.0e+21"),
    ("fit", "config.json", ("num_hidden_layers",), HUGE, "num_hidden_layers"),
    ("embed", "config.json", ("num_hidden_layers",), "1000000000", "num_hidden_layers"),
    ("generate", "config.json", ("num_labels",), "1000000000", "num_labels"),
    ("generate", "config.json", ("sliding_window",), "-3", "sliding_window = -3"),
    ("generate", "config.json", ("eos_token_id",), "[[1]]", "eos_token_id = [[1]]"),
    ("generate", "generation_config.json", ("eos_token_id",), "[[1]]", "eos_token_id"),
    (
        "generate",
        "config.json",
        ("quantization_config",),
        '{"quant_method": "gptq"}',
        "cannot be loaded",
    ),
    ("generate", "config.json", ("quantization_config",), "[4]", "model"),
    ("generate", "tokenizer_config.json", ("added_tokens_decoder",), '{"x": {}}', "tokenizer"),
    ("tokenize", "tokenizer_config.json", ("added_tokens_decoder",), '{"x": {}}', "tokenizer"),
    ("generate", "tokenizer_config.json", ("extra_special_tokens",), "5", "tokenizer"),
    ("tokenize", "tokenizer_config.json", ("extra_special_tokens",), "5", "tokenizer"),
    ("chat", "tokenizer_config.json", ("chat_template",), '[{"name": [1]}]', "template"),
    ("chat", "tokenizer_config.json", ("chat_template",), "[5, null]", "template"),
    ("generate", "model.safetensors.index.json", ("weight_map",), DEEP, "nested too deep"),
    ("generate", "model.safetensors.index.json", ("weight_map",), "[1]", "no index"),
]


# Values over which transformers stumbles without a word on the file or the key.
REFUSED += [
    ("transformers", "config.json", (key,), text, f"config.json says {key} = {text}, not {kind}")
    for key, text, kind in (
        ("architectures", "5", "a list"),
        ("layer_types", "5", "a list"),
        ("id2label", "[1]", "an object"),
        ("text_config", "5", "an object"),
        ("rope_parameters", "5", "an object"),
        ("num_labels", "[1]", "a number"),
        ("sliding_window", "[1]", "a number"),
        ("attn_implementation", "5", "a text"),
    )
]
REFUSED += [
    ("fit", "config.json", ("id2label",), "5", "config.json says id2label = 5, not an object"),
    (
        "transformers",
        "config.json",
        ("hidden_act",),
        '"x"',
        "config.json says hidden_act = 'x', which",
    ),
    ("fit", "config.json", ("dtype",), '"x"', "config.json says dtype = 'x', which"),
    ("transformers", "config.json", ("vocab_size",), "5", "lm_head.weight is ["),
    (
        "transformers",
        "config.json",
        ("num_attention_heads",),
        '"4"',
        "heads = '4', not a number",
    ),
    (
        "transformers",
        "generation_config.json",
        ("max_new_tokens",),
        "[]",
        "says max_new_tokens = []",
    ),
    (
        "transformers",
        "tokenizer_config.json",
        ("model_max_length",),
        '"x"',
        "says model_max_length = ",
    ),
    (
        "transformers",
        "tokenizer_config.json",
        ("bos_token",),
        "5",
        "says bos_token = 5, not a text",
    ),
    ("tokenize", "tokenizer_config.json", ("tokenizer_class",), "5", "says tokenizer_class = 5"),
]


@pytest.mark.parametrize(("command", "file", "keys", "text", "words"), REFUSED)
def test_a_value_that_cannot_be_is_refused_at_once(run, copied, command, file, keys, text, words):
    folder = copied()
    write_value(folder / file, keys, text)
    result = run(command, folder)
    assert result.code == 1, result.err
    assert words in result.err
    assert_told(result)


def assert_told(result) -> None:
    assert result.code in (0, 1, 2), result.code
    for word in ("Traceback", "bug in decodecli", "Error: unexpected", "panicked"):
        assert word not in result.err, result.err
    if result.code:
        assert result.err.count("Error: ") == 1, result.err


def test_return_dict_false_is_not_obeyed_and_not_stumbled_over(run, copied):
    folder = copied()
    write_value(folder / "config.json", ("return_dict",), "false")
    run("generate", folder).succeeded()


def test_a_length_of_the_tokenizer_that_is_none_matters_to_transformers_alone(run, copied, cli):
    folder = copied()
    write_value(folder / "tokenizer_config.json", ("model_max_length",), '"long"')
    run("generate", folder).succeeded()
    result = cli("generate", "Hi", "-n", "1", "-m", folder, "--loader", "transformers")
    assert result.code == 1, result.err
    assert "tokenizer" in result.err
    assert_told(result)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "x.json"])
@pytest.mark.parametrize("command", ["generate", "tokenize", "fit", "embed"])
def test_a_pipe_where_a_file_should_be_is_refused(run, copied, command, name):
    folder = copied()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    result = run(command, folder)
    assert result.code == 1
    assert f"{name} is not a regular file" in result.err


@pytest.mark.parametrize("command", ["generate", "fit", "embed"])
@pytest.mark.parametrize(
    "header",
    [
        DEEP.encode(),
        json.dumps(
            {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}
        ).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [10**400], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}).encode(),
        json.dumps({"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}).encode(),
    ],
)
def test_a_header_of_weights_that_cannot_be_is_refused(run, copied, command, header):
    folder = copied()
    data = struct.pack("<Q", len(header)) + header + bytes(8)
    (folder / "model.safetensors").write_bytes(data)
    result = run(command, folder)
    assert result.code == 1
    assert "model.safetensors" in result.err
    assert_told(result)


def test_a_messages_file_nested_deep_is_refused(cli, copied, tmp_path):
    (tmp_path / "chat.json").write_text(DEEP)
    result = cli("tokenize", "--chat", "--file", tmp_path / "chat.json", "-m", copied())
    assert result.code in (1, 2)
    assert_told(result)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
    ],
)
def test_a_chat_template_that_loops_for_ever_ends_after_some_seconds(
    run, copied, template, monkeypatch
):
    monkeypatch.setattr("decodecli.models.chat_template._SECONDS", 0.5)
    folder = copied()
    write_value(folder / "tokenizer_config.json", ("chat_template",), json.dumps(template))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    result = run("chat", folder)
    assert result.code == 1
    assert "chat template" in result.err
    assert_told(result)


def test_a_template_that_loops_over_a_system_message_is_not_told_as_one_that_takes_none(
    cli, copied, monkeypatch
):
    monkeypatch.setattr("decodecli.models.chat_template._SECONDS", 0.5)
    folder, loop = (
        copied(),
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    )
    template = "{{ messages[-1].content }}{% if messages[1] %}" + loop + "{% endif %}"
    write_value(folder / "tokenizer_config.json", ("chat_template",), json.dumps(template))
    with at_once():
        result = cli("generate", "Hi", "-m", folder, "--system", "Be brief.", *RUN)
    result.refused(1, "chat template", "did not come to an end")
    assert "takes no system message" not in result.err


def test_a_pipe_in_place_of_a_folder_is_refused(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    run("generate", tmp_path / "pipe").refused(1, "pipe is a file, not a model folder")


class Harmful:
    """What a pickle may hold: code that runs when it is loaded."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


@pytest.mark.parametrize(
    "lead",
    [
        (
            "model.safetensors.index.json",
            ("weight_map",),
            '{"lm_head.weight": "pytorch_model.bin"}',
        ),
        ("config.json", ("transformers_weights",), '"pytorch_model.bin"'),
        ("adapter_config.json", ("peft_type",), '"LORA"'),
    ],
)
def test_no_file_of_the_folder_leads_to_a_pickle(run, copied, tmp_path, lead):
    folder = copied()
    file, keys, text = lead
    write_value(folder / file, keys, text)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    for name in ("pytorch_model.bin", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Harmful(tmp_path / "ran")))
    result = run("generate", folder)
    assert result.code == 1
    assert "--allow-pickle" in result.err
    assert not (tmp_path / "ran").exists()


def with_tokenizer(folder: Path, **parts: object) -> Path:
    """Replace parts of tokenizer.json, and let it be taken as it stands."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def split(pattern: str) -> dict:
    kind = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": kind, "normalizer": None}


@pytest.mark.parametrize("command", ["generate", "tokenize", "inspect"])
def test_a_tokenizer_that_backtracks_without_end_is_told_in_a_line(run, copied, capfd, command):
    folder = with_tokenizer(copied(), **split("(a+)+b"))
    result = run(command, folder, "a" * 200)
    assert result.code == 1
    assert "tokenizer" in result.err
    assert "retry-limit" in result.err
    assert_told(result)
    assert capfd.readouterr().err == "", "what Rust printed when it panicked"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["generate", "tokenize"])
def test_a_tokenizer_that_does_not_end_is_stopped(shell, copied, command):
    folder = with_tokenizer(copied(), **split(r"a*a*a*[bc]\d"))
    result = shell(f"decodecli {command} {'a' * 1200}b -m {folder}", timeout=60)
    assert result.code == 1
    assert "did not come to an end" in result.err
    assert_told(result)


@pytest.mark.parametrize("command", ["generate", "tokenize"])
def test_a_wordpiece_tokenizer_without_its_unknown_token_is_told_in_a_line(run, copied, command):
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {"a": 0, "b": 1}}  # fmt: skip
    folder = with_tokenizer(copied(), model=model, added_tokens=[], post_processor=None)
    result = run(command, folder)
    assert result.code == 1
    assert "[UNK]" in result.err
    assert_told(result)


# Any JSON value in any known key

JUNK_WORDS = (
    "-1", "0", "1e999", "1000000000",
    "NaN", "[[1]]", '""', "null", "true", "{}", "[]", "-3", "0.5", '"x"',
)  # fmt: skip
JUNK = st.one_of(
    st.sampled_from(
        (
            DEEP,
            HUGE,
            *JUNK_WORDS,
            '{"x": null}',
            '[{"a": [1]}]',
            '"\\ud800"',
        )
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ).map(json.dumps),
)


def known_keys() -> list[tuple[str, tuple[str, ...]]]:
    """Files of a model folder with the keys that transformers knows in them."""
    import transformers as t

    config, generation = t.LlamaConfig(), t.GenerationConfig()
    keys = [("config.json", (key,)) for key in {*vars(config), *config.to_dict()}]
    keys += [
        ("config.json", (key,))
        for key in (
            "sliding_window", "layer_types", "quantization_config", "text_config", "auto_map",
            "attention_chunk_size", "num_labels", "per_layer_config", "is_causal",
            "transformers_weights", "torch_dtype", "rope_scaling", "rope_theta", "num_experts",
            "attn_implementation", "use_return_dict", "vision_config", "name_or_path",
        )
    ]  # fmt: skip
    keys += [
        ("config.json", ("rope_parameters", key)) for key in ("rope_type", "rope_theta", "factor")
    ]
    keys += [("generation_config.json", (key,)) for key in vars(generation)]
    keys += [
        ("tokenizer_config.json", (key,))
        for key in (
            "tokenizer_class", "model_max_length", "added_tokens_decoder", "extra_special_tokens",
            "additional_special_tokens", "chat_template", "bos_token", "eos_token", "unk_token",
            "pad_token", "padding_side", "truncation_side", "add_bos_token", "add_prefix_space",
            "model_input_names", "auto_map", "legacy", "clean_up_tokenization_spaces", "processor_class",
            "model_specific_special_tokens", "max_length", "stride", "backend",
        )
    ]  # fmt: skip
    keys += [
        ("tokenizer.json", (key,))
        for key in (
            "model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens",
            "truncation", "padding", "version",
        )
    ]  # fmt: skip
    keys += [("tokenizer.json", ("model", key)) for key in ("type", "vocab", "merges", "unk_token")]
    keys += [("model.safetensors.index.json", (key,)) for key in ("weight_map", "metadata")]
    keys += [(name, ("x",)) for name in ("special_tokens_map.json", "added_tokens.json")]
    keys += [("chat_template.json", ("chat_template",)), ("adapter_config.json", ("peft_type",))]
    return sorted(keys)


KEYS = st.deferred(lambda: st.sampled_from(known_keys()))


def check_any_folder(cli, tiny_folder, tmp_path, edits, command) -> None:
    folder = tmp_path / "hostile"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_folder, folder)
    for (name, keys), text in edits:
        with contextlib.suppress(ValueError, RecursionError):  # broken by an edit before
            write_value(folder / name, keys, text)
    with at_once():
        assert_told(cli(*(folder if word is ... else word for word in COMMANDS[command])))


EDITS = st.lists(st.tuples(KEYS, JUNK), min_size=1, max_size=2)
ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=40, **ANY)
@given(EDITS, st.sampled_from(sorted(COMMANDS)))
def test_any_value_in_any_key_is_taken_or_told(cli, tiny_folder, tmp_path, edits, command):
    check_any_folder(cli, tiny_folder, tmp_path, edits, command)


@pytest.mark.slow
@settings(max_examples=1500, **ANY)
@given(EDITS, st.sampled_from(sorted(COMMANDS)))
def test_many_values_in_many_keys_are_taken_or_told(cli, tiny_folder, tmp_path, edits, command):
    check_any_folder(cli, tiny_folder, tmp_path, edits, command)
