"""`decodecli models`: what is at hand, whether a model fits, the cache of quantized weights."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import pytest


def test_the_built_in_model_is_listed_with_its_cards_facts(cli):
    from decodecli.builtin import card

    out = cli("models").succeeded().out
    assert "builtin" in out
    assert f"{card()['parameters']:,}" in out
    assert "MODEL_CARD.md" in out
    found = json.loads(cli("models", "--format", "json").succeeded().out)
    assert found["builtin"]["bits_per_byte"] == card()["bits_per_byte"]


def test_cached_models_are_listed_with_their_size(cli, tmp_path, monkeypatch):
    from huggingface_hub import constants

    blob = tmp_path / "models--someone--tiny" / "blobs" / "b"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(1000))
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(blob)
    refs = tmp_path / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path))
    found = json.loads(cli("models", "--format", "json").succeeded().out)
    assert found["cached"] == [{"name": "someone/tiny", "bytes": 1000}]


def test_an_unknown_format_is_refused(cli):
    cli("models", "--format", "xml").refused(2, "--format")


def test_whether_a_model_fits_is_told_for_every_scheme(cli, tiny_folder):
    out = cli("models", "fit", tiny_folder, "--device", "cpu").succeeded().out
    lines = out.splitlines()
    assert "441,504 parameters · 128 of 128 positions" in lines[0]
    assert [line.split()[0] for line in lines[4:8]] == ["float32", "bfloat16", "int8", "nf4"]
    assert all(line.endswith("  fits") for line in lines[4:8])
    assert lines[-1].startswith("assumed: ")


def test_a_fit_as_json_adds_up(cli, tiny_folder, strict):
    words = ("models", "fit", tiny_folder, "--context", "64", "--format", "json")
    found = strict(cli(*words).succeeded().out)
    assert (found["context"], found["model_context"], found["parameters"]) == (64, 128, 441_504)
    for row in found["schemes"]:
        parts = row["weights_bytes"] + row["kv_cache_bytes"] + row["working_bytes"]
        assert row["total_bytes"] == parts
        assert row["headroom_bytes"] == found["free_bytes"] - parts
        assert row["fits"] is (row["headroom_bytes"] >= 0)


def test_what_cannot_fit_is_too_large(cli, tiny_folder, monkeypatch):
    from decodecli.models import machine

    monkeypatch.setattr(
        machine,
        "device_memory",
        lambda device: machine.DeviceMemory(device, "small", 10, 10),
    )
    out = cli("models", "fit", tiny_folder, "--device", "cpu").succeeded().out
    assert out.count("too large") == 4


def test_no_scheme_of_bitsandbytes_is_said_to_fit_on_mps(cli, tiny_folder, monkeypatch):
    import torch

    from decodecli.models import machine

    memory = machine.DeviceMemory("mps", "Metal", 2**40, 2**40)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(machine, "device_memory", lambda device: memory)
    out = cli("models", "fit", tiny_folder, "--device", "mps").succeeded().out
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["float32", "bfloat16"]
    assert out.count("  fits") == 2
    assert "no int8 and nf4" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--context", "0"), 2, "--context"),
        (("--context", "129"), 2, "128 positions"),
        (("--device", "tpu"), 2, "--device"),
        (("--format", "xml"), 2, "--format"),
    ],
)
def test_bad_questions_about_a_fit_are_refused(cli, tiny_folder, words, code, said):
    cli("models", "fit", tiny_folder, *words).refused(code, said)


def test_a_fit_of_sizes_that_cannot_be_is_refused(cli, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "wrong")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": -5}))
    cli("models", "fit", folder).refused(1, "config.json", "vocab_size is -5")


def test_a_fit_of_what_is_not_there_is_refused(cli, tmp_path):
    cli("models", "fit", tmp_path / "none").refused(1, "none")
    (tmp_path / "empty").mkdir()
    cli("models", "fit", tmp_path / "empty").refused(1, "config.json")
    cli("models", "fit", "org/none").refused(1, "org/none", "HF_HUB_OFFLINE")


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one model: org/tiny, served from `folder`; it counts the bytes of weights it sends."""

    folder: Path
    sent: list[int]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        prefix, name = "/org/tiny/resolve/main/", self.path.rpartition("/")[2]
        path = self.folder / name
        if not self.path.startswith(prefix) or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, code = path.read_bytes(), 200
        whole = len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range") or "")
        if asked:
            code, first, last = 206, int(asked[1]), min(int(asked[2]), whole - 1)
            data = data[first : last + 1]
        self.send_response(code)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        self.send_header("ETag", '"' + hashlib.sha1(name.encode()).hexdigest() + '"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)
            if name.endswith(".safetensors"):
                self.sent.append(len(data))

    def log_message(self, *_: object) -> None:
        pass


def test_a_model_on_the_hub_is_judged_by_its_headers_alone(shell, tmp_path, strict):
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    folder = tmp_path / "served"
    network.config.save_pretrained(folder)
    save_file(network.state_dict(), folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    Hub.folder, Hub.sent = folder, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = shell(
            "decodecli models fit org/tiny --device cpu --format json",
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_OFFLINE="0",
            HF_HOME=str(tmp_path / "hf"), NO_PROXY="*", no_proxy="*",
        )  # fmt: skip
        missing = shell(
            "decodecli models fit org/none --device cpu",
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_OFFLINE="0",
            HF_HOME=str(tmp_path / "hf"), NO_PROXY="*", no_proxy="*",
        )  # fmt: skip
        server.shutdown()
    found = strict(result.succeeded().out)
    assert found["parameters"] == network.num_parameters()
    assert 0 < sum(Hub.sent) < size / 10
    missing.refused(1, "org/none")


@pytest.fixture
def kept(tiny_folder):
    """The quantized weights of a tiny model in the cache."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    import decodecli
    from decodecli.models.cache_files import entries

    decodecli.load(str(tiny_folder), device="cpu", quantize="nf4")
    (entry,) = entries()
    return entry


def test_the_cache_is_listed_with_sizes_and_cleared(cli, kept, tiny_folder, strict):
    out = cli("models", "cache").succeeded().out
    assert out.splitlines()[0].startswith("1 kept, ")
    assert f"{tiny_folder} · nf4 · bfloat16 · cpu" in out
    found = strict(cli("models", "cache", "--format", "json").succeeded().out)
    assert found["bytes"] == kept.path.stat().st_size == found["entries"][0]["bytes"]
    assert set(found["entries"][0]["versions"]) == {"torch", "transformers", "bitsandbytes"}
    assert "1 removed" in cli("models", "cache", "--clear").succeeded().out
    assert not kept.path.exists()
    assert "0 kept" in cli("models", "cache").succeeded().out
    cleared = strict(cli("models", "cache", "--clear", "--format", "json").succeeded().out)
    assert cleared["removed"] == []


def test_an_unreadable_file_in_the_cache_is_listed_and_cleared_too(cli, kept):
    kept.path.write_bytes(b"half")
    assert "unreadable" in cli("models", "cache").succeeded().out
    assert "1 removed" in cli("models", "cache", "--clear").succeeded().out
    assert not kept.path.exists()


def test_a_cache_that_is_turned_off_says_so(cli):
    out = cli("models", "cache", env={"DECODECLI_CACHE": "off"}).succeeded().out
    assert "turned off" in out


def test_the_cache_is_listed_without_anything_heavy(shell):
    script = "import sys; from decodecli.cli.app import app\n"
    script += "try: app(['models', 'cache'])\nexcept SystemExit: pass\n"
    script += "print(sorted({'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)))"
    assert "[]" in shell(f'"$PYTHON" -c "{script}"').succeeded().out


def test_the_first_quantized_run_tells_of_the_cache_and_the_second_does_not(cli, tiny_folder):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    words = ("generate", "Hi", "-m", tiny_folder, "-q", "nf4", "--device", "cpu", "-n", "2")
    first, second = (cli(*words, "--seed", "1").succeeded() for _ in range(2))
    assert "decodecli models cache" in first.err
    assert "decodecli models cache" not in second.err
    assert first.raw == second.raw
