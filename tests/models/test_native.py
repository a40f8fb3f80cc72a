"""Known architectures without transformers: what is not imported, and that the same is computed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as t
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from known_models import CONFIGS, network
from tokenizer_families import KINDS as KINDS_OF_TOKENIZERS
from tokenizer_families import TEXTS, make

import decodecli
from decodecli.models import native, supported
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.model_files import read_json
from decodecli.models.runner import ModelRunner
from decodecli.models.tokenizer import _REBUILT, light_tokenizer, load_transformers_tokenizer
from decodecli.settings import LoadParams

# What takes longer to import than torch alone needs.
HEAVY = ("transformers", "torch._dynamo", "torch._inductor", "sympy", "scipy", "pandas")
RUN = """
import sys
sys.argv = ["decodecli", *sys.argv[1:]]
from decodecli.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted(name for name in {heavy} if name in sys.modules), sep=",")
"""


def imported(*arguments: str) -> list[str]:
    """Which of `HEAVY` a command imports."""
    run = subprocess.run(
        [sys.executable, "-c", RUN.format(heavy=HEAVY), *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.splitlines()[-1].split(",")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "-n", "3", "Once"),
        (
            "generate",
            "-n",
            "3",
            "Once",
            "--dtype",
            "bfloat16",
            "--num-samples",
            "2",
            "--top-k",
            "5",
        ),
        ("inspect-logits", "Once", "--format", "json"),
        ("inspect-logits", "Once upon", "--all-positions", "--format", "csv"),
        ("tokenize", "Once"),
        ("embed", "king", "queen", "--format", "csv"),
    ],
    ids=" ".join,
)
def test_the_built_in_model_runs_without_transformers(arguments) -> None:
    assert imported(*arguments) == [""]


def test_a_sweep_runs_without_transformers(tmp_path) -> None:
    out = ("--out", str(tmp_path / "sweep"), "--no-plots")
    found = imported("sweep", "Once", "-t", "0.5,1", "--seeds", "0..1", "-n", "3", *out)
    assert found == [""]


def test_the_transformers_objects_are_made_when_asked_for() -> None:
    code = """
import sys, decodecli
lm = decodecli.load("builtin", device="cpu")
run = decodecli.generate(lm, "Once", decodecli.SamplingParams(max_new_tokens=5, seed=0))
assert "transformers" not in sys.modules
assert lm.tokenizer("Once")["input_ids"] == lm.codec("Once")["input_ids"]
assert lm.tokenizer is lm.codec and "transformers" in sys.modules
assert "transformers.modeling_utils" not in sys.modules
assert type(lm.model).__name__ == "LlamaForCausalLM" and lm.model is lm.model
again = decodecli.generate(lm, "Once", decodecli.SamplingParams(max_new_tokens=5, seed=0))
assert run.summary.token_ids == again.summary.token_ids
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_changed_in_the_transformers_model_is_what_runs() -> None:
    lm = decodecli.load("builtin", device="cpu")
    before = lm.runner().prefill([5, 6])
    with torch.no_grad():
        lm.model.model.norm.weight.mul_(2)
    torch.testing.assert_close(lm.runner().prefill([5, 6]), 2 * before)
    lm.model.model.layers[0].register_forward_hook(lambda *_: None)
    assert "hooked" in str(lm.runner().fallback_reason)


