"""What a long run leaves in memory: the KV cache, and next to nothing beside it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc"
)

LIMIT = 4096  # bytes a step
VOCABULARY = 65_536  # one row of logits takes 256 KB


@pytest.fixture
def wide(tmp_path) -> tuple[Path, int]:
    """A tiny model with a large vocabulary and a long context, and what its cache takes a step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from decodecli.builtin import model_path

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=20_000,
        bos_token_id=1, eos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(5)
    folder = tmp_path / "wide"
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((Path(model_path()) / name).read_bytes())
    return folder, 2 * 8 * 4


def memory(process: int) -> int:
    """Bytes of a process in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def screen():
    """The near end of a terminal whose other end is read all the time."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are for POSIX systems")
    far, near = pty.openpty()

    def read() -> None:
        with contextlib.suppress(OSError):
            while os.read(far, 65536):
                pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield near
    os.close(near)
    reader.join(10)
    os.close(far)


def growth(
    command: list[str], trace: Path, environment: dict[str, str], steps: int, stdout: int
) -> int:
    """How much the process grows from a fifth of its steps to its last."""
    sizes: list[tuple[int, int]] = []
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, env=environment) as run,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(run.kill)
        while not trace.exists() and run.poll() is None:
            time.sleep(0.01)
        file, lines = stack.enter_context(trace.open("rb")), 0
        while run.poll() is None:
            lines += file.read().count(b'"type":"step"')
            if steps // 5 <= lines <= steps - 5:
                sizes.append((lines, memory(run.pid)))
            time.sleep(0.01)
    assert run.returncode == 0
    assert sizes[0][0] < steps // 2 < steps * 0.9 < sizes[-1][0], "it was seen early and late"
    return sizes[-1][1] - sizes[0][1]


def command_of(folder: Path, trace: Path, steps: int, *more: str) -> list[str]:
    # 40 candidates: steps that were kept would be seen.
    words = ["generate", "Hi", "-m", str(folder), "-n", str(steps), "--seed", "1", "-c", "40"]
    settings = ["-t", "1.2", "--top-p", "0.95", "--top-k", "500"]
    return [
        sys.executable, "-m", "decodecli", *words, *settings, "--trace", str(trace), *more
    ]  # fmt: skip


def test_no_row_of_the_vocabulary_stays_in_memory(wide, environment, tmp_path, screen):
    folder, cache = wide
    trace, steps = tmp_path / "t.jsonl", 300
    grown = growth(command_of(folder, trace, steps), trace, environment, steps, screen)
    # Beside what the allocator takes once: 240 rows would be 63 MB.
    assert grown < (LIMIT + cache) * steps + 10e6


@pytest.mark.slow
@pytest.mark.parametrize("where", ["terminal", "pipe", "jsonl", "logits"])
def test_a_long_run_grows_by_less_than_four_kilobytes_a_step(
    wide, environment, tmp_path, screen, where
):
    folder, cache = wide
    trace, steps = tmp_path / "t.jsonl", 5000
    more = {
        "jsonl": ("--format", "jsonl"),
        "logits": ("--save-logits", str(tmp_path / "a.npy")),
    }.get(where, ())
    stdout = screen if where == "terminal" else subprocess.DEVNULL
    command = command_of(folder, trace, steps, *more)
    grown = growth(command, trace, environment, steps, stdout)
    print(f"{where}: {grown / (0.8 * steps):.0f} bytes a step, the cache's {cache} among them")
    assert grown < (LIMIT + cache) * steps * 0.8
