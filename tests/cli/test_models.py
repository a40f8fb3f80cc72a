"""Models that cannot be run are refused in a line or two; those that can, say what to know of them."""

from __future__ import annotations

import json
import socket
import sys
import time

import huggingface_hub.constants
import pytest

RUN = ("-n", "2", "--seed", "0")


@pytest.fixture
def refuse(cli):
    def run(model, code, *words, arguments=()):
        return cli("generate", "Hi", "-m", model, *RUN, *arguments).refused(code, *words)

    return run


# Folders


def test_a_missing_folder_is_refused(refuse, tmp_path):
    refuse(tmp_path / "nowhere", 1, "no folder", "nowhere", "builtin")
    refuse("./nowhere", 1, "nowhere")
    refuse("~/nowhere-at-all", 1, "nowhere-at-all")


def test_a_folder_without_a_model_is_refused(refuse, tmp_path):
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", 1, "config.json", "empty")


def test_a_file_is_no_model(refuse, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path / "notes.txt", 1, "notes.txt", "folder")


def test_a_gguf_file_is_refused_by_its_name(refuse, tmp_path):
    (tmp_path / "mistral.gguf").write_bytes(b"GGUF" + bytes(64))
    refuse(tmp_path / "mistral.gguf", 1, "GGUF", "original model")


def test_a_gguf_file_in_capitals_or_unnamed_is_known_too(refuse, tmp_path):
    (tmp_path / "MISTRAL.GGUF").write_bytes(b"GGUF" + bytes(64))
    refuse(tmp_path / "MISTRAL.GGUF", 1, "GGUF file")


def test_a_folder_of_gguf_files_is_refused(refuse, tmp_path):
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "model-q4.gguf").write_bytes(b"GGUF" + bytes(64))
    refuse(folder, 1, "GGUF")


