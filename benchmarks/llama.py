"""The peer llama.cpp through llama-cpp-python, on a model of the same shape: a Q4_0 body, and an
output matrix that is exact (16-bit), as ours is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Row, Target, at_least, compared
from benchmarks.subjects import FILTERED_WORDS, FILTERS, Subject, is_quantized, traced
from decodecli.analysis.timing import alternate

_HEADS = ("f16", "bf16")
_PEER = "llama.cpp Q4_0"
_OURS = f"full trace, 10 candidates; {FILTERED_WORDS}"
_Q4_BLOCK, _Q4_BYTES = 32, 18  # a block of Q4_0: a float16 scale and 32 numbers of 4 bits


def why_not(precision: str, on_gpu: bool, architecture: str) -> str:
    """Why the peer cannot be measured on such a model here, or ""."""
    if on_gpu:
        return "measured on a CPU only"
    if not is_quantized(precision):
        return "only for 4-bit weights: add --quantize nf4"
    if architecture != "llama":
        return f"only for the Llama architecture, and this is {architecture}"
    modules = {"llama-cpp-python": "llama_cpp", "gguf": "gguf"}
    missing = [name for name, module in modules.items() if not importlib.util.find_spec(module)]
    if missing:
        return f"not installed: {' and '.join(missing)} (pip install llama-cpp-python gguf)"
    return ""


def llama_rows(subject: Subject, repeat: int, folder: Path) -> Iterator[Row]:
    """Our 4-bit tokens/s against llama.cpp's Q4_0, same threads, same filters."""
    config = subject.peer.config
    if reason := why_not(subject.precision, subject.on_gpu, config.model_type):
        yield Row("llama", subject.label, _OURS, _PEER, skipped=reason)
        return
    folder.mkdir(parents=True, exist_ok=True)
    run = traced(subject, FILTERS)
    for head in _HEADS:
        file = write_gguf(folder / f"{head}.gguf", config, head)
        try:
            name = f"{_PEER}, output head in {head}"
            if problem := crash(file):
                yield Row("llama", subject.label, _OURS, name, skipped=problem)
                continue
            with_peer = _Peer(file, subject)
            sides = {
                _OURS: _rate(subject, run),
                name: _rate(subject, with_peer.generate),
            }
            found = alternate(sides, repeat)
            targets: dict[str, Target] = {}
            if subject.precision.startswith("nf4") and subject.name != "builtin":
                targets[name] = at_least(0.6)
            note = f"the stretch is 0.7; random weights of the same shape; {subject.how}"
            yield from compared("llama", subject.label, _OURS, found, "tokens/s", targets, note)
            with_peer.close()
        finally:
            file.unlink()


def _rate(subject: Subject, run: Callable[[int], None]) -> Callable[[], float]:
    return lambda: subject.speed.tokens_per_second(run)


def crash(file: Path) -> str:
    """Try the file in a process of its own, for llama.cpp ends a process that it cannot go on in;
    the complaint, or ""."""
    script = (
        "import sys, llama_cpp\n"
        "model = llama_cpp.Llama(sys.argv[1], n_ctx=32, verbose=False)\n"
        "model.eval([300])\nmodel.eval([301])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [""]
    return f"llama.cpp fails ({done.returncode}): {lines[-1][:120]}"


class _Peer:
    """A GGUF file in llama.cpp."""

    def __init__(self, file: Path, subject: Subject) -> None:
        import llama_cpp
        import torch

        self._prompt = list(subject.prompt)
        self._model = llama_cpp.Llama(
            str(file),
            n_ctx=len(self._prompt) + subject.speed.long + 8,
            n_threads=torch.get_num_threads(),
            n_threads_batch=torch.get_num_threads(),
            seed=0,
            verbose=False,
        )

    def generate(self, count: int) -> None:
        """`count` tokens after the prompt, drawn by llama.cpp's own sampler."""
        self._model.reset()
        for token in self._prompt:  # one by one: its kernels for batches crash on some machines
            self._model.eval([token])
        for number in range(count):
            token = self._model.sample(
                top_k=FILTERS.top_k,
                top_p=FILTERS.top_p,
                min_p=0.0,
                temp=FILTERS.temperature,
                repeat_penalty=1.0,
            )
            if number + 1 < count:
                self._model.eval([token])

    def close(self) -> None:
        self._model.close()


def write_gguf(path: Path, config: Any, head: str) -> Path:
    """A random Llama of this configuration: matrices in Q4_0, embeddings and output in `head`."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    _write_settings(writer, config, size)
    _write_tensors(_Random(writer, head), config, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_settings(writer: Any, config: Any, size: int) -> None:
    writer.add_context_length(min(config.max_position_embeddings, 8192))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")


def _write_tensors(random: _Random, config: Any, size: int) -> None:
    width, wide = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * size
    keys_values = (config.num_key_value_heads or config.num_attention_heads) * size
    random.exact("token_embd.weight", config.vocab_size, width)
    random.norm("output_norm.weight", width, 3.0)
    if not config.tie_word_embeddings:
        random.exact("output.weight", config.vocab_size, width)
    for layer in range(config.num_hidden_layers):
        block = f"blk.{layer}"
        random.norm(f"{block}.attn_norm.weight", width)
        random.norm(f"{block}.ffn_norm.weight", width)
        random.matrix(f"{block}.attn_q.weight", queries, width)
        random.matrix(f"{block}.attn_k.weight", keys_values, width)
        random.matrix(f"{block}.attn_v.weight", keys_values, width)
        random.matrix(f"{block}.attn_output.weight", width, queries)
        random.matrix(f"{block}.ffn_gate.weight", wide, width)
        random.matrix(f"{block}.ffn_up.weight", wide, width)
        random.matrix(f"{block}.ffn_down.weight", width, wide)


class _Random:
    """Random tensors for a GGUF file, the same each time; exact ones in the type `head`."""

    def __init__(self, writer: Any, head: str) -> None:
        import numpy as np

        self._writer, self._head = writer, head
        self._random = np.random.default_rng(0)

    def matrix(self, name: str, rows: int, columns: int) -> None:
        """In Q4_0."""
        import gguf
        import numpy as np

        blocks = rows * columns // _Q4_BLOCK
        data = np.resize(
            self._random.integers(0, 256, (1 << 16, _Q4_BYTES), np.uint8), (blocks, _Q4_BYTES)
        )
        data[:, :2] = np.array([0.005], np.float16).view(np.uint8)
        packed = data.reshape(rows, columns // _Q4_BLOCK * _Q4_BYTES)
        self._writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def exact(self, name: str, rows: int, columns: int) -> None:
        import gguf
        import numpy as np

        values = np.resize(
            self._random.standard_normal(1 << 22, np.float32) * 0.02, (rows, columns)
        )
        if self._head == "f16":
            self._writer.add_tensor(name, values.astype(np.float16))
            return
        halves = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        self._writer.add_tensor(name, halves, raw_dtype=gguf.GGMLQuantizationType.BF16)

    def norm(self, name: str, width: int, scale: float = 1.0) -> None:
        import numpy as np

        self._writer.add_tensor(name, np.full(width, scale, np.float32))
