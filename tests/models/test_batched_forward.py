"""Sequences that share forward passes get, but for rounding, the logits that each gets alone."""

from __future__ import annotations

import pytest
import torch
from conftest import tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st
from known_models import CONFIGS, network

from decodecli.models.batched_forward import BatchedForward
from decodecli.models.forward import build_forward
from decodecli.models.runner import ModelRunner
from decodecli.models.supported import UnsupportedModel


class Pairs:
    """Rows that run together, and each of them alone."""

    def __init__(self, model, size: int) -> None:
        self.model = model
        self.together = BatchedForward(build_forward(model), size)
        self.alone: list[ModelRunner] = []

    def add_row(self, row: int, prompt: list[int]) -> None:
        forward = ModelRunner(self.model)
        forward.prefill(prompt)
        self.together.add_row(row, forward.written_out()[1])
        self.alone[row : row + 1] = [forward.fork()]

    def remove_row(self, row: int) -> None:
        self.together.remove_row(row)
        last = self.alone.pop()
        if row < len(self.alone):
            self.alone[row] = last

    def check(self, tokens: list[int]) -> None:
        found = self.together(tokens)
        expected = [
            forward.step(torch.tensor([[token]]))
            for forward, token in zip(self.alone, tokens, strict=True)
        ]
        torch.testing.assert_close(found, torch.cat(expected), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_different_lengths_get_the_logits_that_each_gets_alone(name: str) -> None:
    pairs = Pairs(network(CONFIGS[name]), 4)
    for row, length in enumerate((3, 20, 1, 9)):
        pairs.add_row(row, list(range(5, 5 + length)))
    for step in range(80):  # past the room of a new cache
        pairs.check([(7 * step + row) % 200 + 3 for row in range(4)])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_rows_come_and_go_without_disturbing_the_others(data) -> None:
    pairs = Pairs(network(CONFIGS["mistral, window of 8"]), 5)
    for _ in range(12):
        rows = len(pairs.alone)
        change = data.draw(st.sampled_from(("add", "replace", "remove", "none")))
        prompt = data.draw(st.lists(st.integers(3, 250), min_size=1, max_size=30))
        if change == "add" and rows < 5:
            pairs.add_row(rows, prompt)
        elif change == "replace" and rows:
            pairs.add_row(data.draw(st.integers(0, rows - 1)), prompt)
        elif change == "remove" and rows:
            pairs.remove_row(data.draw(st.integers(0, rows - 1)))
        rows = len(pairs.alone)
        if rows:
            tokens = st.lists(st.integers(3, 250), min_size=rows, max_size=rows)
            pairs.check(data.draw(tokens))


@pytest.mark.parametrize("name", ["llama", "mistral, window of 8"])
def test_what_a_dropped_row_leaves_behind_is_never_looked_at(name: str) -> None:
    pairs = Pairs(network(CONFIGS[name]), 2)
    pairs.add_row(0, [5] * 40)
    pairs.add_row(1, [6])
    with torch.inference_mode():
        for left in (*pairs.together._keys, *pairs.together._values):
            left[0] = torch.nan  # a long row's, which a short one takes the place of
    pairs.add_row(0, list(range(3, 25)))
    pairs.check([4, 3])


@pytest.mark.parametrize("architecture", ["gemma2", "mamba"])
def test_other_architectures_are_refused_with_a_reason(architecture: str) -> None:
    with pytest.raises(UnsupportedModel, match="run by its own code"):
        build_forward(tiny_network(architecture))
