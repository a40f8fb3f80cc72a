"""The machine is described by what speed depends on, and by nothing that names it."""

from __future__ import annotations

import platform

from benchmarks import machine


def test_the_processor_is_named_as_the_system_names_it(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A  Fine   CPU @ 2 GHz\nflags\t: x\n")
    assert machine.cpu_model(file) == "A Fine CPU @ 2 GHz"


def test_a_system_that_does_not_tell_still_gets_a_name(tmp_path):
    assert machine.cpu_model(tmp_path / "nothing")


def test_the_description_has_all_that_a_figure_depends_on():
    found = machine.describe("cpu")
    assert found["cores"] >= 1
    assert found["gpu"] is None
    assert {"decodecli", "python", "torch", "transformers"} <= set(found["versions"])
    assert found["wait_policy"] == "passive"
    words = " ".join(machine.in_words(found))
    assert found["cpu"] in words
    assert f"torch {found['versions']['torch']}" in words


def test_the_description_does_not_name_the_machine():
    node = platform.node()
    assert not node or node not in str(machine.describe("cpu"))


def test_a_gpu_is_described_with_its_memory():
    found = {**machine.describe("cpu"), "gpu": {"name": "G1", "memory_gib": 80.0, "cuda": "13.0"}}
    assert "G1 · 80 GiB · CUDA 13.0" in machine.in_words(found)
