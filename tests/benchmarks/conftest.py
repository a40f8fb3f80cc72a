"""A tiny random model as the benchmark writes and loads one."""

from __future__ import annotations

import pytest

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": None,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


@pytest.fixture(scope="session")
def tiny_shape(tmp_path_factory):
    """The folder of a tiny model of random weights."""
    from benchmarks.shapes import write_model

    return write_model(tmp_path_factory.mktemp("shape") / "tiny", TINY)


@pytest.fixture
def tiny_config():
    return dict(TINY)


@pytest.fixture(scope="session")
def subject(tiny_shape):
    """The tiny model, loaded to be measured with runs of 8 and 2 tokens."""
    from benchmarks.subjects import loaded

    with loaded("tiny", str(tiny_shape), "float32", "cpu", threads=1, quick=True) as found:
        yield found
