"""Random models: the exact public sizes, and folders that load like any other."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.shapes import SHAPES, made_up_tokenizer, tensor_shapes, write_model
from decodecli.errors import DecodeError


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_as_many_parameters_as_the_public_model(name):
    shape = SHAPES[name]
    tensors = tensor_shapes(shape.config)
    assert sum(map(math.prod, tensors.values())) == shape.parameters
    table = shape.config["vocab_size"] * shape.config.get(
        "hidden_size", shape.config.get("n_embd", 0)
    )
    assert shape.head == (2 * table if "lm_head.weight" in tensors else table)


def test_the_folder_loads_whole_and_gives_finite_logits_that_are_not_flat(subject, tiny_config):
    lm = subject.lm
    assert lm.info.vocab_size == tiny_config["vocab_size"]
    with torch.inference_mode():
        logits = lm.model(torch.tensor([subject.prompt])).logits[0, -1]
    assert bool(torch.isfinite(logits).all())
    assert 0.1 < float(logits.std()) < 20


def test_the_same_seed_writes_the_same_weights(tmp_path, tiny_config):
    first = write_model(tmp_path / "a", tiny_config, seed=1)
    second = write_model(tmp_path / "b", tiny_config, seed=1)
    third = write_model(tmp_path / "c", tiny_config, seed=2)
    read = [(folder / "model.safetensors").read_bytes() for folder in (first, second, third)]
    assert read[0] == read[1] != read[2]


def test_sixteen_bit_weights_are_stored_in_sixteen_bits(tmp_path, tiny_config):
    from safetensors import safe_open

    folder = write_model(tmp_path / "half", {**tiny_config, "dtype": "bfloat16"})
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118  tied
        assert file.get_tensor("model.embed_tokens.weight").dtype == torch.bfloat16
        assert bool((file.get_tensor("model.norm.weight") == 3).all())


def test_the_tokenizer_knows_every_id_and_has_no_end(tiny_config):
    tokenizer = made_up_tokenizer(600)
    pieces = tokenizer.convert_ids_to_tokens(list(range(600)))
    assert len(set(pieces)) == 600
    assert tokenizer.eos_token_id is None
    assert tokenizer.decode(tokenizer("déjà vu")["input_ids"]) == "déjà vu"


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, tiny_config, monkeypatch):
    import shutil

    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(DecodeError, match="TMPDIR"):
        write_model(tmp_path / "m", tiny_config)
    assert not (tmp_path / "m" / "model.safetensors").exists()
