"""Cells together, and the sweep's process, are measured against one after the other."""

from __future__ import annotations

import pytest

from benchmarks import sweeps
from decodecli.errors import DecodeError


def test_cells_are_measured_against_generate_called_for_each(subject):
    [row] = sweeps.cell_rows(subject, 1, quick=True)
    assert row.section == "sweep"
    assert row.peer == "generate, called 16 times"
    assert row.ours.median > 0
    assert row.theirs.median > 0
    assert "prompt of 16 tokens counted" in row.note


@pytest.mark.slow
def test_the_process_is_measured_against_a_shell_loop(tmp_path):
    [row] = sweeps.process_rows(tmp_path, "cpu", 1, quick=True)
    assert row.ours.median > row.theirs.median  # one start-up against two
    assert row.target is not None


def test_a_sweep_that_gives_too_few_cells_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "run_quietly", lambda words, env: '{"new_tokens": 3}\n')
    with pytest.raises(DecodeError, match="gave 1 cells of 2"):
        list(sweeps.process_rows(tmp_path, "cpu", 1, quick=True))
