"""docs/ARCHITECTURE.md names modules and settings that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from decodecli import ranges, settings, stages
from decodecli.cli import options
from decodecli.sampling import processors, reference, truncation

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`([\w/]+(?:\.py|\.toml|/))`", GUIDE)))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_the_guide_is_there(path):
    folders = (ROOT, ROOT / "decodecli", *(ROOT / "decodecli").iterdir())
    # A bare name in the table of rooms belongs to the room of its row.
    assert any((folder / path).exists() for folder in folders)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (settings, ("SamplingParams",)),
        (ranges, ("_NUMBERS", "_INTEGERS")),
        (stages, ("ORDERS", "WITH_HISTORY", "PENALTIES")),
        (reference, ("FILTERS",)),
        (options, ("FILTERS", "PENALTIES", "RUN_STAGES")),
        (truncation, ("TRUNCATING",)),
    ],
)
def test_a_name_of_the_guide_is_there(module, names):
    for name in names:
        assert f"`{name}`" in GUIDE or f".{name}`" in GUIDE
        assert hasattr(module, name)


def test_every_stage_has_a_processor_an_option_and_a_word_and_every_filter_a_reference():
    words = (ROOT / "docs" / "WORDS.md").read_text(encoding="utf-8")
    groups = options.FILTERS, options.PENALTIES, options.RUN_STAGES, options.TEXTS
    declared = {option.name for group in groups for option in group} | {"temperature"}
    more = {name for names in stages.COMPANIONS.values() for name in names}
    assert declared == set(stages.ORDER) | more
    for order in stages.ORDERS.values():
        assert sorted(order) == sorted(stages.ORDER)
    for stage in stages.ORDER:
        assert callable(getattr(processors, stage))
        assert f"\n| {stage} |" in words
    assert set(reference.FILTERS) == set(stages.OF_SCORES_ALONE)
