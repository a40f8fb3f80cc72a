"""`decodecli methods`: every stage is listed, and explained by what the processors really do."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from decodecli.ranges import flag_name
from decodecli.settings import SamplingParams
from decodecli.stages import ORDER, ORDERS, read_methods, stage_order

METHODS = read_methods()


def test_every_stage_is_described_and_its_example_turns_it_on():
    assert set(METHODS) == set(ORDER)
    for name, method in METHODS.items():
        assert stage_order(SamplingParams(**method["example"])) == (name,)
        assert {"title", "equation", "source", "example"} <= set(method)
        assert set(method) - {"title", "equation", "source", "example"} <= set(ORDERS)


def test_all_are_listed(cli):
    out = cli("methods").succeeded().out
    for name in ORDER:
        assert f"{flag_name(name)} " in out


@pytest.mark.parametrize("name", ORDER)
def test_a_method_is_explained_with_a_distribution_that_it_changes(cli, strict, name):
    explained = strict(cli("methods", name, "--format", "json").succeeded().out)
    tokens = explained["example"]["tokens"]
    assert sum(token["after"] for token in tokens) == pytest.approx(1)
    assert any(abs(token["after"] - token["before"]) > 1e-3 for token in tokens)
    for token in tokens:
        assert token["removed_by"] in (None, name)
        assert (token["after"] == 0) == (token["removed_by"] is not None)
    for engine, told in explained["engines"].items():
        assert (name in told["order"]) == (told["default"] is not None)
        assert told["order"] == [stage for stage in ORDERS[engine] if stage in told["order"]]
    for columns in ("40", "80"):
        out = cli("methods", name.replace("_", "-"), env={"COLUMNS": columns}).succeeded().out
        assert max(map(cell_len, out.splitlines())) <= int(columns)
        assert METHODS[name]["title"] in " ".join(out.split())


def test_the_options_of_transformers_are_its_own(cli):
    import transformers

    for name, method in METHODS.items():
        if "transformers" in method:
            option = method["transformers"].split()[0]
            assert hasattr(transformers.GenerationConfig(), option), name


def test_an_unknown_method_is_refused_with_the_nearest(cli):
    cli("methods", "top-q").refused(2, "did you mean top")
