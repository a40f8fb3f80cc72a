"""Whole processes: how fast they start, how they get on with neighbours, and how they grow."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import shapes
from benchmarks.decoding import pseudo_terminal
from benchmarks.report import Row, Target, at_least, at_most
from decodecli.analysis.timing import Samples, Stopwatch, alternate
from decodecli.errors import DecodeError

PROGRAM = (sys.executable, "-m", "decodecli")
_BYTES_A_STEP = 4096

EMPTY_APP = """
import typer
app = typer.Typer()
@app.command()
def one(): ...
@app.command()
def two(): ...
app()
"""

BARE_SCRIPT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, device = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
with torch.inference_mode():
    ids = tokenizer("hello", return_tensors="pt")["input_ids"].to(device)
    print(int(model(ids).logits[0, -1].argmax()))
"""

BARER_SCRIPT = """
import sys
import torch
from transformers import LlamaForCausalLM
folder, device = sys.argv[1:]
model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
with torch.inference_mode():
    print(int(model(torch.tensor([[1, 300, 301, 302]], device=device)).logits[0, -1].argmax()))
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a child: no settings of the user's own, caches of its own, no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECODECLI_")}
    own = {
        "XDG_CONFIG_HOME": str(folder / "no-settings"),
        "DECODECLI_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    return {**kept, **own, **more}


def run_quietly(words: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a program to its end; returns its stdout.

    Raises:
        DecodeError: it failed; with the last line that it wrote to stderr.
    """
    done = subprocess.run(
        list(words), env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        raise DecodeError(f"{Path(words[0]).name} ended with {done.returncode}: {lines[-1][:160]}")
    return done.stdout.decode("utf-8", "replace")


# start


def start_rows(folder: Path, device: str, repeat: int) -> Iterator[Row]:
    """Seconds from starting a process to its end, against other programs."""
    from decodecli.builtin import model_path

    folder.mkdir(parents=True, exist_ok=True)
    env = environment(folder)
    scripts = {"empty": EMPTY_APP, "bare": BARE_SCRIPT, "barer": BARER_SCRIPT}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")

    def script(name: str, *words: str) -> tuple[str, ...]:
        return (sys.executable, str(folder / f"{name}.py"), *words)

    help_ = (*PROGRAM, "--help")
    yield _start("--help", help_, "an empty Typer app's --help", script("empty", "--help"),
                 env, repeat, at_most(1.5))  # fmt: skip
    transformers = Path(sys.executable).parent / "transformers"
    found = str(transformers) if transformers.is_file() else shutil.which("transformers")
    peer = "transformers --help"
    if found is None:
        yield Row("start", "", "--help", peer, skipped="there is no program transformers here")
    else:
        yield _start("--help", help_, peer, (found, "--help"), env, repeat, at_most(0.2))
    softmax = (*PROGRAM, "softmax", "a=1", "b=2")
    yield _start("softmax a=1 b=2", softmax, "--help", help_, env, repeat, None)
    first = (*PROGRAM, "generate", "hello", "-n", "1", "--quiet", "--device", device)
    where = (str(model_path()), device)
    what = "generate -n 1"
    yield _start(what, first, "bare script: tokenizer, load, one forward", script("bare", *where),
                 env, repeat, at_most(1.15))  # fmt: skip
    yield _start(what, first, "barer script: no tokenizer", script("barer", *where),
                 env, repeat, None)  # fmt: skip


def _start(
    what: str,
    ours: Sequence[str],
    peer: str,
    theirs: Sequence[str],
    env: Mapping[str, str],
    repeat: int,
    target: Target | None,
) -> Row:
    watch = Stopwatch()
    sides = {
        "ours": lambda: watch.seconds(lambda: run_quietly(ours, env)),
        "theirs": lambda: watch.seconds(lambda: run_quietly(theirs, env)),
    }
    found = alternate(sides, repeat)
    return Row("start", "built-in model", what, peer, "s", found["ours"], found["theirs"], target)


# neighbours


def neighbour_rows(folder: Path, device: str, repeat: int, quick: bool) -> Iterator[Row]:
    """tokens/s of `decodecli generate` on the built-in model alone, in company, and disturbed."""
    folder.mkdir(parents=True, exist_ok=True)
    each, samples = (16, 1) if quick else (400, 4)
    words = (
        *PROGRAM, "generate", "Once upon a time,", "-n", str(each), "--num-samples", str(samples),
        "--seed", "7", "--device", device, "--quiet", "--trace",
    )  # fmt: skip
    alone, two, busy = "one alone", "two at once, together", "one beside a busy loop"
    runs: dict[str, list[tuple[float, float]]] = {alone: [], two: [], busy: []}

    def measure(name: str, count: int) -> float:
        runs[name].append(together(words, count, folder))
        return runs[name][-1][0]

    def disturbed() -> float:
        with busy_loop():
            return measure(busy, 1)

    sides = {alone: lambda: measure(alone, 1), two: lambda: measure(two, 2), busy: disturbed}
    alternate(sides, repeat, warm_up=False)
    for place, how in enumerate(("while decoding", "start-up included")):
        rates = {name: Samples(tuple(r[place] for r in found)) for name, found in runs.items()}
        for name, target in ((two, at_least(1.5)), (busy, at_least(0.7))):
            yield Row("neighbours", "built-in model", f"{name}, {how}", alone, "tokens/s",
                      rates[name], rates[alone], target)  # fmt: skip


def together(words: Sequence[str], count: int, folder: Path) -> tuple[float, float]:
    """Run a command `count` times at once, each with a trace of its own as its last argument.

    Returns:
        Their tokens/s added up, counted while they decode; and all tokens by the seconds from the
        first start to the last end.
    """
    traces = [folder / f"trace-{number}.jsonl" for number in range(count)]
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            [*words, str(trace)],
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for trace in traces
    ]
    complaints = [child.communicate()[1] for child in running]
    seconds = time.perf_counter() - start
    for child, complaint in zip(running, complaints, strict=True):
        if child.returncode:
            last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise DecodeError(f"decodecli generate ended with {child.returncode}: {''.join(last)}")
    counted = [decoded(trace) for trace in traces]
    for trace in traces:
        trace.unlink()
    return sum(n / s for n, s in counted), sum(n for n, _ in counted) / seconds


