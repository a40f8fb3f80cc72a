"""The scripts of `configs/shell` and docs/SCRIPTS.md's loops, in a real shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "configs" / "shell" / "temperatures.sh"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="for a POSIX shell")


@pytest.fixture
def shell(tmp_path):
    """Run a line of bash in a folder of its own, `decodecli` being this one and three tokens long."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "decodecli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m decodecli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DECODECLI_MAX_NEW_TOKENS": "3",
    }

    def run(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path / "work", env=environment | more,
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip

    run.folder = tmp_path / "work"
    return run


def test_the_script_writes_a_text_for_each_temperature_and_seed(shell, cli):
    prompt = 'It\'s "50 %" of $HOME;\n-- once `upon` a * time'
    more = {"SEEDS": "0 3", "JOBS": "2", "SCRIPT": str(SCRIPT), "PROMPT": prompt}
    done = shell('"$SCRIPT" "$PROMPT" "two words" 0.7', **more)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    folder = shell.folder / "two words"
    assert sorted(path.name for path in folder.iterdir()) == ["0.7-0.txt", "0.7-3.txt"]
    alone = cli("generate", prompt, "-t", "0.7", "--seed", "3", "-n", "3", "--quiet").succeeded()
    assert (folder / "0.7-3.txt").read_bytes() == alone.raw


def test_the_script_goes_on_and_tells_of_errors(shell):
    more = {"SCRIPT": str(SCRIPT)}
    (shell.folder / "texts").mkdir()
    (shell.folder / "texts" / "0.5-0.txt").write_text("mine")
    done = shell('"$SCRIPT" Once texts 0.5 0.7', **more, DECODECLI_TOP_P="7")
    assert done.returncode == 1
    assert "--top-p" in done.stderr
    assert [path.name for path in (shell.folder / "texts").iterdir()] == ["0.5-0.txt"]
    assert (shell.folder / "texts" / "0.5-0.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "words", ["", "Once", "Once texts abc", "Once texts 0.5 -1", "Once texts ''"]
)
def test_the_script_refuses_what_is_no_temperature_before_it_begins(shell, words):
    done = shell(f'"$SCRIPT" {words}', SCRIPT=str(SCRIPT))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert list(shell.folder.iterdir()) == []


def documented_loops() -> list[str]:
    """The commands under the page's heading on loops."""
    text = (ROOT / "docs" / "SCRIPTS.md").read_text(encoding="utf-8")
    section = text.partition("## A shell loop, xargs, and why sweep is faster\n")[2]
    return re.findall(r"^\$ (.+)$", section.partition("\n## ")[0], re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("line", documented_loops())
def test_the_documented_loops_write_what_they_say(shell, line):
    assert "configs/shell/temperatures.sh" in " ".join(documented_loops())
    done = shell(line.replace("configs/shell/temperatures.sh", f"'{SCRIPT}'"))
    assert (done.returncode, done.stderr) == (0, "")
    texts = [path for path in shell.folder.rglob("*.txt") if path.stat().st_size > 1]
    assert len(texts) == (9 if "SEEDS" in line else 4)
