"""Any causal model of transformers, from a folder, in each number type that works here."""

from __future__ import annotations

import json
import os

import pytest
import torch
from conftest import ARCHITECTURES, builtin_tokenizer, tiny_network

import decodecli
from decodecli.errors import UsageError
from decodecli.models import loading, machine, native, resolve
from decodecli.models.checkpoint import Checkpoint, find_checkpoint
from decodecli.settings import LoadParams, SamplingParams


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_folder_decodes_like_the_model_in_memory(architecture, tmp_path):
    tiny_network(architecture).save_pretrained(tmp_path)
    builtin_tokenizer().save_pretrained(tmp_path)
    loaded = decodecli.load(str(tmp_path), device="cpu")
    wrapped = loading.LanguageModel.wrap(tiny_network(architecture), builtin_tokenizer())
    params = SamplingParams(max_new_tokens=8, seed=1)
    found, expected = (decodecli.generate(lm, "Once upon", params) for lm in (loaded, wrapped))
    assert found.summary.token_ids == expected.summary.token_ids
    assert loaded.info.parameters == sum(p.numel() for p in tiny_network(architecture).parameters())


def test_the_built_in_model_says_what_auto_became(lm):
    auto = decodecli.load()
    assert (auto.info.name, auto.info.quantize) == ("builtin", "none")
    assert auto.info.dtype == "float32"
    assert lm.context == lm.model.config.max_position_embeddings
    assert lm.info.vocab_size == len(lm.tokenizer)


