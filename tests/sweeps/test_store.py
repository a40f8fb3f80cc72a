"""The folder of a sweep: what is on the disk when, and what becomes of folders that are not right."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from decodecli.errors import DecodecliError, UsageError, WriteError
from decodecli.records.sweep import CellRecord
from decodecli.sweeps import manifest as manifest_module
from decodecli.sweeps import store as store_module
from decodecli.sweeps.manifest import Manifest, read_manifest, weights_fingerprint
from decodecli.sweeps.store import check_writable, open_store, read_records, trace_path


class MadeUpGrid:
    """As much of a grid as a folder asks of it."""

    def __init__(self, cells: int = 6, temperature: float = 1.0) -> None:
        self.cells, self.temperature = cells, temperature

    @property
    def fingerprint(self) -> str:
        return f"grid of {self.cells} at {self.temperature}"

    def __len__(self) -> int:
        return self.cells

    def differs(self, record) -> None:
        """Its cells are all that have a number."""

    def as_toml(self, options=None, comments=()) -> str:
        lines = [f"# {comment}" for comment in comments]
        lines += [f"{name} = {json.dumps(value)}" for name, value in (options or {}).items()]
        return "\n".join([*lines, f"temperature = {self.temperature}", f"top_k = {self.cells}", ""])


def asked(cells: int = 6, **changed) -> Manifest:
    return Manifest(MadeUpGrid(cells, changed.pop("temperature", 1.0)), **changed)


def record(index: int, **changed) -> CellRecord:
    made = CellRecord(
        index=index, prompt_id="p0", task=None, prompt="Once", params={"temperature": 1.0, "seed": index},
        text=f" upon\u2028 {index} ☃", token_ids=(3, index), finish_reason="length", prompt_tokens=2,
        new_tokens=2, mean_logprob=-1.5, perplexity=4.48, mean_entropy=2.0, distinct_1=1.0,
        distinct_2=1.0, distinct_3=None, repeats=False, correct=None,
        segments=(" upon\u2028", f" {index} ☃"), logprobs=(-1.0, -2.0),
    )  # fmt: skip
    return replace(made, **changed)


def fill(folder: Path, *indices: int, cells: int = 6) -> None:
    with open_store(folder, asked(cells)) as store:
        for index in indices:
            store.add(record(index))
        store.sync()


def lines(folder: Path) -> list[dict]:
    data = (folder / "runs.jsonl").read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_what_a_sync_returned_is_read_back_as_it_was(tmp_path):
    folder = tmp_path / "new" / "sweep"
    with open_store(folder, asked()) as store:
        assert store.todo == [0, 1, 2, 3, 4, 5]
        store.add(record(4))
        store.add(record(1))
        assert lines(folder) == [], "nothing is said to be finished before it is on the disk"
        assert store.sync() == [record(4), record(1)]
        assert list(store.records()) == [record(4), record(1)]
        assert store.sync() == []
    assert [line["index"] for line in lines(folder)] == [4, 1]
    assert lines(folder)[0]["type"] == "cell"


def test_a_sweep_goes_on_with_the_cells_that_are_not_finished(tmp_path):
    fill(tmp_path / "out", 4, 0)
    with open_store(tmp_path / "out", asked()) as store:
        assert store.done == 2
        assert store.todo == [1, 2, 3, 5]
        assert store.notices == ()
        store.add(record(1))
        store.sync()
    assert [line["index"] for line in lines(tmp_path / "out")] == [4, 0, 1]


def test_a_cell_that_comes_twice_is_kept_once(tmp_path):
    with open_store(tmp_path / "out", asked()) as store:
        store.add(record(2))
        store.add(record(2))
        assert len(store.sync()) == 1
        store.add(record(2))
        assert store.sync() == []
    again = (tmp_path / "out" / "runs.jsonl").read_bytes()
    (tmp_path / "out" / "runs.jsonl").write_bytes(again * 2)  # as only a person can do
    assert len(list(read_records(tmp_path / "out"))) == 1


def test_several_cells_are_one_write_and_one_sync(tmp_path, monkeypatch):
    calls = []
    with open_store(tmp_path / "out", asked()) as store:
        write, sync = os.write, os.fsync
        monkeypatch.setattr(os, "write", lambda *a: calls.append("write") or write(*a))
        monkeypatch.setattr(os, "fsync", lambda *a: calls.append("sync") or sync(*a))
        for index in range(6):
            store.add(record(index))
        store.sync()
    assert calls == ["write", "sync"]


def test_syncs_are_not_due_more_often_than_they_are_cheap(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])

    def slow(_: int) -> None:
        now[0] += 0.01

    with open_store(tmp_path / "out", asked()) as store:
        assert not store.due(), "nothing waits"
        store.add(record(0))
        assert store.due(), "the first cell at once"
        monkeypatch.setattr(os, "fsync", slow)
        store.sync()
        store.add(record(1))
        now[0] += 0.19
        assert not store.due(), "20 times what the last one took"
        now[0] += 0.02
        assert store.due()


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_last_line_is_cut_off_and_said(tmp_path, left):
    fill(tmp_path / "out", 0, 1, 2)
    path = tmp_path / "out" / "runs.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:2]) + whole[2][:left])
    assert len(list(read_records(tmp_path / "out"))) == 2, "reading passes over it"
    with open_store(tmp_path / "out", asked()) as store:
        assert "torn" in store.notices[0]
        assert store.todo == [2, 3, 4, 5]
        store.add(record(5))
        store.sync()
    assert [line["index"] for line in lines(tmp_path / "out")] == [0, 1, 5]


def test_zeros_of_a_power_failure_are_cut_off(tmp_path):
    fill(tmp_path / "out", 0, 1, 2)
    path = tmp_path / "out" / "runs.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0] + bytes(len(whole[1]) - 9) + whole[1][-9:] + whole[2])
    with open_store(tmp_path / "out", asked()) as store:
        assert store.todo == [1, 2, 3, 4, 5]
    assert path.read_bytes() == whole[0]


@pytest.mark.parametrize(
    "garbage",
    [b"nonsense\n", b"{}\n", b"[1]\n", b"\n", b"\xff\xfe\n", b'{"index":-1}\n', b"[" * 9999 + b"\n"],
)  # fmt: skip
def test_a_line_that_is_no_cell_is_named(tmp_path, garbage):
    fill(tmp_path / "out", 0, 1)
    path = tmp_path / "out" / "runs.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + garbage + second)
    before = path.read_bytes()
    with pytest.raises(DecodecliError, match=r"runs\.jsonl: line 2 "):
        open_store(tmp_path / "out", asked())
    with pytest.raises(DecodecliError, match=r"runs\.jsonl: line 2 "):
        list(read_records(tmp_path / "out"))
    assert path.read_bytes() == before
    path.write_bytes(first + second)
    open_store(tmp_path / "out", asked()).close()  # it was let go of


def test_a_cell_beyond_the_grid_is_named(tmp_path):
    fill(tmp_path / "out", 0)
    path = tmp_path / "out" / "runs.jsonl"
    path.write_text(path.read_text() + path.read_text().replace('"index":0', '"index":6'))
    with pytest.raises(DecodecliError, match="line 2 is cell 6, but the grid has 6"):
        open_store(tmp_path / "out", asked())


def test_a_cell_that_failed_runs_again(tmp_path):
    with open_store(tmp_path / "out", asked()) as store:
        store.add(record(0))
        store.add(record(1, finish_reason="error", error="no memory", text="", token_ids=()))
        store.add(record(2))
        store.sync()
        assert store.done == 3
    assert len(lines(tmp_path / "out")) == 3
    with open_store(tmp_path / "out", asked()) as store:
        assert store.todo == [1, 3, 4, 5]
        assert store.notices == ("1 cell that failed runs again",)
        store.add(record(1))
        store.sync()
    assert [line["index"] for line in lines(tmp_path / "out")] == [0, 2, 1]


def test_a_torn_end_and_failures_go_together(tmp_path):
    with open_store(tmp_path / "out", asked()) as store:
        store.add(record(0, finish_reason="error", error="no memory"))
        store.add(record(1))
        store.sync()
    path = tmp_path / "out" / "runs.jsonl"
    path.write_bytes(path.read_bytes() + b'{"type":"ce')
    with open_store(tmp_path / "out", asked()) as store:
        assert store.todo == [0, 2, 3, 4, 5]
    assert [line["index"] for line in lines(tmp_path / "out")] == [1]


# ── sweep.toml ─────────────────────────────────────────────────────────────────────────────────


def test_what_was_asked_is_a_toml_file_with_versions_and_model(tmp_path):
    model = {"name": "builtin", "weights": "ab\x7f\n", "revision": None}
    with open_store(tmp_path / "out", asked(options={"model": "builtin"}, model=model)) as store:
        store.check_model({"name": "builtin", "dtype": "float32", "device": "cpu"})
        store.note_rate(123.456)
    found = read_manifest(tmp_path / "out")
    assert found.values == {"model": "builtin", "temperature": 1.0, "top_k": 6}
    known = {"name": "builtin", "dtype": "float32", "device": "cpu", "weights": "ab\x7f\n"}
    assert found.model == known
    assert {"decodecli", "python", "torch", "transformers"} <= found.versions.keys()
    assert found.rate == 123.5
    assert found.about["started"].tzinfo is not None


def test_another_grid_is_refused_with_what_differs(tmp_path):
    fill(tmp_path / "out", 0)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match=r"another grid \(temperature\)"):
        open_store(tmp_path / "out", asked(temperature=1.4))
    with pytest.raises(UsageError, match=r"another grid \(top_k\)"):
        open_store(tmp_path / "out", asked(7))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"name": "a", "weights": "1"}, {"name": "b", "weights": "2"}, "model a, not b"),
        ({"name": "a", "weights": "1"}, {"name": "a", "weights": "2"}, "model a with other weights"),
        ({"name": "a"}, {"name": "b", "weights": "2"}, "model a, not b"),
        ({"name": "a", "revision": "x"}, {"name": "a", "revision": "y"}, "revision x, not y"),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, "dtype float32, not bfloat16"),
        ({"quantize": "none"}, {"quantize": "nf4"}, "quantize none, not nf4"),
        ({"device": "cuda:0"}, {"device": "cpu"}, "device cuda, not cpu"),
    ],
)  # fmt: skip
def test_another_model_is_refused(tmp_path, before, now, said):
    open_store(tmp_path / "out", asked(model=before)).close()
    with pytest.raises(UsageError, match=said):
        open_store(tmp_path / "out", asked(model=now))
    with open_store(tmp_path / "out", asked()) as store, pytest.raises(UsageError, match=said):
        store.check_model(now)


def test_the_same_model_in_another_place_goes_on(tmp_path):
    before = {"name": "a", "weights": "1", "device": "cuda:0"}
    open_store(tmp_path / "out", asked(model=before)).close()
    with open_store(tmp_path / "out", asked(model={"name": "/b", "weights": "1"})) as store:
        store.check_model({"name": "/b", "weights": "1", "device": "cuda:3", "dtype": "float16"})
    assert read_manifest(tmp_path / "out").model["name"] == "a"
    assert read_manifest(tmp_path / "out").model["dtype"] == "float16"


def test_other_versions_are_a_notice(tmp_path, monkeypatch):
    open_store(tmp_path / "out", asked(versions={"torch": "1.0"})).close()
    with open_store(tmp_path / "out", asked()) as store:
        assert store.notices == ("the first cells were run with torch 1.0",)
        store.note_rate(1)
    assert read_manifest(tmp_path / "out").versions == {"torch": "1.0"}


def test_exact_and_traces_that_come_later_are_notices(tmp_path):
    open_store(tmp_path / "out", asked()).close()
    with open_store(tmp_path / "out", asked(exact=True, traces=True)) as store:
        told = " ".join(store.notices)
        assert "without --exact" in told
        assert "no traces" in told
        store.note_rate(1)
    assert read_manifest(tmp_path / "out").about["exact"] is False


def test_weights_are_told_apart_wherever_they_lie(tmp_path):
    from decodecli.models.checkpoint import Checkpoint

    def made(name: str, config: str, weights: bytes) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        return weights_fingerprint(Checkpoint(name, tmp_path / name, None, {}, 0))

    weights = random.Random(0).randbytes(300_000)
    first = made("a", "{}", weights)
    assert made("b", "{}", weights) == first
    assert made("c", "{ }", weights) != first
    assert made("d", "{}", weights[:-1] + b"?") != first
    assert made("e", "{}", b"") != first


# ── Folders that cannot be used ────────────────────────────────────────────────────────────────


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other files \(thesis\.tex\)"):
        open_store(tmp_path, asked())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "text", ["temperature = [1, 2]\n", "no toml", "[sweep]\nfingerprint = 3\n"]
)
def test_a_sweep_toml_of_somebody_else_is_refused(tmp_path, text):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(UsageError, match="not written by a sweep"):
        open_store(tmp_path, asked())
    assert (tmp_path / "sweep.toml").read_text() == text


def test_runs_without_what_was_asked_are_refused(tmp_path):
    fill(tmp_path / "out", 0)
    (tmp_path / "out" / "sweep.toml").unlink()
    with pytest.raises(UsageError, match=r"no sweep\.toml"):
        open_store(tmp_path / "out", asked())


def test_a_crash_before_sweep_toml_leaves_a_folder_that_can_be_used(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".lock").write_text("process 1\n")
    (folder / ".sweep.toml.0123.part").write_text("temper")
    (folder / "runs.jsonl").touch()
    with open_store(folder, asked()) as store:
        assert store.todo == [0, 1, 2, 3, 4, 5]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "runs.jsonl", "sweep.toml"]


def test_a_folder_inside_another_sweep_is_refused(tmp_path):
    fill(tmp_path / "out", 0)
    for inside in (tmp_path / "out" / "more", tmp_path / "out" / "a" / "b"):
        with pytest.raises(UsageError, match="lies in the folder of another sweep"):
            open_store(inside, asked())
        assert not inside.exists()
    with pytest.raises(UsageError, match="holds other files"):
        open_store(tmp_path, asked())


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError):
            open_store(folder, asked())


def test_a_runs_jsonl_that_is_a_folder_is_refused(tmp_path):
    fill(tmp_path / "out", 0)
    (tmp_path / "out" / "runs.jsonl").unlink()
    (tmp_path / "out" / "runs.jsonl").mkdir()
    with pytest.raises(DecodecliError, match="Is a directory"):
        open_store(tmp_path / "out", asked())


def test_a_read_only_folder_is_refused_yet_can_be_read(tmp_path, monkeypatch):
    """By os.open, since a superuser may write whatever a folder's mode says."""
    fill(tmp_path / "out", 0)
    real = os.open

    def read_only(path, flags, *rest, **more):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(UsageError, match="cannot be used: Read-only file system"):
        open_store(tmp_path / "out", asked())
    assert len(list(read_records(tmp_path / "out"))) == 1