def test_both_loaders_say_the_same_of_a_model(tiny_folder) -> None:
    for name in ("builtin", str(tiny_folder)):
        ours, theirs = (
            decodecli.load(name, device="cpu", loader=loader) for loader in ("auto", "transformers")
        )
        assert ours.loader.startswith("native")
        assert theirs.loader == "transformers: --loader transformers"
        for field in ("info", "context", "eos_ids", "bos_id", "notices"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert ours.runner().fallback_reason is None
        assert theirs.runner().fallback_reason == "--loader transformers"


@pytest.mark.parametrize("kind", supported.DEFAULTS)
def test_the_defaults_are_those_of_transformers(kind) -> None:
    theirs = t.AutoConfig.for_model(kind)
    for name, value in supported.DEFAULTS[kind].items():
        default = getattr(type(theirs), name, value)
        assert default == value, name
    unknown = {
        name
        for name, value in theirs.to_dict().items()
        if not (
            name in supported.DEFAULTS[kind]
            or name in supported._IGNORED
            or supported._FIXED.get(name, ...) == value
        )
    }
    assert not unknown - {"rope_theta"}


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint("it", folder, None, read_json(folder / "config.json"), 0)


def planned(folder: Path, dtype: torch.dtype = torch.float32):
    """Our forward pass on a folder; raises UnsupportedModel."""
    config, stored = native.plan(LoadParams(str(folder)), checkpoint(folder), "none", None)
    return native.read(config, stored, "cpu", dtype)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_logits_are_those_of_transformers_bit_for_bit(name, dtype, tmp_path) -> None:
    network(CONFIGS[name]).save_pretrained(tmp_path)
    model = t.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()
    forward, parameters = planned(tmp_path, dtype)
    assert parameters == model.num_parameters()
    ours, theirs = ModelRunner(forward), ModelRunner(model, fallback_reason="the oracle")
    for length in (1, 2, 7, 40):
        prompt = [(7 * i) % 290 + 3 for i in range(length)]
        tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.02}
        torch.testing.assert_close(ours.prefill(prompt), theirs.prefill(prompt), **tolerance)
        for token in (5, 9, 11):
            step = torch.tensor([[token]])
            torch.testing.assert_close(ours.step(step), theirs.step(step), **tolerance)
    ids = [(7 * i) % 290 + 3 for i in range(40)]
    torch.testing.assert_close(ours.all_logits(ids), theirs.all_logits(ids), **tolerance)


# What a config.json may say, beside the sizes, in any of its spellings.
WINDOWS = st.sampled_from((None, 1, 2, 3, 8, 100))
KINDS = st.sampled_from(("full_attention", "sliding_attention", "chunked_attention"))
ROPE = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(("default", "linear", "dynamic", "yarn", "llama3", "longrope"))},
    optional={
        "rope_theta": st.sampled_from((100.0, 10000, 5e5)),
        "factor": st.sampled_from((1.0, 3.0, 8.0)),
        "partial_rotary_factor": st.sampled_from((0.5, 1.0)),
        "original_max_position_embeddings": st.sampled_from((16, 64)),
        "low_freq_factor": st.just(1.0),
        "high_freq_factor": st.sampled_from((4.0, 8.0)),
        "attention_factor": st.sampled_from((0.7, 1.3)),
        "beta_fast": st.sampled_from((16, 32.0)),
        "mscale": st.just(0.7),
        "mscale_all_dim": st.just(1.2),
        "truncate": st.booleans(),
    },
)
SAID = {
    "tie_word_embeddings": st.booleans(),
    "use_cache": st.booleans(),
    "sliding_window": WINDOWS,
    "layer_types": st.lists(KINDS, min_size=2, max_size=2),
    "attention_chunk_size": st.sampled_from((None, 4)),
    "is_causal": st.booleans(),
    "num_kv_shared_layers": st.sampled_from((0, 1)),
    "final_logit_softcapping": st.sampled_from((None, 5.0)),
    "pad_token_id": st.sampled_from((None, 0, 3)),
    "architectures": st.sampled_from((None, [])),
}
LLAMAS = SAID | {
    "rope_parameters": ROPE,
    "rope_scaling": ROPE.map(lambda rope: {**rope, "type": rope["rope_type"]}),
    "rope_theta": st.sampled_from((100.0, 1e6)),
    "partial_rotary_factor": st.sampled_from((0.5, 1.0)),
    "head_dim": st.sampled_from((None, 4, 7, 16)),
    "num_key_value_heads": st.sampled_from((None, 1, 2, 3, 4)),
    "hidden_act": st.sampled_from(("silu", "swish", "gelu", "relu", "gelu_pytorch_tanh", "tanh")),
    "attention_bias": st.booleans(),
    "mlp_bias": st.booleans(),
    "rms_norm_eps": st.sampled_from((1e-6, 0.1)),
    "max_position_embeddings": st.sampled_from((16, 512)),
    "pretraining_tp": st.sampled_from((1, 2)),
    "use_sliding_window": st.booleans(),
    "max_window_layers": st.integers(0, 3),
    "original_max_position_embeddings": st.just(32),
}
GPT2S = SAID | {
    "scale_attn_weights": st.booleans(),
    "scale_attn_by_inverse_layer_idx": st.booleans(),
    "reorder_and_upcast_attn": st.booleans(),
    "add_cross_attention": st.booleans(),
    "n_inner": st.sampled_from((None, 24)),
    "activation_function": st.sampled_from(("gelu_new", "relu", "gelu", "quick_gelu")),
    "layer_norm_epsilon": st.sampled_from((1e-5, 0.1)),
    "rope_theta": st.just(100.0),
}
LLAMA_SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 256}


