"""Speed as ratios against named peers, measured in one run: `make bench`.

Each figure is the median of several repetitions that alternate between the two sides, so that a busy
machine slows both.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TOKENS = 128

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
from transformers import LlamaForCausalLM
model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.inference_mode():
    print(int(model(torch.tensor([[1, 300, 301, 302]])).logits[0, -1].argmax()))
"""


def compare(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], repeat: int
) -> None:
    """Print the medians of both sides and their ratio (ours / theirs, lower is better)."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for side, run in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            run()
            side.append(time.perf_counter() - start)
    first, second = (statistics.median(side) for side in times)
    print(f"{what:<66} {first:8.4f} s {second:8.4f} s   ratio {first / second:.2f}", flush=True)


def run(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run(words, check=True, capture_output=True)


def decode_rate() -> None:
    """Our loop with ten candidates recorded a step against `generate` of transformers."""
    import torch

    import decodecli

    lm = decodecli.load("builtin", device="cpu", dtype="float32", quantize="none")
    ids = lm.tokenizer("Once upon a time,", return_tensors="pt")["input_ids"]
    never = decodecli.LanguageModel(
        lm.model, lm.tokenizer, lm.info, lm.context, frozenset(), lm.bos_id
    )
    params = decodecli.SamplingParams(max_new_tokens=TOKENS, temperature=0.8, top_p=0.9, seed=0)

    def ours() -> None:
        assert decodecli.generate(never, ids[0].tolist(), params).summary.new_tokens == TOKENS

    def theirs(**more: object) -> None:
        torch.manual_seed(0)
        output = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, top_p=0.9,
            top_k=0, max_new_tokens=TOKENS, min_new_tokens=TOKENS, pad_token_id=0, **more,
        )  # fmt: skip
        (output if isinstance(output, torch.Tensor) else output.sequences).tolist()

    kept = {"output_logits": True, "output_scores": True, "return_dict_in_generate": True}
    ours(), theirs()
    compare(f"{TOKENS} tokens, 10 candidates a step / generate, nothing kept", ours, theirs, 7)
    compare(
        f"{TOKENS} tokens / generate keeping logits and scores", ours, lambda: theirs(**kept), 7
    )


def main() -> None:
    program = [sys.executable, "-m", "decodecli"]
    with tempfile.TemporaryDirectory() as folder:
        empty, bare = Path(folder) / "empty.py", Path(folder) / "bare.py"
        empty.write_text(EMPTY_APP)
        bare.write_text(BARE_SCRIPT)
        compare("--help / an empty Typer app's --help", run(*program, "--help"),
                run(sys.executable, str(empty), "--help"), 9)  # fmt: skip
        compare("softmax of two numbers / --help", run(*program, "softmax", "a=1", "b=2"),
                run(*program, "--help"), 9)  # fmt: skip
        from decodecli.builtin import model_path

        first = [*program, "generate", "hello", "-n", "1", "--quiet"]
        compare("first token from a cold start / bare script, one forward", run(*first),
                run(sys.executable, str(bare), str(model_path())), 5)  # fmt: skip
    decode_rate()


if __name__ == "__main__":
    main()
