"""Embedding matrices straight from safetensors: every architecture, every type, little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config
from safetensors.torch import load_file, save_file

from decodecli.builtin import model_path
from decodecli.errors import LoadError
from decodecli.models.checkpoint import Checkpoint
from decodecli.models.embedding_weights import find_embeddings

ROWS, COLUMNS = 40, 32
MORE = ("gpt_neox", "bloom", "opt", "falcon", "phi", "gptj", "mpt", "qwen2", "gemma", "rwkv")


@pytest.fixture
def folder(tmp_path):
    """`folder(tensors, **config)`: a checkpoint of these tensors in one file."""

    def make(tensors, **config) -> Checkpoint:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()},
                  tmp_path / "model.safetensors")  # fmt: skip
        return Checkpoint("it", tmp_path, None, config, 0)

    return make


def table(rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))


def config_of(architecture: str):
    import transformers as t

    if architecture in ("llama", "gpt2", "qwen3", "mistral", "gemma2", "mamba"):
        return tiny_config(architecture, ROWS)
    sizes = {"vocab_size": ROWS, "hidden_size": COLUMNS, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "intermediate_size": 48}
    others = {
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": COLUMNS},
        "mpt": {"d_model": COLUMNS, "n_heads": 4, "n_layers": 1},
        "gptj": {"n_embd": COLUMNS, "n_head": 4, "n_layer": 1, "rotary_dim": 4},
        "gemma": {"head_dim": 8, "num_key_value_heads": 2},
        "rwkv": {"attention_hidden_size": COLUMNS},
    }
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return t.AutoConfig.for_model(
        architecture, **{**sizes, **others.get(architecture, {})}, **special
    )


@pytest.mark.parametrize(
    "architecture", ["llama", "gpt2", "qwen3", "mistral", "gemma2", "mamba", *MORE]
)
def test_the_matrices_are_those_that_transformers_builds(architecture, tmp_path):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config_of(architecture))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    found = find_embeddings(Checkpoint("it", tmp_path, None, config, 0), ROWS, output=True)
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    for matrix, layer in zip((found.input, found.output), ends, strict=True):
        wanted = layer.weight.detach().float().numpy()
        assert (matrix.rows, matrix.columns) == wanted.shape
        assert (matrix.read(range(matrix.rows)) == wanted).all()
    assert found.tied == (ends[0].weight.data_ptr() == ends[1].weight.data_ptr())


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
     torch.float8_e5m2],
)  # fmt: skip
def test_every_number_type_is_read_exactly(folder, dtype):
    if dtype.itemsize == 1:  # every bit pattern there is
        values = torch.arange(256, dtype=torch.uint8).view(dtype).reshape(8, 32)
    else:
        values = table().to(dtype)
    other = torch.zeros(3, 5)
    matrix = find_embeddings(folder({"a": other, "model.embed_tokens.weight": values}), 8).input
    assert matrix.dtype == str(dtype).removeprefix("torch.")
    ((start, found),) = matrix.chunks()
    assert start == 0
    np.testing.assert_array_equal(found, values.float().numpy())
    np.testing.assert_array_equal(matrix.read([5, 0, 5]), values.float().numpy()[[5, 0, 5]])


def test_a_matrix_comes_in_pieces(folder, monkeypatch):
    monkeypatch.setattr("decodecli.models.embedding_weights._CHUNK", 3 * COLUMNS)
    values = table()
    matrix = find_embeddings(folder({"wte.weight": values}), ROWS).input
    pieces = list(matrix.chunks())
    assert [start for start, _ in pieces] == list(range(0, ROWS, 3))
    assert (np.concatenate([piece for _, piece in pieces]) == values.numpy()).all()


def test_rows_out_of_range_are_an_index_error(folder):
    matrix = find_embeddings(folder({"wte.weight": table()}), ROWS).input
    for row in (-1, ROWS):
        with pytest.raises(IndexError):
            matrix.read([row])


def test_a_sharded_checkpoint_is_read_by_its_index(tmp_path):
    values = table()
    save_file({"model.embed_tokens.weight": values}, tmp_path / "a.safetensors")
    save_file({"lm_head.weight": values + 1}, tmp_path / "b.safetensors")
    save_file({"model.embed_tokens.weight": values + 9}, tmp_path / "other.safetensors")
    names = {"model.embed_tokens.weight": "a.safetensors", "lm_head.weight": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    checkpoint = Checkpoint("it", tmp_path, None, {"hidden_size": COLUMNS}, 0)
    found = find_embeddings(checkpoint, ROWS, output=True)
    assert (found.input.read([3]) == values[3].numpy()).all()
    assert (found.output.read([3]) == values[3].numpy() + 1).all()
    assert not found.tied
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(LoadError, match=r"lacks b\.safetensors"):
        find_embeddings(checkpoint, ROWS)
    index.write_text("[]")
    with pytest.raises(LoadError, match="index"):
        find_embeddings(checkpoint, ROWS)


def test_tied_and_missing_output_matrices(folder):
    tensors = {"model.embed_tokens.weight": table()}
    assert find_embeddings(folder(tensors), ROWS, output=True).tied
    assert find_embeddings(folder(tensors, text_config={"tie_word_embeddings": True}), ROWS).tied
    untied = folder(tensors, tie_word_embeddings=False)
    assert find_embeddings(untied, ROWS).output is None
    with pytest.raises(LoadError, match="output embeddings"):
        find_embeddings(untied, ROWS, output=True)
    both = folder({**tensors, "lm_head.weight": table()}, tie_word_embeddings=True)
    assert find_embeddings(both, ROWS, output=True).output.name == "model.embed_tokens.weight"


def test_matrices_inside_layers_are_not_taken(folder):
    tensors = {"model.embed_tokens.weight": table(), "model.layers.61.embed_tokens.weight": table()}
    found = find_embeddings(folder(tensors), ROWS).input
    assert found.name == "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        ({"model.embed_tokens.weight": table(10)}, {}, "10 × 32"),
        ({"model.embed_tokens.weight": table()}, {"hidden_size": 64}, "hidden size 64"),
        ({"model.words.weight": table()}, {}, "model.words.weight"),
        ({"model.bias": torch.zeros(4)}, {}, "no matrix has enough rows"),
        (
            {"a.embed_tokens.weight": table(), "b.embed_tokens.weight": table()},
            {},
            "a.embed_tokens.weight, b.embed_tokens.weight",
        ),
        ({"model.embed_tokens.weight": table().to(torch.int8)}, {}, "stored as I8"),
    ],
)
def test_what_cannot_be_the_matrix_is_named(folder, tensors, config, said):
    with pytest.raises(LoadError) as caught:
        find_embeddings(folder(tensors, **config), ROWS)
    assert said in str(caught.value)


def test_a_folder_without_safetensors_is_told(tmp_path):
    with pytest.raises(LoadError, match="safetensors"):
        find_embeddings(Checkpoint("it", tmp_path, None, {}, 0), ROWS)


def test_the_built_in_models_matrix_is_found():
    config = json.loads((model_path() / "config.json").read_text())
    found = find_embeddings(Checkpoint("builtin", model_path(), None, config, 0), 1).input
    stored = load_file(model_path() / "model.safetensors")[found.name].float()
    assert (found.read([0, 7]) == stored[[0, 7]].numpy()).all()


def sharded(folder: Path, rows: int, columns: int, size: float) -> None:
    """A checkpoint of `size` bytes in three files, bfloat16; only the embeddings are not zero."""
    shapes = {"model.embed_tokens.weight": (rows, columns)}
    fill = round((size / 2 - 2 * rows * columns) / columns**2)
    shapes |= {f"model.layers.{k}.mlp.weight": (columns, columns) for k in range(fill)}
    shapes |= {"lm_head.weight": (rows, columns)}
    names, places = list(shapes), {}
    for number in range(3):
        own = names[number * len(names) // 3 : (number + 1) * len(names) // 3]
        header, end = {}, 0
        for name in own:
            start, end = end, end + 2 * shapes[name][0] * shapes[name][1]
            offsets = [start, end]
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": offsets}
        file = f"model-{number + 1:05}-of-00003.safetensors"
        places |= dict.fromkeys(own, file)
        head = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(head).to_bytes(8, "little") + head)
            if number == 0:
                for _ in range(0, rows, 1000):
                    block = np.random.default_rng(0).standard_normal((1000, columns), np.float32)
                    out.write((block.view(np.uint32) >> 16).astype("<u2").tobytes())
            out.truncate(8 + len(head) + end)
    index = {"weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.slow
def test_four_gigabytes_open_in_little_memory(tmp_path):
    rows, columns = 32_000, 4096
    sharded(tmp_path, rows, columns, 4e9)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) > 3.9e9
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_path() / name, tmp_path)
    config = {"model_type": "llama", "hidden_size": columns, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Its own peak: what a child reports through wait4 includes its parent's size at the fork.
    code = (
        "import sys; from decodecli.cli.app import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "embed", "--file", "notebook", "-m", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stderr.split()[-1]) / 1024 < 300, "MiB"