def test_a_folder_that_could_not_be_made_is_refused_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(UsageError, match="cannot be used: Permission denied"):
        check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match="No space left"):
        open_store(tmp_path / "out", asked())
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    folder = tmp_path / "out"
    with open_store(folder, asked()) as store:
        script = f"""
            import sys
            sys.path[:0] = {[str(Path(__file__).parent)]!r}
            from test_store import asked, open_store
            from pathlib import Path
            open_store(Path({str(folder)!r}), asked())
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
        )
        assert ran.returncode != 0
        assert f"another sweep is writing into {folder} (process {os.getpid()})" in ran.stderr
        store.add(record(0))
        store.sync()
    fill(folder, 1)
    assert [line["index"] for line in lines(folder)] == [0, 1]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with open_store(tmp_path / "out", asked()) as store:
        assert "cannot be locked" in store.notices[0]


# ── Disks that are full, processes that are killed ─────────────────────────────────────────────


def test_a_full_disk_keeps_what_was_finished_and_no_half_lines(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    with open_store(folder, asked()) as store:
        store.add(record(0))
        store.sync()
        write, room = os.write, [100]

        def full(file: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            took, room[0] = write(file, bytes(data)[: room[0]]), 0
            return took

        monkeypatch.setattr(os, "write", full)
        store.add(record(1))
        with pytest.raises(WriteError, match=r"runs\.jsonl: No space left on device"):
            store.sync()
        assert store.done == 1
        store.add(record(2))
        with pytest.raises(WriteError):
            store.sync()
        monkeypatch.undo()
    assert [line["index"] for line in lines(folder)] == [0]
    with open_store(folder, asked()) as store:
        assert store.todo == [1, 2, 3, 4, 5]
        assert store.notices == ()


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path):
    folder = tmp_path / "out"
    fill(folder, 0)
    size = (folder / "runs.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open_store(folder, asked()) as store:
            store.add(record(1))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + size // 2, limits[1]))
            with pytest.raises(WriteError, match="File too large"):
                store.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [line["index"] for line in lines(folder)] == [0]


def test_a_trace_lies_there_before_its_cell_does(tmp_path):
    folder = tmp_path / "out"
    with open_store(folder, asked(traces=True)) as store:
        trace = ['{"type":"run"}', '{"type":"summary","text":"☃"}']
        store.add(record(3), trace=trace)
        found = trace_path(folder, 3)
        assert found == folder / "traces" / "000003.jsonl"
        assert found.read_text(encoding="utf-8").splitlines() == trace
        assert lines(folder) == []
        store.sync()
    assert list((folder / "traces").iterdir()) == [found]


def test_a_trace_that_cannot_be_written_ends_the_run_without_its_cell(tmp_path):
    folder = tmp_path / "out"
    with open_store(folder, asked(traces=True)) as store:
        store.add(record(0))
        (folder / "traces").write_text("in the way")
        with pytest.raises(WriteError, match=r"traces/000001\.jsonl"):
            store.add(record(1), trace=["{}"])
        assert len(store.sync()) == 1
        assert store.todo == [1, 2, 3, 4, 5]


KILLED = """
    import os, sys
    sys.path[:0] = [{here!r}]
    from test_store import asked, open_store, record
    from pathlib import Path
    with open_store(Path({folder!r}), asked({cells})) as store:
        for index in store.todo:
            store.add(record(index, text="x" * (index * 37 % 5000)), trace=["x" * 1000])
            if store.due():
                for found in store.sync():
                    print(found.index, flush=True)
        for found in store.sync():
            print(found.index, flush=True)