@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8"])
def test_four_and_eight_bits_work_on_a_cpu(scheme, tiny_folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    lm = decodecli.load(str(tiny_folder), device="cpu", quantize=scheme)
    assert lm.info.quantize == scheme
    assert lm.info.dtype == "bfloat16"
    kinds = {type(module).__name__ for module in lm.model.modules()}
    assert ("Linear8bitLt" if scheme == "int8" else "Linear4bit") in kinds
    run = decodecli.generate(lm, "Once upon", SamplingParams(max_new_tokens=4, temperature=0))
    assert run.summary.new_tokens == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_number_type_decodes(dtype, tiny_folder):
    lm = decodecli.load(str(tiny_folder), device="cpu", dtype=dtype)
    assert lm.model.dtype == getattr(torch, dtype)
    assert (
        decodecli.generate(lm, "hi", SamplingParams(max_new_tokens=3, seed=0)).summary.new_tokens
        == 3
    )


def checkpoint(tmp_path, parameters: int, **config) -> Checkpoint:
    return Checkpoint("m", tmp_path, None, config, parameters)


def test_auto_depends_on_size_device_and_what_is_stored(tmp_path, monkeypatch):
    small = checkpoint(tmp_path, 10_000_000, dtype="bfloat16")
    large = checkpoint(tmp_path, 7_000_000_000, torch_dtype="bfloat16")
    monkeypatch.setattr(resolve, "has_bitsandbytes", lambda: True)
    assert resolve.choose_quantize("auto", "cuda:0", large) == "nf4"
    assert resolve.choose_quantize("auto", "cpu", large) == "none"
    assert resolve.choose_quantize("auto", "cuda:0", small) == "none"
    assert resolve.choose_dtype("auto", "none", small) == "float32"
    assert resolve.choose_dtype("auto", "none", large) == "bfloat16"
    assert resolve.choose_dtype("auto", "nf4", large) == "bfloat16"
    assert resolve.choose_dtype("float16", "nf4", large) == "float16"
    stored = checkpoint(tmp_path, 7_000_000_000, quantization_config={"quant_method": "gptq"})
    assert resolve.choose_quantize("auto", "cuda:0", stored) == "gptq"
    monkeypatch.setattr(resolve, "has_bitsandbytes", lambda: False)
    assert resolve.choose_quantize("auto", "cuda:0", large) == "none"


def test_suggested_sampling_values_are_told_and_not_applied(tiny_folder, tmp_path):
    import shutil

    folder = tmp_path / "suggests"
    shutil.copytree(tiny_folder, folder)
    settings = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "eos_token_id": [7, 9]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    lm = decodecli.load(str(folder), device="cpu")
    assert lm.eos_ids == {7, 9}
    assert any("--temperature 0.6 --top-p 0.9" in notice for notice in lm.notices)
    plain = decodecli.load(str(tiny_folder), device="cpu")
    params = SamplingParams(max_new_tokens=2, seed=3)
    first, second = (decodecli.generate(m, "hi", params).steps[0].as_dict() for m in (lm, plain))
    assert first == second


def test_loading_takes_its_settings_as_one_value_too(tiny_folder):
    params = LoadParams(model=str(tiny_folder), device="cpu", dtype="bfloat16")
    assert decodecli.load(params).info.dtype == "bfloat16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("scheme", ["nf4", "fp4", "int8"])
def test_four_and_eight_bits_work_on_cuda(scheme, tiny_folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    lm = decodecli.load(str(tiny_folder), device="cuda", quantize=scheme)
    run = decodecli.generate(lm, "Once upon", SamplingParams(max_new_tokens=4, temperature=0))
    assert lm.info.device == "cuda:0"
    assert run.summary.new_tokens == 4


def test_an_architecture_that_bitsandbytes_cannot_run_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    tiny_network("mamba").save_pretrained(tmp_path)
    builtin_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(decodecli.DecodecliError, match="does not work"):
        decodecli.load(str(tmp_path), device="cpu", quantize="nf4")


@pytest.fixture
def threads_set(monkeypatch):
    """The numbers of threads that PyTorch was told, instead of telling it."""
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return told


def test_threads_are_set_only_when_asked_for(tiny_folder, threads_set, monkeypatch):
    folder = str(tiny_folder)
    decodecli.load(folder, device="cpu")
    assert threads_set == []
    decodecli.load(folder, device="cpu", threads=2)
    decodecli.load(LoadParams(model=folder, device="cpu", threads=3))
    assert threads_set == [2, 3]
    decodecli.load(folder, device="cpu", auto_threads=True)
    assert threads_set == [2, 3, 1], "a small model works with one"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    decodecli.load(folder, device="cpu", auto_threads=True)
    assert len(threads_set) == 3


@pytest.mark.parametrize("threads", [5, 100_000, 99_999_999_999])
def test_more_threads_than_cpus_are_refused(tiny_folder, threads_set, threads):
    with pytest.raises(UsageError, match=f"--threads must be at most 4.*{threads}"):
        decodecli.load(str(tiny_folder), device="cpu", threads=threads)
    assert threads_set == []


@pytest.mark.parametrize("limit", ["cpu=200KB", "cpu=1"])
def test_what_does_not_fit_under_the_limit_goes_to_disk(limit, tiny_folder):
    whole = decodecli.load(str(tiny_folder), device="cpu")
    lm = decodecli.load(str(tiny_folder), device="cpu", max_memory=limit)
    assert lm.info.device in ("cpu+disk", "disk")
    params = SamplingParams(max_new_tokens=4, temperature=0)
    first, second = (decodecli.generate(m, "Once upon", params) for m in (whole, lm))
    assert first.summary.token_ids == second.summary.token_ids
    assert second.header.model.device == lm.info.device


def test_a_limit_that_is_never_reached_changes_nothing(tiny_folder):
    lm = decodecli.load(str(tiny_folder), device="cpu", max_memory="cpu=1GiB")
    assert lm.info.device == "cpu"


def test_a_limit_for_a_device_that_is_not_there_is_wrong_usage(tiny_folder):
    with pytest.raises(UsageError, match="no CUDA device 99"):
        decodecli.load(str(tiny_folder), max_memory="99=1GiB")


def test_quantized_weights_that_would_have_to_lie_on_disk_are_refused(tiny_folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    with pytest.raises(decodecli.DecodecliError, match="bits must lie whole on"):
        decodecli.load(str(tiny_folder), device="cpu", quantize="nf4", max_memory="cpu=1KB")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("free", "said"),
    [(2**40, "--dtype bfloat16 needs"), ("int8", "--quantize int8 needs"), (10, "even ")],
)
@pytest.mark.parametrize("loader", ["auto", "transformers"])
def test_memory_that_runs_out_at_load_says_what_would_fit(
    error, free, said, loader, tiny_folder, monkeypatch
):
    import transformers

    from decodecli.models import memory_estimate as fit

    def fail(*_, **__):
        raise error

    if free == "int8":
        headers = fit.Headers.of(find_checkpoint(LoadParams(str(tiny_folder))))
        free = fit.estimate(headers, machine.device_memory("cpu")).schemes[2].total
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    monkeypatch.setattr(native, "read", fail)
    monkeypatch.setattr(
        machine,
        "device_memory",
        lambda device: machine.DeviceMemory(device, "", free, free),
    )
    with pytest.raises(decodecli.DecodecliError, match="does not fit into the memory") as caught:
        decodecli.load(str(tiny_folder), device="cpu", dtype="float32", loader=loader)
    assert caught.value.hint.startswith(said)
    assert "GiB" in caught.value.hint


def test_a_loaded_model_knows_what_would_fit_when_decoding_runs_out(tiny_folder, monkeypatch):

    lm = decodecli.load(str(tiny_folder), device="cpu", dtype="bfloat16")
    monkeypatch.setattr(
        machine,
        "device_memory",
        lambda device: machine.DeviceMemory(device, "", 2**40, 2**40),
    )
    assert "--quantize int8 needs" in lm.what_fits()
    wrapped = loading.LanguageModel.wrap(tiny_network("llama"), builtin_tokenizer())
    assert "shorter prompt" in wrapped.what_fits()


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_checkpoint_that_bitsandbytes_saved_is_loaded_as_it_is(
    architecture, scheme, tmp_path, monkeypatch
):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    tiny_network(architecture).save_pretrained(tmp_path / "plain")
    builtin_tokenizer().save_pretrained(tmp_path / "plain")
    first = decodecli.load(str(tmp_path / "plain"), device="cpu", quantize=scheme)
    first.model.save_pretrained(tmp_path / "saved")
    builtin_tokenizer().save_pretrained(tmp_path / "saved")
    with monkeypatch.context() as patch:
        patch.setattr(bitsandbytes.functional, "quantize_4bit", None)
        second = decodecli.load(str(tmp_path / "saved"), device="cpu")
        params = SamplingParams(max_new_tokens=6, temperature=0)
        runs = [decodecli.generate(lm, "Once upon", params) for lm in (first, second)]
    assert (second.info.quantize, second.info.dtype) == ("bitsandbytes", "bfloat16")
    assert second.info.parameters == first.info.parameters
    assert runs[0].summary.token_ids == runs[1].summary.token_ids


@pytest.mark.parametrize(("method", "package"), [("gptq", "gptqmodel"), ("hqq", "hqq")])
def test_a_package_that_a_quantized_checkpoint_needs_is_named(
    method, package, tiny_folder, tmp_path
):
    import importlib.util
    import shutil

    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    folder = tmp_path / "quantized"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(decodecli.DecodecliError, match=f"quantized with {method}") as caught:
        decodecli.load(str(folder), device="cpu")
    assert caught.value.hint == f"pip install {package}"


def test_weights_that_are_not_held_quantized_are_not_said_to_be(tiny_folder, tmp_path):
    import shutil

    folder = tmp_path / "odd"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "unheard-of"}
    (folder / "config.json").write_text(json.dumps(config))
    lm = decodecli.load(str(folder), device="cpu", dtype="float32")
    assert lm.info.quantize == "none"
    assert any("unheard-of" in notice for notice in lm.notices)


def test_local_files_are_loaded_without_asking_the_network(tiny_folder, monkeypatch):
    import socket

    import huggingface_hub.constants

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    params = SamplingParams(max_new_tokens=2, seed=0)
    for model in ("builtin", str(tiny_folder)):
        lm = decodecli.load(model, device="cpu")
        assert decodecli.generate(lm, "Once", params).summary.new_tokens == 2
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    for _ in ("quantized", "from the cache"):
        decodecli.load(str(tiny_folder), device="cpu", quantize="nf4")


IMPORTED = """
import sys
import decodecli
lm = decodecli.load({model!r}, device="cpu", quantize={quantize!r})
decodecli.generate(lm, "Once", decodecli.SamplingParams(max_new_tokens=1, seed=0))
print("bitsandbytes" in sys.modules)
"""


@pytest.mark.parametrize(
    ("quantize", "expected"), [("none", "False"), ("auto", "False"), ("nf4", "True")]
)
def test_bitsandbytes_is_imported_only_for_its_schemes(quantize, expected, tiny_folder):
    import subprocess
    import sys

    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    program = IMPORTED.format(model=str(tiny_folder), quantize=quantize)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [expected]
