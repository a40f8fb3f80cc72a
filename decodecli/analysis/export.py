"""Full logits with the token table, to a file that other tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from decodecli.csv_text import csv_text
from decodecli.errors import UsageError, WriteError
from decodecli.models.loading import LanguageModel
from decodecli.records.distribution import DistributionReport
from decodecli.sampling import reference as d


def save_logits(path: str, lm: LanguageModel, logits: d.Floats, report: DistributionReport) -> None:
    """Write `logits` (vocab,) and each token's piece, in the format that the suffix names.

    `.safetensors` and `.npz` hold the array `logits` as float32, the tokens as JSON in the metadata or
    as an array of strings; `.csv` has the columns token_id, token, logit, logprob; `.json` an object
    with the prompt, the model and a list of those.

    Raises:
        UsageError: an unknown suffix, or a folder that is not there.
        WriteError: the file cannot be written.
    """
    target = Path(path).expanduser()
    write = {
        ".safetensors": _safetensors,
        ".npz": _npz,
        ".csv": _csv,
        ".json": _json,
    }.get(target.suffix)
    if write is None:
        raise UsageError(f"--save {path}: unknown suffix", "one of .safetensors, .npz, .csv, .json")
    if not target.parent.is_dir():
        raise UsageError(f"--save {path}: there is no folder {target.parent}", "make it first")
    tokens = [lm.piece(token_id) for token_id in range(logits.size)]
    try:
        write(target, logits, tokens, report)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}", "choose another file") from error


def _about(report: DistributionReport) -> dict[str, Any]:
    found = report.as_dict()
    return {key: found[key] for key in ("model", "prompt", "prompt_ids")}


def _safetensors(
    path: Path, logits: d.Floats, tokens: list[str], report: DistributionReport
) -> None:
    from safetensors.numpy import save_file

    about = {key: json.dumps(value, ensure_ascii=False) for key, value in _about(report).items()}
    about["tokens"] = json.dumps(tokens, ensure_ascii=False)
    save_file({"logits": logits.astype(np.float32)}, path, metadata=about)


def _npz(path: Path, logits: d.Floats, tokens: list[str], report: DistributionReport) -> None:
    np.savez(
        path,
        logits=logits.astype(np.float32),
        tokens=np.array(tokens),
        prompt_ids=np.array(report.prompt_ids),
        about=np.array(json.dumps(_about(report), ensure_ascii=False)),
    )


def _rows(logits: d.Floats, tokens: list[str]) -> list[dict[str, Any]]:
    logprobs = d.log_softmax(logits)
    return [
        {"token_id": i, "token": token, "logit": float(logits[i]), "logprob": float(logprobs[i])}
        for i, token in enumerate(tokens)
    ]


def _csv(path: Path, logits: d.Floats, tokens: list[str], report: DistributionReport) -> None:
    rows = _rows(logits, tokens)
    text = csv_text([rows[0], *(row.values() for row in rows)])
    path.write_text(text, encoding="utf-8", newline="")


def _json(path: Path, logits: d.Floats, tokens: list[str], report: DistributionReport) -> None:
    found = {**_about(report), "tokens": _rows(logits, tokens)}
    path.write_text(json.dumps(found, ensure_ascii=False, allow_nan=False), encoding="utf-8")
