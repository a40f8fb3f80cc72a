"""Many cells at once: against `generate` called for each, and against a process for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.programs import PROGRAM, environment, run_quietly
from benchmarks.report import Row, at_least
from benchmarks.subjects import FILTERED_WORDS, FILTERS, Subject
from decodecli.analysis.timing import Stopwatch, alternate
from decodecli.errors import DecodeError
from decodecli.library_logging import quiet_libraries

CELLS = 16
_TOKENS = 64
_PROMPT = "Once upon a time, there was a little"


def cell_rows(subject: Subject, repeat: int, quick: bool) -> Iterator[Row]:
    """Tokens/s of cells that share one prompt and every forward pass, against `generate` called once a
    cell in this process. Both sides count the prompt: ours runs it once."""
    import torch

    from decodecli.decoding.batch import Batch, Request
    from decodecli.decoding.prompt import prefill

    lm, tokens = subject.lm, 4 if quick else _TOKENS
    ids = list(range(10, 26))
    watch = subject.speed.watch
    given = torch.tensor([ids], device=str(lm.info.device))
    again: list[int] = []

    def ours() -> None:
        prefix = prefill(lm, ids)
        batch = Batch(lm, CELLS)
        requests = [
            Request(n, prefix, replace(FILTERS, seed=n, max_new_tokens=tokens))
            for n in range(CELLS)
        ]
        found = sum(len(done.logprobs) for done in batch(requests) if done is not None)
        assert found == CELLS * tokens, "a cell stopped early"
        again.append(batch.reruns)

    def theirs() -> None:
        for seed in range(CELLS):
            torch.manual_seed(seed)
            subject.peer.generate(
                given,
                attention_mask=torch.ones_like(given),
                do_sample=True,
                temperature=FILTERS.temperature,
                top_k=FILTERS.top_k,
                top_p=FILTERS.top_p,
                max_new_tokens=tokens,
            )

    def rate(seconds: float) -> float:
        return CELLS * tokens / seconds

    with quiet_libraries(allowed=False):
        found = alternate(
            {
                "ours": lambda: rate(watch.seconds(ours)),
                "theirs": lambda: rate(watch.seconds(theirs)),
            },
            repeat,
        )
    note = (
        f"prompt of {len(ids)} tokens counted; cells run a second time alone, because a draw was "
        f"close: {sum(again) / len(again):.2g} of {CELLS}; {subject.how}"
    )
    yield Row("sweep", subject.label, f"{CELLS} cells of {tokens} tokens; {FILTERED_WORDS}",
              f"generate, called {CELLS} times", "tokens/s", found["ours"], found["theirs"],
              at_least(4), note)  # fmt: skip


def process_rows(folder: Path, device: str, repeat: int, quick: bool) -> Iterator[Row]:
    """A sweep's process against a shell loop of `decodecli generate`, start-up and all."""
    folder.mkdir(parents=True, exist_ok=True)
    env = environment(folder)
    cells, tokens = (2, 4) if quick else (CELLS, _TOKENS)
    common = (_PROMPT, "-n", str(tokens), "--top-p", "0.9", "--device", device, "--quiet")
    sweep = (*PROGRAM, "sweep", *common, "--seeds", f"0..{cells - 1}", "--format", "jsonl")
    made: list[int] = []
    watch = Stopwatch()

    def ours() -> None:
        lines = run_quietly(sweep, env).splitlines()
        if len(lines) != cells:
            raise DecodeError(f"the sweep gave {len(lines)} cells of {cells}")
        made.append(sum(json.loads(line)["new_tokens"] for line in lines))

    def theirs() -> None:
        for seed in range(cells):
            run_quietly((*PROGRAM, "generate", *common, "--seed", str(seed)), env)

    ours()
    found = alternate(
        {
            "ours": lambda: made[0] / watch.seconds(ours),
            "theirs": lambda: made[0] / watch.seconds(theirs),
        },
        repeat,
        warm_up=False,
    )
    yield Row("sweep", "built-in model", f"decodecli sweep, {cells} cells of {tokens} tokens at most",
              f"a shell loop of {cells} decodecli generate", "tokens/s", found["ours"],
              found["theirs"], at_least(8), "start-up counted")  # fmt: skip
