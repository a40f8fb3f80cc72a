"""A sweep that grows: every finished cell keeps its line and its trace, whatever ends the process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from decodecli.errors import UsageError, WriteError
from decodecli.records.sweep import CellRecord
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.grid import Grid, plan
from decodecli.sweeps.manifest import Manifest, manifest_grid, read_manifest
from decodecli.sweeps.store import open_store, read_records, trace_path

PROMPTS = (Prompt("Once", "p0"), Prompt("The capital is", "capital", ("Tokyo",), "facts"))
SMALL = {"temperature": "0.2,1.4", "seeds": "0..2"}
LARGE = {"temperature": "0.2,0.7,1.4", "top_p": "0.9,1", "seeds": "0..4"}
CHANGING = ("replace", "link", "fsync", "unlink", "rmdir", "mkdir", "rename", "open", "write")


def small() -> Grid:
    return plan(SMALL, PROMPTS)


def large() -> Grid:
    return plan(LARGE, (*PROMPTS, Prompt("Long ago", "p2")))


def record(grid: Grid, index: int, **changed) -> CellRecord:
    cell = grid[index]
    text = spelt(cell)
    made = CellRecord(
        index=index, prompt_id=cell.prompt.id, task=cell.prompt.task, prompt=cell.prompt.text,
        params={**cell.params.as_dict(), "bos": True}, text=text, token_ids=(3, 4),
        finish_reason="length", prompt_tokens=2, new_tokens=2, mean_logprob=-1.5, perplexity=4.48,
        mean_entropy=2.0, distinct_1=1.0, distinct_2=1.0, distinct_3=None, repeats=False, correct=None,
        segments=(text, ""), logprobs=(-1.0, -2.0),
    )  # fmt: skip
    return replace(made, **changed)


def spelt(cell) -> str:
    """What tells a cell from every other, wherever it lies."""
    params = cell.params
    return f"{cell.prompt.id} {params.temperature} {params.top_p} {params.seed}"


def fill(folder: Path, grid: Grid, *indices: int, traces: bool = True) -> set[str]:
    with open_store(folder, Manifest(grid)) as store:
        for index in indices:
            cell = spelt(grid[index])
            store.add(record(grid, index), [json.dumps(cell)] if traces else None)
        store.sync()
    return {spelt(grid[index]) for index in indices}


def check(folder: Path, wanted: set[str], traces: bool = True) -> Grid:
    """That every cell is there once, in its place in the grid that the folder has; returns that."""
    grid, found = manifest_grid(folder), list(read_records(folder))
    assert read_manifest(folder).fingerprint == grid.fingerprint
    assert {spelt(grid[r.index]) for r in found} == wanted
    assert len(found) == len(wanted)
    for one in found:
        assert one.text == spelt(grid[one.index])
        assert one.prompt_id == grid[one.index].prompt.id
    return grid


def check_traces(folder: Path, grid: Grid, wanted: set[str]) -> None:
    kept = {path.name: json.loads(path.read_text()) for path in (folder / "traces").iterdir()}
    assert set(kept.values()) == wanted
    for one in read_records(folder):
        assert kept[trace_path(folder, one.index).name] == one.text


def test_finished_cells_are_kept_under_their_new_numbers(tmp_path):
    wanted = fill(tmp_path / "out", small(), 0, 2, 3, 7, 11)
    with open_store(tmp_path / "out", Manifest(large()), extend=True) as store:
        assert store.done == 5
        assert len(store.todo) == len(large()) - 5
        assert store.notices == ("the sweep of 12 cells has 90 from now on",)
        todo = store.todo[0]
        store.add(record(large(), todo), [json.dumps(spelt(large()[todo]))])
        store.sync()
    grid = check(tmp_path / "out", wanted | {spelt(large()[todo])})
    assert grid == large()
    check_traces(tmp_path / "out", grid, wanted | {spelt(large()[todo])})
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".lock", "runs.jsonl", "sweep.toml", "traces"]
    with open_store(tmp_path / "out", Manifest(large()), extend=True) as store:
        assert store.notices == (), "now it is the same grid"


def test_what_the_first_cells_were_run_with_is_kept(tmp_path):
    facts = {"name": "builtin", "weights": "abc"}
    with open_store(
        tmp_path / "out", Manifest(small(), {"dtype": "float32"}, facts, exact=True)
    ) as store:
        store.note_rate(12.5)
    with open_store(tmp_path / "out", Manifest(large(), model=facts), extend=True):
        pass
    found = read_manifest(tmp_path / "out")
    assert found.fingerprint == large().fingerprint
    assert (found.values["dtype"], found.model, found.rate) == ("float32", facts, 12.5)
    with pytest.raises(UsageError, match="other weights"):
        open_store(
            tmp_path / "out", Manifest(large(), model={**facts, "weights": "z"}), extend=True
        )


@pytest.mark.parametrize(
    ("values", "prompts"),
    [
        (LARGE | {"temperature": "0.2,0.7"}, PROMPTS),
        (LARGE | {"seeds": "0,1"}, PROMPTS),
        (LARGE | {"top_p": "0.9"}, PROMPTS),
        (LARGE, PROMPTS[:1]),
        (LARGE, (PROMPTS[0], replace(PROMPTS[1], expect=("Kyoto",)))),
        (LARGE, (PROMPTS[0], replace(PROMPTS[1], id="other"))),
    ],
)
def test_a_grid_that_lacks_a_cell_is_refused_and_nothing_changes(tmp_path, values, prompts):
    fill(tmp_path / "out", small(), 0, 11)
    before = {
        p: p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.name != ".lock" and p.is_file()
    }
    with pytest.raises(UsageError, match="cells that are not in this grid") as error:
        open_store(tmp_path / "out", Manifest(plan(values, prompts)), extend=True)
    assert "--extend adds values" in error.value.hint
    with pytest.raises(UsageError, match="another grid") as error:
        open_store(tmp_path / "out", Manifest(plan(values, prompts)))
    assert "--extend" not in error.value.hint
    assert all(path.read_bytes() == data for path, data in before.items())


def test_without_being_asked_nothing_grows_and_the_hint_names_it(tmp_path):
    fill(tmp_path / "out", small(), 0)
    with pytest.raises(UsageError, match="another grid") as error:
        open_store(tmp_path / "out", Manifest(large()))
    assert "--extend keeps its cells" in error.value.hint
    assert manifest_grid(tmp_path / "out") == small()


def test_paired_axes_grow_by_rows_and_into_a_product(tmp_path):
    group = [("temperature", "top_p")]
    paired = plan(
        {"temperature": "0.2,1.4,1.4", "top_p": "0.2,0.2,0.9", "seeds": "0,1"}, PROMPTS, group
    )
    more = plan(
        {"temperature": "0.2,1,1.4,1.4", "top_p": "0.2,0.2,0.2,0.9", "seeds": "0,1"}, PROMPTS, group
    )
    product = plan({"temperature": "0.2,1,1.4", "top_p": "0.2,0.9", "seeds": "0..3"}, PROMPTS)
    assert more.holds(paired)
    assert product.holds(more)
    assert not more.holds(product)
    assert not paired.holds(more)
    wanted = fill(tmp_path / "out", paired, *range(12))
    for grid in (more, product):
        open_store(tmp_path / "out", Manifest(grid), extend=True).close()
        check_traces(tmp_path / "out", check(tmp_path / "out", wanted), wanted)


def test_the_place_of_a_cell_in_its_own_grid_is_its_number():
    for grid in (
        small(),
        large(),
        plan({"bos": "on,off,auto", "stop": [["a"], ["b", "c"]], "seed": 3}, PROMPTS),
    ):
        assert [grid.index_of(cell) for cell in grid] == list(range(len(grid)))
    assert small().index_of(large()[0]) is None, "another top-p"


def test_a_torn_end_and_failed_cells_do_not_come_along(tmp_path):
    wanted = fill(tmp_path / "out", small(), 1, 2)
    with open_store(tmp_path / "out", Manifest(small())) as store:
        store.add(record(small(), 3, error="memory ran out", finish_reason="error"))
        store.sync()
    with (tmp_path / "out" / "runs.jsonl").open("ab") as file:
        file.write(b'{"type":"cell","ind')
    open_store(tmp_path / "out", Manifest(large()), extend=True).close()
    check(tmp_path / "out", wanted)


def extended_until(folder: Path, calls: int) -> bool:
    """Extend in a process that ends at once, nothing cleaned up, at that call of those that change files;
    whether it came to its end before."""
    child = os.fork()
    if child == 0:
        left = [calls]

        def ending(real):
            def call(*args, **more):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return real(*args, **more)

            return call

        for name in CHANGING:
            setattr(os, name, ending(getattr(os, name)))
        try:
            open_store(folder, Manifest(large()), extend=True).close()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("traces", [True, False])
def test_killed_between_any_two_writes_no_cell_is_lost_and_each_is_in_its_place(tmp_path, traces):
    first = tmp_path / "first"
    wanted = fill(first, small(), 0, 2, 5, 7, 11, traces=traces)
    seen, calls, done = set(), 0, False
    while not done:
        folder = tmp_path / f"killed-{calls}"
        shutil.copytree(first, folder)
        done = extended_until(folder, calls)
        seen.add(len(check(folder, wanted)))  # as a reader finds it
        again = tmp_path / "again"
        shutil.copytree(folder, again)
        grid = manifest_grid(again)
        open_store(again, Manifest(grid)).close()  # the folder alone goes on
        assert check(again, wanted) == grid
        if traces:
            check_traces(again, grid, wanted)
        shutil.rmtree(again)
        extended_until(folder, calls)  # killed once more, on its way back or through
        check(folder, wanted)
        open_store(folder, Manifest(large()), extend=True).close()
        assert check(folder, wanted) == large()
        if traces:
            check_traces(folder, large(), wanted)
        left = {path.name for path in folder.iterdir()}
        assert left == {".lock", "runs.jsonl", "sweep.toml", *(["traces"] if traces else [])}
        shutil.rmtree(folder)
        calls += 1
    assert seen == {len(small()), len(large())}
    assert calls > 20


@pytest.mark.parametrize("name", ["replace", "link", "fsync"])
def test_a_full_disk_leaves_the_folder_as_it_was_or_whole(tmp_path, monkeypatch, name):
    first = tmp_path / "first"
    wanted = fill(first, small(), 0, 2, 5)
    real, calls = getattr(os, name), 0
    for calls in range(12):
        folder = tmp_path / f"full-{calls}"
        shutil.copytree(first, folder)
        left = [calls]

        def full(*args, left=left, **more):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with contextlib.suppress(WriteError):
                open_store(folder, Manifest(large()), extend=True).close()
        check(folder, wanted)
        open_store(folder, Manifest(large()), extend=True).close()
        assert check(folder, wanted) == large()
        check_traces(folder, large(), wanted)


def test_a_file_system_without_links_has_copies(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    wanted = fill(tmp_path / "out", small(), 0, 2, 5)
    monkeypatch.setattr(os, "link", none)
    open_store(tmp_path / "out", Manifest(large()), extend=True).close()
    check_traces(tmp_path / "out", check(tmp_path / "out", wanted), wanted)
