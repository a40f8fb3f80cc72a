"""Loading: quantizing on the way against the cache of quantized weights, and the first forward."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.plan import dtype_and_scheme
from benchmarks.programs import environment, run_quietly
from benchmarks.report import Row, at_most
from decodecli.analysis.timing import Samples

_LARGE = 1_000_000_000  # parameters from which the targets count

# Imports come before the clock: they are the same for both sides, and `start` measures them.
CHILD = """
import json, sys, time
source, device, dtype, scheme = sys.argv[1:]
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
if scheme != "none":
    import bitsandbytes
import decodecli
from decodecli.decoding.prompt import prefill

def timed(run):
    start = time.perf_counter()
    found = run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return found, time.perf_counter() - start

lm, load = timed(lambda: decodecli.load(source, device=device, dtype=dtype, quantize=scheme,
                                        auto_threads=True))
ids = [number % lm.info.vocab_size for number in range(300, 316)]
forwards = [timed(lambda: prefill(lm, ids))[1] for _ in range(4)]
print(json.dumps({"parameters": lm.info.parameters, "load": load, "forwards": forwards}))
"""


def load_rows(
    source: str, label: str, precision: str, folder: Path, device: str, repeat: int
) -> Iterator[Row]:
    """Two loads in processes of their own for each repetition, the first with an empty cache."""
    import statistics

    dtype, scheme = dtype_and_scheme(precision)
    words = (sys.executable, "-c", CHILD, source, device, dtype, scheme)
    folder.mkdir(parents=True, exist_ok=True)
    first_load, second_load, first, steady, parameters = [], [], [], [], 0
    for _ in range(repeat):
        cache = folder / "quantized"
        env = environment(folder, DECODECLI_CACHE=str(cache))
        cold = json.loads(run_quietly(words, env).splitlines()[-1])
        cached = json.loads(run_quietly(words, env).splitlines()[-1])
        shutil.rmtree(cache, ignore_errors=True)
        first_load.append(cold["load"])
        second_load.append(cached["load"])
        first.append(cached["forwards"][0])
        steady.append(statistics.median(cached["forwards"][1:]))
        parameters = cold["parameters"]
    target = at_most(0.1) if parameters >= _LARGE else None
    note = "imports not counted; the file with the weights is in the system's cache for both"
    yield Row("load", label, "second load, from the cache", "first load, quantizing", "s",
              Samples(tuple(second_load)), Samples(tuple(first_load)), target, note)  # fmt: skip
    yield Row("load", label, "first forward after a cached load", "a steady one", "s",
              Samples(tuple(first)), Samples(tuple(steady)),
              at_most(2) if parameters >= _LARGE else None, "16 tokens")  # fmt: skip
