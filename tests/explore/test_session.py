"""A session's branches, and its file."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodecli import SamplingParams
from decodecli.errors import UsageError
from decodecli.explore.session import DRAWN, TAKEN, Branch, Choice, Session, read_session, tree
from decodecli.records.run import ModelInfo

MODEL = ModelInfo("builtin", None, 7, 100, "float32", "cpu", "none")


def choice(token_id: int, how: str = DRAWN) -> Choice:
    return Choice(token_id, f"p{token_id}", 1, -0.5, None, how, 3, {"top_p": 0.9})


def session_of(*branches: tuple[int, ...]) -> Session:
    made = [Branch(tuple(map(choice, ids)), seed) for seed, ids in enumerate(branches)]
    return Session(MODEL, "Hi", (1, 2), SamplingParams(temperature=0.7), made or [Branch()])


def test_tokens_are_added_and_taken_away():
    session = session_of()
    session.add(choice(4))
    session.add(choice(5, TAKEN))
    assert session.branch.ids == (4, 5)
    assert session.branch.mean_surprisal == 0.5
    session.undo()
    session.undo()
    session.undo()
    assert session.branch == Branch()


def test_a_new_branch_keeps_the_old_one_and_draws_by_a_seed_of_its_own():
    session = session_of((4, 5, 6))
    session.open_branch(2)
    assert [branch.ids for branch in session.branches] == [(4, 5, 6), (4, 5)]
    assert session.current == 1
    assert session.branch.seed not in (0, 3)  # of the first branch, and of its draws
    session.switch(1)
    assert session.current == 0


def test_the_tree_has_common_beginnings_once():
    root = tree(session_of((1, 2, 3), (1, 2), (1, 2, 4, 5), (9,)).branches)
    assert [c.token_id for c in root.choices] == []
    first, second = root.children
    assert ([c.token_id for c in first.choices], first.branches) == ([1, 2], [1])
    assert [[c.token_id for c in node.choices] for node in first.children] == [[3], [4, 5]]
    assert second.branches == [3]


@given(st.lists(st.lists(st.integers(0, 3), max_size=6).map(tuple), min_size=1, max_size=12))
def test_every_branch_is_in_the_tree(branches):
    paths = {}

    def walk(node, before):
        path = (*before, *(c.token_id for c in node.choices))
        paths.update(dict.fromkeys(node.branches, path))
        for child in node.children:
            walk(child, path)

    walk(tree(session_of(*branches).branches), ())
    assert paths == dict(enumerate(branches))


def test_a_saved_session_is_read_as_it_was(tmp_path):
    session = session_of((4, 5), ())
    session.current = 1
    path = str(tmp_path / "session.json")
    session.save(path)
    assert read_session(path) == replace(session, saved=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.pop("branches"),
        lambda v: v.update(type="run"),
        lambda v: v.update(schema=2),
        lambda v: v.update(branches=[]),
        lambda v: v.update(current=5),
        lambda v: v.update(prompt_ids=[-1]),
        lambda v: v["branches"][0].update(seed="x"),
        lambda v: v["branches"][0]["choices"][0].update(token_id="4"),
        lambda v: v["branches"][0]["choices"][0].update(params={"colour": 3}),
        lambda v: v["branches"][0]["choices"][0].update(how="stolen"),
        lambda v: v["params"].update(temperature=-1),
    ],
)
def test_a_damaged_session_is_refused_in_a_line(tmp_path, damage):
    path = tmp_path / "session.json"
    values = session_of((4, 5)).as_dict()
    damage(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="cannot be opened") as error:
        read_session(str(path))
    assert "\n" not in error.value.message


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(session_of().as_dict())), ANY)
def test_any_value_under_any_key_is_read_or_refused(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp("session") / "session.json"
    path.write_text(json.dumps(session_of((4,)).as_dict() | {key: value}))
    with contextlib.suppress(UsageError):
        assert read_session(str(path)).branches