@st.composite
def said(draw) -> dict:
    """The values of a config.json."""
    kind = draw(st.sampled_from(sorted(supported.DEFAULTS)))
    sizes, known = (GPT2_SIZES, GPT2S) if kind == "gpt2" else (LLAMA_SIZES, LLAMAS)
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=5, unique=True))
    return {"model_type": kind, **sizes, **{name: draw(known[name]) for name in names}}


def check(folder: Path, values: dict, prompt: list[int]) -> bool:
    """The logits of a folder with this config.json are transformers'; whether it is run here."""
    for file in folder.iterdir():
        file.unlink()
    try:
        model = network(t.AutoConfig.for_model(**copy.deepcopy(values)))
        model.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(values))
        model = t.AutoModelForCausalLM.from_pretrained(folder).eval()
        theirs = ModelRunner(model, fallback_reason="the oracle")
        expected = [theirs.prefill(prompt)]
        expected += [theirs.step(torch.tensor([[token]])) for token in (7, 9, 11, 3, 20)]
    except Exception:  # transformers refuses this configuration, in its own way for each
        assume(False)
    try:
        forward, parameters = planned(folder)
    except supported.UnsupportedModel:
        return False
    ours = ModelRunner(forward)
    found = [ours.prefill(prompt)]
    found += [ours.step(torch.tensor([[token]])) for token in (7, 9, 11, 3, 20)]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=1e-5, atol=1e-5)
    assert parameters == model.num_parameters()
    assert forward.config.context == values.get(
        "n_positions", values.get("max_position_embeddings")
    )
    return True


PROMPTS = st.lists(st.integers(3, 60), min_size=1, max_size=24)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(said(), PROMPTS)
def test_whatever_a_config_json_says_the_logits_are_those_of_transformers(
    tmp_path, values, prompt
) -> None:
    check(tmp_path, values, prompt)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(said(), PROMPTS)
def test_many_config_json_give_the_logits_of_transformers(tmp_path, values, prompt) -> None:
    check(tmp_path, values, prompt)


@pytest.mark.parametrize(
    ("kind", "values", "run_here"),
    [
        ("llama", {}, True),
        ("llama", {"attention_bias": True, "mlp_bias": True}, True),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 100.0}, True),
        ("llama", {"sliding_window": 8}, False),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
        ("llama", {"residual_multiplier": 1.0}, False),
        ("mistral", {"sliding_window": 8}, True),
        ("mistral", {"sliding_window": 1}, False),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, True),
        ("qwen2", {"final_logit_softcapping": 5.0}, False),
        ("qwen3", {"head_dim": 16, "attention_bias": True}, True),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 24}, True),
        ("gpt2", {"is_causal": False}, False),
    ],
)
def test_these_are_run_here_and_those_are_not(kind, values, run_here, tmp_path) -> None:
    sizes = GPT2_SIZES if kind == "gpt2" else LLAMA_SIZES
    assert check(tmp_path, {"model_type": kind, **sizes, **values}, [5, 6, 7] * 5) == run_here


