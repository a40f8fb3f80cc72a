"""Known architectures without transformers: what is not imported, and that the same is computed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as t
from known_models import CONFIGS, network

import decodecli
from decodecli.models import native, supported
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.model_files import read_json
from decodecli.models.runner import ModelRunner
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
