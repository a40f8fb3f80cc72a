"""`decodecli models` lists what is at hand."""

from __future__ import annotations

import json


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
