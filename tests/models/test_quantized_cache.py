"""A quantized model comes back from the cache as it was, or is made again; never anything between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import builtin_tokenizer, tiny_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decodecli
from decodecli.errors import LoadError
from decodecli.models import cache_files, quantization
from decodecli.models.checkpoint import find_checkpoint
from decodecli.models.model_files import safetensors_header
from decodecli.settings import LoadParams, SamplingParams

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
GREEDY = SamplingParams(max_new_tokens=8, temperature=0)
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def load(folder: Path, scheme: str = "nf4"):
    return decodecli.load(str(folder), device="cpu", quantize=scheme)


def ids_of(lm) -> tuple[int, ...]:
    return decodecli.generate(lm, "Once upon", GREEDY).summary.token_ids


def logits_of(lm) -> torch.Tensor:
    with torch.inference_mode():
        return lm.model(input_ids=torch.tensor([[5, 6, 7]])).logits


def cached() -> list[Path]:
    return [entry.path for entry in cache_files.entries()]


def raising(problem: Exception):
    def fail(*_, **__):
        raise problem

    return fail


@contextlib.contextmanager
def nothing_is_quantized(monkeypatch):
    """The slow way fails: transformers must not load, bitsandbytes must not quantize or pack."""
    import bitsandbytes
    import transformers

    def refuse(*_, **__):
        raise AssertionError("quantized again")

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
        patch.setattr(bitsandbytes.functional, "quantize_4bit", refuse)
        patch.setattr(bitsandbytes.functional, "int8_vectorwise_quant", lambda *a, **k: refuse())
        patch.setattr(bitsandbytes.nn.modules, "_convert_weight_packed_for_cpu", refuse)
        yield


@pytest.fixture(scope="module")
def packable(tmp_path_factory) -> Path:
    """A model whose layers are whole blocks, as real ones are: bitsandbytes packs them for a CPU."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(builtin_tokenizer()), hidden_size=128, intermediate_size=256,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, bos_token_id=1,
        eos_token_id=2, max_position_embeddings=128,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("packable")
    torch.manual_seed(3)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    builtin_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9], "temperature": 0.6}')
    return folder


@pytest.fixture
def copied(packable, tmp_path) -> Path:
    return Path(shutil.copytree(packable, tmp_path / "model"))


@pytest.mark.parametrize("scheme", ["nf4", "fp4"])
def test_the_second_load_neither_quantizes_nor_packs(scheme, packable, monkeypatch):
    first = load(packable, scheme)
    assert any("decodecli models cache" in notice for notice in first.notices)
    with nothing_is_quantized(monkeypatch):
        second = load(packable, scheme)
        assert torch.equal(logits_of(first), logits_of(second))
        assert ids_of(first) == ids_of(second)
    assert second.info == first.info
    assert (second.eos_ids, second.context) == (first.eos_ids, first.context) == ({7, 9}, 128)
    assert set(second.notices) < set(first.notices)


def test_eight_bits_come_back_too(packable, monkeypatch):
    first = load(packable, "int8")
    import transformers

    with monkeypatch.context() as patch:
        patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", None)
        second = load(packable, "int8")
    assert torch.equal(logits_of(first), logits_of(second))
    assert second.info == first.info


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "mistral", "gemma2"])
def test_every_architecture_comes_back_as_it_was(architecture, scheme, tmp_path):
    tiny_network(architecture).save_pretrained(tmp_path)
    builtin_tokenizer().save_pretrained(tmp_path)
    first = load(tmp_path, scheme)
    kept = cached()
    second = load(tmp_path, scheme)
    assert cached() == kept
    assert not any("kept for the next start" in notice for notice in second.notices)
    assert torch.equal(logits_of(first), logits_of(second))
    assert ids_of(first) == ids_of(second)
    assert second.model.num_parameters() == first.model.num_parameters()


def test_a_model_from_the_cache_is_an_ordinary_one(packable, tmp_path):
    load(packable)
    lm = load(packable)
    assert lm.model.is_loaded_in_4bit
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    ids = lm.tokenizer("Once upon", return_tensors="pt").input_ids
    made = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert tuple(made[0, ids.shape[1] :].tolist()) == ids_of(lm)
    lm.model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["quantization_config"]["bnb_4bit_quant_type"] == "nf4"


