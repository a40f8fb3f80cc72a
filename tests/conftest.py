"""Tiny random models of several architectures, and the built-in model, each made once a session."""

from __future__ import annotations

# ruff: noqa: E402
import os

# Before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
for name in [name for name in os.environ if name.startswith("DECODECLI_")]:
    del os.environ[name]

import signal
from functools import cache
from pathlib import Path

import pytest

# Started in the background or by nohup, the tests' own processes would have these ignored too.
for name in ("SIGINT", "SIGHUP"):
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        handler = signal.default_int_handler if name == "SIGINT" else lambda *_: None
        signal.signal(getattr(signal, name), handler)

ARCHITECTURES = ("llama", "gpt2", "qwen3", "mistral", "gemma2", "mamba")


@cache
def builtin_tokenizer():
    from transformers import AutoTokenizer

    from decodecli.builtin import model_path

    return AutoTokenizer.from_pretrained(model_path(), local_files_only=True)


def tiny_config(architecture: str, vocab: int):
    """A configuration of two small layers with sliding windows and soft caps where there are any."""
    import transformers as t

    sizes = {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if architecture == "llama":
        return t.LlamaConfig(**sizes)
    if architecture == "gpt2":
        return t.GPT2Config(
            vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=128,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
    if architecture == "qwen3":
        return t.Qwen3Config(**sizes)
    if architecture == "mistral":
        return t.MistralConfig(**sizes, sliding_window=8)
    if architecture == "gemma2":
        return t.Gemma2Config(**sizes, sliding_window=8, query_pre_attn_scalar=8)
    if architecture == "mamba":
        return t.MambaConfig(
            vocab_size=vocab, hidden_size=32, state_size=8, num_hidden_layers=2,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
    raise ValueError(architecture)


@cache
def tiny_network(architecture: str):
    """A random model whose distributions are neither flat nor certain."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(architecture, len(builtin_tokenizer()))
    torch.manual_seed(11)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        head = network.get_output_embeddings().weight
        head.copy_(torch.randn(head.shape) * 0.6)
    return network


@pytest.fixture(scope="session", params=ARCHITECTURES)
def tiny_lm(request):
    from decodecli.models.loading import LanguageModel

    return LanguageModel.wrap(tiny_network(request.param), builtin_tokenizer(), request.param)


@pytest.fixture(scope="session")
def llama_lm():
    from decodecli.models.loading import LanguageModel

    return LanguageModel.wrap(tiny_network("llama"), builtin_tokenizer(), "llama")


@pytest.fixture(scope="session")
def lm():
    """The built-in model."""
    import decodecli

    return decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny Llama saved as an ordinary transformers folder, with the built-in tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny_network("llama").save_pretrained(folder)
    builtin_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_user_folder(tmp_path, monkeypatch):
    """No test reads the configuration of the person who runs it, or writes to their cache."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DECODECLI_CACHE", str(tmp_path / "cache"))
