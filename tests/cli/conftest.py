"""What the command-line tests share: calls with real byte streams, and models that say what we like.

`cli` runs a command in this process; `spawn` runs the real program. `scripted` makes a folder with a
model whose distribution is the same at every step, so that what it will say is known.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny_models import TINY_MODELS, save_tiny_model

# Two greedy threads beside another busy process cost more than they give to models this small.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def strict_json(text: str) -> Any:
    """Parsed JSON; NaN, Infinity and repeated keys are not JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a key stands twice"
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)


def parse_trace(data: bytes | str) -> list[dict[str, Any]]:
    """The records of strict JSONL: UTF-8, every line ended, one object a line."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    assert text.endswith("\n"), "the last line is not ended"
    records = [strict_json(line) for line in text.removesuffix("\n").split("\n")]
    assert all(isinstance(record, dict) for record in records)
    return records


@dataclass
class Result:
    """How a command ended, and what it wrote to each stream."""

    code: int
    raw: bytes
    err: str
    folder: str = field(default="", repr=False)

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8")

    @property
    def records(self) -> list[dict[str, Any]]:
        return parse_trace(self.raw)

    @property
    def header(self) -> dict[str, Any]:
        return self.records[0]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["type"] == "step"]

    @property
    def summary(self) -> dict[str, Any]:
        return self.records[-1]

    def succeeded(self) -> Result:
        assert self.code == 0, self.err
        return self

    def refused(self, code: int, *words: str) -> Result:
        """Check an error: its exit code, a line on what is wrong, one on what to do, nothing more."""
        assert self.code == code, f"exit {self.code}, not {code}: {self.err}"
        assert self.raw == b"", "an error leaves stdout alone"
        assert "Traceback" not in self.err
        lines = self.err.rstrip("\n").split("\n")
        assert lines[0].startswith("Error: "), self.err
        assert len(lines) == 2, f"not what is wrong, and what to do: {self.err}"
        assert lines[1].strip()
        for line in lines:
            shortened = line.replace(self.folder, "…") if self.folder else line
            assert len(shortened) <= 170, f"too long to read at a glance: {line}"
        assert "unexpected" not in lines[0], f"not foreseen: {self.err}"
        for word in words:
            assert word.lower() in self.err.lower(), f"{word!r} is not in: {self.err}"
        return self


class Bytes(io.BytesIO):
    """A byte stream that acts up from its `after`-th write on, if told to; it knows its flushes."""

    def __init__(self, trouble: Callable[[], None] | None = None, after: int = 0) -> None:
        super().__init__()
        self.trouble, self.after, self.writes = trouble, after, 0

    def write(self, data: Any) -> int:
        if data:
            self.writes += 1
        if self.trouble is not None and data and self.writes > self.after:
            self.trouble()
        return super().write(data)


class Stream(io.TextIOWrapper):
    """A text stream over bytes that may say it is a terminal."""

    def __init__(self, raw: io.BytesIO, terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(raw, encoding=encoding, newline="\n", write_through=True)
        self._is_terminal = terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """Run a command here: `cli("generate", …, stdin=b"…") -> Result`.

    stdin: bytes, None for a closed one, or a stream; by default a terminal with nobody typing.
    stdout, stderr: a `Bytes` that acts up; terminal: whether stdout says it is one.
    app: another Typer program than decodecli.
    """
    from decodecli.cli import app as main

    class Untyped(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("stdin was read")

        readline = readinto = read1 = readlines = read

    def run(
        *arguments: str | Path,
        stdin: Any = ...,
        stdout: Bytes | None = None,
        stderr: Bytes | None = None,
        terminal: bool = False,
        encoding: str = "utf-8",
        env: dict[str, str] | None = None,
        app: Any = main.app,
    ) -> Result:
        out, err = stdout or Bytes(), stderr or Bytes()
        source = stdin
        if stdin is ...:
            source = Stream(Untyped(), terminal=True)
        elif isinstance(stdin, bytes):
            source = Stream(io.BytesIO(stdin))
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", "100")
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", source)
            patch.setattr(sys, "stdout", Stream(out, terminal, encoding))
            patch.setattr(sys, "stderr", Stream(err, encoding=encoding))
            try:
                app([str(word) for word in arguments], prog_name="decodecli")
                code: Any = 0
            except SystemExit as end:
                code = end.code
            for stream, plain in ((sys.stdout, out), (sys.stderr, err)):
                plain.trouble = None
                stream.detach()  # else its end would close the bytes
        assert code is None or isinstance(code, int)
        return Result(code or 0, out.getvalue(), err.getvalue().decode("utf-8"), str(tmp_path))

    return run


@pytest.fixture
def misbehaving():
    """`misbehaving(trouble, after=n)`: bytes for `cli(stdout=…)` on which writing calls `trouble`."""
    return Bytes


@pytest.fixture
def as_stream():
    """`as_stream(raw, terminal=False)`: a text stream for `cli(stdin=…)`."""
    return Stream


@pytest.fixture
def read_trace():
    """`read_trace(path_or_bytes)`: the records of strict JSONL."""
    return lambda source: parse_trace(source.read_bytes() if isinstance(source, Path) else source)


@pytest.fixture
def strict():
    """`json.loads` that refuses NaN, Infinity and repeated keys."""
    return strict_json


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """The environment of a real process: quiet, offline, with no configuration of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DECODECLI_")}
    for name in (
        "NO_COLOR",
        "FORCE_COLOR",
        "PYTHONUNBUFFERED",
        "PYTHONIOENCODING",
        "PYTEST_ADDOPTS",
    ):
        kept.pop(name, None)
    program = str(Path(sys.executable).parent)
    return {
        **kept,
        **ENVIRONMENT,
        "TERM": "xterm-256color",
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "DECODECLI_CACHE": str(tmp_path / "cache"),
        "PATH": program + os.pathsep + kept.get("PATH", ""),
        "PYTHON": sys.executable,
    }