@pytest.mark.parametrize("kind", KINDS_OF_TOKENIZERS)
@pytest.mark.parametrize("model_type", supported.DEFAULTS)
@pytest.mark.parametrize(
    "switch", [{}, {"add_bos_token": True}, {"add_eos_token": True}, {"split_special_tokens": True}]
)
def test_the_ids_and_texts_are_those_of_transformers(kind, model_type, switch, tmp_path) -> None:
    make(kind).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | switch))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = light_tokenizer(tmp_path, "it")
    assert (ours is None) == (model_type == "qwen2" or "split_special_tokens" in switch)
    if ours is None:
        return
    theirs = load_transformers_tokenizer(tmp_path, "it", trust_remote_code=False)
    for text in (*TEXTS, "Once upon <s>a time</s>", " x", "a<|eot_id|>b", ""):
        for special in (True, False):
            ids = ours(text, add_special_tokens=special)["input_ids"]
            assert ids == theirs(text, add_special_tokens=special)["input_ids"]
            for skipped in (True, False):
                assert ours.decode(ids, skipped) == theirs.decode(
                    ids, skip_special_tokens=skipped, clean_up_tokenization_spaces=False
                )
    for role in ("bos_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(ours, role) == getattr(theirs, role)


def test_the_model_types_whose_tokenizers_are_rebuilt_are_those_of_transformers() -> None:
    from transformers.models.auto import tokenization_auto as auto

    general = ("TokenizersBackend", "PythonBackend", "PreTrainedTokenizer", "MistralCommonBackend")
    named = {
        kind: (auto.TOKENIZER_MAPPING_NAMES.get(kind) or "TokenizersBackend").removesuffix("Fast")
        for kind in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    }
    assert {kind for kind, name in named.items() if name not in general} == set(_REBUILT)


@pytest.mark.parametrize("name", ["llama", "llama, biases", "qwen3, wide heads", "gpt2"])
def test_a_large_model_is_packed_as_it_goes_and_computes_the_same(
    name, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(native, "_SMALL", 0)
    network(CONFIGS[name]).save_pretrained(tmp_path)
    model = t.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    forward, parameters = planned(tmp_path, torch.bfloat16)
    assert parameters == model.num_parameters()
    ours, theirs = ModelRunner(forward), ModelRunner(model, fallback_reason="the oracle")
    runs = []
    for runner in (theirs, ours, ours):  # packed on the way, then packed from the start
        logits = [runner.prefill([5, 6, 7])]
        logits += [runner.step(torch.tensor([[token]])) for token in range(10, 40)]
        runs.append(torch.cat(logits))
    torch.testing.assert_close(runs[1], runs[0], rtol=0, atol=0.02)
    assert torch.equal(runs[1], runs[2])


RESIDENT = r"""
import re, sys, torch
from pathlib import Path
from decodecli.models import native
native._SMALL = 0
import decodecli

def resident():
    status = Path("/proc/self/status").read_text()
    kinds = re.findall(r"Rss(?:Anon|File):\s+(\d+)", status)
    return [int(kind) * 1024 for kind in kinds]

before = resident()
runner = decodecli.load(sys.argv[1], device="cpu", dtype="bfloat16").runner()
runner.prefill([5, 6, 7])
for anonymous, file in [resident()]:
    print(anonymous - before[0], file - before[1])
for token in range(40):
    runner.step(torch.tensor([[token]]))
for anonymous, file in [resident()]:
    print(anonymous - before[0], file - before[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs a CPU with AVX512"
)
def test_weights_of_bfloat16_are_mapped_and_once_packed_not_held_twice(tmp_path) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4,
             "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32768}  # fmt: skip
    config = t.LlamaConfig(**sizes, tie_word_embeddings=True)
    model = t.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    make("byte_level").save_pretrained(tmp_path)
    weights = 2 * model.num_parameters()
    run = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    (anonymous, mapped), after = (map(int, line.split()) for line in run.stdout.splitlines())
    assert anonymous < 0.1 * weights
    assert mapped > 0.8 * weights
    assert sum(after) < 1.3 * weights  # with what the libraries take, 35 MB


def test_bfloat16_is_at_least_as_close_to_float32_as_transformers_is():
    """Mean KL divergence from the float32 model, on the same weights, over 200 prompts."""
    exact, theirs = (
        decodecli.load("builtin", device="cpu", dtype=dtype, loader="transformers").model
        for dtype in ("float32", "bfloat16")
    )
    ours = decodecli.load("builtin", device="cpu", dtype="bfloat16", quantize="none")
    generator = torch.Generator().manual_seed(0)
    divergences = []
    for number in range(200):
        ids = torch.randint(3, ours.info.vocab_size, (1, 4 + number % 20), generator=generator)
        with torch.inference_mode():
            rows = [model(ids).logits[0, -1] for model in (exact, theirs)]
        rows.append(ours.runner().prefill(ids[0].tolist())[0])
        p, *others = (row.double().log_softmax(-1) for row in rows)
        divergences.append([float((q.exp() * (q - p)).sum()) for q in others])
    of_theirs, of_ours = torch.tensor(divergences).mean(0).tolist()
    assert of_ours <= of_theirs
