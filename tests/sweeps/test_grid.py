"""The grid of a sweep: its cells, its files, its place among the settings."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decodecli.config import resolve
from decodecli.errors import UsageError
from decodecli.settings import SamplingParams
from decodecli.sweeps.axes import AXES
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.grid import Grid, plan, zip_group
from decodecli.sweeps.grid_file import grid_names, read_grid
from decodecli.sweeps.prompts import gather_prompts

ONE = (Prompt("Hi", "p0"),)
TWO = gather_prompts(["Hi", "Ho"])


@pytest.fixture
def grid_file(tmp_path):
    """`grid_file("seeds = 0", …)`: a grid file of these lines."""

    def write(*lines: str, name: str = "mine.toml"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def refused(error, *words):
    for word in words:
        assert str(word) in str(error.value), str(error.value)
    assert error.value.hint
    assert len(error.value.message) <= 170
    assert "\n" not in error.value.message


def planned(file, flags=None, env=None):
    """The grid that a command makes of a file and flags."""
    effective = resolve(flags or {}, env or {}, grid=file.values, expressions=True)
    values = effective.values | {"seed": effective.values["seed"] or 0}
    return plan(
        values,
        file.prompts or ONE,
        file.zip_groups,
        sources=effective.sources,
        description=file.description,
    )


# Cells

VALUES = {
    "temperature": st.lists(
        st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.4]), min_size=1, max_size=3, unique=True
    ),
    "top_p": st.lists(st.sampled_from([0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=3, unique=True),
    "top_k": st.lists(st.integers(0, 50), min_size=1, max_size=3, unique=True),
    "max_new_tokens": st.lists(st.integers(1, 64), min_size=1, max_size=2, unique=True),
    "bos": st.lists(st.sampled_from([True, False, None]), min_size=1, unique=True),
    "stop": st.sampled_from([[["a"], []], "END", [["x", "y"], ["z"]]]),
}
SEEDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True)
GRIDS = st.fixed_dictionaries({"seed": SEEDS}, optional=VALUES)


@settings(deadline=None)
@given(GRIDS, st.integers(1, 2))
def test_cells_are_the_product_of_prompts_and_axes_with_the_seed_fastest(values, prompts):
    grid = plan(values, gather_prompts([f"prompt {n}" for n in range(prompts)]))
    product = list(itertools.product(grid.prompts, *(grid.axes[name] for name in AXES)))
    assert len(grid) == len(product)
    assert len(grid) == prompts * grid.settings * len(grid.seeds)
    for index, (cell, (prompt, *row)) in enumerate(zip(grid, product, strict=True)):
        wanted = dict(zip(AXES, row, strict=True))
        assert (cell.index, cell.prompt, cell.bos) == (index, prompt, wanted.pop("bos"))
        assert cell.params == SamplingParams(**wanted)
        assert grid[index] == grid[index - len(grid)] == cell


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.2, 0.9]), st.integers(1, 2)),
        min_size=1, max_size=6, unique=True,
    ),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)  # fmt: skip
def test_paired_axes_go_row_by_row(rows, seeds):
    temperature, top_p, top_k = map(list, zip(*rows, strict=True))
    values = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seeds": seeds}
    grid = plan(values, TWO, [("top_p", "top_k", "temperature")])
    assert grid.settings == len(rows)
    found = [(c.params.temperature, c.params.top_p, c.params.top_k, c.params.seed) for c in grid]
    assert found == [(*row, seed) for row, seed in itertools.product(rows, seeds)] * 2
    assert grid.axes["top_p"] == tuple(dict.fromkeys(top_p))


def test_what_is_not_said_has_its_default():
    (cell,) = plan({"seed": 3}, ONE)
    assert cell.params == SamplingParams(seed=3)
    assert cell.bos is None


def test_axes_that_vary_are_told_from_those_that_do_not():
    grid = plan({"temperature": "0.2,1", "bos": "on,off", "top_k": 3, "seeds": "0..2"}, TWO)
    assert grid.varying == {"temperature": (0.2, 1.0), "bos": (True, False)}
    assert grid.axes["top_k"] == (3,)
    assert grid.seeds == (0, 1, 2)
    assert grid.settings == 4
    assert grid.zipped == ()
    assert list(grid.axes) == list(AXES)


def test_there_is_no_cell_beyond_the_last():
    grid = plan({"seeds": "0..2"}, ONE)
    for index in (3, -4):
        with pytest.raises(IndexError):
            grid[index]
    assert len(list(grid)) == 3


def test_a_grid_travels_as_plain_data():
    prompts = (Prompt("Hi", "a", re.compile("x|y"), "t"),)
    grid = plan({"temperature": "0..9", "seeds": "0..99"}, prompts)
    data = pickle.dumps(grid)
    again = pickle.loads(data)
    assert again == grid
    assert again[999] == grid[999]
    assert again.fingerprint == grid.fingerprint


def test_seeds_are_another_name_of_the_seed():
    assert plan({"seeds": "0..2"}, ONE) == plan({"seed": [0, 1, 2]}, ONE)
    assert plan({"seeds": "0..2", "seed": None}, ONE).seeds == (0, 1, 2)
    with pytest.raises(UsageError) as error:
        plan({"seeds": "0..2", "seed": 1}, ONE)
    refused(error, "--seed and --seeds")


def test_greedy_is_a_temperature_of_zero():
    assert plan({"greedy": True, "seed": 0}, ONE).axes["temperature"] == (0.0,)
    assert plan({"temperature": "greedy,1", "seed": 0}, ONE).axes["temperature"] == (0.0, 1.0)
    with pytest.raises(UsageError, match="contradict"):
        plan({"greedy": True, "temperature": "0.2,1", "seed": 0}, ONE)


def test_options_that_decide_nothing_about_a_cell_are_passed_over():
    assert plan({"seed": 0, "model": "x", "batch_size": 3, "format": "jsonl"}, ONE) == plan(
        {"seed": 0}, ONE
    )


# What cannot be planned


@pytest.mark.parametrize(
    ("values", "prompts", "groups", "words"),
    [
        ({"temprature": 1, "seed": 0}, ONE, (), ("temprature", "did you mean temperature")),
        ({"temperature": "0,x", "seed": 0}, ONE, (), ("--temperature", "x")),
        ({"top_p": "0.5,2", "seed": 0}, ONE, (), ("--top-p", "2")),
        ({"temperature": 1}, ONE, (), ("--seeds",)),
        ({"seed": None}, ONE, (), ("--seeds",)),
        ({"seed": 0}, (), (), ("no prompt",)),
        ({"seed": 0}, ONE * 2, (), ("p0",)),
        ({"temperature": "1..3", "top_p": "0.1,0.2", "seed": 0}, ONE, [("temperature", "top_p")],
         ("temperature has 3", "top_p has 2")),
        ({"temperature": "1,1,2", "top_p": "0.1,0.1,0.1", "seed": 0}, ONE,
         [("temperature", "top_p")], ("temperature 1.0, top_p 0.1", "2 times")),
        ({"temperature": "1,1", "top_p": "0.1", "seed": 0}, ONE, [("temperature", "top_p")],
         ("temperature 1.0", "2 times")),
        ({"seed": 0}, ONE, [("temperature",)], ("two axes",)),
        ({"seed": 0}, ONE, [()], ("two axes",)),
        ({"seed": 0}, ONE, [("temperature", "tpo_p")], ("tpo_p", "top_p")),
        ({"seed": 0}, ONE, [("temperature", "temperature")], ("twice",)),
        ({"seed": 0}, ONE, [("temperature", "top_p"), ("top_k", "top_p")], ("top_p", "twice")),
        ({"seed": 0}, ONE, [("temperature", "seed")], ("seed",)),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused(values, prompts, groups, words):
    with pytest.raises(UsageError) as error:
        plan(values, prompts, groups)
    refused(error, *words)


def test_one_value_goes_with_every_row_of_its_group():
    values = {"temperature": "0.2,1", "top_p": 0.9, "top_k": "3,5", "seed": 0}
    grid = plan(values, ONE, [("temperature", "top_p", "top_k")])
    assert grid.zipped == (("temperature", "top_k"),)
    assert [(c.params.temperature, c.params.top_p, c.params.top_k) for c in grid] == [
        (0.2, 0.9, 3),
        (1.0, 0.9, 5),
    ]


def test_more_cells_than_can_be_are_refused():
    values = {"temperature": "0:1:0.001", "top_k": "1..1000", "seeds": "0..99999"}
    with pytest.raises(UsageError) as error:
        plan(values, ONE)
    refused(error, "100,100,000,000", "10,000,000")
    assert len(plan({"temperature": "0:9.99:0.01", "seeds": "0..9999"}, ONE)) == 10_000_000


def test_a_bad_value_says_which_layer_it_came_from():
    for source, said in (("env", "DECODECLI_TOP_P"), ("config", "config file"), ("flag", "got 2")):
        with pytest.raises(UsageError) as error:
            plan({"top_p": "2", "seed": 0}, ONE, sources={"top_p": source})
        refused(error, "--top-p", said)
        assert ("from" in error.value.message) is (source != "flag")


# Size


def test_the_size_counts_cells_prefills_and_the_most_tokens():
    prompts = (*TWO, Prompt("Hi", "again"))
    values = {"temperature": "0,0.5,1", "max_new_tokens": "10,20", "bos": "on,off", "seeds": "0..4"}
    grid = plan(values, prompts)
    assert (len(grid.prompts), grid.settings, len(grid.seeds), len(grid)) == (3, 12, 5, 180)
    assert grid.prefills == 4
    assert grid.max_tokens == sum(cell.params.max_new_tokens for cell in grid)
    assert grid.repeated == 3 * 4 * 4
    assert list(grid.varying) == ["max_new_tokens", "temperature", "bos"]


def test_the_size_of_paired_axes_is_that_of_their_rows():
    values = {"temperature": "0,1,1", "max_new_tokens": "5,5,7", "seeds": "0..1"}
    grid = plan(values, ONE, [("max_new_tokens", "temperature")])
    assert (grid.settings, grid.max_tokens, grid.repeated) == (3, 34, 1)
    assert grid.zipped == (("max_new_tokens", "temperature"),)


# Fingerprint and file


def test_the_fingerprint_is_of_everything_that_decides_the_cells():
    values = {"temperature": "0.2,1", "seeds": "0..2"}
    grid = plan(values, TWO)
    assert re.fullmatch("[0-9a-f]{64}", grid.fingerprint)
    same = plan(dict(reversed(values.items())), TWO, description="other words")
    assert same.fingerprint == grid.fingerprint
    regex = replace(TWO[1], expect=re.compile("Ho"))
    others = [
        plan(values | {"temperature": "1,0.2"}, TWO),
        plan(values | {"top_k": 1}, TWO),
        plan(values | {"seeds": "0..3"}, TWO),
        plan(values | {"bos": "on"}, TWO),
        plan(values | {"stop": "END"}, TWO),
        plan(values, TWO[::-1]),
        plan(values, TWO[:1]),
        plan(values, (TWO[0], replace(TWO[1], expect=("Ho",)))),
        plan(values, (TWO[0], regex)),
        plan(values, (TWO[0], replace(TWO[1], task="t"))),
        plan(values, (TWO[0], replace(TWO[1], id="q"))),
    ]
    assert len({grid.fingerprint, *(other.fingerprint for other in others)}) == 12


def test_the_fingerprint_is_the_same_in_every_release():
    grid = plan({"temperature": "0.2,1", "seeds": "0..2"}, (Prompt("東", "a", ("x",), "t"),))
    assert grid.fingerprint == "4e130b4bba510fb4ce934adc678cc70345c24e29a5b2805ee81570e6027ddf97"


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = TEXTS.filter(bool)
PROMPTS = st.lists(
    st.builds(
        Prompt,
        TEXTS,
        NAMES,
        st.none() | st.lists(NAMES, min_size=1, max_size=2).map(tuple) | st.just(re.compile(r"\bx\"")),
        st.none() | NAMES,
    ),
    min_size=1, max_size=4, unique_by=lambda prompt: prompt.id,
).map(tuple)  # fmt: skip


@settings(deadline=None)
@given(GRIDS, PROMPTS | st.just(TWO), NAMES)
@example({"seed": [0, 5, 2**32 - 1]}, ONE, "seeds far apart")
def test_a_grid_written_as_a_file_and_read_is_the_same_grid(
    tmp_path_factory, values, prompts, words
):
    grid = plan(values, prompts, description=words)
    path = tmp_path_factory.getbasetemp() / "again.toml"
    text = grid.as_toml({"model": '/a "b" \x7f', "revision": None}, ["made by a test"])
    path.write_text(text, encoding="utf-8", newline="")
    file = read_grid(path)
    assert file.values["model"] == '/a "b" \x7f'
    assert "revision" not in file.values
    assert planned(file) == grid
    assert planned(file).fingerprint == grid.fingerprint


def test_paired_axes_and_plain_prompts_are_written_plainly(grid_file):
    values = {"temperature": "0.2,1.4,1.4", "top_p": "0.2,0.2,0.9", "seeds": "0..4"}
    grid = plan(values, TWO, [("top_p", "temperature")])
    text = grid.as_toml(comments=["one", "two"])
    found = tomllib.loads(text)
    assert text.startswith("# one\n# two\nprompts = [\n")
    assert found["prompts"] == ["Hi", "Ho"]
    assert found["zip"] == [["temperature", "top_p"]]
    assert (found["temperature"], found["seed"]) == ([0.2, 1.4, 1.4], "0..4")
    assert (found["bos"], found["stop"], found["top_k"]) == ("auto", [], 0)
    assert planned(read_grid(grid_file(text))) == grid


# Grid files


def test_a_grid_file_holds_axes_prompts_pairs_and_other_options(grid_file):
    file = read_grid(
        grid_file(
            'description = "Mine"', 'prompts = ["One", {prompt = "Two", id = "b", expect = "2"}]',
            "temperature = [0.2, 0.2, 1.4]", 'top-p = "0.2,0.9,0.9"'.replace("-", "_"), 'seeds = "0..4"',
            'zip = ["temperature", "top-p"]', 'model = "builtin"', "traces = true", "bos = [true, false]",
            'stop = [["a"], ["b", "c"]]',
        )
    )  # fmt: skip
    assert (file.name, file.description) == ("mine.toml", "Mine")
    assert file.prompts == (Prompt("One", "p0"), Prompt("Two", "b", ("2",)))
    assert file.zip_groups == (("temperature", "top_p"),)
    assert file.values == {
        "temperature": (0.2, 0.2, 1.4), "top_p": (0.2, 0.9, 0.9), "seed": (0, 1, 2, 3, 4),
        "model": "builtin", "traces": True, "bos": (True, False), "stop": (("a",), ("b", "c")),
    }  # fmt: skip
    assert len(planned(file)) == 2 * 3 * 2 * 2 * 5


def test_a_prompt_file_is_looked_for_beside_the_grid(grid_file, tmp_path):
    (tmp_path / "some.txt").write_text("One\nTwo\n")
    assert len(read_grid(grid_file('prompts = "some.txt"')).prompts) == 2
    with pytest.raises(UsageError) as error:
        read_grid(grid_file('prompts = "none.txt"'))
    refused(error, "none.txt")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n{}')
    with pytest.raises(UsageError) as error:
        read_grid(grid_file('prompts = "bad.jsonl"'))
    refused(error, "bad.jsonl, line 2")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("temprature = [1]", ("temprature", "did you mean temperature")),
        ("prompt = 'x'", ("prompt", "did you mean prompts")),
        ("top-p = 0.5", ("top-p", "did you mean top_p")),
        ("config = 'x'", ("config",)),
        ("temperature = [0.2, 'x']", ("--temperature", "'x'", "mine.toml")),
        ("top_p = 2", ("--top-p", "2", "mine.toml")),
        ("top_k = 2.5", ("--top-k", "2.5", "mine.toml")),
        ("[temperature]\na = 1", ("--temperature", "mine.toml")),
        ("seeds = '0..9999999999'", ("--seed", "mine.toml")),
        ("seed = 1\nseeds = 2", ("seed and seeds", "mine.toml")),
        ("temperature = [1, 1.0]", ("twice", "mine.toml")),
        ("model = 3", ("model", "mine.toml")),
        ("model = ['a', 'b']", ("model", "mine.toml")),
        ("description = 3", ("description", "mine.toml")),
        ("prompts = 3", ("prompts", "mine.toml")),
        ("prompts = [3]", ("mine.toml, prompt 1",)),
        ("prompts = ['x', {promt = 'y'}]", ("mine.toml, prompt 2", "promt")),
        ("prompts = ['x', 'x']", ("mine.toml, prompt 2", "prompt 1")),
        ("zip = 3", ("zip", "mine.toml")),
        ("zip = ['temperature']", ("--zip", "mine.toml")),
        ("zip = [['temperature', 3]]", ("zip", "mine.toml")),
        ("zip = [['temperature', 'tpo_p']]", ("tpo_p", "top_p", "mine.toml")),
        ("= 3", ("TOML", "mine.toml")),
    ],
)  # fmt: skip
def test_a_bad_grid_file_is_refused_by_name(grid_file, line, words):
    with pytest.raises(UsageError) as error:
        read_grid(grid_file(line))
    refused(error, *words)


def test_what_a_finished_sweep_says_of_itself_is_passed_over(grid_file):
    file = read_grid(
        grid_file("seed = 1", "[sweep]", 'fingerprint = "f"', "[sweep.model]", "a = 1")
    )
    assert file.values == {"seed": (1,)}


def test_a_grid_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    for name, words in (
        ("extreme", ("did you mean extremes", "notebook")),
        ("none.toml", ("no such file", "extremes")),
        (tmp_path / "none", ("no such file",)),
        (tmp_path, ("no file",)),
    ):
        with pytest.raises(UsageError) as error:
            read_grid(name)
        refused(error, *words)


# Among the other layers


def test_a_grid_stands_below_the_environment_and_above_the_configuration(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("top_k = 4\ntop_p = 0.5\nmin_p = 0.1\n")
    grid = {"top_k": (1, 2), "top_p": (0.2, 0.9), "temperature": (0.5, 1.0)}
    found = resolve(
        {"config": str(config), "temperature": "0.7"},
        {"DECODECLI_TOP_P": "0.3,0.4"},
        grid=grid,
        expressions=True,
    )
    names = ("temperature", "top_p", "top_k", "min_p", "seed")
    assert {name: (found.values[name], found.sources[name]) for name in names} == {
        "temperature": ("0.7", "flag"),
        "top_p": ("0.3,0.4", "env"),
        "top_k": ((1, 2), "grid"),
        "min_p": (0.1, "config"),
        "seed": (None, "default"),
    }


def test_a_flag_takes_the_place_of_an_axis(grid_file):
    file = read_grid(grid_file("temperature = [0.2, 1.4]", "top_p = [0.2, 0.9]", "seeds = [1, 2]"))
    grid = planned(file, {"temperature": "0.5", "seeds": "0..4"}, {"DECODECLI_TOP_P": "0.1"})
    assert (grid.varying, grid.seeds) == ({}, (0, 1, 2, 3, 4))
    assert planned(file, {"greedy": True}).axes["temperature"] == (0.0,)
    assert planned(file, env={"DECODECLI_SEEDS": "7,8"}).seeds == (7, 8)


def test_greedy_and_a_list_of_temperatures_contradict_each_other(grid_file):
    for lines in (
        ["greedy = true", "temperature = [0.2, 1]"],
        ["greedy = true", "temperature = 1"],
    ):
        with pytest.raises(UsageError, match="contradict"):
            planned(read_grid(grid_file(*lines)))
    assert planned(read_grid(grid_file("greedy = true", "temperature = 0"))).varying == {}


def test_a_grid_may_name_a_preset(grid_file):
    grid = planned(read_grid(grid_file('preset = "creative"', "temperature = [0.2, 1]")))
    assert grid.axes["top_p"] == (0.9,)
    assert grid.axes["temperature"] == (0.2, 1.0)


def test_expressions_are_for_sweeps_only():
    with pytest.raises(UsageError, match="DECODECLI_TOP_P"):
        resolve({}, {"DECODECLI_TOP_P": "0.1,0.2"})
    assert "batch_size" not in resolve({}, {"DECODECLI_BATCH_SIZE": "3"}).values
    found = resolve({}, {"DECODECLI_BATCH_SIZE": "3", "DECODECLI_BOS": "on,off"}, expressions=True)
    assert (found.sweep().batch_size, found.sources["batch_size"]) == (3, "env")
    assert found.values["bos"] == "on,off"
    assert set(found.values) == set(found.sources)
    with pytest.raises(UsageError, match=r"--batch-size.*DECODECLI_BATCH_SIZE"):
        resolve({}, {"DECODECLI_BATCH_SIZE": "0"}, expressions=True).sweep()


def test_seed_and_seeds_in_one_layer_are_refused():
    with pytest.raises(UsageError, match="--seed and --seeds"):
        resolve({"seed": "1", "seeds": "0..4"}, {}, expressions=True)


def test_axes_to_be_paired_are_named_as_options_are():
    assert zip_group("temperature,top-p") == ("temperature", "top_p")
    assert zip_group(" --top-k , min_p ") == ("top_k", "min_p")
    for text in ("temperature", "temperature,tpo-p", "temperature,temperature", "seeds,top-p", ""):
        with pytest.raises(UsageError) as error:
            zip_group(text)
        refused(error)


# The shipped grids


def test_the_sources_experiments_are_shipped():
    assert {"extremes", "notebook", "bos", "knowledge-and-stories"} <= set(grid_names())
    extremes = planned(read_grid("extremes"))
    assert extremes.axes["temperature"] == (0.001, 0.01, 1.0, 1.8, 20.0)
    notebook = planned(read_grid("notebook"))
    pairs = [(cell.params.top_p, cell.params.temperature) for cell in notebook]
    assert pairs == [(0.2, 0.2)] * 5 + [(0.2, 1.4)] * 5 + [(0.9, 1.4)] * 5
    bos = planned(read_grid("bos"))
    assert bos.axes["bos"] == (True, False)
    assert all(cell.params.greedy for cell in bos)


@pytest.mark.parametrize("name", grid_names())
def test_every_shipped_grid_is_whole(name):
    file = read_grid(name)
    assert file.description
    assert file.prompts
    grid = planned(file)
    assert 0 < len(grid) <= 5_000
    assert grid.repeated == 0


def test_knowledge_is_asked_of_many_things_and_stories_expect_nothing():
    prompts = read_grid("knowledge-and-stories").prompts
    knowledge = [prompt for prompt in prompts if prompt.task == "knowledge"]
    stories = [prompt for prompt in prompts if prompt.task == "stories"]
    assert len(knowledge) >= 24
    assert len(stories) >= 8
    assert len(prompts) == len(knowledge) + len(stories)
    assert all(prompt.expect for prompt in knowledge)
    assert not any(prompt.expect for prompt in stories)
    assert not any(prompt.answered_by(prompt.text) for prompt in knowledge)


def test_the_built_in_model_knows_every_answer_greedily():
    import decodecli

    lm = decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")
    params = SamplingParams(temperature=0, max_new_tokens=40, seed=0)
    wrong = {}
    for prompt in read_grid("knowledge-and-stories").prompts:
        if prompt.expect is not None:
            text = decodecli.generate(lm, prompt.text, params).summary.text
            if not prompt.answered_by(text):
                wrong[prompt.id] = text
    assert wrong == {}


# Cost


_PLAN = r"""
import json, re, sys, time
start = time.perf_counter()
from decodecli.config import resolve
from decodecli.sweeps.grid import plan
from decodecli.sweeps.grid_file import read_grid
from decodecli.sweeps.prompts import gather_prompts
file = read_grid(sys.argv[1]) if len(sys.argv) > 1 else None
values = file.values if file else {"temperature": "0.1:2:0.1", "top_p": "0.2:1:0.2", "seeds": "0..49"}
prompts = file.prompts if file else gather_prompts([f"prompt {n}" for n in range(20)])
effective = resolve({}, {}, grid=values, expressions=True)
grid = plan(effective.values, prompts, sources=effective.sources)
tokens, middle, name = grid.max_tokens, grid[len(grid) // 2], grid.fingerprint
status = open("/proc/self/status").read()  # getrusage counts what the test's process held
peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
heavy = [m for m in ("torch", "transformers", "rich", "typer", "numpy") if m in sys.modules]
print(json.dumps([len(grid), tokens, time.perf_counter() - start, peak, heavy]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
@pytest.mark.parametrize("shape", ["axes", "seeds", "prompts"])
def test_a_hundred_thousand_cells_are_planned_in_a_second_and_200_mb(tmp_path, grid_file, shape):
    arguments = []
    if shape == "seeds":
        arguments = [grid_file('prompts = ["Hi"]', 'seeds = "0..99999"')]
    if shape == "prompts":
        lines = (json.dumps({"prompt": f"prompt {n}", "expect": "x"}) for n in range(10_000))
        (tmp_path / "many.jsonl").write_text("\n".join(lines))
        arguments = [grid_file('prompts = "many.jsonl"', 'seeds = "0..9"')]
    command = [sys.executable, "-c", _PLAN, *map(str, arguments)]
    # The best of three, since other work may share the machine.
    found = [
        json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in "123"
    ]
    cells, tokens, seconds, peak, heavy = min(found, key=lambda each: each[2])
    assert (cells, heavy) == (100_000, [])
    assert tokens >= cells
    assert seconds < 1
    assert peak < 200e6


def test_cells_are_made_when_asked_for_and_not_kept():
    grid = plan({"temperature": "0:9.99:0.01", "seeds": "0..9999"}, ONE)
    assert grid[-1] is not grid[-1]
    assert grid[-1].index == 9_999_999
    assert sys.getsizeof(pickle.dumps(grid)) < 300_000
    assert isinstance(grid, Grid)


def test_an_axis_that_came_later_counts_where_it_is_not_neutral():
    grid, same = (
        plan({"temperature": 1.0, "seeds": 0, **more}, ONE) for more in ({}, {"top_nsigma": 0})
    )
    assert grid.fingerprint == same.fingerprint
    assert (
        plan({"temperature": 1.0, "seeds": 0, "top_nsigma": 1.5}, ONE).fingerprint
        != grid.fingerprint
    )


def test_a_cell_from_before_an_axis_was_there_is_the_cell_where_it_is_neutral():
    grid = plan({"temperature": 1.0, "seeds": 0}, ONE)
    values = grid[0].params.as_dict() | {"bos": None, "stop": ()}
    values.pop("top_nsigma")
    record = SimpleNamespace(
        index=0, prompt_id=ONE[0].id, prompt=ONE[0].text, task=None, params=values
    )
    assert grid.differs(record) is None
    assert (
        plan({"temperature": 1.0, "seeds": 0, "top_nsigma": 1}, ONE).differs(record) == "top_nsigma"
    )