def test_writing_into_a_loaded_model_does_not_change_the_file(packable):
    load(packable)
    lm = load(packable)
    before = cached()[0].read_bytes()
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.zero_()
    assert cached()[0].read_bytes() == before


@FEW
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_noticed_and_made_again(share, packable):
    expected = logits_of(load(packable))
    (path,) = cached()
    whole = path.stat().st_size
    os.truncate(path, int(whole * share))
    assert torch.equal(logits_of(load(packable)), expected)
    assert path.stat().st_size == whole


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(4096)])
def test_a_file_that_is_no_entry_is_made_again(data, packable):
    expected = logits_of(load(packable))
    (path,) = cached()
    path.write_bytes(data)
    assert torch.equal(logits_of(load(packable)), expected)
    assert len(path.read_bytes()) > 4096


@pytest.mark.parametrize(
    "problem", [OSError(5, "Input/output error"), RuntimeError("CUDA error: device busy")]
)
def test_a_good_file_that_cannot_be_read_now_stays(problem, packable, monkeypatch):
    load(packable)
    (path,) = cached()
    given = (find_checkpoint(LoadParams(str(packable))), "nf4", "bfloat16", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "load_file", raising(problem))
        assert quantization.load_cached(*given) is None
    assert path.is_file()
    assert quantization.load_cached(*given) is not None


@pytest.mark.skipif(os.name != "posix", reason="permissions are for POSIX systems")
def test_a_file_that_may_not_be_opened_now_stays(packable, monkeypatch):
    load(packable)
    (path,) = cached()
    given = (find_checkpoint(LoadParams(str(packable))), "nf4", "bfloat16", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", raising(PermissionError(13, "Permission denied")))
        with pytest.raises(PermissionError):
            quantization._read(path)
    assert quantization.load_cached(*given) is not None


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"),
        OSError(12, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_memory_that_runs_out_over_a_good_file_is_told_and_the_file_stays(
    problem, packable, monkeypatch
):
    load(packable)
    monkeypatch.setattr(quantization, "load_file", raising(problem))
    with pytest.raises(LoadError, match="does not fit into the memory of cpu"):
        load(packable)
    assert len(cached()) == 1


def test_a_tensor_that_is_not_of_its_shape_is_made_again(packable):
    expected = logits_of(load(packable))
    (path,) = cached()
    path.write_bytes(path.read_bytes().replace(b'"shape": [128]', b'"shape": [127]', 1))
    with pytest.raises(quantization.Unusable):
        quantization._read(path)
    assert torch.equal(logits_of(load(packable)), expected)
    quantization._read(path)


@pytest.fixture(scope="module")
def entry(packable, tmp_path_factory):
    """A file of the cache, and the model without weights that it fills."""
    checkpoint = find_checkpoint(LoadParams(str(packable)))
    path = tmp_path_factory.mktemp("entry") / "entry.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECODECLI_CACHE", "off")  # the fixture that sets it is younger than this one
        quantization.store(load(packable).model, path, checkpoint, "nf4", "bfloat16")
    return path, quantization._without_weights(checkpoint, "nf4", "bfloat16")


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from((1, 64, 128, 255)))
def test_a_byte_changed_anywhere_is_noticed(entry, share, change):
    path, empty = entry
    data = bytearray(path.read_bytes())
    changed = path.with_name("changed.safetensors")
    data[int(len(data) * share)] ^= change
    changed.write_bytes(data)
    try:
        with pytest.raises(quantization.Unusable):
            quantization.restore(changed, empty, "cpu")
    finally:
        changed.unlink()


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (r"\"blocksize\": 64", r"\"blocksize\": 0 "),  # bitsandbytes would divide by it
        (r"\"blocksize\": 64", r"\"blocksize\": -1"),
        (r"\"shape\": [", r"\"shape\": [9"),
        (r"\"threshold\"", r"\"thresholt\""),
        (r"\"dtype\": \"bfloat16\"", r"\"dtype\": \"float64\" "),
        ('"checksum": "', '"checksun": "'),
    ],
)
@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_edited_metadata_is_noticed_before_bitsandbytes_sees_it(packable, was, now, scheme):
    expected = logits_of(load(packable, scheme))
    (path,) = cached()
    data = path.read_bytes()
    if was.encode() not in data:
        pytest.skip("this scheme does not have it")
    edited = data.replace(was.encode(), now.encode(), 1)
    if len(now) != len(was):  # the header's length with it
        length = int.from_bytes(data[:8], "little") + len(now) - len(was)
        edited = length.to_bytes(8, "little") + edited[8:]
    path.write_bytes(edited)
    assert torch.equal(logits_of(load(packable, scheme)), expected)
    assert path.read_bytes() == data, "it is made again"