def test_a_lora_adapter_is_refused_and_its_base_model_named(refuse, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base-7b"}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(16))
    refuse(folder, 1, "LoRA adapter", "org/base-7b", "merge")


def test_an_adapter_whose_own_configuration_is_broken_is_still_an_adapter(refuse, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{")
    refuse(folder, 1, "LoRA adapter")


# Weights


def test_truncated_weights_are_refused(refuse, copied):
    folder = copied()
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    refuse(folder, 1, "model.safetensors", "cut short", "again")


@pytest.mark.parametrize("data", [b"", b"\x08", bytes(8), b"\xff" * 64, b"not a safetensors file"])
def test_weights_that_are_no_safetensors_are_refused(refuse, copied, data):
    folder = copied()
    (folder / "model.safetensors").write_bytes(data)
    refuse(folder, 1, "model.safetensors")


def test_an_unfetched_git_lfs_pointer_is_refused(refuse, copied):
    folder = copied()
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12333488\n"
    )
    refuse(folder, 1, "model.safetensors")


def test_missing_weights_are_refused(refuse, copied):
    folder = copied()
    (folder / "model.safetensors").unlink()
    refuse(folder, 1, "no weights")


def test_a_checkpoint_of_pickles_is_refused_unless_allowed(cli, refuse, copied):
    import torch
    from safetensors.torch import load_file

    folder = copied()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refuse(folder, 1, "pickle", "--allow-pickle")
    cli("generate", "Hi", "-m", folder, *RUN, "--allow-pickle").succeeded()


def test_a_pickle_is_not_loaded_though_safetensors_are_there_too(cli, copied):
    folder = copied()
    (folder / "pytorch_model.bin").write_bytes(b"this would fail to load")
    cli("generate", "Hi", "-m", folder, *RUN).succeeded()


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_run_with_random_ones(
    refuse, copied, lost
):
    from safetensors.torch import load_file, save_file

    folder = copied()
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, 1, "weights")


def test_weights_of_another_shape_are_refused(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", intermediate_size=64)
    result = refuse(folder, 1, "weights")
    assert "above" not in result.err, "nothing else was printed"


def test_a_missing_shard_is_refused_by_name(refuse, copied):
    from safetensors.torch import load_file, save_file

    folder = copied()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    shards = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    shards["lm_head.weight"] = "model-00002-of-00002.safetensors"
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(folder, 1, "model-00002-of-00002.safetensors")


def test_weights_in_shards_are_loaded(cli, copied, tiny_folder):
    from safetensors.torch import load_file, save_file

    folder = copied()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({n: weights[n] for n in part}, folder / file, metadata={"format": "pt"})
        shards |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = cli("generate", "Hi", "-m", tiny_folder, *RUN).succeeded()
    assert cli("generate", "Hi", "-m", folder, *RUN).succeeded().raw == whole.raw


# Configuration and tokenizer


@pytest.mark.parametrize("text", ["{", "", "[]", "null", '"a string"', "\xff"])
def test_a_broken_configuration_is_refused(refuse, copied, text):
    folder = copied()
    (folder / "config.json").write_bytes(text.encode("latin1"))
    refuse(folder, 1, "config.json")


def test_an_unknown_architecture_is_refused_by_name(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", model_type="frobnicator", architectures=["FrobForCausalLM"])
    refuse(folder, 1, "frobnicator", "transformers")


def test_a_configuration_that_names_no_architecture_is_refused(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", model_type=None, architectures=None)
    refuse(folder, 1, "architecture")


def test_a_configuration_with_nonsense_in_it_is_refused(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", hidden_size="wide")
    refuse(folder, 1, "hidden_size")


def test_a_model_that_brings_its_own_code_asks_for_trust(refuse, copied, edit_json):
    folder = copied()
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    edit_json(folder / "config.json", model_type="own", auto_map=auto)
    (folder / "own.py").write_text("raise SystemExit('this must not run')\n")
    refuse(folder, 1, "own code", "--trust-remote-code")


def test_a_missing_tokenizer_is_refused(refuse, copied):
    folder = copied()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refuse(folder, 1, "tokenizer", "copy")


def test_a_broken_tokenizer_is_refused(refuse, copied):
    folder = copied()
    (folder / "tokenizer.json").write_text("{}")
    refuse(folder, 1, "tokenizer")


def test_an_encoder_only_model_is_refused(refuse, copied):
    import transformers as t

    folder = copied()
    config = t.BertConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )  # fmt: skip
    t.BertForMaskedLM(config).save_pretrained(folder)
    refuse(folder, 1, "causal", "BertForMaskedLM", "decoder")


def test_an_encoder_decoder_model_is_refused(refuse, copied):
    import transformers as t

    folder = copied()
    config = t.T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1)
    t.T5ForConditionalGeneration(config).save_pretrained(folder)
    refuse(folder, 1, "encoder-decoder", "decoder-only")


# Devices, types, quantization


def test_cuda_without_a_device_is_wrong_usage(refuse, tiny_folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    refuse(tiny_folder, 2, "--device cuda", "CUDA", "cpu", arguments=("--device", "cuda"))
    refuse(tiny_folder, 2, "cuda:3", arguments=("--device", "cuda:3"))


def test_a_cuda_device_beyond_those_there_are_is_wrong_usage(refuse, tiny_folder):
    refuse(tiny_folder, 2, "cuda:99", arguments=("--device", "cuda:99"))


def test_metal_without_a_device_is_wrong_usage(refuse, tiny_folder):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("there is a Metal device here")
    refuse(tiny_folder, 2, "--device mps", "cpu", arguments=("--device", "mps"))


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8"])
def test_quantization_without_bitsandbytes_says_what_to_install(
    refuse, tiny_folder, monkeypatch, scheme
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    words = ("--quantize", scheme, "bitsandbytes", "pip install")
    arguments = ("--quantize", scheme, "--device", "cpu")
    result = refuse(tiny_folder, 1, *words, arguments=arguments)
    assert "none" in result.err


def test_auto_quantization_without_bitsandbytes_is_none(cli, tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    cli("generate", "Hi", "-m", tiny_folder, *RUN, "--quantize", "auto").succeeded()


def test_quantizing_what_is_quantized_already_is_refused(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    arguments = ("--quantize", "nf4")
    refuse(folder, 1, "--quantize nf4", "already quantized", "gptq", arguments=arguments)


def test_a_quantized_checkpoint_whose_package_is_missing_is_refused(refuse, copied, edit_json):
    folder = copied()
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refuse(folder, 1, "gptq", "pip install")


def test_the_type_asked_for_is_the_type_shown(cli, tiny_folder):
    arguments = ("--dtype", "bfloat16", "--device", "cpu", "--format", "jsonl")
    result = cli("generate", "Hi", "-m", tiny_folder, *RUN, *arguments).succeeded()
    assert result.header["model"]["dtype"] == "bfloat16"
    assert "bfloat16" in result.err


def test_half_precision_runs_on_a_cpu(cli, tiny_folder):
    arguments = ("--dtype", "float16", "--device", "cpu", "--format", "jsonl")
    result = cli("generate", "Hi", "-m", tiny_folder, *RUN, *arguments).succeeded()
    assert result.header["model"]["dtype"] == "float16"


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_quantization_on_a_cpu_works_quietly_or_says_why_not(cli, tiny_folder, scheme):
    pytest.importorskip("bitsandbytes")
    arguments = ("--quantize", scheme, "--device", "cpu", "--format", "jsonl", "--quiet")
    result = cli("generate", "Hi", "-m", tiny_folder, *RUN, *arguments)
    if result.code:
        result.refused(1, "--quantize", scheme)
    else:
        assert result.header["model"]["quantize"] == scheme
        assert result.err == ""


def test_loading_says_nothing_of_its_own(cli, tiny_folder):
    result = cli("generate", "Hi", "-m", tiny_folder, *RUN, "--quiet", "--format", "jsonl")
    assert result.succeeded().err == ""


# The hub


def test_a_hub_name_that_is_not_cached_is_refused_at_once_offline(refuse):
    start = time.perf_counter()
    refuse("decodecli-nobody/no-such-model", 1, "no-such-model", "cache", "-m builtin")
    assert time.perf_counter() - start < 10


def test_without_a_network_a_hub_name_is_refused_at_once(refuse, monkeypatch):
    calls = []

    def unreachable(address, *rest, **more):
        calls.append(address)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in (
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    start = time.perf_counter()
    refuse("decodecli-nobody/no-such-model", 1, "no-such-model", "cannot be reached", "connect")
    assert time.perf_counter() - start < 10
    assert len(calls) <= 2, "no retries"


def test_a_dead_proxy_is_told_within_seconds(shell):
    dead = "http://127.0.0.1:9"
    start = time.perf_counter()
    result = shell(
        "unset HF_HUB_OFFLINE; decodecli generate Hi -m decodecli-nobody/no-such-model",
        HTTPS_PROXY=dead, HTTP_PROXY=dead, https_proxy=dead, http_proxy=dead, HF_HOME="hf",
    )  # fmt: skip
    result.refused(1, "no-such-model")
    assert time.perf_counter() - start < 25


@pytest.mark.parametrize(
    "name", ["a/b/c", "what is this", "-x", "../up", "org/", "org/na me", "é/é"]
)
def test_what_is_neither_folder_nor_hub_name_is_refused(cli, name):
    cli("generate", "Hi", f"--model={name}", *RUN).refused(1, name, "folder")


def test_a_cached_hub_model_is_found_offline_and_its_commit_recorded(
    cli, tiny_folder, tmp_path, monkeypatch
):
    import shutil

    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    result = cli("generate", "Hi", "-m", "org/tiny", *RUN, "--format", "jsonl").succeeded()
    assert result.header["model"]["name"] == "org/tiny"
    assert result.header["model"]["revision"] == commit
    result = cli("generate", "Hi", "-m", "org/tiny", *RUN, "--revision", "v2")
    result.refused(1, "org/tiny", "cache")


def test_a_local_folder_goes_before_a_hub_name(cli, copied, monkeypatch):
    folder = copied("gpt2")
    monkeypatch.chdir(folder.parent)
    cli("generate", "Hi", "-m", "gpt2", *RUN).succeeded()
