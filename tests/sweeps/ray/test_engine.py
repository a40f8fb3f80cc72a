"""A grid over a Ray cluster: every cell once and as here, whatever dies, leaves or joins on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from decodecli.errors import DecodecliError, LoadError
from decodecli.settings import LoadParams
from decodecli.sweeps.cells import Prompt
from decodecli.sweeps.grid import plan
from decodecli.sweeps.ray.engine import run_on_ray
from decodecli.sweeps.run import run_cells

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,  # found without being imported, which takes time
        reason="Ray is not installed: pip install 'decodecli[ray]'",
    ),
]

PROMPTS = [Prompt("The capital of Japan is", "japan"), Prompt("Once upon a time,", "once")]
GRID = plan(
    {"temperature": "0.5,1.0,1.6", "top_p": "0.5,1.0", "seed": "0..3", "max_new_tokens": 12},
    PROMPTS,
)
CELLS = range(len(GRID))
LOAD = LoadParams(device="cpu", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def here(lm) -> list[tuple[int, ...]]:
    """The ids of all cells by the engine of this machine, in grid order."""
    found = {out.record.index: out.record.token_ids for out in run_cells(lm, GRID)}
    return [found[index] for index in CELLS]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one machine with one core, to which a test can add others."""
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    # Ray writes the address below its usual folder, whatever `temp_dir` is.
    os.makedirs(os.path.dirname(get_ray_address_file(None)), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: paths of sockets are
    found = Cluster(initialize_head=True, head_node_args={**ONE_CORE, "temp_dir": folder})
    yield found
    found.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


ONE_CORE = {"num_cpus": 1, "object_store_memory": 80_000_000}


def real(notes: Path, in_turns: bool = False):
    """The built-in model, slowly: a worker notes its process, its machine, and the cells it begins.

    in_turns: the first worker stops after some cells until there is a second; the second stops for
        good after a few.
    """

    def make(params, options):
        import os
        import time

        import ray

        from decodecli.sweeps.ray.worker import Model, load_model

        model = load_model(params, options)
        mine = notes / f"{os.getpid()}-{ray.get_runtime_context().get_node_id()}"
        first = not list(notes.iterdir())

        def run(cells, on_tokens):
            def noted():
                number = 0
                for cell in cells:
                    if cell is None:  # none just now
                        yield None
                        continue
                    while in_turns and first and number >= 8 and len(list(notes.iterdir())) < 2:
                        time.sleep(0.05)
                    if in_turns and not first and number == 3:
                        time.sleep(600)
                    with mine.open("a") as file:
                        file.write(f"{cell.index}\n")
                    time.sleep(0.05)
                    number += 1
                    yield cell

            return model.run(noted(), on_tokens)

        return Model(model.info, model.versions, model.notices, run)

    return make


def made_up(fatal: int | None = None, seconds: float = 0.0):
    """No model at all: every cell is done at once, and one of them kills its worker."""

    def make(params, options):
        import os
        import time

        from decodecli.sweeps.cells import CellResult, cell_record
        from decodecli.sweeps.ray.worker import Model

        def run(cells, on_tokens):
            for cell in filter(None, cells):
                time.sleep(seconds)
                if cell.index == fatal:
                    os.kill(os.getpid(), 9)
                on_tokens(1)
                yield CellResult(cell_record(cell, error=f"made up by {os.getpid()}"))

        return Model(None, run=run)

    return make


def ids_in_order(outcomes) -> list[tuple[int, ...]]:
    """The ids of all cells in grid order; each must be there once."""
    assert sorted(each.record.index for each in outcomes) == list(CELLS)
    return [out.record.token_ids for out in sorted(outcomes, key=lambda each: each.record.index)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_a_worker_killed_on_the_way_costs_only_its_unfinished_cells(here, tmp_path, capfd):
    outcomes, lines, tokens, models, killed = [], [], [], [], None
    for outcome in run_on_ray(
        LOAD, GRID, CELLS, actors=2, batch_size=4, make=real(tmp_path), notice=lines.append,
        on_tokens=tokens.append, on_model=models.append, traces=True, candidates=3,
    ):  # fmt: skip
        outcomes.append(outcome)
        notes = sorted(tmp_path.iterdir())
        if killed is None and len(outcomes) >= 6 and notes:
            killed = notes[-1]
            os.kill(int(killed.name.partition("-")[0]), signal.SIGKILL)
    assert ids_in_order(outcomes) == here
    assert [line for line in lines if "died" in line and "run again" in line], lines
    assert len(list(tmp_path.iterdir())) >= 2
    assert [model.name for model in models] == ["builtin"]
    for outcome in outcomes:
        first, *_, last = map(json.loads, outcome.trace)
        assert first["type"] == "run"
        assert tuple(last["token_ids"]) == outcome.record.token_ids
    assert sum(tokens) >= sum(map(len, here)) - 50, "what the dead one drew last is not counted"
    assert capfd.readouterr() == ("", ""), "Ray says nothing"
    pids = [int(path.name.partition("-")[0]) for path in tmp_path.iterdir()]
    wait_for(lambda: not any(map(alive, pids)))


def test_a_machine_that_joins_is_used_and_when_it_is_lost_its_cells_run_elsewhere(
    here, cluster, tmp_path
):
    outcomes, lines, second, removed = [], [], None, False
    for outcome in run_on_ray(
        LOAD, GRID, CELLS, address=cluster.address, batch_size=4, make=real(tmp_path, True),
        notice=lines.append,
    ):  # fmt: skip
        outcomes.append(outcome)
        if second is None:
            second = cluster.add_node(**ONE_CORE)
        there = [path for path in tmp_path.iterdir() if path.name.endswith(second.node_id)]
        if there and not removed:
            wait_for(lambda there=there[0]: len(there.read_text().split()) == 3)
            cluster.remove_node(second, allow_graceful=False)
            removed = True
    assert removed
    assert ids_in_order(outcomes) == here
    assert any("joined" in line for line in lines)
    assert any("run again" in line for line in lines)


def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_are_done(cluster):
    lines = []
    cells = run_on_ray(
        LOAD, GRID, CELLS, address=cluster.address, batch_size=4, make=made_up(fatal=5),
        notice=lines.append,
    )  # fmt: skip
    outcomes = list(cells)
    ids_in_order(outcomes)
    errors = {out.record.index: out.record.error for out in outcomes}
    assert errors.pop(5).startswith("given up after 3 tries")
    assert all(error.startswith("made up") for error in errors.values())
    assert sum("run again" in line for line in lines) == 3


def test_workers_that_only_die_end_the_sweep(cluster, monkeypatch):
    monkeypatch.setattr("decodecli.sweeps.ray.engine._DEATHS", 0)

    def hopeless(params, options):
        import os

        from decodecli.sweeps.ray.worker import Model

        def run(cells, on_tokens):
            next(iter(cells))
            os.kill(os.getpid(), 9)
            yield

        return Model(None, run=run)

    with pytest.raises(DecodecliError, match="one after another died"):
        list(run_on_ray(LOAD, GRID, CELLS, address=cluster.address, make=hopeless))


def test_what_fails_in_a_worker_is_said_in_the_record(cluster):
    def failing(params, options):
        from decodecli.sweeps.ray.worker import Model

        def run(cells, on_tokens):
            next(iter(cells))
            raise RuntimeError("the device is gone")
            yield

        return Model(None, run=run)

    outcomes = list(run_on_ray(LOAD, GRID, [7], address=cluster.address, make=failing))
    (outcome,) = outcomes
    assert outcome.record.index == 7
    assert "RuntimeError: the device is gone" in outcome.record.error


def test_a_model_that_no_machine_can_load_is_said(cluster, tmp_path):
    missing = LoadParams(str(tmp_path / "nothing-here"), device="cpu")
    with pytest.raises(LoadError, match="nothing-here"):
        list(run_on_ray(missing, GRID, CELLS, address=cluster.address))

    def broken(params, options):
        raise LoadError("its weights are torn", "download them again")

    with pytest.raises(LoadError, match="torn") as caught:
        list(run_on_ray(LOAD, GRID, CELLS, address=cluster.address, make=broken))
    assert caught.value.hint == "download them again"


def test_leaving_the_iterator_ends_the_workers(cluster):
    import ray

    cells = run_on_ray(LOAD, GRID, CELLS, address=cluster.address, make=made_up(seconds=0.05))
    pid = int(next(cells).record.error.rpartition(" ")[2])
    assert alive(pid)
    cells.close()
    assert not ray.is_initialized()
    wait_for(lambda: not alive(pid))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_where_no_cluster_is_the_error_says_how_to_start_one(address, capfd):
    with pytest.raises(DecodecliError, match=address) as caught:
        list(run_on_ray(LOAD, GRID, CELLS, address=address))
    assert "ray start --head" in caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_ends_workers_and_cluster_and_goes_on(tmp_path):
    """In a process group of its own, as at a terminal, where all of them get the signal."""
    script = tmp_path / "sweep.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from test_engine import CELLS, GRID, LOAD, made_up, run_on_ray\n"
        "try:\n"
        "    for out in run_on_ray(LOAD, GRID, CELLS, actors=1, make=made_up(seconds=0.3)):\n"
        "        print(out.record.error.rpartition(' ')[2], flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    rest, noise = process.communicate(timeout=60)
    assert rest.split()[-1:] == ["interrupted"]
    assert noise == ""
    assert process.returncode == 0
    wait_for(lambda: not alive(pid))


def test_the_command_gives_the_cells_that_it_gives_without_ray(tmp_path):
    def cells(engine: list[str]) -> dict[int, list[int]]:
        words = ["sweep", "The capital of Japan is", "-t", "0.5,1.5", "--seeds", "0..2", "-n", "8"]
        model = ["--device", "cpu", "--threads", "1", "--format", "jsonl"]
        done = subprocess.run(
            [sys.executable, "-m", "decodecli", *words, *model, *engine],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        assert "ray" not in done.stderr.lower(), done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert sorted(each["index"] for each in found) == list(range(6))
        return {each["index"]: each["token_ids"] for each in found}

    assert cells(["--engine", "ray", "--actors", "1"]) == cells([])


def test_every_gpu_gets_a_worker_and_machines_without_get_none(cluster):
    """GPUs in name only: what matters is which of them a worker is given."""

    def seen(params, options):
        import os
        import time

        from decodecli.sweeps.cells import CellResult, cell_record
        from decodecli.sweeps.ray.worker import Model

        def run(cells, on_tokens):
            for cell in cells:
                time.sleep(0.1)
                given = os.environ.get("CUDA_VISIBLE_DEVICES")
                yield CellResult(cell_record(cell, error=f"{params.device} of GPU {given}"))

        return Model(None, run=run)

    machine = cluster.add_node(**ONE_CORE, num_gpus=2)
    try:
        outcomes = list(
            run_on_ray(LoadParams(), GRID, CELLS, address=cluster.address, batch_size=2, make=seen)
        )
    finally:
        cluster.remove_node(machine)
    ids_in_order(outcomes)
    assert {out.record.error for out in outcomes} == {"cuda of GPU 0", "cuda of GPU 1"}
