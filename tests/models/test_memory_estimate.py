"""What a model needs, told from headers alone, against what a loaded one holds."""

from __future__ import annotations

import pytest
import torch
from conftest import ARCHITECTURES, builtin_tokenizer, tiny_network
from hypothesis import given
from hypothesis import strategies as st

import decodecli
from decodecli.errors import LoadError, UsageError
from decodecli.models import load_errors, machine, quantization, supported
from decodecli.models import memory_estimate as fit
from decodecli.models.checkpoint import find_checkpoint
from decodecli.models.forward import build_forward
from decodecli.settings import LoadParams

SCHEMES = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4"},
}
LARGE = machine.DeviceMemory("cpu", "made up", 2**50, 2**50)


def headers(folder) -> fit.Headers:
    return fit.Headers.of(find_checkpoint(LoadParams(str(folder))))


def mixture():
    """A mixture of experts, whose experts transformers holds as one tensor."""
    import transformers as t

    config = t.MixtralConfig(
        vocab_size=len(builtin_tokenizer()), hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
        max_position_embeddings=128,
    )  # fmt: skip
    return t.MixtralForCausalLM(config)


@pytest.fixture(scope="module", params=[*(a for a in ARCHITECTURES if a != "mamba"), "mixture"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp(request.param)
    network = mixture() if request.param == "mixture" else tiny_network(request.param)
    network.save_pretrained(made)
    builtin_tokenizer().save_pretrained(made)
    return made


def weights_of(model) -> int:
    """Bytes of a loaded model's weights with their scales, whatever they are wrapped in."""
    tensors, layout = quantization._disassemble(model)
    offsets = sum("nested_offset" in layer.get("state", ()) for layer in layout["layers"].values())
    buffers = {name for name, _ in model.named_buffers()}
    return 4 * offsets + sum(t.nbytes for name, t in tensors.items() if name not in buffers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_are_told_to_the_byte(scheme, folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    lm = decodecli.load(str(folder), device="cpu", **({"quantize": "none"} | SCHEMES[scheme]))
    told = {s.scheme: s for s in fit.estimate(headers(folder), LARGE).schemes}
    assert told[scheme].weights == weights_of(lm.model)
    assert fit.estimate(headers(folder), LARGE).parameters == lm.model.num_parameters() or (
        SCHEMES[scheme].get("quantize")
    )


@pytest.mark.parametrize("positions", [5, 40, 128])
def test_the_cache_is_told_as_transformers_keeps_it(positions, folder):
    lm = decodecli.load(str(folder), device="cpu", dtype="float32")
    with torch.inference_mode():
        kept = lm.model(torch.ones((1, positions), dtype=torch.long)).past_key_values
    held = sum(t.numel() * t.itemsize for layer in kept.layers for t in (layer.keys, layer.values))
    told = fit.estimate(headers(folder), LARGE, positions).schemes[0].kv_cache
    window = getattr(lm.model.config, "sliding_window", None)
    if lm.model.config.model_type in fit.WRITTEN_OUT:  # the engine keeps what is outside, too
        held = held * positions // min(positions, (window or positions + 1) - 1)
        window = None
    # A full window keeps one position less than it is wide: the next token is the last of it.
    spare = 1 / (window or 1) if window and positions >= window else 0
    assert held <= told <= held * (1 + 2 * spare)


@pytest.mark.parametrize("architecture", ["mistral", "qwen3", "gpt2"])
def test_the_cache_is_told_as_the_engine_keeps_it_where_it_runs_the_steps(architecture, tmp_path):
    network = tiny_network(architecture)
    network.save_pretrained(tmp_path)
    builtin_tokenizer().save_pretrained(tmp_path)
    with torch.inference_mode():
        _, cache = build_forward(network).prefill(torch.ones((1, 40), dtype=torch.long))
    held = sum(tensor.nbytes for tensors in cache.tensors() for tensor in tensors)
    assert fit.estimate(headers(tmp_path), LARGE, 40).schemes[0].kv_cache == held


def test_every_architecture_that_is_written_out_is_known():
    import transformers

    known = supported.ARCHITECTURES.values()
    types = {getattr(transformers, name).config_class.model_type for name in known}
    assert types == set(fit.WRITTEN_OUT)


def test_layers_without_attention_keep_nothing_that_grows(tmp_path):
    tiny_network("mamba").save_pretrained(tmp_path)
    builtin_tokenizer().save_pretrained(tmp_path)
    assert fit.estimate(headers(tmp_path), LARGE).schemes[0].kv_cache == 0


def config(**values):
    from types import SimpleNamespace

    usual = {"num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 32}
    return SimpleNamespace(**usual | values)


def test_known_models_need_what_is_known():
    llama3 = config(num_key_value_heads=8)
    assert fit.kv_cache_bytes(llama3, 8192, 2) == 2**30  # Llama 3 8B at 8,192: 1 GiB
    assert fit.kv_cache_bytes(config(), 4096, 2) == 2 * 2**30  # Llama 2 7B: 2 GiB
    latent = config(kv_lora_rank=512, qk_rope_head_dim=64, num_hidden_layers=61)
    assert fit.kv_cache_bytes(latent, 1000, 2) == 61 * 576 * 1000 * 2  # DeepSeek V3


@given(positions=st.integers(1, 10**6), window=st.integers(1, 10**5), layers=st.integers(1, 80))
def test_a_window_bounds_the_cache(positions, window, layers):
    full = fit.kv_cache_bytes(config(num_hidden_layers=layers), positions, 2)
    slid = fit.kv_cache_bytes(config(num_hidden_layers=layers, sliding_window=window), positions, 2)
    assert slid == full * min(positions, window) // positions
    mixed = config(
        layer_types=["full_attention", "sliding_attention", "linear_attention"],
        sliding_window=window,
    )
    one = full // layers
    assert (
        fit.kv_cache_bytes(mixed, positions, 2) == one + one * min(positions, window) // positions
    )


def test_double_quantization_costs_4_127_bits_a_weight():
    count = 4096 * 14336
    assert fit._layer_bytes("nf4", 14336, 4096, packed=False) * 8 / count == pytest.approx(
        4.127, abs=0.001
    )
    assert fit._layer_bytes("nf4", 14336, 4096, packed=True) * 8 / count == pytest.approx(
        4.25, abs=0.001
    )


def test_headroom_is_what_is_left_and_decides(tiny_folder):
    found = fit.estimate(headers(tiny_folder), LARGE)
    exact = found.schemes[0].total
    for free, fits in ((exact, True), (exact - 1, False)):
        again = fit.estimate(headers(tiny_folder), machine.DeviceMemory("cpu", "", free, free))
        assert again.schemes[0].fits is fits
        assert again.schemes[0].headroom == free - exact


def test_the_context_is_4096_or_the_models_own(tiny_folder):
    assert fit.estimate(headers(tiny_folder), LARGE).context == 128
    assert fit.estimate(headers(tiny_folder), LARGE, 7).context == 7
    with pytest.raises(UsageError, match="128 positions"):
        fit.estimate(headers(tiny_folder), LARGE, 129)


def test_advice_names_the_most_exact_scheme_that_fits(tiny_folder):
    found = headers(tiny_folder)
    totals = {s.scheme: s.total for s in fit.estimate(found, LARGE).schemes}

    def advice(free: int) -> str:
        return fit.what_fits(found, machine.DeviceMemory("cuda:0", "", free, free))

    assert advice(totals["float32"]).startswith("--dtype float32 needs 0.5 of the 0.5 GiB free")
    assert advice(totals["bfloat16"]).startswith("--dtype bfloat16")
    assert advice(min(totals.values())).startswith("--quantize")
    assert advice(1000).startswith("even ")


def test_a_checkpoint_that_is_quantized_already_is_taken_as_it_is(tiny_folder):
    found = headers(tiny_folder)
    quantized = fit.Headers(
        "q", found.config | {"quantization_config": {"quant_method": "gptq"}}, found.tensors
    )
    (only,) = fit.estimate(quantized, LARGE).schemes
    assert only.scheme == "gptq"
    assert only.weights == 441_504 * 4


def test_a_configuration_that_nobody_knows_is_refused(tiny_folder):
    found = headers(tiny_folder)
    with pytest.raises(LoadError, match="cannot be understood"):
        fit.estimate(fit.Headers("q", {"model_type": "unheard-of"}, found.tensors), LARGE)


@pytest.mark.parametrize(("device", "installed"), [("mps", True), ("cuda:0", False)])
def test_what_bitsandbytes_cannot_do_is_neither_counted_nor_advised(
    device, installed, tiny_folder, monkeypatch
):
    monkeypatch.setattr(fit, "has_bitsandbytes", lambda: installed)
    found, memory = headers(tiny_folder), machine.DeviceMemory(device, "", 2**50, 2**50)
    told = fit.estimate(found, memory)
    assert [scheme.scheme for scheme in told.schemes] == ["float32", "bfloat16"]
    assert any("bitsandbytes" in words for words in told.assumed)
    smallest = min(scheme.total for scheme in told.schemes)
    assert "bfloat16" in fit.what_fits(found, machine.DeviceMemory(device, "", smallest, smallest))
    assert fit.what_fits(found, memory, failed="bfloat16").startswith("even bfloat16")
    monkeypatch.setattr(machine, "device_memory", None)  # no memory can be told
    said = load_errors.advice(find_checkpoint(LoadParams(str(tiny_folder))), device, "float32")
    assert said == "try --dtype bfloat16, or a smaller model"


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_groups_cached_files_count_as_free(version, tmp_path, monkeypatch):
    total, group = 2**20, tmp_path if version == 2 else tmp_path / "memory"
    group.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current", "")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    (group / names[0]).write_text(f"{total}\n")
    (group / names[1]).write_text(f"{total - 50_000}\n")
    stat = f"anon 7\n{names[2]}inactive_file 300000\n{names[2]}active_file 20000\nfile 320000\n"
    (group / "memory.stat").write_text(stat)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    found = machine.device_memory("cpu")
    assert (found.free, found.total) == (370_000, total)


def test_without_a_control_groups_limit_the_machines_memory_counts(tmp_path, monkeypatch):
    import psutil

    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.device_memory("cpu").total == psutil.virtual_memory().total


def test_this_machines_memory_is_there():
    memory = machine.device_memory("cpu")
    assert 0 < memory.free <= memory.total
