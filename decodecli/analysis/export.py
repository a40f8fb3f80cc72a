"""Full logits with the token table, to a file that other tools read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from decodecli.csv_text import csv_text
from decodecli.errors import UsageError, WriteError
from decodecli.models.loading import LanguageModel
from decodecli.records.distribution import DistributionReport
from decodecli.sampling.reference import Floats, log_softmax

SUFFIXES = (".safetensors", ".npz", ".csv", ".json")


def save_logits(path: str, lm: LanguageModel, logits: Floats, report: DistributionReport) -> None:
    """Write `logits` (vocab,) and each token's piece, in the format that the suffix names.

    `.safetensors` and `.npz` hold the array `logits` as float32, the tokens as JSON in the metadata or
    as an array of strings; `.csv` has the columns token_id, token, logit, logprob; `.json` an object
    with the prompt, the model and a list of those.

    Raises:
        UsageError: an unknown suffix, or a folder that is not there.
        WriteError: the file cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix not in SUFFIXES:
        raise UsageError(f"--save {path}: unknown suffix", f"one of {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise UsageError(f"--save {path}: there is no folder {target.parent}", "make it first")
    tokens = [lm.piece(token_id) for token_id in range(logits.size)]
    origin = {
        "model": None if report.model is None else asdict(report.model),
        "prompt": report.prompt,
        "prompt_ids": list(report.prompt_ids),
    }
    try:
        if target.suffix in (".safetensors", ".npz"):
            _save_arrays(target, logits.astype(np.float32), tokens, origin)
        else:
            _save_table(target, logits, tokens, origin)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


def _save_arrays(path: Path, logits: Any, tokens: list[str], origin: dict[str, Any]) -> None:
    if path.suffix == ".npz":
        ids, about = np.array(origin["prompt_ids"]), np.array(_json(origin))
        np.savez(path, logits=logits, tokens=np.array(tokens), prompt_ids=ids, about=about)
        return
    from safetensors.numpy import save_file

    metadata = {key: _json(value) for key, value in {**origin, "tokens": tokens}.items()}
    save_file({"logits": logits}, path, metadata=metadata)


def _save_table(path: Path, logits: Floats, tokens: list[str], origin: dict[str, Any]) -> None:
    columns = ("token_id", "token", "logit", "logprob")
    numbers = (logits.tolist(), log_softmax(logits).tolist())
    rows = list(zip(range(logits.size), tokens, *numbers, strict=True))
    if path.suffix == ".csv":
        path.write_text(csv_text([columns, *rows]), encoding="utf-8", newline="")
    else:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        path.write_text(_json({**origin, "tokens": records}), encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
