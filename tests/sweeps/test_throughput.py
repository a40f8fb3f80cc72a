"""What was measured before: by the same key, or by one that begins like it."""

from __future__ import annotations

import pytest

from decodecli.sweeps import throughput as rates


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "cache_folder", lambda: tmp_path / "cache" / "quantized")
    return tmp_path / "cache"


def test_the_last_rate_of_a_key_is_recalled():
    assert rates.recall("model cpu 16") is None
    rates.remember("model cpu 16", 100.04)
    rates.remember("model cpu 16", 200.04)
    assert rates.recall("model cpu 16") == 200.0
    assert rates.recall("model cpu 1") is None


def test_one_that_begins_like_it_is_recalled_when_asked_for():
    rates.remember("model cpu 16", 100.0)
    rates.remember("model cpu 8", 50.0)
    rates.remember("models cpu 8", 1.0)
    assert rates.recall("model cpu 1", words=2) == 50.0
    assert rates.recall("model cuda 1", words=2) is None


def test_a_damaged_file_is_as_none(cache):
    cache.mkdir()
    (cache / "rates.json").write_text('{"a": "fast"')
    assert rates.recall("a") is None
    (cache / "rates.json").write_text('{"a": "fast", "b": -1}')
    assert rates.recall("a") is None
    assert rates.recall("b") is None
    rates.remember("b", 3.0)
    assert rates.recall("b") == 3.0
