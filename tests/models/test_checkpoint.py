"""A model's files, judged from outside: found, counted, or refused in one clear line."""

from __future__ import annotations

import json
import os
import shutil
import struct

import huggingface_hub.constants
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from decodecli.errors import DecodecliError, LoadError
from decodecli.models.checkpoint import find_checkpoint
from decodecli.models.model_files import safetensors_header
from decodecli.settings import LoadParams

FEW = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors(tensors: dict[str, tuple[int, ...]], metadata: bool = True) -> bytes:
    """A safetensors file of float32 zeros, built from its specification."""
    header, end = ({"__metadata__": {"format": "pt"}} if metadata else {}), 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def attempt(action, *arguments):
    """What an action returns, or the `LoadError` that it raises."""
    try:
        return action(*arguments), None
    except LoadError as error:
        return None, error


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like a model: configuration, tokenizer, weights of 2×3 + 4 numbers."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(safetensors({"a": (2, 3), "b": (4,)}))
    return made


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache; `hub(folder)` puts a snapshot into it as org/tiny."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def add(source):
        repository = cache / "models--org--tiny"
        shutil.copytree(source, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return repository / "snapshots" / COMMIT

    return add


def test_a_local_folder_is_taken_as_it_is(folder):
    found = find_checkpoint(LoadParams(model=str(folder)))
    assert found.folder == folder
    assert found.name == str(folder)
    assert found.revision is None
    assert found.config["model_type"] == "llama"
    assert found.parameters == 10


def test_the_built_in_model_is_found():
    found = find_checkpoint(LoadParams())
    assert found.name == "builtin"
    assert 3_000_000 <= found.parameters <= 10_000_000
    assert found.config["model_type"] == "llama"


def test_parameters_are_counted_over_all_shards(folder):
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors({"c": (5, 5)}))
    assert find_checkpoint(LoadParams(model=str(folder))).parameters == 35


def test_a_scalar_is_one_parameter_and_an_empty_tensor_none(folder):
    (folder / "model.safetensors").write_bytes(safetensors({"s": (), "e": (0, 7)}))
    assert find_checkpoint(LoadParams(model=str(folder))).parameters == 1


def test_a_folder_in_the_home_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_checkpoint(LoadParams(model="~/model")).parameters == 10


def test_a_cached_snapshot_is_used_offline_with_its_commit(folder, hub):
    snapshot = hub(folder)
    found = find_checkpoint(LoadParams(model="org/tiny"))
    assert found.folder.resolve() == snapshot.resolve()
    assert found.revision == COMMIT
    assert found.name == "org/tiny"


def test_a_revision_that_is_not_cached_is_not_taken_for_another(folder, hub):
    hub(folder)
    with pytest.raises(LoadError, match="org/tiny"):
        find_checkpoint(LoadParams(model="org/tiny", revision="v2"))


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_half_a_download_is_not_taken_for_a_model(folder, hub, lost):
    (folder / lost).unlink()
    hub(folder)
    with pytest.raises(LoadError, match="org/tiny"):
        find_checkpoint(LoadParams(model="org/tiny"))


def test_a_snapshot_that_lacks_a_shard_is_not_taken_for_a_model(folder, hub):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    index = json.dumps({"weight_map": shards})
    (folder / "model.safetensors.index.json").write_text(index)
    hub(folder)
    with pytest.raises(LoadError, match="org/tiny"):
        find_checkpoint(LoadParams(model="org/tiny"))


def test_a_download_is_announced_only_when_there_is_one(folder, hub):
    told = []
    hub(folder)
    find_checkpoint(LoadParams(model="org/tiny"), told.append)
    assert not any("download" in words for words in told)


def test_the_header_of_a_whole_file_names_its_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": (2, 3), "b": (4,)}))
    header = safetensors_header(path)
    assert set(header) == {"a", "b"}
    assert header["a"]["shape"] == [2, 3]


WHOLE = safetensors({"a": (2, 3), "b": (4,)})


@FEW
@given(st.integers(0, len(WHOLE) - 1))
@example(0)
@example(7)
@example(8)
@example(len(WHOLE) - 1)
def test_a_file_cut_short_anywhere_is_refused(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(LoadError, match=r"x\.safetensors"):
        safetensors_header(path)


@FEW
@given(st.binary(max_size=200))
@example(struct.pack("<Q", 2) + b"[]")
@example(struct.pack("<Q", 4) + b"null")
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 7) + b'{"a":1}')
@example(struct.pack("<Q", 8) + b'{"a":{}}')
@example(struct.pack("<Q", 4) + b'"\xff"}')
def test_bytes_that_are_no_safetensors_are_refused_or_empty(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    header, error = attempt(safetensors_header, path)
    if error is not None:
        assert "x.safetensors" in error.message
        assert error.hint
    else:
        assert header == {} or all(isinstance(value, dict) for value in header.values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "shape": JSON | st.just([2, 3]),
        "data_offsets": JSON | st.just([0, 24]),
        "dtype": st.just("F32"),
    },
)


@FEW
@given(st.dictionaries(st.text(max_size=3), TENSOR | JSON, max_size=2))
@example({"a": {"dtype": "F32", "data_offsets": [0, 24]}})
@example({"a": {"dtype": "F32", "shape": "wide", "data_offsets": [0, 24]}})
@example({"a": {"dtype": "F32", "shape": [None], "data_offsets": [0, 24]}})
@example({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, "24"]}})
def test_a_header_of_any_json_gives_a_count_or_a_load_error(folder, header):
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    found, error = attempt(find_checkpoint, LoadParams(model=str(folder)))
    if error is not None:
        assert "model.safetensors" in error.message
    else:
        assert isinstance(found.parameters, int)
        assert found.parameters >= 0


@FEW
@given(st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())))
def test_a_configuration_of_any_bytes_is_an_object_or_a_load_error(folder, data):
    (folder / "config.json").write_bytes(data)
    found, error = attempt(find_checkpoint, LoadParams(model=str(folder)))
    if error is not None:
        assert "config.json" in error.message
    else:
        assert isinstance(found.config, dict)


NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(NAME)
@example("a" * 300)
@example("a/" + "b" * 300)
@example("~nobody-of-this-name/model")
@example("a--b/c")
@example("a..b")
@example("org/name.git")
@example("\0")
def test_a_name_of_any_characters_is_refused_as_missing(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path / "hub")
    if name.strip("./\\") == "" or name == "builtin" or os.path.exists(name):
        return
    with pytest.raises(DecodecliError):
        find_checkpoint(LoadParams(model=name))