"""


def test_killed_at_any_moment_no_finished_cell_is_lost_and_none_is_there_twice(tmp_path):
    folder, cells, told = tmp_path / "out", 1500, []
    chance = random.Random(8)
    script = textwrap.dedent(
        KILLED.format(here=str(Path(__file__).parent), folder=str(folder), cells=cells)
    )
    for attempt in range(7):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        if attempt < 6:
            for _ in range(chance.randrange(1, 200)):
                if not (line := process.stdout.readline()):
                    break
                told.append(int(line))
            process.kill()
        told += [int(line) for line in process.stdout if line.endswith("\n")]
        process.wait()
    assert process.returncode == 0
    found = [line["index"] for line in lines(folder)]
    assert sorted(found) == list(range(cells))
    assert len(told) == len(set(told)), "no cell that was finished ran again"
    assert not list((folder / "traces").glob(".*"))


def test_records_are_read_without_holding_them(tmp_path):

    import tracemalloc

    folder, cells = tmp_path / "out", 5_000
    with open_store(folder, asked(cells)) as store:
        for index in range(cells):
            store.add(record(index, text="x" * 2000))
            if index % 500 == 499:
                store.sync()
        tracemalloc.start()
        assert sum(1 for _ in store.records()) == cells
        assert tracemalloc.get_traced_memory()[1] < 2e6
        tracemalloc.stop()


def test_the_module_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'numpy'}"
    script = f"import sys, decodecli.sweeps.store; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
    assert manifest_module.versions()["decodecli"]


def test_who_comes_second_to_a_new_folder_leaves_the_firsts_files_alone(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    with open_store(folder, asked(3)) as store:
        monkeypatch.setattr(type(folder), "exists", lambda self, **_: False)
        with pytest.raises(UsageError, match="another sweep is writing"):
            open_store(folder, asked(3))
        monkeypatch.undo()
        store.add(record(0))
        store.sync()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "runs.jsonl", "sweep.toml"]
    assert len(lines(folder)) == 1


def test_a_lock_whose_file_was_taken_away_is_no_lock(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    original = fcntl.flock

    def taken_away(file, operation):
        original(file, operation)
        (folder / ".lock").unlink(missing_ok=True)

    monkeypatch.setattr(fcntl, "flock", taken_away)
    with pytest.raises(UsageError, match="another sweep is writing"):
        open_store(folder, asked(3))