def test_an_entry_of_another_model_under_this_name_is_not_used(packable, tmp_path):
    tiny_network("gpt2").save_pretrained(tmp_path / "other")
    builtin_tokenizer().save_pretrained(tmp_path / "other")
    expected = logits_of(load(packable))
    (mine,) = cached()
    load(tmp_path / "other")
    (other,) = set(cached()) - {mine}
    shutil.copy(other, mine)
    assert torch.equal(logits_of(load(packable)), expected)


def key_of(folder: Path, scheme="nf4", dtype="bfloat16", device="cpu") -> str:
    path = quantization._entry(find_checkpoint(LoadParams(str(folder))), scheme, dtype, device)
    return path.name


def test_whatever_the_bytes_depend_on_makes_another_entry(copied, monkeypatch):
    keys = {key_of(copied), key_of(copied, scheme="fp4"), key_of(copied, dtype="float16")}
    keys.add(key_of(copied, device="cuda:0"))
    assert key_of(copied, device="cuda:1") in keys
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "FORMAT", 0)
        keys.add(key_of(copied))
    for package in ("torch", "transformers", "bitsandbytes"):
        real = quantization.importlib.metadata.version
        with monkeypatch.context() as patch:
            patch.setattr(
                quantization.importlib.metadata,
                "version",
                lambda name, p=package, real=real: "0" if name == p else real(name),
            )
            keys.add(key_of(copied))
    with monkeypatch.context() as patch:
        there = quantization.packs("cpu")
        patch.setattr(quantization, "packs", lambda _: not there)
        keys.add(key_of(copied))
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
        keys.add(key_of(copied))
    weights = copied / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    keys.add(key_of(copied))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    keys.add(key_of(copied))
    keys.add(key_of(Path(shutil.copytree(copied, copied.parent / "elsewhere"))))
    assert len(keys) == 13


def test_new_weights_in_the_same_folder_are_not_taken_for_the_old_ones(copied):
    from safetensors.torch import load_file, save_file

    before = logits_of(load(copied))
    weights = load_file(copied / "model.safetensors")
    save_file(
        {name: tensor * 1.5 for name, tensor in weights.items()},
        copied / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert not torch.equal(logits_of(load(copied)), before)


def test_a_folder_that_cannot_be_written_is_a_notice(packable, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DECODECLI_CACHE", str(tmp_path / "file"))
    lm = load(packable)
    assert any("could not be kept" in notice for notice in lm.notices)
    assert len(ids_of(lm)) > 0


def test_a_full_disk_is_a_notice_and_leaves_nothing_behind(packable, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_files.os, "fsync", full)
        lm = load(packable)
    assert any("No space left" in notice for notice in lm.notices)
    assert list(cache_files.cache_folder().iterdir()) == []
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage("/")._replace(free=1000)
        patch.setattr(cache_files.shutil, "disk_usage", lambda _: usage)
        lm = load(packable)
    assert any("0.0 are free" in notice for notice in lm.notices)
    assert cached() == []


@pytest.mark.parametrize("word", ["off", "none", "0"])
def test_the_cache_can_be_turned_off(word, packable, monkeypatch, tmp_path):
    monkeypatch.setenv("DECODECLI_CACHE", word)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))
    monkeypatch.chdir(tmp_path)
    assert load(packable).notices == load(packable).notices
    assert not (tmp_path / "xdg-cache").exists()
    assert not (tmp_path / word).exists()