def decoded(trace: Path) -> tuple[int, float]:
    """How many tokens the runs of a trace have, and how many seconds their decoding took."""
    tokens, seconds = 0, 0.0
    with trace.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith('{"type":"summary"'):
                summary = json.loads(line)
                tokens += summary["new_tokens"]
                seconds += summary["seconds"]["decode"]
    return tokens, seconds


@contextmanager
def busy_loop() -> Iterator[None]:
    """Another process that keeps one core busy meanwhile."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        yield
    finally:
        child.kill()
        child.wait()


# memory


def memory_rows(
    folder: Path,
    device: str,
    quick: bool,
    vocabularies: Sequence[int] = (4096, 131_072),
    steps: int | None = None,
) -> Iterator[Row]:
    """Growth of a generating process by step, for a small and a large vocabulary."""
    steps = steps or (200 if quick else 5000)
    for vocabulary in vocabularies:
        subject = f"tiny model · {vocabulary:,} tokens"
        what = f"growth of the process over {steps:,} steps, besides the KV cache"
        try:
            import pty  # noqa: F401

            import psutil  # noqa: F401  comes with accelerate
        except ImportError as error:
            yield Row("memory", subject, what, skipped=f"there is no {error.name} here")
            continue
        config = tiny_config(vocabulary, steps)
        model = shapes.write_model(folder / f"vocabulary-{vocabulary}", config)
        measured = growth(model, steps, folder, device)
        grown = max(measured - 2 * 4 * config["head_dim"] * config["num_key_value_heads"], 0.0)
        yield Row("memory", subject, what, "", "bytes/step", Samples((grown,)),
                  target=at_most(_BYTES_A_STEP),
                  note="resident memory of generate --trace with tables at a terminal")  # fmt: skip
        shutil.rmtree(model)


def tiny_config(vocabulary: int, steps: int) -> dict[str, Any]:
    """One narrow layer, and room for the steps."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": steps + 64,
        "bos_token_id": 0,
        "eos_token_id": None,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }


def growth(model: Path, steps: int, folder: Path, device: str) -> float:
    """Bytes by which `decodecli generate` grows a step, once a tenth of its steps are done."""
    import psutil

    trace = folder / "growth.jsonl"
    words = [
        *PROGRAM, "generate", "a", "-m", str(model), "-n", str(steps), "--seed", "0",
        "--device", device, "--tables", "full", "--trace", str(trace),
    ]  # fmt: skip
    points: list[tuple[int, int]] = []
    with pseudo_terminal() as terminal:
        child = subprocess.Popen(
            words, env=environment(folder), stdin=subprocess.DEVNULL, stdout=terminal.fileno(),
            stderr=subprocess.PIPE,
        )  # fmt: skip
        process, done, offset = psutil.Process(child.pid), 0, 0
        while child.poll() is None:
            time.sleep(0.02)
            new, offset = _new_lines(trace, offset)
            done += new
            if not steps // 10 <= done <= steps:
                continue
            try:
                points.append((done, process.memory_info().rss))
            except psutil.Error:  # it has ended meanwhile
                break
        complaint = child.communicate()[1]
    trace.unlink(missing_ok=True)
    if child.returncode:
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise DecodeError(f"decodecli generate ended with {child.returncode}: {''.join(last)}")
    return slope(points)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line nearest to the points (least squares).

    Raises:
        DecodeError: there are not two different ones.
    """
    if len({x for x, _ in points}) < 2:
        raise DecodeError(
            "the process ended before its memory was measured twice", "use more steps"
        )
    xs, ys = zip(*points, strict=True)
    return statistics.linear_regression(xs, ys).slope


def _new_lines(path: Path, offset: int) -> tuple[int, int]:
    """How many lines a growing file has gained since `offset`, and the new offset."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError:
        return 0, offset
    return data.count(b"\n"), offset + len(data)