@pytest.fixture
def shell(environment, tmp_path):
    """Run a line of bash in which `decodecli` is the real program."""

    def run(script: str, timeout: float = 120, **env: str) -> Result:
        # The installed script may be that of another checkout; this is always ours.
        preamble = 'decodecli() { "$PYTHON" -m decodecli "$@"; }\n'
        done = subprocess.run(
            ["bash", "-c", preamble + script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**environment, **env},
            cwd=tmp_path,
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode("utf-8"), str(tmp_path))

    return run


WORDS = (" Tokyo", " and", " the", " rain", ",", ".", "\n", " garden", "é", " 東京", "END", " of")


def byte_alphabet() -> dict[int, str]:
    """GPT-2's way to spell a byte as a printable character."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(others)}


def byte_tokenizer(words: tuple[str | bytes, ...], bos: bool) -> Any:
    """A byte-level tokenizer: one token a byte, whole `words` that it can say, no BOS unless asked.

    Text is always encoded byte by byte: the words have no merges.
    """
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    alphabet = byte_alphabet()
    pieces = ["<|end|>", "<|turn|>", "<s>", *alphabet.values()]
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        pieces.append("".join(alphabet[byte] for byte in data))
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    inner = tk.Tokenizer(tk.models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = tk.decoders.ByteLevel()
    special = {"eos_token": "<|end|>", "additional_special_tokens": ["<|turn|>"]}
    if bos:
        special["bos_token"] = "<s>"
        inner.post_processor = tk.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, clean_up_tokenization_spaces=False, **special
    )


@pytest.fixture
def scripted(tmp_path):
    """Make a folder with a model that says what it is told.

    Its distribution is the same at every step: the `says` have the highest logits, in that order, 0.5
    apart. With `--greedy --no-repeat-ngram-size 1` it says them one after the other.

    says: words (whole tokens), bytes, or "<|end|>" and "<|turn|>", the special ones.
    poison: (word, value): once this word has been fed, every logit is `value`.
    positions: the length of the context.
    generation: further keys of generation_config.json.
    """

    def make(
        *says: str | bytes,
        bos: bool = False,
        poison: tuple[str, float] | None = None,
        positions: int = 256,
        template: str | None = None,
        generation: dict[str, Any] | None = None,
        name: str = "scripted",
    ) -> Path:
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        says = says or WORDS
        tokenizer = byte_tokenizer(tuple(w for w in says if w not in ("<|end|>", "<|turn|>")), bos)
        if template is not None:
            tokenizer.chat_template = template
        alphabet = byte_alphabet()

        def id_of(word: str | bytes) -> int:
            if isinstance(word, str) and word in [*tokenizer.all_special_tokens, "<|turn|>"]:
                return tokenizer.convert_tokens_to_ids(word)
            data = word.encode() if isinstance(word, str) else word
            return tokenizer.convert_tokens_to_ids("".join(alphabet[byte] for byte in data))

        ids = [id_of(word) for word in says]
        assert len(set(ids)) == len(ids)
        network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=positions,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                tie_word_embeddings=False,
            )
        ).eval()  # fmt: skip
        with torch.no_grad():
            # The last norm answers (1, 0, 0, …) whatever comes in, so the head's first column is
            # the logits; a value in an embedding that is not finite still comes through.
            network.transformer.ln_f.weight.zero_()
            network.transformer.ln_f.bias.zero_()
            network.transformer.ln_f.bias[0] = 1
            head = network.lm_head.weight
            head.zero_()
            head[:, 0] = -6 - 0.001 * torch.arange(len(head))
            for rank, token in enumerate(ids):
                head[token, 0] = 4 - 0.5 * rank
            if poison is not None:
                network.transformer.wte.weight[id_of(poison[0])] = poison[1]
        folder = tmp_path / name
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if generation is not None:
            chosen = {
                key: [id_of(v) for v in value] if key == "eos_token_id" else value
                for key, value in generation.items()
            }
            (folder / "generation_config.json").write_text(json.dumps(chosen))
        return folder

    return make


@pytest.fixture(scope="session", params=TINY_MODELS)
def tiny_model(request, tmp_path_factory) -> Path:
    """The folders of random models with 32 to 4,096 tokens, one after the other: what a command does
    with one model, it does with all."""
    return save_tiny_model(tmp_path_factory.mktemp(request.param) / request.param, request.param)


# What makes a scripted model say its words in order.
IN_ORDER = ("--greedy", "--no-repeat-ngram-size", "1")


@pytest.fixture
def in_order() -> tuple[str, ...]:
    return IN_ORDER


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny Llama's folder, to be damaged."""

    def make(name: str = "model") -> Path:
        return Path(shutil.copytree(tiny_folder, tmp_path / name))

    return make


@pytest.fixture
def edit_json():
    """`edit_json(path, key=value)`: set keys of a JSON file; None takes a key out."""

    def edit(path: Path, **changes: Any) -> None:
        found = json.loads(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            found.pop(key, None)
            if value is not None:
                found[key] = value
        path.write_text(json.dumps(found), encoding="utf-8")

    return edit


@pytest.fixture
def user_file():
    """`user_file("top_k = 3")`: write the user's own configuration file."""
    from decodecli.config import user_config_path

    def write(text: str) -> Path:
        path = user_config_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def toml(tmp_path):
    """`toml("top_k = 3")`: a file for --config."""

    def write(text: str, name: str = "run.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B])")


@pytest.fixture
def without_styles():
    """Take out the escape sequences that colour and move, which a view may write."""
    return lambda text: _ESCAPE.sub("", text)