def test_the_platforms_folder_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("DECODECLI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))
    assert str(cache_files.cache_folder()).endswith(os.path.join("decodecli", "quantized"))
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert cache_files.cache_folder() == tmp_path / "xdg-cache" / "decodecli" / "quantized"


def test_nothing_is_kept_of_a_model_that_is_not_quantized(packable):
    decodecli.load(str(packable), device="cpu")
    assert cached() == []


def stored(seed: int) -> dict[str, cache_files.StoredTensor]:
    data = memoryview(bytes([seed]) * 100_000)
    return {f"t{n}": cache_files.StoredTensor("U8", (100_000,), data) for n in range(5)}


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "cache" / "entry.safetensors"
    problems, done = [], threading.Event()

    def write(seed: int) -> None:
        for _ in range(15):
            cache_files.write_entry(path, {"seed": seed}, stored(seed))

    def read() -> None:
        while not done.is_set():
            if not path.exists():
                continue
            data = path.read_bytes()
            length = 8 + int.from_bytes(data[:8], "little")
            if len(data) != length + 500_000 or len(set(data[length:])) != 1:
                problems.append(len(data))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2, 3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert problems == []
    assert [p.name for p in path.parent.iterdir()] == ["entry.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are for POSIX systems")
def test_an_entry_and_its_folder_are_the_users_alone(tmp_path):
    path = tmp_path / "decodecli" / "quantized" / "entry.safetensors"
    before = os.umask(0o022)
    try:
        cache_files.write_entry(path, {}, stored(1))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


_KINDS = {torch.uint8: "U8", torch.int8: "I8", torch.bfloat16: "BF16", torch.float32: "F32"}


@FEW
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from(list(_KINDS)), st.lists(st.integers(0, 9), max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_an_entry_is_a_valid_safetensors_file_with_aligned_tensors(shapes, tmp_path):
    from safetensors.torch import load_file

    given = {
        f"n{number}": (torch.randn(shape) * 20).to(dtype)
        for number, (dtype, shape) in enumerate(shapes)
    }
    path = tmp_path / "e.safetensors"
    cache_files.write_entry(
        path, {"about": {"é": 1}}, {n: quantization._stored(t) for n, t in given.items()}
    )
    found = load_file(path)
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    metadata = cache_files.read_metadata(path)
    assert metadata.pop("checksum")
    assert metadata == {"about": {"é": 1}}
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for name, header in safetensors_header(path).items():
        at = start + header["data_offsets"][0]
        size = given[name].numel() * given[name].itemsize
        assert at % (64 if size % 64 == 0 else given[name].itemsize) == 0


def test_what_a_killed_process_left_is_swept_and_can_be_cleared(tmp_path):
    folder = cache_files.cache_folder()
    folder.mkdir(parents=True)
    entry = cache_files.entry_path(folder, "org/c", "nf4", {})
    old, new = (entry.with_name(f"{entry.name}.{n}-0123abcd.part") for n in (1, 2))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache_files.write_entry(entry, {"about": {"name": "c"}}, stored(1))
    assert not old.exists()
    assert new.exists()
    assert {entry.path.name for entry in cache_files.clear()} == {entry.name, new.name}
    assert cache_files.entries() == []


def test_a_users_own_files_in_the_folder_are_neither_listed_nor_removed():
    folder = cache_files.cache_folder()
    folder.mkdir(parents=True)
    mine = [
        folder / name
        for name in ("model.safetensors", "film.mkv.part", "my-nf4-model.safetensors", "x-nf4-0123")
    ]
    for path in mine:
        path.write_bytes(b"mine")
        os.utime(path, (1, 1))
    for scheme in quantization.SCHEMES:
        entry = cache_files.entry_path(folder, "org/c", scheme, {})
        cache_files.write_entry(entry, {"about": {}}, stored(1))
    assert len(cached()) == len(cache_files.clear()) == len(quantization.SCHEMES)
    assert sorted(folder.iterdir()) == sorted(mine)


def test_the_processor_is_told_as_bitsandbytes_sees_it():
    from bitsandbytes.functional import has_avx512bf16

    assert quantization.packs("cpu") == has_avx512bf16()


def test_reading_ahead_of_what_is_not_there_is_no_error(tmp_path, monkeypatch):
    cache_files.read_ahead([tmp_path / "none", tmp_path])
    monkeypatch.delattr(cache_files.os, "posix_fadvise", raising=False)
    cache_files.read_ahead([tmp_path / "none"])
